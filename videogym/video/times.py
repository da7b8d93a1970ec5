"""The rule that turns instants into frames, the same for every backend and store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def ordinals_at(
    pts_s: NDArray[np.float64], times_s: Sequence[float] | NDArray[np.float64]
) -> NDArray[np.intp]:
    """Ordinals of the frames on display: the last one not after each instant.

    Args:
        pts_s: presentation times, seconds, strictly ascending.
        times_s: instants, seconds, any order; clamped to the video.

    Raises:
        ValueError: an instant is not finite.

    >>> ordinals_at(np.array([0.0, 1.0, 2.0]), [1.0, 0.999, -5.0, 99.0]).tolist()
    [1, 0, 0, 2]
    """
    times = np.asarray(times_s, dtype=np.float64)
    if times.ndim != 1 or not np.isfinite(times).all():
        raise ValueError(f"times must be a sequence of finite seconds, got {times_s}")
    return np.maximum(np.searchsorted(pts_s, times, side="right") - 1, 0)
