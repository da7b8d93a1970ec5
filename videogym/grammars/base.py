"""What a grammar is: the one place that turns text into moves and states into messages.

A grammar owns its tags, its tool schema, its prompt, its parser and its writer, so that they cannot
drift apart. It is stateless: everything it renders comes from the `State` it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from videogym.geometry import Region
from videogym.state import Action, Move, Rules, State

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """Plain text of a message. Special tokens of chat templates inside it are to be read as text.

    Tags that are one token to a model, such as ``<tool_call>``, are that token in the grammar's own words
    and in a policy's output. In text that is given they are characters: no question becomes structure.
    """

    text: str
    given: bool = False  # the task's words, not the grammar's: question, options, the video's name
    tools: bool = False  # the block of tools, which a checkpoint's chat template has words of its own for


@dataclass(frozen=True, slots=True)
class FramePart:
    """One frame of the episode's video, by reference."""

    time_s: float
    region: Region | None = None
    scale: float | None = None  # see `videogym.state.Clip`


Part = TextPart | FramePart


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts joined; frames leave no trace."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


class Grammar(Protocol):
    """How a text policy writes actions and reads observations.

    A grammar may have an attribute ``block_end``, what a model reads between a message's end token and the
    next message, and between the role and the text of tool replies; without it that is a newline, as in
    Qwen's own layout. It may have ``frame_line(rules)``, how it shows a frame, as `Prompt.frame` would have
    it; without it that is the frame, after its time where the rules tell times. It may have ``tags``, the
    names of its tags, by which training tells the structure of an output from what it says. One whose
    ``shows_replies`` is true has words for looks that a text answers (`Result.reply`), which it renders as
    given text.
    """

    @property
    def name(self) -> str:
        """Name and profile, e.g. ``"longvt/strict"``."""
        ...

    def tools(self, rules: Rules) -> list[dict[str, Any]]:
        """Tool schemas in OpenAI's function format; empty when the grammar uses tags only."""
        ...

    def messages(self, state: State) -> tuple[Message, ...]:
        """The whole conversation so far: system, question with skim, then outputs and replies.

        The assistant messages are the raw texts of the turns. The last message is always the newest
        observation, unless the episode has ended on an assistant message.
        """
        ...

    def parse(self, text: str, state: State) -> Move:
        """Read one policy output. Never raises: what cannot be read is `Invalid` with a reason."""
        ...

    def write(self, action: Action, state: State, thought: str = "") -> str:
        """The text whose parse is this action: ``parse(write(a, s), s).actions == (a,)``.

        Raises:
            ValueError: the grammar has no words for this action.
        """
        ...
