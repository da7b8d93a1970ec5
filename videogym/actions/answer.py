"""Answer: the one action that ends an episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
from gymnasium.spaces import Discrete

from videogym.actions.arguments import as_text
from videogym.answers import number_of, with_plain_signs
from videogym.spaces import UnicodeText
from videogym.state import Action, Invalid, Rules, State, Turn

MAX_OPTIONS = 26
_TEXT = {"type": "string", "description": "The answer: the letter of an option, a number or a short text"}


@dataclass(frozen=True, slots=True)
class Answer(Action):
    """End the episode with an option letter or a free text; what is no text is None, which is refused."""

    kind: ClassVar[str] = "answer"
    purpose: ClassVar[str] = "Give the final answer. This ends the episode."

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", as_text(self.text))

    @property
    def answer_text(self) -> str | None:
        """The text."""
        return self.text or ""

    def refusal(self, state: State, turn: Turn) -> Invalid | None:
        """Why the answer has not the form that is due, as far as the rules check it."""
        task, rules = state.task, state.rules
        if self.text is None:
            return Invalid("type", "An answer must be a text.")
        if rules.answers == "any":
            return None
        text = self.text.strip()
        if len(text) > rules.max_answer_chars:
            return Invalid("answer_length", f"An answer has at most {rules.max_answer_chars} characters.")
        # A letter of ASCII: others turn into one when their case is changed, as the dotless i does.
        if task.kind == "choice" and not (text.isascii() and text.upper() in task.letters):
            return Invalid("unknown_option", f"Answer with one letter of {', '.join(task.letters)}.")
        if task.kind == "numeric" and not _is_number(text):
            return Invalid("not_a_number", "Answer with a number.")
        return None

    def label(self) -> str:
        """The text."""
        return self.text or ""

    def arguments(self) -> dict[str, Any]:
        """See `Action.arguments`."""
        return {"text": self.text or ""}

    @classmethod
    def parameters(cls, rules: Rules) -> dict[str, Any]:
        """See `Action.parameters`."""
        return {"text": _TEXT}

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any], rules: Rules) -> Action:
        """See `Action.from_arguments`."""
        text = arguments["text"]
        return cls(text) if isinstance(text, str) else Invalid("type", "text must be a string.")

    @classmethod
    def spaces(cls, rules: Rules) -> dict[str, gymnasium.Space[Any]]:
        """``option`` for choices, by number; ``answer`` for all else, in words."""
        return {"option": Discrete(MAX_OPTIONS), "answer": UnicodeText(rules.max_answer_chars)}

    @classmethod
    def from_structured(cls, values: Mapping[str, Any], state: State) -> Action:
        """See `Action.from_structured`."""
        if state.task.kind != "choice":
            return cls(str(values["answer"]))
        option, letters = int(values["option"]), state.task.letters
        return cls(letters[option] if 0 <= option < len(letters) else f"option {option}")


def _is_number(text: str) -> bool:
    if number_of(text) is not None:
        return True
    try:
        float(with_plain_signs(text))
    except ValueError:
        return False
    return True
