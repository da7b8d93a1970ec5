"""LongVideoBench: choices that refer to a moment of a video, up to an hour long.

From its file ``lvb_val.json``, or from a table whose options are columns, as on Hugging Face.

| field | read as |
|---|---|
| `id` | `task_id` |
| `video_path` | `video` |
| `question` | `question` |
| `candidates`, or `option0` ... `option4` with `"N/A"` for none | `options` |
| `correct_choice` | index of the right option |

The other plain fields are `metadata`: `duration`, `duration_group`, `question_category`, `topic_category`,
`level` and what else there is. The test files have no `correct_choice`. `position` tells frames of an
unknown rate, so there is no evidence. Subtitles are read where they are asked for, see `read_subtitles`.
"""

from __future__ import annotations

import os

from videogym.datasets.fields import (
    Fields,
    id_of,
    letter_at,
    options_of,
    short,
    text_of,
    unpacked,
    video_of,
)
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, collect, read_rows
from videogym.datasets.tasks import TaskList
from videogym.state import Task

COLUMNS = ("option0", "option1", "option2", "option3", "option4")
_FIELDS = ("id", "video_path", "question", "candidates", "correct_choice", *COLUMNS)


def read_longvideobench(path: str | os.PathLike[str]) -> TaskList:
    """Read LongVideoBench.

    Raises:
        TaskFileError: the file cannot be read or a row is invalid.
    """
    return collect(path, read_rows(path, _FIELDS), _read_row)


def _read_row(line: Row) -> Task:
    row = unpacked(line.fields, "candidates")
    options = options_of(row, "candidates") if row.get("candidates") is not None else _columns(row)
    return Task(
        task_id=id_of(row, "id"),
        video=video_of(row, "video_path"),
        question=text_of(row, "question"),
        kind="choice",
        options=options,
        answer=letter_at(row.get("correct_choice"), options, "correct_choice"),
        source="longvideobench",
        metadata=metadata_of(row, _FIELDS),
    )


def _columns(row: Fields) -> tuple[str, ...]:
    texts = [id_of(row, name) for name in COLUMNS if row.get(name) is not None]
    if not texts:
        raise ValueError("field 'candidates' is missing, and so are option0 to option4")
    while texts and texts[-1] == "N/A":
        texts.pop()
    if "N/A" in texts:
        name = COLUMNS[texts.index("N/A")]
        raise ValueError(f"field {name!r} is 'N/A' before another option, got {short(texts)}")
    return tuple(texts)
