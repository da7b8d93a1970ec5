"""Tasks of several sources, drawn by weight.

A mixture is a source like any other: ``mixture:FILE``, or ``mixture:`` with the JSON itself behind it. The
JSON is a list of parts:

| field | value |
|---|---|
| `tasks` | a source, see `videogym.datasets.load_tasks` |
| `weight` | a number from 0 to 1e9, by default 1: how often this part is drawn, as a share of the sum |
| `video_root` | folder of this part's videos, below that of the run if it has one; by default the same |
| `where` | metadata that a task must have, by name a value or a list of values; by default any |

A weight may be a curriculum, a list of ``[iteration, weight]``: at an iteration of a training run it is on
the straight line between its neighbours, before the first and after the last as there. A part whose weight
is always 0 is not read. How many tasks a part has does not matter to how often it is drawn.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogym.datasets.rows import parse_json
from videogym.datasets.tasks import LeftOut, TaskList, check_iteration
from videogym.metadata import Metadata
from videogym.state import Task

MIXTURE_PREFIX = "mixture:"
_MOST = 1e9  # of a weight, and of an iteration
_FIELDS = ("tasks", "weight", "video_root", "where")
Weight = float | tuple[tuple[int, float], ...]  # or by iteration, which rises


@dataclass(frozen=True)
class MixturePart:
    """One source of a mixture."""

    tasks: str  # a source
    weight: Weight = 1.0  # above 0, at some iteration at least
    video_root: str | None = None  # None: that of the run
    where: Metadata = field(
        default=Metadata()
    )  # by name the values, a tuple, of which a task's metadata must have one

    @property
    def peak(self) -> float:
        """The highest weight at any iteration; a part of 0 is not read."""
        return max(at for _, at in self.weight) if isinstance(self.weight, tuple) else self.weight

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

    Attributes:
        sizes: tasks of each part.
        shares: how often each is drawn at iteration 0; they sum to 1.

    Raises:
        ValueError: a part has no tasks, or two tasks share an id.
    """

    def __init__(
        self, parts: Sequence[tuple[Sequence[Task], Weight]], left_out: Sequence[LeftOut] = ()
    ) -> None:
        super().__init__((task for tasks, _ in parts for task in tasks), left_out)
        self.sizes = tuple(len(tasks) for tasks, _ in parts)
        if not all(self.sizes):
            raise ValueError(f"part {self.sizes.index(0) + 1} of the mixture has no tasks")
        self._weights = [weight for _, weight in parts]
        self.shares = self.shares_at(0)
        self._starts = np.cumsum([0, *self.sizes[:-1]])

    def shares_at(self, iteration: int) -> tuple[float, ...]:
        """How often each part is drawn at an iteration of a training run; they sum to 1."""
        weights = np.array([_weight_at(weight, iteration) for weight in self._weights])
        return tuple((weights / weights.sum()).tolist())

    def draw(self, generator: np.random.Generator, iteration: int = 0) -> int:
        """A part by its share at that iteration, then any of its tasks; see `Tasks.draw`."""
        check_iteration(iteration)
        part = int(generator.choice(len(self.shares), p=self.shares_at(iteration)))
        return int(self._starts[part] + generator.integers(self.sizes[part]))

    def chances(self, iteration: int = 0) -> NDArray[np.float64]:
        """See `Tasks.chances`."""
        return np.repeat(np.array(self.shares_at(iteration)) / self.sizes, self.sizes)


def read_parts(source: str) -> list[MixturePart]:
    """The parts of ``mixture:...`` that are drawn from.

    Raises:
        ValueError: the file cannot be read, is no list of parts, or no weight is above 0; the message names
            the part, the field and what is allowed.
    """
    text = source.removeprefix(MIXTURE_PREFIX)
    name = "mixture" if text.lstrip().startswith("[") else text
    try:
        rows = parse_json(text if name == "mixture" else Path(text).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise ValueError(
            f"{name}: a mixture is a list of objects with {', '.join(_FIELDS)}, got {rows!r:.80}"
        )
    parts = [_part(row, f"{name}: part {number}") for number, row in enumerate(rows, 1)]
    curricula = [part.weight for part in parts if isinstance(part.weight, tuple)]
    for iteration in sorted({0, *(point for some in curricula for point, _ in some)}):
        if not any(_weight_at(part.weight, iteration) for part in parts):
            when = f" at iteration {iteration}" if curricula else ""
            raise ValueError(
                f"{name}: the weights of its {len(parts)} parts sum to 0{when}; one must be above 0"
            )
    return [part for part in parts if part.peak]


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
    taken: list[tuple[Sequence[Task], Weight]] = []
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
    if root is not None and not (isinstance(root, str) and os.path.isdir(root)):
        raise ValueError(f"{place}: video_root must be a folder, got {root!r:.80}")
    weight = _weight(weight, place)
    where = row.get("where", {})
    if not isinstance(where, dict):
        raise ValueError(f"{place}: where must be an object of metadata, got {where!r:.80}")
    try:
        values = {name: value if isinstance(value, list) else [value] for name, value in where.items()}
        return MixturePart(tasks, weight, root, Metadata(values))
    except ValueError as error:
        raise ValueError(f"{place}: where: {error}") from error


def _weight(value: Any, place: str) -> Weight:
    """A number, or points of a curriculum.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(value, list):
        return _number(value, place)
    pairs = [pair for pair in value if isinstance(pair, list) and len(pair) == 2]
    iterations = [one for one, _ in pairs if type(one) is int and 0 <= one <= _MOST]
    if not value or len(iterations) < len(value) or iterations != sorted(set(iterations)):
        raise ValueError(
            f"{place}: a weight by iteration is a list of [iteration, weight] whose iterations are whole "
            f"numbers of at most {_MOST:g} that rise from at least 0, got {value!r:.80}"
        )
    weights = [_number(weight, place) for _, weight in pairs]
    return tuple(zip(iterations, weights, strict=True))


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        raise ValueError(f"{place}: weight must be a number from 0 to {_MOST:g}, got {value!r:.80}")
    return float(value)


def _weight_at(weight: Weight, iteration: int) -> float:
    if not isinstance(weight, tuple):
        return weight
    iterations, weights = zip(*weight, strict=True)
    return float(np.interp(iteration, iterations, weights))
