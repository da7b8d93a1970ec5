"""Where in a video insertions can be that uniform skims do not show. Knows frame numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from videogym.video.sampling import even_indices_by_time
from videogym.video.synthetic.hiding import HIDDEN_FROM, uniform_skims

_TRIES = 512

Span = tuple[int, int]  # frames [first, end)
Skims = tuple[tuple[NDArray[np.int64], int], ...]  # frames of each, and their widest gap


def skims_of(pts_s: NDArray[np.float64], duration_s: float, is_vfr: bool) -> Skims:
    """The skims that a video is hidden from, coarsest first, as the recipes draw them.

    Args:
        pts_s: (num_frames,) presentation times.
        duration_s: length of the video, seconds.
        is_vfr: whether some recipes draw by time instead of frame number.
    """
    by_number = uniform_skims(len(pts_s), duration_s)
    if not is_vfr:
        return by_number
    both = []
    for (frames, _), count in zip(by_number, HIDDEN_FROM, strict=True):
        joined = np.union1d(frames, even_indices_by_time(pts_s, count))
        both.append((joined, int(np.diff(joined).max())))
    return tuple(both)


def hide(rng: Random, skims: Skims, length: int, within: Span, taken: Sequence[Span]) -> Span | None:
    """Frames for an insertion that no skim shows which has room for it between two of its frames.

    Where chance finds no such place, coarser skims count for more.

    Args:
        rng: draws the place.
        skims: see `skims_of`.
        length: of the insertion, frames.
        within: frames that it must be in; one on either side stays free.
        taken: frames of others, from which it stays away by its own length.

    Returns:
        The frames, or None: there is no room.
    """
    low, high = within[0] + 1, within[1] - 1 - length
    if high < low:
        return None
    starts = np.array(rng.choices(range(low, high + 1), k=_TRIES))
    for first, end in taken:
        starts = starts[(starts + 2 * length <= first) | (starts >= end + length)]
    if not len(starts):
        return None
    missed = np.zeros(len(starts), np.int64)
    missed_by_coarser = np.ones(len(starts), np.bool_)
    for frames, widest in skims:
        if 2 * widest >= 3 * length:
            missed_by_coarser &= np.searchsorted(frames, starts) == np.searchsorted(frames, starts + length)
            missed += missed_by_coarser
    first = int(starts[missed.argmax()])
    return first, first + length
