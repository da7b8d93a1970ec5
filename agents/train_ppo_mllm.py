"""PPO on a multimodal language model that retrieves frames: Video-MTR's training in one file.

One iteration: play episodes; put every payment at the turn that earned it (gate) and pay for looking while
the policy does not look (bonus); let a critic estimate advantages in two levels, over turns and over the
tokens of each; step down the clipped loss of the sampled tokens and the critic's error.

Run ``python -m agents.train_ppo_mllm --checkpoint runs/sft/model --out runs/ppo``. The same command
resumes a run that was stopped.

Defaults are Video-MTR's: 16 tasks twice, mini-batches of 8, a window of two turns, the paper's discount of
0.95 from turn to turn, a KL penalty against the reference policy inside the reward. Deviations: the
critic is a linear head that reads the policy's own hidden states and does not change them, and Video-MTR's
second model of 7 billion weights with ``--critic-model copy``; no nucleus of 0.95 in sampling, so that the
trained distribution is the sampled one.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchrl.envs import Compose
from torchrl.objectives.llm import GRPOLoss

from .collectors.rollouts import RolloutKind, make_collector
from .training.advantage import bilevel_gae, whiten
from .training.bounds import Coefficient, Count, Positive, Share, ShareBelowOne
from .training.losses import ScoredPolicy, clipped_value_loss, loss_metrics
from .training.provenance import digest_of_weights
from .training.ranks import sum_over_ranks
from .training.releveling import CodeGate, ExplorationBonus, TurnRewards
from .training.run import TrainingRun, mean_rows, optimizer_step
from .vlm.actor import ChatActor
from .vlm.batch import RolloutBatch, rewards_of_turns
from .vlm.command import command_line
from .vlm.config import ChatConfig, ConversationConfig, MemoryConfig, OptimizerConfig, SamplingConfig
from .vlm.conversations import ConversationLog
from .vlm.critic import Critic, make_critic
from .vlm.evaluation import make_evaluator, rollout_metrics
from .vlm.policy import reference_policy, shard_model, trainable_parameters
from .vlm.records import RolloutFiles
from .vlm.scoring import MicroBatch


@dataclass(frozen=True)
class CriticConfig:
    """Who values the sampled tokens."""

    critic_learning_rate: Coefficient = 1e-5
    """Learning rate of the critic."""
    critic_model: str = ""
    """Model of the critic: a copy of the policy that is trained beside it (copy), or a folder or name of a
    checkpoint; empty: none of its own, a head reads the policy's hidden states."""


@dataclass(frozen=True)
class Config(ChatConfig):
    """Everything a run depends on, beside the weights it starts from."""

    recipe: str = "VIDEO_MTR_TINY"
    """Recipe of all episodes, or its name, such as LONGVT/paper."""
    iterations: Count = 500
    """Number of iterations; each collects a batch and learns from it."""
    groups: Count = 16
    """Tasks in an iteration."""
    group_size: Count = 2
    """Episodes per task."""
    mini_batch_size: Count = 8
    """Episodes per gradient step."""
    learning_rate: Coefficient = 1e-6
    """Learning rate of the policy."""
    vf_coef: Coefficient = 1.0
    """Coefficient of the value loss."""
    clip_epsilon: ShareBelowOne = 0.2
    """Clip the importance ratio to 1 plus or minus this value."""
    value_clip: Positive = 0.5
    """Clip the change of the critic's values to this, see `agents.training.losses.clipped_value_loss`."""
    entropy_coef: Coefficient = 0.001
    """Coefficient of the entropy bonus."""
    kl_coef: Coefficient = 0.001
    """Coefficient of the KL penalty in the reward of each token; 0: no reference policy is kept."""
    gate: Literal["recipe", "code", "none"] = "recipe"
    """What gates turn rewards: the recipe's terms, the published code's reward shaping, or nothing."""
    bonus: Literal["none", "paper", "code"] = "paper"
    """Exploration bootstrapping, see `agents.training.releveling.ExplorationBonus`."""
    gamma_turn: Share = 0.95
    """Discount from turn to turn; 0.95 in the paper, 1.0 in its code."""
    gamma_token: Share = 1.0
    """Discount from token to token of a turn."""
    lmbda: Share = 1.0
    """Lambda of GAE on both levels, as in the published code."""
    collector: RolloutKind = "local"
    """Where episodes are played: in this process, which makes a run repeatable to the bit, in threads
    (async) or in Ray workers."""
    workers: Count = 2
    """Ray workers, or the groups that the async collector plays in parallel."""
    sampling: SamplingConfig = SamplingConfig(window=2, temperature=0.7, max_new_tokens=512)
    """What the model reads of a conversation, and how its outputs are sampled."""
    memory: MemoryConfig = MemoryConfig(micro_batch_size=8)
    """Memory against time."""
    valuing: CriticConfig = CriticConfig()
    """Who values the sampled tokens."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW, beside the learning rate."""
    shown: ConversationConfig = ConversationConfig()
    """Sampled conversations for people to read."""


def train(config: Config, actor: ChatActor, out: Path, progress: bool = False) -> TrainingRun:
    """Train a policy in place.

    Args:
        config: of the run.
        actor: the policy; its engine samples.
        out: folder of the run; resumed if it holds one. Rollouts are written to its ``records``.
        progress: whether to show a progress bar.

    Raises:
        RunDiverged: a loss is not finite.
        CheckpointMismatch: the folder belongs to another kind of run.
        EngineError: the engine failed.
    """
    torch.set_num_threads(config.runtime.threads)
    began_with = {"checkpoint": digest_of_weights(actor.model)}
    reference = reference_policy(config, actor) if config.kl_coef else None
    critic = make_critic(config, actor, config.valuing.critic_model)
    began_with |= {"critic_model": critic.began_with} if critic.model else {}
    policy = trainable_parameters(shard_model(config, actor.model))
    groups: list[dict[str, Any]] = [{"params": policy}]
    groups.append({"params": critic.parameters(), "lr": config.valuing.critic_learning_rate})
    # Clipped together with a head; a second model's gradients are clipped by themselves.
    own = critic.parameters() if critic.model else []
    clipped = policy if own else [*policy, *critic.parameters()]
    memory, adamw = config.memory, config.optimizer
    optimizer = torch.optim.AdamW(groups, config.learning_rate, weight_decay=adamw.weight_decay)
    shaping = make_shaping(config)
    lasting = nn.ModuleDict({"shaping": shaping, **critic.modules()})
    evaluate = make_evaluator(config, actor)
    run = TrainingRun(config, out, actor.model, optimizer, lasting, evaluate, began_with)
    files = RolloutFiles(out / "records", run.first_iteration)
    conversations = ConversationLog(config.shown, run, actor.model)
    actor.version = run.first_iteration  # records of a run that was resumed say what they would have
    loss_module = make_loss(config, actor.model.device)
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
        collector.update_policy_weights_()
        for iteration in run.iterations(progress):
            rollouts = collector.collect(iteration)
            files.write(iteration, rollouts)
            conversations.write(iteration, rollouts)
            values, updates = rollout_metrics(rollouts), []
            whole = [record for record in rollouts if not record.abort_reason]
            if sum(record.sampled_tokens for record in whole) < 2:
                whole = []  # one advantage has no deviation
            batch = RolloutBatch(whole, actor.model)
            if len(batch):
                with run.span("advantage"):
                    if reference is not None:
                        batch.set("reference", reference.log_probs(batch.records, memory.micro_batch_size))
                    rewards = shaping(rewards_of_turns(batch.records))["next", "reward"]
                    values["trained_reward"] = float(rewards.sum()) / len(batch)
                    estimate(config, batch, rewards, critic)
            # Neighbours began alike; an order of their own would compute their prefixes twice.
            for minibatch in batch.split(config.mini_batch_size):
                total, parts = 0.0, []
                with run.span("update"):
                    for micro in actor.scorer.micro_batches(minibatch.records, memory.micro_batch_size):
                        loss, metrics = ppo_loss(config, loss_module, critic, minibatch, micro)
                        loss.backward()
                        total += loss.item()
                        parts += [metrics] if micro.active else []
                    for micro in critic.micro_batches(minibatch.records, memory.micro_batch_size):
                        loss, metrics = value_loss(config, critic, minibatch, micro)
                        loss.backward()
                        total += loss.item()
                        parts += [metrics] if micro.active else []
                    step = optimizer_step(clipped, optimizer, total, adamw.max_grad_norm, own)
                updates.append(step | sum_over_ranks(parts))
            if len(batch):
                collector.update_policy_weights_()
            turns = sum(len(record.played) for record in rollouts)
            run.end_iteration(iteration, turns, values | mean_rows(updates))
    return run


def make_loss(config: Config, device: torch.device) -> GRPOLoss:
    """TorchRL's clipped loss with one advantage a token, of policies that have been scored already."""
    return GRPOLoss(
        ScoredPolicy(),
        clip_epsilon=config.clip_epsilon,
        entropy_bonus=True,
        entropy_coeff=config.entropy_coef,
        aggregation="token_mean",
        masking_strategy="rlhf",  # sampled tokens of all turns
        device=device,
    )


def ppo_loss(
    config: Config, loss_module: GRPOLoss, critic: Critic, minibatch: RolloutBatch, micro: MicroBatch
) -> tuple[Tensor, dict[str, float]]:
    """What a micro-batch adds to the loss of its gradient step, and to its metrics.

    A critic that reads the policy's hidden states has its error in it; see `value_loss` for others.
    """
    tensors = minibatch.tensors(micro)
    losses = loss_module(tensors)
    loss = (losses.loss_objective + losses.loss_entropy) * micro.token_share
    metrics = {name: value * micro.token_share for name, value in loss_metrics(losses, tensors).items()}
    if critic.model:
        return loss, metrics
    error, of_critic = value_loss(config, critic, minibatch, micro)
    return loss + error, metrics | of_critic


def value_loss(
    config: Config, critic: Critic, minibatch: RolloutBatch, micro: MicroBatch
) -> tuple[Tensor, dict[str, float]]:
    """The critic's error in what a micro-batch adds to the loss, and to the metrics."""
    now = critic(micro.scored)
    old, target = (
        torch.cat(minibatch.get(name)[micro.place]).to(now.device) for name in ("value", "target")
    )
    error = clipped_value_loss(now, old, target, config.value_clip)
    metrics = {"loss_critic": float(error.detach()) * micro.token_share}
    return config.vf_coef * error * micro.token_share, metrics


def make_shaping(config: Config) -> Compose:
    """Gate, then bonus."""
    steps = [TurnRewards(config.rules.terms, gate=config.gate == "recipe")]
    if config.gate == "code":
        steps.append(CodeGate())
    if config.bonus != "none":
        steps.append(ExplorationBonus(config.bonus))
    return Compose(*steps)


def estimate(config: Config, batch: RolloutBatch, rewards: Tensor, critic: Critic) -> None:
    """Estimate advantages and value targets of every sampled token: bi-level GAE, standardised.

    Args:
        config: discounts.
        batch: N rollouts; gets ``advantage``, ``value`` and ``target``, (T,) of the T sampled tokens each.
        rewards: (N, K, 1) of their turns.
        critic: values their tokens.
    """
    values = critic.values(batch.records, config.memory.micro_batch_size)
    reward, turn_end = [], []
    for row, record, paid in zip(batch.rows, batch.records, rewards[..., 0], strict=True):
        ends = torch.tensor([len(turn.output) for turn in record.played]).cumsum(0) - 1
        tokens = torch.zeros(record.sampled_tokens)
        if config.kl_coef:
            tokens -= config.kl_coef * (row["log_probs"][row["mask"]] - row["reference"])
        tokens[ends] += paid[: len(ends)]
        reward.append(tokens)
        turn_end.append(torch.zeros_like(tokens, dtype=torch.bool).index_fill(0, ends, True))
    mask = pad_sequence([torch.ones_like(end) for end in turn_end], batch_first=True)
    advantage, target = bilevel_gae(
        pad_sequence(reward, batch_first=True),
        pad_sequence(values, batch_first=True),
        mask,
        pad_sequence(turn_end, batch_first=True),
        gamma_turn=config.gamma_turn,
        gamma_token=config.gamma_token,
        lmbda_turn=config.lmbda,
        lmbda_token=config.lmbda,
    )
    advantage = whiten(advantage, mask)
    batch.set("advantage", [row[under] for row, under in zip(advantage, mask, strict=True)])
    batch.set("value", values)
    batch.set("target", [row[under] for row, under in zip(target, mask, strict=True)])


if __name__ == "__main__":
    command_line(__doc__, Config, train, Path("runs/ppo-mllm"))
