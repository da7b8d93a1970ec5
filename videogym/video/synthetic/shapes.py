"""Shapes of events: how much of each pixel they cover, and how dark their stripes are there.

Plain shapes, numbers in an alphabet of three by five cells, which needs no font file, and discs with
stripes too fine for a small frame. Knows boxes and canvases; nothing about colours and times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogym.video.synthetic.script import Event, Shape

Reals = NDArray[np.floating[Any]]

# Rows of three cells, top to bottom. Every digit reaches all four sides.
DIGITS = {
    "0": ("###", "# #", "# #", "# #", "###"),
    "1": (" # ", "## ", " # ", " # ", "###"),
    "2": ("###", "  #", "###", "#  ", "###"),
    "3": ("###", "  #", "###", "  #", "###"),
    "4": ("# #", "# #", "###", "  #", "  #"),
    "5": ("###", "#  ", "###", "  #", "###"),
    "6": ("###", "#  ", "###", "# #", "###"),
    "7": ("###", "  #", "  #", "  #", "  #"),
    "8": ("###", "# #", "###", "# #", "###"),
    "9": ("###", "# #", "###", "  #", "###"),
}

STRIPES = 240  # along the mean side of a frame
# Across the stripes, in degrees from the right, counterclockwise.
ANGLES = {"horizontal": 90.0, "vertical": 0.0, "rising": -45.0, "falling": 45.0}
# Of a striped disc, as shares of its colour: mean brightness, how far stripes leave it, and blotches.
# They add up to 1. With more swing, or without jitter, classifiers find traces of the stripes in frames
# that were reduced by means.
MEAN_INK, SWING, BLOTCHES = 0.65, 0.15, 0.2
JITTER_DEGREES, JITTER_WIDTH = 8.0, 0.1  # how far stripes leave their direction, and their width by a share


@dataclass(frozen=True, slots=True)
class Canvas:
    """Which part of the frame is drawn, and at what size."""

    native: tuple[int, int]  # (width, height) of the whole frame
    cut: tuple[int, int, int, int]  # (left, top, right, bottom), native pixels
    size: tuple[int, int]  # (width, height) drawn

    def centres(self, axis: int) -> NDArray[np.float32]:
        """Centres of the drawn columns (axis 0) or rows (axis 1), as fractions of the whole frame."""
        return _centres(self.native[axis], self.cut[axis], self.cut[axis + 2], self.size[axis])

    def scale(self, axis: int) -> float:
        """Drawn pixels that the whole frame would have."""
        return self.native[axis] * (self.size[axis] / (self.cut[axis + 2] - self.cut[axis]))


@lru_cache(maxsize=64)
def _centres(native: int, start: int, end: int, count: int) -> NDArray[np.float32]:
    # A cut at native size has a step of exactly 1: its pixels are those of the whole frame.
    centres = ((start + (np.arange(count) + 0.5) * ((end - start) / count)) / native).astype(np.float32)
    centres.setflags(write=False)
    return centres


def cover_of(event: Event, canvas: Canvas) -> NDArray[np.uint16]:
    """(H, W) uint16: how much of each pixel the event's shape covers, in 256ths."""
    if event.shape == "digits":
        share = _cells_cover(event, canvas)
    else:
        x, y, a, b = _from_centre(event, canvas)
        share = np.clip(_depth(event.shape, x, y, a, b) + 0.5, 0.0, 1.0)
    return np.round(share * 256).astype(np.uint16)


def _from_centre(event: Event, canvas: Canvas) -> tuple[Reals, Reals, float, float]:
    """Columns (W,) and rows (H, 1) in pixels from the centre of the box, y upwards; half its sides."""
    x0, y0, x1, y1 = event.box
    wide, high = canvas.scale(0), canvas.scale(1)
    x = (canvas.centres(0) - (x0 + x1) / 2) * wide
    y = (((y0 + y1) / 2 - canvas.centres(1)) * high)[:, None]
    return x, y, wide * (x1 - x0) / 2, high * (y1 - y0) / 2


def _depth(shape: Shape, x: Reals, y: Reals, a: float, b: float) -> Reals:
    """Distance of points, positive inside, from the edge of a shape that fills ``|x| < a, |y| < b``."""
    if shape == "rectangle":
        return np.minimum(a - np.abs(x), b - np.abs(y))
    if shape == "diamond":
        return (1.0 - np.abs(x) / a - np.abs(y) / b) / np.hypot(1 / a, 1 / b)
    if shape == "triangle":
        # The apex is at the top: two edges lean, the third is the lower side of the box.
        leaning = (0.5 - np.abs(x) / a - y / (2 * b)) / np.hypot(1 / a, 1 / (2 * b))
        return np.minimum(leaning, y + b)
    radius = np.hypot(x / a, y / b)
    # To first order the distance is the value over the length of the gradient.
    gradient = np.hypot(x / (a * a), y / (b * b)) / np.maximum(radius, 1e-9)
    return (1.0 - radius) / np.maximum(gradient, 1e-9)


def _cells_cover(event: Event, canvas: Canvas) -> Reals:
    """(H, W): share of each pixel that the cells of a number cover, exactly."""
    cells = number_cells(event.mark)
    rows, columns = (_overlaps(event, canvas, axis, cells.shape[1 - axis]) for axis in (1, 0))
    return rows @ cells @ columns.T


def number_cells(number: str) -> NDArray[np.float64]:
    """(5, 4 n - 1): 1 where a number of n digits is drawn; a free column between digits."""
    rows = [" ".join(DIGITS[digit][row] for digit in number) for row in range(5)]
    return np.array([[float(cell == "#") for cell in row] for row in rows])


def _overlaps(event: Event, canvas: Canvas, axis: int, count: int) -> NDArray[np.float64]:
    """(pixels, count): share of each pixel that lies in each of ``count`` parts of the box's side."""
    centres, half = canvas.centres(axis).astype(np.float64)[:, None], 0.5 / canvas.scale(axis)
    edges = np.linspace(event.box[axis], event.box[axis + 2], count + 1)
    common = np.minimum(centres + half, edges[1:]) - np.maximum(centres - half, edges[:-1])
    return np.maximum(common, 0.0) * canvas.scale(axis)


def _weights(event: Event, canvas: Canvas, axis: int, count: int) -> NDArray[np.float64]:
    """(pixels, count): weights that lead from one of ``count`` values along the box's side to the next."""
    start, end = event.box[axis], event.box[axis + 2]
    places = (canvas.centres(axis).astype(np.float64) - start) / (end - start) * count - 0.5
    return np.maximum(1.0 - np.abs(places[:, None] - np.arange(count)), 0.0)


def ink_of(event: Event, canvas: Canvas, rows: slice, columns: slice) -> Reals:
    """Brightness of a striped disc in some rows and columns, as a share of its colour's.

    What is finer than two drawn pixels is not drawn: a small frame is the same whichever way the stripes
    run. Where native frames are reduced by a resizer a faint trace can remain; blotches of about its size
    cover it.
    """
    rng = Random(f"blotches {event.first} {event.box}")
    x, y, a, b = _from_centre(event, canvas)
    x, y = x[columns], y[rows]
    period = math.sqrt(canvas.native[0] * canvas.native[1]) / STRIPES  # native pixels
    count = round((event.box[2] - event.box[0]) * canvas.native[0] / period)
    blotches = np.array([[rng.uniform(-1.0, 1.0) for _ in range(count)] for _ in range(count)])
    down, along = _weights(event, canvas, 1, count)[rows], _weights(event, canvas, 0, count)[columns]
    ink = MEAN_INK + BLOTCHES * (down @ blotches @ along.T)
    # In cycles per drawn pixel, along x and y.
    angle = math.radians(ANGLES[event.mark] + rng.uniform(-JITTER_DEGREES, JITTER_DEGREES))
    period *= 1.0 + rng.uniform(-JITTER_WIDTH, JITTER_WIDTH)
    across = math.cos(angle) / period * canvas.native[0] / canvas.scale(0)
    up = math.sin(angle) / period * canvas.native[1] / canvas.scale(1)
    if max(abs(across), abs(up)) >= 0.5:
        return ink
    # Faded towards the edge of the disc, where cut stripes would change the mean of what they cover.
    fading = np.clip(2.0 - 2.0 * np.hypot(x / a, y / b), 0.0, 1.0)
    # A pixel shows the mean of what it covers.
    swing = SWING * float(np.sinc(across) * np.sinc(up))
    return ink + swing * fading * np.cos(2 * math.pi * (across * x + up * y + rng.random()))
