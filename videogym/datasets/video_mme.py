"""Video-MME: choices about videos of seconds to an hour.

From its parquet file (``videomme/test-00000-of-00001.parquet``), or the same rows as JSON.

| field | read as |
|---|---|
| `question_id` | `task_id` |
| `videoID` | `video`, `<videoID>.mp4` |
| `question` | `question` |
| `options` | `["A. ...", "B. ...", ...]`, the letters are cut off |
| `answer` | the letter |

The other plain fields are `metadata`: `duration`, a category (short, medium, long), `domain`,
`sub_category`, `task_type` and what else there is. There is no evidence.
Subtitles are an option, see `videogym.datasets.subtitles`.
"""

from __future__ import annotations

import os

from videogym.datasets.fields import id_of, options_of, text_of, unpacked, video_of
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, collect, read_rows
from videogym.datasets.tasks import TaskList
from videogym.state import Task

_FIELDS = ("question_id", "videoID", "question", "options", "answer")


def read_video_mme(path: str | os.PathLike[str]) -> TaskList:
    """Read Video-MME.

    Raises:
        TaskFileError: the file cannot be read or a row is invalid.
    """
    return collect(path, read_rows(path, _FIELDS), _read_row)


def _read_row(line: Row) -> Task:
    row = unpacked(line.fields, "options")
    return Task(
        task_id=id_of(row, "question_id"),
        video=video_of(row, "videoID"),
        question=text_of(row, "question"),
        kind="choice",
        options=options_of(row, "options"),
        answer=text_of(row, "answer").strip(),
        source="video-mme",
        metadata=metadata_of(row, _FIELDS),
    )
