"""VideoSIAH-Eval: open questions about long videos, LongVT's own benchmark.

From its parquet file, or the same rows as JSON.

| field | read as |
|---|---|
| `video_path` | `video` |
| `question` | `question` |
| `answer` | `answer` |

Task ids are the file's name and the number of the row. The answers are sentences, so that a judge is needed
that compares what they mean. Other plain fields are `metadata`. There is no evidence.
"""

from __future__ import annotations

import os

from videogym.datasets.fields import id_of, text_of, video_of
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, collect, read_rows
from videogym.datasets.tasks import TaskList
from videogym.state import Task

_FIELDS = ("video_path", "question", "answer")


def read_videosiah_eval(path: str | os.PathLike[str]) -> TaskList:
    """Read VideoSIAH-Eval.

    Raises:
        TaskFileError: the file cannot be read or a row is invalid.
    """
    return collect(path, read_rows(path, _FIELDS), _read_row)


def _read_row(line: Row) -> Task:
    row = line.fields
    return Task(
        task_id=line.name,
        video=video_of(row, "video_path"),
        question=text_of(row, "question"),
        kind="open",
        answer=id_of(row, "answer"),
        source="videosiah-eval",
        metadata=metadata_of(row, _FIELDS),
    )
