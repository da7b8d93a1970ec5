"""Shares and means with 95 % intervals, also where several values belong to one video.

Questions about one video are not independent: a policy that cannot read a video fails at all of them. A
design effect widens the interval by what they have in common, and is 1 where every video has one value.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.959964


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def proportion(successes: int, count: int) -> Estimate:
    """Share of successes with Wilson's 95 % score interval, which stays inside [0, 1].

    >>> str(proportion(9, 10))
    '0.900 [0.596, 0.982]'
    """
    return _wilson(successes / count, count, count)


def clustered_proportion(values: Sequence[bool], clusters: Sequence[Hashable]) -> Estimate:
    """Share of true values with Wilson's interval for as many values as are worth the clustered ones.

    Args:
        values: at least one.
        clusters: to which each belongs, e.g. its video; `proportion` where no two share one.

    >>> str(clustered_proportion([True] * 9 + [False], range(10)))
    '0.900 [0.596, 0.982]'
    >>> str(clustered_proportion([True] * 10, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])) == str(proportion(5, 5))
    True
    """
    worth = len(values) / design_effect([float(value) for value in values], clusters)
    return _wilson(sum(values) / len(values), worth, len(values))


def _wilson(share: float, worth: float, count: int) -> Estimate:
    centre = (share + Z * Z / (2 * worth)) / (1 + Z * Z / worth)
    spread = math.sqrt(share * (1 - share) / worth + Z * Z / (4 * worth * worth))
    half = Z * spread / (1 + Z * Z / worth)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), count)


def mean(values: Sequence[float]) -> Estimate:
    """Mean with its normal 95 % interval; the interval of a single value is the value."""
    return clustered_mean(values, range(len(values)))


@np.errstate(over="ignore", invalid="ignore")  # the result says it, NumPy's warning not of what
def clustered_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """Mean with its normal 95 % interval, wider where values of one cluster go together.

    Where a value is infinite or NaN, as a stored reward may be, so is the mean, and the bounds are NaN.

    Args:
        values: at least one.
        clusters: to which each belongs; `mean` where no two share one.
    """
    array = np.asarray(values, dtype=np.float64)
    centre = float(array.mean())
    if not math.isfinite(centre):
        return Estimate(centre, math.nan, math.nan, len(array))
    half = Z * float(array.std(ddof=1)) / math.sqrt(len(array)) if len(array) > 1 else 0.0
    half *= math.sqrt(design_effect(array, clusters))
    return Estimate(centre, centre - half, centre + half, len(array))


def design_effect(values: Sequence[float] | np.ndarray, clusters: Sequence[Hashable]) -> float:
    """By what the variance of a mean is larger than that of as many independent values.

    Never below 1, so that chance in few clusters makes no interval narrower, and never above the number of
    values, which it is where they are all of one cluster. Where all values are equal, that of whole
    clusters: values of one are taken to be one.

    Args:
        values: at least one.
        clusters: as many.

    Source: Cameron and Miller, A Practitioner's Guide to Cluster-Robust Inference, J. Human Resources 50
    (2015), with the factor G / (G - 1) of G clusters.
    """
    array = np.asarray(values, dtype=np.float64)
    off = array - array.mean()
    sums: dict[Hashable, float] = defaultdict(float)
    for cluster, difference in zip(clusters, off.tolist(), strict=True):
        sums[cluster] += difference
    count, groups = len(array), len(sums)
    if groups in (1, count):
        return 1.0 if groups == count else float(count)
    alone = float((off**2).sum()) / (count - 1) / count
    if alone == 0:
        return count / groups
    together = groups / (groups - 1) * sum(total**2 for total in sums.values()) / count**2
    return min(float(count), max(1.0, together / alone))
