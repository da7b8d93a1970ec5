"""Metrics of two runs on the tasks that both played, and their differences pair by pair.

Differences are B - A. Knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from videogym.evaluate import Episode
from videogym.grouping import NOTHING, split
from videogym.intervals import Estimate, Z, clustered_mean, clustered_proportion, design_effect

_T = TypeVar("_T")
Pair = tuple[Episode, Episode]  # of one task: A's and B's


@dataclass(frozen=True, slots=True)
class PairedMetric:
    """A metric of either run over the pairs in which both have it, and the difference."""

    name: str
    a: Estimate
    b: Estimate
    difference: Estimate  # B - A


@dataclass(frozen=True, slots=True)
class McNemar:
    """Tasks that one run alone got right, and the exact test of their balance."""

    only_a: int
    only_b: int
    p: float  # two-sided


def mcnemar(only_a: int, only_b: int) -> McNemar:
    """McNemar's exact test: were ``only_a`` and ``only_b`` drawn with equal odds?

    Returns:
        With the two-sided p, twice the smaller binomial tail and at most 1; 1.0 without any such task.

    >>> mcnemar(1, 7).p
    0.0703125
    """
    count, term, tail = only_a + only_b, 1, 0
    for i in range(min(only_a, only_b) + 1):  # in whole numbers, so that no count is too large
        tail += term
        term = term * (count - i) // (i + 1)
    return McNemar(only_a, only_b, min(1.0, 2 * tail / 2**count))


def share_difference(
    a: Sequence[bool], b: Sequence[bool], clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """Difference of two paired shares with an adjusted Wald 95 % interval.

    The interval is honest for few pairs, and has a width where all pairs agree.

    Args:
        a: one truth value a pair, at least one.
        b: in the same order.
        clusters: to which each pair belongs, its video; None: each to its own. Pairs of one widen the
            interval by their design effect.

    Returns:
        Mean B - A; the interval lies in [-1, 1].

    Source: Bonett and Price, Adjusted Wald Confidence Interval for a Difference of Binomial Proportions
    Based on Paired Data, J. Educ. Behav. Stat. 37 (2012): one pair is added to either kind of discordant
    ones.
    """
    pairs = list(zip(a, b, strict=True))
    only_a = sum(x and not y for x, y in pairs)
    only_b = sum(y and not x for x, y in pairs)
    p_a, p_b = ((count + 1) / (len(pairs) + 2) for count in (only_a, only_b))
    half = Z * math.sqrt((p_a + p_b - (p_b - p_a) ** 2) / (len(pairs) + 2))
    if clusters is not None:
        half *= math.sqrt(design_effect([float(y) - float(x) for x, y in pairs], clusters))
    low, high = max(-1.0, p_b - p_a - half), min(1.0, p_b - p_a + half)
    return Estimate((only_b - only_a) / len(pairs), low, high, len(pairs))


def mean_difference(
    a: Sequence[float], b: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """Mean of B - A over pairs with its normal 95 % interval; ``clusters`` as in `share_difference`."""
    differences = [y - x for x, y in zip(a, b, strict=True)]
    return clustered_mean(differences, range(len(differences)) if clusters is None else clusters)


_SHARES: dict[str, Callable[[Episode], bool | None]] = {
    "accuracy": lambda episode: episode.correct,
    "hit rate": lambda episode: episode.hit,
}
_MEANS: dict[str, Callable[[Episode], float | None]] = {
    "temporal IoU": lambda episode: episode.tiou,
    # Of an answer that nobody judged it is not known what it earned.
    "reward": lambda episode: None if episode.correct is None else episode.reward,
    "turns": lambda episode: episode.turns,
    "refused turns": lambda episode: episode.invalid_turns,
    "frames": lambda episode: episode.frames,
}


def metrics(pairs: Sequence[Pair]) -> tuple[PairedMetric, ...]:
    """All metrics that both runs have of some pairs."""
    made = [_share(name, read, pairs) for name, read in _SHARES.items()]
    made += [_mean(name, read, pairs) for name, read in _MEANS.items()]
    return tuple(metric for metric in made if metric is not None)


def term_metrics(pairs: Sequence[Pair]) -> tuple[PairedMetric, ...]:
    """Sums of reward terms over an episode, for the terms that both runs were paid in some pairs."""
    names = dict.fromkeys(name for pair in pairs for episode in pair for name in episode.terms)
    made = [_mean(name, partial(_paid, name), pairs) for name in names]
    return tuple(metric for metric in made if metric is not None)


def _paid(name: str, episode: Episode) -> float | None:
    return episode.terms.get(name)


def discordance(pairs: Sequence[Pair]) -> McNemar | None:
    """Who alone was right, over the pairs in which both were judged; None without any."""
    judged = [(a.correct, b.correct) for a, b in pairs if a.correct is not None and b.correct is not None]
    if not judged:
        return None
    return mcnemar(sum(a and not b for a, b in judged), sum(b and not a for a, b in judged))


@dataclass(frozen=True, slots=True)
class PairGroup:
    """Pairs whose tasks share a value of some field."""

    value: str
    tasks: int
    metrics: tuple[PairedMetric, ...]


def groups(pairs: Sequence[Pair], name: str) -> tuple[PairGroup, ...]:
    """Metrics of pairs by a field of their tasks' metadata, the largest group first.

    A result of before there was metadata tells none; then the other run's counts.
    """
    members = split(((a.metadata or b.metadata, (a, b)) for a, b in pairs), name)
    made = [PairGroup(value, len(of), metrics(of)) for value, of in members.items()]
    return tuple(sorted(made, key=lambda one: (one.value == NOTHING, -one.tasks, one.value)))


def _share(name: str, read: Callable[[Episode], bool | None], pairs: Sequence[Pair]) -> PairedMetric | None:
    present = _present(read, pairs)
    if not present:
        return None
    a, b, videos = zip(*present, strict=True)
    one, other = (clustered_proportion(run, videos) for run in (a, b))
    return PairedMetric(name, one, other, share_difference(a, b, videos))


def _mean(name: str, read: Callable[[Episode], float | None], pairs: Sequence[Pair]) -> PairedMetric | None:
    present = _present(read, pairs)
    if not present:
        return None
    a, b, videos = zip(*present, strict=True)
    one, other = (clustered_mean(run, videos) for run in (a, b))
    return PairedMetric(name, one, other, mean_difference(a, b, videos))


def _present(read: Callable[[Episode], _T | None], pairs: Sequence[Pair]) -> list[tuple[_T, _T, str]]:
    """Values of the pairs in which both have one, and the video of each pair."""
    values = ((read(a), read(b), a.video) for a, b in pairs)
    return [(a, b, video) for a, b, video in values if a is not None and b is not None]
