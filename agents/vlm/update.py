"""Gradients of a loss over rollouts, a few records at a time, and the step that they make."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import groupby

import torch
from tensordict import NonTensorData, TensorDict, TensorDictBase, lazy_stack
from torch import Tensor, nn

from videogym.rewards import finite

from ..training.ranks import (
    Portion,
    divided,
    everyones,
    rank,
    shares,
)
from ..training.run import RunDiverged, Span, untimed
from ..training.sharding import assembled, whole
from .actor import ChatActor, loss_entries
from .records import Record
from .scoring import Scorer


def as_batch(
    records: Sequence[Record], actor: ChatActor, reference: Scorer | None, at_once: int = 16
) -> TensorDictBase:
    """Rollouts as TorchRL's advantages and losses read them, one row each; ragged.

    Args:
        records: whole rollouts.
        actor: whose they are.
        reference: scores them too; None: nobody does.
        at_once: records it has in memory together.
    """
    rows = []
    for record in records:
        paid = finite(record.total_reward, f"the reward of task {record.task_id!r}")
        entries = loss_entries(record, actor.model)
        row = TensorDict(
            {
                "record": NonTensorData(record),
                "query": NonTensorData(record.group),
                "next": {
                    # In float32 the mean of equal rewards differs from them, and the noise is trained on.
                    "episode_reward": torch.tensor([paid], dtype=torch.float64),
                    "done": torch.tensor([True]),
                },
            }
        )
        rows.append(row.update({key: value for key, value in entries.items()}))
    batch = lazy_stack(rows)
    if reference is not None:
        for row, log_probs in zip(rows, _scores(reference, records, at_once), strict=True):
            mask = row["masks", "all_assistant_mask"]
            row["next", "ref_log_probs", "full"] = torch.zeros(len(mask)).masked_scatter(mask, log_probs)
    return batch


def _scores(scorer: Scorer, records: Sequence[Record], at_once: int) -> list[Tensor]:
    """Log-probabilities of every record's sampled tokens; ranks divide the groups."""

    def score(groups: Sequence[list[Record]]) -> list[list[Tensor]]:
        parts = scorer.in_parts([record for group in groups for record in group], at_once)
        found = (log_probs for part in parts for log_probs in part.log_probs.cpu().split(part.counts))
        return [[next(found).clone() for _ in group] for group in groups]

    groups = [list(group) for _, group in groupby(records, key=lambda record: record.group)]
    with whole(scorer.model):
        return [log_probs for group in divided(groups, score) for log_probs in group]


def backward(
    actor: ChatActor,
    records: Sequence[Record],
    at_once: int,
    loss_of: Callable[[slice], Tensor],
    span: Span = untimed,
) -> float:
    """Gradients of a loss that is a sum over records, a few records at a time.

    What the records of a task have in common goes through the model once all the same, and one task after
    the other: memory is that of a part and of what its tasks begin with. Under torchrun each rank does a
    share of the tasks, and the gradients and the loss are the sums over all.

    Args:
        actor: whose weights get gradients, added to those there are.
        records: of one gradient step, the same on all ranks.
        at_once: records in memory together.
        loss_of: the part of the loss that a slice of the records makes.
        span: times ``forward`` and ``backward``.

    Returns:
        The loss.
    """
    total = 0.0
    for portion in _share(actor, records, at_once):
        stand_in = records[portion.records][:1]
        with ExitStack() as held:
            if len(portion.parts) + portion.idle > 1:
                with span("forward"):
                    held.enter_context(actor.scorer.holding(records[portion.records]))
            for part in [*portion.parts, *[None] * portion.idle]:
                with span("forward"):
                    loss = loss_of(part) if part else 0.0 * actor.scorer(stand_in).log_probs.sum()
                with span("backward"):
                    loss.backward()
                total += loss.item()
            with span("backward"):
                held.close()  # what the parts have in common
    return sum(everyones(total))


def _share(actor: ChatActor, records: Sequence[Record], at_once: int) -> tuple[Portion, ...]:
    """What this rank does of a gradient step.

    Raises:
        ValueError: some ranks would run the vision tower and some would not, and wait for each other.
    """
    all_shares = shares([record.task_id for record in records], at_once)
    for together in zip(*all_shares, strict=True):
        seen = [
            any(turn.visuals for record in records[portion.records] for turn in record.turns)
            for portion in together
        ]
        if not actor.model.vision_frozen and len(set(seen)) > 1:
            raise ValueError(
                "of the tasks of a gradient step some show frames and some show none at all, which ranks "
                "that train a vision tower cannot divide; set freeze_vision"
            )
    return all_shares[rank()]


def step(
    parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, loss: float, most: float
) -> float:
    """Step with the gradients that are there, scaled down to a norm; returns the norm before.

    Raises:
        RunDiverged: the loss or a gradient is not finite; weights are as before.
    """
    norm = float(assembled(torch.nn.utils.clip_grad_norm_(parameters, most)))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise RunDiverged(f"the loss is {loss} and its gradient's norm {norm}")
    optimizer.step()
    optimizer.zero_grad()
    return norm
