"""From decoded frames to RGB arrays: cut, convert, resize, letterbox.

Shared by every backend, so that the same request gives the same geometry everywhere. Knows nothing
about files and times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast, get_args

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from videogym.video.orientation import Orientation
from videogym.video.types import Resizer

_INTERPOLATION = {
    "area": Interpolation.AREA,
    "bilinear": Interpolation.BILINEAR,
    "bicubic": Interpolation.BICUBIC,
}
_MAX_SIDE = 16_384


@dataclass(frozen=True, slots=True)
class View:
    """How frames are to be shown: cut first, then resized.

    The region of the whole frame is kept as none: the same pixels, from the same caches.

    Raises:
        ValueError: a side is not a whole number in 1 to 16384, the region has no area or leaves
            ``[0, 1]``, or the resizer is unknown.
    """

    size: tuple[int, int] | None = None  # (width, height), pixels; None: native
    region: tuple[float, float, float, float] | None = None  # fractions of the whole frame
    resizer: Resizer = "bicubic"

    def __post_init__(self) -> None:
        if self.size is not None and not (len(self.size) == 2 and all(map(_is_side, self.size))):
            raise ValueError(f"size must be (width, height) within 1 to {_MAX_SIDE}, got {self.size}")
        if self.size is not None:
            object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))
        if self.region is not None:
            x0, y0, x1, y1 = self.region
            if not (0.0 <= x0 < x1 <= 1.0 and 0.0 <= y0 < y1 <= 1.0):
                raise ValueError(f"region needs 0 <= x0 < x1 <= 1, and y too, got {self.region}")
            whole = (x0, y0, x1, y1) == (0.0, 0.0, 1.0, 1.0)
            object.__setattr__(self, "region", None if whole else (x0, y0, x1, y1))
        if self.resizer not in _INTERPOLATION:
            raise ValueError(f"resizer must be one of {get_args(Resizer)}, got {self.resizer!r}")

    def output_size(self, width: int, height: int) -> tuple[int, int]:
        """``(width, height)`` of a served frame of a video with the given shown size."""
        if self.size is not None:
            return self.size
        if self.region is None:
            return width, height
        left, top, right, bottom = region_box(width, height, self.region)
        return right - left, bottom - top


def _is_side(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and 1 <= int(value) <= _MAX_SIDE


def region_box(
    width: int, height: int, region: tuple[float, float, float, float]
) -> tuple[int, int, int, int]:
    """Pixels ``(left, top, right, bottom)`` of a region: edges to the nearest pixel, never empty.

    >>> region_box(640, 360, (0.25, 0.5, 0.75, 1.0))
    (160, 180, 480, 360)
    """
    left, right = _pixel_span(width, region[0], region[2])
    top, bottom = _pixel_span(height, region[1], region[3])
    return left, top, right, bottom


def _pixel_span(length: int, start: float, end: float) -> tuple[int, int]:
    first = min(math.floor(start * length + 0.5), length - 1)
    return first, max(math.floor(end * length + 0.5), first + 1)


class Renderer:
    """Turns decoded frames of one video into RGB of one geometry after the other.

    Args:
        orientation: how stored pixels are turned to be shown.
        stored: ``(width, height)`` before turning; a frame of another size is resized to it.
    """

    def __init__(self, orientation: Orientation, stored: tuple[int, int]) -> None:
        self._orientation = orientation
        self._shown = orientation.shown_size(*stored)
        self._convert = VideoReformatter()
        self._resize = VideoReformatter()

    def render(self, frame: Any, view: View) -> NDArray[np.uint8]:
        """``(H, W, 3)`` RGB of a decoded frame."""
        whole = self._shown if view.size is None or view.region is not None else view.size
        # Colour and size change in one pass; the turn comes after it, on fewer pixels.
        stored = self._orientation.shown_size(*whole)
        pixels = self._orientation.apply(_reformat(self._convert, frame, stored, view.resizer))
        return self.cut(pixels, view)

    def cut(self, pixels: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
        """The view of an ``(H, W, 3)`` RGB image that shows the whole frame."""
        height, width = pixels.shape[:2]
        if view.region is not None:
            left, top, right, bottom = region_box(width, height, view.region)
            pixels = pixels[top:bottom, left:right]
        if view.size is None or pixels.shape[1::-1] == tuple(view.size):
            return pixels
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        return _reformat(self._resize, image, view.size, view.resizer)


def _reformat(
    reformatter: VideoReformatter, frame: Any, size: tuple[int, int], resizer: Resizer
) -> NDArray[np.uint8]:
    scaled = reformatter.reformat(
        frame, *size, format="rgb24", interpolation=_INTERPOLATION[resizer], threads=1
    )
    return cast("NDArray[np.uint8]", scaled.to_ndarray())


def fit_within(width: int, height: int, size: tuple[int, int]) -> tuple[int, int]:
    """Largest ``(width, height)`` with the aspect of a frame that fits into a box.

    >>> fit_within(640, 360, (224, 224))
    (224, 126)
    """
    scale = min(size[0] / width, size[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def letterbox(
    pixels: NDArray[np.uint8], size: tuple[int, int], out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Centre frames on black.

    Args:
        pixels: ``(N, h, w, 3)`` uint8, not larger than the box.
        size: ``(width, height)`` of the box, pixels.
        out: ``(N, H, W, 3)`` uint8, black, to write into; None makes one.

    Returns:
        ``(N, H, W, 3)`` uint8; odd leftovers go to the right and the bottom.

    Raises:
        ValueError: a frame does not fit.
    """
    count, h, w, _ = pixels.shape
    width, height = size
    if w > width or h > height:
        raise ValueError(f"frames of {w}x{h} do not fit into {width}x{height}")
    boxed = np.zeros((count, height, width, 3), dtype=np.uint8) if out is None else out
    top, left = (height - h) // 2, (width - w) // 2
    boxed[:, top : top + h, left : left + w] = pixels
    return boxed
