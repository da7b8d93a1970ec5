"""Tasks of several sources, drawn by weight.

A mixture is a source like any other: ``mixture:FILE``, or ``mixture:`` with the JSON itself behind it. The
JSON is a list of parts:

| field | value |
|---|---|
| `tasks` | a source, see `videogym.datasets.load_tasks` |
| `weight` | a number from 0 to 1e9, by default 1: how often this part is drawn, as a share of the sum |
| `video_root` | folder of this part's videos, below that of the run if it has one; by default the same |
| `where` | metadata that a task must have, by name a value or a list of values; by default any |

A part of weight 0 is not read. How many tasks a part has does not matter to how often it is drawn.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from videogym.datasets.tasks import LeftOut, TaskList
from videogym.metadata import Metadata
from videogym.state import Task

MIXTURE_PREFIX = "mixture:"
_MOST = 1e9  # of a weight
_FIELDS = ("tasks", "weight", "video_root", "where")


@dataclass(frozen=True)
class MixturePart:
    """One source of a mixture."""

    tasks: str  # a source
    weight: float = 1.0  # above 0
    video_root: str | None = None  # None: that of the run
    where: Metadata = field(
        default=Metadata()
    )  # by name the values, a tuple, of which a task's metadata must have one

    def takes(self, task: Task) -> bool:
        """Whether a task has the metadata that is asked for."""
        return all(
            name in task.metadata and task.metadata[name] in some for name, some in self.where.items()
        )


class Mixture(TaskList):
    """Tasks of several sources in a row, drawn by the weights of the sources.

    Args:
        parts: tasks with the weight of their source, above 0; ids must differ over all.
        left_out: rows of their files that are none.

    Raises:
        ValueError: a part has no tasks, or two tasks share an id.
    """

    def __init__(
        self, parts: Sequence[tuple[Sequence[Task], float]], left_out: Sequence[LeftOut] = ()
    ) -> None:
        super().__init__((task for tasks, _ in parts for task in tasks), left_out)
        self.sizes = tuple(len(tasks) for tasks, _ in parts)
        if not all(self.sizes):
            raise ValueError(f"part {self.sizes.index(0) + 1} of the mixture has no tasks")
        weights = np.array([weight for _, weight in parts])
        self.shares = tuple((weights / weights.sum()).tolist())
        self._starts = np.cumsum([0, *self.sizes[:-1]])

    def draw(self, generator: np.random.Generator) -> int:
        """A part by its share, then any of its tasks."""
        part = int(generator.choice(len(self.shares), p=self.shares))
        return int(self._starts[part] + generator.integers(self.sizes[part]))


def read_parts(source: str) -> list[MixturePart]:
    """The parts of ``mixture:...`` that are drawn from.

    Raises:
        ValueError: the file cannot be read, is no list of parts, or no weight is above 0; the message names
            the part, the field and what is allowed.
    """
    text = source.removeprefix(MIXTURE_PREFIX)
    name = "mixture" if text.lstrip().startswith("[") else text
    try:
        rows = json.loads(text if name == "mixture" else Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {error}") from error
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise ValueError(
            f"{name}: a mixture is a list of objects with {', '.join(_FIELDS)}, got {rows!r:.80}"
        )
    parts = [_part(row, f"{name}: part {number}") for number, row in enumerate(rows, 1)]
    if not any(part.weight for part in parts):
        raise ValueError(f"{name}: the weights of its {len(parts)} parts sum to 0; one must be above 0")
    return [part for part in parts if part.weight]


def written_out(source: str) -> str:
    """The same mixture without a file, as JSON in one line: what a run keeps and compares.

    Raises:
        ValueError: as `read_parts`.
    """
    rows = []
    for part in read_parts(source):
        row: dict[str, Any] = {"tasks": part.tasks, "weight": part.weight}
        row |= {} if part.video_root is None else {"video_root": part.video_root}
        rows.append(row | ({"where": part.where.to_json()} if part.where else {}))
    return MIXTURE_PREFIX + json.dumps(rows, ensure_ascii=False)


def load_mixture(source: str, load: Callable[[MixturePart], TaskList]) -> Mixture:
    """The tasks of ``mixture:...``.

    Args:
        source: of the mixture.
        load: loads all tasks of a part.

    Raises:
        ValueError: as `read_parts`, what a part's source raises, no task of a part has the metadata that is
            asked for, or an id is in two parts.
    """
    taken: list[tuple[Sequence[Task], float]] = []
    left_out: list[LeftOut] = []
    seen: dict[str, str] = {}
    for part in read_parts(source):
        loaded = load(part)
        tasks = [task for task in loaded if part.takes(task)]
        if not tasks:
            asked = f" with {dict(part.where)}" if part.where else ""
            raise ValueError(f"{part.tasks}: none of its {len(loaded)} tasks is taken{asked}")
        if twice := next((task.task_id for task in tasks if task.task_id in seen), None):
            raise ValueError(
                f"the id {twice!r} is in {seen[twice]} and in {part.tasks}; ids of a mixture must differ"
            )
        seen |= {task.task_id: part.tasks for task in tasks}
        taken.append((tasks, part.weight))
        left_out += loaded.left_out
    return Mixture(taken, left_out)


def _part(row: Mapping[str, Any], place: str) -> MixturePart:
    if unknown := sorted(row.keys() - set(_FIELDS)):
        raise ValueError(f"{place}: there is no field {unknown[0]!r}; there are {', '.join(_FIELDS)}")
    tasks, weight, root = row.get("tasks"), row.get("weight", 1.0), row.get("video_root")
    if not (isinstance(tasks, str) and tasks) or tasks.startswith(MIXTURE_PREFIX):
        raise ValueError(f"{place}: tasks must name a source that is no mixture, got {tasks!r:.80}")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= _MOST:
        raise ValueError(f"{place}: weight must be a number from 0 to {_MOST:g}, got {weight!r:.80}")
    if root is not None and not (isinstance(root, str) and os.path.isdir(root)):
        raise ValueError(f"{place}: video_root must be a folder, got {root!r:.80}")
    where = row.get("where", {})
    if not isinstance(where, dict):
        raise ValueError(f"{place}: where must be an object of metadata, got {where!r:.80}")
    try:
        values = {name: value if isinstance(value, list) else [value] for name, value in where.items()}
        return MixturePart(tasks, float(weight), root, Metadata(values))
    except ValueError as error:
        raise ValueError(f"{place}: where: {error}") from error
