"""Losses: the divergence by hand, padding without effect, and parts that add up to the whole."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rounding import assert_close, rounded
from small_chat import FAMILIES, load, make_actor, make_env, mixed, play, stored
from tensordict import TensorDictBase
from torch import Tensor, nn

from agents.train_grpo_mllm import Config, gradient_step
from agents.training.losses import KL_BOUND, ChatGRPOLoss, ChatPPOLoss
from agents.vlm.actor import ChatActor
from agents.vlm.records import Record
from agents.vlm.scoring import Scorer
from agents.vlm.update import as_batch

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
    actor.push()
    found = iter(torch.where(stored(records) == 0.0, scored, stored(records)).tolist())
    whole = []
    for one in records:
        turns = (replace(turn, log_probs=tuple(next(found) for _ in turn.output)) for turn in one.turns)
        whole.append(replace(one, turns=tuple(turns)))
    return actor, whole


def batch_of(
    actor: ChatActor, records: Sequence[Record], reference: Scorer | None = None
) -> TensorDictBase:
    """Rollouts with advantages."""
    batch = as_batch(records, actor, reference)
    batch["advantage"] = ADVANTAGES[: len(records)].reshape(-1, 1, 1)
    return batch


def now_and_then(actor: ChatActor, records: Sequence[Record]) -> list[tuple[Tensor, Tensor]]:
    """Of each record the log-probabilities under the present weights and when it was sampled."""
    with torch.no_grad():
        now = Scorer(actor.model, 0.8, share=False)(records).log_probs
    counts = [record.sampled_tokens for record in records]
    return list(zip(now.split(counts), stored(records).split(counts), strict=True))


@pytest.mark.parametrize("aggregation", ["prompt_mean", "token_mean"])
def test_the_objective_is_the_clipped_one(played: tuple[ChatActor, list[Record]], aggregation: str) -> None:
    """By hand, token by token; the clip fraction and the divergence are means over sampled tokens."""
    actor, records = played
    loss = ChatGRPOLoss(actor, clip_epsilon=(0.1, 0.2), entropy_bonus=False, aggregation=aggregation)
    with torch.no_grad():
        losses = loss(batch_of(actor, records))
    gains, clipped, moved = [], [], []
    for advantage, (now, then) in zip(ADVANTAGES, now_and_then(actor, records), strict=True):
        ratio = (now - then).exp()
        gains.append(torch.minimum(ratio * advantage, ratio.clamp(0.9, 1.2) * advantage))
        clipped.append((ratio < 0.9) | (ratio > 1.2))
        moved.append(then - now)
    expected = torch.stack([gain.mean() for gain in gains]).mean()
    if aggregation == "token_mean":
        expected = torch.cat(gains).mean()
    torch.testing.assert_close(losses.loss_objective.squeeze(), -expected, atol=1e-4, rtol=0.0)
    share = torch.cat(clipped).float().mean()
    assert 0.0 < share < 1.0
    assert float(losses.clip_fraction) == pytest.approx(float(share), abs=1e-3)
    assert float(losses.kl_approx) == pytest.approx(float(torch.cat(moved).mean()), abs=1e-4)


def test_the_divergence_from_a_reference_is_a_mean_over_rollouts_of_means_over_tokens(
    played: tuple[ChatActor, list[Record]],
) -> None:
    """``exp(d) - d - 1`` of ``d = reference - now``, at most 10 a token; the loss is that, weighted."""
    actor, records = played
    batch = batch_of(actor, records)
    generator = torch.Generator().manual_seed(0)
    references = []
    for row, (now, _) in zip(batch.unbind(0), now_and_then(actor, records), strict=True):
        reference = now + torch.randn(len(now), generator=generator)
        reference[0] = now[0] + 5.0  # whose estimate, 142, is bounded
        references.append(reference)
        mask = row["masks", "all_assistant_mask"]
        row["next", "ref_log_probs", "full"] = torch.zeros(len(mask)).masked_scatter(mask, reference)
    loss = ChatGRPOLoss(actor, entropy_bonus=False, aggregation="prompt_mean", kl_to_ref_coeff=0.25)
    with torch.no_grad():
        losses = loss(batch)
    means = []
    for reference, (now, _) in zip(references, now_and_then(actor, records), strict=True):
        diff = reference - now
        estimate = diff.exp() - diff - 1
        assert estimate[0] > KL_BOUND == 10.0
        means.append(estimate.clamp(max=10.0).mean())
    expected = float(torch.stack(means).mean())
    assert float(losses.kl_to_ref) == pytest.approx(expected, rel=1e-4)
    assert float(losses.loss_kl_to_ref) == pytest.approx(0.25 * expected, rel=1e-4)


def test_the_reference_is_scored_like_the_policy(
    played: tuple[ChatActor, list[Record]], checkpoints: dict[str, Path]
) -> None:
    """Against itself a policy diverges by nothing; against the weights that sampled, by something."""
    actor, records = played
    loss = ChatGRPOLoss(actor, entropy_bonus=False, aggregation="prompt_mean", kl_to_ref_coeff=1.0)
    first = Scorer(load(checkpoints[actor.model.family]), 0.8)
    with torch.no_grad():
        same = loss(batch_of(actor, records, Scorer(actor.model, 0.8)))
        other = loss(batch_of(actor, records, first))
    assert float(same.kl_to_ref) == pytest.approx(0.0, abs=1e-6)
    diffs = [then - now for now, then in now_and_then(actor, records)]
    expected = torch.stack([(d.exp() - d - 1).clamp(max=10.0).mean() for d in diffs]).mean()
    assert float(other.kl_to_ref) == pytest.approx(float(expected), rel=1e-3)


def test_padding_changes_nothing(played: tuple[ChatActor, list[Record]]) -> None:
    """The loss of ragged rows is the mean of the losses of each row alone."""
    actor, records = played
    loss = ChatGRPOLoss(actor, entropy_bonus=True, aggregation="prompt_mean", kl_to_ref_coeff=0.5)
    batch = batch_of(actor, records, Scorer(actor.model, 0.7))
    assert len({len(ids) for ids in batch.get(("tokens", "full"), as_list=True)}) >= 3
    with torch.no_grad():
        whole, alone = loss(batch), [loss(batch[k : k + 1]) for k in range(len(records))]
    for name in ("loss_objective", "loss_kl_to_ref", "loss_entropy"):
        expected = torch.stack([getattr(one, name).squeeze() for one in alone]).mean()
        assert_close(getattr(whole, name).squeeze(), expected)


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
        config = Config(aggregation=aggregation, kl=kl, at_once=at_once)  # type: ignore[arg-type]
        loss = ChatGRPOLoss(
            actor, entropy_bonus=False, aggregation=aggregation, kl_to_ref_coeff=config.kl or None
        )
        batch = batch_of(actor, records, Scorer(actor.model, 0.7) if kl else None)
        norm_free: Any = replace(config, max_grad_norm=1e9)
        values = gradient_step(norm_free, actor, loss, parameters, optimizer, batch)  # type: ignore[arg-type]
        found.append((values, torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])))
        actor.model.zero_grad()
    for values, gradient in found[1:]:
        assert values["loss"] == rounded(found[0][0]["loss"])
        assert values["grad_norm"] == pytest.approx(found[0][0]["grad_norm"], rel=1e-4)
        assert float((gradient - found[0][1]).norm()) < 1e-4 * float(found[0][1].norm())
        if kl:
            assert "kl_to_first" in values


def test_the_critic_is_compared_clipped_as_well() -> None:
    """By hand: of ``(now - target)^2`` and that of the value held near the old one, the larger, halved."""
    critic = nn.Linear(1, 1, bias=False)
    nn.init.ones_(critic.weight)
    loss = ChatPPOLoss.__new__(ChatPPOLoss)
    nn.Module.__init__(loss)
    loss.critic, loss.value_clip = critic, 0.5
    loss._hidden = torch.tensor([[2.0], [0.2]])  # what the critic says now
    value, target = torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0])
    # First: now hits the target, held at 1.5 it misses by 0.5. Second: held at 0.2 both miss by 0.8.
    assert loss.critic_loss(value, target).item() == pytest.approx(0.5 * (0.25 + 0.64) / 2)


def test_the_critic_does_not_shape_the_actor(played: tuple[ChatActor, list[Record]]) -> None:
    """Its error gives gradients to the head, and to no weight of the actor."""
    actor, records = played
    head = nn.Linear(actor.model.model.config.text_config.hidden_size, 1)
    loss = ChatPPOLoss(actor, head, 0.5, entropy_bonus=False)
    loss(batch_of(actor, records, None))
    tokens = sum(record.sampled_tokens for record in records)
    loss.critic_loss(torch.zeros(tokens), torch.ones(tokens)).backward()
    assert head.weight.grad is not None and head.weight.grad.abs().max() > 0
    assert all(weight.grad is None for weight in actor.model.parameters())
