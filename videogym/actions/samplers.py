"""How a crop draws its frames: so many of a segment at a rate, and which these are.

Three published ways, named by ``Rules.crop_sampling``. Bounds of what may be shown are not known here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from videogym.state import Invalid
from videogym.video.sampling import (
    nearest_indices,
    truncated_indices,
    window_indices,
    window_indices_by_time,
)
from videogym.video.types import VideoMeta

Times = NDArray[np.float64]
_NEVER = 2**31  # frames: more than any look shows


class Sampler(Protocol):
    """One way of drawing frames. Times are seconds and were judged by the rules."""

    signed_rate: bool  # whether a rate below 0 is a rate, where ranges are clamped
    judges_times: bool  # whether any times are fine, where ranges are clamped

    def count(
        self, video: VideoMeta, pts_s: Times, start_s: float, end_s: float, fps: float
    ) -> int | Invalid:
        """Frames that a segment has at a rate, before any bound; or why there are none."""
        ...

    def times(
        self, video: VideoMeta, pts_s: Times, start_s: float, end_s: float, count: int, by_rate: bool
    ) -> tuple[float, ...] | Invalid:
        """Presentation times of ``count`` frames of the segment, seconds, ascending.

        Args:
            video: whose frames.
            pts_s: (num_frames,) its presentation times, seconds.
            start_s: of the segment.
            end_s: of the segment.
            count: at least 1, not above what `count` or the policy said.
            by_rate: whether the count follows from a rate; else the policy named it.
        """
        ...


class Window:
    """LongVT's: an even number of frames, at least two, both ends of the segment included.

    A count that the policy named is drawn as `Nearest` does.
    """

    signed_rate, judges_times = False, False

    def count(
        self, video: VideoMeta, pts_s: Times, start_s: float, end_s: float, fps: float
    ) -> int | Invalid:
        """See `Sampler.count`."""
        indices = self._indices(video, pts_s, start_s, end_s, fps, _NEVER)
        return indices if isinstance(indices, Invalid) else len(indices)

    def times(
        self, video: VideoMeta, pts_s: Times, start_s: float, end_s: float, count: int, by_rate: bool
    ) -> tuple[float, ...] | Invalid:
        """See `Sampler.times`."""
        if not by_rate:
            return Nearest().times(video, pts_s, start_s, end_s, count, by_rate)
        if count < 2:
            reason = "Fewer than the two frames of the smallest crop are left; answer now."
            return Invalid("budget", reason)
        # A rate above all frames: the count alone decides.
        indices = self._indices(video, pts_s, start_s, end_s, video.num_frames, count)
        return indices if isinstance(indices, Invalid) else tuple(pts_s[indices].tolist())

    def _indices(
        self, video: VideoMeta, pts_s: Times, start_s: float, end_s: float, fps: float, most: int
    ) -> NDArray[np.int64] | Invalid:
        end_s = min(end_s, video.duration_s)
        try:
            if video.is_vfr:
                return window_indices_by_time(pts_s, most, fps, start_s, end_s)
            return window_indices(video.num_frames, video.avg_fps, most, fps, start_s, end_s)
        except ValueError:
            reason = f"Fewer than two frames lie in {start_s:g} to {end_s:g} s."
            return Invalid("no two frames", reason)


class Truncated:
    """VideoZoomer's: rate times length, cut to a whole number; both ends of the segment included.

    Where ranges are clamped, times out of the video bring copies of its first or last frame, and a rate
    below 0 with an end before the start has a count above 0.
    """

    signed_rate, judges_times = True, True

    def count(
        self, video: VideoMeta, pts_s: Times, start_s: float, end_s: float, fps: float
    ) -> int | Invalid:
        """See `Sampler.count`."""
        frames = fps * (end_s - start_s)
        if math.isnan(frames):
            return Invalid("nan", "Times and rate must be numbers.")
        if math.isinf(frames):
            return Invalid("infinity", "Times and rate must be finite numbers.")
        if int(frames) < 0:
            return Invalid("negative_count", "Rate times length must not be negative.")
        if int(frames) == 0:
            return Invalid(
                "no_frames", "No frame lies there at this rate: look longer or at a higher rate."
            )
        return int(frames)

    def times(
        self, video: VideoMeta, pts_s: Times, start_s: float, end_s: float, count: int, by_rate: bool
    ) -> tuple[float, ...] | Invalid:
        """See `Sampler.times`."""
        if not video.is_vfr:
            indices = truncated_indices(video.num_frames, video.avg_fps, start_s, end_s, count)
            return tuple(pts_s[indices].tolist())
        first_s, last_s = (min(max(time_s, 0.0), video.duration_s) for time_s in (start_s, end_s))
        instants = np.linspace(first_s, max(first_s, last_s), count)
        shown = np.maximum(np.searchsorted(pts_s, instants, side="right") - 1, 0)
        return tuple(pts_s[shown].tolist())


class Nearest:
    """EVA's: instants evenly spread over the segment, and the frame nearest to each; of one, the middle.

    Where ranges are clamped and nothing of the segment lies in the video, it is the whole video.
    """

    signed_rate, judges_times = False, True

    def count(
        self, video: VideoMeta, pts_s: Times, start_s: float, end_s: float, fps: float
    ) -> int | Invalid:
        """See `Sampler.count`."""
        start_s, end_s = self._clamped(video, start_s, end_s)
        return int(min(max(1.0, (end_s - start_s) * fps), _NEVER))

    def times(
        self, video: VideoMeta, pts_s: Times, start_s: float, end_s: float, count: int, by_rate: bool
    ) -> tuple[float, ...] | Invalid:
        """See `Sampler.times`."""
        start_s, end_s = self._clamped(video, start_s, end_s)
        if count == 1:
            instants = np.array([(start_s + end_s) / 2])
        else:
            short_s = min(0.001, (end_s - start_s) / (4 * count))
            instants = np.linspace(start_s, end_s - short_s, count)
        return tuple(pts_s[nearest_indices(pts_s, instants)].tolist())

    def _clamped(self, video: VideoMeta, start_s: float, end_s: float) -> tuple[float, float]:
        first_s, last_s = max(start_s, 0.0), min(end_s, video.duration_s)
        return (first_s, last_s) if first_s < last_s else (0.0, video.duration_s)


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {"window": Window(), "truncated": Truncated(), "nearest": Nearest()}
)
