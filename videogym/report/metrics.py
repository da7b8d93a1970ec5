"""Metrics of a run, gathered episode by episode so that a report of any number needs no memory of them.

Counts and numbers alone are kept: eight bytes a metric and episode.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from videogym.cost import Spread, quantities, spread
from videogym.evaluate import Episode, Estimate, mean, proportion
from videogym.grouping import Groups, group, require_known
from videogym.metadata import Metadata
from videogym.report.episodes import EpisodeView
from videogym.traces.episodes import episode_from_trace


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
    _costs: dict[str, array[float]] = field(default_factory=dict)  # by name of the quantity

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
        for name, value in quantities(trace.cost, trace.frames_shown, len(view.turns)).items():
            self._costs.setdefault(name, _numbers()).append(value)
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

    @property
    def costs(self) -> dict[str, Spread]:
        """What answers took, by name, see `videogym.cost.quantities`; nothing where nobody measured it."""
        if "seconds" not in self._costs:
            return {}
        return {name: spread(values) for name, values in self._costs.items()}

    def _share(self, name: str, count: int) -> Estimate | None:
        return proportion(self._counts[name], count) if count else None


def _mean(values: array[float]) -> Estimate | None:
    return mean(list(values)) if values else None


class GroupedMetrics:
    """Metrics of runs by fields of the tasks' metadata, as `videogym.grouping` has them.

    Keeps a record of every episode, without what it does not group by.

    Args:
        names: of the fields; of none, nothing is kept.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._known: dict[str, None] = {}
        self._episodes: dict[str, list[Episode]] = {}  # by run
        self._left_out: dict[str, list[Metadata]] = {}

    def add(self, view: EpisodeView) -> None:
        """Count an episode."""
        if not self._names:
            return
        episode = episode_from_trace(view.trace)
        self._known |= dict.fromkeys(episode.metadata)
        told = Metadata({name: episode.metadata[name] for name in self._names if name in episode.metadata})
        scored, lost = self._episodes.setdefault(view.run, []), self._left_out.setdefault(view.run, [])
        if view.faults or view.trace.cut not in ("", "truncated"):
            lost.append(told)
        else:
            scored.append(replace(episode, metadata=told, terms={}))

    def tables(self) -> dict[str, dict[str, Groups]]:
        """For each field the groups of each run.

        Raises:
            ValueError: no task has a field of such a name.
        """
        require_known(self._names, [self._known])
        return {
            name: {
                run: group(episodes, name, self._left_out[run]) for run, episodes in self._episodes.items()
            }
            for name in self._names
        }
