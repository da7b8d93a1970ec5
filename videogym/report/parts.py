"""Where the episodes of a page are: in the page itself or, of a large report, in files beside it.

A page that is opened from a disk may read scripts and nothing else, so the files are scripts, each of them
one call with its data: ``index.js`` has a row for every episode, by which the page filters and sorts,
``texts.js`` what a search looks through, ``part-N.js`` the markup of some episodes and ``pictures-N.js``
their pictures.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogym.report.episodes import EpisodeView
from videogym.report.publishing import partial_path
from videogym.report.texts import visible
from videogym.report.thumbnails import Thumbnails
from videogym.writing import naming

MOST_EPISODES = 1000  # of a page without files beside it,
MOST_PAGE_BYTES = 128_000_000  # and what their markup and pictures take at most, about
PART_EPISODES = 50  # of a file, at most,
PART_BYTES = 1_000_000  # and what their markup takes, about
_CALL = "videogymReport"  # the page's function that takes the data


@dataclass(frozen=True, slots=True)
class _Entry:
    """An episode as it is kept until it is written."""

    article: str  # its markup
    pictures: frozenset[int]  # those that it shows
    row: str  # of the index, JSON
    text: str  # that is searched, JSON


class EpisodeFiles:
    """Takes episodes one by one, and opens files as soon as they are too many for one page.

    What it holds in memory is what one page may hold at most, after that what one file may.

    Args:
        page: where the page will be.
        made: makes the pictures of the episodes.
    """

    def __init__(self, page: Path, made: Thumbnails) -> None:
        self._folder, self._made = partial_path(page, ".files"), made
        self._entries: list[_Entry] = []
        self._bytes = 0  # of the markup in memory
        self._files: _Files | None = None
        self.count = 0
        # Names, which the index has by their numbers.
        self.names: dict[str, dict[str, int]] = {"run": {}, "recipe": {}, "ending": {}}

    @property
    def articles(self) -> list[str]:
        """Markup of the episodes, where the page is to hold them itself."""
        return [entry.article for entry in self._entries]

    def add(self, view: EpisodeView, article: str) -> None:
        """Take an episode.

        Raises:
            OSError: a file cannot be written.
        """
        clips = (view.skim, *(clip for turn in view.turns for clip in turn.clips))
        pictures = frozenset(picture for clip in clips for picture in clip.strip.pictures)
        self.count += 1
        self._bytes += len(article)
        self._entries.append(_Entry(article, pictures, _json(self._row(view)), _json(_searched(view))))
        if self._files is None and (
            self.count > MOST_EPISODES or self._bytes + self._made.bytes > MOST_PAGE_BYTES
        ):
            self._files = _Files(self._folder)
            self._write()
        elif self._files and (len(self._entries) >= PART_EPISODES or self._bytes >= PART_BYTES):
            self._write()

    def close(self) -> dict[str, Any] | None:
        """End the files.

        Returns:
            What the page must know of them; None where it holds the episodes itself.

        Raises:
            OSError: a file cannot be written.
        """
        if self._files is None:
            return None
        self._write()
        self._files.end()
        return {"starts": self._files.starts, "count": self.count} | {
            k: list(v) for k, v in self.names.items()
        }

    @property
    def data(self) -> tuple[Path, str] | None:
        """The finished folder and the name of its content; None where there is none."""
        return (self._folder, self._files.digest) if self._files else None

    def discard(self) -> None:
        """Remove what was not published."""
        if self._files is not None:
            self._files.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _row(self, view: EpisodeView) -> list[Any]:
        """As `report.js` reads it."""
        named = {"run": view.run, "recipe": view.trace.recipe, "ending": view.ending}
        numbers = [self.names[kind].setdefault(name, len(self.names[kind])) for kind, name in named.items()]
        tiou = "" if view.tiou is None else round(view.tiou, 6)
        reward = str(round(view.trace.reward, 9))  # which may be no number of JSON
        counts = [len(view.turns), view.trace.frames_shown, view.refused_turns, view.faults]
        return [view.trace.task.task_id, view.verdict, *numbers, reward, *counts, tiou]

    def _write(self) -> None:
        assert self._files is not None
        for entries in _batches(self._entries):
            wanted = sorted(frozenset[int]().union(*(entry.pictures for entry in entries)))
            self._files.add(entries, {str(number): self._made.pictures[number] for number in wanted})
        self._entries, self._bytes = [], 0
        self._made.forget()


def _batches(entries: list[_Entry]) -> Iterator[list[_Entry]]:
    batch: list[_Entry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += len(entry.article)
        if len(batch) >= PART_EPISODES or size >= PART_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _searched(view: EpisodeView) -> str:
    """What a search looks through; outputs would be most of the report."""
    trace = view.trace
    options = (f"{option.letter} {option.text}" for option in view.options)
    return "\n".join(
        (trace.task.task_id, trace.task.question, *options, view.truth, trace.answer or "")
    ).lower()


def _json(value: Any) -> str:
    if isinstance(value, list):
        value = [visible(part) for part in value]
    return json.dumps(visible(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class _Files:
    """The folder while it is made."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._folder, self._content = folder, hashlib.sha256()
        self._index, self._texts = (self._open(name) for name in ("index", "texts"))
        self._next = 1
        self.starts: list[int] = []  # number of the first episode of every file

    @property
    def digest(self) -> str:
        """Name of the content."""
        return self._content.hexdigest()[:32]

    def _open(self, kind: str) -> Any:
        file = (self._folder / f"{kind}.js").open("w", encoding="utf-8", newline="\n")
        file.write(f'{_CALL}("{kind}",0,[\n')
        return file

    def add(self, entries: list[_Entry], pictures: dict[str, str]) -> None:
        number = len(self.starts)
        self.starts.append(self._next)
        self._next += len(entries)
        with naming(self._folder):
            for entry in entries:
                self._content.update(f"{entry.row}\n{entry.text}\n".encode())
                self._index.write(f"{entry.row},\n")
                self._texts.write(f"{entry.text},\n")
            self._whole("part", number, [entry.article for entry in entries])
            if pictures:
                self._whole("pictures", number, pictures)

    def _whole(self, kind: str, number: int, value: Any) -> None:
        text = f'{_CALL}("{kind}",{number},{json.dumps(value, ensure_ascii=False)})\n'
        self._content.update(text.encode())
        with (self._folder / f"{kind}-{number}.js").open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def end(self) -> None:
        for file in (self._index, self._texts):
            file.write("])\n")
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        for file in (self._index, self._texts):
            with suppress(OSError):  # what could not be written is no matter any more
                file.close()
