"""Subtitles of data sets that have them: SRT files, one a video, in a folder.

``FORMAT:PATH?subtitles=FOLDER`` reads tasks with the lines of ``FOLDER/<name of the video>.srt``. A policy
that reads text is shown the lines that cover its frames, see `videogym.grammars.with_subtitles`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from videogym.datasets.rows import read_bytes
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


def read_subtitles(tasks: Iterable[Task], folder: str | os.PathLike[str]) -> TaskList:
    """The tasks with the subtitles of their videos, from ``<name of the video>.srt`` in a folder.

    Videos without such a file are counted in a warning; their tasks have none.

    Raises:
        ValueError: there is no such folder, or it has no file of any of the videos.
        TaskFileError: a file cannot be read.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ValueError(f"subtitles must be a folder, got {os.fspath(folder)!r}")
    left_out: tuple[LeftOut, ...] = tasks.left_out if isinstance(tasks, TaskList) else ()
    told, lines, missing = [], dict[str, tuple[Subtitle, ...] | None](), dict[str, None]()
    for task in tasks:
        name = PurePosixPath(task.video).stem
        if name not in lines:
            file = place / f"{name}.srt"
            lines[name] = read_srt(file) if file.is_file() else None
        if lines[name] is None:
            missing[name] = None
        told.append(replace(task, subtitles=lines[name] or ()))
    if told and len(missing) == len(lines):
        raise ValueError(
            f"{os.fspath(folder)} has no subtitles of any video, such as {next(iter(missing))}.srt"
        )
    if missing:
        named = ", ".join(list(missing)[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        warnings.warn(
            f"{os.fspath(folder)}: {len(missing)} of {len(lines)} videos have no subtitles: {named}{more}",
            stacklevel=3,
        )
    return TaskList(told, left_out)
