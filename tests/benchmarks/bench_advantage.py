"""Measures bi-level advantages against the loop they are tested against, in one run.

64 episodes of 4096 tokens, about 8 turns each, with observations between them. Prints both times and
their ratio, and exits 1 when it is below 50. The loop reads and writes tensors element by element.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from agents.training.advantage import bilevel_gae

sys.path.insert(0, str(Path(__file__).parents[1] / "agents"))
from test_advantage import by_loops

EPISODES, TOKENS, TURNS = 64, 4096, 8
TARGET = 50.0
DISCOUNTS: dict[str, Any] = {
    "gamma_turn": 0.95,
    "gamma_token": 1.0,
    "lmbda_turn": 0.95,
    "lmbda_token": 0.95,
}


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reward, value, mask and turn ends: in each turn an observation, then as many tokens of the policy."""
    generator = torch.Generator().manual_seed(0)
    span = TOKENS // TURNS
    place = torch.arange(TOKENS) % span
    observed = torch.randint(span // 4, 3 * span // 4, (EPISODES, TURNS), generator=generator)
    mask = place >= observed.repeat_interleave(span, 1)
    turn_end = (place == span - 1).expand(EPISODES, TOKENS)
    reward = torch.rand(EPISODES, TOKENS, generator=generator) * turn_end
    return reward, torch.randn(EPISODES, TOKENS, generator=generator), mask, turn_end


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> int:
    """Print the table; the target decides the exit status."""
    torch.set_num_threads(1)
    tensors = batch()
    difference = max(
        float((ours - theirs).abs().max())
        for ours, theirs in zip(
            bilevel_gae(*tensors, **DISCOUNTS), by_loops(*tensors, **DISCOUNTS), strict=True
        )
    )
    slow = seconds(lambda: by_loops(*tensors, **DISCOUNTS), 1)
    fast = seconds(lambda: bilevel_gae(*tensors, **DISCOUNTS), 20)
    ratio = slow / fast
    ok = ratio >= TARGET
    print(f"loops over elements, s            {slow:10.3f}")
    print(f"bilevel_gae, s                    {fast:10.5f}")
    print(f"largest difference                {difference:10.2e}")
    print(f"{'ok  ' if ok else 'MISS'} ratio                       {ratio:10.0f}  target >= {TARGET:g}")
    return int(not ok)


if __name__ == "__main__":
    sys.exit(main())
