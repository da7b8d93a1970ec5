"""Subtitles of data sets that have them: one file a video, SRT or LongVideoBench's JSON, in a folder.

``FORMAT:PATH?subtitles=FOLDER`` reads tasks with the lines of ``FOLDER/<name of the video>.srt``, or of the
file that the metadata names in ``subtitle_path``, as LongVideoBench's rows do. A policy that reads text is
shown the lines that cover its frames, see `videogym.grammars.with_subtitles`.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from videogym.datasets.fields import Fields, short, text_of
from videogym.datasets.rows import json_rows, read_bytes
from videogym.datasets.tasks import LeftOut, TaskFileError, TaskList
from videogym.state import Task
from videogym.subtitles import Subtitle

SUBTITLES = "?subtitles="  # behind a source, before the folder
_CLOCK = r"(\d{1,3}):(\d{2}):(\d{2})(?:[,.](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?")  # behind the times a place may stand
_MARKUP = re.compile(r"</?(?:[bisu]|font)(?:\s[^<>]*)?>|\{\\[^{}]*\}", re.IGNORECASE)
_NAMED = 3  # videos that a warning names


def read_srt(path: str | os.PathLike[str]) -> tuple[Subtitle, ...]:
    """The lines of an SRT file by their start; those of one block are joined, without markup.

    A block without text, or that does not end after it begins, shows nothing and is passed over. Numbers
    of blocks are not looked at.

    Raises:
        TaskFileError: the file cannot be read, is not UTF-8, or holds no block.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskFileError(path, "", f"not UTF-8: {error.reason} at byte {error.start}") from error
    lines = re.split(r"\r\n|\n|\r", text)
    found: list[Subtitle] = []
    blocks = 0
    for place, line in enumerate(lines):
        if (match := _TIMES.fullmatch(line)) is None:
            continue
        blocks += 1
        body: list[str] = []
        for below in lines[place + 1 :]:
            if not below.strip() or _TIMES.fullmatch(below):
                break
            body.append(below)
        start_s, end_s = _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
        said = " ".join(_MARKUP.sub("", " ".join(body)).split())
        if said and start_s < end_s:
            found.append(Subtitle(start_s, end_s, said))
    if not blocks and text.strip():
        raise TaskFileError(path, "", "no line reads 'HH:MM:SS,mmm --> HH:MM:SS,mmm'")
    return tuple(sorted(found))


def _seconds(clock: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, rest = clock
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return whole + (int(rest.ljust(3, "0")) / 1000 if rest else 0.0)


def read_json_subtitles(path: str | os.PathLike[str]) -> tuple[Subtitle, ...]:
    """The lines of a JSON file as LongVideoBench has them, by their start.

    A list of objects in one of two forms: ``start`` and ``end``, "HH:MM:SS.mmm", with ``line``; or
    ``timestamp``, two numbers of seconds, with ``text``. An end that is null is where the next line begins,
    that of the last line is the end of the video. A line without text, or that does not end after it
    begins, shows nothing and is passed over.

    Raises:
        TaskFileError: the file cannot be read, or a line is of neither form.
    """
    timed: list[tuple[float, float | None, str]] = []
    for row in json_rows(path):
        try:
            timed.append(_json_line(row.fields))
        except ValueError as error:
            raise TaskFileError(row.path, row.place, str(error)) from error
    timed.sort(key=lambda one: one[0])
    found: list[Subtitle] = []
    for place, (start_s, end_s, text) in enumerate(timed):
        if end_s is None:
            end_s = next((later for later, _, _ in timed[place + 1 :] if later > start_s), math.inf)
        said = " ".join(text.split())
        if said and start_s < end_s:
            found.append(Subtitle(start_s, end_s, said))
    return tuple(sorted(found))


def _json_line(row: Fields) -> tuple[float, float | None, str]:
    """Start, end and text of one line."""
    if "timestamp" in row:
        times = row["timestamp"]
        if not isinstance(times, list) or len(times) != 2:
            raise ValueError(f"field 'timestamp' must be start and end in seconds, got {short(times)}")
        end_s = None if times[1] is None else _number(times[1], "timestamp[1]")
        return _number(times[0], "timestamp[0]"), end_s, text_of(row, "text", empty=True)
    clocks = []
    for name in ("start", "end"):
        match = re.fullmatch(_CLOCK, text_of(row, name).strip())
        if match is None:
            raise ValueError(f"field {name!r} must be a time as in '00:01:02.500', got {short(row[name])}")
        clocks.append(_seconds(match.groups()))
    return clocks[0], clocks[1], text_of(row, "line", empty=True)


def _number(value: Any, name: str) -> float:
    """Seconds, 0 or more."""
    # Comparing refuses NaN and the whole numbers that are too large for a float.
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e9:
        raise ValueError(f"field {name!r} must be a number of seconds, at least 0, got {short(value)}")
    return float(value)


def read_subtitles(tasks: Iterable[Task], folder: str | os.PathLike[str]) -> TaskList:
    """The tasks with the subtitles of their videos, from files in a folder.

    The file is the one that the metadata names in ``subtitle_path``, or ``<name of the video>.srt``. Where
    the metadata has ``starting_timestamp_for_subtitles``, as in LongVideoBench, whose videos are pieces of
    longer ones, times count from that second. Videos without a file are counted in a warning; their tasks
    have no subtitles.

    Raises:
        ValueError: there is no such folder, it has no file of any of the videos, or a task's metadata names
            what cannot be meant.
        TaskFileError: a file cannot be read.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ValueError(f"subtitles must be a folder, got {os.fspath(folder)!r}")
    left_out: tuple[LeftOut, ...] = tasks.left_out if isinstance(tasks, TaskList) else ()
    told, lines, missing = [], dict[Path, tuple[Subtitle, ...] | None](), dict[str, None]()
    for task in tasks:
        file = _file_of(task, place)
        if file not in lines:
            lines[file] = _read(file) if file.is_file() else None
        found = lines[file]
        if found is None:
            missing[file.relative_to(place).as_posix()] = None
        told.append(replace(task, subtitles=_from(found or (), _starts_at(task))))
    if told and len(missing) == len(lines):
        raise ValueError(
            f"{os.fspath(folder)} has no subtitles of any video, such as {next(iter(missing))}"
        )
    if missing:
        named = ", ".join(list(missing)[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        warnings.warn(
            f"{os.fspath(folder)}: {len(missing)} of {len(lines)} files of subtitles are missing: "
            f"{named}{more}",
            stacklevel=3,
        )
    return TaskList(told, left_out)


def _file_of(task: Task, folder: Path) -> Path:
    plain = folder / f"{PurePosixPath(task.video).stem}.srt"
    named = task.metadata.get("subtitle_path")
    if named is None:
        return plain
    path = PurePosixPath(named) if isinstance(named, str) else PurePosixPath("..")
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(
            f"task {task.task_id!r}: subtitle_path of the metadata must be a path below the folder of "
            f"subtitles, got {short(named)}"
        )
    file = folder / path
    return plain if not file.is_file() and plain.is_file() else file


def _read(file: Path) -> tuple[Subtitle, ...]:
    return read_json_subtitles(file) if file.suffix.lower() == ".json" else read_srt(file)


def _starts_at(task: Task) -> float:
    """The second of the subtitles at which the video begins."""
    name = "starting_timestamp_for_subtitles"
    if task.metadata.get(name) is None:
        return 0.0
    try:
        return _number(task.metadata[name], name)
    except ValueError as error:
        raise ValueError(f"task {task.task_id!r}: {error}") from error


def _from(lines: tuple[Subtitle, ...], start_s: float) -> tuple[Subtitle, ...]:
    """The lines from a second on, which becomes 0."""
    if not start_s:
        return lines
    moved = (Subtitle(max(0.0, one.start_s - start_s), one.end_s - start_s, one.text) for one in lines)
    return tuple(one for one in moved if one.end_s > 0)
