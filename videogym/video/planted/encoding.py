"""Any video as a real file: the same frames at the same times."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from videogym.video.file_video import FileVideo
from videogym.video.planted.video import PlantedVideo
from videogym.video.synthetic.encoding import CHUNK_FRAMES, GROUP_FRAMES
from videogym.video.types import Video
from videogym.writing import appearing

_MICROSECOND = Fraction(1, 1_000_000)


def write_video(
    video: Video,
    path: str | Path,
    *,
    lossless: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a video as H.264, for instance a planted one.

    Frames are shown at the times of the video, to the tick of the file it was read from. The file appears
    under its name when it is complete.

    Args:
        video: any.
        path: the file to write; its suffix names the container, as in ``.mp4``.
        lossless: keep every pixel, in a file that is many times larger and that few players show; otherwise
            sides must be even, and pixels change as in any encoding.
        progress: called with (frames written, frames in all).

    Raises:
        ValueError: a side is odd, and not lossless.
        VideoError: a frame cannot be decoded.
        OSError: the file cannot be written.
    """
    meta = video.meta
    if not lossless and (meta.width % 2 or meta.height % 2):
        raise ValueError(f"sides must be even unless lossless, got {meta.width}x{meta.height}")
    with appearing(path) as partial:
        _write(video, partial, lossless, progress or (lambda done, total: None))


def _write(video: Video, path: Path, lossless: bool, progress: Callable[[int, int], None]) -> None:
    meta, tick = video.meta, _tick(video)
    ticks = [round(Fraction(time_s) / tick) for time_s in video.pts_s.tolist()]
    ends = [*ticks[1:], round(Fraction(meta.duration_s) / tick)]
    lengths = {start: end - start for start, end in zip(ticks, ends, strict=True)}
    # Without B-frames: a container tells how long the last frame is shown only if it comes last.
    options = {"preset": "ultrafast", "bf": "0", "g": str(GROUP_FRAMES)}
    options |= {"qp": "0"} if lossless else {"crf": "18"}

    def put(container: Any, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = lengths[packet.pts]
        container.mux(packets)

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264rgb" if lossless else "libx264", options=options)
        stream.width, stream.height = meta.width, meta.height
        stream.pix_fmt = "rgb24" if lossless else "yuv420p"
        stream.codec_context.time_base = tick
        stream.codec_context.framerate = Fraction(meta.avg_fps).limit_denominator(1001)
        for first in range(0, meta.num_frames, CHUNK_FRAMES):
            times = video.pts_s[first : first + CHUNK_FRAMES].tolist()
            for i, image in enumerate(video.frames_at(times).pixels, start=first):
                frame: Any = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = ticks[i], tick
                put(container, stream.encode(frame))
            progress(first + len(times), meta.num_frames)
        put(container, stream.encode(None))


def _tick(video: Video) -> Fraction:
    """Seconds in which all times of a video can be counted, or microseconds where that is not known."""
    file = video.source if isinstance(video, PlantedVideo) else video
    return file.tick if isinstance(file, FileVideo) else _MICROSECOND
