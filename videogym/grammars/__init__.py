"""Text in, moves out; states in, messages out: how text policies speak with an environment."""

from videogym.grammars.base import FramePart, Grammar, Message, Part, Role, TextPart
from videogym.grammars.conversation import with_subtitles
from videogym.grammars.eva import EVA
from videogym.grammars.longvt import LongVT
from videogym.grammars.native import Native
from videogym.grammars.paravt import ParaVT
from videogym.grammars.prompted import Prompted, check_prompt, prompted
from videogym.grammars.prompts import Prompt, PromptError, load_prompt, parse_prompt
from videogym.grammars.published import compared
from videogym.grammars.video_mtr import VideoMTR
from videogym.grammars.video_zoomer import VideoZoomer
from videogym.grammars.wrapper import GrammarWrapper

__all__ = [
    "FramePart",
    "Grammar",
    "GrammarWrapper",
    "Message",
    "Part",
    "Prompt",
    "PromptError",
    "Prompted",
    "Role",
    "TextPart",
    "check_prompt",
    "compared",
    "get_grammar",
    "grammar_names",
    "load_prompt",
    "parse_prompt",
    "prompted",
    "with_subtitles",
]

_GRAMMARS: tuple[Grammar, ...] = (
    VideoMTR("strict"),
    VideoMTR("code"),
    LongVT("strict"),
    LongVT("code"),
    VideoZoomer("strict"),
    VideoZoomer("code"),
    ParaVT("strict"),
    ParaVT("code"),
    EVA(),
    Native(),
)
_PARTS = ("name", "tools", "messages", "parse", "write")  # of `Grammar`


def grammar_names() -> tuple[str, ...]:
    """All names that `get_grammar` knows."""
    return tuple(grammar.name for grammar in _GRAMMARS)


def get_grammar(grammar: str | Grammar) -> Grammar:
    """The grammar of a name; a grammar itself is given back as it is.

    Raises:
        ValueError: there is none of this name, which the message lists, or the object is no `Grammar`.
    """
    if not isinstance(grammar, str):
        missing = [part for part in _PARTS if not hasattr(grammar, part)]
        if missing:
            raise ValueError(
                f"a grammar is a name or has {', '.join(_PARTS)}; {grammar!r} lacks {missing[0]}"
            )
        return grammar
    for known in _GRAMMARS:
        if known.name == grammar:
            return known
    raise ValueError(
        f"unknown grammar {grammar!r}; known: {', '.join(grammar_names())}, or a grammar object"
    )
