"""GRPO on videogym: groups of episodes that start from one state, and no critic, in one file.

One iteration: collect groups; put every payment at the turn that earned it; take each episode's return
relative to its group; step down `ClipPPOLoss` without a critic. Any
`agents.compact.discrete.DiscretePolicy` is trained by it.

Run ``python -m agents.train_grpo --out runs/grpo``. The same command resumes a run that was stopped.

Deviations from LongVT: a compact policy with one action a turn; no KL to a reference; learning rates
and sizes for a small network. `scale_by_std`, `clip_high` and `aggregation` choose among the published
variants.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tensordict import TensorDictBase
from torchrl.objectives import ClipPPOLoss

from .collectors.episodes import make_collector
from .compact.discrete import DiscretePolicy
from .compact.env import make_actor
from .compact.run import (
    Evaluator,
    RunConfig,
    command_line,
    episode_metrics,
    mean_return,
    scalars,
    sound_episodes,
)
from .training.bounds import Coefficient, Count, Positive, ShareBelowOne
from .training.groups import LEAST_STD, group_advantage
from .training.releveling import TurnRewards
from .training.run import TrainingRun, mean_rows, optimizer_step

LOSS_KEYS = ("inputs", "action", "action_log_prob", "advantage")


@dataclass(frozen=True)
class Config(RunConfig):
    """Everything a run depends on, beside the policy it starts from."""

    group_size: Count = 8
    """Episodes that start from one state and are compared; divides the episodes of a batch."""
    scale_by_std: bool = True
    """Divide by the group's standard deviation (GRPO) or not (Dr. GRPO, and LongVT's paper)."""
    aggregation: Literal["episode", "turn"] = "episode"
    """Mean over episodes of means over their turns, or mean over all turns."""
    epochs: Count = 2
    """Passes over a batch."""
    mini_batch_size: Count = 128
    """Turns per gradient step."""
    learning_rate: Coefficient = 5e-4
    """Learning rate at the start; it falls to zero on a straight line."""
    clip_low: ShareBelowOne = 0.2
    """Clip the importance ratio below at 1 minus this value."""
    clip_high: Coefficient = 0.2
    """Clip the importance ratio above at 1 plus this value; DAPO's clip-higher is 0.28."""
    entropy_coef: Coefficient = 0.01
    """Coefficient of the entropy bonus."""
    max_grad_norm: Positive = 0.5
    """Clip the norm of the gradient to this value."""

    def __post_init__(self) -> None:
        """Refuse groups without comparison.

        Raises:
            ValueError: as in `RunConfig`, or a group of one, which has nothing to be compared with.
        """
        super().__post_init__()
        if self.group_size < 2:
            raise ValueError(
                f"group_size must be at least 2, got {self.group_size}: an episode is compared with others"
            )


def train(config: Config, policy: DiscretePolicy, out: Path, progress: bool = False) -> TrainingRun:
    """Train a policy in place.

    Args:
        config: see there.
        policy: starts from what it knows; its values are not used.
        out: folder of the run; a checkpoint in it is resumed from.
        progress: show a progress bar.

    Raises:
        PolicyError: the policy put out what cannot be an action.
        RunDiverged: a loss is not finite.
        CheckpointMismatch: the folder belongs to another kind of run.
    """
    torch.set_num_threads(config.runtime.threads)
    actor = make_actor(policy, config.looks + config.options)
    rewards = TurnRewards(config.rules.terms)
    loss_module = ClipPPOLoss(
        actor,
        None,
        clip_epsilon=(config.clip_low, config.clip_high),
        entropy_coeff=config.entropy_coef,
    )
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
    run = TrainingRun(config, out, policy, optimizer, rewards, Evaluator(config, policy))
    collector = make_collector(config, policy, actor, config.group_size, run.first_iteration)
    try:
        for iteration in run.iterations(progress):
            optimizer.param_groups[0]["lr"] = config.learning_rate * (1.0 - iteration / config.iterations)
            with run.span("collect"):
                collector.update_policy_weights_()
                batch = collector.collect(iteration)
            metrics, played = episode_metrics(batch), int((~batch["waiting"]).sum())
            if not len(batch := sound_episodes(batch)):
                run.end_iteration(iteration, played, metrics)  # there is nothing to learn from
                continue
            with run.span("advantage"):
                batch = rewards(batch)
                turns, kept = advantages(config, batch)
            metrics["trained_reward"] = mean_return(batch)
            metrics["groups_with_contrast"] = kept
            updates = []
            with run.span("loss"):
                for _ in range(config.epochs if len(turns) else 0):
                    for minibatch in turns[torch.randperm(len(turns))].split(config.mini_batch_size):
                        losses = loss_module(minibatch)
                        loss = losses["loss_objective"] + losses["loss_entropy"]
                        loss.backward()
                        optimizer_step(parameters, optimizer, loss.item(), config.max_grad_norm)
                        updates.append(scalars(losses))
            run.end_iteration(iteration, played, metrics | mean_rows(updates))
    finally:
        collector.close()
    return run


def advantages(config: Config, batch: TensorDictBase) -> tuple[TensorDictBase, float]:
    """(B, K) episodes with re-levelled rewards to (T,) turns with advantages relative to their groups.

    Groups whose episodes all return the same teach nothing and are left out; so are groups that lost an
    episode, because it was cut from outside or had frames that could not be shown.

    Returns:
        The turns, none when no group is left, and the share of groups that are.
    """
    played, group = ~batch["waiting"].squeeze(-1), batch["group"][:, 0, 0]
    returns = (batch["next", "reward"].squeeze(-1) * played).sum(1)
    members = [(group == number).nonzero()[:, 0] for number in group.unique()]
    apart = [rows for rows in members if len(rows) == config.group_size and returns[rows].std() > LEAST_STD]
    if not apart:
        return batch.flatten(0, 1)[:0].set("advantage", returns[:0, None]), 0.0
    rows = torch.cat(apart)
    relative = group_advantage(returns[rows], config.group_size, scale_by_std=config.scale_by_std)
    played, turns = played[rows], played[rows].sum(1)
    if config.aggregation == "episode":
        # The clipped loss is linear in the advantage: this weighs every episode alike.
        relative = relative * (turns.sum() / (len(rows) * turns))
    learned = batch.select(*LOSS_KEYS, strict=False)[rows][played]
    learned["advantage"] = relative.repeat_interleave(turns)[:, None]
    return learned, len(rows) / config.episodes


if __name__ == "__main__":
    command_line(__doc__, Config, train, Path("runs/grpo"))
