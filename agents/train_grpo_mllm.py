"""GRPO on a multimodal language model that calls for frames: LongVT's second stage in one file.

One iteration: play groups of rollouts that start from one state; take each return relative to its group
(`MCAdvantage`); step down `GRPOLoss` on the sampled tokens. What the rollouts of a group have in common
goes through the model once.

Run ``python -m agents.train_grpo_mllm --checkpoint runs/sft/model --out runs/grpo``. Go on with a run that
was stopped by the same command.

Defaults are LongVT's: groups of 16, 16 of them, two updates an iteration, a constant learning rate, returns
over their standard deviation, the mean over rollouts of the mean over tokens, a divergence of 0.001 from
the policy it started as. Deviations: no dual clip; rollouts that were cut from outside are passed over with
their group, where LongVT trains on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.data import LazyStackStorage, ReplayBuffer
from torchrl.data.replay_buffers import SamplerWithoutReplacement
from torchrl.objectives.llm import MCAdvantage
from tqdm import tqdm

from .collectors.rollouts import RolloutKind, make_collector
from .training.losses import ChatGRPOLoss
from .training.ranks import everyones, is_first
from .training.run import Span, TrainingRun, mean_rows, untimed
from .vlm.actor import ChatActor
from .vlm.command import command_line
from .vlm.config import ChatConfig
from .vlm.evaluation import figures, held_out
from .vlm.policy import first_policy, sharded, trained
from .vlm.records import Record, forget_records, write_records
from .vlm.update import as_batch, backward, step

NO_CONTRAST = 1e-3  # an advantage as small as this is rounding: real ones are near 1


@dataclass(frozen=True)
class Config(ChatConfig):
    """Everything a run depends on, beside the weights it starts from."""

    iterations: int = 160
    """Batches to collect and learn from."""
    groups: int = 16
    """Tasks of an iteration."""
    group_size: int = 16
    """Rollouts of a task."""
    minibatch_groups: int = 8
    """Groups of a gradient step."""
    at_once: int = 16
    """Rollouts in memory together; fewer than a step has are accumulated."""
    lr: float = 1e-6
    """Learning rate."""
    weight_decay: float = 0.01
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    clip_low: float = 0.2
    """The ratio of probabilities is clipped below at 1 less this."""
    clip_high: float = 0.2
    """And above at 1 plus this."""
    kl: float = 0.001
    """Weight of the divergence from the first policy; 0: no copy of it is kept."""
    aggregation: Literal["prompt_mean", "token_mean"] = "prompt_mean"
    """Of tokens: "prompt_mean", rollouts count equally, or "token_mean", tokens do."""
    collector: RolloutKind = "local"
    """Who plays: see `agents.collectors.rollouts.make_collector`; with "local" a run is repeatable to the
    bit."""
    workers: int = 2
    """Processes of "ray"; groups that "async" has in play at once."""


def train(config: Config, actor: ChatActor, out: Path, progress: bool = False) -> TrainingRun:
    """Train a policy in place.

    Args:
        config: of the run.
        actor: the policy; its engine samples.
        out: folder of the run; gone on with if it holds one. Rollouts are written to its ``records``.
        progress: whether to show a progress bar.

    Raises:
        RunDiverged: a loss is not finite.
        CheckpointMismatch: the folder belongs to another kind of run.
        EngineError: the engine failed.
    """
    torch.set_num_threads(config.threads)
    reference = first_policy(config, actor) if config.kl else None
    parameters = trained(sharded(config, actor.model))
    optimizer = torch.optim.AdamW(parameters, config.lr, weight_decay=config.weight_decay)
    run = TrainingRun(config, out, actor.model, optimizer, nn.Module(), held_out(config, actor))
    if is_first():
        forget_records(out / "records", run.first_iteration)
    actor.version = run.first_iteration  # records of a run that was gone on with say what they would have
    loss_module = ChatGRPOLoss(
        actor,
        clip_epsilon=(config.clip_low, config.clip_high),
        entropy_bonus=False,
        aggregation=config.aggregation,
        kl_to_ref_coeff=config.kl or None,
    )
    bar = tqdm(
        run.iterations(),
        total=config.iterations,
        initial=run.first_iteration,
        desc="grpo",
        disable=not progress,
    )
    collector = make_collector(
        config,
        actor,
        groups=config.groups,
        group_size=config.group_size,
        kind=config.collector,
        workers=config.workers,
        run=run,
    )
    with closing(collector):
        collector.sync()
        for iteration in bar:
            records = collector.collect(iteration)
            if is_first():
                write_records(out / "records" / f"{iteration:06d}.jsonl", records)
            values = figures(records)
            # Before they are scored: frames of the others may be gone for good.
            whole = whole_groups(records)
            with run.span("reference"):
                minibatches = (
                    with_advantages(config, as_batch(whole, actor, reference, config.at_once))
                    if whole
                    else []
                )
            values["groups"] = sum(len(minibatch) for minibatch in minibatches) / config.group_size
            rows = []
            for minibatch in minibatches:
                rows.append(
                    gradient_step(config, actor, loss_module, parameters, optimizer, minibatch, run.span)
                )
            collector.sync()
            run.end_iteration(
                iteration, sum(len(record.played) for record in records), values | mean_rows(rows)
            )
            bar.set_postfix(reward=f"{values.get('reward', float('nan')):.2f}")
    return run


def whole_groups(records: Sequence[Record]) -> list[Record]:
    """Rollouts of the groups in which none was cut from outside."""
    cut = {record.group for record in records if record.cut}
    return [record for record in records if record.group not in cut]


def with_advantages(
    config: Config, batch: TensorDictBase | Sequence[TensorDictBase]
) -> list[TensorDictBase]:
    """Minibatches of whole groups, with ``(R - mean) / std`` over the group; groups without contrast go.

    Where a divergence is paid for they stay: they still hold the policy back.
    """
    buffer = ReplayBuffer(
        storage=LazyStackStorage(len(batch)),
        sampler=SamplerWithoutReplacement(shuffle=False),
        transform=MCAdvantage(
            config.group_size, rewards_key=("next", "episode_reward"), trajectory_return="sum"
        ),
        batch_size=config.group_size,
    )
    buffer.extend(batch)
    groups = [group for group in buffer if config.kl or (group["advantage"].abs() > NO_CONTRAST).any()]
    size = config.minibatch_groups
    return [torch.cat(groups[first : first + size]) for first in range(0, len(groups), size)]


def gradient_step(
    config: Config,
    actor: ChatActor,
    loss_module: ChatGRPOLoss,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    minibatch: TensorDictBase,
    span: Span = untimed,
) -> dict[str, float]:
    """One gradient step; returns its figures."""
    records = [row["record"] for row in minibatch.unbind(0)]
    # One advantage per rollout, for all its tokens: GRPOLoss wants (B, 1, 1).
    minibatch["advantage"] = minibatch["advantage"].float().reshape(-1, 1, 1)
    rows: list[dict[str, float]] = []

    def loss_of(part: slice) -> Tensor:
        losses = loss_module(minibatch[part].to(actor.model.device))
        rows.append({"clip_fraction": float(losses.clip_fraction), "ess": float(losses.ESS)})
        share = weight(config, records[part]) / weight(config, records)
        if not config.kl:
            return losses.loss_objective * share
        rows[-1]["kl_to_first"] = float(losses.kl_to_ref)
        # The divergence is a mean over rollouts, however the objective counts.
        return losses.loss_objective * share + losses.loss_kl_to_ref * (len(records[part]) / len(records))

    loss = backward(actor, records, config.at_once, loss_of, span)
    with span("step"):
        norm = step(parameters, optimizer, loss, config.max_grad_norm)
    return {"loss": loss, "grad_norm": norm, **mean_rows([row for some in everyones(rows) for row in some])}


def weight(config: Config, records: Sequence[Record]) -> int:
    """What some rollouts count in the mean of a loss."""
    if config.aggregation == "prompt_mean":
        return len(records)
    return sum(record.sampled_tokens for record in records)


if __name__ == "__main__":
    command_line(__doc__, Config, train, Path("runs/grpo"))
