"""Rows of local files, whatever their format, each with the place where it stands.

JSON, JSON Lines and CSV are read here and parquet by `videogym.datasets.parquet`. Everything is strict
and nothing is evaluated: what is not plain UTF-8 JSON or CSV raises `TaskFileError`. What the fields of
a row mean is the business of the readers.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from videogym.datasets.parquet import parquet_rows
from videogym.datasets.tasks import LeftOut, TaskFileError, TaskList
from videogym.state import Task


class RowLeftOut(ValueError):
    """A row cannot be a task, as some published rows cannot; the others are read without it."""


Placed = tuple[str, dict[str, Any]]  # place in the file, fields
_LISTED = 10  # rows that a warning lists
_LARGEST = 1 << 36  # bytes; rows are read into memory
_FORMATS = (".json", ".jsonl", ".csv", ".parquet")
_SPACE = re.compile(r"[ \t\r\n]*")


class Row(NamedTuple):
    """One row of a file."""

    path: Path
    place: str  # e.g. "line 12"
    number: int  # from 1 in every file
    fields: dict[str, Any]
    early: Sequence[str] = ()  # places of spans that start before their video, when `collect` reads

    @property
    def name(self) -> str:
        """File and number, an id for rows that have none."""
        return f"{self.path.stem}-{self.number}"


def read_rows(path: str | os.PathLike[str], fields: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of a ``.json``, ``.jsonl``, ``.csv`` or ``.parquet`` file, or of a folder of such files.

    A JSON file holds one list of objects; a CSV file a header and texts. Of a folder, the files directly
    in it are read in the order of their names, which must all be of one format.

    Args:
        path: the file or folder.
        fields: columns to take from parquet files beside the plain ones, where reading all may cost;
            empty: all.

    Raises:
        TaskFileError: a file cannot be read, or a row is no object.
        ImportError: a parquet file, and pyarrow is not installed.
    """
    for file in files_of(path):
        for number, (place, row) in enumerate(_placed_rows(file, fields), start=1):
            yield Row(file, place, number, row)


def json_rows(path: str | os.PathLike[str], *, lines: bool = False) -> Iterator[Row]:
    """Rows of one JSON file, or of one JSON Lines file, however it is called.

    Raises:
        TaskFileError: the file cannot be read, or a row is no object.
    """
    path = Path(path)
    for number, (place, row) in enumerate((_jsonl_rows if lines else _json_rows)(path), start=1):
        yield Row(path, place, number, row)


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """The file itself, or the files of a folder that can be read, in the order of their names.

    Raises:
        TaskFileError: there is no file, or the files are of several formats.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    visible = (file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    files = sorted(file for file in visible if file.suffix.lower() in _FORMATS)
    formats = sorted({file.suffix.lower() for file in files})
    if len(formats) != 1:
        found = f"files of several formats ({', '.join(formats)})" if formats else "no such file"
        raise TaskFileError(path, "", f"a folder must hold {' or '.join(_FORMATS)} files, found {found}")
    return files


def collect(
    path: str | os.PathLike[str], rows: Iterable[Row], read: Callable[[Row], Task | None]
) -> TaskList:
    """Read rows one after the other into tasks with unique ids.

    Args:
        path: what was asked for, for messages.
        rows: from `read_rows`.
        read: makes a task of a row, or None to leave it out; raises `ValueError` that names the field, or
            `RowLeftOut` for a row that others do without: such are listed in a warning and counted.

    Raises:
        TaskFileError: rows are invalid or repeat an id, or there is no task. Rows behind the first fault
            are read too, so that all are named.
    """
    tasks: dict[str, tuple[Row, Task]] = {}
    left_out: list[LeftOut] = []
    early: list[str] = []
    count = 0
    with _faults() as faults:
        for row in rows:
            count += 1
            try:
                task = read(row._replace(early=early))
                if task is not None and task.task_id in tasks:
                    first = tasks[task.task_id][0]
                    where = first.place if first.path == row.path else f"{first.path}, {first.place}"
                    raise ValueError(
                        f"the id {task.task_id!r} is already that of {where}; ids must be unique"
                    )
            except RowLeftOut as error:
                left_out.append(LeftOut(row.path, row.place, str(error)))
            except ValueError as error:
                faults.append(TaskFileError(row.path, row.place, str(error)))
            else:
                if task is not None:
                    tasks[task.task_id] = (row._replace(fields={}), task)
    _tell(path, left_out, early, count)
    if not tasks:
        raise TaskFileError(path, "", "there is no task in the file")
    return TaskList((task for _, task in tasks.values()), left_out)


@contextlib.contextmanager
def _faults() -> Iterator[list[TaskFileError]]:
    """Gather what is wrong with the rows of a file, and raise it at the end as one error."""
    faults: list[TaskFileError] = []
    try:
        yield faults
    except TaskFileError as error:  # nothing behind it can be read
        faults.extend((error, *error.others))
    if faults:
        first, *others = sorted(faults, key=lambda fault: (fault.path, _number_of(fault.place)))
        raise TaskFileError(first.path, first.place, first.problem, others)


def _number_of(place: str) -> int:
    number = re.search("[0-9]+", place)
    return int(number[0]) if number else 0


def _tell(
    path: str | os.PathLike[str], left_out: Sequence[LeftOut], early: Sequence[str], count: int
) -> None:
    if left_out:
        listed = "; ".join(map(str, left_out[:_LISTED]))
        more = f"; and {len(left_out) - _LISTED} more, see TaskList.left_out" if left_out[_LISTED:] else ""
        told = f"{len(left_out)} of {count} rows cannot be tasks and are left out: {listed}{more}"
        warnings.warn(f"{os.fspath(path)}: {told}", stacklevel=4)
    if early:
        told = f"{len(early)} spans start before their video and are read from 0, the first in {early[0]}"
        warnings.warn(f"{os.fspath(path)}: {told}", stacklevel=4)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The whole file.

    Raises:
        TaskFileError: it cannot be read.
    """
    path = Path(path)
    _require_end(path)
    try:
        if path.is_file() and path.stat().st_size > _LARGEST:
            raise TaskFileError(path, "", f"cannot be read: larger than {_LARGEST >> 30} GiB")
        return path.read_bytes()
    except MemoryError as error:
        raise TaskFileError(path, "", "cannot be read: too large for the memory") from error
    except OSError as error:
        raise TaskFileError(path, "", f"cannot be read: {error.strerror or error}") from error


def _require_end(path: Path) -> None:
    if path.exists() and not (path.is_file() or path.is_dir()):  # a device has no end, a pipe no writer
        raise TaskFileError(path, "", "cannot be read: not a regular file")


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON file that holds one object, e.g. annotations by video id.

    Raises:
        TaskFileError: it cannot be read or holds something else.
    """
    content = read_bytes(path)
    try:
        value = parse_json(content)
    except ValueError as error:
        raise TaskFileError(path, "", str(error)) from error
    if not isinstance(value, dict):
        raise TaskFileError(path, "", f"the file must hold one object, got {type(value).__name__}")
    return value


def parse_json(text: bytes | str) -> Any:
    """Read JSON strictly: UTF-8 without repeated keys.

    Raises:
        ValueError: says what is wrong.
    """
    try:
        return json.loads(_decoded(text), object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("not read: the JSON is nested too deeply") from error


def _decoded(text: bytes | str) -> str:
    try:
        # Some editors begin a file with a byte order mark.
        return text if isinstance(text, str) else text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(n for n in names if names.count(n) > 1)!r} is repeated")
    return row


def _placed_rows(path: Path, fields: Sequence[str]) -> Iterator[Placed]:
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise TaskFileError(path, "", f"the file must end in {', '.join(_FORMATS)}")
    _require_end(path)
    if suffix == ".parquet":
        return parquet_rows(path, fields)
    return {".json": _json_rows, ".jsonl": _jsonl_rows, ".csv": _csv_rows}[suffix](path)


def _jsonl_rows(path: Path) -> Iterator[Placed]:
    # Split at line feeds alone: a text may hold other characters that count as line ends.
    with _faults() as faults:
        for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
            if not line.strip():
                continue
            place = f"line {number}"
            try:
                row = as_object(path, place, parse_json(line))
            except TaskFileError as error:
                faults.append(error)
            except ValueError as error:
                faults.append(TaskFileError(path, place, str(error)))
            else:
                yield place, row


def _json_rows(path: Path) -> Iterator[Placed]:
    """The objects of one list, decoded one at a time so that each has its line."""
    content = read_bytes(path)
    try:
        text = _decoded(content)
        at = _skip(text, 0)
        if text[at : at + 1] != "[":
            value = parse_json(text)
            raise ValueError(f"the file must hold a list of objects, got {type(value).__name__}")
    except ValueError as error:
        raise TaskFileError(path, "", str(error)) from error
    decoder = json.JSONDecoder(object_pairs_hook=_unique_keys)
    line, counted, at, number = 1, 0, _skip(text, at + 1), 0
    closed = text[at : at + 1] == "]"
    while not closed:
        number, line, counted = number + 1, line + text.count("\n", counted, at), at
        place = f"row {number} (line {line})"
        try:
            row, at = _decode_at(decoder, text, at)
            at, closed = _next(text, at)
        except ValueError as error:
            raise TaskFileError(path, place, str(error)) from error
        yield place, as_object(path, place, row)
    if _skip(text, at + 1) < len(text):
        raise TaskFileError(path, "", "not JSON: there is text after the list")


def _decode_at(decoder: json.JSONDecoder, text: str, at: int) -> tuple[Any, int]:
    try:
        return decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("not read: the JSON is nested too deeply") from error


def _next(text: str, at: int) -> tuple[int, bool]:
    """Where the next element begins, or where the list ends and that it does."""
    at = _skip(text, at)
    if text[at : at + 1] not in (",", "]"):
        raise ValueError("not JSON: after this row ',' or ']' is expected")
    return (at, True) if text[at] == "]" else (_skip(text, at + 1), False)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _csv_rows(path: Path) -> Iterator[Placed]:
    content = read_bytes(path)
    try:
        text = _decoded(content)
    except ValueError as error:
        raise TaskFileError(path, "", str(error)) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for values in reader:
            place, line = f"line {line}", reader.line_num + 1
            if header is None:
                header = values
                if len(set(header)) < len(header):
                    raise TaskFileError(path, place, "a column of the header is repeated")
            elif values:
                if len(values) != len(header):
                    problem = f"the row has {len(values)} fields, the header {len(header)}"
                    raise TaskFileError(path, place, problem)
                yield place, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise TaskFileError(path, f"line {line}", f"not CSV: {error}") from error


def as_object(path: Path, place: str, row: Any) -> dict[str, Any]:
    """The row, if it is an object.

    Raises:
        TaskFileError: it is something else.
    """
    if not isinstance(row, dict):
        raise TaskFileError(path, place, f"a row must be an object, got {type(row).__name__}")
    return row
