"""The one way to load tasks, whatever their source."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from videogym.datasets.cg_bench import read_cg_bench
from videogym.datasets.charades_sta import read_charades_sta
from videogym.datasets.egoschema import read_egoschema
from videogym.datasets.longvideobench import read_longvideobench
from videogym.datasets.longvt import read_longvt_rl, read_longvt_sft
from videogym.datasets.lvbench import read_lvbench
from videogym.datasets.mixture import MIXTURE_PREFIX, MixturePart, load_mixture
from videogym.datasets.mlvu import read_mlvu
from videogym.datasets.nextgqa import read_nextgqa
from videogym.datasets.planted import PLANTED_TASKS_PREFIX, PlantedTasks
from videogym.datasets.procedural import PROCEDURAL_PREFIX, ProceduralTasks
from videogym.datasets.qvhighlights import read_qvhighlights, read_qvhighlights_choices
from videogym.datasets.subtitles import SUBTITLES, read_subtitles
from videogym.datasets.task_files import read_tasks
from videogym.datasets.tasks import TaskFileError, TaskList, Tasks
from videogym.datasets.video_mme import read_video_mme
from videogym.datasets.video_mmmu import read_video_mmmu
from videogym.datasets.video_r1 import read_video_r1
from videogym.datasets.videos import find_videos
from videogym.datasets.videosiah_eval import read_videosiah_eval
from videogym.state import Task
from videogym.video.addresses import PLANTED_PREFIX, SYNTHETIC_PREFIX
from videogym.video.planted import PlantedAddress

Source = str | os.PathLike[str]
Root = str | os.PathLike[str] | None

# Published data sets in the shape in which they are published, from local files.
READERS: dict[str, Callable[[str], TaskList]] = {
    "cg-bench": read_cg_bench,
    "charades-sta": read_charades_sta,
    "egoschema": read_egoschema,
    "longvideobench": read_longvideobench,
    "longvt-rl": read_longvt_rl,
    "longvt-sft": read_longvt_sft,
    "lvbench": read_lvbench,
    "mlvu": read_mlvu,
    "nextgqa": read_nextgqa,
    "qvhighlights": read_qvhighlights,
    "qvhighlights-choices": read_qvhighlights_choices,
    "video-mme": read_video_mme,
    "video-mmmu": read_video_mmmu,
    "videosiah-eval": read_videosiah_eval,
}


def load_tasks(source: Source | Iterable[Source] | Mapping[str, Root], video_root: Root = None) -> Tasks:
    """Load tasks, of one source or of several.

    Args:
        source: ``procedural:FAMILY?...`` (see `ProceduralTasks.parse`); ``planted:FAMILY?...``, about the
            videos in ``video_root`` (see `PlantedTasks.parse`); the path of a task file, ``.jsonl``
            in our schema (see `read_tasks`) or ``.json`` in Video-R1's (see `read_video_r1`); or
            ``FORMAT:PATH``, a published data set in local files, e.g. ``cg-bench:data/cgbench.json``
            (`READERS` lists the formats), either with ``?subtitles=FOLDER`` behind it, see
            `read_subtitles`; or ``mixture:FILE``, several of these by weight, see
            `videogym.datasets.mixture`. Several sources are joined in their order, and their ids must
            differ: a list of them, all with the same ``video_root``, or a mapping from each to the folder
            of its videos, e.g. ``{"cg-bench:cgbench.json": "cg/", "tasks.jsonl": "mine/"}``. Videos of a
            mapping become absolute paths, so that no ``video_root`` is needed to open them.
        video_root: folder below which the relative video paths of a task file lie. No video is opened
            here; the folder must exist. Videos of published data sets are looked up in it (see
            `find_videos`); a warning lists those that are not there, and their tasks stay.

    Raises:
        TaskFileError: the file cannot be read or holds an invalid task; in a mapping also a task whose
            video lies outside the folder of its source.
        InvalidAddress: a procedural or planted source cannot be read.
        ValueError: the source is none of these, or there is no folder ``video_root``; of several sources,
            two have a task of the same id, or a mapping and a ``video_root`` were given.
        ImportError: a parquet file, and pyarrow is not installed.
    """
    if isinstance(source, Mapping):
        if video_root is not None:
            raise ValueError(
                f"every source has a folder of its own; video_root must be None, got {video_root!r}"
            )
        return _joined(
            [(str(one), _absolute(str(one), load_tasks(one, root), root)) for one, root in source.items()]
        )
    if isinstance(source, Iterable) and not isinstance(source, str | bytes | os.PathLike):
        return _joined([(str(one), load_tasks(one, video_root)) for one in source])
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"a source of tasks is text or a path, got {source!r:.80}")
    if video_root is not None and not Path(video_root).is_dir():
        raise ValueError(f"video_root must be a folder, got {os.fspath(video_root)!r}")
    text = os.fspath(source)
    if text.startswith(MIXTURE_PREFIX):
        return load_mixture(text, lambda part: _of_part(part, video_root))
    before, mark, folder = text.rpartition(SUBTITLES)
    if mark and not text.startswith(PROCEDURAL_PREFIX):
        return read_subtitles(load_tasks(before, video_root), folder)
    if text.startswith(PROCEDURAL_PREFIX):
        return ProceduralTasks.parse(text)
    if text.startswith(PLANTED_TASKS_PREFIX):
        return PlantedTasks.parse(text, video_root)
    name, colon, path = text.partition(":")
    if colon and name in READERS:
        tasks = READERS[name](path)
        return tasks if video_root is None else _with_files(tasks, video_root)
    is_format = colon and "/" not in name and not Path(text).exists()  # one that is not known
    if text.endswith(".jsonl") and not is_format:
        return read_tasks(text)
    if text.endswith(".json") and not is_format:
        return read_video_r1(text)
    raise ValueError(
        f"tasks come from {PROCEDURAL_PREFIX}..., {PLANTED_TASKS_PREFIX}..., {MIXTURE_PREFIX}..., a .jsonl "
        f"or a .json file, or FORMAT:PATH with a format of {', '.join(READERS)}; got {text!r}"
    )


def as_tasks(
    tasks: Source | Mapping[str, Root] | Sequence[Source] | Sequence[Task], video_root: Root = None
) -> Tasks:
    """Tasks as they are, or those of the sources that are given in their place, see `load_tasks`.

    Raises:
        ValueError: there are none, or `load_tasks` raises.
    """
    loaded: Tasks
    if isinstance(tasks, Tasks):
        loaded = tasks
    elif isinstance(tasks, str | os.PathLike | Mapping):
        loaded = load_tasks(tasks, video_root)
    elif not isinstance(tasks, Iterable):
        raise ValueError(f"tasks are a source, several of them, or tasks, got {tasks!r:.80}")
    elif all(isinstance(one, Task) for one in tasks):
        loaded = TaskList(cast("Sequence[Task]", tasks))
    else:
        loaded = load_tasks(cast("Sequence[Source]", tasks), video_root)
    if not len(loaded):
        raise ValueError(f"there are no tasks in {tasks!r}")
    return loaded


def _of_part(part: MixturePart, video_root: Root) -> TaskList:
    """All tasks of a mixture's part; below a folder of its own its videos have absolute paths."""
    if part.video_root is None:
        tasks = load_tasks(part.tasks, video_root)
    else:
        if video_root is not None and not Path(part.video_root).resolve().is_relative_to(
            Path(video_root).resolve()
        ):
            raise ValueError(
                f"the folder {part.video_root} of {part.tasks} lies outside video_root "
                f"{os.fspath(video_root)}, and no video would be opened there; name one above both, or none"
            )
        tasks = _absolute(part.tasks, load_tasks(part.tasks, part.video_root), part.video_root)
    return tasks if isinstance(tasks, TaskList) else TaskList(tasks)


def _with_files(tasks: TaskList, video_root: str | os.PathLike[str]) -> TaskList:
    """The same tasks, those whose video is found with its path below the folder."""
    check = find_videos(tasks, video_root)
    if not check.problems:
        return TaskList(check.tasks, tasks.left_out)
    named = "; ".join(str(problem) for problem in check.problems[:3])
    more = "" if len(check.problems) <= 3 else f"; and {len(check.problems) - 3} more, see check_videos"
    warnings.warn(f"videos that are not found in {os.fspath(video_root)}: {named}{more}", stacklevel=3)
    paths = {task.task_id: task.video for task in check.tasks}
    found = (replace(task, video=paths.get(task.task_id, task.video)) for task in tasks)
    return TaskList(found, tasks.left_out)


def _joined(sources: Sequence[tuple[str, Tasks]]) -> TaskList:
    """The tasks of several sources in one row."""
    sources_of: dict[str, str] = {}
    for source, tasks in sources:
        for task in tasks:
            if task.task_id in sources_of:
                raise ValueError(
                    f"the id {task.task_id!r} is in {sources_of[task.task_id]} and in {source}; give the "
                    "tasks of one of them other ids, dataclasses.replace(task, task_id=...)"
                )
            sources_of[task.task_id] = source
    left_out = (row for _, tasks in sources if isinstance(tasks, TaskList) for row in tasks.left_out)
    return TaskList((task for _, tasks in sources for task in tasks), left_out)


def _absolute(source: str, tasks: Tasks, video_root: Root) -> Tasks:
    """The same tasks with their videos as absolute paths below the folder of their source."""
    if video_root is None:
        return tasks
    root = os.path.realpath(video_root)
    return TaskList(
        (replace(task, video=_below(root, task, source)) for task in tasks),
        tasks.left_out if isinstance(tasks, TaskList) else (),
    )


def _below(root: str, task: Task, source: str) -> str:
    if task.video.startswith(SYNTHETIC_PREFIX):
        return task.video
    if task.video.startswith(PLANTED_PREFIX):
        return str(
            PlantedAddress.parse(task.video).relocated(lambda path: _inside(root, path, task, source))
        )
    return _inside(root, task.video, task, source)


def _inside(root: str, video: str, task: Task, source: str) -> str:
    """The absolute path of a file below a folder."""
    path = os.path.join(root, video)
    try:
        inside = os.path.commonpath([root, os.path.realpath(path)]) == root
    except ValueError:  # a NUL, or a letter that no file name can hold: nothing is there to be opened
        inside = True
    if not inside:
        problem = f"video {video!r} lies outside the folder of its source, {root}"
        raise TaskFileError(source, f"task {task.task_id!r}", problem)
    return path
