"""What people said of tasks, one after the other: a file of verdicts that only grows, the last one counts.

A verdict is about a task's words and evidence: of a task that was changed since it says nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from videogym.data.lines import DataError, Holder, Lines, hold
from videogym.data.work import hashed
from videogym.state import Task

_WORDS = {True: "accept", False: "reject"}


class Verdicts(Holder):
    """A file of verdicts.

    Args:
        path: made by the first verdict, in a folder that exists.
        writes: whether verdicts are added; then nobody else may.

    Raises:
        DataError: the file holds something else, or somebody else adds to it.
        OSError: it cannot be read, or is missing where none is added.
    """

    def __init__(self, path: str | os.PathLike[str], *, writes: bool = False) -> None:
        self.path = Path(path)
        if not writes and not self.path.exists():
            raise FileNotFoundError(2, "No such file of verdicts", os.fspath(path))
        told = f"{self.path}: another review adds to this file"
        super().__init__(hold(self.path.with_name(f".{self.path.name}.lock"), told) if writes else None)
        self._lines = Lines(self.path)
        self._said: dict[str, str] = {}  # the last word about each
        for number, row in enumerate(self._lines.rows, start=1):
            self._said[row["key"]] = row.get("verdict", "")
            if row.get("verdict") not in _WORDS.values():
                found = row.get("verdict")
                raise DataError(
                    f"{self.path}, line {number}: verdict must be accept or reject, got {found!r}"
                )

    def of(self, task: Task) -> bool | None:
        """Whether a task was accepted; None: nobody said so, or it was another task then."""
        word = self._said.get(content_key(task))
        return None if word is None else word == "accept"

    def add(self, task: Task, accepted: bool) -> None:
        """Add a verdict; it is on the disk when this returns.

        Raises:
            OSError: it cannot be written.
        """
        key, word = content_key(task), _WORDS[accepted]
        row = {"key": key, "task_id": task.task_id, "verdict": word, "question": task.question}
        self._lines.append(row)
        self._said[key] = word


def content_key(task: Task) -> str:
    """Hash of what a verdict is about: id, question, options, answer and evidence."""
    evidence = [[segment.start_s, segment.end_s] for segment in task.evidence or ()]
    return hashed(task.task_id, task.question, list(task.options), task.answer, evidence)
