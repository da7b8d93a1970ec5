"""The words in which the steps ask; each prompt can be replaced by a file.

A prompt is a `string.Template` whose places are filled with numbers and JSON strings, so that what a model
or a file says stays data. Frames follow the text. Ours lie beside this module.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from videogym.judging.language_model import RUBRIC, quoted

# What stands in each prompt; all of it must.
PROMPT_PLACES: Mapping[str, frozenset[str]] = {
    "caption": frozenset({"start_s", "end_s"}),
    "questions": frozenset({"segments", "count", "duration_s"}),
    "blind": frozenset({"question"}),
    "skim": frozenset({"question"}),
    "verify": frozenset({"question", "answer"}),
    "judge": frozenset({"question", "reference", "answer"}),
    "teach": frozenset({"tools"}),
    "hint": frozenset({"start_s", "end_s"}),
}


@dataclass(frozen=True)
class StepPrompt:
    """One prompt."""

    name: str  # of `PROMPT_PLACES`
    text: str

    def __post_init__(self) -> None:
        template, places = Template(self.text), PROMPT_PLACES[self.name]
        if not template.is_valid() or set(template.get_identifiers()) != places:
            needed = ", ".join(f"${place}" for place in sorted(places))
            raise ValueError(
                f"the prompt {self.name!r} needs {needed} and no other $ (write $$ for a dollar), "
                f"got {self.text!r:.200}"
            )

    @property
    def identity(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    def fill(self, **values: Any) -> str:
        """The text with these values: texts become JSON strings, seconds have two decimals, lists lines."""
        return Template(self.text).substitute({name: _written(value) for name, value in values.items()})


def step_prompt(name: str, path: str | os.PathLike[str] | None = None) -> StepPrompt:
    """Our prompt of a name, or the one in a file.

    Raises:
        ValueError: there is no such name, the file is not UTF-8, or a place is missing or unknown.
        OSError: the file cannot be read.
    """
    if name not in PROMPT_PLACES:
        raise ValueError(f"a prompt is one of {', '.join(PROMPT_PLACES)}, got {name!r}")
    if path is None and name == "judge":
        return StepPrompt(name, RUBRIC)
    if path is None:
        ours = files("videogym.data").joinpath("prompts", f"{name}.txt")
        return StepPrompt(name, ours.read_text("utf-8"))
    try:
        return StepPrompt(name, Path(path).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{os.fspath(path)}: not UTF-8: {error.reason}") from error
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list):
        return "\n".join(value)
    return quoted(value) if isinstance(value, str) else str(value)
