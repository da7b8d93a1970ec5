"""Keys and values of what conversations have in common, for passes that are differentiated.

transformers' own cache keeps the keys and values of every pass. In training that is a copy of the common
prefix for each conversation behind it, and under gradient checkpointing, which runs layers again in the
backward pass, it would grow twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


class PrefixCache(DynamicCache):
    """Of one pass: it keeps the keys and values of prefixes, or lets others read them.

    Args:
        config: of the language model.
        layers: keys and values of prefixes, (P, heads, L, D) each; empty: this pass reads them in, and
            ``self.layers`` holds them then.
        rows: (B,) the prefix that each conversation of the pass follows.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        layers: Sequence[tuple[Tensor, Tensor]] = (),
        rows: Tensor | None = None,
    ) -> None:
        super().__init__(config=config)
        self._rows = rows
        for layer, (keys, values) in zip(self._layers, layers, strict=False):
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values

    @property
    def _layers(self) -> list[DynamicLayer]:
        return cast(list[DynamicLayer], self.layers)  # no Qwen-VL has layers of another kind

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values that a layer attends to; the same however often it asks."""
        layer = self._layers[layer_idx]
        if self._rows is not None:
            keys, values = layer.keys[self._rows], layer.values[self._rows]  # type: ignore[index]
            return torch.cat([keys, key_states], -2), torch.cat([values, value_states], -2)
        if not layer.is_initialized:
            layer.lazy_initialization(key_states, value_states)
            layer.keys, layer.values = key_states, value_states
        return key_states, value_states
