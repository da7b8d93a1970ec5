"""The torchcodec backend: another implementation of exact seeking, to hold ours against.

It runs in exact mode only, on frames counted by torchcodec's own scan of the file. Every frame comes
with its time, which must be that of the packet table: where torchcodec lands on another frame, as it
does in transport streams, AVI and gradual refresh, the read is refused. It runs in this process, for no
hang of it is known. torchcodec is PyTorch's and loads the FFmpeg libraries of the system.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogym.video.file_video import FileVideo
from videogym.video.orientation import Orientation
from videogym.video.pixels import Renderer, View
from videogym.video.pyav_reader import PyAVVideo
from videogym.video.signatures import has_signature
from videogym.video.types import TruncatedVideo, UnreadableVideo

_AT_ONCE = 8  # frames decoded at a time, at native size
_TIME_TOLERANCE_S = 1e-6  # its times are the same ticks, as 64-bit floats
_PIXEL_TOLERANCE = 4.0  # mean difference of two decoders on the same picture is below 1


class TorchCodecVideo(FileVideo):
    """A video file decoded by torchcodec.

    Damage can go untold: torchcodec does not say of a picture that FFmpeg has patched it with guesses.

    Args:
        path: the file; a relative path is resolved now.
        cache_dir: where packet tables are kept; None means the default.
        deadline_s: seconds that opening the file for the first time may take. Decoding has no deadline.
        seek_mode: ``"exact"``. There is no other: ``"approximate"`` computes the place of a frame from the
            average rate and returns wrong frames where the rate varies.

    Raises:
        ValueError: another ``seek_mode``.
        ImportError: torchcodec is not installed, or does not load.
        VideoError: the file is missing, not usable, or not one on which torchcodec is exact.
    """

    backend = "torchcodec"

    def __init__(
        self,
        path: str,
        *,
        cache_dir: str | Path | None = None,
        deadline_s: float = 60.0,
        seek_mode: str = "exact",
    ) -> None:
        if seek_mode != "exact":
            raise ValueError(f"seek_mode must be 'exact', got {seek_mode!r}: others return wrong frames")
        self._decoder_class = import_decoder()
        super().__init__(path, cache_dir=cache_dir, deadline_s=deadline_s)
        self._decoder: Any = None
        self._renderer = Renderer(Orientation(), (self._meta.width, self._meta.height))
        tick, base = self._table.tick
        self._clock_s = self._table.pts * tick / np.float64(base)  # as the file has it, not from 0
        self._require_exact()

    def _read(self, ordinals: NDArray[np.intp], view: View) -> NDArray[np.uint8]:
        width, height = view.output_size(self._meta.width, self._meta.height)
        pixels = np.empty((len(ordinals), height, width, 3), dtype=np.uint8)
        for start in range(0, len(ordinals), _AT_ONCE):
            some = ordinals[start : start + _AT_ONCE]
            for row, image in enumerate(self._images(some), start=start):
                pixels[row] = self._renderer.cut(image, view)
        return pixels

    def _images(self, ordinals: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Whole frames at native size."""
        if self._decoder is None:
            self._decoder = self._start()
        try:
            batch = self._decoder.get_frames_at(ordinals.tolist())
        except (RuntimeError, IndexError) as error:
            self._release()
            raise TruncatedVideo(f"{self._path}: torchcodec: {_first_line(error)}") from error
        times_s, due_s = batch.pts_seconds.numpy(), self._clock_s[ordinals]
        if np.abs(times_s - due_s).max() > _TIME_TOLERANCE_S:
            place = int(np.abs(times_s - due_s).argmax())
            raise self._refusal(f"it gives the frame of {times_s[place]:.3f} s for {due_s[place]:.3f} s")
        images: NDArray[np.uint8] = batch.data.numpy()
        if images.shape[1:3] != (self._meta.height, self._meta.width):
            raise self._refusal(f"its frames are {images.shape[2]}x{images.shape[1]}")
        return images

    def _start(self) -> Any:
        """A decoder that agrees with the packet table on the number of frames and the first time."""
        try:
            decoder = self._decoder_class(
                self._path,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                device="cpu",
                seek_mode="exact",
            )
        except (RuntimeError, ValueError) as error:
            raise UnreadableVideo(f"{self._path}: torchcodec: {_first_line(error)}") from error
        if len(decoder) != len(self._table.pts):
            raise self._refusal(f"it counts {len(decoder)} frames, there are {len(self._table.pts)}")
        begins_s = decoder.metadata.begin_stream_seconds
        if abs(begins_s - self._clock_s[0]) > _TIME_TOLERANCE_S:  # as in AVI, which tells no times
            raise self._refusal(f"its clock begins at {begins_s:.3f} s, not at {self._clock_s[0]:.3f} s")
        return decoder

    def _require_exact(self) -> None:
        """Refuse now what would be refused at the first jump."""
        if self._table.container == "mpegts":
            raise self._refusal("it lands on other frames in MPEG-TS")
        if not has_signature(self._path, self._table.container):
            raise self._refusal(
                "it would look for itself what the file is, which does not begin as it should"
            )
        second_group = self._table.key_of.searchsorted(self._table.key_of[0], side="right")
        probe = self._table.pts_s[min(int(second_group), len(self._table.pts) - 1)].tolist()
        with PyAVVideo(self._path, **self._options) as exact:
            due = exact.frames_at([probe]).pixels
        shown = self.frames_at([probe]).pixels.astype(np.int16)
        # A mirrored picture, say, is shown turned.
        if np.abs(shown - due).mean() > _PIXEL_TOLERANCE:
            raise self._refusal("it shows another picture than PyAV")

    def _refusal(self, reason: str) -> UnreadableVideo:
        self._release()
        return UnreadableVideo(
            f"{self._path}: torchcodec is not exact on it ({reason}); use backend 'pyav'"
        )

    def _release(self) -> None:
        self._decoder = None


def import_decoder() -> Any:
    """The decoder class of torchcodec.

    Raises:
        ImportError: it is not installed or does not load; the message says what is missing.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except ModuleNotFoundError as error:
        raise ImportError(
            "the torchcodec backend needs torchcodec and PyTorch: pip install 'videogym[torchcodec]'"
        ) from error
    except (RuntimeError, OSError) as error:
        raise ImportError(
            "torchcodec is installed and does not load; it needs the libraries of FFmpeg 4 to 8 on the "
            f"system and the PyTorch it was built for ({_first_line(error)})"
        ) from error
    return VideoDecoder


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].removesuffix(" Likely causes:").rstrip(".")
