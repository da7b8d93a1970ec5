"""Tasks that are made when they are asked for, each from its id alone: what all sources of them share."""

from __future__ import annotations

import re
from abc import abstractmethod
from random import Random
from typing import Any

from videogym.datasets.questions import Question
from videogym.datasets.tasks import Tasks
from videogym.state import Task

MOST_MADE = 10**18  # the number in an id has up to 18 digits, and a length is a machine's own number


class MadeTasks(Tasks):
    """Tasks with ids of a name and a number, ``NAME-000000`` and so on; at most `MOST_MADE`."""

    num_tasks: int

    @property
    @abstractmethod
    def name(self) -> str:
        """What all ids begin with."""

    def __len__(self) -> int:
        return self.num_tasks

    def by_id(self, task_id: str) -> Task:
        """The task of that id.

        Raises:
            ValueError: there is none.
        """
        number = task_id.rpartition("-")[2] if isinstance(task_id, str) else ""
        if re.fullmatch(r"[0-9]{6,18}", number):
            position = int(number)
            if position < self.num_tasks and task_id == self._task_id(position):
                return self._task(position)
        raise ValueError(
            f"no task {task_id!r:.80}; ids are {self._task_id(0)} to {self._task_id(self.num_tasks - 1)}"
        )

    def _task_id(self, position: int) -> str:
        return f"{self.name}-{position:06d}"


def task_of_question(question: Question, *, shuffled_by: str, **others: Any) -> Task:
    """The task of a question, its options in an order that depends on a text alone.

    Args:
        question: what is asked.
        shuffled_by: the text; so the letter depends on nothing that is asked or shown.
        others: further fields of the task.
    """
    options = sorted({question.right, *question.wrong}) if question.kind == "choice" else []
    Random(f"options {shuffled_by}").shuffle(options)
    return Task(
        question=question.text,
        kind=question.kind,
        options=tuple(options),
        answer="ABCD"[options.index(question.right)] if options else question.right,
        evidence=question.evidence,
        evidence_region=question.region,
        **others,
    )
