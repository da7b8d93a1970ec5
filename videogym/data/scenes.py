"""Scenes of videos: what lies between two cuts, short ones joined and long ones divided.

Cuts are found by PySceneDetect's ContentDetector in frames of our own reader, so that times are those that
training will show: presentation times, on variable rates too. Source: VideoSIAH, which joins neighbouring
scenes of less than 10 s. Differs: long takes are divided, since a caption cannot tell of minutes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from videogym.data.work import Dropped, Item, Later, Made, Progress, Summary, WorkFolder, run_step
from videogym.datasets import check_length
from videogym.spaces import is_encodable
from videogym.video import (
    DecodeTimeout,
    FrameStore,
    Video,
    VideoChanged,
    VideoError,
    fit_within,
    open_video,
)
from videogym.video.identity import fingerprint, identify

_BOX = (256, 256)  # frames in which cuts are looked for; PySceneDetect's own are as small
_CHUNK = 64  # frames decoded at a time
_LEAST_S = 0.6  # between two cuts; 15 frames at 25 a second, as PySceneDetect has it
_VERSION = 2
CODES = {"UnreadableVideo": "unreadable", "NoVideoStream": "no_video", "TruncatedVideo": "truncated"}
CutDetector = Literal["content", "none"]


@dataclass(frozen=True)
class SceneOptions:
    """How videos are divided.

    Raises:
        ValueError: a value is out of range.
    """

    cuts: CutDetector = "content"  # "none": cuts are not looked for; for footage of one take
    threshold: float = 27.0  # of ContentDetector: mean difference of two frames in HSV, 0 to 255
    min_scene_s: float = 10.0  # shorter scenes are joined with the next
    max_scene_s: float = 30.0  # longer ones are divided evenly

    def __post_init__(self) -> None:
        if self.cuts not in get_args(CutDetector):
            raise ValueError(f"cuts must be one of {', '.join(get_args(CutDetector))}, got {self.cuts!r}")
        if not 0.0 < self.threshold <= 255.0:
            raise ValueError(f"threshold must be above 0 and at most 255, got {self.threshold}")
        if not (0.0 <= self.min_scene_s < math.inf and 0.0 < self.max_scene_s < math.inf):
            raise ValueError(
                f"min_scene_s and max_scene_s must be seconds, got {self.min_scene_s}, {self.max_scene_s}"
            )


def find_scenes(
    work: WorkFolder,
    videos: Sequence[str],
    video_root: str | os.PathLike[str],
    options: SceneOptions = SceneOptions(),
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Summary:
    """Divide videos into scenes; those that cannot be used are dropped, with the reason.

    Args:
        work: where.
        videos: paths below ``video_root``, in order. A file of the same content as one before is dropped.
        video_root: kept in the folder, for the steps that follow.
        options: how.
        jobs: videos decoded at once.
        progress: called with (done, total).

    Raises:
        ImportError: PySceneDetect is not installed and cuts are to be found.
        DataError: the folder holds something else.
    """
    if options.cuts == "content":
        _detector(options.threshold, 1)  # raises here, before any work
    root = Path(video_root)
    by = {"version": _VERSION, **asdict(options)}
    seen: dict[str, str] = {}
    items = []
    for video in videos:
        content = _content(root / video)
        twin = seen.setdefault(content, video) if content and is_encodable(video) else video
        source = (root, video, "" if twin == video else twin, options)
        items.append(Item(video, (), by, source, content if twin == video else f"{content} {twin}"))
    work.video_root = root
    return run_step(work, "scenes", items, _make, jobs=jobs, progress=progress)


def _content(path: Path) -> str:
    """Fingerprint of a file; "" where it cannot be read."""
    try:
        return fingerprint(str(path), identify(str(path)).size)
    except VideoError:
        return ""


def _make(source: tuple[Path, str, str, SceneOptions]) -> Made:
    root, path, twin, options = source
    told = {"video": path}
    if not is_encodable(path):
        return Dropped("unusable", f"{path}: its name is not UTF-8, which no file of tasks can hold", told)
    if twin:
        return Dropped("duplicate", f"{path}: the same content as {twin}", told)
    try:
        with open_video(str(root / path)) as video:
            check_length(video.meta)
            return {
                "video": path,
                "fingerprint": video.meta.fingerprint,
                "duration_s": video.meta.duration_s,
                "scenes": scenes_of(video, options),
            }
    except DecodeTimeout as error:
        raise Later(str(error)) from error
    except (VideoError, ValueError) as error:  # ValueError: of one frame, or too long
        return Dropped(CODES.get(type(error).__name__, "unusable"), f"{path}: {error}", told)


def scenes_of(video: Video, options: SceneOptions = SceneOptions()) -> list[tuple[float, float]]:
    """``(start_s, end_s)`` of the scenes of a video, in seconds; together they are all of it.

    Raises:
        ImportError: PySceneDetect is not installed and cuts are to be found.
        VideoError: a frame cannot be decoded.
    """
    cuts_s = _cuts(video, options.threshold) if options.cuts == "content" else []
    ends = [0.0, *cuts_s, video.meta.duration_s]
    return list(_divided(_joined(list(pairwise(ends)), options.min_scene_s), options.max_scene_s))


def _cuts(video: Video, threshold: float) -> list[float]:
    """Times of the first frames after cuts."""
    from scenedetect import FrameTimecode

    pts_s, least = video.pts_s, max(1, round(_LEAST_S * video.meta.avg_fps))
    detector = _detector(threshold, least)
    size = size_within(video, _BOX)
    # Frames are numbered, not timed: the detector counts them, and where they stand is known here.
    cuts: list[int] = []
    for first in range(0, len(pts_s), _CHUNK):
        batch = video.frames_at(pts_s[first : first + _CHUNK].tolist(), size=size)
        for number, pixels in enumerate(batch.pixels, start=first):
            found = detector.process_frame(FrameTimecode(number, fps=25.0), _bgr(pixels))
            cuts += [cut.frame_num for cut in found]
    cuts += [cut.frame_num for cut in detector.post_process(FrameTimecode(len(pts_s) - 1, fps=25.0))]
    return [float(pts_s[cut]) for cut in sorted(set(cuts)) if 0 < cut < len(pts_s)]


def size_within(video: Video, box: tuple[int, int]) -> tuple[int, int]:
    """``(width, height)`` of a frame that fits into a box, never enlarged."""
    width, height = video.meta.width, video.meta.height
    return fit_within(width, height, (min(width, box[0]), min(height, box[1])))


def _bgr(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels[:, :, ::-1])


def _detector(threshold: float, least: int) -> Any:
    try:
        from scenedetect import ContentDetector
    except ImportError as error:
        raise ImportError(
            "cuts are found by PySceneDetect, which is not installed: pip install 'videogym[data]'; "
            "without cuts, videos are divided evenly"
        ) from error
    return ContentDetector(threshold=threshold, min_scene_len=least)


def _joined(scenes: list[tuple[float, float]], least_s: float) -> list[tuple[float, float]]:
    """Scenes with neighbours until none is shorter, as far as there are neighbours."""
    joined: list[tuple[float, float]] = []
    start_s = scenes[0][0]
    for _, end_s in scenes:
        if end_s - start_s >= least_s:
            joined.append((start_s, end_s))
            start_s = end_s
    last_s = scenes[-1][1]
    if start_s < last_s:  # a short rest
        start_s = joined.pop()[0] if joined else start_s
        joined.append((start_s, last_s))
    return joined


def _divided(scenes: list[tuple[float, float]], most_s: float) -> Iterator[tuple[float, float]]:
    for start_s, end_s in scenes:
        count = max(1, math.ceil((end_s - start_s) / most_s - 1e-9))
        ends = [start_s + (end_s - start_s) * i / count for i in range(count)] + [end_s]
        yield from pairwise(ends)


def open_unchanged(store: FrameStore, row: dict[str, Any]) -> Video:
    """The video of a line of scenes.

    Raises:
        VideoChanged: it is not the one whose scenes were found.
        VideoError: it cannot be used.
    """
    video = store.open(row["video"])
    if video.meta.fingerprint != row["fingerprint"]:
        raise VideoChanged(
            f"{row['video']}: changed since its scenes were found; put it back, or run "
            "`videogym data scenes` and the steps after it again"
        )
    return video
