"""MLVU: seven kinds of choices and two of open questions about long videos.

From its own JSON files (``json/1_plotQA.json`` to ``json/9_summary.json``, one of them or their folder):

| field | read as |
|---|---|
| `video` | `video`, in a folder of the file's name: `1_plotQA/...` |
| `question` | `question` |
| `candidates` | `options`; absent, or empty where the question is of an open type: an open question |
| `answer` | the letter of the first option that reads so; of an open question the answer |

or from the tables of the mirrors for lmms-eval:

| field | read as |
|---|---|
| `video_name` | `video` |
| `question` | `question`, and `options` in its lines `(A) ...`, `(B) ...` |
| `answer` | the letter |

`question_id` is the `task_id`, without it the file's name and the number of the row. The other plain fields
are `metadata`: `duration`, `question_type`; `scoring_points` are left alone. There is no evidence.

A row with an empty candidate, or whose answer is none of them, is left out; a warning lists such rows. Six
of the 2,175 published choices are like that.
"""

from __future__ import annotations

import os

from videogym.datasets.fields import (
    id_of,
    inline_options,
    letter_of_text,
    options_of,
    short,
    text_of,
    unpacked,
    video_of,
)
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, RowLeftOut, collect, read_rows
from videogym.datasets.tasks import TaskList
from videogym.state import Task

_FIELDS = ("question_id", "video", "video_name", "question", "candidates", "answer")
OPEN = ("subPlot", "summary")  # types of questions without candidates
_USED = (*_FIELDS, "scoring_points")


def read_mlvu(path: str | os.PathLike[str]) -> TaskList:
    """Read MLVU, in either shape.

    Raises:
        TaskFileError: a file cannot be read or a row is invalid.
    """
    return collect(path, read_rows(path, _FIELDS), _read_row)


def _read_row(line: Row) -> Task:
    has_id = line.fields.get("question_id") is not None
    task_id = id_of(line.fields, "question_id") if has_id else line.name
    if "video_name" in line.fields:
        return _mirrored(line, task_id)
    row = unpacked(line.fields, "candidates")
    candidates = row.get("candidates")
    if isinstance(candidates, list) and "" in [str(text).strip() for text in candidates]:
        raise RowLeftOut(f"field 'candidates' holds an empty text, got {short(candidates)}")
    if candidates in ([], "") and row.get("question_type") not in (None, *OPEN):
        raise RowLeftOut("field 'candidates' is empty")
    options = options_of(row, "candidates") if candidates else ()
    return Task(
        task_id=task_id,
        video=video_of(row, "video", folder=line.path.stem),
        question=text_of(row, "question"),
        kind="choice" if options else "open",
        options=options,
        answer=letter_of_text(row, "answer", options) if options else text_of(row, "answer"),
        source="mlvu",
        metadata=metadata_of(line.fields, _USED),
    )


def _mirrored(line: Row, task_id: str) -> Task:
    question, options = inline_options(text_of(line.fields, "question"), "question")
    answer = text_of(line.fields, "answer").strip()
    if "" in options:
        raise RowLeftOut(f"field 'question' has an empty option, got {short(options)}")
    if len(answer) == 1 and answer not in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(options)]:
        raise RowLeftOut(
            f"field 'answer' must be the letter of one of {len(options)} options, got {answer!r}"
        )
    return Task(
        task_id=task_id,
        video=video_of(line.fields, "video_name"),
        question=question,
        kind="choice",
        options=options,
        answer=answer,
        source="mlvu",
        metadata=metadata_of(line.fields, _USED),
    )
