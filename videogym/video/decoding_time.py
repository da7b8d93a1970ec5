"""Seconds that a thread has spent on opening videos and on getting frames of them.

Whoever divides the time of an episode reads the count before and after. All of `FrameStore` counts,
whether frames come from a decoder, a grid or memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


def now_s() -> float:
    """Seconds of the one clock by which episodes are timed; only differences mean something."""
    return time.perf_counter()


class _Spent(threading.local):
    seconds = 0.0
    counting = False  # one call may be made of others


_spent = _Spent()


def decoding_s() -> float:
    """Seconds that this thread has spent so far."""
    return _spent.seconds


@contextmanager
def counted() -> Iterator[None]:
    """Count what is done as opening and decoding, once however deep it is nested."""
    if _spent.counting:
        yield
        return
    begun, _spent.counting = now_s(), True
    try:
        yield
    finally:
        _spent.seconds += now_s() - begun
        _spent.counting = False
