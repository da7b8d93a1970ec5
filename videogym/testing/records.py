"""Rows of records of published systems, how they are compared, and the environment that replays them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from videogym.env import VideoQAEnv
from videogym.recipes import Recipe
from videogym.rewards import frame_iou, relevant_pool
from videogym.state import Clip, State, Task
from videogym.testing.blank_video import BlankVideo, OneVideoStore
from videogym.video.sampling import linspace_floored
from videogym.wrappers import TextActions

TOLERANCE = 1e-6  # of floats; some records are rounded


class UnusableRow(Exception):
    """A row that is no record of a known kind."""


class ConformanceRow(dict[str, Any]):
    """One record; a field it lacks makes it unusable."""

    def __missing__(self, key: str) -> Any:
        raise UnusableRow(f"the row has no field {key!r}")


Mismatches = Iterator[str]
Check = Callable[[ConformanceRow], Mismatches]


def expect(name: str, expected: Any, actual: Any) -> Mismatches:
    """Say it if an outcome is not the recorded one."""
    if not nearly_same(expected, actual):
        yield f"{name}: expected {expected!r}, got {actual!r}"


def nearly_same(expected: Any, actual: Any) -> bool:
    """Whether two JSON values are equal, floats nearly."""
    if isinstance(expected, list | tuple) and isinstance(actual, list | tuple):
        return len(expected) == len(actual) and all(map(nearly_same, expected, actual))
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            nearly_same(expected[key], actual[key]) for key in expected
        )
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    if isinstance(expected, int | float) and isinstance(actual, int | float):
        return math.isclose(expected, actual, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(expected == actual)


def number(value: Any) -> float | None:
    """A number that JSON may have had to write as text, such as "nan"."""
    return None if value is None else float(value)


class ReplayEpisode:
    """One task in the real environment, played by text."""

    def __init__(self, recipe: Recipe, task: Task, video: BlankVideo) -> None:
        self.inner = VideoQAEnv([task], recipe)
        self.inner.store = OneVideoStore(video)
        self.recipe, self.env = recipe, TextActions(self.inner)
        self.env.reset(seed=0)

    def __enter__(self) -> ReplayEpisode:
        return self

    def __exit__(self, *_: object) -> None:
        self.env.close()

    @property
    def state(self) -> State:
        """The current state."""
        return self.inner.state

    def use_pool(self, size: int) -> None:
        """Replace a pool that the sampling rule rounded down, for records of odd sizes."""
        if len(self.state.pool_s) != size:
            pool = tuple(map(float, range(size)))
            skim = Clip(
                tuple(pool[i] for i in linspace_floored(0, size - 1, self.recipe.rules.skim_frames))
            )
            self.set(replace(self.state, pool_s=pool, skim=skim))

    def indices(self, times_s: Sequence[float]) -> list[int]:
        """Pool indices of frames."""
        return [self.state.pool_s.index(time_s) for time_s in times_s]

    def step(self, text: str) -> tuple[float, bool, dict[str, Any]]:
        """Play one output; the reward, whether the episode has ended, and the info."""
        _, reward, terminated, _, info = self.env.step(text)
        return reward, terminated, info

    def probe(self, text: str) -> dict[str, Any]:
        """Play one output and say what came of it in the words of Video-MTR's records."""
        if self.state.terminated:  # the reference goes on after the end
            self.set(replace(self.state, ending=""))
        reward, done, info = self.step(text)
        turn, relevant = self.state.turns[-1], relevant_pool(self.state)
        clip = turn.clips[-1] if turn.clips else None
        return {
            "reward": reward,
            "done": done,
            "success": bool(info["reward_terms"]["answer"] > 0),
            "action_valid": turn.valid,
            "format_correct": turn.well_formed,
            "obs_idxs": None if clip is None else self.indices(clip.times_s),
            "iou": None if clip is None or relevant is None else frame_iou(clip, relevant),
        }

    def set(self, state: State) -> None:
        """Go on from a state."""
        self.inner.set_state(replace(self.inner.get_state(), state=state))


OPEN_TASK = Task("clip", "blank", "What is shown?", "open", answer="x")
