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


class Spent:
    """A count of seconds."""

    seconds = 0.0


class _Thread(threading.local):
    counting = False  # one call may be made of others

    def __init__(self) -> None:
        self.spent = Spent()


_thread = _Thread()


def of_thread() -> Spent:
    """What this thread has spent so far."""
    return _thread.spent


def decoding_s() -> float:
    """Seconds that this thread has spent so far."""
    return _thread.spent.seconds


@contextmanager
def counted(also: Spent | None = None) -> Iterator[None]:
    """Count what is done as opening and decoding, once however deep it is nested.

    Args:
        also: a count beside the thread's, of one who plays in many threads.
    """
    if _thread.counting:
        yield
        return
    begun, _thread.counting = now_s(), True
    try:
        yield
    finally:
        passed = now_s() - begun
        for spent in (_thread.spent, also):
            if spent is not None:
                spent.seconds += passed
        _thread.counting = False
