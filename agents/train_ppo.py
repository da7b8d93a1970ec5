"""PPO on videogym: bi-level credit, a critic, and TorchRL's collectors and losses, in one file.

One iteration: collect whole episodes; put every payment at the turn that earned it (gate) and pay for
looking while the policy does not look (bonus); estimate advantages over turns; step down
`ClipPPOLoss` in mini-batches of turns. Any `agents.compact.discrete.DiscretePolicy` is trained by it.

Run ``python -m agents.train_ppo --out runs/ppo``. The same command resumes a run that was stopped.

Deviations from Video-MTR: a compact policy with one action a turn, so that the pass over tokens is
empty; no penalty for divergence from a reference; advantages standardised over the batch, as there;
learning rates and sizes for a small network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
from torchrl.envs import Compose
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from .collectors.episodes import make_collector
from .compact.discrete import Checked, DiscretePolicy
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
from .training.advantage import BiLevelGAE, whiten
from .training.bounds import Coefficient, Count, Positive, Share, ShareBelowOne
from .training.releveling import CodeGate, ExplorationBonus, TurnRewards
from .training.run import TrainingRun, mean_rows, optimizer_step

LOSS_KEYS = ("inputs", "action", "action_log_prob", "state_value", "advantage", "value_target")


@dataclass(frozen=True)
class Config(RunConfig):
    """Everything a run depends on, beside the policy it starts from."""

    gate: Literal["recipe", "code", "none"] = "recipe"
    """What gates turn rewards: the recipe's terms, the published code's reward shaping, or nothing."""
    bonus: Literal["none", "paper", "code"] = "none"
    """Exploration bootstrapping, see `agents.training.releveling.ExplorationBonus`."""
    estimator: Literal["bilevel", "gae"] = "bilevel"
    """Advantage estimator; with one action per turn both give the same."""
    gamma: Share = 0.95
    """Discount from turn to turn; 0.95 in the paper, 1.0 in its code."""
    lmbda: Share = 0.95
    """Lambda of GAE, over turns."""
    epochs: Count = 4
    """Passes over a batch."""
    mini_batch_size: Count = 128
    """Turns per gradient step."""
    learning_rate: Coefficient = 5e-4
    """Learning rate at the start; it falls to zero on a straight line."""
    clip_epsilon: ShareBelowOne = 0.2
    """Clip the importance ratio to 1 plus or minus this value."""
    entropy_coef: Coefficient = 0.01
    """Coefficient of the entropy bonus."""
    vf_coef: Coefficient = 1.0
    """Coefficient of the value loss."""
    max_grad_norm: Positive = 0.5
    """Clip the norm of the gradient to this value."""


def train(config: Config, policy: DiscretePolicy, out: Path, progress: bool = False) -> TrainingRun:
    """Train a policy in place.

    Args:
        config: see there.
        policy: starts from what it knows.
        out: folder of the run; a checkpoint in it is resumed from.
        progress: show a progress bar.

    Raises:
        PolicyError: the policy put out what cannot be an action.
        RunDiverged: a loss is not finite.
        CheckpointMismatch: the folder belongs to another kind of run.
    """
    torch.set_num_threads(config.runtime.threads)
    actions = config.looks + config.options
    actor = make_actor(policy, actions)
    critic = TensorDictModule(Checked(policy, actions), in_keys=["inputs"], out_keys=["_", "state_value"])
    shaping, estimate = make_shaping(config), make_estimator(config, critic)
    loss_module = ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=config.clip_epsilon,
        entropy_coeff=config.entropy_coef,
        critic_coeff=config.vf_coef,
    )
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
    run = TrainingRun(config, out, policy, optimizer, shaping, Evaluator(config, policy))
    collector = make_collector(config, policy, actor, first_iteration=run.first_iteration)
    try:
        for iteration in run.iterations(progress):
            optimizer.param_groups[0]["lr"] = config.learning_rate * (1.0 - iteration / config.iterations)
            with run.span("collect"):
                collector.update_policy_weights_()
                batch = collector.collect(iteration)
            metrics, played = episode_metrics(batch), int((~batch["waiting"]).sum())
            batch = sound_episodes(batch)
            if int((~batch["waiting"]).sum()) < 2:  # nothing to learn from, or nothing to compare it with
                run.end_iteration(iteration, played, metrics)
                continue
            with run.span("advantage"):
                batch = shaping(batch)
                turns = advantages(batch, estimate)
            metrics["trained_reward"] = mean_return(batch)
            updates = []
            with run.span("loss"):
                for _ in range(config.epochs):
                    for minibatch in turns[torch.randperm(len(turns))].split(config.mini_batch_size):
                        losses = loss_module(minibatch)
                        loss = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
                        loss.backward()
                        optimizer_step(parameters, optimizer, loss.item(), config.max_grad_norm)
                        updates.append(scalars(losses))
            run.end_iteration(iteration, played, metrics | mean_rows(updates) | shaping_metrics(shaping))
    finally:
        collector.close()
    return run


def make_shaping(config: Config) -> Compose:
    """Gate, then bonus."""
    steps = [TurnRewards(config.rules.terms, gate=config.gate == "recipe")]
    if config.gate == "code":
        steps.append(CodeGate())
    if config.bonus != "none":
        steps.append(ExplorationBonus(config.bonus))
    return Compose(*steps)


def make_estimator(config: Config, critic: TensorDictModule) -> BiLevelGAE | GAE:
    """Writes ``"advantage"``, ``"value_target"`` and ``"state_value"`` to a (B, K) batch."""
    if config.estimator == "gae":
        # Not under vmap, in which nothing can be asked of a value, such as whether it is finite.
        return GAE(gamma=config.gamma, lmbda=config.lmbda, value_network=critic, deactivate_vmap=True)
    return BiLevelGAE(
        gamma_turn=config.gamma, lmbda_turn=config.lmbda, lmbda_token=config.lmbda, value_network=critic
    )


def advantages(batch: TensorDictBase, estimate: BiLevelGAE | GAE) -> TensorDictBase:
    """(B, K) episodes with re-levelled rewards to (T,) turns with standardised advantages."""
    # `GAE` takes values of the steps before for given where they are there, of those after never.
    batch = estimate(batch.exclude("state_value"))
    learned = ~batch["waiting"]
    batch["advantage"] = whiten(batch["advantage"], learned)
    return batch.select(*LOSS_KEYS)[learned.squeeze(-1)]


def shaping_metrics(shaping: Compose) -> dict[str, float]:
    """The retrieval rate as the bonus counts it, if there is one."""
    bonuses = [step for step in shaping if isinstance(step, ExplorationBonus)]
    return {"bonus_rate": float(bonuses[0].rate)} if bonuses else {}


if __name__ == "__main__":
    command_line(__doc__, Config, train, Path("runs/ppo"))
