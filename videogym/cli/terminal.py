"""What the commands write to a terminal: progress."""

from __future__ import annotations

import sys

_BAR = 30  # characters of a full progress bar
_ERASE = "\r\x1b[K"


class ProgressBar:
    """A counter on the standard error, drawn where that is a terminal; call it with (done, total).

    Args:
        unit: what is counted, e.g. ``"episodes"``.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._drawn = False

    def __call__(self, done: int, total: int | None) -> None:
        """Draw; the line ends when all is done. A total of None: nobody knows it yet."""
        if not sys.stderr.isatty():
            return
        if total is None:
            print(f"\r{done} {self._unit}", end="", file=sys.stderr, flush=True)
            self._drawn = True
            return
        filled = _BAR * done // total if total else _BAR
        end = "\n" if done == total else ""
        bar = "█" * filled + "░" * (_BAR - filled)
        print(f"\r{bar} {done}/{total} {self._unit}", end=end, file=sys.stderr, flush=True)
        self._drawn = done < total

    def clear(self) -> None:
        """Make room for a line of text."""
        if self._drawn:
            print(_ERASE, end="", file=sys.stderr, flush=True)
            self._drawn = False


def progress_bar(unit: str) -> ProgressBar:
    """A counter on the standard error, drawn where that is a terminal; call it with (done, total)."""
    return ProgressBar(unit)
