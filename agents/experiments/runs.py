"""What commands of many runs share: where runs lie, their seeds, and the processes that make them."""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ..training.run import end_with_parent


def add_run_options(parser: argparse.ArgumentParser, out: str, seeds: Sequence[int]) -> None:
    """Where runs lie, their seeds, and how many are made at once."""
    parser.add_argument(
        "--out", type=Path, default=Path(out), help="folder of all runs (default: %(default)s)"
    )
    told = " ".join(map(str, seeds))
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=list(seeds), help=f"one run each (default: {told})"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count(),
        help="parallel runs, one core each (default: %(default)s)",
    )


@contextmanager
def runs_at_once(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with this one; where a run fails, none that waits is begun."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=end_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
