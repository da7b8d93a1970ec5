"""Keys and values of a batch of conversations while outputs are written behind them.

Buffers have their final size from the start: no step copies what is there. What conversations begin with
together, their prompt, is held once, and one product a step compares it with the queries of all of them.
Keys lie transposed, which makes such products two to three times as fast on a CPU. From `open_block` to
the next one no shape changes and nothing is asked of a GPU, as CUDA graphs would have it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

Layers = list[tuple[Tensor, Tensor]]  # keys and values by layer, (heads, L, D) each


@dataclass(frozen=True, slots=True)
class _Buffers:
    """Of one layer: of N prompts, and of N x M slots of rows."""

    prompt_keys: Tensor  # (N, heads, D, P)
    prompt_values: Tensor  # (N, heads, P, D)
    own_keys: Tensor  # (N, heads, M, D, S)
    own_values: Tensor  # (N, heads, M, S, D)


@dataclass(frozen=True, slots=True)
class _Views:
    """Of one layer, in a block of steps: all batches of a product in one dimension."""

    prompt_keys: Tensor  # (N * heads, D, P)
    prompt_values: Tensor  # (N * heads, P, D)
    own_keys: Tensor  # (N * heads * M, D, n), of the columns that are open in the block
    own_values: Tensor  # (N * heads * M, n, D)


@dataclass(frozen=True, slots=True)
class _Workspace:
    """What a step computes, the same for all layers and steps of a block."""

    bias: Tensor  # (N, 1, M, 1, P + n): 0 where there is a token, else minus infinity
    column: Tensor  # (1,) int64, that is written
    of_prompts: Tensor  # (N * heads, M * group, P)
    of_own: Tensor  # (N * heads * M, group, n)
    beside: Tensor  # the same as (N * heads, M * group, n)
    scores: Tensor  # (N * heads, M * group, P + n)
    by_slot: Tensor  # the same as (N, heads, M, group, P + n)
    weights: Tensor  # like scores, float32
    layers: list[_Views]


class StaticCache:
    """Of N prompts and of rows, each behind one of them.

    A row's own columns are what was known of it, what is read now, and then what is written; the first two
    are padded on the left, as prompts are. Every prompt has M slots for rows, of which some are idle; where
    prompts have so different numbers of rows that most slots would be, some are held several times.

    Args:
        prompts: tokens of each prompt, at least one.
        prompt_of: the prompt of every row; each has one.
        known: tokens of every row behind its prompt that were computed before.
        new: tokens of every row that are to be read behind them.
        room: most tokens that are written behind a row.
        device: of the model.
    """

    def __init__(
        self,
        prompts: Sequence[int],
        prompt_of: Sequence[int],
        known: Sequence[int],
        new: Sequence[int],
        room: int,
        device: torch.device,
    ) -> None:
        self._device, self._known = device, max(known)
        self.filled = self._known + max(new)  # columns that are in use
        self._layers: list[_Buffers] = []
        counts, taken = Counter(prompt_of), Counter[int]()
        slots = _slots([counts[number] for number in range(len(prompts))])
        self._held: list[range] = []  # places of every prompt
        for number in range(len(prompts)):
            first = self._held[-1].stop if self._held else 0
            self._held.append(range(first, first - (-counts[number] // slots)))
        places = []
        for number in prompt_of:
            places.append(self._held[number][taken[number] // slots])
            taken[number] += 1
        self._arrange(self._held[-1].stop, places)
        lengths = [length for length, held in zip(prompts, self._held, strict=True) for _ in held]
        self.prompt_mask = _ends(lengths, max(lengths)).to(device)  # (N, P) bool, true on tokens
        of_rows = torch.cat([_ends(known, max(known)), _ends(new, max(new))], 1).to(device)
        self.own_mask = torch.zeros(*self._shape, self.filled + room, dtype=torch.bool, device=device)
        self.own_mask[self._prompts, self._slots, : self.filled] = of_rows  # (N, M, S)

    def _arrange(self, prompts: int, prompt_of: Sequence[int]) -> None:
        """Give every prompt as many slots as the most rows that one has."""
        taken = Counter[int]()
        self._places: list[tuple[int, int]] = []  # prompt and slot of every row
        for prompt in prompt_of:
            self._places.append((prompt, taken[prompt]))
            taken[prompt] += 1
        self._shape = prompts, max(taken.values())
        self._prompts, self._slots = (self.indices(some) for some in zip(*self._places, strict=True))
        every = self._every_place()
        self._row_of_slot = self._slot_of_row = None  # where they are not in order
        if self._places != every:
            rows = {place: row for row, place in enumerate(self._places)}
            # Idle slots compute what the first row does.
            self._row_of_slot = self.indices([rows.get(place, 0) for place in every])
            self._slot_of_row = self.indices(
                [prompt * self._shape[1] + slot for prompt, slot in self._places]
            )

    def _every_place(self) -> list[tuple[int, int]]:
        return list(product(range(self._shape[0]), range(self._shape[1])))

    def indices(self, places: Sequence[int]) -> Tensor:
        """Places in a batch, on its device."""
        return torch.tensor(list(places), dtype=torch.int64, device=self._device)

    # --- reading -----------------------------------------------------------------------------

    def reading_prompts(self, numbers: Sequence[int], length: int) -> ReadingCache:
        """For a pass that reads whole prompts, left-padded to a length."""
        end = self.prompt_mask.shape[1]
        first = self.indices([self._held[number][0] for number in numbers])
        cache = ReadingCache(self, first, None, slice(end - length, end))
        cache.copies = [
            (place, self._held[number][0]) for number in numbers for place in self._held[number][1:]
        ]
        return cache

    def reading(self, rows: Sequence[int], length: int) -> ReadingCache:
        """For a pass that reads what is new in some rows, left-padded to a length."""
        index, columns = self.indices(rows), slice(self.filled - length, self.filled)
        return ReadingCache(self, self._prompts[index], self._slots[index], columns)

    def writing(self) -> ReadingCache:
        """For a pass that reads the next written token of all rows."""
        self.own_mask[..., self.filled] = True
        return ReadingCache(self, self._prompts, self._slots, slice(self.filled, self.filled + 1))

    def layer(self, number: int, keys: Tensor, values: Tensor) -> _Buffers:
        """Buffers of a layer, made when its first keys and values (.., heads, L, D) are there."""
        if number == len(self._layers):
            (prompts, slots, columns), length = self.own_mask.shape, self.prompt_mask.shape[1]
            heads, width, of_values = keys.shape[-3], keys.shape[-1], values.shape[-1]
            # Zeros: padding is masked, but what is not a number stays none times 0.
            self._layers.append(
                _Buffers(
                    keys.new_zeros(prompts, heads, width, length),
                    values.new_zeros(prompts, heads, length, of_values),
                    keys.new_zeros(prompts, heads, slots, width, columns),
                    values.new_zeros(prompts, heads, slots, columns, of_values),
                )
            )
        return self._layers[number]

    def put_prompt(self, number: int, layers: Layers) -> None:
        """Fill in a prompt that was computed before."""
        for index, (keys, values) in enumerate(layers):
            buffers, length = self.layer(index, keys, values), keys.shape[1]
            for place in self._held[number]:
                buffers.prompt_keys[place, :, :, -length:] = keys.mT
                buffers.prompt_values[place, :, -length:] = values

    def put_row(self, row: int, layers: Layers) -> None:
        """Fill in what was computed before of a row, behind its prompt."""
        prompt, slot = self._places[row]
        for index, (keys, values) in enumerate(layers):
            buffers, first = self.layer(index, keys, values), self._known - keys.shape[1]
            buffers.own_keys[prompt, :, slot, :, first : self._known] = keys.mT
            buffers.own_values[prompt, :, slot, first : self._known] = values

    def prompt(self, number: int) -> Layers:
        """A copy of a prompt's keys and values, without padding."""
        place = self._held[number][0]
        length = int(self.prompt_mask[place].sum())
        return [
            (
                layer.prompt_keys[place, :, :, -length:].mT.contiguous(),
                layer.prompt_values[place, :, -length:].clone(),
            )
            for layer in self._layers
        ]

    def row(self, row: int, columns: int, written: int) -> Layers:
        """A copy of a row's own keys and values, without padding.

        Args:
            row: of the batch.
            columns: that were in use when writing began.
            written: tokens that were read since.
        """
        prompt, slot = self._places[row]
        mask = self.own_mask[prompt, slot, : columns + written]
        (places,) = mask.nonzero(as_tuple=True)
        return [
            (
                layer.own_keys[prompt, :, slot].index_select(2, places).mT.contiguous(),
                layer.own_values[prompt, :, slot].index_select(1, places),
            )
            for layer in self._layers
        ]

    # --- writing -----------------------------------------------------------------------------

    def open_block(self, steps: int, queries: int) -> None:
        """Prepare so many steps of a model with so many query heads."""
        end, (prompts, length), slots = self.filled + steps, self.prompt_mask.shape, self._shape[1]
        both = torch.cat([self.prompt_mask[:, None].expand(-1, slots, -1), self.own_mask[..., :end]], 2)
        like = self._layers[0].own_keys
        closed = like.new_zeros(both.shape).masked_fill_(~both, -torch.inf)
        heads = like.shape[1]
        batch, rows = prompts * heads, slots * queries // heads
        views = [
            _Views(
                layer.prompt_keys.flatten(0, 1),
                layer.prompt_values.flatten(0, 1),
                layer.own_keys[..., :end].flatten(0, 2),
                layer.own_values[..., :end, :].flatten(0, 2),
            )
            for layer in self._layers
        ]
        of_own = like.new_empty(batch * slots, queries // heads, end)
        scores = like.new_empty(batch, rows, length + end)
        self._work = _Workspace(
            closed[:, None, :, None],
            self.indices([self.filled]),
            like.new_empty(batch, rows, length),
            of_own,
            of_own.view(batch, rows, end),
            scores,
            scores.view(prompts, heads, slots, queries // heads, -1),
            torch.empty_like(scores, dtype=torch.float32),
            views,
        )

    def open_column(self) -> None:
        """Make room for the next token of all rows."""
        self._work.bias.index_fill_(-1, self._work.column + self.prompt_mask.shape[1], 0.0)

    def close_column(self) -> None:
        """The tokens of all rows have gone through all layers."""
        self._work.column.add_(1)
        self.own_mask[..., self.filled] = True
        self.filled += 1

    def attend(self, layer: int, queries_keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """Attention of one new token a row, which is added to the open column.

        Args:
            layer: number.
            queries_keys: (B, query heads + heads, D), of as many or more query heads, which come first.
            values: (B, heads, D).
            scaling: of the products.

        Returns:
            (B, query heads * D).
        """
        buffers, work, length = self._layers[layer], self._work, self.prompt_mask.shape[1]
        views, heads = work.layers[layer], values.shape[1]
        if self._row_of_slot is not None:
            queries_keys = queries_keys.index_select(0, self._row_of_slot)
            values = values.index_select(0, self._row_of_slot)
        parts = queries_keys.unflatten(0, self._shape)  # (N, M, heads, D)
        values = values.unflatten(0, self._shape).transpose(1, 2)
        buffers.own_keys.index_copy_(4, work.column, parts[:, :, -heads:].transpose(1, 2)[..., None])
        buffers.own_values.index_copy_(3, work.column, values[..., None, :])
        queries = parts[:, :, :-heads].unflatten(2, (heads, -1)).transpose(1, 2)  # (N, heads, M, group, D)
        prompts, _, slots, group, width = queries.shape
        queries = queries.contiguous()
        torch.bmm(queries.view(-1, slots * group, width), views.prompt_keys, out=work.of_prompts)
        torch.bmm(queries.view(-1, group, width), views.own_keys, out=work.of_own)
        torch.cat([work.of_prompts, work.beside], -1, out=work.scores)
        torch.add(work.bias, work.by_slot, alpha=scaling, out=work.by_slot)
        weights = torch.softmax(work.scores, -1, torch.float32, out=work.weights).to(queries.dtype)
        seen = torch.bmm(weights[..., :length], views.prompt_values).view(-1, group, width)
        seen.baddbmm_(weights[..., length:].view(len(seen), group, -1), views.own_values)
        rows = seen.view(prompts, heads, slots, -1).transpose(1, 2).reshape(prompts * slots, -1)
        return rows if self._slot_of_row is None else rows.index_select(0, self._slot_of_row)

    def drop(self, keep: Sequence[int]) -> None:
        """Let other rows leave the batch, and prompts that no row is behind any more.

        Args:
            keep: rows, in the order that they have from now on.
        """
        before, (_, slots) = [self._places[row] for row in keep], self._shape
        prompts = sorted({prompt for prompt, _ in before})
        self._arrange(len(prompts), [prompts.index(prompt) for prompt, _ in before])
        source = dict(zip(self._places, before, strict=True))
        old = [source.get(place, before[0]) for place in self._every_place()]
        of_prompts, of_slots = (self.indices(some) for some in zip(*old, strict=True))
        self.own_mask = self.own_mask[of_prompts, of_slots].unflatten(0, self._shape)
        index = self.indices(prompts)
        self.prompt_mask = self.prompt_mask[index]
        for number, layer in enumerate(self._layers):
            heads = self.indices(range(layer.own_keys.shape[1]))[:, None]
            # Of slots with all their heads: prompts, heads and slots are one dimension.
            flat = ((of_prompts.view(self._shape)[:, None] * len(heads) + heads) * slots).add(
                of_slots.view(self._shape)[:, None]
            )
            self._layers[number] = _Buffers(
                layer.prompt_keys if len(index) == len(layer.prompt_keys) else layer.prompt_keys[index],
                layer.prompt_values if len(index) == len(layer.prompt_keys) else layer.prompt_values[index],
                layer.own_keys.flatten(0, 2).index_select(0, flat.flatten()).unflatten(0, flat.shape),
                layer.own_values.flatten(0, 2).index_select(0, flat.flatten()).unflatten(0, flat.shape),
            )


class ReadingCache(DynamicCache):
    """A `StaticCache` as transformers' layers know caches, for one pass.

    Args:
        cache: whose buffers are filled.
        prompts: (R,) of the rows.
        slots: (R,) of the rows; None: prompts are read, before which there is nothing.
        columns: where the pass writes.

    Attributes:
        mask: (R, L) bool, true on the tokens that are there before, and on those of the pass at the end.
        copies: prompts that are to be what others are when these have been read.
    """

    def __init__(self, cache: StaticCache, prompts: Tensor, slots: Tensor | None, columns: slice) -> None:
        super().__init__()
        self._cache, self._prompts, self._slots, self._columns = cache, prompts, slots, columns
        self.copies: list[tuple[int, int]] = []
        of_prompts = cache.prompt_mask[prompts]
        if slots is None:
            self.mask = of_prompts[:, columns]
        else:
            self.mask = torch.cat([of_prompts, cache.own_mask[prompts, slots, : columns.stop]], 1)
        self._padding = ~self.mask[:, None, columns.start - columns.stop :, None]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns before those of this pass."""
        return self.mask.shape[1] - (self._columns.stop - self._columns.start)

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Columns with those of this pass, of which none is left out."""
        return self.get_seq_length() + query_length, 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values that a layer attends to, those of its own pass last."""
        # A position that sees nothing may have become no number, and is never to be read as one.
        keys, values = (states.masked_fill(self._padding, 0.0) for states in (key_states, value_states))
        buffers = self._cache.layer(layer_idx, keys, values)
        prompts, slots, columns, end = self._prompts, self._slots, self._columns, self._columns.stop
        if slots is None:
            buffers.prompt_keys[prompts, :, :, columns] = keys.mT
            buffers.prompt_values[prompts, :, columns] = values
            for copy, read in self.copies:
                buffers.prompt_keys[copy] = buffers.prompt_keys[read]
                buffers.prompt_values[copy] = buffers.prompt_values[read]
            return keys, values
        buffers.own_keys[prompts, :, slots, :, columns] = keys.mT
        buffers.own_values[prompts, :, slots, columns] = values
        own_keys, own_values = buffers.own_keys[..., :end], buffers.own_values[..., :end, :]
        return (
            torch.cat([buffers.prompt_keys[prompts], own_keys[prompts, :, slots]], -1).mT,
            torch.cat([buffers.prompt_values[prompts], own_values[prompts, :, slots]], -2),
        )


def _slots(rows: Sequence[int]) -> int:
    """Most slots a prompt by which at most half of all are idle, of prompts with so many rows each."""
    fitting = (
        slots
        for slots in range(max(rows), 0, -1)
        if sum(-(-count // slots) for count in rows) * slots <= 2 * sum(rows)
    )
    return next(fitting)


def _ends(lengths: Sequence[int], width: int) -> Tensor:
    """(B, width) bool, true on the last so many places of every row."""
    return torch.arange(width) >= width - torch.tensor(lengths)[:, None]
