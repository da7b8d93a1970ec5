"""Which backend opens a source; the one way to open a video, whatever it is."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from videogym.video.addresses import PLANTED_PREFIX, SYNTHETIC_PREFIX
from videogym.video.pyav_reader import PyAVVideo
from videogym.video.types import Video

Backend = Literal["pyav", "decord", "torchcodec"]


def open_video(
    source: str | os.PathLike[str],
    *,
    backend: Backend = "pyav",
    cache_dir: str | Path | None = None,
    deadline_s: float = 60.0,
) -> Video:
    """Open a video file, a synthetic video or a planted one.

    Args:
        source: path of a file, or an address that starts with ``synthetic:`` or ``planted-video:``.
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
        VideoChanged: a planted video's file is not the one that something was planted into.
        VideoTooLarge: it asks for more than a gigabyte to be opened, or has pictures larger than 8K.
        VideoError: the file is missing or is not a usable video.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {get_args(Backend)}, got {backend!r}")
    source = os.fspath(source)
    options: dict[str, Any] = {"backend": backend, "cache_dir": cache_dir, "deadline_s": deadline_s}
    if source.startswith(SYNTHETIC_PREFIX):
        from videogym.video.synthetic import open_synthetic

        return open_synthetic(source)
    if source.startswith(PLANTED_PREFIX):
        from videogym.video.planted import open_planted

        return open_planted(source, partial(open_video, **options), os.path.abspath)
    if backend == "decord":
        from videogym.video.decord_reader import DecordVideo

        return DecordVideo(source, cache_dir=cache_dir, deadline_s=deadline_s)
    if backend == "torchcodec":
        from videogym.video.torchcodec_reader import TorchCodecVideo

        return TorchCodecVideo(source, cache_dir=cache_dir, deadline_s=deadline_s)
    return PyAVVideo(source, cache_dir=cache_dir, deadline_s=deadline_s)
