"""The plain way to sample rollouts, to compare with: transformers' growing cache, and `torch.multinomial`.

Every step copies the keys and values of the batch to add a column, those of a prompt once for each of its
rollouts, and runs transformers' layers as they are. A conversation keeps its own between turns here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from agents.engines.base import Context, Output, Sampling
from agents.engines.draws import draw, uniforms
from agents.models.padding import left_padded
from agents.models.qwen_vl import Expanded, QwenVL
from agents.models.visuals import Visual

Layers = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class _Kept:
    ids: tuple[int, ...]
    layers: Layers  # (heads, L, D) each


class GrowingEngine:
    """An `agents.engines.base.Engine` that computes what is new, and copies everything at every step.

    Args:
        model: whose weights are used as they are.
        by_inverse_cdf: whether tokens are drawn as `TransformersEngine` draws them.
    """

    def __init__(self, model: QwenVL, by_inverse_cdf: bool = False) -> None:
        self.model, self.version, self.by_inverse_cdf = model, 0, by_inverse_cdf
        self._kept: dict[str, _Kept] = {}

    def update_weights(self, model: nn.Module, version: int) -> None:
        """See `Engine`."""
        self._kept.clear()
        self.version = version

    def reset_cache(self) -> None:
        """See `Engine`."""
        self._kept.clear()

    def close(self) -> None:
        """See `Engine`."""

    @torch.no_grad()
    def generate(self, contexts: Sequence[Context], sampling: Sampling) -> list[Output]:
        """One output per context, in order."""
        lengths = [self.model.length(context.ids, context.visuals) for context in contexts]
        limits = [min(sampling.max_new_tokens, sampling.max_context - length) for length in lengths]
        last, cache, mask, after = self._read(contexts)
        outputs = self._sample(contexts, last, cache, mask, after, limits, sampling)
        return [Output(tuple(ids), tuple(log_p), (self.version,) * len(ids)) for ids, log_p in outputs]

    def _read(self, contexts: Sequence[Context]) -> tuple[Tensor, DynamicCache, Tensor, Tensor]:
        """Hidden states (B, H) of the last tokens, cache, mask (B, L), positions (B,) of what comes."""
        known = [self._common(context) for context in contexts]
        names = [
            (context.ids, context.visuals, context.key if at else "")
            for context, at in zip(contexts, known, strict=True)
        ]
        first = {name: row for row, name in reversed(list(enumerate(names)))}
        rows = sorted(first.values())
        expanded, kept, shown = [], [], list[Visual]()
        for row in rows:
            ids, visuals = contexts[row].ids, contexts[row].visuals
            seen = ids[: known[row]].count(self.model.vision_ids[0])
            before = self.model.expand(ids[: known[row]], visuals[:seen])
            expanded.append(self.model.expand(ids[known[row] :], visuals[seen:], start=before.after))
            layers = self._kept[contexts[row].key].layers if known[row] else []
            kept.append([(k[:, : len(before.ids)], v[:, : len(before.ids)]) for k, v in layers])
            shown += visuals[seen:]
        features = self.model.encode(shown)
        cache, past = self._cache(kept)
        hidden, mask, after = self._forward(expanded, [features[one] for one in shown], cache, past)
        source = torch.tensor([rows.index(first[name]) for name in names], device=hidden.device)
        cache.batch_select_indices(source)
        return hidden[source, -1], cache, mask[source], after[source]

    def _common(self, context: Context) -> int:
        """Ids of a context that were computed; conversations only grow here."""
        kept = self._kept.get(context.key)
        if kept is None:
            return 0
        pairs = zip(context.ids[:-1], kept.ids, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _cache(self, kept: Sequence[Layers]) -> tuple[DynamicCache, Tensor]:
        cache = DynamicCache(config=self.model.model.config.text_config)
        lengths = [layers[0][0].shape[1] if layers else 0 for layers in kept]
        mask = left_padded([torch.ones(length, dtype=torch.bool) for length in lengths])
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
        ids = left_padded([part.ids for part in expanded], self.model.pad_id)
        new = left_padded([torch.ones_like(part.ids, dtype=torch.bool) for part in expanded])
        positions = left_padded([part.positions.T for part in expanded]).permute(2, 0, 1)
        mask = torch.cat([past, new], 1)
        hidden = self.model.hidden(ids, positions, mask, shown, cache)
        return hidden, mask, torch.tensor([part.after for part in expanded])

    def _sample(
        self,
        contexts: Sequence[Context],
        last: Tensor,
        cache: DynamicCache,
        mask: Tensor,
        position: Tensor,
        limits: Sequence[int],
        sampling: Sampling,
    ) -> list[tuple[list[int], list[float]]]:
        """All outputs in lockstep; rows that have ended leave the batch when they are half of it."""
        rows, limit = list(range(len(contexts))), torch.tensor(limits)
        outputs: list[tuple[list[int], list[float]]] = [([], []) for _ in contexts]
        running = torch.ones(len(rows), dtype=torch.bool)
        uniform = uniforms(len(rows), max(limits) if self.by_inverse_cdf else 0)
        for step in range(max(limits)):
            log_p = self._logits(last, sampling.temperature).log_softmax(-1)
            if self.by_inverse_cdf:
                token = draw(log_p, uniform[rows, step])
            else:
                token = torch.multinomial(log_p.exp(), 1)[:, 0]
            chances = log_p.gather(-1, token[:, None])[:, 0].tolist()
            for row, said, chance, runs in zip(
                rows, token.tolist(), chances, running.tolist(), strict=True
            ):
                if runs:
                    outputs[row][0].append(said)
                    outputs[row][1].append(chance)
            running = running & (token != sampling.end_id) & (step + 1 < limit)
            going = int(running.sum())
            if going <= len(rows) // 2:
                for row, runs in enumerate(running.tolist()):
                    if not runs:
                        self._keep(contexts[rows[row]], outputs[rows[row]][0], row, cache, mask)
                if not going:
                    break
                alive = running.nonzero()[:, 0]
                cache.batch_select_indices(alive)
                rows = [rows[row] for row in alive.tolist()]
                mask, position, limit, token = mask[alive], position[alive], limit[alive], token[alive]
                running = running[alive]
            mask = torch.cat([mask, running[:, None]], 1)
            places = position[None, :, None].expand(3, -1, 1)
            last = self.model.hidden(token[:, None], places, mask, (), cache)[:, -1]
            position = position + 1
        return outputs

    def _logits(self, hidden: Tensor, temperature: float) -> Tensor:
        logits = self.model.model.lm_head(hidden).float() / temperature
        banned = torch.zeros(logits.shape[-1], dtype=torch.bool)
        banned[list(self.model.vision_ids)] = True
        return logits.masked_fill(banned, -1e9)

    def _keep(
        self, context: Context, output: Sequence[int], row: int, cache: DynamicCache, mask: Tensor
    ) -> None:
        real = mask[row]
        layers = [(layer.keys[row][:, real], layer.values[row][:, real]) for layer in cache.layers]  # type: ignore[union-attr, index]
        self._kept[context.key] = _Kept((*context.ids, *output[:-1]), layers)
