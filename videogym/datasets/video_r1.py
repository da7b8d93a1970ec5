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

Other fields are left alone. `relevant_sample_frames` holds indices into a pool that only its sampler
knows, so it cannot serve as evidence: where it stands without `relevant_windows` a warning says so.
"""

from __future__ import annotations

import os
import re
import warnings
from typing import Any

from videogym.datasets.task_files import (
    TaskFileError,
    answer_of,
    choice_of,
    collect,
    parse_json,
    read_bytes,
    segments_of,
    text_of,
    texts_of,
)
from videogym.datasets.tasks import TaskList, check_evidence
from videogym.state import Task, TaskKind

KINDS: dict[str, TaskKind] = {
    "multiple choice": "choice",
    "numerical": "numeric",
    "regression": "numeric",
    "free-form": "open",
    "OCR": "open",
}
_SOLUTION = re.compile(r"\s*<answer>(.*?)</answer>\s*", re.DOTALL)
_LETTERED = re.compile(r"\s*([A-Z])\s*[.):]\s*(.*)", re.DOTALL)
_PREFIX = re.compile(r"^\./(Evaluation/)?")


def read_video_r1(path: str | os.PathLike[str]) -> TaskList:
    """Read a Video-R1 task file.

    Raises:
        TaskFileError: the file cannot be read, or a row is not a valid task.
    """
    content = read_bytes(path)
    try:
        rows = parse_json(content)
    except ValueError as error:
        raise TaskFileError(path, "", str(error)) from error
    if not isinstance(rows, list):
        raise TaskFileError(path, "", f"the file must hold a list of objects, got {type(rows).__name__}")
    tasks = collect(path, ((f"row {number}", row) for number, row in enumerate(rows, start=1)), _read_row)
    lost = sum("relevant_sample_frames" in row and row.get("relevant_windows") is None for row in rows)
    if lost:
        warnings.warn(
            f"{os.fspath(path)}: {lost} of {len(rows)} rows have relevant_sample_frames without "
            "relevant_windows; their evidence is not used, since the indices refer to an unknown pool",
            stacklevel=2,
        )
    return tasks


def _read_row(row: Any) -> Task:
    if not isinstance(row, dict):
        raise ValueError(f"a row must be an object, got {type(row).__name__}")
    choice_of(row, "data_type", ("video",))
    kind = KINDS[choice_of(row, "problem_type", tuple(KINDS))]
    task = Task(
        task_id=_problem_id(row),
        video=_PREFIX.sub("", text_of(row, "path")),
        question=text_of(row, "problem"),
        kind=kind,
        options=_options(row) if kind == "choice" else (),
        answer=answer_of(kind, _solution(row)),
        evidence=segments_of(row, "relevant_windows") if row.get("relevant_windows") is not None else None,
        source=text_of(row, "data_source", empty=True) if "data_source" in row else "",
    )
    if row.get("duration") is not None:
        check_evidence(task, _duration_s(row["duration"]))
    return task


def _problem_id(row: dict[str, Any]) -> str:
    value = row.get("problem_id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(row, "problem_id")


def _options(row: dict[str, Any]) -> tuple[str, ...]:
    matches = [_LETTERED.fullmatch(text) for text in texts_of(row, "options")]
    letters = "".join(match[1] if match else "?" for match in matches)
    if letters != "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(letters)]:
        raise ValueError(
            f"field 'options' must read 'A. ...', 'B. ...' and so on, got the letters {letters!r}"
        )
    return tuple(match[2] for match in matches if match)


def _solution(row: dict[str, Any]) -> str:
    match = _SOLUTION.fullmatch(text_of(row, "solution"))
    if match is None:
        raise ValueError("field 'solution' must read '<answer>...</answer>'")
    return match[1].strip()


def _duration_s(value: Any) -> float:
    # Comparing refuses NaN and the whole numbers that are too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError(f"field 'duration' must be a positive number of seconds, got {value!r}")
    return float(value)
