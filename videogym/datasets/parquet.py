"""Rows of parquet files, through pyarrow: ``pip install "videogym[data]"``.

Columns come as plain Python values: texts, numbers, lists and objects, in whatever Arrow type they are
stored (arrays written from numpy are lists). Types that no field of a task can have, such as bytes or
dates, are refused by the readers, which name the field and the value.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from videogym.datasets.tasks import TaskFileError
from videogym.writing import appearing

_BATCH = 1024  # rows decoded at a time
# Rows turned into Python values at a time. So few are gone again before the garbage collector looks at
# them; with a thousand conversations alive it takes a third of the time of reading.
_CHUNK = 16


def parquet_rows(path: Path, fields: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows in the order of the file, with their place, e.g. ``"row 12"``.

    Args:
        path: the file.
        fields: columns to read, where the file has them, beside all that hold texts, numbers, truth values
            or lists of such; empty: all.

    Raises:
        TaskFileError: the file cannot be read, or holds none of the columns.
        ImportError: pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            known = file.schema_arrow.names
            if fields and not set(fields) & set(known):
                problem = f"none of the fields {', '.join(fields)} is in it; it has {', '.join(known)}"
                raise TaskFileError(path, "", problem)
            columns = [
                column.name
                for column in file.schema_arrow
                if not fields or column.name in fields or _is_plain(pyarrow, column.type)
            ]
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                for start in range(0, batch.num_rows, _CHUNK):
                    for row in _values(path, batch.slice(start, _CHUNK), number, fields):
                        number += 1
                        yield f"row {number}", row
    except OSError as error:
        raise TaskFileError(path, "", f"cannot be read: {error.strerror or error}") from error
    except pyarrow.ArrowException as error:
        raise TaskFileError(path, "", f"not parquet that can be read: {error}") from error


def _is_plain(pyarrow: Any, kind: Any) -> bool:
    """Whether a column holds texts, numbers, truth values or lists of such."""
    types = pyarrow.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return not types.is_nested(kind.value_type) and _is_plain(pyarrow, kind.value_type)
    if types.is_dictionary(kind):
        return _is_plain(pyarrow, kind.value_type)
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return any(test(kind) for test in (*tests, types.is_decimal))


def _values(path: Path, batch: Any, before: int, fields: Sequence[str]) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:
        asked = [name for name in batch.schema.names if name in fields]
        if fields and len(asked) < batch.num_columns:  # what nobody asked for stops nothing
            return _values(path, batch.select(asked), before, fields)
        place = f"rows {before + 1} to {before + batch.num_rows}"
        raise TaskFileError(path, place, f"a text is not UTF-8: {error.reason}") from error


def write_parquet(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of plain values; the file appears when it is complete.

    Raises:
        OSError: the file cannot be written.
        ImportError: pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow()
    with appearing(path) as partial:
        parquet.write_table(pyarrow.Table.from_pylist(list(rows)), partial)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "parquet files are read with pyarrow, which is not installed: pip install 'videogym[data]'"
        ) from error
    return pyarrow, pyarrow.parquet
