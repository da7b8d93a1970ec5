"""EVA's grammar: plan first, then call ``frame_select`` with a count and a scale, or answer.

No frame is shown before the policy asks. A call's block holds any number of JSON objects; all of them run
and their frames come in one reply. Read as the published evaluation reads it, in words of our own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from videogym.actions import Answer, Crop
from videogym.grammars.base import FramePart, Message, Part, TextPart
from videogym.grammars.blocks import THINK
from videogym.grammars.conversation import is_replied, minutes_and_seconds, question_text, told_length
from videogym.grammars.tool_calls import TOOL_CALL, TOOL_RESPONSE, TOOLS
from videogym.state import Action, Invalid, Move, Rules, State, Turn, told_bounds

ANSWER: Final = "answer"
FRAME_SELECT: Final = "frame_select"
_OPENING, _CLOSING = f"<{TOOL_CALL}>", f"</{TOOL_CALL}>"
_ANSWER_LINE = re.compile(r"^[ \t]*Answer:[ \t]*(\S.*)$", re.MULTILINE)


def read_objects(body: str) -> Iterator[Any]:
    """The JSON values in a block, one after the other, whatever stands between them."""
    decoder, at = json.JSONDecoder(), body.find("{")
    failures = 0
    while at >= 0 and failures < 100:  # a block of braces alone would be read from each of them
        try:
            value, at = decoder.raw_decode(body, at)
            yield value
        except (ValueError, RecursionError):
            failures, at = failures + 1, at + 1
        at = body.find("{", at)


def read_select(value: Any) -> Crop | None:
    """The crop that one object asks for; None if it is none."""
    if not isinstance(value, dict) or value.get("tool") != FRAME_SELECT:
        return None
    arguments = value.get("arguments", value.get("parameters"))
    if not isinstance(arguments, dict):
        return None
    try:
        start_s, end_s, count = (float(arguments[name]) for name in ("start_time", "end_time", "nframes"))
        scale = None if arguments.get("resize") is None else float(arguments["resize"])
        return Crop(start_s, end_s, frames=int(count), scale=scale)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class EVA:
    """The grammar ``eva``."""

    tags = (THINK, TOOL_CALL, TOOLS, TOOL_RESPONSE, ANSWER)

    @property
    def name(self) -> str:
        """``"eva"``."""
        return "eva"

    def frame_line(self, rules: Rules) -> str:
        """Every frame on a line, after its number in the message and its time."""
        return "Frame {number} at [{clock}]: {image}\n"

    def tools(self, rules: Rules) -> list[dict[str, Any]]:
        """None: the object that EVA's models write has no function of this form."""
        return []

    def parse(self, text: str, state: State) -> Move:
        """An answer, which comes first, or the crops of the first block; bad among good are left out."""
        answer = _answer(text)
        if answer is not None:
            return Move((Answer(answer),), text)
        _, opening, rest = text.partition(_OPENING)
        body, closing, _ = rest.partition(_CLOSING)
        found = (read_select(value) for value in read_objects(body)) if opening and closing else ()
        crops = tuple(crop for crop in found if crop is not None)
        if crops:
            return Move(crops, text)
        reason = f"Answer, or write {_OPENING}, calls of {FRAME_SELECT} as JSON objects, and {_CLOSING}."
        return Move((Invalid("malformed_call", reason),), text, False)

    def write(self, action: Action, state: State, thought: str = "") -> str:
        """The text of a crop with a number of frames, or of an answer.

        Raises:
            ValueError: the grammar has no words for this action.
        """
        text = (f"{thought}\n" if thought else "") + _written(action)
        if isinstance(action, Invalid) or self.parse(text, state).actions != (action,):
            raise ValueError(f"{self.name} has no words for {action} after the thought {thought!r}")
        return text

    def messages(self, state: State) -> tuple[Message, ...]:
        """System, question without frames, then outputs and one tool message a turn."""
        talk = [
            Message("system", (TextPart(_system(state.rules)),)),
            Message("user", _question(state)),
        ]
        for i, turn in enumerate(state.turns):
            words = (
                turn.text if turn.text is not None else "".join(_written(r.action) for r in turn.results)
            )
            talk.append(Message("assistant", (TextPart(words),)))
            if is_replied(state, i):
                talk.append(Message("tool", _reply(state, turn)))
        return tuple(talk)


def _answer(text: str) -> str | None:
    _, opening, rest = text.partition(f"<{ANSWER}>")
    body, closing, _ = rest.partition(f"</{ANSWER}>")
    if opening and closing:
        return body.strip()
    line = _ANSWER_LINE.search(text)
    return line[1].strip() if line else None


def _written(action: Action) -> str:
    if isinstance(action, Answer):
        return f"<{ANSWER}>{action.answer_text}</{ANSWER}>"
    if (
        not isinstance(action, Crop)
        or action.frames is None
        or action.fps is not None
        or action.region is not None
    ):
        return ""
    arguments = {
        "start_time": float(action.start_s),
        "end_time": float(action.end_s),
        "nframes": action.frames,
    }
    resize = {} if action.scale is None else {"resize": action.scale}
    return f"{_OPENING}{json.dumps({'tool': FRAME_SELECT, 'arguments': arguments | resize})}{_CLOSING}"


def _system(rules: Rules) -> str:
    example = json.dumps(
        {"tool": FRAME_SELECT, "arguments": {"start_time": 0, "end_time": 60, "nframes": 8, "resize": 0.5}}
    )
    return (
        "You answer a question about a video. No frame is shown until you ask. In every turn summarise "
        "what you know, plan, act, and look back on it. To see frames write one block of one or more "
        f"objects like this: {_OPENING}{example}{_CLOSING}. nframes are spread evenly over the segment in "
        "seconds; resize, 1 unless given, is a factor of each side. A frame costs one token for 28 x 28 "
        f"pixels, and a call shows {rules.look_tokens} tokens at most. You have {rules.max_turns} turns. "
        f"Answer in <{ANSWER}>...</{ANSWER}>."
    )


def _question(state: State) -> tuple[Part, ...]:
    side = min(state.video.width, state.video.height)
    return (
        TextPart(f"The video lasts {told_length(state.video)} s and has {side}p.\n"),
        TextPart(question_text(state.task), given=True),
        TextPart("\nPlan before you look."),
    )


def _reply(state: State, turn: Turn) -> tuple[Part, ...]:
    parts: list[Part] = [TextPart(f"<{TOOL_RESPONSE}>")]
    frames = [FramePart(t, clip.region, clip.scale) for clip in turn.clips for t in clip.times_s]
    for number, frame in enumerate(frames):
        parts += [
            TextPart(f"Frame {number} at [{minutes_and_seconds(frame.time_s)}]: "),
            frame,
            TextPart("\n"),
        ]
    error = turn.error
    news = f"Refused. {error.reason}\n" if error else told_bounds(state.rules, turn)
    parts.append(TextPart(f"{news}Use these frames, look again, or answer.\n\nThe question was: "))
    return (*parts, TextPart(question_text(state.task), given=True), TextPart(f"</{TOOL_RESPONSE}>"))
