"""Measures how much of a policy gradient is signal: the cosine between gradients of two halves of rollouts.

Groups of rollouts of a language model, as GRPO takes them; those of even and of odd number each give a
gradient. What both estimate is the same: their cosine says what share of either is that, near 0 none.
Three ways to weigh a rollout: its return less its group's mean (GRPO), and of that only what is above or
below the mean. The norms say which of the two moves the weights.

``python tests/benchmarks/bench_signal.py runs/demo-mllm/LONGVT_TINY/seed-0/sft --recipe LONGVT_TINY``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from agents.collectors.rollouts import make_collector
from agents.experiments.demo_mllm import EVENT_S, stages
from agents.training.options import quiet_libraries
from agents.vlm.actor import ChatActor
from agents.vlm.config import ChatConfig
from agents.vlm.policy import make_actor, make_model, trainable_parameters
from agents.vlm.records import Record
from videogym import FrameStore

WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "return less mean": lambda advantage: advantage,
    "above the mean": lambda advantage: advantage.clamp(min=0),
    "below the mean": lambda advantage: advantage.clamp(max=0),
}
AT_ONCE = 16  # groups in play together


def advantages(records: Sequence[Record], group_size: int) -> Tensor:
    """(B,) returns less the mean of their group."""
    returns = torch.tensor([record.total_reward for record in records], dtype=torch.float64)
    groups = returns.reshape(-1, group_size)
    return (groups - groups.mean(1, keepdim=True)).flatten().float()


def gradient(actor: ChatActor, records: Sequence[Record], weights: Tensor) -> Tensor:
    """Of the log-probabilities of all sampled tokens, each times its rollout's weight; flat."""
    scored = actor.scorer(records)
    repeats = torch.tensor(scored.counts)
    loss = (scored.log_probs * weights.repeat_interleave(repeats)).sum()
    found = torch.autograd.grad(
        loss, trainable_parameters(actor.model), allow_unused=True, materialize_grads=True
    )
    return torch.cat([part.flatten() for part in found])


def halves(config: ChatConfig, groups: int, group_size: int) -> tuple[dict[str, list[Tensor]], float, int]:
    """Gradients of either half by way of weighing; share of right rollouts, groups with contrast."""
    actor = make_actor(config, make_model(config, FrameStore(open_videos=64)))
    found: dict[str, list[Tensor]] = {name: [torch.zeros(1), torch.zeros(1)] for name in WEIGHTS}
    right, contrast = 0, 0
    collector = make_collector(config, actor, groups=AT_ONCE, group_size=group_size)
    with closing(collector):
        collector.update_policy_weights_()
        for iteration in tqdm(range(groups // AT_ONCE), desc="batches of groups"):
            torch.manual_seed(iteration)
            records = collector.collect(iteration)
            right += sum(bool(record.success) for record in records)
            for number in range(AT_ONCE):
                group = records[number * group_size : (number + 1) * group_size]
                advantage = advantages(group, group_size)
                if not advantage.abs().max() > 1e-3:
                    continue
                contrast += 1
                for name, weigh in WEIGHTS.items():
                    half = found[name]
                    half[number % 2] = half[number % 2] + gradient(actor, group, weigh(advantage))
    return found, right / (groups * group_size), contrast


def main() -> None:
    """Print cosines and norms."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--recipe", choices=tuple(EVENT_S), default="LONGVT_TINY")
    parser.add_argument("--groups", type=int, default=64, help=f"a multiple of {AT_ONCE}")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=1.0)
    arguments = parser.parse_args()
    if arguments.groups < 1 or arguments.groups % AT_ONCE:
        parser.error(f"--groups must be a multiple of {AT_ONCE}, got {arguments.groups}")
    torch.set_num_threads(1)
    quiet_libraries()
    like = stages(arguments.recipe, 0)["grpo" if arguments.recipe == "LONGVT_TINY" else "ppo"].config
    config = like.with_options(checkpoint=str(arguments.checkpoint), temperature=arguments.temperature)
    found, right, contrast = halves(config, arguments.groups, arguments.group_size)
    lines = [
        f"{arguments.groups} groups of {arguments.group_size}, {right:.3f} right, {contrast} with contrast",
        "",
        "| a rollout counts | cosine between halves | norms |",
        "|---|---|---|",
    ]
    for name, (one, other) in found.items():
        cosine = torch.nn.functional.cosine_similarity(one, other, dim=0)
        norms = f"{float(one.norm()):.0f}, {float(other.norm()):.0f}"
        lines.append(f"| {name} | {float(cosine):.3f} | {norms} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
