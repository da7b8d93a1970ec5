"""Qwen2.5-VL: pixels as CLIP has them, and videos whose positions advance with their seconds."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLDecoderLayer

from .family import Family, register
from .tiny_numbers import MROPE_SECTION, text_numbers, vision_numbers, vision_tokens


def tiny_config(
    tokenizer: PreTrainedTokenizerFast, hidden_size: int, vision_size: int, layers: int
) -> Qwen2_5_VLConfig:
    """Qwen2.5-VL's configuration with small numbers; patches and merging stay Qwen's (14 and 2)."""
    return Qwen2_5_VLConfig(
        text_config=text_numbers(tokenizer, hidden_size, layers, {"mrope_section": MROPE_SECTION}),
        vision_config={
            **vision_numbers(hidden_size, vision_size),
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        tie_word_embeddings=True,
        **vision_tokens(tokenizer),
    )


FAMILY = Family(
    name="qwen2_5_vl",
    model_class=Qwen2_5_VLForConditionalGeneration,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    video="video",
    seconds_in_positions=True,
    processor="Qwen2_5_VLProcessor",
    video_processor="Qwen2VLVideoProcessor",
    decoder_layer=Qwen2_5_VLDecoderLayer,
    tiny=tiny_config,
)
register(FAMILY)
