"""Attention inside the frames of a vision tower, all frames of a size in one call.

Without flash attention transformers calls attention once a frame and layer, which on a CPU costs several
times what a small language model does. This computes the same in one call per distinct length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

# By "flash" in its name transformers hands over the bounds of all frames, not a frame at a time.
NAME = "flash_frames"


def frame_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    cu_seq_lens_q: Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention in blocks.

    Args:
        module: the calling layer; unused.
        query: (1, heads, L, D), as are ``key`` and ``value``.
        key: see ``query``.
        value: see ``query``.
        attention_mask: none.
        scaling: of the products.
        cu_seq_lens_q: (F + 1,) bounds of the blocks, 0 first and L last.

    Returns:
        (1, L, heads, D), and no weights.
    """
    lengths = cu_seq_lens_q.diff()
    packed = torch.stack((query[0], key[0], value[0])).transpose(1, 2)  # (3, L, heads, D)
    out = torch.empty_like(packed[0])
    for length in lengths.unique().tolist():
        starts = cu_seq_lens_q[:-1][lengths == length]
        places = (starts[:, None] + torch.arange(length, device=starts.device)).flatten()
        # (3, F, heads, length, D)
        blocks = packed[:, places].unflatten(1, (-1, length)).transpose(2, 3)
        attended = scaled_dot_product_attention(blocks[0], blocks[1], blocks[2], scale=scaling)
        if len(places) == len(out):  # one size only: nothing to put back in place
            return attended.transpose(1, 2).reshape(1, *out.shape), None
        out = out.index_copy(0, places, attended.transpose(1, 2).flatten(0, 1))
    return out[None], None


AttentionInterface.register(NAME, frame_attention)
