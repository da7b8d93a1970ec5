"""transformers' own processor, which needs torchvision, reads a checkpoint of ours as we do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from agents.models.qwen_vl import QwenVL
from agents.models.tiny_qwen import build_tiny_qwen
from agents.models.visuals import WHOLE_FRAME, Visual
from videogym import FrameStore


@pytest.mark.vllm
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_the_processor_of_a_saved_checkpoint_reads_as_we_do(family: str, tmp_path: Path) -> None:
    """One image that already has its size: placeholders, grid and pixels are those of `PatchLayout`."""
    build_tiny_qwen(tmp_path / "tiny", ["What is it? A dog."] * 8, family=family)
    with FrameStore() as store:
        model = QwenVL.from_pretrained(str(tmp_path / "tiny"), store)
        model.save(str(tmp_path / "saved"))  # as training saves
        processor = AutoProcessor.from_pretrained(tmp_path / "saved")
        side = model.layout.factor
        pixels = np.random.default_rng(0).integers(0, 256, (2 * side, 4 * side, 3), dtype=np.uint8)
        marks = "<|vision_start|><|image_pad|><|vision_end|>"
        read = processor(
            text=[f"{marks}What is it?"], images=[Image.fromarray(pixels)], return_tensors="pt"
        )
        visual = Visual("a.png", (0.0,), WHOLE_FRAME, (4 * side, 2 * side))
        ids = model.tokenizer.encode(f"{marks}What is it?")
        assert torch.equal(read["input_ids"][0], model.expand(ids, [visual]).ids)
        assert tuple(read["image_grid_thw"][0].tolist()) == model.layout.grid(visual)
        ours = torch.from_numpy(model.layout.patches(pixels[None]))
        torch.testing.assert_close(read["pixel_values"], ours, atol=1e-5, rtol=1e-5)
