"""What actions do: validity against the state, and the next state. Pure functions.

`play` is the whole transition of an episode. An action that cannot be executed changes nothing but
spends the turn and says why; it never raises. Pixels, rewards and text are not known here.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from videogym.answers import with_plain_signs
from videogym.state import (
    Action,
    Answer,
    Clip,
    Crop,
    Ending,
    Invalid,
    Move,
    Region,
    Result,
    Rules,
    Select,
    State,
    Task,
    Turn,
)
from videogym.video.sampling import (
    even_indices_by_time,
    linspace_floored,
    pool_indices,
    window_indices,
    window_indices_by_time,
)
from videogym.video.types import VideoMeta


def begin(task: Task, video: VideoMeta, pts_s: NDArray[np.float64], rules: Rules, recipe_id: str) -> State:
    """The first state of an episode: its pool drawn and its skim shown.

    Args:
        task: the question.
        video: facts about the task's video.
        pts_s: (num_frames,) presentation times of all its frames.
        rules: sampling and limits.
        recipe_id: identity of the recipe, kept for `State`.

    Raises:
        ValueError: the video is too short to be skimmed, or longer than the rules allow.
    """
    if video.duration_s > rules.max_duration_s:
        raise ValueError(f"the video lasts {video.duration_s:g} s, at most {rules.max_duration_s:g} s fit")
    pool: tuple[float, ...] = ()
    if rules.pool_frames:
        indices = pool_indices(video.num_frames, video.duration_s, rules.pool_frames, rules.pool_fps)
        pool = tuple(pts_s[indices].tolist())
    return State(task, video, rules, recipe_id, pool, Clip(_skim_times(video, pts_s, rules, pool)))


def _skim_times(
    video: VideoMeta, pts_s: NDArray[np.float64], rules: Rules, pool: tuple[float, ...]
) -> tuple[float, ...]:
    if rules.skim_fps:
        return _window_times(video, pts_s, rules.skim_frames, rules.skim_fps)
    times = pool or pts_s
    if video.is_vfr and not pool:
        indices = even_indices_by_time(pts_s, rules.skim_frames)
    else:
        indices = linspace_floored(0, len(times) - 1, rules.skim_frames)
    return tuple(float(times[i]) for i in indices)


def _window_times(
    video: VideoMeta,
    pts_s: NDArray[np.float64],
    cap: int,
    fps: float,
    start_s: float | None = None,
    end_s: float | None = None,
) -> tuple[float, ...]:
    if video.is_vfr:
        indices = window_indices_by_time(pts_s, cap, fps, start_s, end_s)
    else:
        indices = window_indices(video.num_frames, video.avg_fps, cap, fps, start_s, end_s)
    return tuple(pts_s[indices].tolist())


def play(state: State, move: Move, pts_s: NDArray[np.float64]) -> State:
    """The state after one turn.

    Args:
        state: a running episode.
        move: what the policy put out.
        pts_s: (num_frames,) presentation times of the episode's video.

    Raises:
        ValueError: the episode has already ended.
    """
    return _play(state, move, lambda turn, action: _look(state, turn, action, pts_s))


def play_fault(state: State, move: Move, fault: str) -> State:
    """The state after one turn whose frames could not be had: nothing shown, nothing paid, the turn spent.

    What needs no frames, such as an answer, is played as in `play`; a turn without a look has no fault.

    Args:
        state: a running episode.
        move: what the policy put out.
        fault: why, for the log; the policy is only told that the frames are missing.

    Raises:
        ValueError: the episode has already ended.
    """
    missing = Invalid("fault", "These frames could not be decoded; look elsewhere or answer.")
    after = _play(state, move, lambda turn, action: missing)
    turn = after.turns[-1]
    if all(result.error is not missing for result in turn.results):
        return after
    return replace(after, turns=(*state.turns, replace(turn, fault=fault)))


_Look = Callable[[Turn, Select | Crop], Clip | Invalid]


def _play(state: State, move: Move, look: _Look) -> State:
    if state.terminated:
        raise ValueError(f"the episode ended with {state.ending!r}; call reset before the next step")
    turn = Turn((), move.text, move.well_formed)
    for action in move.actions:
        # Parallel looks share one budget, so each is judged after those before it.
        turn = replace(turn, results=(*turn.results, _execute(state, turn, action, look)))
    after = replace(state, turns=(*state.turns, turn))
    return replace(after, ending=_ending(after))


def _execute(state: State, turn: Turn, action: Action, look: _Look) -> Result:
    if isinstance(action, Invalid):
        return Result(action, error=action)
    if turn.answer is not None:
        return Result(action, error=Invalid("after_answer", "Nothing is executed after an answer."))
    if isinstance(action, Answer):
        return Result(action, error=_judge_answer(state, action))
    outcome = _judge_look(state, turn, action) or look(turn, action)
    if isinstance(outcome, Invalid):
        return Result(action, error=outcome)
    return Result(action, clip=outcome)


def _ending(state: State) -> Ending:
    turn, rules = state.turns[-1], state.rules
    if turn.answer is not None:
        return "answered"
    if rules.malformed == "end" and not turn.well_formed and not turn.valid:
        return "malformed"
    if state.turns_left == 0:
        return "turn_limit"
    return "call_limit" if rules.max_calls is not None and state.calls_made >= rules.max_calls else ""


def _judge_answer(state: State, answer: Answer) -> Invalid | None:
    task, rules = state.task, state.rules
    if rules.answers == "any":
        return None
    text = answer.text.strip()
    if len(text) > rules.max_answer_chars:
        return Invalid("answer_length", f"An answer has at most {rules.max_answer_chars} characters.")
    # A letter of ASCII: others turn into one when their case is changed, as the dotless i does.
    if task.kind == "choice" and not (text.isascii() and text.upper() in task.letters):
        return Invalid("unknown_option", f"Answer with one letter of {', '.join(task.letters)}.")
    if task.kind == "numeric" and not _is_number(text):
        return Invalid("not_a_number", "Answer with a number.")
    return None


def _is_number(text: str) -> bool:
    try:
        float(with_plain_signs(text))
    except ValueError:
        return False
    return True


def _judge_look(state: State, turn: Turn, action: Select | Crop) -> Invalid | None:
    """Why a look may not be executed, whatever its segment; None if it may."""
    rules = state.rules
    kind = "select" if isinstance(action, Select) else "crop"
    if kind not in rules.actions:
        return Invalid("unknown_action", f"There is no {kind} here; use {', '.join(rules.actions)}.")
    if rules.last_turn_look == "skip" and state.turns_left == 1:
        return Invalid("last_turn", "This is the last turn: only an answer counts.")
    if len(turn.results) >= rules.max_calls_per_turn:
        return Invalid("calls_per_turn", f"At most {rules.max_calls_per_turn} looks in one turn.")
    if _allowance(state, turn) < 1:
        return Invalid("budget", f"All {rules.frame_budget} frames have been shown; answer now.")
    return _judge_times(state, action)


def _judge_times(state: State, action: Select | Crop) -> Invalid | None:
    # The order of the checks is that of LongVT's tool server; its tests name the first that fails.
    start_s, end_s, duration_s = action.start_s, action.end_s, state.video.duration_s
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        return Invalid("type", f"Times must be finite numbers of seconds, got {start_s} and {end_s}.")
    if start_s < 0:
        return Invalid("negative", f"The start must not be negative, got {start_s:g} s.")
    if end_s <= start_s:
        return Invalid("order", f"The end must be after the start, got {start_s:g} to {end_s:g} s.")
    if start_s >= duration_s:
        return Invalid("start>=duration", f"The start {start_s:g} s is not within {duration_s:g} s.")
    if end_s > duration_s and state.rules.crop_past_end == "refuse":
        return Invalid("end>duration", f"The end {end_s:g} s is after the video's {duration_s:g} s.")
    return None


def _allowance(state: State, turn: Turn) -> int:
    """Frames that one more look in this turn may show."""
    clip_frames, left = state.rules.clip_frames, state.frames_left
    if left is None:
        return clip_frames
    return min(clip_frames, left - sum(len(clip.times_s) for clip in turn.clips))


def _look(state: State, turn: Turn, action: Select | Crop, pts_s: NDArray[np.float64]) -> Clip | Invalid:
    if isinstance(action, Select):
        return _select(state, action, _allowance(state, turn))
    return _crop(state, action, _allowance(state, turn), pts_s)


def _select(state: State, action: Select, cap: int) -> Clip | Invalid:
    first = bisect_left(state.pool_s, action.start_s)
    last = bisect_left(state.pool_s, action.end_s) - 1
    if last < first:
        return Invalid("no_frames", f"No pool frame lies in {action.start_s:g} to {action.end_s:g} s.")
    indices = linspace_floored(first, last, min(last - first + 1, cap))
    return Clip(tuple(state.pool_s[i] for i in indices))


def _crop(state: State, action: Crop, cap: int, pts_s: NDArray[np.float64]) -> Clip | Invalid:
    region = _read_region(state.rules, action)
    if isinstance(region, Invalid):
        return region
    if cap < 2:
        return Invalid("budget", "Fewer than the two frames of the smallest crop are left; answer now.")
    start_s, end_s = action.start_s, min(action.end_s, state.video.duration_s)
    try:
        times = _window_times(state.video, pts_s, cap, state.rules.crop_fps, start_s, end_s)
    except ValueError:
        return Invalid("no two frames", f"Fewer than two frames lie in {start_s:g} to {end_s:g} s.")
    return Clip(times, region)


def _read_region(rules: Rules, crop: Crop) -> Region | Invalid | None:
    if crop.region is None:
        return None
    if not rules.regions:
        return Invalid("region", "This episode crops in time only: leave the region out.")
    try:
        region = Region(*crop.region)
    except (TypeError, ValueError) as error:
        return Invalid("region", f"{error}.")
    return None if region.as_tuple() == (0.0, 0.0, 1.0, 1.0) else region
