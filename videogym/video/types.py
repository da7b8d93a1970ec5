"""What a video is to the rest of the package: seconds in, frames with true timestamps out.

Backends implement `Video`; nothing outside this folder knows which one is at work. Time 0 is the
first shown frame, whatever the container's start time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Resizer = Literal["area", "bilinear", "bicubic"]


class VideoError(Exception):
    """A video cannot be used. The message names the file and the cause."""


class VideoNotFound(VideoError):
    """The file does not exist or may not be read."""


class UnreadableVideo(VideoError):
    """The file is not a video this backend can open."""


class NoVideoStream(VideoError):
    """The file opens but holds no video stream, e.g. audio only."""


class TruncatedVideo(VideoError):
    """The file ends, or is damaged, before frames that its index promises."""


class VideoTooLarge(VideoError):
    """Opening or decoding it takes more memory than a video is given."""


class UnfitVideo(VideoError):
    """The video is sound but does not fit its task or recipe, e.g. evidence beyond its end."""


class VideoChanged(VideoError):
    """The file was replaced or modified while it was open, or since a state was saved."""


class DecodeTimeout(VideoError):
    """A file was not opened, or a frame of it not decoded, within the deadline."""


@dataclass(frozen=True, slots=True)
class VideoMeta:
    """Facts about one video, from its packet table."""

    fingerprint: str  # identity of the content: changes when the file changes
    duration_s: float  # end of the last frame; every pts is below it
    num_frames: int
    avg_fps: float  # num_frames / duration_s for constant rate
    width: int  # pixels as shown, after rotation
    height: int
    codec: str
    is_vfr: bool = False  # frame intervals differ by more than rounding
    rotation: int = 0  # degrees already applied to shown frames


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Decoded frames in the order asked."""

    pixels: NDArray[np.uint8]  # (N, H, W, 3) RGB
    pts_s: NDArray[np.float64]  # (N,) true presentation times, seconds
    # (N,) another frame stands here, which happens with on_error="nearest" alone; or others are missing
    # before this one, and its codec does not tell whether it refers to them, so that it may be smeared
    damaged: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.pts_s)


@runtime_checkable
class Video(Protocol):
    """An open video. Not shared between threads without the lock that a backend holds inside."""

    @property
    def meta(self) -> VideoMeta:
        """Facts about the video."""
        ...

    @property
    def pts_s(self) -> NDArray[np.float64]:
        """(num_frames,) presentation times, seconds, strictly ascending from 0.0; read-only."""
        ...

    def frames_at(
        self,
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None = None,
        region: tuple[float, float, float, float] | None = None,
        resizer: Resizer = "bicubic",
    ) -> FrameBatch:
        """The frames on display at the given instants.

        Args:
            times_s: seconds, in any order, repeats allowed; clamped to the video. The frame of an
                instant is the one with the largest presentation time not after it.
            size: ``(width, height)`` in pixels; None keeps the native size.
            region: ``(x0, y0, x1, y1)`` in ``[0, 1]``, cut at full resolution before resizing.
            resizer: how pixels are resampled.

        Returns:
            One frame per instant, in the order asked, with true timestamps.

        Raises:
            ValueError: a time is not finite, or size or region is out of range.
            VideoError: the frames cannot be decoded.
        """
        ...

    def close(self) -> None:
        """Release the decoder. Closing twice is allowed."""
        ...

    def __enter__(self) -> Self:
        """Use in a ``with``, which closes it."""
        ...

    def __exit__(self, *_: object) -> None:
        """Close."""
        ...
