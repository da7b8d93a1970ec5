"""Which backend opens a source; the one way to open a video, whatever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from videogym.video.pyav_reader import PyAVVideo
from videogym.video.types import Video

Backend = Literal["pyav", "decord", "torchcodec"]


def open_video(
    source: str,
    *,
    backend: Backend = "pyav",
    cache_dir: str | Path | None = None,
    deadline_s: float = 60.0,
) -> Video:
    """Open a video file or a synthetic video.

    Args:
        source: path of a file, or an address that starts with ``synthetic:``.
        backend: who decodes files. ``"decord"``, which runs in a child process, and ``"torchcodec"``
            need the extras of their names and refuse files on which they are not exact.
        cache_dir: where packet tables are kept; None means ``$VIDEOGYM_CACHE`` or ``~/.cache/videogym``.
        deadline_s: seconds after which opening a file is given up (the first time 0.1 s more for each MB),
            and decoding: any one frame by PyAV, any 8 by decord. torchcodec decodes without one.

    Returns:
        A video; close it, or use it in a ``with``.

    Raises:
        ValueError: an unknown backend.
        ImportError: the backend's package is missing or does not load, or decord is decord2.
        DecodeTimeout: the file was not opened in time.
        VideoTooLarge: it asks for more than a gigabyte to be opened, or has pictures larger than 8K.
        VideoError: the file is missing or is not a usable video.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {get_args(Backend)}, got {backend!r}")
    if source.startswith("synthetic:"):
        from videogym.video.synthetic import open_synthetic

        return open_synthetic(source)
    if backend == "decord":
        from videogym.video.decord_reader import DecordVideo

        return DecordVideo(source, cache_dir=cache_dir, deadline_s=deadline_s)
    if backend == "torchcodec":
        from videogym.video.torchcodec_reader import TorchCodecVideo

        return TorchCodecVideo(source, cache_dir=cache_dir, deadline_s=deadline_s)
    return PyAVVideo(source, cache_dir=cache_dir, deadline_s=deadline_s)
