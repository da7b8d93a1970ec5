"""Curves of a training run, as small charts.

Reads what a run's logger leaves, ``log/scalars/NAME.csv`` with a line ``step,value`` for every point; knows
no training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

SCALARS = Path("log") / "scalars"  # below the folder of a run
_MOST_POINTS = 300  # that are drawn


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric over the steps of a run."""

    name: str
    path: str  # of the line, in a box 1000 wide and 100 high, as SVG has it; "" where nothing is finite
    first_step: int
    last_step: int
    first: float
    last: float
    low: float
    high: float


def read_curves(folder: Path) -> tuple[Curve, ...]:
    """The curves of a run, held-out metrics first, then by name; () where it has none.

    A last line that is still being written is passed over.

    Raises:
        ValueError: another line is no point; the message names file and line.
        OSError: a file cannot be read.
    """
    found = [_curve(path) for path in sorted((folder / SCALARS).glob("*.csv"))]
    return tuple(sorted((c for c in found if c), key=lambda c: (not c.name.startswith("eval_"), c.name)))


def _curve(path: Path) -> Curve | None:
    points: list[tuple[int, float]] = []
    if not path.is_file():  # a pipe may have no writer
        raise ValueError(f"{path}: cannot be read: not a regular file")
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                break
            step, _, value = line.partition(",")
            try:
                points.append((int(step), float(value)))
            except ValueError as error:
                raise ValueError(
                    f"{path}: line {number} is no step,value: {line.strip()[:60]!r}"
                ) from error
    return curve(path.stem, points) if points else None


def curve(name: str, points: list[tuple[int, float]]) -> Curve:
    """A curve from its points, of which there is at least one; what is not finite leaves a gap.

    >>> curve("reward", [(0, 1.0), (10, 3.0), (20, 2.0)]).path
    'M0 100L500 0L1000 50'
    """
    steps = [step for step, _ in points]
    finite = [value for _, value in points if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (math.nan, math.nan)
    first, last = min(steps), max(steps)
    places, pen = list[str](), "M"
    for step, value in dict.fromkeys((*points[:: -(-len(points) // _MOST_POINTS)], points[-1])):
        if math.isfinite(value):
            x = 1000 * (step - first) / (last - first) if last > first else 500.0
            y = 100 * (high - value) / (high - low) if high > low else 50.0
            places.append(f"{pen}{round(x)} {round(y)}")
            pen = "L"
        else:
            pen = "M"
    if len(places) == 1:
        places.append("h8")  # a dot
    return Curve(name, "".join(places), first, last, points[0][1], points[-1][1], low, high)
