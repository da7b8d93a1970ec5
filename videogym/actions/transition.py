"""The transition of an episode: its first state, and the state after a turn. Pure functions.

`play` is the whole transition of an episode. An action that cannot be executed changes nothing but
spends the turn and says why; it never raises. Pixels, rewards and text are not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from videogym.actions.look import Showing
from videogym.sizes import clip_tokens
from videogym.state import (
    Action,
    Clip,
    Describe,
    Ending,
    Invalid,
    Move,
    Result,
    Rules,
    Search,
    State,
    Task,
    Turn,
)
from videogym.video.sampling import (
    counted_indices,
    even_indices_by_time,
    linspace_floored,
    pool_indices,
    strided_indices,
    window_indices,
    window_indices_by_time,
)
from videogym.video.types import VideoMeta

# What an action that may be executed comes to.
_Show = Callable[[Turn, Action], Result]


def begin(
    task: Task,
    video: VideoMeta,
    pts_s: NDArray[np.float64],
    rules: Rules,
    recipe_id: str,
    skim_frames: int | None = None,
) -> State:
    """The first state of an episode: its pool drawn and its skim shown.

    Args:
        task: the question.
        video: facts about the task's video.
        pts_s: (num_frames,) presentation times of all its frames.
        rules: sampling and limits.
        recipe_id: identity of the recipe, kept for `State`.
        skim_frames: in place of the rules' and at most as many; None: the rules'.

    Raises:
        ValueError: ``skim_frames`` is none that the rules can show (`Rules.skimming`), or the video is too
            short to be skimmed or longer than the rules allow.
    """
    if video.duration_s > rules.max_duration_s:
        raise ValueError(f"the video lasts {video.duration_s:g} s, at most {rules.max_duration_s:g} s fit")
    pool: tuple[float, ...] = ()
    if rules.pool_frames:
        indices = pool_indices(video.num_frames, video.duration_s, rules.pool_frames, rules.pool_fps)
        pool = tuple(pts_s[indices].tolist())
    skim = Clip(_skim_times(video, pts_s, rules.skimming(skim_frames), pool))
    if rules.token_budget is not None and (used := clip_tokens(skim, video, rules)) > rules.token_budget:
        raise ValueError(f"the skim has {used} visual tokens, the budget is {rules.token_budget}")
    return State(task, video, rules, recipe_id, pool, skim)


def _skim_times(
    video: VideoMeta, pts_s: NDArray[np.float64], rules: Rules, pool: tuple[float, ...]
) -> tuple[float, ...]:
    if not rules.skim_frames:
        return ()
    times = pool or pts_s
    indices = _skim_indices(video, pts_s, rules, len(times), bool(pool))
    return tuple(float((pts_s if rules.skim_fps else times)[i]) for i in indices)


def _skim_indices(
    video: VideoMeta, pts_s: NDArray[np.float64], rules: Rules, count: int, pooled: bool
) -> NDArray[np.int64]:
    most, fps, least = rules.skim_frames, rules.skim_fps, rules.min_skim_frames
    if rules.skim_sampling == "strided" and not video.is_vfr:
        return strided_indices(video.num_frames, video.avg_fps, fps or 1.0, most)
    if fps and video.is_vfr:
        enough = min(max((pts_s[-1] - pts_s[0]) * fps, least), len(pts_s)) >= most
        if rules.skim_sampling == "strided" and enough:
            return even_indices_by_time(pts_s, most)  # an odd number too, as of a constant rate
        return window_indices_by_time(pts_s, most, fps, min_frames=least)
    if fps:
        return window_indices(video.num_frames, video.avg_fps, most, fps, min_frames=least)
    if rules.skim_sampling == "counted":
        return counted_indices(count, most)
    if video.is_vfr and not pooled:
        return even_indices_by_time(pts_s, most)
    return linspace_floored(0, count - 1, most)


def play(
    state: State,
    move: Move,
    pts_s: NDArray[np.float64],
    search: Search | None = None,
    describe: Describe | None = None,
) -> State:
    """The state after one turn.

    Args:
        state: a running episode.
        move: what the policy put out.
        pts_s: (num_frames,) presentation times of the episode's video.
        search: finds moments of that video; None: actions that search know already what was found.
        describe: says what a clip of it shows, in place of the frames; None: frames are shown.

    Raises:
        ValueError: the episode has already ended, or nobody can search for what an action seeks.
    """

    def show(turn: Turn, action: Action) -> Result:
        if search is not None and action.searches:
            action = action.located(state.rules, search)
        outcome = action.clip(state, turn, pts_s)
        if isinstance(outcome, Invalid):
            return Result(action, error=outcome)
        if describe is None or outcome is None:
            return Result(action, outcome)
        return Result(action, outcome, reply=describe(outcome))

    return _play(state, move, show)


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

    def show(turn: Turn, action: Action) -> Result:
        return Result(action, error=missing if isinstance(action, Showing) else None)

    after = _play(state, move, show)
    turn = after.turns[-1]
    if all(result.error is not missing for result in turn.results):
        return after
    return replace(after, turns=(*state.turns, replace(turn, fault=fault)))


def mark_fault(before: State, after: State, fault: str) -> State:
    """The state after the last turn, had its frames not been to be had, see `play_fault`.

    A turn that brought no frames stays as it was played and is marked: what cannot be shown any more was
    shown before it.

    Args:
        before: the state before that turn.
        after: the state after it.
        fault: why, for the log; a fault that the turn has already stays.
    """
    turn = after.turns[-1]
    if turn.clips:
        actions = tuple(result.action for result in turn.results)
        return play_fault(before, Move(actions, turn.text, turn.well_formed), fault)
    return replace(after, turns=(*before.turns, replace(turn, fault=turn.fault or fault)))


def _play(state: State, move: Move, show: _Show) -> State:
    if state.terminated:
        raise ValueError(f"the episode ended with {state.ending!r}; call reset before the next step")
    turn = Turn((), move.text, move.well_formed)
    for action in move.actions:
        # Parallel looks share one budget, so each is judged after those before it.
        turn = replace(turn, results=(*turn.results, _execute(state, turn, action, show)))
    after = replace(state, turns=(*state.turns, turn))
    return replace(after, ending=_ending(after))


def _execute(state: State, turn: Turn, action: Action, show: _Show) -> Result:
    if isinstance(action, Invalid):
        return Result(action, error=action)
    if turn.answer is not None:
        return Result(action, error=Invalid("after_answer", "Nothing is executed after an answer."))
    if action.kind not in state.rules.actions:
        known = ", ".join(state.rules.actions)
        return Result(
            action, error=Invalid("unknown_action", f"There is no {action.kind} here; use {known}.")
        )
    refused = action.refusal(state, turn)
    return show(turn, action) if refused is None else Result(action, error=refused)


def _ending(state: State) -> Ending:
    turn, rules = state.turns[-1], state.rules
    if turn.answer is not None:
        return "answered"
    if rules.budget_reached == "end" and replace(state, turns=state.turns[:-1]).frames_left == 0:
        return "frame_limit"
    if rules.malformed == "end" and not turn.well_formed and not turn.valid:
        return "malformed"
    if state.turns_left == 0:
        return "turn_limit"
    return "call_limit" if rules.max_calls is not None and state.calls_made >= rules.max_calls else ""
