"""NExT-GQA: why and how questions about everyday videos, with the times that show the answer.

From its folder ``datasets/nextgqa``: ``val.csv`` and ``test.csv`` hold the questions, ``gsub_val.json``
and ``gsub_test.json`` the times, ``map_vid_vidorID.json`` the places of the videos.

| field | read as |
|---|---|
| `video_id` | `video`: `map_vid_vidorID.json` gives its path, without that file it is the name |
| `video_id`, `qid` | `task_id`, `2435100235_7` |
| `question`, `a0` ... `a4` | `question`, `options` |
| `answer` | the letter of the first option that reads so |
| `location` of `gsub_*.json` | `evidence`, seconds |
| `duration` of `gsub_*.json` | seconds, for filters, and `metadata` |
| `type` and the other columns | `metadata` |

A span that starts before its video, of which the published test file has 36, is read from 0, and a warning
counts them. `train.csv` has no times. NExT-QA's own files, whose answer is an index, are another format.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from videogym.datasets.curation import Keep
from videogym.datasets.fields import (
    Fields,
    id_of,
    letter_of_text,
    object_of,
    published_segments,
    seconds_of,
    text_of,
    video_of,
)
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, collect, read_object, read_rows
from videogym.datasets.tasks import TaskFileError, TaskList
from videogym.geometry import Segment
from videogym.state import Task

OPTIONS = ("a0", "a1", "a2", "a3", "a4")
_USED = ("video_id", "qid", "question", "answer", *OPTIONS)
VIDEO_MAP = "map_vid_vidorID.json"


def read_nextgqa(path: str | os.PathLike[str], *, keep: Keep | None = None) -> TaskList:
    """Read NExT-GQA.

    Args:
        path: one of the CSV files, or their folder for ``val.csv`` and ``test.csv`` together. The JSON
            files are looked for beside them.
        keep: leaves out rows of which it says no, e.g. `video_mtr_keeps`.

    Raises:
        TaskFileError: a file is missing or a row is invalid.
    """
    files = _files(Path(path))
    beside = {file: _beside(file) for file in files}
    rows = (row for file in files for row in read_rows(file))
    return collect(path, rows, lambda row: _read_row(row, beside[row.path], keep))


class _Beside(NamedTuple):
    """What the JSON files beside a CSV file say, by video id."""

    times_name: str
    times: Fields | None  # None: the training file, which has none
    places: Fields | None  # None: there is no such file


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = [file for file in (path / "val.csv", path / "test.csv") if file.exists()]
    if not files:
        raise TaskFileError(path, "", "there is neither val.csv nor test.csv in the folder")
    return files


def _beside(file: Path) -> _Beside:
    times, places = file.with_name(f"gsub_{file.stem}.json"), file.with_name(VIDEO_MAP)
    return _Beside(
        times_name=times.name,
        times=None if file.stem == "train" else read_object(times),
        places=read_object(places) if places.exists() else None,
    )


def _read_row(line: Row, beside: _Beside, keep: Keep | None) -> Task | None:
    row = line.fields
    video, question = id_of(row, "video_id"), id_of(row, "qid")
    evidence, duration_s = _times(line, beside, video, question)
    if keep is not None and not (evidence and keep(evidence, duration_s)):
        return None
    options = tuple(text_of(row, name) for name in OPTIONS)
    return Task(
        task_id=f"{video}_{question}",
        video=video_of(row, "video_id") if beside.places is None else video_of(beside.places, video),
        question=text_of(row, "question"),
        kind="choice",
        options=options,
        answer=letter_of_text(row, "answer", options),
        evidence=evidence,
        source="nextgqa",
        metadata=metadata_of(row, _USED) | ({"duration": duration_s} if duration_s else {}),
    )


def _times(
    line: Row, beside: _Beside, video: str, question: str
) -> tuple[tuple[Segment, ...] | None, float]:
    """Evidence of a question and length of its video, seconds."""
    if beside.times is None:
        return None, 0.0
    try:
        of_video = object_of(beside.times, video)
        location, duration_s = object_of(of_video, "location"), seconds_of(of_video, "duration")
        if question not in location:
            return None, duration_s
        return published_segments(line, location, question), duration_s
    except ValueError as error:
        raise ValueError(f"{beside.times_name}, video {video}: {error}") from error
