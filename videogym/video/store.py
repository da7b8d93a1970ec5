"""Frames from memory, from a shared grid, or from a decoder: always the same pixels.

One `FrameStore` per process: a small pool of open videos and a cache of frames it has served. Grids
on disk are shared by all processes. Where a frame comes from can be told by the time it takes and by
nothing else.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from videogym.video.addresses import PLANTED_PREFIX, is_address
from videogym.video.backends import Backend, open_video
from videogym.video.cache import cache_root
from videogym.video.decoding_time import Spent, counted
from videogym.video.file_video import FileVideo
from videogym.video.frame_cache import FrameCache
from videogym.video.grid import Grids, write_grid
from videogym.video.pixels import View
from videogym.video.planted import PlantedVideo, open_planted
from videogym.video.times import ordinals_at
from videogym.video.types import FrameBatch, Resizer, Video, VideoChanged, VideoNotFound

_BATCH = 64  # frames decoded at a time, so that a long skim is not held twice


class _ProcessLock:
    """A lock of all stores of a process that are lent from one."""

    def __init__(self) -> None:
        self._pid, self._lock = os.getpid(), threading.RLock()

    def owned(self) -> threading.RLock:
        """The lock; on the far side of a fork a new one, since its holder may not exist there."""
        if os.getpid() != self._pid:
            self._pid, self._lock = os.getpid(), threading.RLock()
        return self._lock


class FrameStore:
    """Serves frames of many videos; threads take turns, pickling keeps the options only.

    Args:
        cache_dir: where packet tables and grids are kept; None means ``$VIDEOGYM_CACHE`` or
            ``~/.cache/videogym``.
        lru_bytes: most bytes of frames kept in this process; 0 keeps none.
        backend: who decodes files.
        video_root: relative sources lie below it and nothing outside it is opened; None: no limit.
        deadline_s: seconds after which opening or decoding is given up, see `open_video`.
        open_videos: most videos kept open; a reader holds some megabytes.

    Attributes:
        spent: seconds of opening and decoding for the one to whom the store is `lent`; else None.
    """

    spent: Spent | None = None

    def __init__(
        self,
        cache_dir: str | Path | None = None,
        *,
        lru_bytes: int = 256 << 20,
        backend: Backend = "pyav",
        video_root: str | Path | None = None,
        deadline_s: float = 60.0,
        open_videos: int = 8,
    ) -> None:
        if open_videos < 1:
            raise ValueError(f"open_videos must be at least 1, got {open_videos}")
        self._options: dict[str, Any] = {
            "cache_dir": cache_dir,
            "lru_bytes": lru_bytes,
            "backend": backend,
            "video_root": video_root,
            "deadline_s": deadline_s,
            "open_videos": open_videos,
        }
        self._grids = Grids((cache_root() if cache_dir is None else Path(cache_dir)) / "grids")
        self._root = None if video_root is None else os.path.realpath(video_root)
        self._videos: OrderedDict[str, Video] = OrderedDict()
        self._frames = FrameCache(lru_bytes)
        self._lock = _ProcessLock()

    def open(self, source: str | os.PathLike[str]) -> Video:
        """An open video, shared with all other callers; do not close it.

        Args:
            source: path, below ``video_root`` if there is one, or a ``synthetic:`` or ``planted-video:``
                address; files that the latter names lie below ``video_root`` too.

        Raises:
            VideoNotFound: it does not exist, or lies outside ``video_root``.
            VideoChanged: the file changed since it was opened; the next call opens it anew.
            VideoError: it is not a usable video.
        """
        with counted(self.spent), self._lock.owned():
            address = self._resolve(os.fspath(source))
            video = self._videos.get(address)
            if isinstance(video, FileVideo | PlantedVideo):
                try:
                    video.require_unchanged()
                except VideoChanged:
                    del self._videos[address]
                    raise
            if video is None:
                video = self._videos[address] = self._open(address)
            self._videos.move_to_end(address)
            if len(self._videos) > self._options["open_videos"]:
                # Dropped, not closed: a caller may still hold it, and the last one to let go closes it.
                self._videos.popitem(last=False)
            return video

    def located(self, path: str) -> str:
        """Where a file is, of a video, a picture or anything else.

        Raises:
            VideoNotFound: it lies outside ``video_root``.
        """
        return self._resolve(path)

    def _open(self, address: str) -> Video:
        if address.startswith(PLANTED_PREFIX):
            # Many are planted into one file: they share its reader.
            return open_planted(address, self.open, self._resolve, owned=False)
        return open_video(
            address,
            backend=self._options["backend"],
            cache_dir=self._options["cache_dir"],
            deadline_s=self._options["deadline_s"],
        )

    def frames(
        self,
        source: str | os.PathLike[str],
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None,
        region: tuple[float, float, float, float] | None = None,
        resizer: Resizer = "bicubic",
    ) -> FrameBatch:
        """The frames on display at the given instants, see `Video.frames_at`.

        Args:
            source: as for `open`.
            times_s: seconds, any order, repeats allowed; clamped to the video.
            size: ``(width, height)`` in pixels; None keeps the native size.
            region: ``(x0, y0, x1, y1)`` in ``[0, 1]``, cut at full resolution before resizing.
            resizer: how pixels are resampled.

        Returns:
            One frame per instant, in the order asked; the pixels belong to the caller.

        Raises:
            ValueError: a time is not finite, or size or region is out of range.
            VideoError: the frames cannot be decoded, or the file changed.
        """
        view = View(size, region, resizer)
        with counted(self.spent):
            video = self.open(source)
            key = _pixel_key(video)
            shown = video.pts_s[ordinals_at(video.pts_s, times_s)]
            distinct, places = np.unique(shown, return_inverse=True)
            pixels = self._collect(video, key, distinct, view)
            if not np.array_equal(places, np.arange(len(places))):
                pixels = pixels[places]
            return FrameBatch(pixels, shown, _doubtful(video, shown))

    def build_grid(
        self,
        source: str | os.PathLike[str],
        *,
        size: tuple[int, int],
        times_s: Sequence[float] | None = None,
        fps: float | None = None,
        resizer: Resizer = "bicubic",
        progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """Decode frames once, for every process that uses the same cache directory.

        Two processes may build the same grid at once, and a builder may be killed: others see a whole
        grid or none. Builders' leftovers are removed after an hour.

        Args:
            source: as for `open`.
            size: ``(width, height)`` in pixels.
            times_s: instants whose frames are kept, for instance an episode's pool.
            fps: instead of ``times_s``, frames a second over the whole video.
            resizer: how pixels are resampled.
            progress: called with frames done and frames in all, after every batch.

        Returns:
            The grid's folder.

        Raises:
            ValueError: not exactly one of ``times_s`` and ``fps``, or one is out of range.
            VideoError: a frame cannot be decoded.
            OSError: the cache directory cannot be written.
        """
        video = self.open(source)
        key = _pixel_key(video)
        view = View(size, None, resizer)
        pts_s = _distinct_pts(video, times_s, fps)

        def batches() -> Iterator[NDArray[np.uint8]]:
            for start in range(0, len(pts_s), _BATCH):
                chunk = pts_s[start : start + _BATCH]
                yield _decode(video, chunk, view)
                if progress is not None:
                    progress(start + len(chunk), len(pts_s))

        return write_grid(self._grids.folder(key, view), pts_s, batches())

    def lent(self) -> FrameStore:
        """This store for one of several in this process who share videos and frames; it counts `spent`."""
        lent = object.__new__(type(self))
        vars(lent).update(vars(self), spent=Spent())
        return lent

    def close(self) -> None:
        """Close all videos and forget all frames. The store can be used again."""
        with self._lock.owned():
            while self._videos:
                self._videos.popitem()[1].close()
            self._frames.clear()
            self._grids.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        return functools.partial(type(self), **self._options), ()

    def _resolve(self, source: str) -> str:
        """Address of a source; refuses a way out of ``video_root``, links included."""
        if is_address(source) or self._root is None:
            return source
        try:
            path = os.path.realpath(os.path.join(self._root, source))
        except ValueError as error:  # a NUL, or a letter that no file name can hold
            raise VideoNotFound(f"{source!r}: {error}") from error
        if os.path.commonpath([self._root, path]) != self._root:
            raise VideoNotFound(f"{source!r} lies outside video_root {self._root}")
        return path

    def _collect(self, video: Video, key: str, pts_s: NDArray[np.float64], view: View) -> NDArray[np.uint8]:
        """Distinct frames: from grids, then from memory, and the rest decoded and remembered."""
        width, height = view.output_size(video.meta.width, video.meta.height)
        pixels = np.empty((len(pts_s), height, width, 3), dtype=np.uint8)
        missing = np.arange(len(pts_s))
        missing = self._grids.fill(key, view, pixels, pts_s, missing)
        if isinstance(video, PlantedVideo):
            # Frames of the file are kept, whatever is planted into it; drawing costs less than keeping.
            source, times = video.source, pts_s[missing]
            drawn = self._collect(source, _pixel_key(source), times, view)
            video.draw(drawn, times, view)
            pixels[missing] = drawn
            return pixels
        with self._lock.owned():
            missing = missing[[not self._frames.copy((key, pts_s[i], view), pixels[i]) for i in missing]]
        for start in range(0, len(missing), _BATCH):
            chunk = missing[start : start + _BATCH]
            pixels[chunk] = _decode(video, pts_s[chunk], view)
            with self._lock.owned():
                for i in chunk:
                    self._frames.add((key, pts_s[i], view), pixels[i])
        return pixels


def _pixel_key(video: Video) -> str:
    """Names the pixels of a video."""
    return video.cache_key if isinstance(video, FileVideo | PlantedVideo) else video.meta.fingerprint


def _doubtful(video: Video, pts_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The marks that a read of these frames would give them."""
    if isinstance(video, FileVideo | PlantedVideo):
        return video.doubtful(pts_s)
    return np.zeros(len(pts_s), dtype=np.bool_)


def _decode(video: Video, pts_s: NDArray[np.float64], view: View) -> NDArray[np.uint8]:
    return video.frames_at(pts_s.tolist(), size=view.size, region=view.region, resizer=view.resizer).pixels


def _distinct_pts(video: Video, times_s: Sequence[float] | None, fps: float | None) -> NDArray[np.float64]:
    """Timestamps of the frames on display at the times asked for, each once."""
    if (times_s is None) == (fps is None):
        raise ValueError("a grid needs either times_s or fps")
    if fps is not None:
        if not fps > 0:
            raise ValueError(f"fps must be positive, got {fps}")
        times_s = (np.arange(math.ceil(video.meta.duration_s * fps)) / fps).tolist()
    if times_s is None or len(times_s) == 0:
        raise ValueError("a grid needs at least one time")
    return video.pts_s[np.unique(ordinals_at(video.pts_s, times_s))]
