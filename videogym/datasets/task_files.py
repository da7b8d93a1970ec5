"""Task files in our own schema: JSON Lines, one task a line.

| field | value |
|---|---|
| `task_id` | text, unique in the file |
| `video` | path below ``video_root``, absolute path, or a ``synthetic:`` address |
| `question` | text |
| `kind` | `"choice"`, `"open"` or `"numeric"` |
| `options` | for a choice 2 to 26 texts without letters; otherwise absent or `[]` |
| `answer` | the letter for a choice, the number as text for numeric, else the text |
| `evidence` | `[[start_s, end_s], ...]` in seconds of the video; absent or `null`: not annotated |
| `source` | text, where the task comes from; may be absent |
| `evidence_region` | `[x0, y0, x1, y1]`, the place of a detail that only a crop shows; may be absent |

Nothing else is allowed in a line, and nothing is repaired: the first fault raises `TaskFileError`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from videogym.datasets.fields import answer_of, choice_of, region_of, segments_of, text_of, texts_of
from videogym.datasets.rows import Row, collect, json_rows
from videogym.datasets.tasks import TaskList
from videogym.state import Task, TaskKind

REQUIRED = ("task_id", "video", "question", "kind", "answer")
OPTIONAL = ("options", "evidence", "source", "evidence_region")


def read_tasks(path: str | os.PathLike[str]) -> TaskList:
    """Read a task file. Empty lines are skipped.

    Raises:
        TaskFileError: the file cannot be read, or a line is not a valid task.
    """
    return collect(path, json_rows(path, lines=True), _read_line)


def write_tasks(path: str | os.PathLike[str], tasks: Iterable[Task]) -> None:
    """Write tasks so that `read_tasks` gives them back. The file appears when it is complete.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(_row(task), ensure_ascii=False) + "\n" for task in tasks)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _row(task: Task) -> dict[str, Any]:
    evidence = None if task.evidence is None else [[s.start_s, s.end_s] for s in task.evidence]
    # Left out where there is none: most files know no regions.
    region = {} if task.evidence_region is None else {"evidence_region": [*task.evidence_region.as_tuple()]}
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
    }


def _read_line(line: Row) -> Task:
    row = line.fields
    if unknown := sorted(set(row) - {*REQUIRED, *OPTIONAL}):
        raise ValueError(f"field {unknown[0]!r} is unknown; known: {', '.join((*REQUIRED, *OPTIONAL))}")
    kind = choice_of(row, "kind", get_args(TaskKind))
    return Task(
        task_id=text_of(row, "task_id"),
        video=text_of(row, "video"),
        question=text_of(row, "question"),
        kind=kind,
        options=texts_of(row, "options") if row.get("options") is not None else (),
        answer=answer_of(kind, text_of(row, "answer")),
        evidence=segments_of(row, "evidence") if row.get("evidence") is not None else None,
        source=text_of(row, "source", empty=True) if "source" in row else "",
        evidence_region=region_of(row, "evidence_region")
        if row.get("evidence_region") is not None
        else None,
    )
