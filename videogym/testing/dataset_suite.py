"""What every source of tasks promises, as calls for tests of your own.

`check_tasks` is for any tasks; `check_choice_balance` for choices that are meant to be fair, where a
policy that sees nothing must not do better than chance. Both raise `AssertionError` with a sentence.
"""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from videogym.datasets import Tasks
from videogym.state import Task

LIMIT = 4.0  # standard deviations of a fair draw


def check_tasks(make_tasks: Callable[[], Tasks], *, sample: int = 50) -> None:
    """Tasks are found by position and by id, pickle, and are the same each time they are loaded.

    Args:
        make_tasks: loads the tasks anew.
        sample: how many of them to look at, spread over all.

    Raises:
        AssertionError: a promise is broken.
    """
    tasks, again = make_tasks(), make_tasks()
    _require(len(tasks) > 0, "there are no tasks")
    _require(len(tasks) == len(again), f"loading twice gives {len(tasks)} and {len(again)} tasks")
    copy = pickle.loads(pickle.dumps(tasks))
    positions = sorted({i * len(tasks) // sample for i in range(sample)})
    for i in positions:
        task = tasks[i]
        _require(task == again[i], f"task {i} differs when loaded again: {task} and {again[i]}")
        _require(task == copy[i], f"task {i} differs after pickling: {task} and {copy[i]}")
        _require(task == tasks[i - len(tasks)], f"task {i} counted from the end is another one")
        _require(task == tasks.by_id(task.task_id), f"by_id({task.task_id!r}) is another task")
    ids = [tasks[i].task_id for i in positions]
    _require(len(set(ids)) == len(ids), f"ids are repeated: {ids}")
    _require(list(tasks[:2]) == [tasks[i] for i in range(len(tasks))[:2]], "a slice differs from its tasks")
    for position in (len(tasks), -len(tasks) - 1):
        _require_raises(IndexError, tasks.__getitem__, position)
    _require_raises(ValueError, tasks.by_id, "no such task")


def check_choice_balance(tasks: Sequence[Task]) -> None:
    """The right letter is uniform, and no option text is likelier to be right than another.

    Args:
        tasks: choices with equally many options, some hundreds at least.

    Raises:
        AssertionError: a count is further than `LIMIT` standard deviations from that of a fair draw.
    """
    letters = Counter(task.answer for task in tasks)
    right: Counter[str] = Counter()
    offered: Counter[str] = Counter()
    chances = {1 / len(task.options) for task in tasks}
    _require(len(chances) == 1, "tasks differ in their number of options")
    chance = chances.pop()
    for task in tasks:
        offered.update(task.options)
        right[task.options[task.letters.index(task.answer)]] += 1
    for letter in tasks[0].letters:
        _require_fair(letters[letter], len(tasks), chance, f"the answer is {letter}")
    for text, count in offered.items():
        _require_fair(right[text], count, chance, f"option {text!r} is right")


def _require_fair(hits: int, count: int, chance: float, what: str) -> None:
    spread = math.sqrt(count * chance * (1 - chance))
    off = abs(hits - count * chance)
    # One more than the spread: counts are whole, and rare texts few.
    _require(off <= LIMIT * spread + 1, f"{what} in {hits} of {count} tasks, where {chance:.2f} is fair")


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)


def _require_raises(kind: type[Exception], call: Callable[[Any], object], argument: object) -> None:
    try:
        call(argument)
    except kind:
        return
    raise AssertionError(f"{call.__name__}({argument!r}) did not raise {kind.__name__}")
