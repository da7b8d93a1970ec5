"""Throw random structured actions at every registered environment: no exception, an action or a code.

``python tests/benchmarks/fuzz_actions.py --count 200000`` plays that many actions, shared out among the
ids, a tenth of them with pixels. Among them are NaN, infinite, inverted, zero-length and out-of-range
segments and regions. Exit status 0 if every step gave an observation inside its space.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import gymnasium

from videogym.datasets import load_tasks
from videogym.testing.env_suite import check_odd_actions

# As many as a frame store keeps open, so that time goes into actions.
TASKS = load_tasks("procedural:brief_event?level=0&duration_s=600&size=64x36")[:8]


def main() -> None:
    """Read the arguments and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200_000, help="actions in all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ids = sorted(name for name in gymnasium.registry if name.startswith("videogym/"))
    for env_id in ids:
        count = -(-options.count // len(ids))
        fuzz(env_id, count - count // 10, options.seed)
        fuzz(env_id, count // 10, options.seed, observe="pixels", frame_size=(32, 18))


def fuzz(env_id: str, count: int, seed: int, **arguments: Any) -> None:
    """Play that many actions and print what became of them."""
    start = time.perf_counter()
    outcomes = check_odd_actions(
        lambda: gymnasium.make(env_id, tasks=TASKS, **arguments).unwrapped, count=count, seed=seed
    )
    named = {code or "executed": number for code, number in outcomes.most_common()}
    observed = arguments.get("observe", "references")
    print(
        f"{env_id}, {observed}: {outcomes.total()} actions in {time.perf_counter() - start:.0f} s; {named}"
    )


if __name__ == "__main__":
    main()
