"""Task files in our own schema: JSON Lines, one task a line.

| field | value |
|---|---|
| `task_id` | text, unique in the file |
| `video` | path below ``video_root``, absolute path, or a ``synthetic:`` or ``planted-video:`` address |
| `question` | text |
| `kind` | `"choice"`, `"open"` or `"numeric"` |
| `options` | for a choice 2 to 26 texts without letters; otherwise absent or `[]` |
| `answer` | the letter for a choice, the number as text for numeric, else the text, which may be empty |
| `evidence` | `[[start_s, end_s], ...]` in seconds of the video; absent or `null`: not annotated |
| `source` | text, where the task comes from; may be absent |
| `evidence_region` | `[x0, y0, x1, y1]`, the place of a detail that only a crop shows; may be absent |
| `metadata` | an object of whatever else is told of the task; may be absent |

Any other field is metadata too, e.g. `category`; it is read as if it stood in `metadata`. A name that is
nearly one of the above, `anser`, is kept like that and a warning tells of it. Nothing is repaired: the
first fault raises `TaskFileError`.
"""

from __future__ import annotations

import functools
import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any, get_args

from videogym.datasets.fields import (
    choice_of,
    object_of,
    region_of,
    require_fields,
    segments_of,
    text_of,
    texts_of,
)
from videogym.datasets.rows import Row, collect, json_rows, parse_json
from videogym.datasets.tasks import TaskFileError, TaskList
from videogym.metadata import Metadata
from videogym.state import Task, TaskKind
from videogym.writing import appearing

REQUIRED = ("task_id", "video", "question", "kind", "answer")
OPTIONAL = ("options", "evidence", "source", "evidence_region", "metadata")
_NEAR = 0.8  # above which share of common letters names of about one length are taken for each other


def read_tasks(path: str | os.PathLike[str]) -> TaskList:
    """Read a task file. Empty lines are skipped.

    Raises:
        TaskFileError: the file cannot be read, or a line is not a valid task.
    """
    strange: dict[str, list[str]] = {}  # where each unknown name that is nearly a known one stands
    tasks = collect(path, json_rows(path, lines=True), lambda line: _read_line(line, strange))
    for name, places in strange.items():
        told = f"field {name!r} ({places[0]}{f' and {len(places) - 1} more' if places[1:] else ''})"
        kept = f"{told} is kept as metadata; is {meant(name)!r} meant?"
        warnings.warn(f"{os.fspath(path)}: {kept}", stacklevel=2)
    return tasks


@functools.lru_cache(maxsize=1024)
def meant(name: str) -> str | None:
    """The field of a task file that an unknown name is nearly called like, if any.

    >>> meant("anser"), meant("Option"), meant("task-id"), meant("category"), meant("question_type")
    ('answer', 'options', 'task_id', None, None)
    """
    plain = _plain(name)
    likeness = {
        known: SequenceMatcher(None, plain, _plain(known), autojunk=False).ratio()
        for known in (*REQUIRED, *OPTIONAL)
        if abs(len(plain) - len(_plain(known))) <= 1
    }
    best = max(likeness, key=lambda known: likeness[known], default="")
    return best if best and likeness[best] > _NEAR else None


def _plain(name: str) -> str:
    """A name without case and what stands between its words."""
    return "".join(character for character in name.casefold() if character.isalnum())


def write_tasks(path: str | os.PathLike[str], tasks: Iterable[Task]) -> None:
    """Write tasks so that `read_tasks` gives them back, but for subtitles. It appears when it is complete.

    Raises:
        ValueError: a task would not come back, such as one with a blank question, or two share an id; the
            message names the task. No file is written.
        TaskFileError: there are no tasks, and `read_tasks` refuses a file without any.
        OSError: the file cannot be written.
    """
    with appearing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        ids: set[str] = set()
        for task in tasks:
            if task.task_id in ids:
                raise ValueError(f"task {task.task_id!r} is there twice; ids must be unique")
            ids.add(task.task_id)
            file.write(_line(task))
        if not ids:
            raise TaskFileError(path, "", "there is no task to write")


def _line(task: Task) -> str:
    line = json.dumps(task_row(task), ensure_ascii=False)
    try:
        back = task_of_row(parse_json(line))
    except ValueError as error:
        raise ValueError(f"task {task.task_id!r} cannot be written: {error}") from error
    if back != replace(task, subtitles=()):
        raise ValueError(f"task {task.task_id!r} cannot be written: it would be read as {back}")
    return line + "\n"


def task_row(task: Task) -> dict[str, Any]:
    """The fields of a task's line, as values of JSON."""
    evidence = None if task.evidence is None else [[s.start_s, s.end_s] for s in task.evidence]
    # Left out where there is none: most files know no regions.
    region = {} if task.evidence_region is None else {"evidence_region": [*task.evidence_region.as_tuple()]}
    metadata = {"metadata": Metadata(task.metadata).to_json()} if task.metadata else {}
    return {
        "task_id": task.task_id,
        "video": task.video,
        "question": task.question,
        "kind": task.kind,
        "options": list(task.options),
        "answer": task.answer,
        "evidence": evidence,
        "source": task.source,
        **region,
        **metadata,
    }


def _read_line(line: Row, strange: dict[str, list[str]]) -> Task:
    row = line.fields
    near = [name for name in row if name not in (*REQUIRED, *OPTIONAL) and meant(name) is not None]
    try:
        task = task_of_row(row)
    except ValueError as error:
        hints = ", ".join(f"is {name!r} meant to be {meant(name)!r}?" for name in near)
        raise ValueError(f"{error}; {hints}" if near else str(error)) from error
    for name in near:
        strange.setdefault(name, []).append(line.place)
    return task


def task_of_row(row: dict[str, Any]) -> Task:
    """The task of a line's fields.

    Raises:
        ValueError: a field is missing or invalid.
    """
    unknown = {name: value for name, value in row.items() if name not in (*REQUIRED, *OPTIONAL)}
    require_fields(row, *REQUIRED)
    kind = choice_of(row, "kind", get_args(TaskKind))
    told = object_of(row, "metadata") if row.get("metadata") is not None else {}
    if twice := sorted(told.keys() & unknown.keys()):
        raise ValueError(f"field {twice[0]!r} stands in the line and in its 'metadata'")
    return Task(
        task_id=text_of(row, "task_id"),
        video=text_of(row, "video"),
        question=text_of(row, "question"),
        kind=kind,
        options=texts_of(row, "options") if row.get("options") is not None else (),
        answer=text_of(row, "answer", empty=kind == "open"),
        evidence=segments_of(row, "evidence") if row.get("evidence") is not None else None,
        source=text_of(row, "source", empty=True) if "source" in row else "",
        evidence_region=region_of(row, "evidence_region")
        if row.get("evidence_region") is not None
        else None,
        metadata=told | unknown,
    )
