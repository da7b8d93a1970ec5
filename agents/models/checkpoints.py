"""Models as ordinary checkpoints: weights by their own names, and what others read beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..training.ranks import is_first
from ..training.sharding import full_tensor
from . import qwen2_5_vl, qwen3_vl  # noqa: F401  # families that are registered
from .family import family_of
from .visuals import PatchLayout


def named_weights(model: nn.Module, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """Weights under the names that checkpoints have, detached; tied ones once, adapters added in.

    Where ranks have shards they are assembled one by one, and all ranks must ask for all.

    Args:
        model: of transformers; its linear layers may have PEFT's low-rank adapters in them.
        dtype: they are given in it; by default in their own.

    Raises:
        ValueError: the model is wrapped, so that its names are not those of a checkpoint.
    """
    # PEFT is optional; these are its layers by what they can do.
    adapted = {
        name: layer
        for name, layer in model.named_modules()
        if hasattr(layer, "base_layer") and hasattr(layer, "get_delta_weight")
    }
    for name, parameter in model.named_parameters():
        if name.startswith(("module.", "_orig_mod.", "base_model.")):
            raise ValueError(f"push the model itself, not a wrapper of it: it has a parameter {name!r}")
        weight = full_tensor(parameter.detach())
        owner = next((owner for owner in adapted if name.startswith(f"{owner}.")), None)
        if owner is not None:
            inner = name.removeprefix(f"{owner}.")
            if not inner.startswith("base_layer."):
                continue  # of an adapter
            name = f"{owner}.{inner.removeprefix('base_layer.')}"
            if inner == "base_layer.weight":
                weight = _with_adapters(adapted[owner], weight)
        yield name, weight.to(dtype or parameter.dtype)


def full_weights(model: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """All of `named_weights`, on the CPU; of several ranks the first has them, and all must ask.

    Raises:
        ValueError: as `named_weights`.
    """
    return {name: weight.cpu().contiguous() for name, weight in named_weights(model, dtype) if is_first()}


@torch.no_grad()
def _with_adapters(layer: Any, weight: Tensor) -> Tensor:
    if layer.merged or layer.disable_adapters:
        return weight
    for adapter in layer.active_adapters:
        if adapter in layer.lora_A:
            weight = weight + full_tensor(layer.get_delta_weight(adapter)).to(weight.dtype)
    return weight


def save_processor(folder: str | Path, layout: PatchLayout) -> None:
    """Write what vLLM reads of a checkpoint besides model and tokenizer: how its frames are processed.

    Args:
        folder: of a saved model of a registered family.
        layout: how its family cuts frames.

    Raises:
        WrongCheckpoint: its family is not known.
    """
    folder = Path(folder)
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    family = family_of(kind)
    shared = {
        "processor_class": family.processor,
        "patch_size": layout.patch,
        "merge_size": layout.merge,
        "temporal_patch_size": layout.temporal,
        "image_mean": layout.mean,
        "image_std": layout.std,
        # Qwen's own; engines set bounds of their own.
        "size": {"shortest_edge": 56 * 56, "longest_edge": 12_845_056},
    }
    image = {**shared, "image_processor_type": "Qwen2VLImageProcessorFast"}
    video = {**shared, "video_processor_type": family.video_processor}
    (folder / "preprocessor_config.json").write_text(json.dumps(image, indent=1), encoding="utf-8")
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video, indent=1), encoding="utf-8")
