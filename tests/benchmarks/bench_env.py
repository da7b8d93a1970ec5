"""Measures what the environment costs beyond fetching pixels, and what importing it costs.

Run by ``make bench``. CPU time of this process; prints a table of targets and figures and exits 1
when a target is missed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import videogym
from videogym.actions import Answer, Select

STEPS = 200
IMPORT_CODE = (
    "import time; t = time.process_time(); import videogym, sys; "
    "print(time.process_time() - t, int('torch' in sys.modules))"
)


def overhead_ms() -> float:
    """Median CPU milliseconds of one step with 8 frames of 224x224, less the store's part."""
    env = videogym.VideoQAEnv(recipe="VIDEO_MTR/paper", observe="pixels")
    fetched = [0.0]
    env.store.frames = _timed(env.store.frames, fetched)  # type: ignore[method-assign]
    costs = []
    for episode in range(STEPS // 2):
        env.reset(seed=episode)
        pool = env.state.pool_s
        for action in (Select(pool[8], pool[16]), Answer("A")):
            fetched[0] = 0.0
            start = time.process_time()
            env.step(action)
            costs.append(1000 * (time.process_time() - start - fetched[0]))
    return statistics.median(costs[::2])  # the looks; answers bring no frames


def _timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        result = function(*args, **kwargs)
        spent[0] += time.process_time() - start
        return result

    return call


def import_cost() -> tuple[float, bool]:
    """CPU seconds of ``import videogym`` in a fresh interpreter, and whether torch came with it."""
    runs = [
        subprocess.run([sys.executable, "-c", IMPORT_CODE], capture_output=True, text=True, check=True)
        for _ in range(5)
    ]
    rows = [run.stdout.split() for run in runs]
    return statistics.median(float(seconds) for seconds, _ in rows), any(row[1] == "1" for row in rows)


def main() -> int:
    """Print the table; the number of missed targets decides the exit status."""
    seconds, torch_loaded = import_cost()
    rows = [
        ("step beyond fetching pixels, 8 frames of 224x224, ms", overhead_ms(), 1.0),
        ("import videogym, s", seconds, 1.0),
        ("torch loaded by import videogym", float(torch_loaded), 0.0),
    ]
    missed = 0
    for name, figure, target in rows:
        ok = figure <= target
        missed += not ok
        print(f"{'ok  ' if ok else 'MISS'} {name:<55} {figure:8.3f}  target <= {target:g}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
