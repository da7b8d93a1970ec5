"""What is said in a video: lines with their times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Subtitle(NamedTuple):
    """One line."""

    start_s: float  # shown from here
    end_s: float  # until here, exclusive
    text: str  # on one line


def covering(lines: Sequence[Subtitle], times_s: Iterable[float]) -> tuple[Subtitle, ...]:
    """The lines that are shown at one of the times at least, in their order.

    >>> lines = [Subtitle(0, 2, "Hello."), Subtitle(2, 3, "Come in."), Subtitle(9, 12, "Bye.")]
    >>> [line.text for line in covering(lines, [1.5, 2.0, 8.0])]
    ['Hello.', 'Come in.']
    """
    times = sorted(times_s)
    return tuple(line for line in lines if any(line.start_s <= time < line.end_s for time in times))
