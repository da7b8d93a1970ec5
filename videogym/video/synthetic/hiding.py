"""When events may appear: for how long, and where uniform skims do not show them.

Knows frame numbers only; what an event looks like is not known here.
"""

from __future__ import annotations

from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray

from videogym.video.sampling import linspace_floored, linspace_rounded, pool_indices
from videogym.video.synthetic.address import Address

POOL_FRAMES = 128  # of a pool of so many, one or two show an event
HIDDEN_FROM = (16, 32, 64, 512)  # sizes of uniform skims that miss every event short enough for it


def event_frames(address: Address, spacings: float) -> int:
    """Length of every event: one or two pool frames, wherever it lies, unless the address sets it.

    Args:
        address: the video.
        spacings: wanted length, in spacings of the pool.
    """
    if address.event_s is not None:
        return round(address.event_s * address.fps)
    narrowest, widest = pool_spacings(address.num_frames, address.duration_s)
    wanted = spacings * (narrowest + widest) / 2
    return round(min(max(wanted, widest), 2 * narrowest))


def hidden_starts(
    rng: Random, address: Address, first: int, last: int, length: int, count: int = 1
) -> list[int]:
    """First frames, within ``[first, last]``, of events that the skims of `HIDDEN_FROM` do not show.

    Several events are at least ``length`` frames apart. Where chance finds no such places, coarser skims
    count for more. Skims whose gaps leave little room are not considered: the few places between their
    frames would be the same in every video.
    """
    tries = 64 if count == 1 else 2048  # of several events each has to be hidden
    apart = 2 * length  # from start to start
    drawn = rng.choices(range(first, last + 1 - (count - 1) * apart), k=tries * count)
    starts = np.sort(np.array(drawn).reshape(tries, count), axis=1) + apart * np.arange(count)
    missed = np.zeros(tries, np.int64)
    missed_by_coarser = np.ones(tries, np.bool_)
    for frames, widest in uniform_skims(address.num_frames, address.duration_s):
        if widest >= 2 * length:
            unseen = np.searchsorted(frames, starts) == np.searchsorted(frames, starts + length)
            missed_by_coarser &= unseen.all(axis=1)
            missed += missed_by_coarser
    return [int(start) for start in starts[missed.argmax()]]


@lru_cache(maxsize=64)
def pool_spacings(num_frames: int, duration_s: float) -> tuple[int, int]:
    """Narrowest and widest distance of neighbouring pool frames, in frames."""
    gaps = np.diff(pool_indices(num_frames, duration_s, POOL_FRAMES))
    return int(gaps.min()), int(gaps.max())


@lru_cache(maxsize=64)
def uniform_skims(num_frames: int, duration_s: float) -> tuple[tuple[NDArray[np.int64], int], ...]:
    """Frames of each skim of `HIDDEN_FROM`, in every way the recipes draw it, and their widest gap."""
    pool = pool_indices(num_frames, duration_s, POOL_FRAMES)
    skims = []
    for count in HIDDEN_FROM:
        drawn = [linspace_floored(0, num_frames - 1, count), linspace_rounded(0, num_frames - 1, count)]
        if count < POOL_FRAMES:
            drawn.append(pool[linspace_floored(0, len(pool) - 1, count)])
        frames = np.unique(np.concatenate(drawn))
        skims.append((frames, int(np.diff(frames).max())))
    return tuple(skims)
