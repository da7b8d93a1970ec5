"""The one way to load tasks, whatever their source."""

from __future__ import annotations

import os
from pathlib import Path

from videogym.datasets.procedural import PREFIX, ProceduralTasks
from videogym.datasets.task_files import read_tasks
from videogym.datasets.tasks import Tasks
from videogym.datasets.video_r1 import read_video_r1


def load_tasks(source: str | os.PathLike[str], video_root: str | os.PathLike[str] | None = None) -> Tasks:
    """Load tasks.

    Args:
        source: ``procedural:FAMILY?...`` (see `ProceduralTasks.parse`), or the path of a task file:
            ``.jsonl`` in our schema (see `read_tasks`), ``.json`` in Video-R1's (see `read_video_r1`).
        video_root: folder below which the relative video paths of a task file lie. No video is opened
            here; the folder must exist.

    Raises:
        TaskFileError: the file cannot be read or holds an invalid task.
        InvalidAddress: a procedural source cannot be read.
        ValueError: the source is neither, or there is no folder ``video_root``.
    """
    if video_root is not None and not Path(video_root).is_dir():
        raise ValueError(f"video_root must be a folder, got {os.fspath(video_root)!r}")
    text = os.fspath(source)
    if text.startswith(PREFIX):
        return ProceduralTasks.parse(text)
    if text.endswith(".jsonl"):
        return read_tasks(text)
    if text.endswith(".json"):
        return read_video_r1(text)
    raise ValueError(f"tasks come from {PREFIX}..., a .jsonl or a .json file, got {text!r}")
