"""Where a look can go: segments of time and regions of the frame, and how far two of them overlap.

Seconds are the only unit of time; regions are fractions of the full frame, whatever its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


def as_float(value: object) -> float:
    """A number of any kind as Python's float; NaN for what is no number, infinity for one too large."""
    if type(value) is float:
        return value
    if isinstance(value, str | bytes | bool | np.bool_) or getattr(value, "ndim", False):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Segment:
    """Half-open interval ``[start_s, end_s)`` of a video, in seconds, kept as Python floats.

    Raises:
        ValueError: a bound is no finite number, the start is negative, or the end is not after the start.
    """

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        start_s, end_s = as_float(self.start_s), as_float(self.end_s)
        if not (math.isfinite(start_s) and math.isfinite(end_s)):
            raise ValueError(
                f"segment bounds must be finite, got [{self.start_s!s:.40}, {self.end_s!s:.40})"
            )
        if start_s < 0 or end_s <= start_s:
            raise ValueError(f"segment needs 0 <= start_s < end_s, got [{self.start_s}, {self.end_s})")
        object.__setattr__(self, "start_s", start_s)
        object.__setattr__(self, "end_s", end_s)

    @property
    def length_s(self) -> float:
        """Length in seconds, always positive."""
        return self.end_s - self.start_s

    def contains(self, time_s: float) -> bool:
        """Whether the instant lies inside; the end itself does not."""
        return self.start_s <= time_s < self.end_s


@dataclass(frozen=True, slots=True)
class Region:
    """Box ``(x0, y0, x1, y1)`` as fractions of the full frame, origin at the top left; Python floats.

    Raises:
        ValueError: a coordinate lies outside ``[0, 1]``, is not finite, or the box has no area.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        given = (self.x0, self.y0, self.x1, self.y1)
        box = tuple(map(as_float, given))
        if not all(0.0 <= side <= 1.0 for side in box):  # NaN is not
            raise ValueError(f"region coordinates must lie in [0, 1], got {given!s:.80}")
        if box[0] >= box[2] or box[1] >= box[3]:
            raise ValueError(f"region needs x0 < x1 and y0 < y1, got {given}")
        for name, side in zip(("x0", "y0", "x1", "y1"), box, strict=True):
            object.__setattr__(self, name, side)

    def __iter__(self) -> Iterator[float]:
        """The four coordinates, so that a region can stand where they are expected."""
        return iter(self.as_tuple())

    def as_tuple(self) -> tuple[float, float, float, float]:
        """The four coordinates, for a reader that wants plain numbers."""
        return (self.x0, self.y0, self.x1, self.y1)

    @property
    def area(self) -> float:
        """Share of the frame, above 0 and at most 1."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


WHOLE_FRAME = Region(0.0, 0.0, 1.0, 1.0)


def intersection_s(segments: Sequence[Segment], others: Sequence[Segment]) -> float:
    """Seconds covered by both unions; overlaps inside one list count once. Exactly 0.0 without any."""
    return math.fsum(_overlaps_s(merge(segments), merge(others)))


def union_iou(segments: Sequence[Segment], others: Sequence[Segment]) -> float:
    """Intersection over union, in seconds, of all of one list and all of another.

    Returns:
        A value in ``[0, 1]``, the same whichever list comes first; 0.0 where both are empty.
    """
    union_s = _length_s(merge([*segments, *others]))
    # Many parts in common are rounded one by one, so their sum can be an ulp above the whole.
    return min(1.0, intersection_s(segments, others) / union_s) if union_s else 0.0


def merge(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The same seconds as disjoint segments in ascending order; touching ones become one."""
    merged: list[Segment] = []
    for segment in sorted(segments, key=lambda s: (s.start_s, s.end_s)):
        if merged and segment.start_s <= merged[-1].end_s:
            merged[-1] = Segment(merged[-1].start_s, max(merged[-1].end_s, segment.end_s))
        else:
            merged.append(segment)
    return tuple(merged)


def segment_iou(chosen: Segment, other: Segment) -> float:
    """Temporal intersection over union of two segments.

    Returns:
        A value in ``[0, 1]``; 0.0 when they only touch.

    >>> segment_iou(Segment(10, 20), Segment(15, 25))
    0.3333333333333333
    """
    inter = min(chosen.end_s, other.end_s) - max(chosen.start_s, other.start_s)
    if inter <= 0:
        return 0.0
    return inter / (chosen.length_s + other.length_s - inter)


def region_iou(chosen: Region, other: Region) -> float:
    """Intersection over union of two regions.

    Returns:
        A value in ``[0, 1]``; 0.0 when they only touch.

    >>> region_iou(Region(0.0, 0.0, 0.5, 0.5), Region(0.25, 0.0, 0.75, 0.5))
    0.3333333333333333
    """
    wide = min(chosen.x1, other.x1) - max(chosen.x0, other.x0)
    high = min(chosen.y1, other.y1) - max(chosen.y0, other.y0)
    if wide <= 0 or high <= 0:
        return 0.0
    union = chosen.area + other.area - wide * high
    return wide * high / union if union > 0 else float(chosen == other)  # areas too small for a float


def _length_s(segments: Sequence[Segment]) -> float:
    return math.fsum(segment.length_s for segment in segments)


def _overlaps_s(segments: Sequence[Segment], others: Sequence[Segment]) -> Iterator[float]:
    """Seconds of each overlap of two lists of disjoint segments, both in ascending order."""
    i = j = 0
    while i < len(segments) and j < len(others):
        one, other = segments[i], others[j]
        if (common_s := min(one.end_s, other.end_s) - max(one.start_s, other.start_s)) > 0:
            yield common_s
        if one.end_s < other.end_s:
            i += 1
        else:
            j += 1
