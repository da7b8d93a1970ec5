"""Log-probabilities of sampled tokens for training: shared prefixes once, logits where they are needed.

The rollouts of a group begin with one context. `Scorer` sends every distinct prefix through the model
once; what follows attends to its keys and values, with positions and images of its own. Visuals are
encoded once, however often they are shown. The result is what one plain pass per conversation would
give, gradients included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby, islice

import torch
from torch import Tensor

from ..models.padding import right_padded
from ..models.qwen_vl import Expanded, QwenVL
from ..models.visuals import Visual
from ..training.ranks import MicroBatchPlan, map_across_ranks, plan_micro_batches, rank, split_tasks
from ..training.sharding import unsharded_params
from .prefix_cache import PrefixCache
from .records import Passage, Record, passages

Prefix = tuple[tuple[int, ...], tuple[Visual, ...]]


@dataclass(frozen=True, slots=True)
class Scored:
    """What the model makes of the sampled tokens of some records; all (T,), records and turns in order."""

    log_probs: Tensor  # float32, after temperature and ban
    entropies: Tensor  # float32, nats
    hidden: Tensor  # (T, H): the last hidden state before each token
    counts: tuple[int, ...]  # sampled tokens of each record


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A few records of a gradient step, scored with gradients."""

    place: slice  # of them in the step
    scored: Scored
    active: float  # 1.0, or 0.0 where this rank only takes part in what others do: the loss is times this
    rollout_share: float  # of the step's records, 0.0 where not active
    token_share: float  # of the step's sampled tokens, 0.0 where not active


@dataclass(frozen=True, slots=True)
class _Prefixes:
    """Beginnings that went through the model: by key their row, and what later tokens need of them."""

    rows: dict[Prefix, int]
    mask: Tensor  # (P, L) bool
    after: tuple[int, ...]  # position of the next token
    last: Tensor  # (P, H) hidden state of the last token
    layers: tuple[tuple[Tensor, Tensor], ...]  # keys and values, (P, heads, L, D)


class Scorer:
    """Scores the outputs of records under the current weights.

    Args:
        model: with its tokenizer and store.
        temperature: of sampling.
        share: whether equal prefixes go through the model once; False is the plain way, to compare.
        outputs: whether log-probabilities and entropies are asked for; without, they are 0 throughout, and
            the model needs no output layer.
    """

    def __init__(
        self, model: QwenVL, temperature: float = 1.0, share: bool = True, outputs: bool = True
    ) -> None:
        self.model, self.temperature, self.share, self.outputs = model, temperature, share, outputs
        self._held: tuple[dict[Visual, Tensor], _Prefixes | None] | None = None

    def __call__(self, records: Sequence[Record]) -> Scored:
        """Score all outputs.

        Raises:
            FrameMismatch: ids and visuals of a record contradict each other.
            ValueError: there is no output in the records.
        """
        parts = [(number, part) for number, record in enumerate(records) for part in passages(record)]
        if not parts:
            raise ValueError(f"the {len(records)} records hold no output to score")
        features, prefixes = self._held or self._prepare([part for _, part in parts])
        begins = [_prefix_of(part, self.model) if prefixes else ((), ()) for _, part in parts]
        rows = [prefixes.rows[begin] if prefixes else 0 for begin in begins]
        expanded = [
            self.model.expand(
                part.ids[len(begin[0]) :],
                part.visuals[len(begin[1]) :],
                start=prefixes.after[row] if prefixes else 0,
            )
            for (_, part), begin, row in zip(parts, begins, rows, strict=True)
        ]
        later = [
            visual
            for (_, part), begin in zip(parts, begins, strict=True)
            for visual in part.visuals[len(begin[1]) :]
        ]
        shown = _features_of(later, features)
        hidden = self._behind(expanded, shown, prefixes, rows)
        row, place, ids = [], [], []
        for index, ((number, part), begin) in enumerate(zip(parts, begins, strict=True)):
            for turn, first, length in part.outputs:
                first -= len(begin[0])
                place.append(expanded[index].places[first : first + length])
                row.append(torch.full((length,), index))
                ids.append(torch.tensor(records[number].turns[turn].output))
        chosen = hidden[torch.cat(row).to(hidden.device), torch.cat(place).to(hidden.device)]
        counts = tuple(record.sampled_tokens for record in records)
        if not self.outputs:
            nothing = torch.zeros(len(chosen), device=chosen.device)
            return Scored(nothing, nothing, chosen, counts)
        log_probs, entropies = self.model.log_probs(
            chosen, torch.cat(ids).to(chosen.device), self.temperature
        )
        return Scored(log_probs, entropies, chosen, counts)

    def micro_batches(self, records: Sequence[Record], size: int) -> Iterator[MicroBatch]:
        """Score the records of a gradient step, so many at a time.

        Whoever asks for the next has called backward on a loss of the one before.

        What the records of a task have in common goes through the model once all the same, and one task
        after the other: memory is that of a micro-batch and of what its tasks begin with. The gradients of
        these prefixes are complete when the iteration has ended. Under torchrun each rank does a share of
        the tasks, and gradients are the sums over all.

        Args:
            records: of one gradient step, the same on all ranks.
            size: most records of a micro-batch.
        """
        tokens = sum(record.sampled_tokens for record in records)
        for portion in self._plan(records, size):
            held = records[portion.records]
            several = len(portion.parts) + portion.idle > 1
            with self.holding(held) if several else nullcontext():
                for part in portion.parts:
                    some = records[part]
                    sampled = sum(record.sampled_tokens for record in some)
                    shares_of_step = len(some) / len(records), sampled / tokens
                    yield MicroBatch(part, self(some), 1.0, *shares_of_step)
                stand_in = slice(portion.records.start, portion.records.start + 1)
                for _ in range(portion.idle):
                    yield MicroBatch(stand_in, self(held[:1]), 0.0, 0.0, 0.0)

    def _plan(self, records: Sequence[Record], size: int) -> tuple[MicroBatchPlan, ...]:
        """What this rank does of a gradient step.

        Raises:
            ValueError: some ranks would run the vision tower and some would not, and wait for each other.
        """
        plans = plan_micro_batches([record.task_id for record in records], size)
        for together in zip(*plans, strict=True):
            require_alike(self.model, [records[portion.records] for portion in together])
        return plans[rank()]

    def log_probs(self, records: Sequence[Record], size: int) -> list[Tensor]:
        """(T,) log-probabilities of the sampled tokens of every record; see `of_tokens`."""
        return self.of_tokens(records, size, lambda scored: scored.log_probs)

    @torch.no_grad()
    def of_tokens(
        self, records: Sequence[Record], size: int, of: Callable[[Scored], Tensor]
    ) -> list[Tensor]:
        """(T,) of the sampled tokens of every record, without gradients; ranks divide the groups.

        Args:
            records: as for a call.
            size: records in a micro-batch.
            of: what is asked of a micro-batch, (T,).
        """

        def score(groups: Sequence[list[Record]]) -> list[list[Tensor]]:
            parts = self.in_parts([record for group in groups for record in group], size)
            found = (value for part in parts for value in of(part).cpu().split(part.counts))
            return [[next(found).clone() for _ in group] for group in groups]

        groups = [list(group) for _, group in groupby(records, key=lambda record: record.group)]
        with unsharded_params(self.model):
            return [value for group in map_across_ranks(groups, score) for value in group]

    @torch.no_grad()
    def in_parts(self, records: Sequence[Record], micro_batch_size: int) -> Iterator[Scored]:
        """Score all outputs without gradients, a few records at a time, in order.

        Args:
            records: as for a call.
            micro_batch_size: records in a micro-batch, with the prefixes of their tasks.
        """
        for parts in split_tasks([record.task_id for record in records], micro_batch_size):
            with self.holding(records[parts[0].start : parts[-1].stop]):
                for part in parts:
                    yield self(records[part])

    @contextmanager
    def holding(self, records: Sequence[Record]) -> Iterator[None]:
        """Score these records in several calls, each with a backward pass of its own.

        Beginnings and visuals go through the model once, before, and are differentiated once, at the end:
        in between, their keys, values and features are leaves that gather gradients. Memory is that of all
        the prefixes and of one call.
        """
        features, prefixes = self._prepare([part for record in records for part in passages(record)])
        made: list[Tensor] = []
        leaves: list[Tensor] = []

        def leaf(tensor: Tensor) -> Tensor:
            if not tensor.requires_grad:
                return tensor
            made.append(tensor)
            leaves.append(tensor.detach().requires_grad_())
            return leaves[-1]

        # Beginnings first: their graph is made of the features themselves, not of the leaves.
        if prefixes:
            layers = tuple((leaf(keys), leaf(values)) for keys, values in prefixes.layers)
            prefixes = _Prefixes(prefixes.rows, prefixes.mask, prefixes.after, leaf(prefixes.last), layers)
        self._held = ({visual: leaf(tensor) for visual, tensor in features.items()}, prefixes)
        try:
            yield
        finally:
            self._held = None
        asked = [
            (tensor, leaf.grad) for tensor, leaf in zip(made, leaves, strict=True) if leaf.grad is not None
        ]
        if asked:
            torch.autograd.backward([tensor for tensor, _ in asked], [grad for _, grad in asked])

    def _prepare(self, parts: Sequence[Passage]) -> tuple[dict[Visual, Tensor], _Prefixes | None]:
        features = self.model.encode([visual for part in parts for visual in part.visuals])
        if not self.share:
            return features, None
        begins = list(dict.fromkeys(_prefix_of(part, self.model) for part in parts))
        expanded = [self.model.expand(*begin) for begin in begins]
        cache = PrefixCache(self.model.model.config.text_config)
        shown = _features_of([visual for _, visuals in begins for visual in visuals], features)
        hidden, mask = self._forward(expanded, shown, cache)
        last = hidden[torch.arange(len(begins)), mask.sum(1) - 1]
        layers = tuple((layer.keys, layer.values) for layer in cache.layers)  # type: ignore[union-attr]
        rows = {begin: row for row, begin in enumerate(begins)}
        after = tuple(part.after for part in expanded)
        return features, _Prefixes(rows, mask, after, last, layers)  # type: ignore[arg-type]

    def _behind(
        self,
        expanded: Sequence[Expanded],
        shown: Sequence[Tensor],
        prefixes: _Prefixes | None,
        rows: Sequence[int],
    ) -> Tensor:
        """(R, L + 1, H): at place t the hidden state before token t of what follows the prefix."""
        if prefixes is None:
            hidden, _ = self._forward(expanded, shown, None)
            # Nothing comes before the first token, which is never a sampled one.
            return torch.cat([torch.zeros_like(hidden[:, :1]), hidden], 1)
        index = torch.tensor(rows, device=prefixes.mask.device)
        cache = PrefixCache(self.model.model.config.text_config, prefixes.layers, index)
        hidden, _ = self._forward(expanded, shown, cache, prefixes.mask[index])
        return torch.cat([prefixes.last[index][:, None], hidden], 1)

    def _forward(
        self,
        expanded: Sequence[Expanded],
        shown: Sequence[Tensor],
        cache: PrefixCache | None,
        before: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        device = self.model.device
        ids = right_padded([part.ids for part in expanded], self.model.pad_id).to(device)
        mask = right_padded([torch.ones_like(part.ids, dtype=torch.bool) for part in expanded]).to(device)
        positions = right_padded([part.positions.T for part in expanded]).permute(2, 0, 1).to(device)
        whole = mask if before is None else torch.cat([before, mask], 1)
        return self.model.hidden(ids, positions, whole, shown, cache), mask


def require_alike(model: QwenVL, shares: Sequence[Sequence[Record]]) -> None:
    """Refuse what ranks would do at the same time, if some run the vision tower and some do not.

    Raises:
        ValueError: they would wait for each other.
    """
    seen = {any(turn.visuals for record in share for turn in record.turns) for share in shares}
    if not model.vision_frozen and len(seen) > 1:
        raise ValueError(
            "of the tasks of a gradient step some show frames and some show none at all, which ranks that "
            "train a vision tower cannot divide; set freeze_vision"
        )


def _features_of(visuals: Sequence[Visual], features: Mapping[Visual, Tensor]) -> list[Tensor]:
    """Features for a pass; where it shows none of the visuals, nothing of one, but of its graph.

    FSDP frees the weights of a pass by the gradients of what it was given: ranks that do so at different
    times wait for different layers.
    """
    return [features[visual] for visual in visuals] or [one[:0] for one in islice(features.values(), 1)]


def _prefix_of(part: Passage, model: QwenVL) -> Prefix:
    """What a passage holds before its first output."""
    ids = part.ids[: part.outputs[0][1]]
    return ids, part.visuals[: sum(token == model.vision_ids[0] for token in ids)]
