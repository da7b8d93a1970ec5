"""How stored pixels are turned to be shown: one of the eight ways to lay a rectangle on its sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogym.video.types import UnreadableVideo


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

    Raises:
        UnreadableVideo: the matrix turns by something else than quarter turns.

    Source: ``libavutil/display.h``; a pixel at (x, y) is shown at (a x + c y, b x + d y).
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d, *_ = np.sign(np.frombuffer(bytes(data), dtype=np.int32)).tolist()
    if b == c == 0 and a and d:
        return Orientation(False, a < 0, d < 0)
    if a == d == 0 and b and c:
        return Orientation(True, c < 0, b < 0)
    raise UnreadableVideo(f"{path}: its display matrix does not turn by quarter turns")
