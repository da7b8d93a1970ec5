"""Tiny checkpoints of both families that vLLM serves, and log-probs of them by another route."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from agents.engines.base import Context
from agents.models.checkpoints import save_processor
from agents.models.visuals import PatchLayout, Visual
from videogym.video import FrameBatch

ADDED = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
END, START, STOP, IMAGE, VIDEO = (256 + ADDED.index(f"<|{name}|>") for name in
    ("im_end", "vision_start", "vision_end", "image_pad", "video_pad"))  # fmt: skip
VOCABULARY = 256 + len(ADDED)
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LAYOUTS = {
    "qwen2_5_vl": PatchLayout(patch=14, merge=2, temporal=2, mean=CLIP[0], std=CLIP[1]),
    "qwen3_vl": PatchLayout(patch=16, merge=2, temporal=2, mean=HALVES[0], std=HALVES[1]),
}


def build(folder: Path, family: str, seed: int = 0) -> Any:
    """Save a checkpoint with random weights, tokenizer and processor, and return the model in float32."""
    torch.manual_seed(seed)
    ids = {
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": START,
        "vision_end_token_id": STOP,
    }
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 8192,
        "initializer_range": 0.15,  # random logits that differ by more than rounding
        "bos_token_id": None,
        "eos_token_id": END,
        "pad_token_id": 256,
    }
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [6, 5, 5]}
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": 64,
    }
    vision["initializer_range"] = 0.15
    if family == "qwen2_5_vl":
        vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
        text["rope_parameters"] = rope
        del text["head_dim"]
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
        model: Any = Qwen2_5_VLForConditionalGeneration(config)
    else:
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 256}
        text["rope_parameters"] = rope | {"mrope_interleaved": True}
        config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **ids)
        model = Qwen3VLForConditionalGeneration(config)
    model.save_pretrained(folder)
    _save_processor(folder, family)
    return model.eval()


def _save_processor(folder: Path, family: str) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in ADDED])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    ).save_pretrained(folder)
    save_processor(folder, LAYOUTS[family])


class Noise:
    """A frame store without videos: every video and time has its own noise."""

    def frames(
        self,
        source: str,
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None,
        region: tuple[float, float, float, float] | None,
    ) -> FrameBatch:
        """Frames of noise."""
        assert size is not None
        pixels = [self.pixels(source, time_s, size) for time_s in times_s]
        return FrameBatch(np.stack(pixels), np.array(times_s), np.zeros(len(times_s), bool))

    @staticmethod
    def pixels(source: str, time_s: float, size: tuple[int, int]) -> NDArray[np.uint8]:
        """One frame (H, W, 3)."""
        generator = np.random.default_rng([len(source), int(1000 * time_s)])
        return generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def visual(time_s: float, size: tuple[int, int], video: str = "v") -> Visual:
    """One frame as an image."""
    return Visual(video, (time_s,), (0.0, 0.0, 1.0, 1.0), size)


def shown(text: str, visuals: Sequence[Visual]) -> list[int]:
    """Collapsed ids of images and then a text."""
    return [i for _ in visuals for i in (START, IMAGE, STOP)] + list(text.encode())


def scores(
    model: Any,
    family: str,
    context: Context,
    output: Sequence[int],
    temperature: float,
    banned: Sequence[int],
) -> list[float]:
    """Log-probs of output ids by a plain forward of the whole conversation."""
    before = distributions(model, family, context, output, temperature, banned)
    return before[range(len(output)), list(output)].tolist()


@torch.no_grad()
def distributions(
    model: Any,
    family: str,
    context: Context,
    output: Sequence[int],
    temperature: float,
    banned: Sequence[int],
) -> Tensor:
    """(T, V) log-probs of all ids before each of an output's."""
    layout = LAYOUTS[family]
    visuals, ids = iter(context.visuals), []
    for token in context.ids:
        ids += [token] * (layout.tokens(next(visuals)) if token == IMAGE else 1)
    full = torch.tensor([[*ids, *output]])
    inputs: dict[str, Any] = {}
    if context.visuals:
        frames = [Noise.pixels(v.video, v.times_s[0], v.size) for v in context.visuals]
        patches = [layout.patches(frame[None]) for frame in frames]
        inputs["pixel_values"] = torch.from_numpy(np.concatenate(patches))
        inputs["image_grid_thw"] = torch.tensor([layout.grid(v) for v in context.visuals])
    model.model.rope_deltas = None
    logits = model(
        input_ids=full,
        attention_mask=torch.ones_like(full),
        mm_token_type_ids=(full == IMAGE).int(),
        use_cache=False,
        **inputs,
    ).logits[0]
    before = logits[len(ids) - 1 : -1].float()
    before[:, list(banned)] = float("-inf")
    return (before / temperature).log_softmax(-1)
