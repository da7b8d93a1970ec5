"""What a model sees, by reference and as patches; which model it is, is not known here.

A visual is one image, or one video of several frames, of a conversation. It stands in the ids as one
placeholder (collapsed) or as one per merged patch (expanded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from videogym.video import FrameBatch

WHOLE_FRAME = (0.0, 0.0, 1.0, 1.0)


class Visual(NamedTuple):
    """One image or video item of a conversation, by reference; hashable, so that equal ones are found."""

    video: str
    times_s: tuple[float, ...]  # one frame is an image; several are a video item
    region: tuple[float, float, float, float]  # x0, y0, x1, y1 in [0, 1]
    size: tuple[int, int]  # (width, height) in pixels, multiples of patch x merge


class FrameReader(Protocol):
    """What resolves references; `videogym.FrameStore` does."""

    def frames(
        self,
        source: str,
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None,
        region: tuple[float, float, float, float] | None,
    ) -> FrameBatch:
        """The frames on display at the given seconds, at the given size."""
        ...


@dataclass(frozen=True, slots=True)
class ChatForm:
    """What the layout of a conversation has to know of a family of models."""

    factor: int = 28  # sides of a frame are multiples of this, in pixels
    temporal: int = 2  # frames of one step in time of a video
    frames: Literal["images", "video", "stamped_video"] = "images"
    # "video": neighbouring frames are one video item. "stamped_video": each step is an item after its time.


@dataclass(frozen=True, slots=True)
class PatchLayout:
    """How a family of models cuts frames into patches."""

    patch: int  # pixels of a patch's side
    merge: int  # patches of a merged token's side
    temporal: int  # frames of a patch
    mean: tuple[float, float, float]  # of red, green, blue in [0, 1]
    std: tuple[float, float, float]

    @property
    def factor(self) -> int:
        """Sides of a frame are multiples of this, in pixels."""
        return self.patch * self.merge

    def grid(self, visual: Visual) -> tuple[int, int, int]:
        """Patches in time, height and width.

        Raises:
            ValueError: a side is not a positive multiple of `factor`.
        """
        width, height = visual.size
        if min(visual.size) < self.factor or width % self.factor or height % self.factor:
            raise ValueError(
                f"frame sides must be positive multiples of {self.factor} pixels, got {width}x{height}"
            )
        steps = -(-len(visual.times_s) // self.temporal)
        return steps, height // self.patch, width // self.patch

    def tokens(self, visual: Visual) -> int:
        """Placeholders of a visual."""
        steps, height, width = self.grid(visual)
        return steps * height * width // self.merge**2

    def patches(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the family's official processors make of frames that already have their size.

        Args:
            frames: (N, H, W, 3) uint8, sides multiples of `factor`. The last one is repeated until N
                is a multiple of ``temporal``.

        Returns:
            (N/temporal * H/patch * W/patch, 3 * temporal * patch * patch) float32; patches that are merged
            follow each other.

        Source: ``Qwen2VLImageProcessor`` and ``Qwen3VLVideoProcessor`` of transformers, without resizing.
        """
        number, height, width, channels = frames.shape
        missing = -number % self.temporal
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        scaled = (frames.astype(np.float32) / np.float32(255.0) - mean) / std
        side = self.factor
        cells = scaled.reshape(
            *(len(frames) // self.temporal, self.temporal),
            *(height // side, self.merge, self.patch),
            *(width // side, self.merge, self.patch, channels),
        )
        ordered = cells.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
        return ordered.reshape(-1, channels * self.temporal * self.patch**2)


def resolve(store: FrameReader, visuals: Sequence[Visual]) -> list[NDArray[np.uint8]]:
    """Pixels (N, H, W, 3) of every visual, in order; one request per video, region and size."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, (video, _, region, size) in enumerate(visuals):
        groups.setdefault((video, region, size), []).append(place)
    pixels: dict[int, NDArray[np.uint8]] = {}
    for (video, region, size), places in groups.items():
        times = [time_s for place in places for time_s in visuals[place].times_s]
        batch = store.frames(video, times, size=size, region=None if region == WHOLE_FRAME else region)
        ends = np.cumsum([len(visuals[place].times_s) for place in places])[:-1]
        pixels.update(zip(places, np.split(batch.pixels, ends), strict=True))
    return [pixels[place] for place in range(len(visuals))]
