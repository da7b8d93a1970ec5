"""Where derived files live and how they are written: whole or not at all.

A cache file is made under a temporary name and renamed when it is complete, so a reader never sees
half of one, whoever else builds it and whenever a builder is killed. Knows nothing about video.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_STALE_S = 3600.0
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")  # what `_temporary` makes


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
    """Remove what a killed builder left; a live one writes more often than once an hour.

    Others may write into a shared cache: no link is followed, and what no builder makes, or belongs to
    somebody else, is left alone.
    """
    with contextlib.suppress(OSError):  # its builder, or another sweeper, was at it in the same moment
        if stat.S_ISREG(leftover.lstat().st_mode):
            if _TEMPORARY.fullmatch(leftover.name) and _is_stale(leftover.lstat()):
                leftover.unlink()
            return
        # Held open: a folder that is swapped for a link meanwhile is not followed.
        folder = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            names = os.listdir(folder)
            inside = [os.stat(name, dir_fd=folder, follow_symlinks=False) for name in names]
            arrays = all(name.endswith(".npy") for name in names)  # of a grid
            if (
                not arrays
                or not all(stat.S_ISREG(entry.st_mode) for entry in inside)
                or not all(map(_is_stale, (os.fstat(folder), *inside)))
            ):
                return
            for name in names:
                os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)
        leftover.rmdir()


def _is_stale(found: os.stat_result) -> bool:
    """Whether it is this user's, and was written to more than an hour ago."""
    return found.st_uid == os.geteuid() and time.time() - found.st_mtime >= _STALE_S
