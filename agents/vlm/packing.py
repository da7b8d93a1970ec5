"""Whole conversations one behind the other in one row, without padding, none of which attends to another.

A gradient step is divided by tokens, not by records: memory is that of a pack however long its
conversations are, and nothing is computed for padding. What they begin with in common is computed as often
as it stands there. Log-probabilities and gradients are those of `agents.vlm.scoring.Scorer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import torch

from ..models.qwen_vl import QwenVL
from ..training.ranks import rank, size
from .records import Record, passages
from .scoring import MicroBatch, Scored, Scorer, require_alike


def in_packs(model: QwenVL, records: Sequence[Record], tokens: int) -> list[list[Record]]:
    """Records in packs of so many tokens at most, a longer one by itself.

    The longest first, each into the first pack that has room for it.

    Args:
        model: says how long they are.
        records: whole conversations.
        tokens: of a pack, with a placeholder per merged patch.
    """
    lengths = [sum(model.length(part.ids, part.visuals) for part in passages(record)) for record in records]
    packs: list[list[Record]] = []
    room: list[int] = []
    for place in sorted(range(len(records)), key=lambda place: -lengths[place]):
        fitting = next((n for n, left in enumerate(room) if left >= lengths[place]), len(packs))
        if fitting == len(packs):
            packs.append([])
            room.append(tokens)
        packs[fitting].append(records[place])
        room[fitting] -= lengths[place]
    return packs


def packed(scorer: Scorer, packs: Sequence[Sequence[Record]]) -> Iterator[MicroBatch]:
    """Score the records of a gradient step, a pack at a time; see `Scorer.micro_batches`.

    Under torchrun each rank does a share of the packs.

    Args:
        scorer: whose model and temperature.
        packs: of one gradient step, the same on all ranks; places are those of all records in a row.

    Raises:
        FrameMismatch: ids and visuals of a record contradict each other.
        ValueError: some ranks would run the vision tower and some would not, and wait for each other.
    """
    records = [record for pack in packs for record in pack]
    tokens = sum(record.sampled_tokens for record in records)
    places = [slice(*ends) for ends in pairwise(accumulate(map(len, packs), initial=0))]
    shares = [places[number :: size()] for number in range(size())]
    for number in range(len(shares[0])):
        # Where a rank has no pack left, the last one, which is a short one, stands in.
        together = [share[number] if number < len(share) else places[-1] for share in shares]
        require_alike(scorer.model, [records[place] for place in together])
        place, active = together[rank()], number < len(shares[rank()])
        some = records[place]
        sampled = sum(record.sampled_tokens for record in some)
        of_step = (len(some) / len(records), sampled / tokens) if active else (0.0, 0.0)
        yield MicroBatch(place, _scored(scorer, some), float(active), *of_step)


def _scored(scorer: Scorer, records: Sequence[Record]) -> Scored:
    """All outputs of a pack."""
    model = scorer.model
    parts = [(number, part) for number, record in enumerate(records) for part in passages(record)]
    visuals = [visual for _, part in parts for visual in part.visuals]
    features = model.encode(visuals)
    expanded = [model.expand(part.ids, part.visuals) for _, part in parts]
    starts = accumulate((len(one.ids) for one in expanded), initial=0)
    place, ids = [], []
    for (number, part), one, start in zip(parts, expanded, starts, strict=False):
        for turn, first, length in part.outputs:
            place.append(start + one.places[first : first + length] - 1)  # what stands before each token
            ids.append(torch.tensor(records[number].turns[turn].output))
    # By its place in its conversation transformers tells where another one begins; M-RoPE's do not grow
    # by one from token to token.
    within = torch.cat([torch.arange(len(one.ids)) for one in expanded])
    positions = torch.cat([within[None], torch.cat([one.positions for one in expanded], 1)])
    row, device = torch.cat([one.ids for one in expanded]), model.device
    shown = [features[visual] for visual in visuals]
    hidden = model.hidden(row[None].to(device), positions[:, None].to(device), None, shown)
    chosen = hidden[0, torch.cat(place).to(device)]
    log_probs, entropies = model.log_probs(chosen, torch.cat(ids).to(device), scorer.temperature)
    return Scored(log_probs, entropies, chosen, tuple(record.sampled_tokens for record in records))
