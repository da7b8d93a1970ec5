"""Qwen3-VL: pixels from -1 to 1, and videos whose steps in time stand after their seconds in the text."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextDecoderLayer

from .family import Family, register
from .tiny_numbers import HEAD, MROPE_SECTION, text_numbers, vision_numbers, vision_tokens


def tiny_config(
    tokenizer: PreTrainedTokenizerFast, hidden_size: int, vision_size: int, layers: int
) -> Qwen3VLConfig:
    """Qwen3-VL's configuration with small numbers; patches and merging stay Qwen's (16 and 2)."""
    rope = {"mrope_section": MROPE_SECTION, "mrope_interleaved": True}
    return Qwen3VLConfig(
        text_config={**text_numbers(tokenizer, hidden_size, layers, rope), "head_dim": HEAD},
        vision_config={
            **vision_numbers(hidden_size, vision_size),
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        tie_word_embeddings=True,
        **vision_tokens(tokenizer),
    )


FAMILY = Family(
    name="qwen3_vl",
    model_class=Qwen3VLForConditionalGeneration,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    video="stamped_video",
    seconds_in_positions=False,
    processor="Qwen3VLProcessor",
    video_processor="Qwen3VLVideoProcessor",
    decoder_layer=Qwen3VLTextDecoderLayer,
    tiny=tiny_config,
)
register(FAMILY)
