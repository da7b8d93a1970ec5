"""Which questions are kept: every one of them right, and every planted fault dropped by its own reason."""

# ruff: noqa: D103

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_endpoint import (
    ADDRESSES,
    FIRST,
    HORSE,
    LATE,
    TIMED,
    WRONG,
    command,
    facts,
    rows,
    scripted_model,
)

from videogym.cli import main
from videogym.data import FilterOptions, SceneOptions, WorkFolder, find_scenes, kept_tasks
from videogym.data.filtering import SOURCE, read_question
from videogym.data.work import Dropped, Item, run_step
from videogym.geometry import Segment, segment_iou
from videogym.state import Task
from videogym.testing.coded_clips import write_clip
from videogym.video import DecodeTimeout, TruncatedVideo

GROUP = {
    "video": "b/a film.mp4",
    "fingerprint": "f",
    "duration_s": 100.0,
    "start_s": 10.0,
    "end_s": 70.0,
}
SOUND = {"question": "Who?", "answer": "Ann", "start_s": 20.0, "end_s": 30.0}


def test_every_kept_question_is_right_and_its_span_is_that_of_the_event(worked: Path) -> None:
    true = {(name, fact.question): fact for name in ADDRESSES for fact in facts(name)}
    with WorkFolder(worked) as work:
        tasks = kept_tasks(work)
    assert len(tasks) == 11 and len({task.task_id for task in tasks}) == 11
    for task in tasks:
        fact = true[task.video, task.question]
        (evidence,) = task.evidence or ()
        assert fact.event.colour in task.answer
        assert segment_iou(evidence, Segment(*fact.span_s)) >= 0.9
        assert (task.kind, task.source, task.metadata["skim_suffices"]) == ("open", SOURCE, False)


def test_every_planted_fault_is_dropped_with_its_reason(worked: Path) -> None:
    lines = {row["place"]: row for row in rows(worked, "filter")}
    first = facts("film-1.mp4")[0]
    wall = first.scene.colour
    faults = {
        WRONG.format(wall): "unverified",
        LATE.format(wall): "span",
        HORSE: "text_only",
        first.question.upper(): "duplicate",
        TIMED.format(wall): "timestamp",
        FIRST: "skim",
        "no question at all": "malformed",
    }
    dropped = {row["reason"]: row["code"] for row in lines.values() if "code" in row}
    for told, code in faults.items():
        assert [found for reason, found in dropped.items() if told in reason] == [code], told
    assert sorted(dropped.values()) == sorted([*faults.values(), "malformed"])
    assert len(lines) == len(dropped) + 11


def test_who_is_dropped_before_is_asked_about_by_nobody(worked: Path) -> None:
    """Of 19 questions 5 are dropped unasked, which leaves 8 texts, and 14 questions of videos.

    One of these is answered blind, and is not put to the model that sees the skim; one by the skim.
    """
    asked = [row["step"] for row in rows(worked, "replies")]
    counts = {step: asked.count(f"filter: {step}") for step in ("blind", "skim", "verify")}
    assert counts == {"blind": 8, "skim": 13, "verify": 12}


@pytest.mark.parametrize(("skim", "kept"), [("mark", 12), ("keep", 12)])
def test_what_the_skim_answers_is_marked_or_kept_if_asked_to(
    footage: Path, worked: Path, tmp_path: Path, skim: str, kept: int
) -> None:
    work = tmp_path / "work"
    shutil.copytree(worked, work)
    with scripted_model() as model:
        verified = model.verified
        model.verified = lambda request: {**verified(request), "score": 0.9}  # type: ignore[method-assign]
        assert (
            main([*command("filter", work, footage, model.url), "--skim", skim, "--threshold", "0.1"]) == 0
        )
    with WorkFolder(work) as again:
        tasks = {task.question: task for task in kept_tasks(again)}
        assert len(kept_tasks(again)) == kept + 1  # a threshold of 0.1 keeps the wrong one
        told = {q: task.metadata.get("skim_suffices") for q, task in tasks.items()}
        assert told[FIRST] is (True if skim == "mark" else None)
        assert not again.current("traces"), "they are of other lines of the filter"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"answer": ""}, "malformed"),
        ({"question": 3}, "malformed"),
        ({"start_s": "20"}, "malformed"),
        ({"start_s": True}, "malformed"),
        ({"end_s": float("nan")}, "malformed"),
        ({"end_s": 10**400}, "malformed"),
        ({"start_s": None}, "malformed"),
        ({"question": "Who is \ud83d?"}, "malformed"),
        ({"answer": "\ud83d"}, "malformed"),
        ({"options": ["Ann", "\ud83d"]}, "malformed"),
        ({"options": "red"}, "malformed"),
        ({"options": ["Bob", "Eve"]}, "malformed"),
        ({"options": ["Ann"]}, "malformed"),
        ({"options": ["Ann", "ann"]}, "malformed"),
        ({"end_s": 20.0}, "span"),
        ({"end_s": 19.0}, "span"),
        ({"start_s": 9.0}, "span"),
        ({"end_s": 71.0}, "span"),
        ({"start_s": 9.96, "end_s": 9.99}, "span"),
        ({"start_s": 15.0, "end_s": 66.0}, "span"),
        ({"question": "Who is there at 1:05?"}, "timestamp"),
        ({"question": "Who comes after 12.5 seconds?"}, "timestamp"),
    ],
)
def test_a_question_that_cannot_be_used_is_dropped(changes: dict[str, Any], code: str) -> None:
    found = read_question(GROUP, "b/a film.mp4#0#0", {**SOUND, **changes}, 0.5)
    assert isinstance(found, Dropped) and found.code == code
    assert "\n" not in found.reason


def test_a_sound_question_becomes_a_task_and_a_choice_the_letter_of_its_option() -> None:
    task = read_question(GROUP, "p", SOUND, 0.5)
    assert isinstance(task, Task) and task.evidence == (Segment(20.0, 30.0),)
    assert (task.video, task.answer, task.metadata) == ("b/a film.mp4", "Ann", {"video_fingerprint": "f"})
    assert task.task_id.startswith("a film-")
    choice = read_question(GROUP, "p", {**SOUND, "options": ["Bob", "Ann", "Eve"]}, 0.5)
    assert isinstance(choice, Task) and (choice.kind, choice.answer) == ("choice", "B")
    rounded = read_question(GROUP, "p", {**SOUND, "start_s": 9.97, "end_s": 70.04}, 0.7)
    assert isinstance(rounded, Task) and rounded.evidence == (Segment(10.0, 70.0),)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists) | st.dictionaries(
    st.sampled_from(["question", "answer", "start_s", "end_s", "options"]),
    st.none() | st.floats() | st.integers() | st.text() | st.lists(st.text()),
))  # fmt: skip
def test_whatever_a_reply_holds_is_a_task_or_dropped(entry: Any) -> None:
    assert isinstance(read_question(GROUP, "p", entry, 0.5), Task | Dropped)


@pytest.mark.parametrize(
    "options", [{"threshold": 1.1}, {"skim": "hide"}, {"recipe": "MINE"}, {"max_share": 0.0}]
)
def test_options_of_the_filter_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        FilterOptions(**options)


def test_a_video_that_breaks_off_drops_what_needs_its_end_and_nothing_else(tmp_path: Path) -> None:
    """What a reader raises in the third scene, and in the fourth, where another attempt may succeed."""
    made = tmp_path / "videos"
    made.mkdir()
    write_clip(made / "a.mp4", 320, rate=8)
    with WorkFolder(tmp_path / "work") as work:
        find_scenes(work, ["a.mp4"], made, SceneOptions(cuts="none", max_scene_s=10.0))
        (scenes,) = work.kept("scenes")

        def make(number: int) -> dict[str, int]:
            if number == 2:
                raise TruncatedVideo("the file ends before this frame")
            if number == 3:
                raise DecodeTimeout("too slow")
            return {"number": number}

        items = [Item(f"a.mp4#{i}", (scenes["key"],), {"v": 1}, i) for i in range(4)]
        summary = run_step(work, "captions", items, make, jobs=2)
        assert [row["number"] for row in work.kept("captions")] == [0, 1]
        assert summary.dropped == {"unreadable": 1} and summary.left == ["a.mp4#3: too slow"]
        again = run_step(work, "captions", items, lambda number: {"number": number})
        assert (again.made, again.kept, again.left) == (1, 3, [])
