"""Qwen2.5-VL: pixels as CLIP has them, and videos whose positions advance with their seconds."""

from __future__ import annotations

from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLDecoderLayer

from .family import Family, register

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
)
register(FAMILY)
