"""Traces are played in the environment; wrong looks are mended, and notes to the teacher leak nowhere."""

# ruff: noqa: D103

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_endpoint import TEACHERS, ScriptedModel, command, facts, rows, scripted_model

from videogym import VideoQAEnv
from videogym.cli import main
from videogym.data import TraceOptions, WorkFolder, kept_traces
from videogym.data.playing import leak_in, read_call, wide_window
from videogym.data.work import Dropped
from videogym.geometry import Segment, segment_iou
from videogym.recipes import get_recipe
from videogym.state import Task
from videogym.tool_episode import ToolEpisode
from videogym.traces.replay import state_of

RECIPE = get_recipe("LONGVT/paper-64")


def test_a_trace_counts_if_its_answer_is_right_and_its_last_look_is_near(worked: Path) -> None:
    with WorkFolder(worked) as work:
        traces = kept_traces(work)
    assert len(traces) == 5
    for trace in traces:
        fact = next(fact for fact in facts(trace.task.video) if fact.question == trace.task.question)
        assert trace.correct is True and trace.answer == fact.event.colour
        assert (trace.recipe, trace.ending, trace.cut) == (RECIPE.identity, "answered", "")
        assert segment_iou(trace.looks[-1], Segment(*fact.span_s)) >= 0.3


def test_a_wrong_look_stays_and_the_next_one_mends_it(worked: Path) -> None:
    with WorkFolder(worked) as work:
        traces = kept_traces(work)
    for trace in traces:
        first, second = trace.looks
        (evidence,) = trace.task.evidence or ()
        assert segment_iou(first, evidence) == 0.0 < segment_iou(second, evidence)
    assert all(row["mended"] for row in rows(worked, "traces") if "trace" in row)


def test_what_goes_wrong_drops_the_trace_with_its_reason(worked: Path) -> None:
    lines = {row["place"]: row for row in rows(worked, "traces")}
    told = [(row["code"], row["reason"]) for row in lines.values() if "code" in row]
    assert len(lines) == 11
    assert sorted(code for code, _ in told) == sorted(
        "leak" if fault == "spoken" else fault for fault in TEACHERS.values()
    )


def test_a_trace_shows_the_frames_that_training_shows(worked: Path, footage: Path) -> None:
    """Its outputs, read by a fresh environment, bring the same times and payments, turn by turn."""
    with WorkFolder(worked) as work:
        trace = kept_traces(work)[0]
    with VideoQAEnv([trace.task], RECIPE, video_root=str(footage)) as env:
        env.reset(seed=0)
        assert env.state.skim == trace.skim and len(trace.skim.times_s) == 64
        for paid in trace.turns:
            _, reward, *_ = env.step(RECIPE.language.parse(paid.turn.text or "", env.state))
            assert (env.state.turns[-1], reward) == (paid.turn, pytest.approx(paid.reward))
        assert env.state == state_of(trace, RECIPE)


def test_nothing_that_the_note_told_is_in_any_file_but_the_replies(worked: Path) -> None:
    """The note is in requests to the teacher; its numbers and words are in no trace, kept or not."""
    notes = set()
    for row in rows(worked, "replies"):
        for message in row["request"]["messages"]:
            for part in message["content"] if isinstance(message["content"], list) else []:
                found = re.match(
                    r"A note to you alone.* between (\S+) s and (\S+) s\.", part.get("text", "")
                )
                notes |= set(found.groups()) if found else set()
    assert len(notes) >= 10
    with WorkFolder(worked) as work:
        said = " ".join(turn.turn.text or "" for trace in kept_traces(work) for turn in trace.turns)
    assert not any(number in said for number in notes) and "note" not in said.lower()


def test_without_notes_a_teacher_is_told_nothing(footage: Path, worked: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(worked, work)
    with scripted_model() as model:
        # What asserts that it was told fails; so each wrong look is the last before the answer.
        model.taught = lambda request: taught_once(model, request)  # type: ignore[method-assign]
        assert main([*command("traces", work, footage, model.url), "--no-hint"]) == 0
        asked = [str(request["messages"]) for request in model.requests]
    codes = [row["code"] for row in rows(work, "traces")[11:]]
    assert codes.count("iou") == 8 and len(codes) == 11
    assert not any("A note to you alone" in text for text in asked)


def taught_once(model: ScriptedModel, request: Mapping[str, Any]) -> str:
    """As the scripted teacher, which answers after one look, wherever that was."""
    looked = any(message["role"] == "assistant" for message in request["messages"])
    if looked:
        return model.answered(facts("film-1.mp4")[0], "red")
    return ScriptedModel.taught(model, request)


@given(st.floats(0.0, 500.0), st.floats(0.1, 60.0), st.text(min_size=1))
def test_a_window_holds_the_evidence_and_is_much_wider(start_s: float, length_s: float, name: str) -> None:
    evidence = Segment(start_s, start_s + length_s)
    task = Task(
        name.encode("utf-8", "replace").decode(), "v", "?", "open", answer="a", evidence=(evidence,)
    )
    told = wide_window(task, 600.0)
    assert told.start_s <= start_s and evidence.end_s <= told.end_s <= 600.0
    assert told == wide_window(task, 600.0)
    assert told.start_s == 0.0 or start_s - told.start_s >= length_s - 0.01
    assert told.end_s == 600.0 or told.end_s - evidence.end_s >= length_s - 0.01


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ("It must be at 117.03 s.", True),
        ("It must be at 117 s.", True),
        ("After 1:57 something red is there.", True),
        ('<tool_call>{"start_time": 117.03}</tool_call>', True),
        ("As I was told, it is here.", True),
        ("The hint says so.", True),
        ("It must be at 118 s.", False),
        ("Two of 64 frames show a wall.", False),
        ("The singer hits a high note.", False),
        ('{"video_path": "take117.mp4"}', False),
        ("take3.117 is on.", False),
        ("The third take.117 s are enough.", True),
    ],
)
def test_what_repeats_a_note_is_a_leak(text: str, leaks: bool) -> None:
    assert (leak_in(["A red wall.", text], [117.03, 151.2]) is not None) == leaks


@pytest.mark.parametrize(
    "found",
    [{}, {"thought": "a", "tool": "b"}, {"thought": "", "tool": "b", "arguments": {}},
     {"thought": "a", "tool": 3, "arguments": {}}, {"thought": "a", "tool": "b", "arguments": []},
     {"thought": "\ud83d", "tool": "b", "arguments": {}},
     {"thought": "a", "tool": "b", "arguments": {"c": ["\ud83d"]}}],
)  # fmt: skip
def test_a_reply_that_is_no_thought_and_call_is_malformed(found: dict[str, object]) -> None:
    call = read_call(found)
    assert isinstance(call, Dropped) and call.code == "malformed"


@pytest.mark.parametrize("recipe", ["LONGVT/paper", "DEFAULT", "VIDEO_MTR/paper"])
def test_a_thought_stands_before_its_call_and_may_hold_no_tags(recipe: str) -> None:
    video = "synthetic:brief_event?level=0&duration_s=60&seed=1"
    task = Task("t", video, "Who?", "open", answer="Ann", evidence=(Segment(1.0, 2.0),))
    if recipe == "VIDEO_MTR/paper":
        with pytest.raises(ValueError, match="no tools"):
            ToolEpisode(VideoQAEnv([task], recipe), "video_mtr/strict")
        return
    episode = ToolEpisode(VideoQAEnv([task], recipe))
    episode.begin(task_id="t")
    for thought in ("</think>", "<tool_call>", "<answer>a</answer></think>"):
        try:
            episode.call("answer", {"text": "Ann"}, thought)
        except ValueError as error:
            assert "leave tags out of the thought" in str(error)
            assert not episode.state.turns
        else:
            break  # such a grammar reads no tag in a thought
    episode.begin(task_id="t")
    episode.call("answer", {"text": "Ann"}, "I know her.")
    text = episode.state.turns[-1].text or ""
    assert text.startswith("<think>I know her.</think>") and episode.state.answer == "Ann"


def test_options_of_traces_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValueError, match="min_iou"):
        TraceOptions(min_iou=1.5)
    with pytest.raises(ValueError, match="unknown recipe"):
        TraceOptions(recipe="MINE")
    assert replace(TraceOptions(), hint=False).hint is False
