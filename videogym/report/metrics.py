"""Metrics of a run, gathered episode by episode so that a report of any number needs no memory of them.

Numbers alone are kept: sixteen bytes a metric and episode.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from videogym.cost import Spread, quantities, spread
from videogym.evaluate import Episode
from videogym.grouping import Groups, group, require_known
from videogym.intervals import Estimate, clustered_mean, clustered_proportion, proportion
from videogym.metadata import Metadata
from videogym.report.episodes import EpisodeView
from videogym.traces.episodes import episode_from_trace


@dataclass(slots=True)
class _Column:
    """One metric of episodes, each with the number of its video."""

    values: array[float] = field(default_factory=lambda: array("d"))
    videos: array[int] = field(default_factory=lambda: array("l"))

    def add(self, value: float, video: int) -> None:
        self.values.append(value)
        self.videos.append(video)

    def share(self) -> Estimate | None:
        """Share of the values that are 1."""
        right = [value > 0 for value in self.values]
        return clustered_proportion(right, self.videos) if right else None

    def mean(self) -> Estimate | None:
        return clustered_mean(self.values, self.videos) if self.values else None


@dataclass(slots=True)
class RunMetrics:
    """Metrics of one run, without episodes that had a fault, were left, or were not judged.

    Intervals are clustered by video, as those of `videogym.evaluate`.
    """

    name: str
    episodes: int = 0
    recipes: dict[str, None] = field(default_factory=dict)  # identities, in the order in which they came
    _videos: dict[str, int] = field(default_factory=dict)  # by fingerprint, their numbers
    _columns: defaultdict[str, _Column] = field(default_factory=lambda: defaultdict(_Column))
    _turns: Counter[str] = field(default_factory=Counter)

    def add(self, view: EpisodeView) -> None:
        """Count an episode."""
        trace = view.trace
        self.episodes += 1
        self.recipes.setdefault(trace.recipe)
        if view.faults or trace.cut not in ("", "truncated") or trace.correct is None:
            return
        self._turns += Counter(all=len(view.turns), refused=view.refused_turns)
        values = quantities(trace.cost, trace.frames_shown, len(view.turns))
        values |= {"right": trace.correct, "reward": trace.reward}
        values |= {} if view.hit is None else {"hit": view.hit}
        values |= {} if view.tiou is None else {"tiou": view.tiou}
        video = self._videos.setdefault(trace.video.fingerprint, len(self._videos))
        for name, value in values.items():
            self._columns[name].add(float(value), video)

    @property
    def left_out(self) -> int:
        """Episodes that are in none of the metrics."""
        return self.episodes - len(self._columns["right"].values)

    @property
    def accuracy(self) -> Estimate | None:
        """Share of the episodes that ended with the right answer."""
        return self._columns["right"].share()

    @property
    def hit_rate(self) -> Estimate | None:
        """Share of the episodes with evidence that were shown all of it, see `videogym.evaluate.hits`."""
        return self._columns["hit"].share()

    @property
    def refused(self) -> Estimate | None:
        """Share of the turns that executed nothing."""
        return proportion(self._turns["refused"], self._turns["all"]) if self._turns["all"] else None

    @property
    def reward(self) -> Estimate | None:
        """Mean reward of an episode."""
        return self._columns["reward"].mean()

    @property
    def tiou(self) -> Estimate | None:
        """Mean temporal IoU of all looks with all evidence, of the episodes that have evidence."""
        return self._columns["tiou"].mean()

    @property
    def turns(self) -> Estimate | None:
        """Mean number of turns."""
        return self._columns["rounds"].mean()

    @property
    def frames(self) -> Estimate | None:
        """Mean number of frames shown."""
        return self._columns["frames"].mean()

    @property
    def costs(self) -> dict[str, Spread]:
        """What answers took, by name, see `videogym.cost.quantities`; nothing where nobody measured it."""
        if "seconds" not in self._columns:
            return {}
        return {name: spread(column.values) for name, column in self._columns.items() if column.values}


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
