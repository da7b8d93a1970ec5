"""What an answer costs: seconds, divided into decoding, the model and the environment, and tokens.

Nothing here knows what an episode is: whoever plays one says to whom the time since the last word went.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from videogym.video import decoding_time

Spender = Literal["model", "environment"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one answer took."""

    decoding_s: float  # opening the video and getting frames of it, by the environment or the policy
    model_s: float  # the policy, without decoding
    environment_s: float  # playing turns, building observations, judging the answer, without decoding
    tokens_in: int | None = (
        None  # of all contexts that a model read, one a turn; None: not a language model
    )
    tokens_out: int | None = None  # that it wrote

    @property
    def seconds(self) -> float:
        """Of the whole episode."""
        return self.decoding_s + self.model_s + self.environment_s

    def plus(self, other: Cost, share: float = 1.0) -> Cost:
        """With a share of the seconds of another; tokens stay."""
        return replace(
            self,
            decoding_s=self.decoding_s + share * other.decoding_s,
            model_s=self.model_s + share * other.model_s,
            environment_s=self.environment_s + share * other.environment_s,
        )


FREE = Cost(0.0, 0.0, 0.0)


class Stopwatch:
    """Divides time: every second belongs to one part, so that the parts add up to what has passed.

    What was spent on decoding (`videogym.video.decoding_time`) goes to decoding, whoever asked.

    Args:
        spent: counts the decoding of one who plays in many threads; None: that of this thread counts, and
            nobody knows what was decoded between two threads.
    """

    def __init__(self, spent: decoding_time.Spent | None = None) -> None:
        self._cost, self._own = FREE, spent
        self._spent = spent or decoding_time.of_thread()
        self._mark, self._decoded = decoding_time.now_s(), self._spent.seconds

    @property
    def cost(self) -> Cost | None:
        """What all laps add up to; None where one began in another thread than it ended."""
        return None if math.isnan(self._cost.decoding_s) else self._cost

    def lap(self, part: Spender) -> Cost:
        """Give the time since the last lap, or the beginning, to a part.

        Returns:
            What was given; NaN where the last lap was in another thread.
        """
        spent = self._own or decoding_time.of_thread()
        now, decoded = decoding_time.now_s(), spent.seconds
        decoding = decoded - self._decoded if spent is self._spent else math.nan
        rest = now - self._mark - decoding
        lap = Cost(decoding, rest * (part == "model"), rest * (part == "environment"))
        self._cost = self._cost.plus(lap)
        self._mark, self._decoded, self._spent = now, decoded, spent
        return lap


@dataclass(frozen=True, slots=True)
class Spread:
    """How a quantity is spread over episodes."""

    mean: float  # means of parts add up to the mean of the whole; medians need not
    median: float
    p95: float  # 95th percentile, interpolated linearly between neighbours
    count: int


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value.

    >>> found = spread([1.0, 2.0, 3.0, 4.0, 10.0])
    >>> found.mean, found.median, round(found.p95, 3), found.count
    (4.0, 3.0, 8.8, 5)
    """
    median, p95 = np.percentile(values, [50, 95])
    return Spread(float(np.mean(values)), float(median), float(p95), len(values))


def quantities(cost: Cost | None, frames: int, turns: int) -> dict[str, float]:
    """What one answer took, by name: seconds and their three parts, tokens in and out, frames, rounds.

    Args:
        cost: None: nobody measured it.
        frames: that were shown.
        turns: that were played.

    Returns:
        What is known.
    """
    known: dict[str, float | None] = {}
    if cost is not None:
        names = ("seconds", "decoding_s", "model_s", "environment_s", "tokens_in", "tokens_out")
        known = {name: getattr(cost, name) for name in names}
    known |= {"frames": frames, "rounds": turns}
    return {name: value for name, value in known.items() if value is not None}


def spreads(episodes: Iterable[Mapping[str, float]]) -> dict[str, Spread]:
    """How `quantities` are spread over episodes; of each those count that tell it."""
    columns: dict[str, list[float]] = {}
    for row in episodes:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: spread(columns[name]) for name in _ORDER if name in columns}


_ORDER = (
    *("seconds", "decoding_s", "model_s", "environment_s"),
    *("tokens_in", "tokens_out", "frames", "rounds"),
)
_WORDS = {"decoding_s": "  decoding", "model_s": "  model", "environment_s": "  environment"}


def cost_table(found: dict[str, Spread]) -> list[str]:
    """What answers took as lines; none where nothing is known."""
    if "seconds" not in found:
        return []
    rows: list[tuple[str, ...]] = [("cost of an answer", "mean", "median", "95th percentile")]
    for name, one in found.items():
        form = "{:.3f}" if name == "seconds" or name.endswith("_s") else "{:.1f}"
        words = _WORDS.get(name, name.replace("_", " "))
        rows.append((words, *map(form.format, (one.mean, one.median, one.p95))))
    return ["  ".join((row[0].ljust(18), *(cell.rjust(10) for cell in row[1:]))).rstrip() for row in rows]
