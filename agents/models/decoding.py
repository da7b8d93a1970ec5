"""One new token a row through the decoder layers of a Qwen-VL, behind a `StaticCache`.

It computes what transformers' own layers compute, with the model's own modules, but asks for all
projections of a layer's input in one product, and lets the cache attend. A model that computes otherwise
is left to transformers, see `Decoder.why_not`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.functional import linear, rms_norm

from .family import family_of
from .qwen_vl import QwenVL
from .static_cache import StaticCache

FUSED_BYTES = 2**28
"""Most that copies of projections may take: a model for which that is little gains nothing from them."""


Computed = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Layer:
    """A decoder layer, as a step computes it: looked up once a batch, not once a token."""

    before_attention: Computed
    heads: Computed  # queries, keys and values side by side
    normed_heads: tuple[Computed, Computed] | None  # of queries and keys
    scaling: float
    out: Computed
    before_mlp: Computed
    gates: Computed  # gate and up side by side
    activation: Computed
    down: Computed


class Decoder:
    """Decoder layers, one token a row.

    Args:
        model: whose weights are read as they are; `refresh` follows their changes.
    """

    def __init__(self, model: QwenVL) -> None:
        self._model, self._language = model, model.model.model.language_model
        self._heads = model.model.config.text_config.num_key_value_heads
        self._fused: list[tuple[Tensor, Tensor | None] | None] = []
        self._made_of: list[tuple[int, int]] = []

    def why_not(self) -> str:
        """Why transformers has to compute the steps of this model; "" if it need not."""
        known = family_of(self._model.family).decoder_layer
        if known is None:
            return f"the family {self._model.family} names no decoder_layer"
        config = self._language.config
        if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
            return "not all layers attend to everything"
        if (kind := config.rope_parameters["rope_type"]) in ("dynamic", "longrope"):
            return f"rotary positions of type {kind} depend on the length of a pass"
        if _hooked(self._language):
            return "hooks on its language model expect to be called"
        for layer in self._language.layers:
            if type(layer).forward is not known.forward:
                return f"its layers are of {type(layer).__name__}, not {known.__name__}"
            # What hooks the layer of a sharded model is FSDP, which has gathered the weights by now.
            sharded = isinstance(layer, FSDPModule)
            parts = [part for part in layer.modules() if part is not layer or not sharded]
            if any(_hooked(part) for part in parts if not isinstance(part, nn.Linear)):
                return "hooks on its layers expect to be called"
        return ""

    def forget(self) -> None:
        """Drop the copies of projections."""
        self._fused, self._made_of = [], []

    def refresh(self) -> None:
        """Look the layers up, and copy their projections if a weight has changed or moved since.

        To be called before the steps of a batch.
        """
        layers = list(self._language.layers)
        parts = [part for layer in layers for part in _projections(layer)]
        plain = not self._model.shards and all(_is_plain(module) for part in parts for module in part)
        weights = [module.weight for part in parts for module in part] if plain else []
        if sum(weight.nbytes for weight in weights) > FUSED_BYTES:
            weights = []
        made_of = [(weight.data_ptr(), weight._version) for weight in weights]
        if made_of != self._made_of or len(self._fused) != len(parts):
            self._fused = [_fused(part) if weights else None for part in parts]
            self._made_of = made_of
        together = [
            _together(part) if fused is None else partial(linear, weight=fused[0], bias=fused[1])
            for part, fused in zip(parts, self._fused, strict=True)
        ]
        self._layers = [
            _layer(layer, *together[2 * number : 2 * number + 2]) for number, layer in enumerate(layers)
        ]
        self._norm = _normed(self._language.norm)

    def rotations(self, positions: Tensor, steps: int) -> list[tuple[Tensor, Tensor]]:
        """Cosines and sines (B, 1, D) of the tokens of the next steps, sines signed for exchanged halves.

        Args:
            positions: (B,) of the first.
            steps: number.
        """
        places = positions[:, None] + torch.arange(steps, device=positions.device)
        like = self._language.embed_tokens.weight[:0]
        cos, sin = self._language.rotary_emb(like, places.expand(3, *places.shape))
        first, second = sin.chunk(2, -1)
        sin = torch.cat([-first, second], -1)
        return list(zip(cos.unsqueeze(2).unbind(1), sin.unsqueeze(2).unbind(1), strict=True))

    def step(self, tokens: Tensor, rotation: tuple[Tensor, Tensor], cache: StaticCache) -> Tensor:
        """Read one token a row.

        Args:
            tokens: (B,) int64, none of them of vision.
            rotation: of their positions.
            cache: whose open column they fill.

        Returns:
            (B, H) last hidden states.
        """
        hidden, (cos, sin) = self._language.embed_tokens(tokens), rotation
        width, heads = cos.shape[-1], self._heads
        for number, layer in enumerate(self._layers):
            states = layer.heads(layer.before_attention(hidden)).view(len(tokens), -1, width)
            turned, values = states[:, :-heads], states[:, -heads:]
            if layer.normed_heads is not None:
                of_queries, of_keys = layer.normed_heads
                turned = torch.cat([of_queries(turned[:, :-heads]), of_keys(turned[:, -heads:])], 1)
            turned = torch.addcmul(turned * cos, turned.roll(width // 2, -1), sin)
            hidden += layer.out(cache.attend(number, turned, values, layer.scaling))
            gate, up = layer.gates(layer.before_mlp(hidden)).chunk(2, -1)
            hidden += layer.down(layer.activation(gate) * up)
        return self._norm(hidden)


def _layer(layer: Any, heads: Computed, gates: Computed) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    norms = None
    if hasattr(attention, "q_norm"):
        norms = _normed(attention.q_norm), _normed(attention.k_norm)
    return _Layer(
        _normed(layer.input_layernorm),
        heads,
        norms,
        attention.scaling,
        _projected(attention.o_proj),
        _normed(layer.post_attention_layernorm),
        gates,
        mlp.act_fn,
        _projected(mlp.down_proj),
    )


def _projections(layer: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The modules that read the input of attention, and those that read the input of the MLP."""
    attention = layer.self_attn
    return (attention.q_proj, attention.k_proj, attention.v_proj), (layer.mlp.gate_proj, layer.mlp.up_proj)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_plain(module: nn.Module) -> bool:
    """Whether a projection is its weight and bias alone: no adapter, no quantization, no hook."""
    return type(module) is nn.Linear and not _hooked(module)


@torch.no_grad()
def _fused(part: tuple[Any, ...]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of projections of one input, as one."""
    biases = [module.bias for module in part if module.bias is not None]
    return torch.cat([module.weight for module in part]), torch.cat(biases) if biases else None


def _together(part: tuple[Any, ...]) -> Computed:
    """What the modules make of one input, side by side."""
    return lambda seen: torch.cat([module(seen) for module in part], -1)


def _projected(module: Any) -> Computed:
    return partial(linear, weight=module.weight, bias=module.bias) if _is_plain(module) else module


def _normed(module: Any) -> Computed:
    """A norm; in float32 in one call, which elsewhere would round at other places."""
    known = type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")
    if not known or _hooked(module) or module.weight.dtype != torch.float32:
        return cast(Computed, module)
    return partial(
        rms_norm, normalized_shape=module.weight.shape, weight=module.weight, eps=module.variance_epsilon
    )
