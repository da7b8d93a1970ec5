"""Hits of stored episodes are those of `videogym.evaluate`: all evidence, in its region if it has one."""

# ruff: noqa: D103

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agents.models.visuals import WHOLE_FRAME, Visual
from agents.vlm.estimates import estimates
from agents.vlm.evaluation import hits
from agents.vlm.records import Record, TurnRecord
from videogym import Region, Segment, Task


def episode(*shown: tuple[float, tuple[float, float, float, float]]) -> Record:
    """One that was shown a frame at each time, the first one by the skim."""
    turns = [TurnRecord((), (Visual("v", (time_s,), box, (56, 56)),)) for time_s, box in shown]
    return Record("", "", "t", "g", 0, "rollout", (), None, tuple(turns))


def task(*evidence: tuple[float, float], region: Region | None = None) -> Task:
    segments = tuple(Segment(*some) for some in evidence) or None
    return Task("t", "v", "Q?", "open", answer="a", evidence=segments, evidence_region=region)


@pytest.mark.parametrize(
    ("asked", "shown", "expected"),
    [
        (task((5, 6)), [(1.0, WHOLE_FRAME), (5.5, WHOLE_FRAME)], {"hit_rate": 1.0}),
        (task((5, 6)), [(5.5, WHOLE_FRAME)], {"hit_rate": 1.0}),  # by the skim
        (task((5, 6)), [(1.0, WHOLE_FRAME), (6.0, WHOLE_FRAME)], {"hit_rate": 0.0}),  # half-open
        (task((5, 6), (8, 9)), [(5.5, WHOLE_FRAME), (1.0, WHOLE_FRAME)], {"hit_rate": 0.0}),
        (task((5, 6), (8, 9)), [(5.5, WHOLE_FRAME), (8.0, WHOLE_FRAME)], {"hit_rate": 1.0}),
        (task((5, 6), region=Region(0, 0, 0.2, 0.2)), [(5.5, WHOLE_FRAME)], {"hit_rate": 0.0}),
        (task((5, 6), region=Region(0, 0, 0.2, 0.2)), [(5.5, (0.0, 0.0, 0.2, 0.2))], {"hit_rate": 1.0}),
        (task(), [(5.5, WHOLE_FRAME)], {}),  # not annotated is no miss
    ],
)
def test_by_hand(asked: Task, shown: list[Any], expected: dict[str, float]) -> None:
    assert hits([episode(*shown)], [asked]) == expected


@pytest.mark.parametrize("reason", ["context", "judge: it abstained from the answer", "fault: gone"])
def test_a_run_and_an_evaluation_count_the_same_episodes(reason: str) -> None:
    """One of two was cut, which counts in no other figure: it missed, and the rate is that of the other."""
    turn = TurnRecord((), (), (1,), (0.0,), (1,), terms={})
    whole, cut = episode((5.5, WHOLE_FRAME)), replace(episode((1.0, WHOLE_FRAME)), abort_reason=reason)
    records = [replace(one, turns=(*one.turns, turn)) for one in (whole, cut)]
    tasks = [task((5, 6))] * 2
    assert hits(records, tasks) == {"hit_rate": 1.0}
    assert estimates(records, tasks)["hit_rate"].mean == 1.0
