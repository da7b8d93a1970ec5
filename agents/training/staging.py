"""Files and folders that appear under their name when they are whole, whatever ends their writer.

They are written under a name of our own beside the final one, ``.NAME.DIGITS.part``, which is locked while
its writer lives. So what a killed writer left can be told from what another is writing, and the next writer
removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError

_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_STAGED = re.compile(r"\..+\.[0-9a-f]{16}\.part")


@contextlib.contextmanager
def whole_file(path: str | Path, *, sweeps: bool = True) -> Iterator[BinaryIO]:
    """Write a file, in place of one that was there; its folder is made when missing.

    Args:
        path: its final name.
        sweeps: whether to `sweep` its folder first, which takes a look at all that is in it.

    Raises:
        OSError: it cannot be written, as on a full disk; the error names it. What was there is still
            there, and nothing is left beside it.
    """
    path = Path(path)
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if sweeps:
            sweep(path.parent)
        staged, handle = _stage(path, folder=False)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(handle)
                os.replace(staged, path)
        finally:
            staged.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Fill a folder; where one is there already, its files are replaced by those of the same names.

    Gives:
        The folder to write into.

    Raises:
        OSError: it cannot be written, as on a full disk; the error names it. What was there is still
            there, and nothing is left beside it.
    """
    path = Path(path)
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        staged, handle = _stage(path, folder=True)
        try:
            yield staged
            if path.exists():
                for entry in sorted(staged.iterdir()):
                    os.replace(entry, path / entry.name)
            else:
                os.rename(staged, path)
        finally:
            os.close(handle)
            shutil.rmtree(staged, ignore_errors=True)


def link(source: Path, path: Path) -> None:
    """Give a whole file a second name, in place of one that was there; a copy where files have one name.

    Raises:
        OSError: a copy cannot be written, as on a full disk; what was there is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        os.link(source, staged)
    except OSError:  # a file system without links
        with source.open("rb") as old, whole_file(path) as new:
            shutil.copyfileobj(old, new)
        return
    os.replace(staged, path)


def sweep(folder: str | Path) -> None:
    """Remove what killed writers left in a folder; what somebody is writing, and all else, stays."""
    try:
        staged = [path for path in Path(folder).iterdir() if _STAGED.fullmatch(path.name)]
    except OSError:
        return  # there is none
    for path in staged:
        with contextlib.suppress(OSError):  # somebody else was faster, or it is not ours to remove
            with locked(path):
                remove(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, never of what a link points to.

    Raises:
        OSError: it is locked, or gone, or a link.
    """
    handle = _open(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """A handle that can be locked: of a file it must be one that writes, which NFS asks for."""
    mode = os.O_RDONLY if stat.S_ISDIR(path.lstat().st_mode) else os.O_RDWR
    return os.open(path, mode | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def remove(path: Path) -> None:
    """Remove a file, or a folder with what it holds; links are not followed."""
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()


def _stage(path: Path, folder: bool) -> tuple[Path, int]:
    """A name of our own, empty and locked, and the handle that holds the lock."""
    while True:
        staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        if folder:
            staged.mkdir()
        else:
            staged.touch(exist_ok=False)
        try:
            handle = _open(staged)
        except FileNotFoundError:
            continue  # swept before it was locked
        with contextlib.suppress(OSError):  # a file system without locks: nobody can sweep there either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if staged.exists():
            return staged, handle
        os.close(handle)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let errors of writing name the final file."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_WRITING or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    except SafetensorError as error:
        if "I/O error" not in str(error):
            raise
        raise OSError(f"{path}: {error}") from error
