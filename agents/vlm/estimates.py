"""Means of played episodes with intervals: over all, by a field of the tasks, and of what they took."""

from __future__ import annotations

from collections.abc import Sequence

from videogym import Task
from videogym.cost import Spread, quantities, spreads
from videogym.grouping import Group, Groups, in_order, split
from videogym.intervals import Estimate, clustered_mean, clustered_proportion, proportion

from .evaluation import hits, rollout_metrics
from .records import Record

_SHARES = ("accuracy", "hit_rate")


def estimates(records: Sequence[Record], tasks: Sequence[Task]) -> dict[str, Estimate]:
    """The means of `rollout_metrics` and `hits`, with 95 % intervals clustered by video.

    Args:
        records: one of every task, in order.
        tasks: as many.

    Returns:
        As there: an episode that was cut counts in ``cut_rate``, whose context was full in ``accuracy`` as
        not right, and in nothing else, hits included.
    """
    kept = [record for record in records if not record.abort_reason]
    found = {"cut_rate": proportion(len(records) - len(kept), len(records))}
    rows = [
        (rollout_metrics([record]) | hits([record], [task]), task.video)
        for record, task in zip(records, tasks, strict=True)
    ]
    for name in dict.fromkeys(name for row, _ in rows for name in row if name != "cut_rate"):
        present = [(row[name], video) for row, video in rows if name in row]  # a term can be absent
        values, videos = zip(*present, strict=True)
        if name in _SHARES:
            found[name] = clustered_proportion([value > 0.5 for value in values], videos)
        else:
            found[name] = clustered_mean(values, videos)
    if kept:  # a share of turns, whose number differs from episode to episode
        turns = [turn for record in kept for turn in record.played]
        found["invalid_rate"] = proportion(sum(bool(turn.error) for turn in turns), len(turns))
    return found


def grouped(
    records: Sequence[Record], tasks: Sequence[Task], unplayable: Sequence[Task], name: str
) -> Groups:
    """`estimates` by a field of the tasks' metadata; what could not be played is counted in its group."""
    pairs = list(zip(records, tasks, strict=True))
    members = split(((task.metadata, (record, task)) for record, task in pairs), name)
    lost = split(((task.metadata, task) for task in unplayable), name)
    made = []
    for value in dict.fromkeys([*members, *lost]):
        played, asked = zip(*members.get(value, []), strict=True) if value in members else ((), ())
        found = estimates(played, asked) if played else {}
        names = ("accuracy", "hit_rate", "reward", "turns")
        accuracy, hit_rate, reward, turns = (found.get(metric) for metric in names)
        made.append(
            Group(
                value=value,
                episodes=len(played),
                videos=len({task.video for task in asked}),
                accuracy=accuracy,
                hit_rate=hit_rate,
                tiou=None,
                reward=reward,
                turns=turns,
                frames=_frames(played, asked),
                left_out=len(lost.get(value, [])),
            )
        )
    return in_order(name, made)


def _frames(records: Sequence[Record], tasks: Sequence[Task]) -> Estimate | None:
    """Mean number of frames that whole episodes were shown."""
    pairs = zip(records, tasks, strict=True)
    shown = [(one.frames_shown, task.video) for one, task in pairs if not one.abort_reason]
    return clustered_mean(*zip(*shown, strict=True)) if shown else None


def costs(records: Sequence[Record]) -> dict[str, Spread]:
    """What answers took, by name, see `videogym.cost.quantities`; of whole episodes."""
    whole = [record for record in records if not record.abort_reason]
    return spreads(quantities(one.cost, one.frames_shown, len(one.played)) for one in whole)
