"""Outputs written behind contexts that were read, all rows in lockstep.

Steps come in blocks, between which rows that have ended leave the batch. Inside a block no shape changes
and nothing is asked of a GPU. Which conversations the rows are is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..models.decoding import Decoder
from ..models.qwen_vl import QwenVL
from ..models.static_cache import Layers
from .base import EngineError, Sampling
from .draws import draw, uniforms
from .reading import Read

BLOCK = 16  # steps


@dataclass(slots=True)
class Written:
    """An output, and what was computed of it."""

    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    own: Layers = field(default_factory=list)  # behind the prompt; the last id was not read


class Lockstep:
    """Writes one output behind every context of a batch.

    Args:
        model: whose weights are used as they are.
        decoder: of the model, that reads the written tokens; None: transformers does.
        read: the contexts; their cache is used up.
        limits: most tokens of each output.
        sampling: how.
    """

    def __init__(
        self,
        model: QwenVL,
        decoder: Decoder | None,
        read: Read,
        limits: Sequence[int],
        sampling: Sampling,
    ) -> None:
        self._model, self._decoder, self._sampling = model, decoder, sampling
        self._cache, self._columns = read.cache, read.cache.filled
        self._written = [Written() for _ in limits]
        self._limits, self._longest = limits, max(limits)
        # Of the rows that are left: which of the batch they are, and all that steps need, on the device.
        self._rows = list(range(len(limits)))
        device = read.last.device
        self._last, self._position = read.last, read.after
        self._limit = torch.tensor(limits, device=device)
        self._running = torch.ones(len(limits), dtype=torch.bool, device=device)
        steps = 0 if sampling.greedy else self._longest
        self._uniform = uniforms(len(limits), steps).to(device)

    def write(self) -> list[Written]:
        """The outputs, in order.

        Raises:
            EngineError: the model gives no probabilities.
        """
        for first in range(0, self._longest, BLOCK):
            tokens, log_probs = self._block(range(first, min(first + BLOCK, self._longest)))
            ended = self._collect(tokens.tolist(), log_probs.tolist())
            if len(ended) == len(self._rows):
                break
            if 8 * len(ended) >= len(self._rows):  # fewer are not worth the copying
                self._drop(ended)
        return self._written

    def _block(self, steps: range) -> tuple[Tensor, Tensor]:
        """(B, steps) ids and log-probabilities; what stands behind an end means nothing."""
        tokens, log_probs = [], []
        self._cache.open_block(len(steps), self._model.model.config.text_config.num_attention_heads)
        rotations = self._decoder.rotations(self._position, len(steps)) if self._decoder else []
        for step in steps:
            log_p = self._model.logits(self._last, self._sampling.temperature).log_softmax(-1)
            token = log_p.argmax(-1) if self._sampling.greedy else draw(log_p, self._uniform[:, step])
            tokens.append(token)
            log_probs.append(log_p.gather(-1, token[:, None])[:, 0])
            self._running = self._running & (token != self._sampling.end_id) & (step + 1 < self._limit)
            # A GPU would have to be waited for.
            if step + 1 == self._longest or (token.is_cpu and not self._running.any()):
                break
            if self._decoder:
                rotation = rotations[step - steps.start]
                self._cache.open_column()
                self._last = self._decoder.step(token, rotation, self._cache)
            else:
                self._last = self._plain_step(token, self._position + len(tokens) - 1)
            self._cache.close_column()
        self._position = self._position + len(tokens)
        return torch.stack(tokens, 1), torch.stack(log_probs, 1)

    def _plain_step(self, token: Tensor, position: Tensor) -> Tensor:
        """The same by transformers: (B, H) last hidden states."""
        cache = self._cache.writing()
        cache.mask[:, -1] = self._running  # others are not counted
        places = position[None, :, None].expand(3, -1, 1)
        return self._model.hidden(token[:, None], places, cache.mask, (), cache)[:, -1]

    def _collect(self, tokens: Sequence[list[int]], log_probs: Sequence[list[float]]) -> list[int]:
        """Add the tokens of a block to the outputs that had not ended.

        Returns:
            Rows of the batch whose outputs have ended by now.
        """
        for row, number in enumerate(self._rows):
            if self._has_ended(number):
                continue
            written = self._written[number]
            ids = tokens[row][: self._limits[number] - len(written.ids)]
            if self._sampling.end_id in ids:
                ids = ids[: ids.index(self._sampling.end_id) + 1]
            written.ids += ids
            written.log_probs += log_probs[row][: len(ids)]
            if not all(math.isfinite(value) for value in log_probs[row][: len(ids)]):
                raise EngineError("the model's probabilities are not numbers: its weights have diverged")
            if self._has_ended(number):
                read = len(written.ids) - 1
                written.own = self._cache.row(row, self._columns, read)
                if self._decoder:  # transformers' passes count themselves
                    self._model.forwarded_tokens += read
        return [row for row, number in enumerate(self._rows) if self._has_ended(number)]

    def _has_ended(self, number: int) -> bool:
        ids = self._written[number].ids
        return ids[-1:] == [self._sampling.end_id] or len(ids) == self._limits[number]

    def _drop(self, ended: Sequence[int]) -> None:
        """Let rows leave the batch."""
        gone = set(ended)
        rows = [row for row in range(len(self._rows)) if row not in gone]
        self._cache.drop(rows)
        self._rows = [self._rows[row] for row in rows]
        index = self._cache.indices(rows)
        self._last, self._position = self._last[index], self._position[index]
        self._limit, self._running = self._limit[index], self._running[index]
        self._uniform = self._uniform[index]
