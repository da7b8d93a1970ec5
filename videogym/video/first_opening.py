"""Files are opened for the first time in a child process, with a deadline and a bound on memory.

A few bytes can make a demuxer allocate gigabytes or read for hours, and no option of libav bounds either.
So what nobody has opened yet is read to its end elsewhere; what is stored of it, its packet table, says
that this process can open it, too. A child costs a fraction of a second to start and then serves any number
of files.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from videogym.video import types
from videogym.video.cache import publish_file
from videogym.video.packets import PacketTable, load_table, save_table, unpack_table
from videogym.video.types import DecodeTimeout, TruncatedVideo, UnreadableVideo, VideoError, VideoTooLarge

# -P: the folder of the child holds a types.py, which must not hide Python's.
CHILD = (sys.executable, "-P", str(Path(__file__).with_name("scan_child.py")))
MOST_BYTES = 1 << 30  # that opening and reading a file may allocate; a day at 60 frames a second takes 0.7

_SLOWEST = 10e6  # bytes a second of a disk or a network that is waited for
_START_S = 120.0  # a busy machine may need long to start a process
_MOST_HOLES = 4 << 30  # bytes of zeros, read in seconds
_MOST_IDLE = 2  # children that are kept
_CHUNK = 1 << 20


def load_or_scan(path: str, sidecar: Path, deadline_s: float) -> PacketTable:
    """The table from its sidecar, else from the file; then the sidecar is written if it can be.

    A sidecar that is damaged is made again. A cache that cannot be written only costs time.

    Args:
        path: the file.
        sidecar: where its table is kept.
        deadline_s: seconds after which reading the file is given up, and 0.1 s more for each MB of it.

    Raises:
        DecodeTimeout: it was given up.
        VideoTooLarge: it asks for more memory than there is for it.
        VideoError: the file is not a usable video.
        ChildProcessError: no process can be started.
    """
    table = load_table(sidecar)
    if table is None:
        table = read = scan_apart(path, deadline_s)
        try:
            publish_file(sidecar, lambda file: save_table(file, read))
        except OSError:
            pass
    return table


def scan_apart(path: str, deadline_s: float) -> PacketTable:
    """The packet table of a file, read in another process; raises as `load_or_scan`."""
    on_disk = _refuse_holes(path)
    deadline_s += on_disk / _SLOWEST
    for is_last in (False, True):
        # The second is new: all that are idle may have ended, as they do when nobody asks for a while.
        child = (None if is_last else _idle_child()) or _Child()
        try:
            fields, arrays = child.ask(path, deadline_s)
            break
        except _Died as death:  # it may have been ended from outside, or while it was idle
            if is_last:
                raise UnreadableVideo(f"{path}: the process that read it died ({death})") from None
        except BaseException:  # Ctrl-C too: its next answer would not be to our next question
            child.end()
            raise
    _keep(child)
    if "fault" in fields:
        raise RuntimeError(f"{path}: {fields['fault']}")
    if "error" in fields:
        raise _refusal(path, fields)
    return unpack_table(fields["table"], arrays)


def _refusal(path: str, fields: dict[str, Any]) -> VideoError:
    if fields["error"] == "MemoryError":
        return VideoTooLarge(f"{path}: asks for more than {MOST_BYTES >> 20} MB of memory to be opened")
    kind: type[VideoError] = getattr(types, fields["error"])
    return kind(fields["message"])


def _refuse_holes(path: str) -> int:
    """Bytes of a file that are on the disk; what is mostly holes was never fetched, and is long to read.

    Raises:
        TruncatedVideo: gigabytes of it were never written.
    """
    status = os.stat(path)
    on_disk = min(getattr(status, "st_blocks", 0) * 512, status.st_size) or status.st_size
    if status.st_size - on_disk > _MOST_HOLES and hasattr(os, "SEEK_HOLE"):
        holes = _bytes_in_holes(path, status.st_size)  # compression, too, leaves less on a disk
        if holes > _MOST_HOLES:
            raise TruncatedVideo(
                f"{path}: at least {holes} of its {status.st_size} bytes were never written, as in an "
                "unfinished download"
            )
    return on_disk


def _bytes_in_holes(path: str, size: int) -> int:
    holes, place = 0, 0
    with open(path, "rb", buffering=0) as file:
        while place < size and holes <= _MOST_HOLES:
            start = os.lseek(file.fileno(), place, os.SEEK_HOLE)
            try:
                place = os.lseek(file.fileno(), start, os.SEEK_DATA) if start < size else size
            except OSError:  # nothing but a hole up to the end
                place = size
            holes += place - start
    return holes


class _Died(Exception):
    """The child is gone; how it died."""


class _Child:
    """A process that scans files, and the pipes to it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        try:
            self._process = subprocess.Popen(
                (*CHILD, str(MOST_BYTES)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
            self._receive("", _START_S)
        except (OSError, _Died, DecodeTimeout) as error:
            raise ChildProcessError(f"no process can be started to open videos in ({error})") from error

    def ask(self, path: str, deadline_s: float) -> tuple[dict[str, Any], bytes]:
        """Its answer about a file.

        Raises:
            DecodeTimeout: there was none within the deadline; the process is dead.
            _Died: the process died.
        """
        assert self._process.stdin is not None
        line = json.dumps({"path": path, "deadline_s": deadline_s}).encode() + b"\n"
        try:
            self._process.stdin.write(line)
        except OSError:
            pass  # it is gone; the missing answer says so
        return self._receive(path, deadline_s)

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _receive(self, path: str, deadline_s: float) -> tuple[dict[str, Any], bytes]:
        due, received, wanted = time.monotonic() + deadline_s, bytearray(), None
        fields: dict[str, Any] = {}
        while wanted is None or len(received) < wanted:
            received += self._some(path, due, deadline_s)
            if wanted is None and b"\n" in received:
                line, _, received = received.partition(b"\n")
                fields = json.loads(line)
                wanted = fields["bytes"]
        return fields, bytes(received)

    def _some(self, path: str, due: float, deadline_s: float) -> bytes:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], max(0.0, due - time.monotonic()))[0]:
            self.end()
            raise DecodeTimeout(f"{path}: not read within {deadline_s:.1f} s")
        some = os.read(self._process.stdout.fileno(), _CHUNK)
        if not some:
            code = self._process.wait()
            self._close()
            raise _Died(signal.Signals(-code).name if code < 0 else f"code {code}")
        return some


_idle: list[_Child] = []  # their owner's, which a fork changes


def _idle_child() -> _Child | None:
    while _idle:
        child = _idle.pop()
        if child.owner == os.getpid():
            return child
        child._close()  # our ends of the pipes; the process is our parent's
    return None


def _keep(child: _Child) -> None:
    if len(_idle) < _MOST_IDLE:
        _idle.append(child)
    else:
        child.end()


@atexit.register
def _end_all() -> None:
    while child := _idle_child():
        child.end()
