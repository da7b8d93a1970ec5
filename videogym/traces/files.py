"""Files of traces: they only grow, a line at a time, whoever writes and whenever a writer is killed.

What a killed writer leaves is at most one torn last line, which readers skip and count and the next
writer cuts. Any other line that cannot be read is an error.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from videogym.traces.lines import HEAD, TraceError, from_line, to_line
from videogym.traces.trace import Trace
from videogym.writing import naming

_LONGEST = 1 << 26  # bytes of a line; an episode of 500 turns of 512 frames is a tenth of it
_BLOCK = 1 << 16  # bytes read at a time on the way back to the last line end


@dataclass(frozen=True)
class Traces:
    """What a file, or a folder of files, holds."""

    episodes: tuple[Trace, ...]  # in the order in which they were stored
    torn: int  # unfinished last lines, left out: their writers were killed, or are still writing

    def __iter__(self) -> Iterator[Trace]:
        """The episodes."""
        return iter(self.episodes)

    def __len__(self) -> int:
        """How many episodes there are."""
        return len(self.episodes)


class TraceFiles:
    """The episodes of files, or of all ``*.jsonl`` files of folders by name, read one by one.

    For more of them than there is memory for; `read_traces` reads all. Empty lines are skipped. An episode
    that names no run is of the run that its file is called after.

    Args:
        paths: files and folders, in order.
    """

    def __init__(self, *paths: str | os.PathLike[str]) -> None:
        self._paths = [Path(path) for path in paths]
        self.torn = 0  # unfinished last lines of what was read so far, as in `Traces`

    def __iter__(self) -> Iterator[Trace]:
        """Read from the beginning.

        Raises:
            TraceError: a file or folder cannot be read, or a line is no trace of this version.
        """
        self.torn = 0
        for path in self._paths:
            for file in trace_files(path):
                yield from self._read(file)

    def _read(self, file: Path) -> Iterator[Trace]:
        for number, line in _lines(file):
            if not line.endswith(b"\n") and _is_torn(line):
                self.torn += 1
                continue
            try:
                yield from_line(line, run=file.stem)
            except TraceError as error:
                raise TraceError(f"{file}: line {number}: {error}") from error


def trace_files(path: Path) -> list[Path]:
    """The file, or the ``*.jsonl`` files of a folder by name.

    Raises:
        TraceError: a folder holds none.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise TraceError(f"{path}: the folder holds no *.jsonl file")
    return files


def append_trace(path: str | os.PathLike[str], trace: Trace) -> None:
    """Add an episode to a file, which is made when it is missing.

    The line is on the disk when this returns. Several processes may write at once: each waits for the
    file's lock. What a killed writer left of its last line is cut first.

    Raises:
        TraceError: the file ends in something that is no piece of a trace, or is no file; it is left as it
            is.
        OSError: the file cannot be written; it holds what it held.
    """
    _append(path, to_line(trace))


def require_writable(path: str | os.PathLike[str]) -> None:
    """Make sure that a file can be added to; one that is not there is not made.

    Raises:
        TraceError: the file begins or ends with something that is no piece of a trace, or is no file; it is
            left as it is.
        OSError: the file cannot be written.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        folder = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, "Its folder does not exist", os.fspath(path)) from None
        with tempfile.TemporaryFile(dir=folder):
            return
    prepare(path)


def prepare(path: str | os.PathLike[str]) -> None:
    """Make a file ready to be added to, an empty one if there is none.

    Raises:
        TraceError: the file begins or ends with something that is no piece of a trace, or is no file; it is
            left as it is.
        OSError: the file cannot be written.
    """
    _require_traces(Path(path))
    _append(path, b"")


def _require_traces(path: Path) -> None:
    """See to it that a file of something else is not added to; its first line tells."""
    for number, line in _lines(path) if path.is_file() else ():
        if line.endswith(b"\n") or not _is_torn(line):
            try:
                from_line(line, run=path.stem)
            except TraceError as error:
                raise TraceError(f"{path}: line {number}: {error}; the file is left as it is") from error
        return


def _append(path: str | os.PathLike[str], line: bytes) -> None:
    import fcntl  # not on every system, and needed by writers alone

    # Opened for each line: no handle has to survive a fork or a pickle, and no lock is inherited.
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise TraceError(f"{os.fspath(path)}: cannot be written: not a regular file")
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = _mended_size(handle, path)
        try:
            with naming(path):
                if os.write(handle, line) != len(line):  # the disk is full, and a piece of it is there
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)


def _mended_size(handle: int, path: str | os.PathLike[str]) -> int:
    """Bytes of a file, after seeing to it that it ends in a line end."""
    size = os.fstat(handle).st_size
    tail = _last_piece(handle, size)
    if not tail:
        return size
    if _is_json(tail):  # whole: killed just before the line's end, or an editor took that away
        return size + os.write(handle, b"\n")
    if not _is_torn(tail):
        raise TraceError(f"{os.fspath(path)}: the last line is no piece of a trace; it is left as it is")
    os.ftruncate(handle, size - len(tail))
    return size - len(tail)


def _last_piece(handle: int, size: int) -> bytes:
    """What follows the last line end; nothing in a file that ends in one."""
    tail = b""
    while len(tail) < size and b"\n" not in tail:
        start = max(0, size - len(tail) - _BLOCK)
        tail = os.pread(handle, size - len(tail) - start, start) + tail
    return tail[tail.rfind(b"\n") + 1 :]


def _is_torn(line: bytes) -> bool:
    return line[: len(HEAD)] == HEAD[: len(line)] and not _is_json(line)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def read_traces(path: str | os.PathLike[str]) -> Traces:
    """The episodes of a file, or of all ``*.jsonl`` files of a folder by name, as `TraceFiles` reads them.

    Raises:
        TraceError: the file or folder cannot be read, or a line is no trace of this version.
    """
    found = TraceFiles(path)
    return Traces(tuple(found), found.torn)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        if path.exists() and not path.is_file():  # a device has no end, a pipe perhaps no writer
            raise TraceError(f"{path}: cannot be read: not a regular file")
        with path.open("rb") as file:  # in bytes, where nothing but a line feed ends a line
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST + 1), b""), start=1):
                if len(line) > _LONGEST:
                    raise TraceError(f"{path}: line {number}: longer than {_LONGEST} bytes, no trace")
                if line.strip():
                    yield number, line
    except TraceError:
        raise
    except (OSError, ValueError) as error:  # a path can hold a zero byte
        raise TraceError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
