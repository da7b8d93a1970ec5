"""Task files in the JSON of Video-R1 and Video-MTR: one list of objects.

| field | read as |
|---|---|
| `problem_id` | `task_id`; text or a whole number |
| `problem` | `question` |
| `data_type` | must be `"video"` |
| `problem_type` | `kind`, see `KINDS` |
| `options` | `["A. ...", "B. ..."]`; the letters must count up from A and are cut off |
| `solution` | `"<answer>B</answer>"` |
| `path` | `video`; a leading `./Evaluation/` or `./` is cut off, as Video-MTR does |
| `relevant_windows` | `evidence`, seconds; may be absent or null |
| `duration` | seconds, checked against the windows; may be absent or null |
| `data_source` | `source`; may be absent |

The other plain fields are `metadata`. `relevant_sample_frames` holds indices into a pool that only its
sampler knows, so it cannot serve as evidence: where it stands without `relevant_windows` a warning says so.
"""

from __future__ import annotations

import os
import re
import warnings

from videogym.datasets.fields import (
    Fields,
    choice_of,
    id_of,
    published_segments,
    seconds_of,
    short,
    split_letters,
    text_of,
    texts_of,
)
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, RowLeftOut, collect, json_rows
from videogym.datasets.tasks import TaskList, check_evidence
from videogym.state import Task, TaskKind, is_number

KINDS: dict[str, TaskKind] = {
    "multiple choice": "choice",
    "numerical": "numeric",
    "regression": "numeric",
    "free-form": "open",
    "OCR": "open",
}
_USED = (
    *("problem_id", "problem", "options", "solution", "path", "data_source"),
    *("relevant_windows", "relevant_sample_frames"),
)
_SOLUTION = re.compile(r"\s*<answer>(.*?)</answer>\s*", re.DOTALL)
_PREFIX = re.compile(r"^\./(Evaluation/)?")


def read_video_r1(path: str | os.PathLike[str]) -> TaskList:
    """Read a Video-R1 task file.

    Raises:
        TaskFileError: the file cannot be read, or a row is not a valid task.
    """
    rows = list(json_rows(path))
    tasks = collect(path, rows, _read_row)
    lost = sum(
        "relevant_sample_frames" in row.fields and row.fields.get("relevant_windows") is None
        for row in rows
    )
    if lost:
        warnings.warn(
            f"{os.fspath(path)}: {lost} of {len(rows)} rows have relevant_sample_frames without "
            "relevant_windows; their evidence is not used, since the indices refer to an unknown pool",
            stacklevel=2,
        )
    return tasks


def _read_row(line: Row) -> Task:
    row = line.fields
    choice_of(row, "data_type", ("video",))
    kind = KINDS[choice_of(row, "problem_type", tuple(KINDS))]
    task = Task(
        task_id=id_of(row, "problem_id"),
        video=_PREFIX.sub("", text_of(row, "path")),
        question=text_of(row, "problem"),
        kind=kind,
        options=_options(row) if kind == "choice" else (),
        answer=_solution(row, kind),
        evidence=published_segments(line, row, "relevant_windows")
        if row.get("relevant_windows") is not None
        else None,
        source=text_of(row, "data_source", empty=True) if "data_source" in row else "",
        metadata=metadata_of(row, _USED),
    )
    if row.get("duration") is not None:
        check_evidence(task, seconds_of(row, "duration"))
    return task


def _options(row: Fields) -> tuple[str, ...]:
    letters, options = split_letters(texts_of(row, "options"))
    if letters != "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(letters)]:
        raise ValueError(
            f"field 'options' must read 'A. ...', 'B. ...' and so on, got the letters {letters!r}"
        )
    return options


def _solution(row: Fields, kind: TaskKind) -> str:
    match = _SOLUTION.fullmatch(text_of(row, "solution"))
    if match is None:
        raise ValueError("field 'solution' must read '<answer>...</answer>'")
    if kind == "numeric" and not is_number(match[1]):
        problem = "must hold a finite number where the problem is one"
        raise RowLeftOut(f"field 'solution' {problem}, got {short(match[1])}")
    return match[1].strip()
