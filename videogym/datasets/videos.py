"""Which videos of some tasks are there, and which can be used; the others are listed, never fatal.

Data sets name their videos by an id, by a path on somebody else's machine or by another ending than the
file at hand has. A name is looked up below one folder: as it stands, else by file name in any ending and
at any depth. Nothing outside that folder is ever taken, links included.
"""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from videogym.datasets.tasks import EvidenceError, TaskList, check_evidence, check_length, check_same_video
from videogym.state import Task
from videogym.video import FrameStore, VideoChanged, VideoError, VideoMeta, VideoNotFound
from videogym.video.addresses import is_address
from videogym.video.containers import VIDEO_SUFFIXES

ProblemCause = Literal["missing", "ambiguous", "unusable", "evidence"]


@dataclass(frozen=True)
class VideoProblem:
    """Why a video, or the evidence of a task in it, cannot be used."""

    video: str  # as the tasks name it
    cause: ProblemCause
    message: str
    task_ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.video}: {self.message} ({len(self.task_ids)} tasks)"


@dataclass(frozen=True)
class VideoCheck:
    """Tasks whose videos can be used, and what is wrong with the others."""

    tasks: TaskList  # in their order, each with the path of its file
    problems: tuple[VideoProblem, ...]


def find_videos(tasks: Iterable[Task], video_root: str | os.PathLike[str]) -> VideoCheck:
    """Look up the files of the tasks' videos by name, without opening any.

    A file fits a name if it is called the same up to the ending and the case, and the folders that both
    tell of agree from the last one upwards: ``/data/set/a/1.mp4`` fits ``set/a/1.mkv`` and ``1.mp4``, but
    not ``b/1.mp4``. A file of the very name is preferred: ids may differ in nothing but the case. Where
    several fit alike, or two names lead to one file and neither is its own, none is taken. A warning tells
    of names that are found in another case alone.

    Args:
        tasks: any; addresses are left alone, and with them the files that a ``planted-video:`` one names.
        video_root: folder to search, with all below it.

    Raises:
        ValueError: there is no such folder.
    """
    tasks = list(tasks)
    names = _by_video(tasks)
    paths, problems = _look_up(list(names), video_root)
    found = [replace(task, video=paths[task.video]) for task in tasks if task.video in paths]
    other_case = [name for name, path in paths.items() if name != path and not _is_same(name, path)]
    if other_case:
        first = f"{other_case[0]} as {paths[other_case[0]]}"
        told = f"{len(other_case)} videos are there under a name of another case alone, such as {first}"
        warnings.warn(f"{os.fspath(video_root)}: {told}; ids may differ in nothing else", stacklevel=2)
    return VideoCheck(
        TaskList(found),
        tuple(
            VideoProblem(name, cause, message, names[name]) for name, (cause, message) in problems.items()
        ),
    )


def check_videos(tasks: Iterable[Task], video_root: str | os.PathLike[str] | None = None) -> VideoCheck:
    """Open the videos of the tasks, one after the other, and compare evidence with their lengths.

    What is left can be played: a video of one frame, or of more than a day, is not. The packet headers of
    every file are read once and kept in the cache, so that a second call is quick.

    Args:
        tasks: any.
        video_root: folder below which the videos are looked up, see `find_videos`; None: the tasks' paths
            are taken as they stand.

    Raises:
        ValueError: there is no such folder.
    """
    found = VideoCheck(TaskList(tasks), ()) if video_root is None else find_videos(tasks, video_root)
    problems = list(found.problems)
    facts: dict[str, VideoMeta] = {}
    with FrameStore(video_root=None if video_root is None else os.fspath(video_root)) as store:
        for name, task_ids in _by_video(found.tasks).items():
            try:
                meta = store.open(name).meta
                check_length(meta)
                facts[name] = meta
            except ValueError as error:
                problems.append(VideoProblem(name, "unusable", str(error), task_ids))
            except VideoError as error:
                cause: ProblemCause = "missing" if isinstance(error, VideoNotFound) else "unusable"
                problems.append(VideoProblem(name, cause, str(error), task_ids))
    usable = []
    for task in found.tasks:
        if task.video in facts:
            try:
                check_same_video(task, facts[task.video])
                check_evidence(task, facts[task.video].duration_s)
                usable.append(task)
            except VideoChanged as error:
                problems.append(VideoProblem(task.video, "unusable", str(error), (task.task_id,)))
            except EvidenceError as error:
                problems.append(VideoProblem(task.video, "evidence", str(error), (task.task_id,)))
    return VideoCheck(TaskList(usable), tuple(problems))


def _by_video(tasks: Iterable[Task]) -> dict[str, tuple[str, ...]]:
    ids: dict[str, list[str]] = defaultdict(list)
    for task in tasks:
        ids[task.video].append(task.task_id)
    return {video: tuple(of_video) for video, of_video in ids.items()}


def _look_up(
    names: Sequence[str], video_root: str | os.PathLike[str]
) -> tuple[dict[str, str], dict[str, tuple[ProblemCause, str]]]:
    """Path of each name that is found, and why the others are not."""
    root = os.path.realpath(video_root)
    if not os.path.isdir(root):
        raise ValueError(f"video_root must be a folder, got {os.fspath(video_root)!r}")
    exact = [name for name in names if is_address(name) or _is_below(root, name)]
    rest = sorted(set(names) - set(exact))
    paths = {name: name for name in exact}
    problems: dict[str, tuple[ProblemCause, str]] = {}
    files = _files_below(root) if rest else {}
    for name in rest:
        fitting = _fitting(name, files.get(_folded(_stem(name)), ()))
        if len(fitting) == 1:
            paths[name] = fitting[0]
        elif fitting:
            problems[name] = "ambiguous", f"several files fit: {', '.join(fitting[:3])}"
        else:
            problems[name] = "missing", f"no such file below {root}"
    for name, other in _rivals(root, paths, rest).items():
        problems[name] = "ambiguous", f"leads to {paths[name]}, as does {other}"
    return {name: path for name, path in paths.items() if name not in problems}, problems


def _rivals(root: str, paths: dict[str, str], searched: Sequence[str]) -> dict[str, str]:
    """Searched names that lead to one file with a name of another video that fits as well, and that one."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name, path in paths.items():
        owners[os.path.normpath(os.path.join(root, path))].append(name)
    rivals = {}
    for name in searched:
        if name in paths:
            for other in owners[os.path.join(root, paths[name])]:
                if not _is_same(name, other) and (
                    other not in searched or _claims(name, other, paths[name])
                ):
                    rivals[name] = other
    return rivals


def _claims(name: str, other: str, path: str) -> bool:
    """Whether a path fits another name as well as it fits a name."""
    one, rival = _fit(name, path), _fit(other, path)
    return one is not None and rival is not None and rival >= one


def _is_below(root: str, name: str) -> bool:
    try:
        path = os.path.realpath(os.path.join(root, name))
    except ValueError:  # a NUL, or a letter that no file name can hold
        return False
    return os.path.commonpath([root, path]) == root and os.path.isfile(path)


def _files_below(root: str) -> dict[str, list[str]]:
    """Video files by their names without ending, as paths below the root, in a fixed order."""
    files: dict[str, list[str]] = defaultdict(list)
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = os.path.relpath(os.path.join(folder, name), root)
            if os.path.splitext(name)[1].lower() not in VIDEO_SUFFIXES:
                continue
            if not os.path.islink(os.path.join(folder, name)) or _is_below(root, path):
                files[_folded(_stem(path))].append(path)
    return files


def _stem(path: str) -> str:
    stem, suffix = os.path.splitext(_composed(os.path.basename(path)))
    return stem if suffix.lower() in VIDEO_SUFFIXES else stem + suffix


def _composed(text: str) -> str:
    """The same text whether or not accents are characters of their own, as some disks have them."""
    return unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    return _composed(text.casefold())


def _fitting(name: str, paths: Sequence[str]) -> list[str]:
    """The paths that fit a name best."""
    fits = [(_fit(name, path), path) for path in paths]
    best = max((fit for fit, _ in fits if fit is not None), default=None)
    return [path for fit, path in fits if fit is not None and fit == best]


def _fit(name: str, path: str) -> tuple[bool, int, bool] | None:
    """How well a path fits a name of the same folded stem; the larger the better.

    Returns:
        Whether the stems are the same to the letter, how many folders are, from the last upwards and
        whatever their case, and whether these are the same to the letter; None if one differs before
        either ends.
    """
    ours, theirs = _folders(name), _folders(path)
    both = list(zip(ours, theirs, strict=False))
    if any(_folded(one) != _folded(other) for one, other in both):
        return None
    return _stem(name) == _stem(path), len(both), all(one == other for one, other in both)


def _is_same(name: str, other: str) -> bool:
    """Whether two names can be of one video: to the letter the same, as far as both tell."""
    fit = _fit(name, other)
    return fit is not None and fit[0] and fit[2]


def _folders(path: str) -> list[str]:
    return [_composed(part) for part in reversed(PurePosixPath(path).parent.parts) if part != "/"]
