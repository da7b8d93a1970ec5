"""Which videos are meant: files, folders with all below them, addresses, and the videos of tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from videogym.datasets import READERS, TaskFileError, find_videos, load_tasks
from videogym.datasets.planted import PLANTED_TASKS_PREFIX
from videogym.datasets.procedural import PROCEDURAL_PREFIX
from videogym.doctor import Examination, finding
from videogym.doctor.diagnosis import check_path
from videogym.state import Task
from videogym.video.addresses import PLANTED_PREFIX, is_address
from videogym.video.containers import VIDEO_SUFFIXES
from videogym.video.planted import PlantedAddress

# What is known to be wrong before any video is opened, with the tasks concerned.
Wrong = list[tuple[Examination, tuple[Task, ...]]]


@dataclass(frozen=True, slots=True)
class Place:
    """A video to be opened."""

    path: str  # or an address
    tasks: tuple[Task, ...] = ()  # that ask about it


def find_places(arguments: Sequence[str], video_root: str | None = None) -> tuple[list[Place], Wrong]:
    """The videos that arguments of a command name, each once.

    Args:
        arguments: paths of files and folders, addresses, and sources of tasks.
        video_root: folder in which the videos of tasks are looked up; None: their paths are taken as they
            stand.

    Returns:
        The videos, and what is known to be wrong before any is opened, with the tasks concerned.

    Raises:
        ValueError: a folder holds no video, an argument is no source of tasks, or there is no folder
            ``video_root``.
    """
    places: dict[str, list[Task]] = {}
    wrong: Wrong = []
    for argument in arguments:
        if is_task_source(argument):
            try:
                found = _of_tasks(argument, video_root, wrong)
            except TaskFileError as error:
                wrong.append((Examination(argument, (finding("task_file", argument, str(error)),)), ()))
                continue
        elif os.path.isdir(argument):
            known = len(wrong)
            found = [Place(path) for path in _below(argument, wrong)]
            if not found and len(wrong) == known:
                raise ValueError(
                    f"{argument}: no video in this folder, by the endings of names; links to folders are "
                    "not followed"
                )
        else:
            found = [Place(argument)]
        for place in found:
            places.setdefault(place.path, []).extend(place.tasks)
    return [Place(path, tuple(tasks)) for path, tasks in places.items()], wrong


def is_task_source(argument: str) -> bool:
    """Whether an argument names tasks, not a video."""
    name, colon, path = argument.partition(":")
    # A format that is not known: to be refused with the list of those that are.
    unknown = bool(colon) and not _is_called_video(path) and not os.path.lexists(argument)
    return (
        argument.startswith((PROCEDURAL_PREFIX, PLANTED_TASKS_PREFIX))
        or bool(colon and name in READERS)
        or (unknown and not is_address(argument) and "/" not in name)
        or (argument.endswith((".jsonl", ".json")) and not os.path.isdir(argument))
    )


def _of_tasks(source: str, video_root: str | None, wrong: Wrong) -> list[Place]:
    """Videos of tasks; those that are not found are added to ``wrong``."""
    if video_root is not None and not os.path.isdir(video_root):
        raise ValueError(f"--video-root must be a folder, got {video_root!r}")
    # What is planted depends on the folder; other tasks are looked up in it below.
    tasks = list(load_tasks(source, video_root if source.startswith(PLANTED_TASKS_PREFIX) else None))
    root = ""
    if video_root is not None:
        by_id = {task.task_id: task for task in tasks}
        check = find_videos(tasks, video_root)
        for problem in check.problems:
            found = finding(problem.cause, problem.video, problem.message)
            if problem.cause == "missing":  # unless something is there under that name
                seen = check_path(os.path.join(video_root, problem.video))
                found = seen if seen is not None and seen.code != "missing" else found
            concerned = tuple(by_id[task_id] for task_id in problem.task_ids)
            wrong.append((Examination(problem.video, (found,)), concerned))
        tasks, root = list(check.tasks), video_root
    by_video: dict[str, list[Task]] = {}
    for task in tasks:
        path = _located(task.video, root)
        by_video.setdefault(path, []).append(task)
    return [Place(path, tuple(of_video)) for path, of_video in by_video.items()]


def _located(video: str, root: str) -> str:
    """The path of a task's video, or its address with paths, below a folder."""
    if video.startswith(PLANTED_PREFIX):
        return str(PlantedAddress.parse(video).relocated(lambda path: os.path.join(root, path)))
    return video if is_address(video) else os.path.join(root, video)


def _below(folder: str, wrong: Wrong) -> Iterator[str]:
    """Whatever is called like a video, links that lead nowhere and folders among them.

    Folders that may not be read are added to ``wrong``.
    """

    def closed(error: OSError) -> None:
        path = str(error.filename)
        found = finding("permission", path, f"the folder may not be read ({error.strerror})")
        wrong.append((Examination(path, (found,)), ()))

    for parent, folders, names in os.walk(folder, onerror=closed):
        folders.sort()
        for name in sorted([*names, *(name for name in folders if _is_called_video(name))]):
            if _is_called_video(name):
                yield os.path.join(parent, name)


def _is_called_video(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES
