"""Metrics of a run, gathered episode by episode so that a report of any number needs no memory of them.

Counts and numbers alone are kept: eight bytes a metric and episode.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

from videogym.evaluate import Estimate, mean, proportion
from videogym.report.episodes import EpisodeView


def _numbers() -> array[float]:
    return array("d")


@dataclass(slots=True)
class RunMetrics:
    """Metrics of one run, without episodes that had a fault, were left, or were not judged."""

    name: str
    episodes: int = 0
    recipes: dict[str, None] = field(default_factory=dict)  # identities, in the order in which they came
    _counts: Counter[str] = field(default_factory=Counter)
    _rewards: array[float] = field(default_factory=_numbers)
    _tious: array[float] = field(default_factory=_numbers)
    _turns: array[float] = field(default_factory=_numbers)
    _frames: array[float] = field(default_factory=_numbers)

    def add(self, view: EpisodeView) -> None:
        """Count an episode."""
        trace = view.trace
        self.episodes += 1
        self.recipes.setdefault(trace.recipe)
        if view.faults or trace.cut not in ("", "truncated") or trace.correct is None:
            return
        self._counts += Counter(
            right=bool(trace.correct),
            hits=bool(view.hit),
            with_evidence=view.hit is not None,
            refused=view.refused_turns,
            turns=len(view.turns),
        )
        self._rewards.append(trace.reward)
        self._turns.append(len(view.turns))
        self._frames.append(trace.frames_shown)
        if view.tiou is not None:
            self._tious.append(view.tiou)

    @property
    def left_out(self) -> int:
        """Episodes that are in none of the metrics."""
        return self.episodes - len(self._rewards)

    @property
    def accuracy(self) -> Estimate | None:
        """Share of the episodes that ended with the right answer."""
        return self._share("right", len(self._rewards))

    @property
    def hit_rate(self) -> Estimate | None:
        """Share of the episodes with evidence that were shown all of it, see `videogym.evaluate.hits`."""
        return self._share("hits", self._counts["with_evidence"])

    @property
    def refused(self) -> Estimate | None:
        """Share of the turns that executed nothing."""
        return self._share("refused", self._counts["turns"])

    @property
    def reward(self) -> Estimate | None:
        """Mean reward of an episode."""
        return _mean(self._rewards)

    @property
    def tiou(self) -> Estimate | None:
        """Mean temporal IoU of all looks with all evidence, of the episodes that have evidence."""
        return _mean(self._tious)

    @property
    def turns(self) -> Estimate | None:
        """Mean number of turns."""
        return _mean(self._turns)

    @property
    def frames(self) -> Estimate | None:
        """Mean number of frames shown."""
        return _mean(self._frames)

    def _share(self, name: str, count: int) -> Estimate | None:
        return proportion(self._counts[name], count) if count else None


def _mean(values: array[float]) -> Estimate | None:
    return mean(list(values)) if values else None
