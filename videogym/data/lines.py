"""A file of JSON lines that only grows, written by one process at a time and killed at any moment.

A line that `Lines.append` has returned from is on the disk, whole. What a killed writer leaves is at most
one torn last line, which the next one removes.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

from videogym.writing import naming


class DataError(ValueError):
    """A folder of a pipeline cannot be used as it is. The message names the file and what is wrong."""


class Lines:
    """The lines of a file, which is made by the first of them. Threads may share one.

    Args:
        path: of the file, in a folder that exists.

    Raises:
        DataError: the file holds something else.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._size = 0  # bytes of whole lines
        if os.path.lexists(path):
            self._read()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a line; it is on the disk when this returns.

        Raises:
            OSError: the file cannot be written; it holds what it held.
        """
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        # What UTF-8 cannot write, a lone surrogate, becomes the JSON escape that means it.
        line = text.encode("utf-8", "backslashreplace") + b"\n"
        with self._lock, naming(self.path):
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                self._write(handle, line)
            finally:
                os.close(handle)
            self.rows.append(json.loads(line))

    def _write(self, handle: int, line: bytes) -> None:
        try:
            os.ftruncate(handle, self._size)  # without what a killed writer left of a line
            if os.pwrite(handle, line, self._size) != len(line):  # the disk is full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, self._size)
            raise
        self._size += len(line)

    def _read(self) -> None:
        if not stat.S_ISREG(self.path.stat().st_mode):  # a pipe may have no writer
            raise DataError(f"{self.path}: not a regular file")
        content = self.path.read_bytes()
        self._size = content.rfind(b"\n") + 1
        for number, line in enumerate(content[: self._size].splitlines(), start=1):
            self.rows.append(self._row(line, number))
        torn = content[self._size :]
        if torn and not torn.startswith(b'{"'[: len(torn)]):
            raise DataError(f"{self.path} ends in something that is no line of it; it is left as it is")

    def _row(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.path}, line {number}: not JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("key"), str):
            raise DataError(f"{self.path}, line {number}: no line of a pipeline, it has no key")
        return row


def hold(path: Path, refusal: str) -> BinaryIO:
    """Keep others from doing the same until the file is closed, or the process ends.

    Args:
        path: a file that stands for what is held.
        refusal: what who comes second is told.

    Raises:
        DataError: another process holds it.
        OSError: the file cannot be made, or not be locked.
    """
    import fcntl  # POSIX only

    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise DataError(refusal) from None
    except OSError as error:  # a file system without locks, say; it names no file
        file.close()
        raise OSError(error.errno, os.strerror(error.errno or 0), os.fspath(path)) from error
    return file


class Holder:
    """A context in which this process holds what only one may.

    Args:
        held: as `hold` gives it; None: others may do the same.
    """

    def __init__(self, held: BinaryIO | None) -> None:
        self._held = held

    def close(self) -> None:
        """Let others have it."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
