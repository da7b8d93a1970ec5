"""Terms of VideoZoomer: a written answer, the format of an episode, and a bonus for having zoomed.

The reward is read from the outputs of an episode's turns as the published code reads them, which is not how
its rollout reads a call. All functions are pure and never raise on a text.

Source: the reward manager of VideoZoomer's code and its settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from videogym.grammars.blocks import THINK
from videogym.grammars.video_zoomer import ANSWER, VIDEO_ZOOM, VideoZoomer, final_text
from videogym.rewards.answers import Judge, earned, judge_lenient, verdict_of
from videogym.state import State

_LETTER = re.compile(r"([A-Z])\.")


class Written(NamedTuple):
    """What the scorer finds in the outputs of an episode."""

    well_formed: bool
    calls: int  # blocks up to the first turn that breaks the format; the last turn's only where it is alone
    frames: int  # that the well-formed calls ask for


def outputs(state: State) -> tuple[str, ...]:
    """What the policy put out, turn by turn, as far as the published rollout keeps it."""
    messages = VideoZoomer("code").messages(state)
    return tuple(message.text for message in messages if message.role == "assistant")


def read_outputs(turns: Sequence[str], max_frames: int) -> Written:
    """Format and calls of an episode.

    Args:
        turns: outputs in order, at least one.
        max_frames: most frames that a call may ask for.
    """
    *earlier, last = turns
    if not earlier:
        return Written(_answers(last.strip()), int(_first_block(last) is not None), 0)
    calls = frames = 0
    for turn in earlier:
        if _first_block(turn) is None:
            return Written(False, calls, frames)
        calls += 1
        count = _call_frames(turn, max_frames)
        if count is None:
            return Written(False, calls, frames)
        frames += count
    return Written(_answers(last), calls, frames)


def _first_block(turn: str) -> str | None:
    _, opening, rest = turn.partition(f"<{VIDEO_ZOOM}>")
    body, closing, _ = rest.partition(f"</{VIDEO_ZOOM}>")
    return body if opening and closing else None


def _answers(turn: str) -> bool:
    """Whether a text is a thought and later one answer block, which ends it, but for one line feed."""
    tags = turn.count(f"<{ANSWER}>"), turn.count(f"</{ANSWER}>")
    if tags != (1, 1) or f"<{VIDEO_ZOOM}>" in turn or not turn.startswith(f"<{THINK}>"):
        return False
    thought = turn.find(f"</{THINK}>", len(f"<{THINK}>"))
    closed = turn.removesuffix("\n").endswith(f"</{ANSWER}>")
    return 0 <= thought < turn.find(f"<{ANSWER}>") and closed


def _call_frames(turn: str, max_frames: int) -> int | None:
    """Frames that a well-formed call asks for, which can be fewer than 0; None: it breaks the format."""
    turn = turn.strip()
    tags = turn.count(f"<{VIDEO_ZOOM}>"), turn.count(f"</{VIDEO_ZOOM}>")
    if tags != (1, 1) or f"<{ANSWER}>" in turn or f"</{ANSWER}>" in turn:
        return None
    thought = turn.find(f"</{THINK}>")
    if not turn.startswith(f"<{THINK}>") or not 0 <= thought < turn.find(f"<{VIDEO_ZOOM}>"):
        return None
    try:
        call = json.loads(_first_block(turn) or "")
        frames = int(call["fps"] * (call["segment"][1] - call["segment"][0]))
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
        return None
    return frames if frames <= max_frames else None


def choice_right(text: str, truth: str) -> float:
    r"""1.0 if the text of an episode gives the option, else 0.0.

    What follows the last ``<answer>`` up to ``</answer>`` is the letter; or the last ``\boxed{}`` in it
    is; or the last capital letter before a full stop in it is. Without the tag all text is searched.
    """
    answer = text.rpartition(f"<{ANSWER}>")[2].partition(f"</{ANSWER}>")[0].strip()
    truth = truth.strip().removesuffix(".")
    letters = _LETTER.findall(answer)
    return float(truth in (answer, _boxed(answer)) or bool(letters and letters[-1] == truth))


def _boxed(text: str) -> str | None:
    r"""What the last ``\boxed{}`` holds, braces inside matched."""
    _, opening, rest = text.rpartition("\\boxed{")
    depth = 1
    for place, char in enumerate(rest if opening else ""):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return rest[:place]
    return None


@dataclass(frozen=True)
class ZoomSettings:
    """The knobs of the published reward; a bonus is a penalty below 0."""

    answer: float = 0.9
    format: float = 0.1
    tool_penalty: float = (
        0.0  # where a call was written and, as the next two say, the answer right or wrong
    )
    penalize_correct: bool = True
    penalize_wrong: bool = False
    per_call: float = 0.0  # under the same conditions, for every call
    forced: bool = False  # nothing is paid without a call
    frame_target: int = 0  # 0: none
    frame_penalty: float = 0.0  # where more frames were asked for
    target_rate: float = 1.0  # above this share of rollouts with a call there is no penalty and no bonus
    max_frames: int = 16


def extra(settings: ZoomSettings, right: bool, written: Written, call_rate: float = 0.0) -> float:
    """What is paid beside answer and format.

    Args:
        settings: of the reward.
        right: whether the answer is.
        written: what the outputs hold.
        call_rate: share of rollouts so far that wrote a call, which an environment does not know.
    """
    penalized = settings.penalize_correct if right else settings.penalize_wrong
    if not penalized or written.calls == 0 or call_rate > settings.target_rate:
        return 0.0
    over = bool(settings.frame_target) and written.frames > settings.frame_target
    return -settings.tool_penalty - settings.per_call * written.calls - settings.frame_penalty * over


@dataclass(frozen=True)
class ZoomScore:
    """One part of VideoZoomer's reward as its code reads it, before its weight.

    ``"answer"``: the choice in the text of all outputs; for other kinds of task what the judge says of the
    last answer block. ``"format"``: every turn but the last is a thought and a call, the last one a thought
    and an answer. ``"tool"``: 1.0 where the answer is right and a call was written, executed or not.
    """

    part: Literal["answer", "format", "tool"]
    judge: Judge = judge_lenient
    max_frames: int = 16

    @property
    def asks(self) -> bool:
        """Whether this part asks whether the answer is right."""
        return self.part != "format"

    def __call__(self, before: State, after: State) -> float | None:
        """0.0 or 1.0, or the judge's verdict; None where the judge abstains."""
        texts = outputs(after)
        if self.part == "format":
            return float(read_outputs(texts, self.max_frames).well_formed)
        right = self._right(after, " ".join(texts))
        if self.part == "answer" or right is None:
            return right
        return float(right > 0 and read_outputs(texts, self.max_frames).calls > 0)

    def _right(self, state: State, text: str) -> float | None:
        if state.task.kind == "choice":
            return choice_right(text, state.task.answer)
        answer = final_text(text)
        return verdict_of(self.judge, state.task, answer) if answer else 0.0


@dataclass(frozen=True)
class ZoomedRightly:
    """1.0 if a look was executed and the answer is worth anything, else 0.0.

    Absent where the judge abstains.

    Source: VideoZoomer, R_tool: paid if a tool was used and the answer is right. Differs: a call that
    failed is no use of a tool.
    """

    judge: Judge = judge_lenient

    def __call__(self, before: State, after: State) -> float | None:
        """1.0 or 0.0, or None."""
        if not any(turn.looked for turn in after.turns):
            return 0.0
        right = earned(self.judge, after)
        return None if right is None else float(right)


def zoomed_rightly(before: State, after: State) -> float | None:
    """`ZoomedRightly` by `judge_lenient`."""
    return ZoomedRightly()(before, after)
