"""Synthetic videos as real files: H.264 with the content and the times of the lazily drawn frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av

from videogym.video.synthetic.video import open_synthetic
from videogym.writing import appearing

GROUP_FRAMES = 250  # distance of key frames, the default of x264
CHUNK_FRAMES = 32


def encode(source: str, path: str | Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Write a synthetic video as H.264 with B-frames.

    Frame n is shown at ``n / fps`` exactly. The file appears under its name when it is complete.

    Args:
        source: a synthetic address.
        path: the file to write; its suffix names the container, as in ``.mp4``.
        progress: called with (frames written, frames in all).

    Raises:
        InvalidAddress: the address cannot be read.
        OSError: the file cannot be written.
    """
    with appearing(path) as partial:
        _write(source, partial, progress)


def _write(source: str, path: Path, progress: Callable[[int, int], None] | None) -> None:
    with open_synthetic(source) as video, av.open(str(path), "w") as container:
        meta, fps = video.meta, round(video.meta.avg_fps)
        options = {"preset": "ultrafast", "crf": "20", "bf": "3", "g": str(GROUP_FRAMES)}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = meta.width, meta.height, "yuv420p"
        for first in range(0, meta.num_frames, CHUNK_FRAMES):
            times = video.pts_s[first : first + CHUNK_FRAMES]
            for image in video.frames_at(times.tolist()).pixels:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            if progress is not None:
                progress(first + len(times), meta.num_frames)
        container.mux(stream.encode(None))
