"""Frames of a synthetic video, drawn when they are asked for.

Pixels follow from the script and the time alone, at whatever size is asked, so a frame costs the same
anywhere in the video and nothing is stored. Edges are anti-aliased by the share of the pixel they
cover; a frame drawn small looks like the native one reduced.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from videogym.video.pixels import View, region_box
from videogym.video.synthetic.address import Address
from videogym.video.synthetic.script import Event, Rgb, Scene, Script, Shape, Wave, write_script
from videogym.video.types import FrameBatch, Resizer, VideoMeta

RENDERER = 1  # part of every fingerprint; goes up when scripts or pixels change
TEXTURE = 10  # largest deviation of a background from its colour, in 255ths

Box = tuple[float, float, float, float]  # (x0, y0, x1, y1), fractions of the frame
Reals = NDArray[np.floating[Any]]


class SyntheticVideo:
    """A `videogym.video.Video` without a file. Pickles as its address.

    Args:
        address: what to show.
    """

    def __init__(self, address: Address) -> None:
        self._script = write_script(address)
        self._closed = False

    @property
    def script(self) -> Script:
        """What happens; the ground truth, not for policies."""
        return self._script

    @cached_property
    def meta(self) -> VideoMeta:
        """Facts about the video; its codec is "synthetic"."""
        address = self._script.address
        digest = hashlib.sha256(f"{RENDERER} {address}".encode()).hexdigest()
        width, height = address.size
        return VideoMeta(
            fingerprint=f"synthetic-{digest[:16]}",
            duration_s=float(address.duration_s),
            num_frames=address.num_frames,
            avg_fps=float(address.fps),
            width=width,
            height=height,
            codec="synthetic",
        )

    @property
    def cache_key(self) -> str:
        """Names the pixels that this video gives."""
        return self.meta.fingerprint

    @cached_property
    def pts_s(self) -> NDArray[np.float64]:
        """(num_frames,) presentation times ``n / fps``, exact; read-only."""
        times = np.arange(self.meta.num_frames) / self._script.address.fps
        times.setflags(write=False)
        return times

    def frames_at(
        self,
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None = None,
        region: Box | None = None,
        resizer: Resizer = "bicubic",
    ) -> FrameBatch:
        """The frames on display at the given instants, see `videogym.video.Video.frames_at`.

        The resizer must be a known one and changes nothing: frames are drawn at the asked size.

        Raises:
            ValueError: a time is not finite, size or region is out of range, or the video is closed.
        """
        if self._closed:
            raise ValueError(f"{self._script.address}: the video is closed")
        times = np.asarray(times_s, dtype=np.float64)
        if times.ndim != 1 or not np.isfinite(times).all():
            raise ValueError(f"times must be a sequence of finite seconds, got {times_s}")
        canvas, fps = self._canvas(View(size, region, resizer)), self._script.address.fps
        # Clamped first: a huge time must not overflow the integer.
        numbers = np.floor(np.clip(times, 0.0, self.meta.duration_s) * fps).astype(np.int64)
        numbers = np.minimum(numbers, self.meta.num_frames - 1)
        pixels = np.empty((len(times), canvas.size[1], canvas.size[0], 3), np.uint8)
        for image, number in zip(pixels, numbers.tolist(), strict=True):
            _draw(image, self._script.scene_at(number), number, fps, canvas)
        return FrameBatch(pixels, numbers / fps, np.zeros(len(times), np.bool_))

    def _canvas(self, view: View) -> _Canvas:
        native = self._script.address.size
        cut = region_box(*native, view.region or (0.0, 0.0, 1.0, 1.0))
        return _Canvas(native, cut, view.output_size(*native))

    def close(self) -> None:
        """Refuse further reads. Closing twice is allowed."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return open_synthetic, (str(self._script.address),)


def open_synthetic(source: str) -> SyntheticVideo:
    """Open a synthetic video; the same time for a minute and for a day.

    Args:
        source: ``synthetic:FAMILY?level=L&duration_s=D&seed=S``, see `Address`.

    Raises:
        InvalidAddress: the address cannot be read; the message names the field.
    """
    return SyntheticVideo(Address.parse(source))


@dataclass(frozen=True, slots=True)
class _Canvas:
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


def _draw(image: NDArray[np.uint8], scene: Scene, number: int, fps: int, canvas: _Canvas) -> None:
    """Fill a contiguous (H, W, 3) image with frame ``number``."""
    height, width = image.shape[:2]
    # Rows of 3 W numbers: arithmetic on contiguous channels is several times faster.
    rows = image.reshape(height, 3 * width)
    rows[...] = _background(scene, number / fps, canvas)
    event = scene.event
    if event is not None and event.first <= number < event.end:
        overlay = _overlay(event, canvas)
        part = rows[overlay.rows, overlay.columns]
        part[...] = (part * overlay.keep + overlay.add) >> 8


def _background(scene: Scene, time_s: float, canvas: _Canvas) -> NDArray[np.float32]:
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
def _overlay(event: Event, canvas: _Canvas) -> _Overlay:
    cover = _cover(event, canvas)
    rows, columns = _extent(cover.max(axis=1)), _extent(cover.max(axis=0))
    part = np.repeat(cover[rows, columns], 3, axis=1)
    # At most 255 * 256 + 128, which uint16 holds.
    add = part * np.tile(np.array(event.rgb, np.uint16), part.shape[1] // 3) + np.uint16(128)
    return _Overlay(rows, slice(3 * columns.start, 3 * columns.stop), np.uint16(256) - part, add)


def _extent(touched: NDArray[np.uint16]) -> slice:
    """From the first value above zero to the last; empty if there is none."""
    places = np.flatnonzero(touched)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _cover(event: Event, canvas: _Canvas) -> NDArray[np.uint16]:
    """(H, W) uint16: how much of each pixel the event's shape covers, in 256ths."""
    x0, y0, x1, y1 = event.box
    wide, high = canvas.scale(0), canvas.scale(1)
    # In pixels from the centre of the box, y upwards.
    x = (canvas.centres(0) - (x0 + x1) / 2) * wide
    y = (((y0 + y1) / 2 - canvas.centres(1)) * high)[:, None]
    depth = _depth(event.shape, x, y, wide * (x1 - x0) / 2, high * (y1 - y0) / 2)
    return np.round(np.clip(depth + 0.5, 0.0, 1.0) * 256).astype(np.uint16)


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
