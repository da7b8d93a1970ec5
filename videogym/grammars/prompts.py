"""Prompts: the words around an episode, given as a file where those of a grammar are not the ones wanted.

A released checkpoint was trained behind words of its own. A `Prompt` holds them, with named places for
what differs from episode to episode; a grammar goes on reading and writing actions. Which text was
published for which system is told by `videogym.grammars.published`.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from os import PathLike
from pathlib import Path
from typing import NamedTuple

MAX_BYTES = 32_768  # of a prompt file
_PLACE = re.compile(r"\{\{(?P<spelt>[a-z_]+)\}\}|\{(?P<name>[a-z_]+)(?::\.(?P<digits>\d)f)?\}")
NUMBERS = ("duration", "time", "start", "end")  # seconds; these places take a precision: {time:.1f}

_EPISODE = ("path", "duration", "whole_seconds", "short_side", "max_turns")
_TURN = (*_EPISODE, "turn", "turns_left", "last_index")
_ASKING = (*_TURN, "question", "options", "instruction", "answer_form")
_SHOWING = (*_ASKING, "frames", "frame_count", "frame_indices")
PLACES: dict[str, tuple[str, ...]] = {
    "system": (*_EPISODE, "tools"),
    "question": _SHOWING,
    "reply": (*_SHOWING, "start", "end"),
    "refusal": (*_ASKING, "reason"),
    "unreadable": (*_ASKING, "reason"),
    "instruction": (*_TURN, "answer_form"),
    "last_instruction": (*_TURN, "answer_form"),
    "frame": ("image", "index", "number", "time", "clock"),
    "options": ("lines", "list"),
    "choice": _TURN,
    "numeric": _TURN,
    "open": _TURN,
}
_NEEDED = {
    "question": ("frames", "question", "options"),
    "reply": ("frames",),
    "refusal": ("reason",),
    "unreadable": ("reason",),
    "frame": ("image",),
}
_ONCE = ("frames", "image")  # places of frames: each is shown once
FORMS = ("choice", "numeric", "open")  # fields that tell how to answer, by kind of task


class PromptError(ValueError):
    """A prompt cannot be used; the message names file, field and place."""


class PromptPlace(NamedTuple):
    """A named place in a text."""

    name: str
    digits: int | None = None  # after the point, of a number of seconds


@cache
def split_places(text: str) -> tuple[str | PromptPlace, ...]:
    """A text as its characters and its places, in turn.

    A place is a name of small letters in braces. Any other braces are characters, such as those of
    JSON; a name in double braces, ``{{name}}``, is the characters ``{name}``.
    """
    pieces: list[str | PromptPlace] = []
    end = 0
    for match in _PLACE.finditer(text):
        pieces.append(text[end : match.start()])
        digits = match["digits"]
        if match["spelt"]:
            pieces.append(f"{{{match['spelt']}}}")
        else:
            pieces.append(PromptPlace(match["name"], None if digits is None else int(digits)))
        end = match.end()
    return tuple(piece for piece in (*pieces, text[end:]) if piece != "")


def places(text: str | None) -> list[str]:
    """The names of the places in a text, in order."""
    return [piece.name for piece in split_places(text or "") if isinstance(piece, PromptPlace)]


@dataclass(frozen=True)
class Prompt:
    """The words of a conversation; None: those of the grammar.

    Raises:
        PromptError: a place is unknown or missing, or nothing is given.
    """

    system: str | None = None  # the system message; the block of tools follows, unless {tools} is in it
    question: str | None = None  # the first message of the user
    reply: str | None = None  # what answers a look
    refusal: str | None = None  # what answers an action that was refused
    unreadable: str | None = None  # what answers an output that could not be read; None: as a refusal
    instruction: str | None = None  # stands at {instruction}
    last_instruction: str | None = None  # stands there instead where the last turn is asked for
    frame: str | None = None  # one frame and what is written around it
    options: str | None = None  # stands at {options} where a task has any; None: one a line
    choice: str | None = None  # stands at {answer_form}, by kind of task
    numeric: str | None = None
    open: str | None = None

    def __post_init__(self) -> None:
        if not self.texts:
            raise PromptError(f"a prompt gives at least one of {', '.join(PLACES)}")
        for field, text in self.texts.items():
            _check_places(field, text)
        if self.options is not None and not places(self.options):
            raise PromptError("options misses {lines} or {list}: the options would not be shown")
        self._check_nested()

    def _check_nested(self) -> None:
        used = [name for text in self.texts.values() for name in places(text)]
        if "instruction" in used and self.instruction is None:
            raise PromptError("{instruction} has a place, but there is no instruction")
        if self.instruction is None and self.last_instruction is not None:
            raise PromptError("last_instruction stands instead of an instruction, which is missing")
        if self.instruction is not None and "instruction" not in places(self.question):
            raise PromptError("question misses {instruction}: the instruction would not be shown")
        missing = [form for form in FORMS if getattr(self, form) is None]
        if "answer_form" in used and missing:
            raise PromptError(f"{{answer_form}} has a place, but {' and '.join(missing)} is missing")
        if "answer_form" not in used and len(missing) < len(FORMS):
            raise PromptError("choice, numeric and open stand at {answer_form}, which has no place")

    @property
    def texts(self) -> dict[str, str]:
        """The fields that are given."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: text for name, text in found.items() if text is not None}

    def file_text(self) -> str:
        """A prompt file that is read as this prompt."""
        # A JSON string is one of TOML's, but for a character that TOML wants escaped.
        quoted = {name: json.dumps(text, ensure_ascii=False) for name, text in self.texts.items()}
        return "".join(f"{name} = {text}\n" for name, text in quoted.items()).replace("\x7f", "\\u007f")


def _check_places(field: str, text: str) -> None:
    if not isinstance(text, str):
        raise PromptError(f"{field} must be a text, got {text!r}")
    known, found = PLACES[field], [piece for piece in split_places(text) if isinstance(piece, PromptPlace)]
    for place in found:
        if place.name not in known:
            near = difflib.get_close_matches(place.name, known, 1)
            hint = f"; did you mean {{{near[0]}}}?" if near else f"; it may have {_braced(known)}"
            raise PromptError(
                f"{field} has the unknown place {{{place.name}}}{hint} As characters, write "
                f"{{{{{place.name}}}}}"
            )
        if place.digits is not None and place.name not in NUMBERS:
            raise PromptError(f"{field}: {{{place.name}}} takes no precision, only {_braced(NUMBERS)} do")
    names = [place.name for place in found]
    for name in _NEEDED.get(field, ()):
        if name not in names:
            raise PromptError(f"{field} misses the place {{{name}}}")
    for name in _ONCE:
        if names.count(name) > 1:
            raise PromptError(f"{field} has the place {{{name}}} {names.count(name)} times, once is right")


def _braced(names: tuple[str, ...]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


def load_prompt(path: str | PathLike[str]) -> Prompt:
    """The prompt of a file: TOML, a text for every field of `Prompt` that is wanted.

    Raises:
        PromptError: the file is empty, too large, not UTF-8 or not TOML, or a field or place is unknown
            or missing.
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        raw = file.read(MAX_BYTES + 1)  # never more, whatever it says its size is
    if len(raw) > MAX_BYTES:
        raise PromptError(f"{path} is no prompt: it has more than {MAX_BYTES:,} bytes")
    try:
        return parse_prompt(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is not UTF-8: byte {error.start} is {raw[error.start]:#04x}") from error
    except PromptError as error:
        raise PromptError(f"{path}: {error}") from error


def parse_prompt(text: str) -> Prompt:
    """The prompt that the text of a prompt file holds.

    Raises:
        PromptError: as `load_prompt`.
    """
    if not text.strip():
        raise PromptError("the file is empty")
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PromptError(f"not TOML, as in system = 'Look closely.': {error}") from error
    for name in found:
        if name not in PLACES:
            near = difflib.get_close_matches(name, PLACES, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(PLACES)}"
            raise PromptError(f"unknown field {name!r}; {hint}")
    return Prompt(**found)
