"""EgoSchema: choices about three minutes of egocentric video.

From its own ``questions.json`` with ``subset_answers.json`` beside it, which tells the 500 public answers,
or from the tables of the mirror for lmms-eval.

| field | read as |
|---|---|
| `q_uid`, or `video_idx` of a table | `task_id`, and `video`, `<q_uid>.mp4` |
| `question` | `question` |
| `option 0` ... `option 4`, or `option` of a table | `options`, without letters |
| `subset_answers.json`, or `answer` of a table | index of the right option |

Other plain fields are `metadata`. Questions without a public answer are left out. There is no evidence.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from videogym.datasets.fields import Fields, id_of, letter_at, options_of, text_of, unpacked, video_of
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, collect, files_of, read_object, read_rows
from videogym.datasets.tasks import TaskList
from videogym.state import Task

ANSWERS = "subset_answers.json"
NUMBERED = tuple(f"option {i}" for i in range(5))
_FIELDS = ("q_uid", "video_idx", "question", "option", "answer", *NUMBERED)


def read_egoschema(path: str | os.PathLike[str]) -> TaskList:
    """Read EgoSchema.

    Args:
        path: ``questions.json``, its folder, or a table.

    Raises:
        TaskFileError: a file cannot be read or a row is invalid.
    """
    path = Path(path)
    if (path / "questions.json").exists():
        path = path / "questions.json"
    answers = _answers(path)
    return collect(path, read_rows(path, _FIELDS), lambda row: _read_row(row, answers))


def _answers(path: Path) -> dict[str, Any] | None:
    file = files_of(path)[0].with_name(ANSWERS)
    return read_object(file) if file.exists() else None


def _read_row(line: Row, answers: dict[str, Any] | None) -> Task | None:
    row = unpacked(line.fields, "option")
    name = "q_uid" if "q_uid" in row else "video_idx"
    answer = _index(row, None if answers is None else answers.get(id_of(row, name)))
    if answer is None:
        return None
    options = options_of(row, "option") if row.get("option") is not None else _numbered(row)
    return Task(
        task_id=id_of(row, name),
        video=video_of(row, name),
        question=text_of(row, "question"),
        kind="choice",
        options=options,
        answer=letter_at(answer, options, "answer"),
        source="egoschema",
        metadata=metadata_of(row, _FIELDS),
    )


def _index(row: Fields, public: Any) -> Any:
    """The row's own answer, which tables write as text, or the public one."""
    value = row.get("answer")
    if value is None:
        value = public
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value


def _numbered(row: Fields) -> tuple[str, ...]:
    return tuple(id_of(row, name) for name in NUMBERED)
