"""Ctrl-C and SIGTERM: a run saves what it has done before it ends.

An iteration is done whole or not at all. While no weight of it has moved, a signal saves at once and the
iteration is begun anew when the run is resumed; afterwards it is ended first. A second signal ends the
program at once, and what was saved before stays. torchrun signals all ranks when one of them has died, too:
then nothing more can be saved, and none of them goes on.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any
from weakref import WeakMethod

from .ranks import is_first, launched, require_peers

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal ended a run, after what it had done was saved. The message says how far it had come."""


class Interruption:
    """Watches for signals while a run iterates.

    Args:
        save_now: of the run: saves what was done before this iteration and returns True, or returns False
            where that cannot be told apart from what the iteration has done.
    """

    def __init__(self, save_now: WeakMethod[Callable[[], bool]]) -> None:
        self.asked = False
        self._save_now = save_now
        self._before: dict[int, Any] = {}

    def watch(self) -> None:
        """From now on; where this is no main thread, signals are nobody's."""
        if threading.current_thread() is threading.main_thread() and not self._before:
            self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def release(self) -> None:
        """Signals mean again what they meant."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        require_peers()
        if self.asked:
            self.release()
            raise KeyboardInterrupt
        self.asked = True
        save_now = self._save_now()
        if save_now is not None and save_now():
            self.release()
            raise Interrupted
        if is_first():
            patience = ", if torchrun gives it the time (--shutdown-timeout, 30 s)" if launched() else ""
            ends = f"this iteration is ended, then all is saved{patience}. Once more ends at once."
            sys.stderr.write(f"\nInterrupted: {ends}\n")
