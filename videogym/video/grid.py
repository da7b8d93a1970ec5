"""A grid: frames of one video at one size, decoded once and shared by every process that reads them.

Raw uint8 in a ``.npy`` file, so that pages are shared and a frame is bit-identical to a decoded one.
A grid serves only the very timestamps it holds, and a frame only while its checksum is the one that was
stored: a grid that is damaged, or of another video, costs a warning and the decoding it would have spared.
Read, not mapped: a file that is cut meanwhile is then an error and not a killed process. Knows nothing
about decoding: its maker hands it frames.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from videogym.video.cache import publish_folder
from videogym.video.pixels import View

_log = logging.getLogger(__name__)
_COARSE_NS = 2_000_000_000  # two seconds, the coarsest times of files that are in use


class DamagedGrid(ValueError):
    """A grid is not what was written."""


class Grid:
    """An open grid, read-only.

    Args:
        folder: where `write_grid` put it.
        size: ``(width, height)`` that its frames must have; None takes any.

    Raises:
        DamagedGrid: the files are damaged, do not belong together, or are of another grid.
        OSError: they cannot be read.
    """

    def __init__(self, folder: Path, size: tuple[int, int] | None = None) -> None:
        self.folder = folder
        try:
            self._pts_s = _array(folder / "pts_s.npy")
            self._sums = _array(folder / "sums.npy")
            with open(folder / "pixels.npy", "rb") as file:
                shape, dtype, length = _shape_of(file)
                self._start = file.tell()
        except OSError:
            raise
        except Exception as error:  # numpy lets through what its parts raise, TokenError too
            raise DamagedGrid(f"its files cannot be read: {error}") from error
        count = len(self._pts_s) if self._pts_s.ndim == 1 and len(self._pts_s) else -1
        frame = shape[1:] if size is None else (size[1], size[0], 3)
        if shape != (count, *frame) or len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
            raise DamagedGrid(f"its pixels have the shape {shape} and are {dtype}")
        self._frame_bytes = math.prod(frame)
        if self._sums.shape != (count,) or length != self._start + count * self._frame_bytes:
            raise DamagedGrid("its files have other lengths")
        if self._pts_s.dtype != np.float64 or folder.name != _name(self._pts_s):
            raise DamagedGrid("its times are not those that it was made for")
        # A file as it was, and its rows whose checksum was right; threads replace both at once.
        self._checked: tuple[tuple[int, ...], set[int]] = ((), set())

    def fill(
        self, pixels: NDArray[np.uint8], pts_s: NDArray[np.float64], missing: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """Copy the frames that are held into their places.

        Args:
            pixels: ``(N, H, W, 3)``, written to.
            pts_s: ``(N,)`` their timestamps, seconds.
            missing: places that still need a frame.

        Returns:
            The places that still do.

        Raises:
            DamagedGrid: a frame is not the one that was stored.
            OSError: it cannot be read.
        """
        rows = np.minimum(np.searchsorted(self._pts_s, pts_s[missing]), len(self._pts_s) - 1)
        held = self._pts_s[rows] == pts_s[missing]
        if held.any():
            with open(self.folder / "pixels.npy", "rb", buffering=0) as file:
                checked = self._checked_rows(file)
                for place, row in zip(missing[held].tolist(), rows[held].tolist(), strict=True):
                    self._read(file, row, pixels[place], checked)
        return missing[~held]

    def require_whole(self) -> None:
        """Check every frame.

        Raises:
            DamagedGrid: one is not the one that was stored.
            OSError: it cannot be read.
        """
        frame = np.empty(self._frame_bytes, dtype=np.uint8)
        with open(self.folder / "pixels.npy", "rb", buffering=0) as file:
            for row in range(len(self._pts_s)):
                self._read(file, row, frame, set())

    def _checked_rows(self, file: FileIO) -> set[int]:
        """Rows that need no check, to be added to; none that was read before the file was last written to.

        A checksum is taken once for each frame of a file that stays as it is: it costs ten times as much
        as reading. Times of files are coarse, so a file that has just changed is checked at every reading.
        """
        facts = os.fstat(file.fileno())
        state = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        known, checked = self._checked
        if state != known or time.time_ns() - facts.st_ctime_ns < _COARSE_NS:
            checked = set()
            self._checked = (state, checked)
        return checked

    def _read(self, file: FileIO, row: int, frame: NDArray[np.uint8], checked: set[int]) -> None:
        start = self._start + row * self._frame_bytes
        whole = os.preadv(file.fileno(), [frame.data], start) == self._frame_bytes
        if not whole or (
            row not in checked and self._sums[row] != _sum(self.folder, frame, self._pts_s[row])
        ):
            raise DamagedGrid(f"frame {row} is not the one that was stored")
        checked.add(row)


def _array(path: Path) -> NDArray[Any]:
    """An array's file, and no archive of them."""
    with open(path, "rb") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _shape_of(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape and type that an array's file tells, whose data is next, and the file's bytes."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of its format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran:
        raise ValueError("another order of its axes")
    return shape, dtype, os.fstat(file.fileno()).st_size


def _name(pts_s: NDArray[np.float64]) -> str:
    """What the folder of a grid of some times is called."""
    return hashlib.blake2b(pts_s.tobytes(), digest_size=8).hexdigest()


def _sum(folder: Path, content: Any, pts_s: float) -> int:
    """Checksum of a frame, of its time, and of the video, size and resizer that it is of."""
    return zlib.crc32(content, zlib.crc32(f"{folder.parent.name} {float(pts_s)!r}".encode()))


class Grids:
    """All grids below a folder, opened when they are asked for; threads may share them.

    Args:
        root: the folder; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._opened: dict[Path, tuple[int, tuple[Grid, ...]]] = {}

    def folder(self, key: str, view: View) -> Path:
        """Where the grids of one video, size and resizer lie."""
        width, height = view.size or (0, 0)
        return self._root / f"{key}-{width}x{height}-{view.resizer}"

    def of(self, key: str, view: View) -> tuple[Grid, ...]:
        """Grids that may hold frames of a view; new ones are found when their folder's time changes."""
        if view.region is not None or view.size is None:
            return ()
        folder = self.folder(key, view)
        try:
            changed_ns = folder.stat().st_mtime_ns
            known = self._opened.get(folder)
            if known is not None and known[0] == changed_ns:
                return known[1]
            entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
        except OSError as error:
            # None has been built, or `index` or a person removes them at this moment.
            if os.path.lexists(folder):
                warn_damaged(folder, error)
            return ()
        grids = tuple(grid for entry in entries if (grid := _open(entry, view.size)) is not None)
        self._opened[folder] = (changed_ns, grids)
        return grids

    def fill(
        self,
        key: str,
        view: View,
        pixels: NDArray[np.uint8],
        pts_s: NDArray[np.float64],
        missing: NDArray[np.intp],
    ) -> NDArray[np.intp]:
        """Copy the frames that some grid holds, see `Grid.fill`; a damaged grid is told and forgotten."""
        for grid in self.of(key, view):
            try:
                missing = grid.fill(pixels, pts_s, missing)
            except (OSError, DamagedGrid) as error:
                warn_damaged(grid.folder, error)
                self._forget(grid)
        return missing

    def _forget(self, grid: Grid) -> None:
        """Use a grid no more until its folder changes; another thread may have forgotten it already."""
        folder = grid.folder.parent
        changed_ns, grids = self._opened.get(folder, (0, ()))
        if grid in grids:
            self._opened[folder] = (changed_ns, tuple(other for other in grids if other is not grid))

    def clear(self) -> None:
        """Let go of all grids."""
        self._opened.clear()


def _open(folder: Path, size: tuple[int, int] | None = None) -> Grid | None:
    """The grid in a folder; None, and a warning, where it is damaged, and decoding stands in for it."""
    try:
        return Grid(folder, size)
    except (OSError, DamagedGrid) as error:
        if os.path.lexists(folder):
            warn_damaged(folder, error)
        return None


def warn_damaged(folder: Path, error: Exception) -> None:
    """Say that a grid is not used."""
    _log.warning("%s is damaged and not used; `videogym index` makes it again: %s", folder, error)


def write_grid(parent: Path, pts_s: NDArray[np.float64], batches: Iterator[NDArray[np.uint8]]) -> Path:
    """Store frames so that they appear all at once or not at all.

    A grid that is there already is read through, and made again where it is damaged.

    Args:
        parent: folder of all grids of one video, size and resizer.
        pts_s: timestamps, strictly ascending, seconds; at least one.
        batches: the frames in order, ``(n, H, W, 3)`` each; not used when the grid is there already.

    Returns:
        The grid's folder.
    """
    folder = parent / _name(pts_s)
    was_there = os.path.lexists(folder)
    try:
        if was_there:
            Grid(folder).require_whole()
            return folder
    except (OSError, DamagedGrid) as error:
        # One that appears meanwhile is another builder's, and whole.
        warn_damaged(folder, error)
        with contextlib.suppress(FileNotFoundError):  # another builder removes it too
            folder.unlink() if folder.is_symlink() or not folder.is_dir() else shutil.rmtree(folder)
    publish_folder(folder, lambda temporary: _fill(temporary, folder, pts_s, batches))
    return folder


def _fill(
    temporary: Path, folder: Path, pts_s: NDArray[np.float64], batches: Iterator[NDArray[np.uint8]]
) -> None:
    np.save(temporary / "pts_s.npy", pts_s)
    sums: list[int] = []
    # Written, not mapped: a full disk is then an error and not a killed process.
    with open(temporary / "pixels.npy", "wb") as file:
        for number, pixels in enumerate(batches):
            if number == 0:
                shape = (len(pts_s), *pixels.shape[1:])
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            for frame in np.ascontiguousarray(pixels):
                sums.append(_sum(folder, frame.data, pts_s[len(sums)]))
                file.write(frame.data)
        file.flush()
        os.fsync(file.fileno())
    np.save(temporary / "sums.npy", np.array(sums, dtype=np.uint32))
