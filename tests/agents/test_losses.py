"""Losses: the divergence by hand, padding without effect, and parts that add up to the whole."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rounding import GRADIENT, ROUNDING, assert_close, rounded
from small_chat import (
    FAMILIES,
    batch_of,
    grpo_step,
    load,
    make_actor,
    make_env,
    mixed,
    play,
    stored,
    tensors,
)
from torch import Tensor, nn
from torchrl.objectives.llm import GRPOLoss

from agents import train_ppo_mllm
from agents.train_grpo_mllm import Config, make_loss
from agents.training.losses import KL_BOUND, ScoredPolicy, clipped_value_loss, kl_to_reference, loss_metrics
from agents.training.ranks import sum_over_ranks
from agents.vlm.actor import ChatActor
from agents.vlm.critic import Critic
from agents.vlm.records import Record
from agents.vlm.scoring import Scorer

ADVANTAGES = torch.tensor([1.0, -2.0, 0.5, 0.25, 3.0, -1.0])


@pytest.fixture(scope="module", params=FAMILIES)
def played(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> tuple[ChatActor, list[Record]]:
    """An actor whose weights have moved since it played, and its episodes; what was scripted is scored."""
    torch.manual_seed(0)
    actor = make_actor(load(checkpoints[request.param]))
    records = play(make_env(actor.model), actor, mixed)
    with torch.no_grad():
        scored = actor.scorer(records).log_probs
        for parameter in actor.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    actor.update_weights()
    found = iter(torch.where(stored(records) == 0.0, scored, stored(records)).tolist())
    whole = []
    for one in records:
        turns = (replace(turn, log_probs=tuple(next(found) for _ in turn.output)) for turn in one.turns)
        whole.append(replace(one, turns=tuple(turns)))
    return actor, whole


def now_and_then(actor: ChatActor, records: Sequence[Record]) -> list[tuple[Tensor, Tensor]]:
    """Of each record the log-probabilities under the present weights and when it was sampled."""
    with torch.no_grad():
        now = Scorer(actor.model, 0.8, share=False)(records).log_probs
    counts = [record.sampled_tokens for record in records]
    return list(zip(now.split(counts), stored(records).split(counts), strict=True))


@pytest.mark.parametrize("aggregation", ["prompt_mean", "token_mean"])
def test_the_objective_is_the_clipped_one(played: tuple[ChatActor, list[Record]], aggregation: str) -> None:
    """By hand, token by token; the clip fraction is a mean over sampled tokens."""
    actor, records = played
    config = Config.of(clip_low=0.1, clip_high=0.2, aggregation=aggregation)  # type: ignore[arg-type]
    with torch.no_grad():
        batch = tensors(actor, batch_of(actor, records, ADVANTAGES))
        losses = make_loss(config, actor.model.device)(batch)
    gains, sizes, ratios = [], [], []
    for advantage, (now, then) in zip(ADVANTAGES, now_and_then(actor, records), strict=True):
        ratios.append((now - then).exp())
        gains.append(torch.minimum(ratios[-1] * advantage, ratios[-1].clamp(0.9, 1.2) * advantage))
        sizes.append(float((gains[-1] * now).abs().mean()))
    expected = torch.stack([gain.mean() for gain in gains]).mean()
    if aggregation == "token_mean":
        expected = torch.cat(gains).mean()
    assert_close(losses.loss_objective.squeeze(), -expected, of=max(sizes))
    ratio = torch.cat(ratios)
    # Which side of a bound a ratio lies on is the kernel's affair where it lies within rounding of it.
    surely, perhaps = (
        float(((ratio < 0.9 - away) | (ratio > 1.2 + away)).float().mean()) for away in (1e-4, -1e-4)
    )
    assert 0.0 < surely <= perhaps < 1.0
    found = loss_metrics(losses, batch)["clip_fraction"]
    assert surely - ROUNDING["rtol"] <= found <= perhaps + ROUNDING["rtol"]


def test_the_divergence_from_a_reference_is_a_mean_over_rollouts_of_means_over_tokens(
    played: tuple[ChatActor, list[Record]],
) -> None:
    """``exp(d) - d - 1`` of ``d = reference - now``, at most 10 a token."""
    actor, records = played
    batch = batch_of(actor, records, ADVANTAGES)
    generator = torch.Generator().manual_seed(0)
    references = []
    for now, _ in now_and_then(actor, records):
        reference = now + torch.randn(len(now), generator=generator)
        reference[0] = now[0] + 5.0  # whose estimate, 142, is bounded
        references.append(reference)
    batch.set("reference", references)
    with torch.no_grad():
        found = float(kl_to_reference(tensors(actor, batch)))
    means, sizes = [], []
    for reference, (now, _) in zip(references, now_and_then(actor, records), strict=True):
        diff = reference - now
        estimate = diff.exp() - diff - 1
        assert estimate[0] > KL_BOUND == 10.0
        means.append(estimate.clamp(max=10.0).mean())
        sizes.append(float((diff.expm1() * now)[1:].abs().mean()))
    assert found == rounded(float(torch.stack(means).mean()), of=max(sizes))


def test_the_reference_is_scored_like_the_policy(
    played: tuple[ChatActor, list[Record]], checkpoints: dict[str, Path]
) -> None:
    """Against itself a policy diverges by nothing; against the weights that sampled, by something."""
    actor, records = played
    first = Scorer(load(checkpoints[actor.model.family]), 0.8)
    with torch.no_grad():
        same, other = (
            float(kl_to_reference(tensors(actor, batch_of(actor, records, ADVANTAGES, scorer))))
            for scorer in (Scorer(actor.model, 0.8), first)
        )
    assert same == rounded(0.0)
    diffs = [then - now for now, then in now_and_then(actor, records)]
    expected = torch.stack([(d.exp() - d - 1).clamp(max=10.0).mean() for d in diffs]).mean()
    assert other == rounded(float(expected)) and other > 1e-3


def test_padding_changes_nothing(played: tuple[ChatActor, list[Record]]) -> None:
    """The loss of ragged rows is the mean of the losses of each row alone."""
    actor, records = played
    loss = GRPOLoss(ScoredPolicy(), entropy_bonus=True, aggregation="prompt_mean", masking_strategy="rlhf")
    reference = Scorer(actor.model, 0.7)

    def losses(chosen: slice) -> dict[str, Tensor]:
        batch = tensors(actor, batch_of(actor, records[chosen], ADVANTAGES[chosen], reference))
        made = loss(batch)
        return {
            "objective": made.loss_objective.squeeze(),
            "entropy": made.loss_entropy.squeeze(),
            "divergence": kl_to_reference(batch),
        }

    assert len({len(ids) for ids in batch_of(actor, records, ADVANTAGES).get("tokens")}) >= 3
    with torch.no_grad():
        whole, alone = losses(slice(0, 6)), [losses(slice(k, k + 1)) for k in range(len(records))]
    for name, value in whole.items():
        assert_close(value, torch.stack([one[name] for one in alone]).mean())


@pytest.mark.parametrize("aggregation", ["prompt_mean", "token_mean"])
@pytest.mark.parametrize("kl", [0.0, 0.5])
def test_parts_add_up_to_the_whole(
    played: tuple[ChatActor, list[Record]], aggregation: str, kl: float
) -> None:
    """One, two or four rollouts at a time: the same loss and gradients as all six at once."""
    actor, records = played
    optimizer = SimpleNamespace(step=lambda: None, zero_grad=lambda: None)
    parameters = list(actor.model.parameters())
    found = []
    for at_once in (6, 4, 1):
        options: Any = {
            "aggregation": aggregation,
            "kl_coef": kl,
            "micro_batch_size": at_once,
            "max_grad_norm": 1e9,
        }
        batch = batch_of(actor, records, ADVANTAGES, Scorer(actor.model, 0.7) if kl else None)
        for number, row in enumerate(batch.rows):  # the last ones are clipped
            row["log_probs"] = row["log_probs"] - 0.05 * number * row["mask"]
        values = grpo_step(Config.of(**options), actor, batch, optimizer)  # type: ignore[arg-type]
        found.append((values, torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])))
        actor.model.zero_grad()
    for values, gradient in found[1:]:
        assert values["loss"] == rounded(found[0][0]["loss"])
        assert values["grad_norm"] == pytest.approx(found[0][0]["grad_norm"], rel=GRADIENT)
        assert float((gradient - found[0][1]).norm()) < GRADIENT * float(found[0][1].norm())
        assert values["clip_fraction"] == rounded(found[0][0]["clip_fraction"])
        assert 0.05 < values["clip_fraction"] < 0.95
        if kl:
            assert values["kl_to_first"] == rounded(found[0][0]["kl_to_first"])
            assert values["kl_to_first"] > 1e-4


def test_figures_of_a_step_are_means_over_its_tokens(played: tuple[ChatActor, list[Record]]) -> None:
    """Entropy, clipped tokens and the critic's error, however many rollouts are scored at a time."""
    actor, records = played
    assert len({record.sampled_tokens for record in records}) > 1, "else all means are the same"
    critic = Critic(nn.Linear(actor.model.model.config.text_config.hidden_size, 1), actor.scorer)
    config = train_ppo_mllm.Config.of()
    batch = batch_of(actor, records, ADVANTAGES)
    for number, row in enumerate(batch.rows):
        row["log_probs"] = row["log_probs"] - 0.05 * number * row["mask"]
    targets = [torch.full((record.sampled_tokens,), float(n)) for n, record in enumerate(records)]
    batch.set("value", [torch.zeros_like(target) for target in targets])
    batch.set("target", targets)
    loss_module = train_ppo_mllm.make_loss(config, actor.model.device)
    found = []
    for at_once in (6, 4, 1):
        micros = actor.scorer.micro_batches(records, at_once)
        parts = [train_ppo_mllm.ppo_loss(config, loss_module, critic, batch, one)[1] for one in micros]
        found.append(sum_over_ranks(parts))
    with torch.no_grad():
        whole = actor.scorer(records)
    for values in found:
        assert values["entropy"] == rounded(float(whole.entropies.mean()))
        assert values["clip_fraction"] == rounded(found[0]["clip_fraction"])
        assert values["loss_critic"] == rounded(found[0]["loss_critic"])
    assert 0.05 < found[0]["clip_fraction"] < 0.95


def test_the_critic_is_compared_clipped_as_well() -> None:
    """By hand: of ``(now - target)^2`` and that of the value held near the old one, the larger, halved."""
    now = torch.tensor([2.0, 0.2])
    value, target = torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0])
    # First: now hits the target, held at 1.5 it misses by 0.5. Second: held at 0.2 both miss by 0.8.
    assert clipped_value_loss(now, value, target, 0.5).item() == pytest.approx(0.5 * (0.25 + 0.64) / 2)


def test_the_critic_does_not_shape_the_actor(played: tuple[ChatActor, list[Record]]) -> None:
    """Its error gives gradients to the head, and to no weight of the actor."""
    actor, records = played
    head = nn.Linear(actor.model.model.config.text_config.hidden_size, 1)
    critic = Critic(head, actor.scorer)
    config = train_ppo_mllm.Config.of(entropy_coef=0.0)
    batch = batch_of(actor, records, torch.zeros(6))
    for name, value in (("value", 0.0), ("target", 1.0)):
        batch.set(name, [torch.full((record.sampled_tokens,), value) for record in records])
    (micro,) = actor.scorer.micro_batches(records, len(records))
    loss, _ = train_ppo_mllm.ppo_loss(
        config, train_ppo_mllm.make_loss(config, actor.model.device), critic, batch, micro
    )
    actor.model.zero_grad()
    loss.backward()
    assert head.weight.grad is not None and head.weight.grad.abs().max() > 0
    assert all(weight.grad is None or not weight.grad.any() for weight in actor.model.parameters())
