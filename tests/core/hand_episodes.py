"""Episodes without a video file: the facts are made up, transitions and rewards are the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from videogym.actions import begin, play, play_fault
from videogym.geometry import Segment
from videogym.recipes import Recipe
from videogym.rewards import Score, score
from videogym.state import Action, Invalid, Move, State, Task
from videogym.video.types import VideoMeta

UNREADABLE = Move((Invalid("format", "Not readable."),), text="?", well_formed=False)


def choice(evidence: Sequence[tuple[float, float]] | None = ((20, 30),), **changes: Any) -> Task:
    """A four-option task whose answer is B."""
    segments = None if evidence is None else tuple(Segment(*bounds) for bounds in evidence)
    task = Task("hand", "made-up.mp4", "Which one?", "choice", ("w", "x", "y", "z"), "B", segments)
    return replace(task, **changes)


class Hand:
    """An episode played by hand on a video of ``num_frames`` frames at ``fps``, frame i at i / fps."""

    def __init__(
        self,
        recipe: Recipe,
        task: Task | None = None,
        num_frames: int = 128,
        fps: float = 1.0,
        pts_s: Sequence[float] | None = None,
    ) -> None:
        self.recipe = recipe
        self.pts_s = np.arange(num_frames) / fps if pts_s is None else np.asarray(pts_s, dtype=float)
        duration_s = num_frames / fps if pts_s is None else float(self.pts_s[-1] + 1 / fps)
        video = VideoMeta(
            "made-up",
            duration_s,
            len(self.pts_s),
            len(self.pts_s) / duration_s,
            640,
            360,
            "none",
            is_vfr=pts_s is not None,
        )
        self.state: State = begin(task or choice(), video, self.pts_s, recipe.rules, recipe.identity)
        self.scores: list[Score] = []

    def step(self, *actions: Action | Move, fault: str = "") -> Score:
        """One turn of one move, or of parallel actions."""
        move = actions[0] if isinstance(actions[0], Move) else Move(actions)  # type: ignore[arg-type]
        after = play_fault(self.state, move, fault) if fault else play(self.state, move, self.pts_s)
        self.scores.append(score(self.recipe.terms, self.state, after))
        self.state = after
        return self.scores[-1]

    def play(self, *moves: Action | Move) -> Hand:
        """One turn for each move."""
        for move in moves:
            self.step(move)
        return self

    @property
    def returned(self) -> float:
        """The undiscounted return."""
        return sum(paid.reward for paid in self.scores)

    @property
    def codes(self) -> list[str]:
        """The first error code of every turn, "" where there is none."""
        return [turn.error.code if turn.error else "" for turn in self.state.turns]

    def total(self, name: str) -> float | None:
        """The sum of a term, None if it was always absent."""
        values = [v for v in (paid.terms[name] for paid in self.scores) if v is not None]
        return sum(values) if values else None
