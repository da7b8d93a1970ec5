"""Qwen3-VL: pixels from -1 to 1, and videos whose steps in time stand after their seconds in the text."""

from __future__ import annotations

from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextDecoderLayer

from .family import Family, register

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
)
register(FAMILY)
