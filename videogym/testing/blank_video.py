"""A video without content, for tests in which only its shape matters.

Any number of frames, rate and size, at no cost; nothing is decoded and nothing is on disk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Self

import numpy as np

from videogym.video import FrameBatch, FrameStore, Resizer, Video, VideoMeta
from videogym.video.pixels import View


class BlankVideo:
    """A `Video` of black frames at a constant rate.

    Args:
        num_frames: how many.
        fps: frames a second, constant.
        width: pixels.
        height: pixels.
    """

    def __init__(self, num_frames: int, fps: float, width: int, height: int) -> None:
        self.meta = VideoMeta("blank", num_frames / fps, num_frames, fps, width, height, "none")
        self.pts_s = np.arange(num_frames) / fps

    def frames_at(
        self,
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None = None,
        region: tuple[float, float, float, float] | None = None,
        resizer: Resizer = "bicubic",
    ) -> FrameBatch:
        """Black frames, see `Video.frames_at`."""
        width, height = View(size, region, resizer).output_size(self.meta.width, self.meta.height)
        shown = self.pts_s[np.maximum(np.searchsorted(self.pts_s, times_s, side="right") - 1, 0)]
        pixels = np.zeros((len(shown), height, width, 3), np.uint8)
        return FrameBatch(pixels, shown, np.zeros(len(shown), np.bool_))

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OneVideoStore(FrameStore):
    """A store in which every source is the same video.

    Args:
        video: that video.
    """

    def __init__(self, video: Video) -> None:
        super().__init__(lru_bytes=0)
        self._video = video

    def open(self, source: str | os.PathLike[str]) -> Video:
        """The video, whatever the source."""
        return self._video
