"""A grid: frames of one video at one size, decoded once and shared by every process that maps them.

Raw uint8 in a ``.npy`` file, so that pages are shared and a frame is bit-identical to a decoded one.
A grid serves only the very timestamps it holds. Knows nothing about decoding: its maker hands it frames.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videogym.video.cache import publish_folder
from videogym.video.pixels import View


class Grid:
    """An open grid, read-only.

    Args:
        folder: where `write_grid` put it.

    Raises:
        ValueError: the files do not belong together or are damaged.
        OSError: they cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._pts_s = np.load(folder / "pts_s.npy", allow_pickle=False)
        mapped = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        self._pixels = mapped.view(np.ndarray)  # rows of a memmap are slow to make
        if mapped.dtype != np.uint8 or mapped.shape[:1] != self._pts_s.shape:
            raise ValueError(f"{folder}: damaged grid")

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
        """
        rows = np.minimum(np.searchsorted(self._pts_s, pts_s[missing]), len(self._pts_s) - 1)
        held = self._pts_s[rows] == pts_s[missing]
        for place, row in zip(missing[held].tolist(), rows[held].tolist(), strict=True):
            pixels[place] = self._pixels[row]
        return missing[~held]


class Grids:
    """All grids below a folder, opened when they are asked for.

    Args:
        root: the folder; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._opened: dict[Path, tuple[int, list[Grid]]] = {}

    def folder(self, key: str, view: View) -> Path:
        """Where the grids of one video, size and resizer lie."""
        width, height = view.size or (0, 0)
        return self._root / f"{key}-{width}x{height}-{view.resizer}"

    def of(self, key: str, view: View) -> list[Grid]:
        """Grids that may hold frames of a view; new ones are found when their folder's time changes."""
        if view.region is not None or view.size is None:
            return []
        folder = self.folder(key, view)
        try:
            changed_ns = folder.stat().st_mtime_ns
        except OSError:
            return []
        known = self._opened.get(folder)
        if known is None or known[0] != changed_ns:
            entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
            grids = [grid for grid in map(_open, entries) if grid is not None]
            known = self._opened[folder] = (changed_ns, grids)
        return known[1]

    def clear(self) -> None:
        """Let go of all files."""
        self._opened.clear()


def _open(folder: Path) -> Grid | None:
    """The grid in a folder; None when there is none or it is damaged, and decoding stands in for it."""
    try:
        return Grid(folder)
    except (OSError, ValueError, EOFError):
        return None


def write_grid(parent: Path, pts_s: NDArray[np.float64], batches: Iterator[NDArray[np.uint8]]) -> Path:
    """Store frames so that they appear all at once or not at all.

    Args:
        parent: folder of all grids of one video, size and resizer.
        pts_s: timestamps, strictly ascending, seconds; at least one.
        batches: the frames in order, ``(n, H, W, 3)`` each; not used when the grid is there already.

    Returns:
        The grid's folder.
    """
    folder = parent / hashlib.blake2b(pts_s.tobytes(), digest_size=8).hexdigest()
    was_there = folder.exists()
    if _open(folder) is None:
        if was_there:  # damaged; one that appeared since is another builder's, and whole
            shutil.rmtree(folder, ignore_errors=True)
        publish_folder(folder, lambda temporary: _fill(temporary, pts_s, batches))
    return folder


def _fill(folder: Path, pts_s: NDArray[np.float64], batches: Iterator[NDArray[np.uint8]]) -> None:
    np.save(folder / "pts_s.npy", pts_s)
    # Written, not mapped: a full disk is then an error and not a killed process.
    with open(folder / "pixels.npy", "wb") as file:
        for number, pixels in enumerate(batches):
            if number == 0:
                shape = (len(pts_s), *pixels.shape[1:])
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(pixels).data)
        file.flush()
        os.fsync(file.fileno())
