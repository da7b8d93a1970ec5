"""Tasks in a row: by position and by name, whether their evidence fits the video, and their errors."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from videogym.state import Rules, Task
from videogym.video import VideoChanged, VideoMeta

# Annotations are rounded, often to whole seconds, and so may end a little after the last frame.
EVIDENCE_SLACK_S = 1.0
_NAMED = 10  # faults of a file that its error names


class EvidenceError(ValueError):
    """Evidence lies outside its video."""


class TaskFileError(ValueError):
    """A task file is invalid. The message names file, place and field, and what is allowed.

    Args:
        path: the file.
        place: the line or the row, e.g. ``"line 12"``; empty for the whole file.
        problem: the field and what is wrong with it.
        others: what else is wrong; the message names the first ten faults and counts the rest.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        place: str,
        problem: str,
        others: Sequence[TaskFileError] = (),
    ) -> None:
        self.path, self.place, self.problem = os.fspath(path), place, problem
        self.others = tuple(others)
        told = [_joined(self.path, place, problem)]
        for other in self.others[: _NAMED - 1]:
            told.append(_joined("" if other.path == self.path else other.path, other.place, other.problem))
        if len(self.others) >= _NAMED:
            told.append(f"and {len(self.others) - _NAMED + 1} more")
        super().__init__("; ".join(told))

    def __reduce__(self) -> tuple[type[TaskFileError], tuple[str, str, str, tuple[TaskFileError, ...]]]:
        return type(self), (self.path, self.place, self.problem, self.others)


def _joined(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


@dataclass(frozen=True)
class LeftOut:
    """A row of a file that is no task, and why."""

    path: Path
    place: str  # e.g. "line 12"
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


def check_iteration(iteration: int) -> None:
    """Refuse what is no number of an iteration.

    Raises:
        ValueError: it is no whole number of at least 0.
    """
    if type(iteration) is not int or iteration < 0:
        raise ValueError(f"iteration must be a whole number of at least 0, got {iteration!r}")


class Tasks(Sequence[Task]):
    """A sequence of tasks with unique ids."""

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        """The task at a position, or those of a slice."""
        if isinstance(index, slice):
            return [self._task(i) for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]  # resolves negative positions, raises IndexError
        return self._task(position)

    @abstractmethod
    def _task(self, position: int) -> Task:
        """The task at a position in ``[0, len)``."""

    def draw(self, generator: np.random.Generator, iteration: int = 0) -> int:
        """The position of a task to play, any with equal chance, at every iteration of a training run.

        Raises:
            ValueError: the iteration is no whole number of at least 0.
        """
        check_iteration(iteration)
        return int(generator.integers(len(self)))

    def chances(self, iteration: int = 0) -> NDArray[np.float64]:
        """(N,) the chance that `draw` has for every position at that iteration."""
        return np.full(len(self), 1 / max(1, len(self)))

    def draws(self, generator: np.random.Generator, iteration: int = 0) -> Iterator[int]:
        """Positions as `draw` gives them one after the other, each once; none that has no chance there.

        However small a chance is, the positions come to an end.
        """
        seen: set[int] = set()
        while len(seen) < len(self):
            place = self.draw(generator, iteration)
            if place in seen:
                break
            seen.add(place)
            yield place
        chances = self.chances(iteration)
        chances[list(seen)] = 0.0
        left = np.flatnonzero(chances)
        # The order in which all others would be drawn, at once: by the Gumbel-top-k trick.
        order = np.argsort(-(np.log(chances[left]) + generator.gumbel(size=len(left))))
        yield from left[order].tolist()

    @abstractmethod
    def by_id(self, task_id: str) -> Task:
        """The task of that id.

        Raises:
            ValueError: there is none.
        """


class TaskList(Tasks):
    """Tasks that are held in memory.

    Args:
        tasks: with unique ids.
        left_out: rows of their file that are none.

    Raises:
        ValueError: two tasks share an id.
    """

    def __init__(self, tasks: Iterable[Task], left_out: Iterable[LeftOut] = ()) -> None:
        self._tasks = tuple(tasks)
        self.left_out = tuple(left_out)
        self._positions = {task.task_id: i for i, task in enumerate(self._tasks)}
        if len(self._positions) < len(self._tasks):
            repeated = next(t.task_id for i, t in enumerate(self._tasks) if self._positions[t.task_id] != i)
            raise ValueError(f"task_id {repeated!r} is repeated")

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    def _task(self, position: int) -> Task:
        return self._tasks[position]

    def by_id(self, task_id: str) -> Task:
        """The task of that id.

        Raises:
            ValueError: there is none.
        """
        position = self._positions.get(task_id) if isinstance(task_id, str) else None
        if position is None:
            raise ValueError(f"no task has the id {task_id!r:.80}; there are {len(self)}")
        return self._tasks[position]


def check_evidence(task: Task, duration_s: float) -> None:
    """Refuse a task whose evidence is not in its video.

    A segment must start inside and may end up to `EVIDENCE_SLACK_S` after the end.

    Args:
        task: any task; without evidence it passes.
        duration_s: length of its video, seconds.

    Raises:
        EvidenceError: names task, segment and duration.
    """
    for segment in task.evidence or ():
        if segment.start_s >= duration_s or segment.end_s > duration_s + EVIDENCE_SLACK_S:
            raise EvidenceError(
                f"task {task.task_id!r}: evidence [{segment.start_s:g}, {segment.end_s:g}) s lies outside "
                f"its video of {duration_s:g} s"
            )


def check_same_video(task: Task, video: VideoMeta) -> None:
    """Refuse a task that was made of another video than the one that is under its name now.

    A task that names no ``video_fingerprint`` in its metadata passes.

    Args:
        task: any task.
        video: facts about its video.

    Raises:
        VideoChanged: names the video.
    """
    made_of = task.metadata.get("video_fingerprint", video.fingerprint)
    if made_of != video.fingerprint:
        raise VideoChanged(
            f"{task.video}: changed since task {task.task_id!r} was made of it: its fingerprint was "
            f"{made_of!r:.80} and is {video.fingerprint!r}"
        )


def check_length(video: VideoMeta, max_duration_s: float = Rules.max_duration_s) -> None:
    """Refuse a video with which no episode begins, whatever is asked about it.

    Args:
        video: facts about it.
        max_duration_s: of the recipe's rules, seconds.

    Raises:
        ValueError: it has one frame, or lasts longer.
    """
    if video.num_frames < 2:
        raise ValueError("the video has one frame, an episode needs 2")
    if video.duration_s > max_duration_s:
        raise ValueError(f"the video lasts {video.duration_s:g} s, at most {max_duration_s:g} s fit")
