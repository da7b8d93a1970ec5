"""Pixels of a frame, at whatever size is asked: a moving background, and an event over it.

They follow from the script and the time alone, so a frame costs the same anywhere in the video and
nothing is stored. Edges are anti-aliased by the share of the pixel they cover; a frame drawn small
looks like the native one reduced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from videogym.video.synthetic.script import Event, Rgb, Scene, Wave
from videogym.video.synthetic.shapes import Canvas, cover_of, ink_of

TEXTURE = 10  # largest deviation of a background from its colour, in 255ths


def draw(image: NDArray[np.uint8], scene: Scene, number: int, fps: int, canvas: Canvas) -> None:
    """Fill a contiguous (H, W, 3) image with frame ``number``, which lies in ``scene``."""
    height, width = image.shape[:2]
    # Rows of 3 W numbers: arithmetic on contiguous channels is several times faster.
    rows = image.reshape(height, 3 * width)
    rows[...] = _background(scene, number / fps, canvas)
    event = scene.event_at(number)
    if event is not None:
        overlay = _overlay(event, canvas)
        part = rows[overlay.rows, overlay.columns]
        part[...] = (part * overlay.keep + overlay.add) >> 8


def _background(scene: Scene, time_s: float, canvas: Canvas) -> NDArray[np.float32]:
    """(H, 3 W) float32: colour and texture of a scene, to be cut off to whole numbers."""
    across, down = (_cosine(scene.waves[axis], time_s, canvas.centres(axis)) for axis in (0, 1))
    texture = np.multiply.outer(down * TEXTURE, np.repeat(across, 3))
    texture += _colour_row(scene.rgb, canvas.size[0])
    return texture


def _cosine(wave: Wave, time_s: float, centres: NDArray[np.float32]) -> NDArray[np.float32]:
    # The phase in double precision: after hours of cycles single has no digits left for it.
    phase = 2 * math.pi * ((wave.phase + wave.speed * time_s) % 1.0)
    return np.cos(centres * np.float32(2 * math.pi * wave.cycles) + np.float32(phase))


@lru_cache(maxsize=64)
def _colour_row(rgb: Rgb, width: int) -> NDArray[np.float32]:
    """(3 W,) float32: a colour, far enough from black and white for the texture."""
    # Half a step more, so that cutting off rounds.
    row = np.tile(np.clip(rgb, TEXTURE, 255 - TEXTURE).astype(np.float32) + np.float32(0.5), width)
    row.setflags(write=False)
    return row


@dataclass(frozen=True, slots=True)
class _Overlay:
    """How an event changes an image: ``(image * keep + add) / 256`` in a part of its rows of 3 W."""

    rows: slice
    columns: slice
    keep: NDArray[np.uint16]  # 256ths of the background that stay
    add: NDArray[np.uint16]  # the event's colour times its cover, and a half for rounding


@lru_cache(maxsize=8)
def _overlay(event: Event, canvas: Canvas) -> _Overlay:
    cover = cover_of(event, canvas)
    rows, columns = _extent(cover.max(axis=1)), _extent(cover.max(axis=0))
    part = np.repeat(cover[rows, columns], 3, axis=1)
    colours = np.tile(np.array(event.rgb, np.uint16), part.shape[1] // 3)
    if event.shape == "stripes":
        ink = np.repeat(ink_of(event, canvas, rows, columns), 3, axis=1)
        colours = np.round(colours * ink).astype(np.uint16)
    # At most 255 * 256 + 128, which uint16 holds.
    add = part * colours + np.uint16(128)
    return _Overlay(rows, slice(3 * columns.start, 3 * columns.stop), np.uint16(256) - part, add)


def _extent(touched: NDArray[np.uint16]) -> slice:
    """From the first value above zero to the last; empty if there is none."""
    places = np.flatnonzero(touched)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)
