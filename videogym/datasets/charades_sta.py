"""Charades-STA: sentences about short indoor videos and the time at which each holds.

From the authors' text files, ``charades_sta_train.txt`` and ``charades_sta_test.txt``, a line
``VIDEO start end##sentence.``, or from a table (parquet, JSON) with these fields:

| field | read as |
|---|---|
| `video` | `video`, with `.mp4` where it has no ending |
| `timestamp` | `[start_s, end_s]`, `evidence` |
| `caption` | `question` |

Task ids are the file's name and the number of the row or line. There is no answer beside the times, see
`videogym.datasets.moments`. Other plain fields of a table are `metadata`. Some times end after their video;
such a task is found when the video is opened (`videogym.datasets.check_videos`). A row whose time does not
end after it begins asks for nothing; it is left out and counted in a warning.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from videogym.datasets.fields import from_zero, pair, segment, text_of, unpacked, video_of
from videogym.datasets.moments import moment_task
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, RowLeftOut, collect, read_bytes, read_rows
from videogym.datasets.tasks import TaskFileError, TaskList
from videogym.state import Task

_FIELDS = ("video", "caption", "timestamp")
_LINE = re.compile(r"(\S+) (\S+) (\S+?)##(.+)")


def read_charades_sta(path: str | os.PathLike[str]) -> TaskList:
    """Read Charades-STA.

    Raises:
        TaskFileError: the file cannot be read or a line is invalid.
    """
    is_text = Path(path).suffix.lower() == ".txt"
    rows = _lines(Path(path)) if is_text else read_rows(path, _FIELDS)
    return collect(path, rows, _read_row)


def _lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            # Some editors begin a file with a byte order mark.
            match = _LINE.fullmatch(line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
            if match is None:
                raise ValueError("a line must read 'VIDEO start end##sentence'")
            times = [float(match[2]), float(match[3])]
        except ValueError as error:  # also of a decoder
            raise TaskFileError(path, place, str(error)) from error
        fields = {"video": match[1], "timestamp": times, "caption": match[4]}
        yield Row(path, place, number, fields)


def _read_row(line: Row) -> Task:
    row = unpacked(line.fields, "timestamp")
    start_s, end_s = pair(row.get("timestamp"), "timestamp")
    if 0 <= end_s <= start_s:
        raise RowLeftOut(f"field 'timestamp' does not end after it begins, got [{start_s:g}, {end_s:g}]")
    return moment_task(
        task_id=line.name,
        video=video_of(row, "video"),
        query=text_of(row, "caption"),
        evidence=(segment(from_zero(line, row.get("timestamp")), "timestamp"),),
        source="charades-sta",
        metadata=metadata_of(row, _FIELDS),
    )
