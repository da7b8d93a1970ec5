"""Contexts read into a cache: what is new of each goes through the model, equal beginnings once.

Which conversation a context belongs to, and what is written behind it, is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..models.padding import left_padded, runs
from ..models.qwen_vl import Expanded, QwenVL
from ..models.static_cache import Layers, ReadingCache, StaticCache
from ..models.visuals import Visual
from .base import Context

READ_AT_ONCE = 2**16  # tokens that are read in a call, padding included


def first(layers: Layers, tokens: int) -> Layers:
    """Keys and values of the first so many tokens."""
    return [(keys[:, :tokens], values[:, :tokens]) for keys, values in layers]


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What was computed of a context that conversations began with; held once for all of them."""

    layers: Layers
    _cuts: dict[int, Prompt] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Tokens, a placeholder per merged patch."""
        return self.layers[0][0].shape[1]

    def first(self, tokens: int) -> Prompt:
        """The beginning of it, the same for all that ask."""
        if tokens == self.length:
            return self
        return self._cuts.setdefault(tokens, Prompt(first(self.layers, tokens)))


@dataclass(frozen=True, slots=True)
class Known:
    """What was computed before of a context, which has at least one id more; by default nothing."""

    ids: int = 0  # collapsed
    visuals: int = 0
    after: int = 0  # position of the next token
    prompt: Prompt | None = None
    own: Layers = field(default_factory=list)  # behind the prompt

    @property
    def own_length(self) -> int:
        """Tokens behind the prompt."""
        return self.own[0][0].shape[1] if self.own else 0


@dataclass(frozen=True, slots=True)
class Read:
    """Contexts that were read."""

    cache: StaticCache  # a row each
    last: Tensor  # (B, H) hidden states of their last tokens
    after: Tensor  # (B,) int64, positions of the tokens to come
    prompts: list[Prompt]  # of every row


@dataclass(frozen=True, slots=True)
class _New:
    """What is to be read of a context."""

    part: Expanded
    visuals: tuple[Visual, ...]


def read(model: QwenVL, contexts: Sequence[Context], known: Sequence[Known], room: int) -> Read:
    """Read what is new in some contexts.

    Args:
        model: reads.
        contexts: at least one.
        known: of each.
        room: most tokens that will be written behind one.

    Raises:
        FrameMismatch: ids and visuals of a context contradict each other.
        videogym.video.VideoError: frames could not be shown.
    """
    # Contexts of which nothing is known, and which are equal, are one prompt.
    names: list[Hashable] = [
        one.prompt or (context.ids, context.visuals) for context, one in zip(contexts, known, strict=True)
    ]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    prompt_of = [numbers[name] for name in names]
    held = {numbers[one.prompt]: one.prompt for one in known if one.prompt}
    fresh: dict[int, _New] = {}  # by number of the prompt
    behind: dict[int, _New] = {}  # by row
    for row, (context, one) in enumerate(zip(contexts, known, strict=True)):
        if one.prompt:
            behind[row] = _new(model, context, one)
        elif prompt_of[row] not in fresh:
            fresh[prompt_of[row]] = _new(model, context, one)
    cache = StaticCache(
        [held[n].length if n in held else len(fresh[n].part.ids) for n in range(len(numbers))],
        prompt_of,
        [one.own_length for one in known],
        [len(behind[row].part.ids) if row in behind else 0 for row in range(len(contexts))],
        room,
        model.device,
    )
    for number, prompt in held.items():
        cache.put_prompt(number, prompt.layers)
    for row, one in enumerate(known):
        cache.put_row(row, one.own)
    features = model.encode([v for new in (*fresh.values(), *behind.values()) for v in new.visuals])
    of_prompts = _last_hidden(model, fresh, features, cache.reading_prompts)
    of_rows = _last_hidden(model, behind, features, cache.reading)
    rows = list(enumerate(prompt_of))
    prompts = {number: held.get(number) or Prompt(cache.prompt(number)) for number in set(prompt_of)}
    return Read(
        cache,
        torch.stack([of_rows[row] if row in behind else of_prompts[number] for row, number in rows]),
        cache.indices([(behind.get(row) or fresh[number]).part.after for row, number in rows]),
        [prompts[number] for number in prompt_of],
    )


def _new(model: QwenVL, context: Context, known: Known) -> _New:
    visuals = context.visuals[known.visuals :]
    return _New(model.expand(context.ids[known.ids :], visuals, start=known.after), visuals)


def _last_hidden(
    model: QwenVL,
    new: Mapping[int, _New],
    features: Mapping[Visual, Tensor],
    reading: Callable[[Sequence[int], int], ReadingCache],
) -> dict[int, Tensor]:
    """Read the new parts of rows or prompts; long ones one after the other.

    Returns:
        (H,) of the last token of each.
    """
    lengths = [len(one.part.ids) for one in new.values()]
    last: dict[int, Tensor] = {}
    for piece in runs(lengths, READ_AT_ONCE):
        places, parts = list(new)[piece], [one.part for one in new.values()][piece]
        cache = reading(places, max(lengths[piece]))
        ids = left_padded([part.ids for part in parts], model.pad_id).to(model.device)
        positions = left_padded([part.positions.T for part in parts]).permute(2, 0, 1).to(model.device)
        shown = [features[visual] for place in places for visual in new[place].visuals]
        hidden = model.hidden(ids, positions, cache.mask, shown, cache)
        last |= dict(zip(places, hidden[:, -1], strict=True))
    return last
