"""Rollouts by the very model that is trained, through transformers.

Between the turns of a conversation its keys and values stay, so that a turn computes its new tokens only;
equal contexts, as at the start of a group, are computed once; a frame is encoded once. Positions are
passed by hand: the state that Qwen's own ``generate`` keeps on the module is never used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ..models.padding import left_padded, runs
from ..models.qwen_vl import Expanded, QwenVL
from ..models.visuals import Visual
from .base import Context, EngineError, Output, Sampling

Layers = list[tuple[Tensor, Tensor]]  # keys and values by layer
READ_AT_ONCE = 2**16  # tokens that are read in a call, padding included


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was computed of a conversation."""

    ids: tuple[int, ...]  # collapsed
    visuals: tuple[Visual, ...]
    layers: Layers  # (heads, L, D) each, L expanded ids


class TransformersEngine:
    """Samples with a model in this process.

    Args:
        model: that is trained; its weights are used as they are.
        conversations: of which keys and values are kept, the latest.
    """

    def __init__(self, model: QwenVL, conversations: int = 256) -> None:
        self.model, self.version = model, 0
        self._conversations, self._kept = conversations, dict[str, _Kept]()
        self._weights = model.changes()

    def update_weights(self, model: nn.Module, version: int) -> None:
        """Take the weights as they are now for a new version.

        Raises:
            EngineError: it is not the model of this engine.
        """
        if model is not self.model.model:
            raise EngineError("a TransformersEngine samples with its own model; there is nothing to push")
        self._kept.clear()
        self.version, self._weights = version, self.model.changes()

    def reset_cache(self) -> None:
        """Give back the keys and values of all conversations."""
        self._kept.clear()

    def close(self) -> None:
        """Forget all conversations."""
        self.reset_cache()

    @torch.no_grad()
    def generate(self, contexts: Sequence[Context], sampling: Sampling) -> list[Output]:
        """One output per context, in order.

        Raises:
            EngineError: weights were changed and not pushed, or a context leaves no room for an output.
            FrameMismatch: ids and visuals of a context contradict each other.
            videogym.video.VideoError: frames could not be shown.
        """
        if self.model.changes() != self._weights:
            raise EngineError(
                "the weights have changed since they were pushed; call push with a new version"
            )
        if not contexts:
            return []
        limits = [self._room(context, sampling) for context in contexts]
        last, cache, mask, after = self._read(contexts)
        ids, log_probs = self._sample(contexts, last, cache, mask, after, limits, sampling)
        return [
            Output(tuple(i), tuple(p), (self.version,) * len(i))
            for i, p in zip(ids, log_probs, strict=True)
        ]

    def _room(self, context: Context, sampling: Sampling) -> int:
        length = self.model.length(context.ids, context.visuals)
        if length >= sampling.max_context:
            raise EngineError(
                f"the context {context.key!r} has {length} tokens and leaves no room in "
                f"{sampling.max_context}"
            )
        return min(sampling.max_new_tokens, sampling.max_context - length)

    # --- reading -----------------------------------------------------------------------------

    def _read(self, contexts: Sequence[Context]) -> tuple[Tensor, DynamicCache, Tensor, Tensor]:
        """Compute what is new in the contexts.

        Returns:
            Hidden states (B, H) of their last tokens, the cache and its mask (B, L), positions (B,) of the
            tokens to come.
        """
        known = [self._common(context) for context in contexts]
        # Contexts of which nothing is known, and which are equal, are one row.
        names = [
            (context.ids, context.visuals, "" if at == (0, 0) else context.key)
            for context, at in zip(contexts, known, strict=True)
        ]
        first = {name: row for row, name in reversed(list(enumerate(names)))}
        rows = sorted(first.values())
        expanded, kept, shown = [], [], list[list[Visual]]()
        for row in rows:
            context, (ids, visuals) = contexts[row], known[row]
            before = self.model.expand(context.ids[:ids], context.visuals[:visuals])
            expanded.append(
                self.model.expand(context.ids[ids:], context.visuals[visuals:], start=before.after)
            )
            kept.append(self._layers(context.key, len(before.ids)))
            shown.append(list(context.visuals[visuals:]))
        last, cache, mask, after = self._read_rows(expanded, kept, shown)
        source = torch.tensor([rows.index(first[name]) for name in names], device=last.device)
        if len(rows) < len(contexts):
            cache.batch_select_indices(source)
        return last[source], cache, mask[source], after[source]

    def _read_rows(
        self, expanded: Sequence[Expanded], kept: list[Layers], visuals: Sequence[list[Visual]]
    ) -> tuple[Tensor, DynamicCache, Tensor, Tensor]:
        """Read the new part of every row behind what is kept of it; long rows one after the other."""
        features = self.model.encode([visual for some in visuals for visual in some])
        lasts, afters = [], []
        pieces = runs([len(part.ids) for part in expanded], READ_AT_ONCE)
        for piece in pieces:
            cache, past = self._cache(kept[piece])
            shown = [features[visual] for some in visuals[piece] for visual in some]
            hidden, mask, after = self._forward(expanded[piece], shown, cache, past)
            lasts.append(hidden[:, -1])
            afters.append(after)
            if len(pieces) > 1:
                kept[piece] = [_row(cache, mask, row) for row in range(len(after))]
        if len(pieces) > 1:
            del cache  # before all of them are put together
            cache, mask = self._cache(kept)
        return torch.cat(lasts), cache, mask, torch.cat(afters)

    def _common(self, context: Context) -> tuple[int, int]:
        """How many ids and visuals of a context are known; at least one id is left to compute."""
        kept = self._kept.get(context.key)
        if kept is None:
            return 0, 0
        pairs = zip(context.ids[:-1], kept.ids, strict=False)
        ids = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        starts = [place for place in range(ids) if context.ids[place] == self.model.vision_ids[0]]
        visuals = zip(context.visuals, kept.visuals, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], visuals))
        if same < len(starts):  # another frame was shown here: what follows it is not known
            return starts[same], same
        if starts and ids < starts[-1] + 3:
            return starts[-1], len(starts) - 1
        return ids, len(starts)

    def _layers(self, key: str, length: int) -> Layers:
        if not length:
            return []
        return [(keys[:, :length], values[:, :length]) for keys, values in self._kept[key].layers]

    def _cache(self, kept: Sequence[Layers]) -> tuple[DynamicCache, Tensor]:
        """Kept keys and values as one left-padded batch, and its mask (B, P)."""
        cache = DynamicCache(config=self.model.model.config.text_config)
        lengths = [layers[0][0].shape[1] if layers else 0 for layers in kept]
        device = self.model.device
        mask = left_padded([torch.ones(length, dtype=torch.bool) for length in lengths]).to(device)
        example = next((layers for layers in kept if layers), [])
        for number, pair in enumerate(example):
            batch = []
            for which, like in enumerate(pair):
                rows = [layers[number][which] if layers else like[:, :0] for layers in kept]
                batch.append(left_padded([row.transpose(0, 1) for row in rows]).transpose(1, 2))
            cache.update(batch[0], batch[1], number)
        return cache, mask

    def _forward(
        self, expanded: Sequence[Expanded], shown: Sequence[Tensor], cache: DynamicCache, past: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        device = self.model.device
        ids = left_padded([part.ids for part in expanded], self.model.pad_id).to(device)
        new = left_padded([torch.ones_like(part.ids, dtype=torch.bool) for part in expanded]).to(device)
        positions = left_padded([part.positions.T for part in expanded]).permute(2, 0, 1).to(device)
        mask = torch.cat([past, new], 1)
        hidden = self.model.hidden(ids, positions, mask, shown, cache)
        return hidden, mask, torch.tensor([part.after for part in expanded], device=device)

    # --- writing -----------------------------------------------------------------------------

    def _sample(
        self,
        contexts: Sequence[Context],
        last: Tensor,
        cache: DynamicCache,
        mask: Tensor,
        position: Tensor,
        limits: Sequence[int],
        sampling: Sampling,
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Sample all outputs in lockstep; rows that have ended leave the batch when they are half of it."""
        rows = list(range(len(contexts)))  # of the batch: which context each is
        limit = torch.tensor(limits, device=last.device)
        ids: list[list[int]] = [[] for _ in contexts]
        log_probs: list[list[float]] = [[] for _ in contexts]
        tokens, chances = [], []  # of the present batch, since it last shrank
        running = torch.ones(len(rows), dtype=torch.bool, device=last.device)
        for step in range(max(limits)):
            log_p = self.model.logits(last, sampling.temperature).log_softmax(-1)
            if sampling.greedy:
                token = log_p.argmax(-1)
            else:
                token = torch.multinomial(log_p.exp(), 1)[:, 0]
            tokens.append(torch.where(running, token, -1))
            chances.append(log_p.gather(-1, token[:, None])[:, 0])
            running = running & (token != sampling.end_id) & (step + 1 < limit)
            going = int(running.sum())
            if going <= len(rows) // 2:
                self._collect(rows, tokens, chances, ids, log_probs)
                for row, is_running in enumerate(running.tolist()):
                    if not is_running:
                        self._keep(contexts[rows[row]], ids[rows[row]], row, cache, mask)
                if not going:
                    break
                alive = running.nonzero()[:, 0]
                cache.batch_select_indices(alive)
                rows = [rows[row] for row in alive.tolist()]
                mask, position, limit, token = mask[alive], position[alive], limit[alive], token[alive]
                running, tokens, chances = running[alive], [], []
            mask = torch.cat([mask, running[:, None]], 1)
            places = position[None, :, None].expand(3, -1, 1)
            last = self.model.hidden(token[:, None], places, mask, (), cache)[:, -1]
            position = position + 1
        return ids, log_probs

    @staticmethod
    def _collect(
        rows: Sequence[int],
        tokens: list[Tensor],
        chances: list[Tensor],
        ids: list[list[int]],
        log_probs: list[list[float]],
    ) -> None:
        for row, row_ids, row_chances in zip(
            rows, torch.stack(tokens, 1).tolist(), torch.stack(chances, 1).tolist(), strict=True
        ):
            sampled = [token for token in row_ids if token >= 0]
            ids[row] += sampled
            log_probs[row] += row_chances[: len(sampled)]

    def _keep(
        self, context: Context, output: Sequence[int], row: int, cache: DynamicCache, mask: Tensor
    ) -> None:
        """Keep keys and values of a context and of its output, save the last id, which was not read."""
        self._kept.pop(context.key, None)
        layers = _row(cache, mask, row)
        self._kept[context.key] = _Kept((*context.ids, *output[:-1]), context.visuals, layers)
        for key in list(self._kept)[: max(0, len(self._kept) - self._conversations)]:
            del self._kept[key]


def _row(cache: DynamicCache, mask: Tensor, row: int) -> Layers:
    """Keys and values of one row of a batch, without its padding."""
    real = mask[row]
    return [(layer.keys[row][:, real], layer.values[row][:, real]) for layer in cache.layers]  # type: ignore[union-attr, index]
