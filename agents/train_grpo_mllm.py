"""GRPO on a multimodal language model that calls for frames: LongVT's second stage in one file.

One iteration: play groups of rollouts that start from one state; take each return relative to its group;
step down `GRPOLoss` on the sampled tokens. What the rollouts of a group have in common
goes through the model once.

Run ``python -m agents.train_grpo_mllm --checkpoint runs/sft/model --out runs/grpo``. The same command
resumes a run that was stopped.

Defaults are LongVT's: groups of 16, 16 of them, two updates an iteration, a constant learning rate, returns
over their standard deviation, the mean over rollouts of the mean over tokens, a divergence of 0.001 from
the policy it started as. Deviations: no dual clip; rollouts that were cut from outside are passed over with
their group, where LongVT trains on them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.objectives.llm import GRPOLoss

from videogym.grammars import get_grammar

from .collectors.local import ANEW
from .collectors.rollouts import RolloutCollector, RolloutKind, make_collector
from .training.bounds import Coefficient, Count, Share, ShareBelowOne
from .training.groups import group_advantage, group_turn_advantage
from .training.losses import ScoredPolicy, kl_to_reference, loss_metrics
from .training.provenance import digest_of_weights
from .training.ranks import sum_over_ranks
from .training.run import TrainingRun, mean_rows, optimizer_step
from .vlm.actor import ChatActor
from .vlm.batch import RolloutBatch, complete_groups, needing_looks, turn_payments
from .vlm.command import command_line
from .vlm.config import ChatConfig, ConversationConfig, OptimizerConfig
from .vlm.conversations import ConversationLog
from .vlm.evaluation import make_evaluator, rollout_metrics
from .vlm.policy import reference_policy, shard_model, trainable_parameters
from .vlm.records import Record, RolloutFiles
from .vlm.scoring import MicroBatch

log = logging.getLogger(__name__)
FORMAT = "format"  # name of the term that `format_credit` is about


@dataclass(frozen=True)
class Config(ChatConfig):
    """Everything a run depends on, beside the weights it starts from."""

    iterations: Count = 160
    """Number of iterations; each collects a batch and learns from it."""
    groups: Count = 16
    """Tasks in an iteration."""
    group_size: Count = 16
    """Rollouts per task."""
    mini_batch_groups: Count = 8
    """Groups per gradient step."""
    learning_rate: Coefficient = 1e-6
    """Learning rate."""
    clip_low: ShareBelowOne = 0.2
    """Clip the importance ratio below at 1 minus this value."""
    clip_high: Coefficient = 0.2
    """Clip the importance ratio above at 1 plus this value."""
    kl_coef: Coefficient = 0.001
    """Coefficient of the KL divergence from the reference policy; 0: no reference policy is kept."""
    scale_by_std: bool = True
    """Divide advantages by the standard deviation of their group; without, groups in which rollouts differ
    little weigh little."""
    credit: Literal["trajectory", "turn"] = "trajectory"
    """What an output is compared by: the return of its rollout (trajectory), or what its turn and those
    after it were paid, against the same turn of the group's other rollouts (turn)."""
    max_generation_batches: Count = 1
    """Batches that an iteration generates at most until ``groups`` of them have contrast: dynamic sampling,
    as in DAPO. 1: no group is replaced."""
    max_success_without_looks: Share = 1.0
    """Share of a group's rollouts that may be right without a single look; where more are, the prompt needs
    none and is left out, and another is drawn as far as ``max_generation_batches`` allows. 1: none is left
    out."""
    format_credit: Literal["all", "structure"] = "all"
    """Tokens that learn from the recipe's term ``format``: all of a rollout (all), or those of tags, of
    brackets, quotes and keys of calls and of ends of outputs alone (structure), as in ParaVT's paper."""
    aggregation: Literal["prompt_mean", "token_mean"] = "prompt_mean"
    """How token losses are averaged: every rollout counts equally (prompt_mean), or every token does."""
    collector: RolloutKind = "local"
    """Where episodes are played: in this process, which makes a run repeatable to the bit, in threads
    (async) or in Ray workers."""
    workers: Count = 2
    """Ray workers, or the groups that the async collector plays in parallel."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW, beside the learning rate."""
    shown: ConversationConfig = ConversationConfig()
    """Sampled conversations for people to read."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: as in `ChatConfig`; a group of one has nothing to be compared with.
        """
        super().__post_init__()
        if self.group_size < 2:
            raise ValueError(
                f"group_size must be at least 2, got {self.group_size}: a rollout is compared with others"
            )
        if self.format_credit == "structure":
            _ = self.tags

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the tags that outputs are made of.

        Raises:
            ValueError: the recipe pays nothing for the format, or its grammar does not tell its tags.
        """
        names = [term.name for term in self.rules.terms]
        if FORMAT not in names:
            raise ValueError(
                f"format_credit 'structure' needs a recipe with a term {FORMAT!r}; {self.rules.name} has "
                f"{', '.join(names)}"
            )
        grammar = get_grammar(self.rules.grammar)
        tags = getattr(grammar, "tags", ())
        if not tags:
            raise ValueError(
                f"format_credit 'structure' needs a grammar with tags; {grammar.name} has none"
            )
        return tuple(tags)


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
    parameters = trainable_parameters(shard_model(config, actor.model))
    memory, adamw = config.memory, config.optimizer
    optimizer = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=adamw.weight_decay)
    evaluate = make_evaluator(config, actor)
    run = TrainingRun(config, out, actor.model, optimizer, nn.Module(), evaluate, began_with)
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
            rollouts, batch = generate(config, collector, iteration, actor)
            files.write(iteration, rollouts)
            conversations.write(iteration, rollouts)
            with run.span("reference"):
                if reference is not None:
                    batch.set("reference", reference.log_probs(batch.records, memory.micro_batch_size))
            updates = []
            for minibatch in batch.split(config.mini_batch_groups * config.group_size):
                total, parts = 0.0, []
                with run.span("update"):
                    for micro in actor.scorer.micro_batches(minibatch.records, memory.micro_batch_size):
                        loss, metrics = grpo_loss(config, loss_module, minibatch.tensors(micro), micro)
                        loss.backward()
                        total += loss.item()
                        parts += [metrics] if micro.active else []
                    step = optimizer_step(parameters, optimizer, total, adamw.max_grad_norm)
                updates.append(step | sum_over_ranks(parts))
            collector.update_policy_weights_()
            values = rollout_metrics(rollouts) | {"groups": len(batch) / config.group_size}
            values["batches"] = len(rollouts) / (config.groups * config.group_size)
            turns = sum(len(record.played) for record in rollouts)
            run.end_iteration(iteration, turns, values | mean_rows(updates))
    return run


def generate(
    config: Config, collector: RolloutCollector, iteration: int, actor: ChatActor
) -> tuple[list[Record], RolloutBatch]:
    """The rollouts of an iteration, and those that are learned from, with advantages.

    With dynamic sampling further tasks are drawn until enough groups have contrast. Where they never have,
    the step is made with those that do, and a warning says how many.
    """
    rollouts = collector.collect(iteration)
    batch = compared(config, rollouts, actor)
    most = config.max_generation_batches
    if most == 1 and config.kl_coef:
        return rollouts, batch  # a divergence holds the policy back also where nothing is compared
    batch, enough = batch.with_contrast(config.group_size), config.groups * config.group_size
    for again in range(1, most):
        if len(batch) >= enough:
            break
        more = collector.collect(iteration + again * ANEW)
        rollouts = [*rollouts, *more]
        batch = batch + compared(config, more, actor).with_contrast(config.group_size)
    if most > 1 and len(batch) < enough:
        log.warning(
            "iteration %d: %d of %d groups have contrast%s after %d batches, all that "
            "max_generation_batches allows; the update is made with these",
            *(iteration, len(batch) // config.group_size, config.groups),
            "" if config.max_success_without_looks >= 1 else " and need a look",
            most,
        )
    return rollouts, batch.first(enough)


def compared(config: Config, rollouts: Sequence[Record], actor: ChatActor) -> RolloutBatch:
    """The complete groups of some rollouts whose prompts need looks, with advantages.

    Frames of the others may be gone for good.
    """
    records = complete_groups(rollouts)
    records = needing_looks(records, config.group_size, config.max_success_without_looks)
    batch = RolloutBatch(records, actor.model)
    if not records:
        return batch
    compare(config, batch)
    if config.format_credit == "structure":
        paid = batch.get("advantage")
        compare(config, batch, without=FORMAT)
        structure = batch.structure(config.tags, actor.model)
        parts = zip(structure, paid, batch.get("advantage"), strict=True)
        batch.set("advantage", [torch.where(places, one, other) for places, one, other in parts])
    return batch


def compare(config: Config, batch: RolloutBatch, without: str = "") -> None:
    """Set the advantages of a batch, as if a term had paid nothing where its name is given."""
    relative = partial(group_advantage, group_size=config.group_size, scale_by_std=config.scale_by_std)
    if config.credit == "trajectory" and not without:
        batch.set_advantage(relative(batch.returns))
        return
    paid, played = turn_payments(config.rules.terms, batch.records, without)
    if config.credit == "trajectory":
        batch.set_advantage(relative(paid.sum(1)))
    else:
        advantage = group_turn_advantage(paid, played, config.group_size, scale_by_std=config.scale_by_std)
        batch.set_turn_advantage(advantage)


def make_loss(config: Config, device: torch.device) -> GRPOLoss:
    """TorchRL's loss, of policies that have been scored already."""
    return GRPOLoss(
        ScoredPolicy(),
        clip_epsilon=(config.clip_low, config.clip_high),
        entropy_bonus=False,
        aggregation=config.aggregation,
        masking_strategy="rlhf",  # sampled tokens of all turns
        device=device,
    )


def grpo_loss(
    config: Config, loss_module: GRPOLoss, tensors: TensorDictBase, micro: MicroBatch
) -> tuple[Tensor, dict[str, float]]:
    """What a micro-batch adds to the loss of its gradient step, and to its metrics."""
    losses = loss_module(tensors)
    metrics = {name: value * micro.token_share for name, value in loss_metrics(losses, tensors).items()}
    share = micro.rollout_share if config.aggregation == "prompt_mean" else micro.token_share
    loss = losses.loss_objective * share
    if config.kl_coef:
        divergence = kl_to_reference(tensors)
        metrics["kl_to_first"] = float(divergence.detach()) * micro.rollout_share
        # A mean over rollouts, however the objective counts.
        loss = loss + config.kl_coef * divergence * micro.rollout_share
    return loss, metrics


if __name__ == "__main__":
    command_line(__doc__, Config, train, Path("runs/grpo"))
