"""LVBench: choices about videos of about an hour.

From its file ``video_info.meta.jsonl``, a line a video, or from a table of single questions as the mirror
for lmms-eval has it.

| field | read as |
|---|---|
| `key` of the line, `video_path` of a table | `video`, `<key>.mp4` |
| `qa` of the line | the questions |
| `uid` | `task_id`; without it the file's name and the number of the row |
| `question` | `question`, and `options` in its lines `(A) ...`, or from `options` of a table |
| `answer` | the letter |
| `time_reference` | `evidence`: `01:05-01:20, 1:02:03-1:02:10`; absent, null, empty or `N/A`: none |

The other plain fields of a question, of its line and of the `video_info` in it are `metadata`:
`question_type` (a list), `type`, `duration_minutes`.

Times are whole seconds; one that ends in the second in which it begins lasts that second. A time that reads
otherwise is left out and a warning says where: the question stands without it.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence

from videogym.datasets.fields import (
    Fields,
    id_of,
    inline_options,
    objects_of,
    options_of,
    short,
    text_of,
    unpacked,
    video_of,
)
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, collect, read_rows
from videogym.datasets.tasks import TaskFileError, TaskList
from videogym.geometry import Segment
from videogym.state import Task

_FIELDS = ("key", "qa", "uid", "video_path", "question", "options", "answer", "time_reference")
_CLOCK = r"(?:(\d{1,2}):)?(\d{1,3}):(\d{2})"
_SPAN = re.compile(rf"\s*{_CLOCK}\s*[-–~]\s*{_CLOCK}\s*")
_NO_TIME = ("", "n/a", "na", "none")


def read_lvbench(path: str | os.PathLike[str]) -> TaskList:
    """Read LVBench.

    Raises:
        TaskFileError: the file cannot be read or a question is invalid.
    """
    unread: list[str] = []
    tasks = collect(path, _questions(path), lambda row: _read_row(row, unread))
    if unread:
        left = f"{len(unread)} of {len(tasks)} times cannot be read and are left out"
        warnings.warn(f"{os.fspath(path)}: {left}, the first in {unread[0]}", stacklevel=2)
    return tasks


def _questions(path: str | os.PathLike[str]) -> Iterator[Row]:
    for line in read_rows(path, _FIELDS):
        if "qa" not in line.fields:
            yield line
            continue
        try:
            questions = objects_of(line.fields, "qa")
        except ValueError as error:
            raise TaskFileError(line.path, line.place, str(error)) from error
        info = line.fields.get("video_info")
        of_video = metadata_of(line.fields, _FIELDS) | metadata_of(
            info if isinstance(info, dict) else {}, ()
        )
        for i, question in enumerate(questions, start=1):
            fields = {**of_video, "key": line.fields.get("key"), **question}
            yield line._replace(place=f"{line.place}, question {i}", fields=fields)


def _read_row(line: Row, unread: list[str]) -> Task:
    row = unpacked(line.fields, "options")
    question = text_of(row, "question")
    options = options_of(row, "options") if row.get("options") else ()
    if not options:
        question, options = inline_options(question, "question")
    try:
        evidence = _evidence(row)
    except ValueError as error:
        evidence = None
        unread.append(f"{line.place}: {error}")
    return Task(
        task_id=id_of(row, "uid") if row.get("uid") is not None else line.name,
        video=video_of(row, "video_path" if "video_path" in row else "key"),
        question=question,
        kind="choice",
        options=options,
        answer=text_of(row, "answer").strip(),
        evidence=evidence,
        source="lvbench",
        metadata=metadata_of(row, _FIELDS),
    )


def _evidence(row: Fields) -> tuple[Segment, ...] | None:
    value = row.get("time_reference")
    if value is None or (isinstance(value, str) and value.strip().lower() in _NO_TIME):
        return None
    spans = value.split(",") if isinstance(value, str) else ()
    matches = [_SPAN.fullmatch(span) for span in spans]
    if not matches or None in matches:
        raise ValueError(f"field 'time_reference' must read 'MM:SS-MM:SS', got {short(value)}")
    return tuple(_segment(match.groups()) for match in matches if match)


def _segment(clock: Sequence[str | None]) -> Segment:
    bounds = [int(number or 0) for number in clock]
    start_s, end_s = (h * 3600 + m * 60 + s for h, m, s in (bounds[:3], bounds[3:]))
    try:
        return Segment(start_s, end_s + (end_s == start_s))
    except ValueError as error:
        raise ValueError(f"field 'time_reference': {error}") from error
