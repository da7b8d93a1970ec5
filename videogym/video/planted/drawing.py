"""Pixels of insertions: how each changes a frame, at whatever size and region is asked.

Shapes are drawn at the asked size, as in synthetic videos; texts and pictures are made at the native size
and reduced. What lies outside the box of an insertion is not touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogym.video.pixels import region_box
from videogym.video.planted.insertion import Insertion
from videogym.video.synthetic.script import Event, Rgb
from videogym.video.synthetic.shapes import Canvas, cover_of, ink_of

DARK, LIGHT = (20, 20, 20), (235, 235, 235)
EDGE = 0.06  # width of a shape's edge, as a share of its shorter side

_ROUNDING = 1e-4  # of a pixel

Patch = NDArray[np.uint8]  # (H, W, 4): colour times cover, and cover, in 255ths


@dataclass(frozen=True, slots=True)
class Overlay:
    """How an insertion changes an image: ``(image * keep + add) / 256`` in a part of it."""

    rows: slice
    columns: slice
    keep: NDArray[np.uint16]  # (h, w, 1) 256ths of the footage that stay
    add: NDArray[np.uint16]  # (h, w, 3) colour times cover, and a half for rounding

    def draw(self, image: NDArray[np.uint8]) -> None:
        """Change an (H, W, 3) image in place."""
        part = image[self.rows, self.columns]
        part[...] = (part * self.keep + self.add) >> 8


def contrast_to(rgb: Rgb) -> Rgb:
    """Dark for a light colour and light for a dark one, by luma (ITU-R BT.601)."""
    return DARK if 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 80 else LIGHT


@lru_cache(maxsize=64)
def shape_overlay(insertion: Insertion, canvas: Canvas) -> Overlay:
    """The overlay of a shape, of what is asked for of a frame."""
    event = Event(
        insertion.first,
        insertion.end,
        "",
        insertion.rgb,
        insertion.kind,  # type: ignore[arg-type]  # only shapes are given
        insertion.box,
        insertion.content,
    )
    outer = np.round(cover_of(event, canvas) * insertion.opacity).astype(np.uint16)
    columns, rows = (_reach(insertion, canvas, axis) for axis in (0, 1))
    outer = outer[rows, columns, None]
    if insertion.kind == "stripes":
        ink = ink_of(event, canvas, rows, columns)[..., None]
        colour = outer * np.round(np.array(insertion.rgb, np.uint16) * ink).astype(np.uint16)
    else:
        inside = cover_of(replace(event, box=_inner(insertion.box, canvas.native)), canvas)[
            rows, columns, None
        ]
        inner = np.minimum(np.round(inside * insertion.opacity).astype(np.uint16), outer)
        edge = np.array(contrast_to(insertion.rgb), np.uint16)
        colour = inner * np.array(insertion.rgb, np.uint16) + (outer - inner) * edge
    return Overlay(rows, columns, np.uint16(256) - outer, colour + np.uint16(128))


def _inner(
    box: tuple[float, float, float, float], native: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The box of a shape without its edge."""
    x0, y0, x1, y1 = box
    edge = EDGE * min((x1 - x0) * native[0], (y1 - y0) * native[1])
    across, down = edge / native[0], edge / native[1]
    return x0 + across, y0 + down, x1 - across, y1 - down


def _reach(insertion: Insertion, canvas: Canvas, axis: int) -> slice:
    """Drawn pixels that the box of a shape reaches; softened edges end there."""
    start, end = (insertion.box[side] * canvas.native[axis] - canvas.cut[axis] for side in (axis, axis + 2))
    return _span(
        start, end, canvas.size[axis] / (canvas.cut[axis + 2] - canvas.cut[axis]), canvas.size[axis]
    )


def patch_size(insertion: Insertion, native: tuple[int, int]) -> tuple[int, int]:
    """``(width, height)`` of a text or picture in a native frame, pixels."""
    left, top, right, bottom = region_box(*native, insertion.box)
    return right - left, bottom - top


def patch_overlay(insertion: Insertion, canvas: Canvas, make: Callable[[], Patch]) -> Overlay | None:
    """The overlay of a text or a picture; None where nothing of it is in what is asked for.

    Args:
        insertion: where it is.
        canvas: what is asked for of a frame.
        make: gives its pixels at native size; not called where they are not needed.
    """
    left, top, right, bottom = region_box(*canvas.native, insertion.box)
    scales = [canvas.size[i] / (canvas.cut[i + 2] - canvas.cut[i]) for i in (0, 1)]
    columns = _span(left - canvas.cut[0], right - canvas.cut[0], scales[0], canvas.size[0])
    rows = _span(top - canvas.cut[1], bottom - canvas.cut[1], scales[1], canvas.size[1])
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    start = canvas.cut[0] - left, canvas.cut[1] - top
    scaled = _scaled(make(), rows, columns, scales, start)
    cover = np.round(scaled[..., 3:] * (insertion.opacity * 256 / 255)).astype(np.uint16)
    colour = np.round(scaled[..., :3] * (insertion.opacity * 256)).astype(np.uint16)
    # Rounded apart, they must not exceed what 16 bits hold: colour is at most 255 times its cover.
    return Overlay(rows, columns, np.uint16(256) - cover, np.minimum(colour, 255 * cover) + np.uint16(128))


def _span(start: float, end: float, scale: float, size: int) -> slice:
    """Drawn pixels that native ones from start to end reach; a rounding error reaches none."""
    first, last = math.floor(start * scale + _ROUNDING), math.ceil(end * scale - _ROUNDING)
    return slice(max(first, 0), max(min(last, size), 0))


def _scaled(
    patch: Patch, rows: slice, columns: slice, scales: list[float], start: tuple[int, int]
) -> NDArray[Any]:
    """(h, w, 4) of the drawn pixels: a patch with nothing around it, reduced or enlarged."""
    from PIL import Image

    height, width = patch.shape[:2]
    if scales == [1.0, 1.0]:
        top, left = rows.start + start[1], columns.start + start[0]
        return patch[top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]
    margin = [math.ceil(1 / scale) + 2 for scale in scales]
    padded = np.zeros((height + 2 * margin[1], width + 2 * margin[0], 4), np.uint8)
    padded[margin[1] : margin[1] + height, margin[0] : margin[0] + width] = patch
    image = Image.frombytes("RGBa", (padded.shape[1], padded.shape[0]), padded.tobytes())
    box = (
        margin[0] + start[0] + columns.start / scales[0],
        margin[1] + start[1] + rows.start / scales[1],
        margin[0] + start[0] + columns.stop / scales[0],
        margin[1] + start[1] + rows.stop / scales[1],
    )
    size = columns.stop - columns.start, rows.stop - rows.start
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box))


def picture_patch(pixels: NDArray[np.uint8]) -> Patch:
    """A picture in a light frame, which tells it from the footage around it."""
    height, width = pixels.shape[:2]
    patch = np.full((height, width, 4), 255, np.uint8)
    edge = max(1, round(EDGE / 2 * min(height, width)))
    patch[edge : height - edge, edge : width - edge, :3] = pixels[edge : height - edge, edge : width - edge]
    return patch
