"""Measures how much of a policy gradient is signal: the cosine between gradients of two halves of rollouts.

Groups of rollouts of a language model, as GRPO takes them; those of even and of odd number each give a
gradient. What both estimate is the same: their cosine says what share of either is that, near 0 none.
What a sampled token can weigh: the return of its rollout less the mean of its group, of that only what is
above or below the mean, the same over the deviation of the group (`scale_by_std`), and what its turn and
those after it were paid less the mean of the group's same turn (`credit="turn"`). The norms say what moves
the weights. The share of groups with contrast says how many more batches dynamic sampling generates.

``python tests/benchmarks/bench_signal.py runs/demo-mllm/LONGVT_TINY/seed-0/sft --recipe LONGVT_TINY``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from agents import train_grpo_mllm
from agents.collectors.rollouts import make_collector
from agents.experiments.demo_mllm import stages
from agents.experiments.stages import EVENT_S
from agents.training.options import quiet_libraries
from agents.vlm.actor import ChatActor
from agents.vlm.policy import make_actor, make_model, trainable_parameters
from agents.vlm.records import Record
from videogym import FrameStore

AT_ONCE = 16  # groups in play together


def weights(config: train_grpo_mllm.Config, actor: ChatActor, group: list[Record]) -> dict[str, Tensor]:
    """(T,) of all sampled tokens of a group, by way of weighing them."""

    def advantages(**options: Any) -> Tensor:
        batch = train_grpo_mllm.compared(config.with_options(**options), group, actor)
        return torch.cat(batch.get("advantage"))

    plain = advantages(scale_by_std=False)
    return {
        "return less mean": plain,
        "above the mean": plain.clamp(min=0),
        "below the mean": plain.clamp(max=0),
        "over the deviation": advantages(),
        "credit of turns": advantages(scale_by_std=False, credit="turn"),
    }


def gradient(actor: ChatActor, records: Sequence[Record], weight: Tensor) -> Tensor:
    """Of the log-probabilities of all sampled tokens, each times its weight; flat."""
    loss = (actor.scorer(records).log_probs * weight).sum()
    found = torch.autograd.grad(
        loss, trainable_parameters(actor.model), allow_unused=True, materialize_grads=True
    )
    return torch.cat([part.flatten() for part in found])


def halves(config: train_grpo_mllm.Config, groups: int) -> tuple[dict[str, list[Tensor]], float, int]:
    """Gradients of either half by way of weighing; share of right rollouts, groups with contrast."""
    actor = make_actor(config, make_model(config, FrameStore(open_videos=64)))
    found: dict[str, list[Tensor]] = {}
    right, contrast, group_size = 0, 0, config.group_size
    collector = make_collector(config, actor, groups=AT_ONCE, group_size=group_size)
    with closing(collector):
        collector.update_policy_weights_()
        for iteration in tqdm(range(groups // AT_ONCE), desc="batches of groups"):
            torch.manual_seed(iteration)
            records = collector.collect(iteration)
            right += sum(bool(record.success) for record in records)
            for number in range(AT_ONCE):
                group = records[number * group_size : (number + 1) * group_size]
                if not len(train_grpo_mllm.compared(config, group, actor).with_contrast(group_size)):
                    continue
                contrast += 1
                for name, weight in weights(config, actor, group).items():
                    half = found.setdefault(name, [torch.zeros(1), torch.zeros(1)])
                    half[number % 2] = half[number % 2] + gradient(actor, group, weight)
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
    config = train_grpo_mllm.Config.of(
        recipe=like.recipe,
        tasks=like.tasks,
        window=like.sampling.window,
        max_new_tokens=like.sampling.max_new_tokens,
        checkpoint=str(arguments.checkpoint),
        temperature=arguments.temperature,
        group_size=arguments.group_size,
    )
    found, right, contrast = halves(config, arguments.groups)
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
