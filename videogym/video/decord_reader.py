"""The decord backend: the field's habit, in a process that can be killed.

decord counts frames and has no reliable times, so it serves only files on which its count and its
times agree with the packet table, and on which it shows the same pictures as PyAV where groups of
pictures start. MPEG-TS, edit lists, open groups and gradual refresh are refused: there it returns
wrong frames without a word.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogym.video.file_video import FileVideo
from videogym.video.orientation import Orientation
from videogym.video.pixels import Renderer, View
from videogym.video.pyav_reader import PyAVVideo
from videogym.video.signatures import has_signature
from videogym.video.types import DecodeTimeout, TruncatedVideo, UnreadableVideo, VideoError

# -P: the folder of this file holds a types.py, which must not hide Python's.
DECORD_CHILD = (sys.executable, "-P", str(Path(__file__).with_name("decord_child.py")))

_DECORD2 = (
    "decord2 is installed. It overwrites the package folder of decord and returns wrong frames under load: "
    "run `pip uninstall decord2 decord`, then `pip install 'videogym[decord]'`"
)
_GRACE_S = 5.0  # the child ends itself this long after we should have killed it
_TIME_TOLERANCE_S = 2e-3  # decord tells times as 32-bit floats
_PROBED = 4  # frames from the start of a group
_PIXEL_TOLERANCE = 4.0  # mean difference of two decoders on the same picture is below 1
_NOISE = 0.5  # by which a picture may come nearer to its neighbour's, where nothing moves


class DecordVideo(FileVideo):
    """A video file decoded by decord in a child process.

    Args:
        path: the file; a relative path is resolved now.
        cache_dir: where packet tables are kept; None means the default.
        deadline_s: seconds that opening, or any 8 frames of a read, may take. Then the process is
            killed, and the next read starts a new one.

    Raises:
        ImportError: decord is not installed, or decord2 is.
        DecodeTimeout: decord did not come back.
        VideoError: the file is missing, not usable, or not one on which decord is exact.
    """

    backend = "decord"

    def __init__(self, path: str, *, cache_dir: str | Path | None = None, deadline_s: float = 60.0) -> None:
        require_decord()
        super().__init__(path, cache_dir=cache_dir, deadline_s=deadline_s)
        self._deadline_s = deadline_s
        self._child: _Child | None = None
        self._renderer = Renderer(Orientation(), (self._meta.width, self._meta.height))
        self._require_exact()

    @property
    def child_pid(self) -> int | None:
        """Process that decord runs in; None when there is none at the moment."""
        return None if self._child is None else self._child.pid

    def _read(self, ordinals: NDArray[np.intp], view: View) -> NDArray[np.uint8]:
        width, height = view.output_size(self._meta.width, self._meta.height)
        pixels = np.empty((len(ordinals), height, width, 3), dtype=np.uint8)
        for row, image in enumerate(self._images(ordinals)):
            pixels[row] = self._renderer.cut(image, view)
        return pixels

    def _images(self, ordinals: NDArray[np.intp]) -> Iterator[NDArray[np.uint8]]:
        """Whole frames at native size."""
        try:
            child = self._child or self._start()
            child.send(ordinals=ordinals.tolist())
            missing = len(ordinals)
            while missing:
                answer, body = child.receive()
                frames = np.frombuffer(body, dtype=np.uint8).reshape(answer["shape"])
                yield from frames
                missing -= len(frames)
        except BaseException:  # Ctrl-C too, and a caller that wants no more frames
            self._release()  # whatever it was doing, its next answer would not be to our next question
            raise

    def _start(self) -> _Child:
        """Start a process and check that decord sees the same frames at the same times as we do."""
        self._child = child = _Child(self._path, self._deadline_s)
        child.send(path=self._path)
        try:
            answer, body = child.receive()
        except TruncatedVideo as error:
            raise UnreadableVideo(str(error)) from error
        _require_not_decord2(answer["version"])
        starts = np.frombuffer(body, dtype="<f8")
        pts_s = self._table.pts_s
        if len(starts) != len(pts_s):
            raise self._refusal(f"it counts {len(starts)} frames, there are {len(pts_s)}")
        if np.abs(starts - starts[0] - pts_s).max() > _TIME_TOLERANCE_S:
            raise self._refusal("it gives other times")
        return child

    def _require_exact(self) -> None:
        """Refuse files on which decord is known, or seen, to return wrong frames."""
        if self._table.container == "mpegts":
            raise self._refusal("it is off by a group of pictures in MPEG-TS")
        if not has_signature(self._path, self._table.container):
            raise self._refusal(
                "it would look for itself what the file is, which does not begin as it should"
            )
        if self._table.open_groups:
            raise self._refusal("it decodes open groups of pictures wrongly")
        with PyAVVideo(self._path, **self._options) as exact:
            for ordinals in _probes(self._table.key_of):
                probe = self._table.pts_s[ordinals].tolist()
                due, shown = (_sample(video.frames_at(probe).pixels) for video in (exact, self))
                away = np.abs(shown[:, None] - due[None, :]).mean(axis=(2, 3, 4))  # (shown, due)
                wrong = (away.diagonal() > _PIXEL_TOLERANCE) | (away.diagonal() > away.min(axis=1) + _NOISE)
                if wrong.any():
                    time_s = probe[int(wrong.argmax())]
                    raise self._refusal(f"it shows another picture at {time_s:.3f} s")

    def _refusal(self, reason: str) -> UnreadableVideo:
        return UnreadableVideo(f"{self._path}: decord is not exact on it ({reason}); use backend 'pyav'")

    def _release(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()


class _Child:
    """A process that runs decord, and the pipes to it."""

    def __init__(self, path: str, deadline_s: float) -> None:
        self._path, self._deadline_s = path, deadline_s
        self._owner = os.getpid()
        self._expired = False
        self._process = subprocess.Popen(
            DECORD_CHILD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, **request: Any) -> None:
        """Put a request; its answers must be taken before the next."""
        assert self._process.stdin is not None
        line = json.dumps(request | {"deadline_s": self._deadline_s + _GRACE_S})
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone; the missing answer says so

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """One answer: its fields and its bytes.

        Raises:
            DecodeTimeout: it did not come within the deadline; the process is dead.
            UnreadableVideo: the process died.
            TruncatedVideo: decord raised an error.
        """
        assert self._process.stdout is not None
        watch = threading.Timer(self._deadline_s, self._expire)
        watch.start()
        try:
            line = self._process.stdout.readline()
            answer = json.loads(line) if line.endswith(b"\n") else {"bytes": 1}
            body = self._process.stdout.read(answer.get("bytes", 0))
        finally:
            watch.cancel()
        if len(body) < answer.get("bytes", 0):
            raise self._death()
        if "error" in answer:
            raise TruncatedVideo(f"{self._path}: decord: {answer['error']}")
        return answer, body

    def kill(self) -> None:
        """End the process, whatever it is doing; in a fork, leave it to its owner."""
        if os.getpid() == self._owner:
            self._process.kill()
        else:
            self._process.returncode = 0
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # a request it never took
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _expire(self) -> None:
        self._expired = True
        self._process.kill()

    def _death(self) -> VideoError:
        if self._expired:
            return DecodeTimeout(f"{self._path}: decord did not answer within {self._deadline_s} s")
        return UnreadableVideo(f"{self._path}: decord's process died with code {self._process.wait()}")


def _probes(key_of: NDArray[np.int32]) -> list[NDArray[np.intp]]:
    """Frames to be compared, read by read: where groups begin, and after, where B-frames come out of order.

    Of four groups together: the first two, one in the middle and the last. Then two of those frames alone.
    """
    starts = np.flatnonzero(np.diff(key_of, prepend=-1))
    chosen = np.unique([0, min(1, len(starts) - 1), len(starts) // 2, len(starts) - 1])
    together = np.unique(np.add.outer(starts[chosen], range(_PROBED)).clip(max=len(key_of) - 1))
    return [together, together[len(together) // 2 :][:1], together[:1]]


def _sample(pixels: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Some of the pixels of ``(N, H, W, 3)``, at most 180 rows and columns."""
    rows, columns = (max(1, side // 90) for side in pixels.shape[1:3])
    return pixels[:, ::rows, ::columns].astype(np.int16)


def require_decord() -> None:
    """Check that decord is installed and has not been overwritten by decord2.

    Raises:
        ImportError: it is not, or it has.
    """
    try:
        importlib.metadata.version("decord2")
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        raise ImportError(_DECORD2)
    try:
        importlib.metadata.version("decord")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError("the decord backend needs decord: pip install 'videogym[decord]'") from None


def _require_not_decord2(version: str) -> None:
    # Its files can outlive its uninstalled metadata.
    if not version.startswith("0."):
        raise ImportError(_DECORD2)
