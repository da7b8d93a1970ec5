"""Small pictures of the frames that were shown, each kept once.

Knows clips and a frame store. A video that is missing, damaged or no longer the one that was played
gives a sentence in place of its pictures, never an error.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from videogym.geometry import Region
from videogym.observations import fitted_size
from videogym.state import Clip, Task
from videogym.video import FrameStore, VideoError, VideoMeta

SIZE = 256  # longer side of a picture, pixels: what is seen when it is enlarged,
SHOWN = 160  # and among others
QUALITY = 60  # of JPEG

_Key = tuple[str, float, Region | None]  # fingerprint of the video, time, region


@dataclass(frozen=True, slots=True)
class Strip:
    """Pictures of one clip, or why there are none."""

    times_s: tuple[float, ...]
    pictures: tuple[int, ...]  # keys of `Thumbnails.pictures`; () where there is a problem
    problem: str  # a sentence, or ""
    shown: tuple[int, int] = (SHOWN, SHOWN)  # width and height among others, pixels of the page


class Thumbnails:
    """Makes pictures as they are asked for.

    Args:
        store: where frames come from.
    """

    def __init__(self, store: FrameStore) -> None:
        self._store = store
        self.pictures: dict[int, str] = {}  # JPEG in base64, by number, from 0 on
        self.bytes = 0  # of `pictures`
        self._made = 0
        self._known: dict[_Key, int] = {}  # keys of `pictures`
        self._problems: dict[tuple[str, str], str] = {}  # by source and fingerprint

    def forget(self) -> None:
        """Keep no picture any more; numbers go on."""
        self.pictures, self._known, self.bytes = {}, {}, 0

    def strip(self, task: Task, video: VideoMeta, clip: Clip, count: int) -> Strip:
        """Pictures of ``count`` frames, evenly spread over the clip; of fewer where it has fewer."""
        chosen = np.linspace(0, len(clip.times_s) - 1, min(count, len(clip.times_s))).round().astype(int)
        times = tuple(clip.times_s[i] for i in chosen)
        source = (task.video, video.fingerprint)
        if times and source not in self._problems:
            # Nothing that is wrong with a video may keep a person from reading the rest.
            try:
                self._problems[source] = self._check(task.video, video)
            except (VideoError, OSError, ValueError) as error:
                self._problems[source] = str(error)
        if not times or self._problems[source]:
            return Strip(times, (), self._problems.get(source, ""))
        try:
            pictures = self._pictures(task.video, video, times, clip.region)
            return Strip(times, pictures, "", fitted_size(video, clip.region, (SHOWN, SHOWN)))
        except (VideoError, OSError, ValueError) as error:
            return Strip(times, (), str(error))

    def _check(self, source: str, video: VideoMeta) -> str:
        found = self._store.open(source).meta.fingerprint
        return "" if found == video.fingerprint else f"{source}: the file is not the one that was played"

    def _pictures(
        self, source: str, video: VideoMeta, times_s: Sequence[float], region: Region | None
    ) -> tuple[int, ...]:
        keys = [(video.fingerprint, time_s, region) for time_s in times_s]
        missing = [key for key in dict.fromkeys(keys) if key not in self._known]
        if missing:
            box = region.as_tuple() if region else None
            size = fitted_size(video, region, (SIZE, SIZE))
            times = [time_s for _, time_s, _ in missing]
            frames = self._store.frames(source, times, size=size, region=box, resizer="area")
            for key, pixels in zip(missing, frames.pixels, strict=True):
                self._known[key] = self._kept(Image.fromarray(pixels))
        return tuple(self._known[key] for key in keys)

    def _kept(self, image: Image.Image) -> int:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=QUALITY, optimize=True)
        number, picture = self._made, base64.b64encode(file.getvalue()).decode()
        self.pictures[number] = picture
        self._made, self.bytes = number + 1, self.bytes + len(picture)
        return number
