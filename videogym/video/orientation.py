"""How stored pixels are turned to be shown: one of the eight ways to lay a rectangle on its sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogym.video.types import UnreadableVideo

_NOISE = 0.05  # what an axis may lean, as a share of its length
_POINT = 1 << 8  # 16.16 fixed point: a scale of less than 1/256
_LINE = 1e-3  # a determinant below this share of the longest side's square


@dataclass(frozen=True, slots=True)
class Orientation:
    """Transpose, then mirror. The default changes nothing."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def degrees(self) -> int:
        """Clockwise turn in degrees, 0 to 270; a pure mirror counts as 0."""
        if self.transpose:
            return 90 if self.mirror_x else 270 if self.mirror_y else 0
        return 180 if self.mirror_x and self.mirror_y else 0

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after turning; the same call leads back."""
        return (height, width) if self.transpose else (width, height)

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn an ``(H, W, 3)`` image; a view."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


def orientation_of(frame: Any, path: str) -> Orientation:
    """The orientation that a decoded frame's display matrix asks for.

    One that is off by noise, of up to about 3 degrees, asks for the quarter turn next to it. One that would
    leave of the picture a line or a point, as one of zeros does, asks for nothing.

    Raises:
        UnreadableVideo: the matrix turns by something else than quarter turns.

    Source: ``libavutil/display.h``; a pixel at (x, y) is shown at (a x + c y, b x + d y).
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), dtype=np.int32).tolist()
    longest = max(map(abs, (a, b, c, d)))
    if longest < _POINT or abs(a * d - b * c) <= _LINE * longest**2:
        return Orientation()
    # Each axis of the picture by itself, since they may be scaled differently.
    if abs(b) <= _NOISE * abs(a) and abs(c) <= _NOISE * abs(d):
        return Orientation(False, a < 0, d < 0)
    if abs(a) <= _NOISE * abs(b) and abs(d) <= _NOISE * abs(c):
        return Orientation(True, c < 0, b < 0)
    raise UnreadableVideo(f"{path}: its display matrix does not turn by quarter turns")
