"""Video-MMMU: questions of six disciplines that a lecture video teaches to answer.

From the parquet files of its three tracks, one at a time: Perception, Comprehension, Adaptation.

| field | read as |
|---|---|
| `id` | `task_id`, and `video`, `<id>.mp4` |
| `question` | `question` |
| `options` | `options`, without letters; empty: an open question |
| `answer` | the letter, of an open question the answer |

Other plain fields are `metadata`: `question_type`; from the id the `subject` and its `discipline` of six,
and from the folder of the file the `track`, where it is called like one. The image that a question of the
Adaptation track shows is at the end of its video. There is no evidence.
"""

from __future__ import annotations

import os
import re

from videogym.datasets.fields import id_of, options_of, text_of, unpacked, video_of
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, collect, read_rows
from videogym.datasets.tasks import TaskList
from videogym.state import Task

_FIELDS = ("id", "question", "options", "answer")
TRACKS = ("perception", "comprehension", "adaptation")
# Source: MMMU, arXiv 2311.16502; names as its ids write them.
DISCIPLINES = {
    "Art and Design": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Health and Medicine": "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine "
    "Pharmacy Public_Health",
    "Humanities and Social Science": "History Literature Psychology Sociology",
    "Tech and Engineering": "Agriculture Architecture_and_Engineering Computer_Science Electronics "
    "Energy_and_Power Materials Mechanical_Engineering",
}
_ID = re.compile(r"[a-z]+_([A-Z]\w*)_\d+")


def read_video_mmmu(path: str | os.PathLike[str]) -> TaskList:
    """Read a track of Video-MMMU.

    Raises:
        TaskFileError: the file cannot be read or a row is invalid.
    """
    return collect(path, read_rows(path, _FIELDS), _read_row)


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
        metadata=metadata_of(row, _FIELDS) | _subject(line),
    )


def _subject(line: Row) -> dict[str, str]:
    """What the id and the folder tell: ``validation_Art_Theory_8`` is of Art_Theory."""
    told = {}
    track = line.path.absolute().parent.name.lower()
    if track in TRACKS:
        told["track"] = track
    if match := _ID.fullmatch(id_of(line.fields, "id")):
        told["subject"] = match[1]
        of = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects.split()}
        if match[1] in of:
            told["discipline"] = of[match[1]]
    return told
