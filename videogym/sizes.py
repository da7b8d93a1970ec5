"""Pixels and visual tokens of a frame as a policy is shown it.

A size follows from the rules, the video's own size, the region of a look and the scale it asked for. Which
frames are shown is not known here, and nothing is decoded.
"""

from __future__ import annotations

import math

from videogym.geometry import WHOLE_FRAME, Region
from videogym.rules import Rules
from videogym.state import Clip
from videogym.video.sampling import shrink_truncated, smart_resize
from videogym.video.types import VideoMeta

_NARROWEST = 100  # to one: of a frame that is resized


def frame_size(
    video: VideoMeta, rules: Rules, region: Region | None = None, scale: float | None = None
) -> tuple[int, int]:
    """``(width, height)`` of a frame in the rules' pixel budget.

    The aspect is kept, but for slivers: beyond 100 to 1 a frame is resized to that.

    Args:
        video: whose frames.
        rules: their pixel budget, and how sizes are rounded.
        region: of the frame; None: the whole frame.
        scale: factor of each side of the region's own pixels; the result has at most
            ``max_scaled_pixels``. None: as large as ``max_pixels`` allow, never enlarged for its own sake.
    """
    return resized(rules, *native_size(video, region), scale)


def native_size(video: VideoMeta, region: Region | None = None) -> tuple[int, int]:
    """``(width, height)`` of a region in the video's own pixels, at least 1; slivers are 100 to 1."""
    box = region or WHOLE_FRAME
    width, height = video.width * (box.x1 - box.x0), video.height * (box.y1 - box.y0)
    width, height = max(width, height / _NARROWEST, 1.0), max(height, width / _NARROWEST, 1.0)
    return round(width), round(height)


def resized(
    rules: Rules, width: float, height: float, scale: float | None = None, factor: int | None = None
) -> tuple[int, int]:
    """``(width, height)`` of a picture of so many pixels under the rules.

    Args:
        rules: the pixel budget.
        width: pixels, at least 1.
        height: pixels, at least 1.
        scale: of each side, see `frame_size`.
        factor: both sides are multiples of it; None: ``size_factor``.

    Raises:
        ValueError: one side is more than 200 times the other.

    Source: the size of a frame that was given a scale is EVA's: sides times the scale, each to the nearest
    multiple of the factor, at least one.
    """
    factor, most = factor or rules.size_factor, rules.max_pixels
    if scale is not None:
        most = rules.max_scaled_pixels or most
        width, height = max(1.0, width * scale), max(1.0, height * scale)
    elif rules.frame_resize == "truncated":
        # The processor that rounds afterwards has a budget of its own, which such a frame never meets.
        width, height = shrink_truncated(round(width), round(height), most)
        most = round(max(most * 2, (width + factor) * (height + factor)))
    h, w = smart_resize(height, width, rules.min_pixels, most, factor)
    return max(w, factor), max(h, factor)


def clip_size(clip: Clip, video: VideoMeta, rules: Rules) -> tuple[int, int]:
    """``(width, height)`` of each frame of a clip."""
    return frame_size(video, rules, clip.region, clip.scale)


def tokens(size: tuple[int, int], rules: Rules) -> int:
    """Visual tokens of a frame of ``(width, height)``: its squares of ``size_factor`` pixels."""
    return math.ceil(size[0] / rules.size_factor) * math.ceil(size[1] / rules.size_factor)


def clip_tokens(clip: Clip, video: VideoMeta, rules: Rules) -> int:
    """Visual tokens of all frames of a clip; frames are counted one by one, however a model pairs them."""
    if not clip.times_s:
        return 0
    return len(clip.times_s) * tokens(clip_size(clip, video, rules), rules)
