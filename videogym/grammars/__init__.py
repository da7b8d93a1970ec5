"""Text in, moves out; states in, messages out: how text policies speak with an environment."""

from videogym.grammars.base import FramePart, Grammar, Message, Part, Role, TextPart
from videogym.grammars.longvt import LongVT
from videogym.grammars.native import Native
from videogym.grammars.video_mtr import VideoMTR

__all__ = ["FramePart", "Grammar", "Message", "Part", "Role", "TextPart", "get_grammar", "grammar_names"]

_GRAMMARS: tuple[Grammar, ...] = (
    VideoMTR("strict"),
    VideoMTR("code"),
    LongVT("strict"),
    LongVT("code"),
    Native(),
)


def grammar_names() -> tuple[str, ...]:
    """All names that `get_grammar` knows."""
    return tuple(grammar.name for grammar in _GRAMMARS)


def get_grammar(name: str) -> Grammar:
    """The named grammar.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    for grammar in _GRAMMARS:
        if grammar.name == name:
            return grammar
    raise ValueError(f"unknown grammar {name!r}; known: {', '.join(grammar_names())}")
