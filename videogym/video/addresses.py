"""Sources of videos that are no files: what they begin with. Knows nothing about what they show."""

from __future__ import annotations

SYNTHETIC_PREFIX = "synthetic:"
PLANTED_PREFIX = "planted-video:"


def is_address(source: str) -> bool:
    """Whether a source is an address to be drawn, not the path of a file.

    >>> is_address("synthetic:brief_event?level=0"), is_address("a/b.mp4")
    (True, False)
    """
    return source.startswith((SYNTHETIC_PREFIX, PLANTED_PREFIX))
