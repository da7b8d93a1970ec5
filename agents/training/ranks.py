"""Processes that torchrun starts: who they are, what they tell each other, how they divide work.

All ranks know all records and decide the same from them, so that what they do is one run. Without torchrun
nothing here does anything: one process does all and tells nobody. Models are not known here.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise, zip_longest
from typing import NoReturn, ParamSpec, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from .bounds import OptionError

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")
PATIENCE = timedelta(hours=6)  # ranks wait for the longest episode; who has died torchrun tells at once
REAPED_S = 5.0  # in which torchrun, which looks ten times a second, has buried a process
_PEERS: dict[int, int] = {}  # process ids by rank, of the others that the same torchrun has started


class RankDied(RuntimeError):
    """Another rank is no more."""


class RanksDisagree(ValueError):
    """Ranks were given different options, weights or data."""


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_torchelastic_launched()


def init_distributed(device: str) -> None:
    """Meet the other ranks, unless that is done; on GPUs each takes its own."""
    if not launched() or dist.is_initialized():
        return
    end_with_parent()  # torchrun ends its ranks, but where it is killed itself
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Records and figures go through gloo on any device.
    dist.init_process_group("cpu:gloo" if kind == "cpu" else f"cpu:gloo,{kind}:nccl", timeout=PATIENCE)
    launcher = os.environ["GROUP_RANK"]
    for number, (theirs, pid) in enumerate(all_gather_object((launcher, os.getpid()))):
        if theirs == launcher and number != rank():
            _PEERS[number] = pid


def destroy_process_group() -> None:
    """Part from the other ranks, which may end from now on; all part together.

    The first may still be writing when others are done: if they ended, its failure would look like theirs.
    """
    if dist.is_initialized():
        all_gather_object(None)
    _PEERS.clear()
    if dist.is_initialized():
        dist.destroy_process_group()


def reported(work: Callable[P, None]) -> Callable[P, None]:
    """A function whose error torchrun names as the cause when it ends all ranks."""
    return record(work) if launched() else work


def alone(what: str) -> None:
    """Refuse several processes.

    Raises:
        OptionError: torchrun started this.
    """
    if launched():
        raise OptionError(f"{what} is not made for torchrun; start it with plain python")


def rank() -> int:
    """Number of this process, from 0."""
    if not dist.is_initialized():  # before ranks have met torchrun tells
        return int(os.environ.get("RANK", 0)) if launched() else 0
    return dist.get_rank()


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if launched() else 1


def is_first() -> bool:
    """Whether this process writes files and shows what goes on."""
    return rank() == 0


# --- the death of a rank -----------------------------------------------------------------------


def dead_peers() -> list[int]:
    """Ranks of this machine that are no more."""
    return [number for number, pid in _PEERS.items() if not _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def require_peers() -> None:
    """Go on only where all other ranks of this machine live.

    Raises:
        RankDied: one has died, and torchrun is ending all.
    """
    for number in dead_peers():
        raise RankDied(f"rank {number} has died")


def await_death() -> RankDied | None:
    """What has become of another rank, if one dies in a moment: its connections break before it is gone.

    Only then can it be said who of the others is the first, see `is_first_alive`.
    """
    end = time.monotonic() + REAPED_S
    try:
        while _PEERS and time.monotonic() < end:
            require_peers()
            time.sleep(0.05)
    except RankDied as death:  # a signal of torchrun may be the first to tell
        return death
    return None


def is_first_alive() -> bool:
    """Whether this process tells what became of a dead one: the first of its machine that lives."""
    return not any(number < rank() and _lives(pid) for number, pid in _PEERS.items())


def end_with_parent() -> None:
    """End this process within a second of the one that started it, so that nothing goes on writing."""
    parent, starter = multiprocessing.parent_process(), os.getppid()

    def wait() -> None:
        if parent is not None:  # of a forked server's children the starter is the server
            parent.join()
        while parent is None and os.getppid() == starter:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


# --- what ranks tell each other ----------------------------------------------------------------


def all_gather_object(value: T) -> list[T]:
    """The values of all ranks, in order."""
    if not launched():
        return [value]
    values: list[T] = [value] * size()
    dist.all_gather_object(values, value)
    return values


def broadcast_from_rank0(make: Callable[[], T]) -> T:
    """What the first rank makes, for all."""
    if not launched():
        return make()
    found = [cast(T, make() if is_first() else None)]
    dist.broadcast_object_list(found)
    return found[0]


def together(work: Callable[[], T], told: tuple[type[Exception], ...] = ()) -> list[T]:
    """What some work makes in every rank, by rank.

    Args:
        work: is done by all, each by itself.
        told: errors of it that all ranks raise when one of them has one. Any other ends its process, and
            by torchrun all.
    """
    made: T | None = None
    own: Exception | None = None
    try:
        made = work()
    except told as error:
        own = error
    found = all_gather_object((made, own))
    for _, failed in found:
        if failed is not None:
            raise own or failed
    return [cast(T, value) for value, _ in found]


def exit_together(status: int, message: str) -> NoReturn:
    """End all ranks, by one message of the first on standard error; all call it."""
    if is_first():
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()
    all_gather_object(None)
    if launched() and threading.current_thread() is threading.main_thread():
        # torchrun ends all as soon as one has ended; who is about to end by itself does not need it.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(status)


def require_alike(told: Mapping[str, str]) -> None:
    """Refuse ranks that say different things of themselves; all ask together.

    Args:
        told: texts by name, the same names in all ranks.

    Raises:
        RanksDisagree: on all ranks, about the first name that differs.
    """
    first, *others = all_gather_object(dict(told))
    for number, theirs in enumerate(others, 1):
        for name, value in theirs.items():
            if value != first[name]:
                both = f"rank 0 has {first[name]:.200}, rank {number} {value:.200}"
                raise RanksDisagree(f"ranks disagree about {name}: {both}")


def map_across_ranks(
    items: Sequence[T],
    work: Callable[[Sequence[T]], Sequence[R]],
    told: tuple[type[Exception], ...] = (),
) -> list[R]:
    """What some work makes of items, one result each, in order; of N ranks each does every Nth item.

    Args:
        items: the same on all ranks.
        work: is given the items of a rank, if it has any.
        told: as in `together`.
    """
    mine = items[rank() :: size()]
    parts = together(lambda: work(mine) if mine else [], told)
    return [parts[place % size()][place // size()] for place in range(len(items))]


def sum_over_ranks(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sums by name over the rows of all ranks: of means of parts, each times its share, the mean of all."""
    gathered = [row for some in all_gather_object(list(rows)) for row in some]
    names = {name for row in gathered for name in row}
    return {name: math.fsum(row.get(name, 0.0) for row in gathered) for name in sorted(names)}


class Alarm:
    """Tells all ranks within seconds what ends their work, while each is busy; all make it together.

    Ranks that wait for each other notice a broken connection. Those that wait for something else, as for a
    server, ask `heard` now and then.
    """

    def __init__(self) -> None:
        self._told, self._number = "", 0  # of alarms that were over
        self._store: dist.TCPStore | None = None
        if not launched():
            return
        host = os.environ["MASTER_ADDR"]  # where the first rank is
        if is_first():
            self._store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False)
        port = broadcast_from_rank0(lambda: cast(dist.TCPStore, self._store).port)
        self._store = self._store or dist.TCPStore(host, port, is_master=False)

    def tell(self, why: str) -> None:
        """Give the alarm."""
        self._told = why
        if self._store is not None:
            with suppress(dist.DistError):  # the first rank is no more, which all notice
                self._store.set(self._key, why)

    def heard(self) -> str:
        """Why the alarm was given; "" if it was not.

        Raises:
            RankDied: a rank of this machine, or the first, is no more.
        """
        require_peers()
        if self._told or self._store is None:
            return self._told
        try:
            return self._store.get(self._key).decode() if self._store.check([self._key]) else ""
        except dist.DistError as error:
            raise RankDied("rank 0 has died") from error

    def end(self) -> None:
        """The alarm is over: work begins anew; all ranks say so, each when it has stopped working."""
        self._told, self._number = "", self._number + 1

    @property
    def _key(self) -> str:
        """Of the present alarm: a rank that is late tells of one that is over, and nobody hears it."""
        return f"alarm {self._number}"


@dataclass(frozen=True, slots=True)
class MicroBatchPlan:
    """Whole tasks in one micro-batch of a rank."""

    records: slice  # theirs; where the rank has none, one that stands in
    parts: tuple[slice, ...]  # of these records, each for a backward pass
    idle: int  # backward passes that other ranks have beyond these


def split_tasks(keys: Sequence[Hashable], at_once: int) -> list[tuple[slice, ...]]:
    """Records in portions of whole tasks, each in parts of so many records at most.

    As many tasks as fit into one part are a portion of one part. A task that does not is a portion by
    itself, so that no more than one prefix waits while parts go by.

    Args:
        keys: of the records; neighbours with equal ones are of one task.
        at_once: most records of a part.
    """
    ends: list[tuple[int, int]] = []
    for first, last in pairwise(_starts(keys)):
        if ends and last - ends[-1][0] <= at_once:
            ends[-1] = (ends[-1][0], last)
        else:
            ends.append((first, last))
    return [
        tuple(slice(begin, min(begin + at_once, last)) for begin in range(first, last, at_once))
        for first, last in ends
    ]


def plan_micro_batches(keys: Sequence[Hashable], at_once: int) -> list[tuple[MicroBatchPlan, ...]]:
    """How all ranks divide a gradient step; all have as many portions, and as many passes in each.

    Args:
        keys: of the records; neighbours with equal ones stay together.
        at_once: most records of a part.
    """
    starts = _starts(keys)
    bounds = [starts[(len(starts) - 1) * number // size()] for number in range(size() + 1)]
    own = [
        [
            tuple(slice(first + part.start, first + part.stop) for part in some)
            for some in split_tasks(keys[first:last], at_once)
        ]
        for first, last in pairwise(bounds)
    ]
    none: tuple[slice, ...] = ()
    passes = [max(len(some) for some in together) for together in zip_longest(*own, fillvalue=none)]
    return [
        tuple(
            MicroBatchPlan(
                slice(some[0].start, some[-1].stop) if some else slice(0, 1), some, most - len(some)
            )
            for some, most in zip(mine + [none] * (len(passes) - len(mine)), passes, strict=True)
        )
        for mine in own
    ]


def _starts(keys: Sequence[Hashable]) -> list[int]:
    """Where tasks begin, and where the last one ends."""
    return [*(place for place, key in enumerate(keys) if not place or key != keys[place - 1]), len(keys)]
