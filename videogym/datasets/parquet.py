"""Rows of parquet files, through pyarrow: ``pip install "videogym[data]"``.

Columns come as plain Python values: texts, numbers, lists and objects, in whatever Arrow type they are
stored (arrays written from numpy are lists). Types that no field of a task can have, such as bytes or
dates, are refused by the readers, which name the field and the value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from videogym.datasets.tasks import TaskFileError

_BATCH = 1024  # rows decoded at a time
# Rows turned into Python values at a time. So few are gone again before the garbage collector looks at
# them; with a thousand conversations alive it takes a third of the time of reading.
_CHUNK = 16


def parquet_rows(path: Path, fields: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows in the order of the file, with their place, e.g. ``"row 12"``.

    Args:
        path: the file.
        fields: columns to read, where the file has them; empty: all.

    Raises:
        TaskFileError: the file cannot be read, or holds none of the columns.
        ImportError: pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            known = file.schema_arrow.names
            columns = [name for name in fields if name in known] if fields else known
            if not columns:
                problem = f"none of the fields {', '.join(fields)} is in it; it has {', '.join(known)}"
                raise TaskFileError(path, "", problem)
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                for start in range(0, batch.num_rows, _CHUNK):
                    for row in _values(path, batch.slice(start, _CHUNK), number):
                        number += 1
                        yield f"row {number}", row
    except OSError as error:
        raise TaskFileError(path, "", f"cannot be read: {error.strerror or error}") from error
    except pyarrow.ArrowException as error:
        raise TaskFileError(path, "", f"not parquet that can be read: {error}") from error


def _values(path: Path, batch: Any, before: int) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:
        place = f"rows {before + 1} to {before + batch.num_rows}"
        raise TaskFileError(path, place, f"a text is not UTF-8: {error.reason}") from error


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "parquet files are read with pyarrow, which is not installed: pip install 'videogym[data]'"
        ) from error
    return pyarrow, pyarrow.parquet
