"""Writes the patches that the official video processors make of some frames; see `patches.npz`.

They need torchvision, which the tests do without. Once, with a torchvision that belongs to the installed
torch (without its dependencies: ``pip install --no-deps torchvision==0.28.0``), run

    python tests/golden/write_patches.py

The frames follow from a seed and are made anew by the test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

FILE = Path(__file__).parent / "patches.npz"
SHAPES = {"qwen2_5_vl": (3, 28, 56, 3), "qwen3_vl": (3, 32, 64, 3)}
"""Frames, height, width and channels by family; the odd last frame has no partner."""


def frames(family: str) -> np.ndarray:
    """Frames of noise in twelve shades, so that the file stays small."""
    shades = np.random.default_rng(0).integers(0, 12, SHAPES[family], dtype=np.uint8)
    return shades * np.uint8(23)


def write() -> None:
    """Ask both processors."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):  # torchvision's own may not load without CUDA, and nobody calls them
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from transformers import Qwen2VLVideoProcessor, Qwen3VLVideoProcessor

    made = {}
    for family, processor in (
        ("qwen2_5_vl", Qwen2VLVideoProcessor()),
        ("qwen3_vl", Qwen3VLVideoProcessor()),
    ):
        out = processor(
            videos=[torch.from_numpy(frames(family)).permute(0, 3, 1, 2)],
            do_resize=False,
            do_sample_frames=False,
            return_tensors="np",
        )
        made[family] = np.asarray(out["pixel_values_videos"], np.float32)
        made[f"{family}_grid"] = np.asarray(out["video_grid_thw"])[0]
    np.savez_compressed(FILE, **made)


if __name__ == "__main__":
    write()
