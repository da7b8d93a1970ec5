"""A guard against evaluating on what was trained on.

Tasks of two sources are compared by their videos and questions. A video is known by its file name without
folder and ending, so that the copies of different data sets are the same video; a renamed copy, or a clip
cut out of a longer video, is not recognised.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from videogym.datasets.longvt import is_image
from videogym.datasets.planted import PlantedTasks
from videogym.datasets.procedural import SPLITS, ProceduralTasks
from videogym.state import Task
from videogym.video.addresses import PLANTED_PREFIX, SYNTHETIC_PREFIX
from videogym.video.containers import VIDEO_SUFFIXES
from videogym.video.planted import PlantedAddress
from videogym.video.synthetic import Address, InvalidAddress


@dataclass(frozen=True)
class Overlap:
    """Tasks of one source that another one gives away."""

    videos: tuple[str, ...]  # task ids whose video is among those of the other source
    questions: tuple[str, ...]  # those of them whose question about it is there too


class TrainedOnError(ValueError):
    """Tasks for evaluation were trained on.

    Args:
        overlap: which.
        what: ``"video"`` or ``"question"``, what must not be shared.
        count: how many tasks there are.
    """

    def __init__(self, overlap: Overlap, what: str, count: int) -> None:
        self.overlap, self.what, self.count = overlap, what, count
        ids = overlap.videos if what == "video" else overlap.questions
        named = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
        super().__init__(
            f"{len(overlap.videos)} of {count} tasks ask about videos that were trained on, "
            f"{len(overlap.questions)} of them the same question: {named}"
        )

    def __reduce__(self) -> tuple[type[TrainedOnError], tuple[Overlap, str, int]]:
        return type(self), (self.overlap, self.what, self.count)


def find_overlap(tasks: Iterable[Task], trained_on: Iterable[Task]) -> Overlap:
    """Tasks whose video, or whose question about the same video, is in another source.

    Questions are the same if they read alike but for case, white space and a closing question mark.
    A procedural or planted source is not gone through where none of the videos can be one of its own:
    another split costs no time, however many tasks it has.
    """
    if isinstance(trained_on, ProceduralTasks):
        tasks = list(tasks)
        if not any(_may_hold(trained_on, task.video) for task in tasks):
            return Overlap((), ())
    if isinstance(trained_on, PlantedTasks):
        tasks = list(tasks)
        footage = {_video_key(one.path) for one in trained_on.footage}
        if not any(_video_key(task.video) in footage for task in tasks):
            return Overlap((), ())
    asked: dict[str, set[str]] = defaultdict(set)
    for task in trained_on:
        asked[_video_key(task.video)].add(_question_key(task.question))
    shared = [task for task in tasks if _video_key(task.video) in asked]
    same = [task for task in shared if _question_key(task.question) in asked[_video_key(task.video)]]
    return Overlap(tuple(task.task_id for task in shared), tuple(task.task_id for task in same))


def require_unseen(
    tasks: Iterable[Task], trained_on: Iterable[Task], *, by: Literal["video", "question"] = "video"
) -> None:
    """Refuse to evaluate on what was trained on.

    Args:
        tasks: for evaluation.
        trained_on: that a policy learned from.
        by: ``"video"``: no video may be shared, whatever is asked about it. ``"question"``: videos may be
            shared, questions about them may not.

    Raises:
        TrainedOnError: something is shared; the message says how much and names tasks.
        ValueError: ``by`` is neither.
    """
    if by not in ("video", "question"):
        raise ValueError(f"by must be 'video' or 'question', got {by!r}")
    tasks = list(tasks)
    overlap = find_overlap(tasks, trained_on)
    if overlap.videos if by == "video" else overlap.questions:
        raise TrainedOnError(overlap, by, len(tasks))


def require_unseen_files(tasks: Iterable[Task], files: Iterable[str]) -> None:
    """Refuse to evaluate on videos that were trained on, where they are known by their files alone.

    Args:
        tasks: for evaluation.
        files: paths or addresses of videos, and paths of images, which are taken for frames of a video if
            they or their folder are called as it is, with its ending or without.

    Raises:
        TrainedOnError: a task asks about one of these videos; of questions nothing is known.
    """
    tasks, keys = list(tasks), {key for file in files for key in _file_keys(file)}
    shared = tuple(task.task_id for task in tasks if _video_key(task.video) in keys)
    if shared:
        raise TrainedOnError(Overlap(shared, ()), "video", len(tasks))


def _file_keys(file: str) -> tuple[str, ...]:
    if not is_image(file):
        return (_video_key(file),)
    path = PurePosixPath(file.replace("\\", "/"))
    return _video_key(path.stem), _video_key(path.parent.name)


def _may_hold(source: ProceduralTasks, video: str) -> bool:
    """Whether a video can be one of a procedural source.

    Its videos are told apart by seeds alone, which leave the same remainder in all of a split.
    """
    own = Address.parse(source[0].video)
    try:
        other = Address.parse(video)
    except InvalidAddress:
        return False  # no address, or one of a video that is not there
    return replace(other, seed=own.seed) == own and (other.seed - own.seed) % len(SPLITS) == 0


def _video_key(video: str) -> str:
    if video.startswith(SYNTHETIC_PREFIX):
        return video
    if video.startswith(PLANTED_PREFIX):  # whatever is planted into it, the footage is the same
        with contextlib.suppress(InvalidAddress):  # one that nobody can open is its own video
            video = PlantedAddress.parse(video).source
    path = PurePosixPath(video.replace("\\", "/"))
    return _folded(path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name)


def _question_key(question: str) -> str:
    return _folded(question).rstrip("?. ")


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
