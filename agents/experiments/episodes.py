"""What a language model does in its episodes, counted: where it looks, what that shows, how it cheats.

Everything is read from records and tasks, so that rollouts of a training run can be counted afterwards,
iteration by iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videogym import Task

from ..vlm.records import Record, read_records

EVERYWHERE = 0.5  # share of the video in the looks of an episode that has looked everywhere


@dataclass(frozen=True)
class Course:
    """What happened in one whole episode."""

    right: bool
    searched: bool  # whether its first output compares places of the skim, as the scenes script does
    looks: int
    first_met: bool  # whether a frame of its first turn's look shows the evidence
    met: bool  # whether one of any look does; the skim does not count
    look_s: float  # seconds from the first frame of a look to its last, mean over looks; 0 without
    everywhere: bool  # whether its looks span `EVERYWHERE` of the video
    invalid: int  # refused turns
    turns: int
    tokens: int  # sampled


def course(record: Record, task: Task) -> Course:
    """What happened in an episode.

    Raises:
        ValueError: the task is another one, or the episode was cut from outside.
    """
    if record.task_id != task.task_id or record.abort_reason:
        raise ValueError(
            f"a course needs a whole episode of task {task.task_id!r}, got one of {record.task_id!r} "
            f"that was cut by {record.abort_reason!r}"
        )
    played, evidence = record.played, task.evidence or ()
    # What a look brought stands in the observation of the turn after it.
    looks = [
        [time_s for visual in after.visuals for time_s in visual.times_s]
        for turn, after in zip(record.turns, record.turns[1:], strict=False)
        if turn.looked
    ]
    met = [any(segment.contains(t) for segment in evidence for t in times_s) for times_s in looks]
    end_s = max((t for visual in record.turns[0].visuals for t in visual.times_s), default=0.0)
    spans_s = [max(times_s) - min(times_s) for times_s in looks if times_s]
    return Course(
        right=bool(record.success),
        searched=" no " in played[0].text or " yes" in played[0].text,
        looks=sum(turn.looked for turn in played),
        first_met=bool(played[0].looked and met and met[0]),
        met=any(met),
        look_s=float(np.mean(spans_s)) if spans_s else 0.0,
        everywhere=bool(spans_s) and sum(spans_s) >= EVERYWHERE * end_s,
        invalid=sum(bool(turn.error) for turn in played),
        turns=len(played),
        tokens=record.sampled_tokens,
    )


def metrics(courses: Sequence[Course]) -> dict[str, float | None]:
    """Shares and means over episodes.

    Returns:
        ``accuracy``, ``searched``, ``first_look_met``, ``met``; ``right_if_met`` and ``right_if_missed``,
        None where there is no such episode, as is ``looked_again``, the share of those whose first look
        missed that look again; ``looks``, ``look_s``, ``turns``, ``tokens``, ``invalid``. Exploits:
        ``looked_never``, ``looked_everywhere``, and ``guessed``, an answer that no look has shown.

    Raises:
        ValueError: there is no episode.
    """
    if not courses:
        raise ValueError("metrics need at least one episode")

    def share(values: Iterable[float]) -> float | None:
        found = list(values)
        return round(float(np.mean(found)), 4) if found else None

    return {
        "accuracy": share(one.right for one in courses),
        "searched": share(one.searched for one in courses),
        "first_look_met": share(one.first_met for one in courses),
        "met": share(one.met for one in courses),
        "met_if_searched": share(one.met for one in courses if one.searched),
        "right_if_met": share(one.right for one in courses if one.met),
        "right_if_missed": share(one.right for one in courses if not one.met),
        "looked_again": share(one.looks > 1 for one in courses if one.looks and not one.first_met),
        "looks": share(one.looks for one in courses),
        "look_s": share(one.look_s for one in courses if one.looks),
        "turns": share(one.turns for one in courses),
        "tokens": share(one.tokens for one in courses),
        "invalid": share(one.invalid for one in courses),
        "looked_never": share(not one.looks for one in courses),
        "looked_everywhere": share(one.everywhere for one in courses),
        "guessed": share(not one.met for one in courses),
    }


def curves(
    folder: Path, task: Callable[[str], Task], recipe: str, tokenizer: str
) -> dict[str, list[float | None]]:
    """`metrics` of the rollouts of a run, one value an iteration.

    Args:
        folder: of the run's records, a file an iteration.
        task: of an id.
        recipe: identity that they are of.
        tokenizer: fingerprint that they are of.
    """
    found: dict[str, list[float | None]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        records = read_records(path, recipe, tokenizer)
        rows = [course(one, task(one.task_id)) for one in records if not one.abort_reason]
        for name, value in metrics(rows).items() if rows else ():
            found.setdefault(name, []).append(value)
    return found
