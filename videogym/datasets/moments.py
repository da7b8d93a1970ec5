"""Moment retrieval as tasks: a sentence is given, the times at which it holds are asked for.

Data sets of this kind have no answer beside their evidence, so the answer is the evidence written down.
Comparing texts says nothing about such an answer; `judge_moments` compares times.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from videogym.datasets.fields import segment
from videogym.datasets.rows import parse_json
from videogym.geometry import Segment, union_iou
from videogym.state import Task

_QUESTION = "When does this happen in the video? {query}\nAnswer with [[start, end], ...] in seconds."


def moment_task(
    task_id: str,
    video: str,
    query: str,
    evidence: Sequence[Segment],
    source: str,
    metadata: Mapping[str, Any] | None = None,
) -> Task:
    """An open task that asks when a sentence holds.

    Raises:
        ValueError: there is no evidence, which would be the answer.
    """
    if not evidence:
        raise ValueError(f"task {task_id!r}: a moment needs evidence")
    return Task(
        task_id=task_id,
        video=video,
        question=_QUESTION.format(query=query.strip()),
        kind="open",
        answer=json.dumps([[s.start_s, s.end_s] for s in evidence]),
        evidence=tuple(evidence),
        source=source,
        metadata=metadata or {},
    )


def judge_moments(task: Task, answer: str) -> float:
    """Temporal IoU of the times in an answer with the evidence, a judge for `AnswerTerm`.

    Args:
        task: with evidence.
        answer: ``[[start, end], ...]`` or ``[start, end]`` in seconds; anything else is worth 0.0.

    Returns:
        A value in ``[0, 1]``: seconds in both unions over seconds in either.

    Raises:
        ValueError: the task has no evidence.
    """
    if not task.evidence:
        raise ValueError(f"task {task.task_id!r} has no evidence to compare times with")
    given = _times(answer)
    return union_iou(given, task.evidence) if given else 0.0


def _times(answer: str) -> tuple[Segment, ...]:
    try:
        value: Any = parse_json(answer)
        pairs = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
        return tuple(segment(pair, "answer") for pair in pairs)
    except ValueError:  # what a policy writes is data
        return ()
