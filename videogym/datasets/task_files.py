"""Task files in our own schema: JSON Lines, one task a line.

| field | value |
|---|---|
| `task_id` | text, unique in the file |
| `video` | path below ``video_root``, absolute path, or a ``synthetic:`` address |
| `question` | text |
| `kind` | `"choice"`, `"open"` or `"numeric"` |
| `options` | for a choice 2 to 26 texts without letters; otherwise absent or `[]` |
| `answer` | the letter for a choice, the number as text for numeric, else the text |
| `evidence` | `[[start_s, end_s], ...]` in seconds of the video; absent or `null`: not annotated |
| `source` | text, where the task comes from; may be absent |

Nothing else is allowed in a line, and nothing is repaired: the first fault raises `TaskFileError`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from videogym.datasets.tasks import TaskList
from videogym.state import Segment, Task, TaskKind

REQUIRED = ("task_id", "video", "question", "kind", "answer")
OPTIONAL = ("options", "evidence", "source")


class TaskFileError(ValueError):
    """A task file is invalid. The message names file, place and field, and what is allowed.

    Args:
        path: the file.
        place: the line or the row, e.g. ``"line 12"``; empty for the whole file.
        problem: the field and what is wrong with it.
    """

    def __init__(self, path: str | os.PathLike[str], place: str, problem: str) -> None:
        self.path, self.place, self.problem = os.fspath(path), place, problem
        super().__init__(": ".join(part for part in (self.path, place, problem) if part))

    def __reduce__(self) -> tuple[type[TaskFileError], tuple[str, str, str]]:
        return type(self), (self.path, self.place, self.problem)


def read_tasks(path: str | os.PathLike[str]) -> TaskList:
    """Read a task file. Empty lines are skipped.

    Raises:
        TaskFileError: the file cannot be read, or a line is not a valid task.
    """
    return collect(path, ((f"line {number}", text) for number, text in _lines(path)), _read_line)


def write_tasks(path: str | os.PathLike[str], tasks: Iterable[Task]) -> None:
    """Write tasks so that `read_tasks` gives them back. The file appears when it is complete.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(_row(task), ensure_ascii=False) + "\n" for task in tasks)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _row(task: Task) -> dict[str, Any]:
    evidence = None if task.evidence is None else [[s.start_s, s.end_s] for s in task.evidence]
    return {
        "task_id": task.task_id,
        "video": task.video,
        "question": task.question,
        "kind": task.kind,
        "options": list(task.options),
        "answer": task.answer,
        "evidence": evidence,
        "source": task.source,
    }


def collect(
    path: str | os.PathLike[str], rows: Iterable[tuple[str, Any]], read: Callable[[Any], Task]
) -> TaskList:
    """Read rows one after the other into tasks with unique ids.

    Args:
        path: the file, for messages.
        rows: each with its place in the file.
        read: makes a task of a row; raises `ValueError` that names the field.

    Raises:
        TaskFileError: a row is invalid or repeats an id, or there is no row.
    """
    tasks: dict[str, tuple[str, Task]] = {}
    for place, row in rows:
        try:
            task = read(row)
        except ValueError as error:
            raise TaskFileError(path, place, str(error)) from error
        if task.task_id in tasks:
            problem = (
                f"the id {task.task_id!r} is already that of {tasks[task.task_id][0]}; ids must be unique"
            )
            raise TaskFileError(path, place, problem)
        tasks[task.task_id] = (place, task)
    if not tasks:
        raise TaskFileError(path, "", "there is no task in the file")
    return TaskList(task for _, task in tasks.values())


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The whole file.

    Raises:
        TaskFileError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise TaskFileError(path, "", f"cannot be read: {error.strerror or error}") from error


def parse_json(text: bytes) -> Any:
    """Read JSON strictly: UTF-8 without repeated keys.

    Raises:
        ValueError: says what is wrong.
    """
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("not read: the JSON is nested too deeply") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(n for n in names if names.count(n) > 1)!r} is repeated")
    return row


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    # Split at line feeds alone: a text may hold other characters that count as line ends.
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        if line.strip():
            yield number, line


def _read_line(line: bytes) -> Task:
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError(f"a line must be an object, got {_short(row)}")
    if unknown := sorted(set(row) - {*REQUIRED, *OPTIONAL}):
        raise ValueError(f"field {unknown[0]!r} is unknown; known: {', '.join((*REQUIRED, *OPTIONAL))}")
    kind = choice_of(row, "kind", get_args(TaskKind))
    return Task(
        task_id=text_of(row, "task_id"),
        video=text_of(row, "video"),
        question=text_of(row, "question"),
        kind=kind,
        options=texts_of(row, "options") if row.get("options") is not None else (),
        answer=answer_of(kind, text_of(row, "answer")),
        evidence=segments_of(row, "evidence") if row.get("evidence") is not None else None,
        source=text_of(row, "source", empty=True) if "source" in row else "",
    )


def text_of(row: dict[str, Any], name: str, *, empty: bool = False) -> str:
    """A text field.

    Raises:
        ValueError: it is missing, not text, empty, or holds half a surrogate pair.
    """
    if name not in row:
        raise ValueError(f"field {name!r} is missing")
    return _text(row[name], name, empty)


def _text(value: Any, name: str, empty: bool = False) -> str:
    if not isinstance(value, str) or not (empty or value.strip()):
        raise ValueError(f"field {name!r} must be {'' if empty else 'non-empty '}text, got {_short(value)}")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"field {name!r} holds half a surrogate pair, which is no character")
    return value


def texts_of(row: dict[str, Any], name: str) -> tuple[str, ...]:
    """A field that is a list of texts.

    Raises:
        ValueError: it is missing or something else.
    """
    values = row.get(name)
    if not isinstance(values, list):
        raise ValueError(f"field {name!r} must be a list of texts, got {_short(values)}")
    return tuple(_text(value, f"{name}[{i}]") for i, value in enumerate(values))


def choice_of(row: dict[str, Any], name: str, allowed: Sequence[str]) -> Any:
    """A field with a closed set of values.

    Raises:
        ValueError: it is missing or none of them.
    """
    value = text_of(row, name)
    if value not in allowed:
        raise ValueError(f"field {name!r} must be one of {', '.join(allowed)}, got {_short(value)}")
    return value


def answer_of(kind: TaskKind, text: str) -> str:
    """An answer: finite if it is to be a number.

    Raises:
        ValueError: it is not.
    """
    if kind == "numeric":
        try:
            finite = math.isfinite(float(text))
        except ValueError:
            finite = False
        if not finite:
            raise ValueError(f"field 'answer' must be a finite number written as text, got {_short(text)}")
    return text


def segments_of(row: dict[str, Any], name: str) -> tuple[Segment, ...]:
    """A field that is a list of ``[start_s, end_s]``.

    Raises:
        ValueError: it is something else, or a segment is inverted, negative or not finite.
    """
    values = row[name]
    if not isinstance(values, list) or not values:
        problem = "must be a non-empty list of [start_s, end_s], or null where nothing is annotated"
        raise ValueError(f"field {name!r} {problem}, got {_short(values)}")
    return tuple(_segment(value, f"{name}[{i}]") for i, value in enumerate(values))


def _segment(value: Any, name: str) -> Segment:
    pair = value if isinstance(value, list) and len(value) == 2 else [None]
    if not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in pair):
        raise ValueError(f"field {name!r} must be [start_s, end_s], two numbers, got {_short(value)}")
    try:
        return Segment(float(value[0]), float(value[1]))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"field {name!r}: {error}") from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
