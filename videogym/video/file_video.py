"""What all readers of video files share: identity, packet table, locking, forks and bad frames.

A backend adds one method, `_read`, which decodes given frames or raises. Frames are ordinals of the
packet table from here on down; above, only seconds are known.
"""

from __future__ import annotations

import functools
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import av
import numpy as np
from numpy.typing import NDArray

from videogym.video.cache import cache_root
from videogym.video.first_opening import load_or_scan
from videogym.video.identity import fingerprint, identify, require_unchanged
from videogym.video.packets import TABLE_FORMAT
from videogym.video.pixels import View
from videogym.video.signatures import refuse_playlist
from videogym.video.times import ordinals_at
from videogym.video.types import (
    DecodeTimeout,
    FrameBatch,
    Resizer,
    TruncatedVideo,
    VideoChanged,
    VideoError,
    VideoMeta,
)

_LONGEST_S = 86_400.0
OnError = Literal["raise", "nearest"]


class FileVideo(ABC):
    """A video file.

    Threads take turns, a fork opens the file anew, and pickling keeps the path and the options.

    Args:
        path: the file; a relative path is resolved now.
        cache_dir: where packet tables are kept; None means `cache_root`.
        deadline_s: seconds that opening it may take, and 0.1 s more for each MB the first time; and that
            decoding may take, see `open_video`.

    Raises:
        VideoError: the file is missing or is not a usable video.
    """

    backend: ClassVar[str]
    _closed = True  # until the constructor has worked

    def __init__(self, path: str, *, cache_dir: str | Path | None = None, deadline_s: float = 60.0) -> None:
        if not 0 < deadline_s <= _LONGEST_S:
            raise ValueError(f"deadline_s must be above 0 and at most {_LONGEST_S:g} s, got {deadline_s}")
        self._path = os.path.abspath(path)
        self._options: dict[str, Any] = {"cache_dir": cache_dir, "deadline_s": deadline_s}
        self._identity = identify(self._path)
        refuse_playlist(self._path)
        content = fingerprint(self._path, self._identity.size)
        key = f"{content}-{self._identity.mtime_ns:x}-av{av.__version__}"
        folder = cache_root() if cache_dir is None else Path(cache_dir)
        sidecar = folder / "tables" / f"{key}-{TABLE_FORMAT}.npz"
        self._table = load_or_scan(self._path, sidecar, deadline_s)
        require_unchanged(self._path, self._identity)
        self._cache_key = f"{key}-{self.backend}"
        self._meta = self._table.meta(content)
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._closed = False

    @property
    def meta(self) -> VideoMeta:
        """Facts about the video."""
        return self._meta

    @property
    def pts_s(self) -> NDArray[np.float64]:
        """(num_frames,) presentation times, seconds, strictly ascending from 0.0; read-only."""
        return self._table.pts_s

    @property
    def tick(self) -> Fraction:
        """Seconds in which the file counts its times."""
        return Fraction(*self._table.tick)

    @property
    def cache_key(self) -> str:
        """Names the pixels that this reader gives: content, modification time and decoder.

        More than the fingerprint, which a small change in the middle of a file can escape.
        """
        return self._cache_key

    def frames_at(
        self,
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None = None,
        region: tuple[float, float, float, float] | None = None,
        resizer: Resizer = "bicubic",
        on_error: OnError = "raise",
    ) -> FrameBatch:
        """The frames on display at the given instants, see `Video.frames_at`.

        Args:
            times_s: seconds, any order, repeats allowed; clamped to the video.
            size: ``(width, height)`` in pixels; None keeps the native size.
            region: ``(x0, y0, x1, y1)`` in ``[0, 1]``, cut at full resolution before resizing.
            resizer: how pixels are resampled.
            on_error: with ``"nearest"`` a frame that cannot be decoded is replaced by the nearest
                one of another group of pictures, with its own timestamp and ``damaged`` set. What a frame
                is replaced by does not depend on which others are asked for.

        Raises:
            ValueError: a time is not finite, size or region is out of range, or the video is closed.
            VideoError: the frames cannot be decoded, or the file changed.
        """
        view = View(size, region, resizer)
        asked, places = np.unique(ordinals_at(self.pts_s, times_s), return_inverse=True)
        with self._owned_lock():
            if self._closed:
                raise ValueError(f"{self._path}: the video is closed")
            self.require_unchanged()
            shown, pixels = self._read_or_replace(asked, view, on_error)
        damaged = (shown != asked) | self._table.doubtful[shown]
        if not np.array_equal(places, np.arange(len(places))):
            shown, damaged, pixels = shown[places], damaged[places], pixels[places]
        return FrameBatch(pixels, self._table.pts_s[shown], damaged)

    def doubtful(self, pts_s: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether frames with such times are marked because others are missing before them."""
        return np.asarray(self._table.doubtful[ordinals_at(self.pts_s, pts_s)])

    def require_unchanged(self) -> None:
        """Check that the file is still the one that was opened.

        Raises:
            VideoChanged: it was modified, replaced or removed.
        """
        require_unchanged(self._path, self._identity)

    def close(self) -> None:
        """Release the decoder. Closing twice is allowed."""
        if not self._closed:
            with self._owned_lock():
                self._closed = True
                self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        return functools.partial(type(self), self._path, **self._options), ()

    @abstractmethod
    def _read(self, ordinals: NDArray[np.intp], view: View) -> NDArray[np.uint8]:
        """Decode ascending, distinct frames; all of them or `VideoError`."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of the decoder; the next `_read` makes a new one."""

    def _owned_lock(self) -> threading.RLock:
        """The lock; on the far side of a fork a new one, and a new decoder too."""
        if os.getpid() != self._pid:
            # The lock may have been held by a thread that does not exist here, and the decoder shares
            # its place in the file with the parent's.
            self._pid, self._lock = os.getpid(), threading.RLock()
            self._release()
        return self._lock

    def _read_or_replace(
        self, ordinals: NDArray[np.intp], view: View, on_error: OnError
    ) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
        try:
            return ordinals, self._read_whole(ordinals, view)
        except (DecodeTimeout, VideoChanged):
            raise
        except VideoError as error:
            if on_error == "raise":
                raise
            if len(ordinals) == 1:
                found, pixels = self._nearest(int(ordinals[0]), view, error)
                return np.array([found]), pixels
        # In halves down to single frames: what is given for a frame does not depend on its company.
        halves = np.array_split(ordinals, 2)
        parts = [self._read_or_replace(half, view, on_error) for half in halves]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _read_whole(self, ordinals: NDArray[np.intp], view: View) -> NDArray[np.uint8]:
        """`_read`, but for frames of which it is known that what they refer to was lost."""
        lost = ordinals[self._table.lost[ordinals]]
        if len(lost):
            time_s = self._table.pts_s[lost[0]]
            raise TruncatedVideo(
                f"{self._path}: the frame at {time_s:.3f} s cannot be decoded (what it refers to was lost)"
            )
        return self._read(ordinals, view)

    def _nearest(self, ordinal: int, view: View, error: VideoError) -> tuple[int, NDArray[np.uint8]]:
        """The closest frame at the edge of another group that can be decoded."""
        edges = np.flatnonzero(np.diff(self._table.key_of))
        outside = np.concatenate([edges[edges < ordinal], edges[edges >= ordinal] + 1])
        distance = np.abs(self._table.pts[outside] - self._table.pts[ordinal])
        for candidate in outside[np.argsort(distance, kind="stable")]:
            try:
                return int(candidate), self._read_whole(np.array([candidate]), view)
            except VideoError:
                continue
        raise error
