"""Video-MTR's grammar: think, then retrieve a range of pool indices, or answer.

One object holds tags, bounds, prompt, parser and writer. The ``code`` profile reads every text as the
published parser does; ``strict`` takes one thought and one block, ASCII digits and letters as shown.
Pool indices exist here only: a retrieve of ``s,e`` is the `Select` from frame s to the frame after e.
Prompts follow the layout of the published ones in words of our own.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from videogym.actions import Answer, Select
from videogym.grammars.base import FramePart, Message, Part, TextPart
from videogym.grammars.blocks import THINK, after_thought, exactly_one
from videogym.grammars.conversation import is_replied
from videogym.state import Action, Clip, Invalid, Move, Rules, State, Task, TaskKind, Turn

ANSWER: Final = "answer"
RETRIEVE: Final = "retrieve"
MAX_OPEN_CHARS = 50  # a longer open answer is refused
_FORM = {tag: f"<{THINK}>...</{THINK}><{tag}>...</{tag}>" for tag in (ANSWER, RETRIEVE)}
_FORMS = f"{_FORM[ANSWER]} or {_FORM[RETRIEVE]}"
_ANY_DIGITS = re.compile(r"(\d+)\s*,\s*(\d+)")
_ASCII_DIGITS = re.compile(_ANY_DIGITS.pattern, re.ASCII)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read in one output, in the terms of the published parser.

    Where that parser names no error, or gives no message, ``code`` and ``reason`` are ours.
    """

    action_type: Literal["answer", "retrieve"] | None
    action_content: str  # body of the block, white space kept; "" unless format_correct
    action_valid: bool
    format_correct: bool
    error_type: str = "none"  # the published label: "none" also for answers that are refused
    code: str = ""  # stable and never empty for a reading that is not valid
    reason: str = ""
    indices: tuple[int, int] | None = None  # first and last pool index of a valid retrieve

    @property
    def error_message_empty(self) -> bool:
        """Whether the published parser leaves its message empty: for valid outputs and wrong letters."""
        return self.action_valid or self.code == "answer_not_an_option"


def probe(text: str, kind: TaskKind, letters: Sequence[str], max_index: int) -> Reading:
    """Read one output as the published parser does.

    Args:
        text: the whole output.
        kind: ``"choice"``, ``"open"`` or ``"numeric"`` (there: multiple choice, free-form, numerical).
        letters: upper-case letters of the options.
        max_index: largest pool index.

    Source: Video-MTR ``vagen/env/video/prompt.py``. Differs: an index of more than 4,300 digits, at
    which Python refuses the conversion and the published parser raises, is a format error.
    """
    answer = after_thought(text, ANSWER)
    if answer is not None:
        return _read_answer(answer, kind, letters, exact=False)
    retrieve = after_thought(text, RETRIEVE)
    if retrieve is not None:
        return _read_retrieve(retrieve, max_index, _ANY_DIGITS)
    return _unreadable(f"Write exactly {_FORMS}.")


def read_strictly(text: str, kind: TaskKind, letters: Sequence[str], max_index: int) -> Reading:
    """As `probe`, but one thought and one block, ASCII digits, finite numbers, letters as shown."""
    block = exactly_one(text, (ANSWER, RETRIEVE))
    if isinstance(block, Invalid):
        return _unreadable(block.reason)
    tag, body = block
    if tag == ANSWER:
        return _read_answer(body, kind, letters, exact=True)
    return _read_retrieve(body, max_index, _ASCII_DIGITS)


def _unreadable(reason: str) -> Reading:
    return Reading(None, "", False, False, "format_error", "format_error", reason)


def _read_retrieve(body: str, max_index: int, pattern: re.Pattern[str]) -> Reading:
    indices = _range(body, pattern)
    if indices is None or indices[0] > indices[1]:
        reason = (
            "Write the range as first,last: two whole numbers, the first not above the last, like 10,30."
        )
        code = "retrieve_format_error"
        return Reading(RETRIEVE, "", False, False, code, code, reason)
    if indices[1] > max_index:
        reason = f"The range must lie in 0 to {max_index}."
        code = "retrieve_range_error"
        return Reading(RETRIEVE, body, False, True, code, code, reason)
    return Reading(RETRIEVE, body, True, True, indices=indices)


def _range(body: str, pattern: re.Pattern[str]) -> tuple[int, int] | None:
    match = pattern.fullmatch(body.strip())
    try:
        return None if match is None else (int(match[1]), int(match[2]))
    except ValueError:  # more digits than Python converts
        return None


def _read_answer(body: str, kind: TaskKind, letters: Sequence[str], *, exact: bool) -> Reading:
    refusal = _refuse_answer(body.strip(), kind, letters, exact)
    if refusal is None:
        return Reading(ANSWER, body, True, True)
    return Reading(ANSWER, body, False, True, code=refusal.code, reason=refusal.reason)


def _refuse_answer(answer: str, kind: TaskKind, letters: Sequence[str], exact: bool) -> Invalid | None:
    if kind == "choice":
        known = (answer if exact else answer.upper()) in tuple(letters)
        reason = f"Answer with the letter of one option: {', '.join(letters)}."
        return None if known else Invalid("answer_not_an_option", reason)
    if kind == "numeric":
        number = _is_plain_number(answer) if exact else _is_number(answer)
        return None if number else Invalid("answer_not_a_number", "Answer with a number, like 42 or 3.14.")
    if len(answer) > MAX_OPEN_CHARS:
        reason = f"Answer in at most {MAX_OPEN_CHARS} characters; this answer has {len(answer)}."
        return Invalid("answer_too_long", reason)
    return Invalid("answer_empty", "Write an answer into the block.") if exact and not answer else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_plain_number(text: str) -> bool:
    return text.isascii() and "_" not in text and _is_number(text) and math.isfinite(float(text))


@dataclass(frozen=True)
class VideoMTR:
    """The grammar ``video_mtr/strict`` or ``video_mtr/code``."""

    profile: Literal["strict", "code"]

    tags = (THINK, ANSWER, RETRIEVE)

    @property
    def name(self) -> str:
        """``"video_mtr/strict"`` or ``"video_mtr/code"``."""
        return f"video_mtr/{self.profile}"

    def frame_line(self, rules: Rules) -> str:
        """A line for every frame, with its index in the pool."""
        stamp = " (time: {time} s)" if rules.timestamps == "seconds" else ""
        return f"frame_idx:{{index}}{stamp}, {{image}}\n"

    def tools(self, rules: Rules) -> list[dict[str, Any]]:
        """None: this grammar uses tags only."""
        return []

    def parse(self, text: str, state: State) -> Move:
        """One `Select`, `Answer` or `Invalid`; the answer's white space is kept."""
        read = probe if self.profile == "code" else read_strictly
        reading = read(text, state.task.kind, state.task.letters, len(state.pool_s) - 1)
        return Move((_as_action(reading, state),), text, reading.format_correct)

    def write(self, action: Action, state: State, thought: str = "") -> str:
        """The text of a select or an answer.

        A select is written by the pool frames in it, so it comes back as the segment that those
        indices name, which shows the same frames.

        Raises:
            ValueError: the grammar has no words for this action.
        """
        if isinstance(action, Select):
            first, last = _indices_inside(state, action)
            body, action = f"<{RETRIEVE}>{first},{last}</{RETRIEVE}>", _segment(state, first, last)
        elif isinstance(action, Answer):
            body = f"<{ANSWER}>{action.answer_text}</{ANSWER}>"
        else:
            raise ValueError(f"{self.name} has no words for {action}")
        text = f"<{THINK}>{thought}</{THINK}>{body}"
        if self.parse(text, state).actions != (action,):
            raise ValueError(f"{self.name} has no words for {action} after the thought {thought!r}")
        return text

    def messages(self, state: State) -> tuple[Message, ...]:
        """System, first observation, then outputs and observations in turn.

        Raises:
            ValueError: the episode has no pool.
        """
        if not state.pool_s:
            raise ValueError(f"{self.name} speaks of pool indices: it needs rules with pool_frames")
        system = (
            "You are an assistant that watches videos and answers questions about them. "
            f"Answer correctly within {state.rules.max_turns} turns."
        )
        first = self._observation(state, 1, self._shown(state, state.skim))
        talk = [Message("system", (TextPart(system),)), Message("user", first)]
        for i, turn in enumerate(state.turns):
            talk.append(Message("assistant", (TextPart(self._output(turn, state)),)))
            if is_replied(state, i):
                talk.append(Message("user", self._observation(state, i + 2, self._outcome(state, turn))))
        return tuple(talk)

    def _output(self, turn: Turn, state: State) -> str:
        """The turn's text; a structured action is put into words, "" where there are none."""
        if turn.text is not None:
            return turn.text
        try:
            return self.write(turn.results[0].action, state)
        except ValueError:
            return ""

    def _outcome(self, state: State, turn: Turn) -> tuple[Part, ...]:
        if turn.clips:
            return self._shown(state, turn.clips[0])
        reason = turn.error.reason if turn.error else ""
        return (
            TextPart(
                f"Your previous response was not valid. {reason} Try again in the required format.\n"
                "No new frames are given: use those you have seen.\n"
            ),
        )

    def _shown(self, state: State, clip: Clip) -> tuple[Part, ...]:
        indices = [_index(state.pool_s, time_s) for time_s in clip.times_s]
        listed = np.array2string(np.array(indices), max_line_width=75, threshold=1000)
        parts: list[Part] = [
            TextPart(
                f"Here are {len(indices)} frames of the video, with frame_idx_list: {listed}\n\nFrames:\n"
            )
        ]
        for index, time_s in zip(indices, clip.times_s, strict=True):
            stamp = f" (time: {time_s:.2f} s)" if state.rules.timestamps == "seconds" else ""
            parts += [
                TextPart(f"frame_idx:{index}{stamp}, "),
                FramePart(time_s, clip.region, clip.scale),
                TextPart("\n"),
            ]
        return tuple(parts)

    def _observation(self, state: State, turn: int, news: tuple[Part, ...]) -> tuple[Part, ...]:
        task, final = state.task, turn >= state.rules.max_turns
        options = f"\nOptions: {list(task.labelled_options)}" if task.options else ""
        choice = (
            "This is the last turn: you must give your final answer now."
            if final
            else "You may retrieve more frames or give your answer."
        )
        form = _format_block(task, len(state.pool_s) - 1, final)
        return (
            TextPart(f"Turn {turn}\n"),
            *news,
            TextPart("Answer this question from the frames:\n"),
            TextPart(f"{task.question}{options}", given=True),
            TextPart(f"\n{choice}\n\n{form}"),
        )


def _format_block(task: Task, max_index: int, final: bool) -> str:
    what = {
        "choice": "only the letter of the option you choose",
        "numeric": "only a number, like 42 or 3.14",
        "open": f"a short text of at most {MAX_OPEN_CHARS} characters",
    }[task.kind]
    think = (
        f"Reason freely between <{THINK}> and </{THINK}>, as if talking to yourself: doubt, look, check."
    )
    answer = f"put {what} between <{ANSWER}> and </{ANSWER}>."
    if final:
        return f"Format:\n{_FORM[ANSWER]}\n{think} Then {answer}"
    return (
        f"Format:\n{_FORMS}\n{think}\nIf you know enough, {answer}\n"
        "If something is missing, decide which range of frames would show it and ask for frames of that "
        f"range: <{RETRIEVE}>first,last</{RETRIEVE}>, two whole numbers from 0 to {max_index}, "
        "the first not above the last."
    )


def _as_action(reading: Reading, state: State) -> Action:
    if not reading.action_valid:
        return Invalid(reading.code, reading.reason)
    if reading.indices is None:
        return Answer(reading.action_content)
    return _segment(state, *reading.indices)


def _segment(state: State, first: int, last: int) -> Select:
    """From pool frame ``first`` to the frame after ``last``, or to the end of the video."""
    end_s = state.pool_s[last + 1] if last + 1 < len(state.pool_s) else state.video.duration_s
    return Select(state.pool_s[first], end_s)


def _indices_inside(state: State, action: Select) -> tuple[int, int]:
    first = bisect_left(state.pool_s, action.start_s)
    last = bisect_left(state.pool_s, action.end_s) - 1
    if not 0 <= action.start_s < action.end_s <= state.video.duration_s or first > last:
        raise ValueError(f"no words for {action}: it must lie in the video and hold a frame of the pool")
    return first, last


def _index(pool_s: tuple[float, ...], time_s: float) -> int:
    """Index of the pool frame on display at an instant."""
    return max(0, bisect_right(pool_s, time_s) - 1)
