"""Video-MMMU: questions of six disciplines that a lecture video teaches to answer.

From the parquet files of its three tracks, one at a time: Perception, Comprehension, Adaptation.

| field | read as |
|---|---|
| `id` | `task_id`, and `video`, `<id>.mp4` |
| `question` | `question` |
| `options` | `options`, without letters; empty: an open question |
| `answer` | the letter, of an open question the answer |

The image that a question of the Adaptation track shows is at the end of its video. There is no evidence.
"""

from __future__ import annotations

import os

from videogym.datasets.fields import id_of, options_of, text_of, unpacked, video_of
from videogym.datasets.rows import Row, collect, read_rows
from videogym.datasets.tasks import TaskList
from videogym.state import Task

FIELDS = ("id", "question", "options", "answer")


def read_video_mmmu(path: str | os.PathLike[str]) -> TaskList:
    """Read a track of Video-MMMU.

    Raises:
        TaskFileError: the file cannot be read or a row is invalid.
    """
    return collect(path, read_rows(path, FIELDS), _read_row)


def _read_row(line: Row) -> Task:
    row = unpacked(line.fields, "options")
    options = options_of(row, "options") if row.get("options") else ()
    return Task(
        task_id=id_of(row, "id"),
        video=video_of(row, "id"),
        question=text_of(row, "question"),
        kind="choice" if options else "open",
        options=options,
        answer=id_of(row, "answer").strip(),
        source="video-mmmu",
    )
