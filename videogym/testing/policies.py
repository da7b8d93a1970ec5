"""Scripted policies with known abilities: bounds that a trained policy is measured against.

A policy is any callable ``policy(observation, info, env) -> action`` or ``policy(observation, info)``;
these take what `videogym.evaluate` hands them. The oracle reads the ground truth from the state, the
others only what is observed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from videogym.actions import Answer, Crop, Find, Select
from videogym.actions.find import MAX_QUERY_CHARS
from videogym.env import VideoQAEnv
from videogym.geometry import WHOLE_FRAME, Region, Segment, region_iou
from videogym.observations import Observation
from videogym.rewards import looked_regions, looked_segments
from videogym.state import Action, State


class Oracle:
    """Looks at each evidence segment it has not seen, in order, then gives the right answer.

    Where the turns do not reach for a look each, neighbouring segments share one; where the budget does
    not reach for all evidence it answers all the same. It knows the answer: it bounds accuracy and hit
    rate from above.

    Args:
        regions: whether it crops in space too where the task and the recipe ask for that.
    """

    def __init__(self, regions: bool = True) -> None:
        self._regions = regions

    def __call__(self, observation: Observation, info: dict[str, Any], env: VideoQAEnv) -> Action:
        """The next look, or the right answer."""
        state = env.state
        place = state.task.evidence_region if self._regions and state.rules.regions else None
        unseen = [s for s in state.task.evidence or () if not _seen(state, s, place)]
        if not unseen or state.turns_left <= 1 or state.frames_left == 0:
            return Answer(state.task.answer)
        return look_at(state, _next_stretch(unseen, state.turns_left - 1), place)


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
        task = state.task
        if task.evidence and all(_shown(state, s, task.evidence_region) for s in task.evidence):
            return Answer(state.task.answer)
        return random_answer(observation, self._rng)


class Random:
    """Looks at random segments of random length or searches for the question, and answers at random.

    Each kind of action has the same odds every turn.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def __call__(self, observation: Observation, info: dict[str, Any], env: VideoQAEnv) -> Action:
        """A look or an answer."""
        kinds = env.recipe.rules.actions
        kind = kinds[int(self._rng.integers(len(kinds)))]
        if kind == "answer" or int(observation["turns_left"][0]) <= 1:
            return random_answer(observation, self._rng)
        if kind == "find":
            return Find(str(observation["question"])[:MAX_QUERY_CHARS])
        start_s, end_s = np.sort(self._rng.uniform(0.0, float(observation["duration_s"][0]), 2)).tolist()
        return Select(start_s, end_s) if kind == "select" else with_count(Crop(start_s, end_s), env.state)


def random_answer(observation: Observation, rng: np.random.Generator) -> Answer:
    """A random option letter; "0" where there are no options."""
    options = [line[0] for line in observation["options"].split("\n") if line]
    return Answer(str(rng.choice(options)) if options else "0")


def look_at(state: State, segment: Segment, place: Region | None = None) -> Action:
    """The look that shows a segment, widened where fewer frames than one look needs lie in it.

    Args:
        state: of the running episode.
        segment: what to show.
        place: the region of a crop; None for the whole frame.
    """
    start_s, end_s = segment.start_s, segment.end_s
    if "select" not in state.rules.actions:
        # A crop needs two frames at least.
        end_s = min(max(end_s, start_s + 3.0 / state.video.avg_fps), state.video.duration_s)
        start_s = min(start_s, end_s - 3.0 / state.video.avg_fps)
        return with_count(Crop(start_s, end_s, None if place is None else place.as_tuple()), state)
    inside = [t for t in state.pool_s if segment.contains(t)]
    if not inside:
        # Between two pool frames: the last one before the segment is the nearest there is.
        start_s = max((t for t in state.pool_s if t <= start_s), default=0.0)
    return Select(start_s, end_s)


def with_count(crop: Crop, state: State) -> Crop:
    """The crop with the rate or count that rules open, as the recipe's own, within a look's frames.

    Grammars of recipes that open one have no words for a crop without it.
    """
    rules, length_s = state.rules, max(crop.end_s - crop.start_s, 1e-6)
    frames = min(rules.clip_frames, max(2, round(length_s * rules.crop_fps)))
    if "frames" in rules.crop_arguments:
        return replace(crop, frames=frames)
    if "fps" not in rules.crop_arguments:
        return crop
    # A little more, that a product cut to a whole number is not one frame short.
    return replace(crop, fps=min((frames + 0.01) / length_s, rules.max_fps))


def _next_stretch(segments: Sequence[Segment], looks: int) -> Segment:
    """What to look at first, to have looked at all segments after so many looks.

    The first segment, where there are enough looks; else the first of so many stretches of neighbouring
    segments, divided so that the longest is as short as can be.
    """
    if len(segments) <= looks:
        return segments[0]
    ordered = sorted(segments, key=lambda segment: segment.start_s)
    lengths = sorted(
        late.end_s - early.start_s for early, late in combinations_with_replacement(ordered, 2)
    )
    enough = bisect_left(lengths, True, key=lambda length: len(_stretches(ordered, length)) <= looks)
    return _stretches(ordered, lengths[enough])[0]


def _stretches(ordered: Sequence[Segment], longest_s: float) -> list[Segment]:
    """Neighbouring segments joined as long as a stretch does not get too long."""
    stretches = [ordered[0]]
    for segment in ordered[1:]:
        joined = Segment(stretches[-1].start_s, max(stretches[-1].end_s, segment.end_s))
        if joined.length_s <= longest_s:
            stretches[-1] = joined
        else:
            stretches.append(segment)
    return stretches


def _seen(state: State, segment: Segment, place: Region | None) -> bool:
    """Whether a look went to the segment, and into the place if there is one, or the skim shows it."""
    if _shown(state, segment, place):
        return True
    return any(
        look.start_s < segment.end_s and segment.start_s < look.end_s and _reaches(region, place)
        for look, region in zip(looked_segments(state), looked_regions(state), strict=True)
    )


def _shown(state: State, segment: Segment, place: Region | None) -> bool:
    return any(
        segment.contains(t)
        for clip in state.clips
        if _reaches(clip.region or WHOLE_FRAME, place)
        for t in clip.times_s
    )


def _reaches(region: Region, place: Region | None) -> bool:
    """Whether frames of a region show a place that the whole frame is too coarse for."""
    return place is None or (region != WHOLE_FRAME and region_iou(region, place) > 0)
