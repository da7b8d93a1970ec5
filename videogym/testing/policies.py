"""Scripted policies with known abilities: bounds that a trained policy is measured against.

A policy is any callable ``policy(observation, info, env) -> action`` or ``policy(observation, info)``;
these take what `videogym.evaluate` hands them. The oracle reads the ground truth from the state, the
others only what is observed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from videogym.env import VideoQAEnv
from videogym.observations import Observation
from videogym.rewards import looked_segments
from videogym.state import Action, Answer, Crop, Segment, Select, State


class Oracle:
    """Looks at each evidence segment it has not seen, then gives the right answer.

    Where the budget or the turns do not reach for all evidence it answers all the same. It knows the
    answer: it bounds accuracy and hit rate from above.
    """

    def __call__(self, observation: Observation, info: dict[str, Any], env: VideoQAEnv) -> Action:
        """The next look, or the right answer."""
        state = env.state
        unseen = next((s for s in state.task.evidence or () if not _seen(state, s)), None)
        if unseen is None or state.turns_left <= 1 or state.frames_left == 0:
            return Answer(state.task.answer)
        return look_at(state, unseen)


class Blind:
    """Answers at once with a random option, looking at nothing."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def __call__(self, observation: Observation, info: dict[str, Any]) -> Action:
        """A random answer."""
        return random_answer(observation, self._rng)


class SkimOnly:
    """Answers at once, right when the skim happens to show all evidence, else at random.

    The best that any policy without looks can do on tasks whose answer is visible in the evidence.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def __call__(self, observation: Observation, info: dict[str, Any], env: VideoQAEnv) -> Action:
        """The answer."""
        state = env.state
        if state.task.evidence and all(_shown(state, s) for s in state.task.evidence):
            return Answer(state.task.answer)
        return random_answer(observation, self._rng)


class Random:
    """Looks at random segments of random length and answers at random, each turn with equal odds."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def __call__(self, observation: Observation, info: dict[str, Any], env: VideoQAEnv) -> Action:
        """A look or an answer."""
        kinds = env.recipe.rules.actions
        kind = kinds[int(self._rng.integers(len(kinds)))]
        if kind == "answer" or int(observation["turns_left"][0]) <= 1:
            return random_answer(observation, self._rng)
        start_s, end_s = np.sort(self._rng.uniform(0.0, float(observation["duration_s"][0]), 2)).tolist()
        return Select(start_s, end_s) if kind == "select" else Crop(start_s, end_s)


def random_answer(observation: Observation, rng: np.random.Generator) -> Answer:
    """A random option letter; "0" where there are no options."""
    options = [line[0] for line in observation["options"].split("\n") if line]
    return Answer(str(rng.choice(options)) if options else "0")


def look_at(state: State, segment: Segment) -> Action:
    """The look that shows a segment, widened where fewer frames than one look needs lie in it."""
    start_s, end_s = segment.start_s, segment.end_s
    if "select" not in state.rules.actions:
        # A crop needs two frames at least.
        end_s = min(max(end_s, start_s + 3.0 / state.video.avg_fps), state.video.duration_s)
        return Crop(min(start_s, end_s - 3.0 / state.video.avg_fps), end_s)
    inside = [t for t in state.pool_s if segment.contains(t)]
    if not inside:
        # Between two pool frames: the last one before the segment is the nearest there is.
        start_s = max((t for t in state.pool_s if t <= start_s), default=0.0)
    return Select(start_s, end_s)


def _seen(state: State, segment: Segment) -> bool:
    """Whether a look went to the segment, or the skim already shows it."""
    if _shown(state, segment):
        return True
    return any(
        look.start_s < segment.end_s and segment.start_s < look.end_s for look in looked_segments(state)
    )


def _shown(state: State, segment: Segment) -> bool:
    return any(segment.contains(t) for clip in state.clips for t in clip.times_s)
