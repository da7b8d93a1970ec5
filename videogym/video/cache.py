"""Where derived files live and how they are written: whole or not at all.

A cache file is made under a temporary name and renamed when it is complete, so a reader never sees
half of one, whoever else builds it and whenever a builder is killed. Knows nothing about video.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_STALE_S = 3600.0


def cache_root() -> Path:
    """``$VIDEOGYM_CACHE``, else ``$XDG_CACHE_HOME/videogym``, else ``~/.cache/videogym``."""
    own = os.environ.get("VIDEOGYM_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "videogym"


def publish_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Create or replace a file in one step.

    Args:
        path: final name; its folder is made when missing.
        write: puts the content into an open binary file.

    Raises:
        OSError: the folder cannot be written. Nothing is left under ``path``.
    """
    temporary = _temporary(path)
    try:
        with open(temporary, "xb") as file:
            write(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Create a folder in one step; when someone else was faster, theirs stays.

    Args:
        path: final name; the folder around it is made when missing.
        write: fills the temporary folder that it is given.

    Raises:
        OSError: the folder cannot be written. Nothing is left under ``path``.
    """
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        write(temporary)
        os.rename(temporary, path)
    except OSError:
        # Renaming onto a folder with files in it fails, which is how the slower of two builders ends.
        if not path.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """A name of our own beside the final one, in a folder that exists and is swept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(".*.tmp"):
        _sweep(leftover)
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def _sweep(leftover: Path) -> None:
    """Remove what a killed builder left; a live one writes more often than once an hour."""
    try:
        inside = list(leftover.iterdir()) if leftover.is_dir() else []
        newest = max(entry.stat().st_mtime for entry in (leftover, *inside))
        if time.time() - newest < _STALE_S:
            return
        for entry in inside:
            entry.unlink()
        leftover.rmdir() if leftover.is_dir() else leftover.unlink()
    except OSError:
        pass  # its builder, or another sweeper, was at it in the same moment
