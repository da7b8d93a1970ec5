"""What is counted of episodes: where they looked, what that showed, and how they cheated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_chat import record

from agents.experiments.episodes import Course, course, curves, metrics
from agents.models.visuals import WHOLE_FRAME, Visual
from agents.vlm.records import Record, TurnRecord, write_records
from videogym import Segment, Task

TASK = Task(
    task_id="a",
    video="v",
    question="?",
    kind="choice",
    options=("red", "blue"),
    answer="A",
    evidence=(Segment(50.0, 53.0),),
)
SKIM = tuple(float(t) for t in range(0, 100, 10))  # 50.0 is in the evidence: the skim does not count


def seen(times_s: tuple[float, ...]) -> tuple[Visual, ...]:
    """A frame at each time."""
    return tuple(Visual("v", (time_s,), WHOLE_FRAME, (28, 28)) for time_s in times_s)


def episode(
    *looks: tuple[float, ...] | None, first: str = "green", right: bool = True, **changes: object
) -> Record:
    """Looks, None being a refused one, and an answer; outputs of three tokens each."""
    shown, turns = seen(SKIM), []
    for times_s in looks:
        turns.append(
            TurnRecord(
                (1,),
                shown,
                output=(1, 2, 3),
                text=f"<think>{first}</think>",
                looked=times_s is not None,
                error="" if times_s is not None else "crop_range",
            )
        )
        shown = seen(times_s or ())
    turns.append(TurnRecord((1,), shown, output=(1, 2, 3), text=f"<think>{first}</think>"))
    whole = record(*turns, success=right, ending="answered")
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_a_look_is_judged_by_the_frames_that_it_brought() -> None:
    """Evidence is [50, 53): 50 is in it and 53 is not; a refused look brings nothing."""
    hit = course(episode((48.0, 50.0, 53.0)), TASK)
    assert (hit.first_met, hit.met, hit.looks, hit.turns, hit.tokens) == (True, True, 1, 2, 6)
    assert not course(episode((48.0, 53.0)), TASK).met
    again = course(episode((0.0, 5.0), (51.0,)), TASK)
    assert (again.first_met, again.met, again.looks) == (False, True, 2)
    refused = course(episode(None, (51.0,)), TASK)
    assert (refused.first_met, refused.met, refused.looks, refused.invalid) == (False, True, 1, 1)
    never = course(episode(), TASK)
    assert (never.first_met, never.met, never.looks, never.everywhere) == (False, False, 0, False)


def test_looks_everywhere_span_half_of_the_video_together() -> None:
    """The skim ends at 90: 45 seconds are half."""
    assert course(episode((0.0, 45.0)), TASK).everywhere
    assert not course(episode((0.0, 44.0)), TASK).everywhere
    assert course(episode((0.0, 20.0), (60.0, 85.0)), TASK).everywhere


def test_a_search_compares_places() -> None:
    """Naming the colour alone is none."""
    assert course(episode((1.0,), first="green brown no 0 green green yes"), TASK).searched
    assert course(episode((1.0,), first="green green yes"), TASK).searched
    assert not course(episode((1.0,), first="green"), TASK).searched


def test_metrics_are_shares_of_episodes() -> None:
    """Four episodes by hand: met and right, met and wrong, missed and right, never looked and wrong."""
    rows = [
        course(episode((51.0,), first="green green yes"), TASK),
        course(episode((51.0,), right=False), TASK),
        course(episode((1.0,)), TASK),
        course(episode(right=False), TASK),
    ]
    found = metrics(rows)
    assert found["accuracy"] == 0.5 and found["met"] == 0.5 and found["first_look_met"] == 0.5
    assert found["right_if_met"] == 0.5 and found["right_if_missed"] == 0.5
    assert found["looked_never"] == 0.25 and found["guessed"] == 0.5 and found["looked_everywhere"] == 0
    assert found["searched"] == 0.25 and found["met_if_searched"] == 1.0
    assert (
        found["looked_again"] == 0.0 and found["look_s"] == 0.0
    )  # one look missed, and none has two frames
    assert found["looks"] == 0.75 and found["turns"] == 1.75 and found["tokens"] == 5.25
    assert metrics(rows[:2])["right_if_missed"] is None


def test_what_cannot_be_counted_is_refused() -> None:
    """No episode, one that was cut, and one of another task."""
    with pytest.raises(ValueError, match="at least one"):
        metrics([])
    with pytest.raises(ValueError, match=r"task 'a'.*'b'"):
        course(episode(task_id="b"), TASK)
    with pytest.raises(ValueError, match="cut by 'context'"):
        course(episode(abort_reason="context"), TASK)


def test_curves_have_a_point_for_every_file_of_rollouts(tmp_path: Path) -> None:
    """In the order of iterations; an episode that was cut counts in none."""
    right, wrong = episode((51.0,)), episode(right=False)
    cut = episode(abort_reason="context")
    write_records(tmp_path / "000000.jsonl", [right, wrong, cut])
    write_records(tmp_path / "000001.jsonl", [right, right, right, wrong])
    found = curves(tmp_path, {"a": TASK}.__getitem__, "six@0", "abc")
    assert found["accuracy"] == [0.5, 0.75] and found["looked_never"] == [0.5, 0.25]


def test_a_course_is_of_one_episode() -> None:
    """All its fields are plain numbers, so that it can be stored."""
    row = course(episode((51.0,)), TASK)
    assert isinstance(row, Course) and {type(value) for value in vars(row).values()} <= {bool, int, float}


def test_looking_again_counts_where_the_first_look_missed() -> None:
    """Of three that missed one looks again; looks of 20 and of 10 seconds are 15 long."""
    missed = [course(episode((0.0, 5.0)), TASK)] * 2
    again, hit = course(episode((0.0, 20.0), (48.0, 58.0)), TASK), course(episode((51.0,), (0.0,)), TASK)
    found = metrics([*missed, again, hit])
    assert found["looked_again"] == round(1 / 3, 4) and again.look_s == 15.0
