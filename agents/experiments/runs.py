"""What commands of many runs share: where runs lie, their seeds, the processes that make them, their ends.

Interrupted, a command has its processes save what they have done, waits for them and says how to resume.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from ..training.bounds import Count, Seed, number
from ..training.command import interruptible, one_line, require_folder
from ..training.ranks import end_with_parent

P = ParamSpec("P")
T = TypeVar("T")


def add_run_options(parser: argparse.ArgumentParser, out: str, seeds: Sequence[int]) -> None:
    """Where runs lie, their seeds, and how many are made at once."""
    parser.add_argument(
        "--out", type=Path, default=Path(out), help="folder of all runs (default: %(default)s)"
    )
    told = " ".join(map(str, seeds))
    parser.add_argument(
        "--seeds", nargs="+", type=number(Seed), default=list(seeds), help=f"one run each (default: {told})"
    )
    parser.add_argument(
        "--jobs",
        type=number(Count),
        default=os.cpu_count(),
        help="parallel runs, one core each (default: %(default)s)",
    )


@contextmanager
def resumable(
    parser: argparse.ArgumentParser, out: Path, kept: str = "What is done is kept"
) -> Iterator[None]:
    """End a command by one line where it is interrupted, or where its user can mend what is wrong.

    Args:
        parser: of the command.
        out: the folder of its runs.
        kept: what is there when the same command is given again.
    """
    with interruptible(lambda: f"{kept}; the same command goes on in {out}"), one_line(parser):
        require_folder(out)
        yield


class RunPool(ProcessPoolExecutor):
    """Processes that end with this one; one that was told to stop begins no further run."""

    def __init__(self, jobs: int, niceness: int = 0) -> None:
        context = multiprocessing.get_context("spawn")
        super().__init__(jobs, context, initializer=_begin, initargs=(niceness,))

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `concurrent.futures.Executor`."""
        return super().submit(partial(_done_unless_stopped, work, *args, **kwargs))

    def stop(self) -> None:
        """Have all runs save what they have done, and wait for that; a second interruption ends them."""
        children = multiprocessing.active_children()
        try:
            sys.stderr.write("\nInterrupted: what runs is saved first. Once more ends at once.\n")
            for child in children:
                child.terminate()
            self.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            pass
        finally:  # one that is left would be waited for when this process ends
            for child in children:
                child.kill()


@contextmanager
def runs_at_once(jobs: int, niceness: int = 0) -> Iterator[RunPool]:
    """Processes for runs; where one fails, none that waits is begun.

    Args:
        jobs: how many.
        niceness: by which they stand back behind this process.
    """
    pool = RunPool(jobs, niceness)
    try:
        yield pool
    except KeyboardInterrupt:
        pool.stop()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


# --- in a process of the pool --------------------------------------------------------------------

_stopped = _working = False


def _begin(niceness: int) -> None:
    end_with_parent()
    os.nice(niceness)
    # Ctrl-C is passed on by the process that all were started by, once.
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    """Of SIGTERM, unless a run watches for it."""
    global _stopped
    _stopped = True
    if _working:
        raise KeyboardInterrupt


def _done_unless_stopped(work: Callable[..., T], *arguments: Any, **options: Any) -> T:
    global _stopped, _working
    _working = True
    try:
        if _stopped:
            raise KeyboardInterrupt
        return work(*arguments, **options)
    except KeyboardInterrupt:
        _stopped = True
        raise
    finally:
        _working = False
