"""Which examples a gradient step of fine-tuning learns from, and where they come from.

Examples lie in pools: those that are there already, conversations that are played again, conversations
about images. A step has a number of places; which pool and which example a place has follows from the seed
and its number alone. So a run that was stopped resumes with what it would have learned, and what has to be
played first is played when its step comes. An example that cannot be had, or whose frames cannot be
shown, is passed over for the next one of its pool, and counted.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

import numpy as np
import torch

from videogym.video import VideoError

from ..models.visuals import FrameReader, resolve
from .records import Record, RecordError, passages

log = logging.getLogger(__name__)
MOST_PASSED_OVER = 100  # examples of a pool in a row; more of them are no accident
_POOLS = 7  # tells the draws of pools from other draws of a seed


class Pool(Protocol):
    """Examples by number."""

    def __len__(self) -> int: ...

    def at(self, index: int) -> list[Record] | str:
        """The examples of one task, which begin alike; or in a few words why there are none."""
        ...


class Stored:
    """Examples that are in memory.

    Args:
        examples: by task.
    """

    def __init__(self, examples: Sequence[list[Record]]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def at(self, index: int) -> list[Record]:
        """See `Pool`."""
        return self._examples[index]


class Lessons:
    """The examples of every step of a run.

    Args:
        pools: with the share of places that each has; the shares sum to 1.
        seed: of the run.
        store: shows the frames of examples. They are looked at when an example is first asked for: the
            step that learns from it could only end the run.

    Attributes:
        counts: of all examples that were asked for by what became of them, ``"kept"`` first.

    Raises:
        RecordError: a pool is empty.
    """

    def __init__(self, pools: Sequence[tuple[Pool, float]], seed: int, store: FrameReader) -> None:
        self._pools, self._seed, self._store = [pool for pool, _ in pools], seed, store
        self._shown: set[tuple[int, int]] = set()  # pool and index of examples whose frames were seen
        if not all(len(pool) for pool in self._pools):
            raise RecordError("a pool of examples is empty")
        self._ends = np.cumsum([share for _, share in pools])[:-1]
        self._orders: dict[int, tuple[int, list[int]]] = {}  # by pool: a pass, and its order
        self.counts: Counter[str] = Counter(kept=0)

    def at(self, places: range) -> list[list[Record]]:
        """The examples of some places of the run, by task.

        Raises:
            RecordError: too many examples of a pool cannot be had; the message counts why.
        """
        # A longer run begins with the same draws.
        draws = np.random.default_rng((self._seed, _POOLS)).random(places.stop)
        drawn = np.searchsorted(self._ends, draws, side="right")
        return [
            self._example(int(drawn[place]), int((drawn[:place] == drawn[place]).sum())) for place in places
        ]

    def _example(self, pool: int, number: int) -> list[Record]:
        index, size = self._place(pool, number), len(self._pools[pool])
        for further in range(min(size, MOST_PASSED_OVER)):
            found = self._showable(pool, (index + further) % size)
            self.counts["kept" if not isinstance(found, str) else found] += 1
            if not isinstance(found, str):
                return found
        raise RecordError(f"none of {min(size, MOST_PASSED_OVER)} examples in a row can be had: {self}")

    def _showable(self, pool: int, index: int) -> list[Record] | str:
        """As the pool's `Pool.at`, where all frames that are learned from can be shown."""
        found = self._pools[pool].at(index)
        if isinstance(found, str) or (pool, index) in self._shown:
            return found
        visuals = [visual for record in found for part in passages(record) for visual in part.visuals]
        try:
            resolve(self._store, list(dict.fromkeys(visuals)))
        except VideoError as error:
            log.warning("passed over: task %s: %s", found[0].task_id, error)
            return "frames not shown"
        self._shown.add((pool, index))
        return found

    def _place(self, pool: int, number: int) -> int:
        """Where in a pool its example of that number is: every pass has an order of its own."""
        epoch, index = divmod(number, len(self._pools[pool]))
        if self._orders.get(pool, (-1, []))[0] != epoch:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch + pool * 2_000_000_011)
            order = torch.randperm(len(self._pools[pool]), generator=generator).tolist()
            self._orders[pool] = epoch, order
        return self._orders[pool][1][index]

    def __str__(self) -> str:
        """What became of the examples that were asked for."""
        return ", ".join(f"{fate} {count}" for fate, count in self.counts.items())


def by_task(records: Sequence[Record]) -> list[list[Record]]:
    """Neighbouring records of one task together, so that a gradient step can share what they began with.

    Records that were cut, and those without an output to imitate, are left out.

    Raises:
        RecordError: none is left.
    """
    whole = [
        record
        for record in records
        if not record.abort_reason and any(turn.trainable for turn in record.played)
    ]
    if not whole:
        raise RecordError(f"none of the {len(records)} records has an output to learn from")
    return [list(some) for _, some in groupby(whole, key=lambda record: record.task_id)]
