"""PPO on a multimodal language model that retrieves frames: Video-MTR's training in one file.

One iteration: play episodes; put every payment at the turn that earned it (gate) and pay for looking while
the policy does not look (bonus); let a critic on the model's hidden states estimate advantages in two
levels, over turns and over the tokens of each; step down the clipped loss of the sampled tokens and the
critic's error.

Run ``python -m agents.train_ppo_mllm --checkpoint runs/sft/model --out runs/ppo``. Go on with a run that
was stopped by the same command.

Defaults are Video-MTR's: 16 tasks twice, minibatches of 8, a window of two turns, the paper's discount of
0.95 from turn to turn, a penalty for divergence from the first policy inside the reward. Deviations: the
critic is a linear head that reads the policy's own hidden states and does not change them, not a second
model of 7 billion weights; no nucleus of 0.95 in sampling, so that the trained distribution is the sampled
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchrl.envs import Compose
from tqdm import tqdm

from .collectors.rollouts import RolloutKind, make_collector
from .models.qwen_vl import left_padded
from .training.advantage import bilevel_gae, whiten
from .training.losses import ChatPPOLoss
from .training.ranks import alone
from .training.releveling import CodeGate, ExplorationBonus, TurnRewards
from .training.run import Span, TrainingRun, mean_rows, untimed
from .vlm.actor import ChatActor
from .vlm.command import command_line
from .vlm.config import ChatConfig
from .vlm.evaluation import figures, held_out
from .vlm.policy import first_policy, trained
from .vlm.records import Record, forget_records, write_records
from .vlm.update import as_batch, backward, step


@dataclass(frozen=True)
class Config(ChatConfig):
    """Everything a run depends on, beside the weights it starts from."""

    recipe: str = "VIDEO_MTR_TINY"
    """Recipe of all episodes, or its name."""
    window: int = 2
    """Earlier turns that a policy reads again; 0: all."""
    temperature: float = 0.7
    """Of sampling and of the trained distribution."""
    max_new_tokens: int = 512
    """Bound of one output."""
    iterations: int = 500
    """Batches to collect and learn from."""
    groups: int = 16
    """Tasks of an iteration."""
    group_size: int = 2
    """Episodes of a task."""
    minibatch: int = 8
    """Episodes of a gradient step."""
    at_once: int = 8
    """Episodes in memory together; fewer than a step has are accumulated."""
    lr: float = 1e-6
    """Learning rate of the policy."""
    critic_lr: float = 1e-5
    """Learning rate of the critic's head."""
    critic: float = 1.0
    """Weight of the critic's loss."""
    weight_decay: float = 0.01
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    clip_epsilon: float = 0.2
    """Clipping of the importance ratio."""
    value_clip: float = 0.5
    """Clipping of the critic's change, see `agents.training.losses.ChatPPOLoss`."""
    entropy: float = 0.001
    """Weight of the entropy bonus."""
    kl: float = 0.001
    """Penalty, in the reward of each token, for divergence from the first policy; 0: no copy is kept."""
    gate: Literal["recipe", "code", "none"] = "recipe"
    """Who gates turn rewards: the recipe's terms, the published code's shaping of batches, or nobody."""
    bonus: Literal["none", "paper", "code"] = "paper"
    """Exploration bootstrapping, see `agents.training.releveling.ExplorationBonus`."""
    gamma_turn: float = 0.95
    """Discount from turn to turn; 0.95 in the paper, 1.0 in its code."""
    gamma_token: float = 1.0
    """Discount from token to token of a turn."""
    lmbda: float = 1.0
    """Decay of traces on both levels, as in the published code."""
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
        ValueError: torchrun started this: the critic's weights have no shards.
    """
    alone("agents.train_ppo_mllm, whose critic has no shards,")
    torch.set_num_threads(config.threads)
    head = nn.Linear(actor.model.model.config.text_config.hidden_size, 1, device=actor.model.device)
    nn.init.zeros_(head.weight)  # the first advantages are returns, not noise
    nn.init.zeros_(head.bias)
    parameters = [*trained(actor.model), *head.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": trained(actor.model)},
        {"params": [*head.parameters()], "lr": config.critic_lr},
    ]
    optimizer = torch.optim.AdamW(groups, config.lr, weight_decay=config.weight_decay)
    reference = first_policy(config, actor) if config.kl else None
    shaping = make_shaping(config)
    memory = nn.ModuleDict({"shaping": shaping, "critic": head})
    run = TrainingRun(config, out, actor.model, optimizer, memory, held_out(config, actor))
    forget_records(out / "records", run.first_iteration)
    actor.version = run.first_iteration  # records of a run that was gone on with say what they would have
    loss_module = ChatPPOLoss(
        actor,
        head,
        config.value_clip,
        clip_epsilon=config.clip_epsilon,
        entropy_bonus=True,
        entropy_coeff=config.entropy,
        aggregation="token_mean",
    )
    bar = tqdm(
        run.iterations(),
        total=config.iterations,
        initial=run.first_iteration,
        desc="ppo",
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
            write_records(out / "records" / f"{iteration:06d}.jsonl", records)
            values = figures(records)
            whole = [record for record in records if not record.cut]
            rows = []
            if whole:
                with run.span("advantage"):
                    batch = as_batch(whole, actor, reference, config.at_once)
                    shaped = shaping(turns(whole))
                    values["trained_reward"] = float(shaped["next", "reward"].sum()) / len(whole)
                    estimate(config, batch, shaped, actor, head)
                # Neighbours began alike; an order of their own would compute their beginnings twice.
                for first_row in range(0, len(whole), config.minibatch):
                    minibatch = batch[first_row : first_row + config.minibatch]
                    rows.append(
                        gradient_step(
                            config, actor, loss_module, parameters, optimizer, minibatch, run.span
                        )
                    )
                collector.sync()
            run.end_iteration(
                iteration, sum(len(record.played) for record in records), values | mean_rows(rows)
            )
            bar.set_postfix(reward=f"{values.get('reward', float('nan')):.2f}")
    return run


def make_shaping(config: Config) -> Compose:
    """Gate, then bonus."""
    steps = [TurnRewards(config.rules.terms, gate=config.gate == "recipe")]
    if config.gate == "code":
        steps.append(CodeGate())
    if config.bonus != "none":
        steps.append(ExplorationBonus(config.bonus))
    return Compose(*steps)


def turns(records: Sequence[Record]) -> TensorDictBase:
    """Whole episodes as `agents.training.releveling` reads them, (B, K).

    Raises:
        ValueError: an episode was cut: its gate was never settled.
    """
    if any(record.cut for record in records):
        raise ValueError("episodes that were cut from outside have no settled rewards")
    played = [record.played for record in records]
    most = max(len(row) for row in played)

    def table(values: Sequence[Sequence[float]], dtype: torch.dtype, missing: float) -> Tensor:
        rows = [[*row, *[missing] * (most - len(row))] for row in values]
        return torch.tensor(rows).to(dtype)[..., None]

    last = [[turn is row[-1] for turn in row] for row in played]
    success = [[float(bool(record.success))] * len(record.played) for record in records]
    terms = {
        name: table(
            [[_number(turn.terms[name]) for turn in row] for row in played], torch.float32, torch.nan
        )
        for name in played[0][0].terms
    }
    after = {
        "reward": table([[turn.reward for turn in row] for row in played], torch.float32, 0.0),
        "terminated": table(last, torch.bool, False),
        "is_success": table(success, torch.float32, 0.0),
        "looked": table([[turn.looked for turn in row] for row in played], torch.bool, False),
        "terms": TensorDict(terms, (len(records), most)),
    }
    waiting = table([[False] * len(row) for row in played], torch.bool, True)
    return TensorDict(
        {"waiting": waiting, "next": TensorDict(after, (len(records), most))}, (len(records), most)
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def estimate(
    config: Config, batch: TensorDictBase, shaped: TensorDictBase, actor: ChatActor, head: nn.Module
) -> None:
    """Write advantages and value targets of every sampled token into the rows of a batch.

    Args:
        config: discounts.
        batch: (B,) rows of `as_batch`; gets ``"advantage"`` (L, 1), and ``"value"`` and ``"value_target"``
            (T,) of the T sampled tokens of a row.
        shaped: (B, K) rewards of their turns.
        actor: reads the records.
        head: the critic.
    """
    records = [row["record"] for row in batch.unbind(0)]
    now: list[Tensor] = []
    with torch.no_grad():
        for scored in actor.scorer.in_parts(records, config.at_once):
            now += head(scored.hidden.float())[:, 0].cpu().split(scored.counts)
    rows = list(zip(batch.unbind(0), records, now, strict=True))
    reward, turn_end = [], []
    for (row, record, _), paid in zip(rows, shaped["next", "reward"][..., 0], strict=True):
        mask = row["masks", "all_assistant_mask"]
        ends = torch.tensor([len(turn.output) for turn in record.played]).cumsum(0) - 1
        tokens = torch.zeros(int(mask.sum()))
        if config.kl:
            behaviour, first = row["log_probs", "full"], row["next", "ref_log_probs", "full"]
            tokens -= config.kl * (behaviour - first)[mask]
        tokens[ends] += paid[: len(ends)]
        reward.append(tokens)
        turn_end.append(torch.zeros_like(tokens, dtype=torch.bool).index_fill(0, ends, True))
    padded = [pad_sequence(part, batch_first=True) for part in (reward, [v for _, _, v in rows], turn_end)]
    mask = pad_sequence([torch.ones_like(end) for end in turn_end], batch_first=True)
    advantage, target = bilevel_gae(
        padded[0],
        padded[1],
        mask,
        padded[2],
        gamma_turn=config.gamma_turn,
        gamma_token=config.gamma_token,
        lmbda_turn=config.lmbda,
        lmbda_token=config.lmbda,
    )
    advantage = whiten(advantage, mask)
    for number, (row, _, values) in enumerate(rows):
        sampled = row["masks", "all_assistant_mask"]
        row["advantage"] = torch.zeros(len(sampled)).masked_scatter(
            sampled, advantage[number][mask[number]]
        )
        row["value"], row["value_target"] = values, target[number][mask[number]]


def gradient_step(
    config: Config,
    actor: ChatActor,
    loss_module: ChatPPOLoss,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    minibatch: TensorDictBase,
    span: Span = untimed,
) -> dict[str, float]:
    """One gradient step; returns its figures."""
    records = [row["record"] for row in minibatch.unbind(0)]
    tokens = sum(record.sampled_tokens for record in records)
    rows: list[dict[str, float]] = []

    def loss_of(part: slice) -> Tensor:
        some = list(minibatch[part].unbind(0))
        batch = minibatch[part].exclude("advantage", "value", "value_target")
        # `GRPOLoss` would pad ragged advantages on the other side than all else.
        batch["advantage"] = left_padded([row["advantage"] for row in some])[..., None]
        losses = loss_module(batch.to(actor.model.device))
        value, target = (torch.cat([row[key] for row in some]) for key in ("value", "value_target"))
        critic = loss_module.critic_loss(value.to(actor.model.device), target.to(actor.model.device))
        rows.append(
            {
                "clip_fraction": float(losses.clip_fraction),
                "entropy": float(losses.entropy) * batch["advantage"].numel() / len(value),
                "loss_critic": float(critic.detach()),
            }
        )
        share = sum(record.sampled_tokens for record in records[part]) / tokens
        return (losses.loss_objective + losses.loss_entropy + config.critic * critic) * share

    loss = backward(actor, records, config.at_once, loss_of, span)
    with span("step"):
        norm = step(parameters, optimizer, loss, config.max_grad_norm)
    return {"loss": loss, "grad_norm": norm, **mean_rows(rows)}


if __name__ == "__main__":
    command_line(__doc__, Config, train, Path("runs/ppo-mllm"))
