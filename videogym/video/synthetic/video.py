"""A synthetic video: a script behind the interface of every video, drawn when it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from videogym.video.pixels import View, region_box
from videogym.video.synthetic.address import Address
from videogym.video.synthetic.drawing import Canvas, draw
from videogym.video.synthetic.script import Script, write_script
from videogym.video.types import FrameBatch, Resizer, VideoMeta

RENDERER = 1  # part of every fingerprint; goes up when scripts or pixels change

_Box = tuple[float, float, float, float]  # (x0, y0, x1, y1), fractions of the frame


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
        region: _Box | None = None,
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
            draw(image, self._script.scene_at(number), number, fps, canvas)
        return FrameBatch(pixels, numbers / fps, np.zeros(len(times), np.bool_))

    def _canvas(self, view: View) -> Canvas:
        native = self._script.address.size
        cut = region_box(*native, view.region or (0.0, 0.0, 1.0, 1.0))
        return Canvas(native, cut, view.output_size(*native))

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
