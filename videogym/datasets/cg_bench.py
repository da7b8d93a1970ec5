"""CG-Bench: choices about long videos with the intervals that hold the clues.

From ``cgbench.json`` or ``cgbench_mini.json``, or the same rows as parquet.

| field | read as |
|---|---|
| `qid` | `task_id` |
| `video_uid` | `video`, `<video_uid>.mp4` |
| `question` | `question` |
| `choices` | `options` |
| `right_answer` | the letter |
| `clue_intervals` | `evidence`, seconds |
| `duration` | seconds, checked against the intervals; may be absent |

The other plain fields are `metadata`: `duration`, `domain`, `sub_category`. Subtitles are an option.
"""

from __future__ import annotations

import os

from videogym.datasets.fields import (
    id_of,
    options_of,
    published_segments,
    seconds_of,
    text_of,
    unpacked,
    video_of,
)
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, collect, read_rows
from videogym.datasets.tasks import TaskList, check_evidence
from videogym.state import Task

_FIELDS = ("qid", "video_uid", "question", "choices", "right_answer", "clue_intervals", "duration")
_USED = (*_FIELDS[:-1], "answer")  # which is the text of the right option


def read_cg_bench(path: str | os.PathLike[str]) -> TaskList:
    """Read CG-Bench.

    Raises:
        TaskFileError: the file cannot be read or a row is invalid.
    """
    return collect(path, read_rows(path, _FIELDS), _read_row)


def _read_row(line: Row) -> Task:
    row = unpacked(line.fields, "choices", "clue_intervals")
    task = Task(
        task_id=id_of(row, "qid"),
        video=video_of(row, "video_uid"),
        question=text_of(row, "question"),
        kind="choice",
        options=options_of(row, "choices"),
        answer=text_of(row, "right_answer").strip(),
        evidence=published_segments(line, row, "clue_intervals"),
        source="cg-bench",
        metadata=metadata_of(row, _USED),
    )
    if row.get("duration") is not None:
        check_evidence(task, seconds_of(row, "duration"))
    return task
