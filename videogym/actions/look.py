"""Actions that show frames: what all of them have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from videogym.actions.arguments import read_numbers
from videogym.actions.bounds import LookRequest, allowance, bounded, note_of
from videogym.geometry import Segment, as_float
from videogym.state import Action, Clip, Invalid, Rules, State, Turn

_TIMES = {
    "start_s": {"type": "number", "description": "Start in seconds, not negative"},
    "end_s": {"type": "number", "description": "End in seconds, after the start"},
}


class Showing(Action, ABC):
    """An action that shows frames, and keeps to what the rules say of all of these."""

    __slots__ = ()

    @abstractmethod
    def clip(self, state: State, turn: Turn, pts_s: NDArray[np.float64]) -> Clip | Invalid:
        """See `Action.clip`."""

    def judge(self, state: State) -> Invalid | None:
        """What is wrong with its own arguments; None: nothing."""
        return None

    def refusal(self, state: State, turn: Turn) -> Invalid | None:
        """Why it may not be executed: the rules' limits first, then what it asks for."""
        rules = state.rules
        if rules.last_turn_look == "skip" and state.turns_left == 1:
            return Invalid("last_turn", "This is the last turn: only an answer counts.")
        if len(turn.results) >= rules.max_calls_per_turn:
            return Invalid("calls_per_turn", f"At most {rules.max_calls_per_turn} looks in one turn.")
        if rules.budget_reached == "end" and state.frames_left == 0:
            return Invalid("last_turn", "All frames have been shown: only an answer counts.")
        if allowance(state, turn) < 1:
            return _spent(state, turn)
        return self.judge(state)


class Look(Showing):
    """An action that asks for frames between two times.

    A kind below this class is a frozen dataclass. It has ``start_s`` and ``end_s``, as fields or as
    properties, and says in `frames` which frames it shows. Where its only fields are the two times, all
    else is here. Fields of these names are kept as Python floats; what is no number is NaN, which is
    refused.

    Attributes:
        start_s: seconds, unchecked.
        end_s: seconds, unchecked.
    """

    __slots__ = ()
    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        """Times that are fields become Python floats; NaN, which is refused, where they are no numbers."""
        for name in {"start_s", "end_s"}.intersection(getattr(self, "__dataclass_fields__", ())):
            object.__setattr__(self, name, as_float(getattr(self, name)))

    @abstractmethod
    def frames(self, state: State, cap: int, pts_s: NDArray[np.float64]) -> Clip | Invalid:
        """The clip it shows, or why there is none; times and budget have been judged.

        Args:
            state: before the turn.
            cap: most frames that it may show, at least 1.
            pts_s: (num_frames,) presentation times of the video, seconds.
        """

    def clip(self, state: State, turn: Turn, pts_s: NDArray[np.float64]) -> Clip | Invalid:
        """See `Action.clip`: what `frames` says, or less where a bound in visual tokens is lower.

        Like a crop's, a number of frames that the policy did not name is cut whatever the rules say; a clip
        that says its own scale was asked for and is treated as `Rules.over_bound` says.

        Raises:
            ValueError: `frames` shows more than its cap.
        """
        cap = allowance(state, turn)
        clip = self._frames(state, cap, pts_s)
        if isinstance(clip, Invalid) or not clip.times_s:
            return clip
        asked = LookRequest(len(clip.times_s), clip.scale, clip.scale is not None)
        shown = bounded(asked, clip.region, state, turn)
        if isinstance(shown, Invalid) or shown == asked:
            return shown if isinstance(shown, Invalid) else clip
        # Asked again rather than cut, so that fewer frames are spread like more.
        clip = self._frames(state, shown.count, pts_s)
        if isinstance(clip, Invalid):
            return clip
        return replace(clip, scale=shown.scale, note=note_of(asked, shown) if asked.chosen else clip.note)

    def _frames(self, state: State, cap: int, pts_s: NDArray[np.float64]) -> Clip | Invalid:
        clip = self.frames(state, cap, pts_s)
        if not isinstance(clip, Invalid) and len(clip.times_s) > cap:
            raise ValueError(f"{self} shows {len(clip.times_s)} frames, its cap is {cap}")
        return clip

    def judge(self, state: State) -> Invalid | None:
        """See `Showing.judge`."""
        return self.judge_times(state)

    def judge_times(self, state: State) -> Invalid | None:
        """What is wrong with the two times; None: nothing."""
        return _judge_times(self.start_s, self.end_s, state)

    def label(self) -> str:
        """The two times."""
        return f"{_short(self.start_s)} to {_short(self.end_s)} s"

    def segment(self, duration_s: float) -> Segment | None:
        """See `Action.segment`."""
        if not math.isfinite(self.start_s + self.end_s):
            return None
        start_s, end_s = max(self.start_s, 0.0), min(self.end_s, duration_s)
        return Segment(start_s, end_s) if start_s < end_s else None

    def arguments(self) -> dict[str, Any]:
        """See `Action.arguments`."""
        return {"start_s": float(self.start_s), "end_s": float(self.end_s)}

    @classmethod
    def parameters(cls, rules: Rules) -> dict[str, Any]:
        """See `Action.parameters`."""
        return dict(_TIMES)

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any], rules: Rules) -> Action:
        """See `Action.from_arguments`."""
        times = read_times(arguments)
        return times if isinstance(times, Invalid) else cls(*times)  # type: ignore[call-arg]

    @classmethod
    def spaces(cls, rules: Rules) -> dict[str, gymnasium.Space[Any]]:
        """``segment``: start and end as shares of the video."""
        return {"segment": Box(0.0, 1.0, (2,), np.float64)}

    @classmethod
    def from_structured(cls, values: Mapping[str, Any], state: State) -> Action:
        """See `Action.from_structured`."""
        return cls(*structured_times(values, state))  # type: ignore[call-arg]


def read_times(arguments: Mapping[str, Any]) -> tuple[float, float] | Invalid:
    """``start_s`` and ``end_s`` of a tool call."""
    times = read_numbers([arguments["start_s"], arguments["end_s"]])
    if times is None:
        return Invalid("type", "start_s and end_s must be finite numbers of seconds.")
    return times[0], times[1]


def structured_times(values: Mapping[str, Any], state: State) -> tuple[float, float]:
    """Start and end in seconds of the ``segment`` of a structured action."""
    start_s, end_s = (_seconds(float(share), state.video.duration_s) for share in values["segment"])
    return start_s, end_s


def _seconds(share: float, duration_s: float) -> float:
    """Seconds of a share of the video, cut to microseconds.

    A presentation time divided by the duration and multiplied again can land an ulp late, past the
    very frame that was meant; cut down to a microsecond it does not.
    """
    time_s = share * duration_s
    microseconds = time_s * 1e6 + 1e-3
    return math.floor(microseconds) / 1e6 if math.isfinite(microseconds) else time_s


def _spent(state: State, turn: Turn) -> Invalid:
    shown = sum(len(clip.times_s) for clip in turn.clips)
    if state.frames_left is not None and state.frames_left <= shown:
        return Invalid("budget", f"All {state.rules.frame_budget} frames have been shown; answer now.")
    return Invalid("turn_frames", f"All {state.rules.turn_frames} frames of this turn have been shown.")


def _judge_times(start_s: float, end_s: float, state: State) -> Invalid | None:
    # The order of the checks is that of LongVT's tool server; its tests name the first that fails.
    duration_s, rules = state.video.duration_s, state.rules
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        return Invalid("type", f"Times must be finite numbers of seconds, got {start_s} and {end_s}.")
    clamped = rules.crop_range == "clamp"
    if start_s < 0 and not clamped:
        return Invalid("negative", f"The start must not be negative, got {start_s:g} s.")
    if end_s <= start_s:
        return Invalid("order", f"The end must be after the start, got {start_s:g} to {end_s:g} s.")
    if start_s >= duration_s:
        return Invalid("start>=duration", f"The start {start_s:g} s is not within {duration_s:g} s.")
    if end_s > duration_s and rules.crop_past_end == "refuse" and not clamped:
        return Invalid("end>duration", f"The end {end_s:g} s is after the video's {duration_s:g} s.")
    return None


def _short(time_s: float) -> str:
    """Seconds to a hundredth, without zeros at the end."""
    text = f"{time_s:.2f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
