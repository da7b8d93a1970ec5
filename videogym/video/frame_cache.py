"""Decoded frames kept in memory, the least recently used ones given up first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray


class FrameCache:
    """Frames by key, within a number of bytes. Not safe between threads.

    Args:
        max_bytes: most bytes of pixels held.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._frames: OrderedDict[Hashable, NDArray[np.uint8]] = OrderedDict()

    def copy(self, key: Hashable, out: NDArray[np.uint8]) -> bool:
        """Put a frame into ``out``; false when it is not held."""
        frame = self._frames.get(key)
        if frame is None:
            return False
        self._frames.move_to_end(key)
        out[:] = frame
        return True

    def add(self, key: Hashable, frame: NDArray[np.uint8]) -> None:
        """Keep a copy of a frame, at the cost of older ones."""
        if frame.nbytes > self._max_bytes or key in self._frames:
            return
        self._frames[key] = frame.copy()
        self._bytes += frame.nbytes
        while self._bytes > self._max_bytes:
            self._bytes -= self._frames.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget everything."""
        self._frames.clear()
        self._bytes = 0
