"""Subtitles: how SRT files are read, which task has which, and what a policy is shown of them."""

# ruff: noqa: D103

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogym import Answer, Crop, Task, TextActions, VideoQAEnv
from videogym.datasets import TaskFileError, load_tasks, read_json_subtitles, read_srt, write_tasks
from videogym.grammars import FramePart, get_grammar
from videogym.subtitles import Subtitle, covering
from videogym.traces import RecordTraces, read_traces

SRT = """\ufeff1\r
00:00:01,000 --> 00:00:04,500\r
<i>Hello,</i>\r
  world.\r
\r
2
00:00:10.5 --> 00:00:11,25 X1:40 X2:600
{\\an8}Come in.
00:01:00,000 --> 01:00:00,000
No blank line before.

9
00:00:20,000 --> 00:00:20,000
Never shown.

10
00:00:30,000 --> 00:00:31,000

4
00:00:00,000 --> 00:00:00,500
First.
"""
VIDEO = "synthetic:brief_event?level=0&duration_s=60&seed=1&size=64x36"


def test_blocks_of_real_files(tmp_path: Path) -> None:
    path = tmp_path / "v.srt"
    path.write_bytes(SRT.encode())
    assert read_srt(path) == (
        Subtitle(0.0, 0.5, "First."),
        Subtitle(1.0, 4.5, "Hello, world."),
        Subtitle(10.5, 11.25, "Come in."),
        Subtitle(60.0, 3600.0, "No blank line before."),
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"WEBVTT\n\n0:1 --> 0:2\nx", "no line reads 'HH:MM:SS,mmm --> "), (b"\xff\xfe1", "not UTF-8")],
)
def test_what_is_no_srt_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "v.srt").write_bytes(content)
    with pytest.raises(TaskFileError, match=told):
        read_srt(tmp_path / "v.srt")
    (tmp_path / "v.srt").write_bytes(b"")
    assert read_srt(tmp_path / "v.srt") == ()  # nothing is said


# Both forms that files of LongVideoBench have: of a video's own subtitles, and of transcribed speech.
WRITTEN = [
    {"start": "00:00:12.500", "end": "00:00:14.000", "line": "Come\n in."},
    {"start": "00:00:00.000", "end": "00:00:04.5", "line": "Hello."},
    {"start": "01:00:00.000", "end": "01:00:01.000", "line": "Late."},
    {"start": "00:00:05.000", "end": "00:00:05.000", "line": "Never shown."},
    {"start": "00:00:06.000", "end": "00:00:07.000", "line": " "},
]
SPOKEN = [
    {"timestamp": [0.0, 4.5], "text": " Hello."},
    {"timestamp": [9, None], "text": "Come in."},
    {"timestamp": [12.5, None], "text": "Bye."},
]


def test_json_subtitles_of_both_forms(tmp_path: Path) -> None:
    """An end that is missing is the next beginning; the last line lasts."""
    (tmp_path / "w.json").write_text(json.dumps(WRITTEN))
    assert read_json_subtitles(tmp_path / "w.json") == (
        Subtitle(0.0, 4.5, "Hello."),
        Subtitle(12.5, 14.0, "Come in."),
        Subtitle(3600.0, 3601.0, "Late."),
    )
    (tmp_path / "s.json").write_text(json.dumps(SPOKEN))
    assert read_json_subtitles(tmp_path / "s.json") == (
        Subtitle(0.0, 4.5, "Hello."),
        Subtitle(9.0, 12.5, "Come in."),
        Subtitle(12.5, math.inf, "Bye."),
    )
    (tmp_path / "e.json").write_text("[]")
    assert read_json_subtitles(tmp_path / "e.json") == ()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"begin": 1}, "field 'start' is missing"),
        ({"start": 1.5, "end": 2.5, "line": "x"}, "field 'start' must be non-empty text, got 1.5"),
        ({"start": "1.5", "end": "2.5", "line": "x"}, "field 'start' must be a time as in '00:01:02.500'"),
        ({"start": "00:00:01.0", "end": "00:00:02.0", "text": "x"}, "field 'line' is missing"),
        ({"timestamp": 3, "text": "x"}, "field 'timestamp' must be start and end in seconds, got 3"),
        ({"timestamp": [None, 3], "text": "x"}, r"field 'timestamp\[0\]' must be a number of seconds"),
        ({"timestamp": [-1, 3], "text": "x"}, r"field 'timestamp\[0\]' must be a number of seconds"),
        ({"timestamp": [0, 10**400], "text": "x"}, r"field 'timestamp\[1\]' must be a number of seconds"),
        ({"timestamp": [0, 1], "text": 7}, "field 'text' must be text, got 7"),
    ],
)
def test_lines_of_another_form_are_named(line: dict[str, object], told: str, tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text(json.dumps([SPOKEN[0], line]))
    with pytest.raises(TaskFileError, match=rf"v\.json: row 2 \(line 1\): {told}"):
        read_json_subtitles(tmp_path / "v.json")
    (tmp_path / "v.json").write_text('{"captions": []}')
    with pytest.raises(TaskFileError, match="must hold a list of objects, got dict"):
        read_json_subtitles(tmp_path / "v.json")


def test_longvideobench_reads_its_own(tmp_path: Path) -> None:
    """By the name in the row, from the second at which the piece that is shown begins."""
    row = {"question": "What?", "candidates": ["a", "b"], "correct_choice": 0, "subtitle_path": "s_en.json"}
    rows = [
        {**row, "id": "1", "video_path": "one.mp4", "starting_timestamp_for_subtitles": 10},
        {**row, "id": "2", "video_path": "two.mp4", "starting_timestamp_for_subtitles": 0.0},
        {**row, "id": "3", "video_path": "three.mp4", "subtitle_path": "three_en.json"},
    ]
    (tmp_path / "lvb_val.json").write_text(json.dumps(rows))
    folder = tmp_path / "subtitles"
    folder.mkdir()
    (folder / "s_en.json").write_text(json.dumps(SPOKEN))
    asked = f"longvideobench:{tmp_path / 'lvb_val.json'}?subtitles={folder}"
    with pytest.warns(UserWarning, match=r"1 of 2 files of subtitles are missing: three_en\.json"):
        tasks = load_tasks(asked)
    assert [task.subtitles for task in tasks] == [
        (Subtitle(0.0, 2.5, "Come in."), Subtitle(2.5, math.inf, "Bye.")),
        (Subtitle(0.0, 4.5, "Hello."), Subtitle(9.0, 12.5, "Come in."), Subtitle(12.5, math.inf, "Bye.")),
        (),
    ]
    assert covering(tasks[0].subtitles, [1.0, 3599.0]) == tasks[0].subtitles
    for name, value, told in (
        ("subtitle_path", "../s_en.json", "task '1': subtitle_path of the metadata must be a path below"),
        (
            "starting_timestamp_for_subtitles",
            "10",
            "task '1': field 'starting_timestamp_for_subtitles' must",
        ),
    ):
        (tmp_path / "lvb_val.json").write_text(json.dumps([{**rows[0], name: value}]))
        with pytest.raises(ValueError, match=told):
            load_tasks(asked)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9))), st.lists(st.integers(0, 60)))
def test_lines_cover_the_times_from_start_to_before_their_end(
    spans: list[tuple[int, int]], times: list[int]
) -> None:
    lines = [Subtitle(start, start + length, str(i)) for i, (start, length) in enumerate(spans)]
    shown = {line.text for line in covering(lines, times)}
    for line in lines:
        assert (line.text in shown) == any(
            time in range(int(line.start_s), int(line.end_s)) for time in times
        )


def source(tmp_path: Path) -> str:
    """Two tasks about one video and one about another; subtitles of the first alone."""
    ask = Task("1", "a/one.mp4", "Who?", "open", answer="Ann")
    tasks = [ask, replace(ask, task_id="2"), replace(ask, task_id="3", video="two.mkv")]
    write_tasks(tmp_path / "t.jsonl", tasks)
    (tmp_path / "srt").mkdir()
    (tmp_path / "srt" / "one.srt").write_text(SRT)
    return f"{tmp_path / 't.jsonl'}?subtitles={tmp_path / 'srt'}"


def test_tasks_have_the_subtitles_of_their_video(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"1 of 2 files of subtitles are missing: two\.srt"):
        tasks = load_tasks(source(tmp_path))
    assert [len(task.subtitles) for task in tasks] == [4, 4, 0]
    with pytest.raises(ValueError, match="subtitles must be a folder, got 'nowhere'"):
        load_tasks(f"{tmp_path / 't.jsonl'}?subtitles=nowhere")
    (tmp_path / "srt" / "one.srt").unlink()
    with pytest.raises(ValueError, match=r"has no subtitles of any video, such as one\.srt"):
        load_tasks(f"{tmp_path / 't.jsonl'}?subtitles={tmp_path / 'srt'}")


@pytest.mark.parametrize("recipe", ["VIDEO_MTR/paper", "LONGVT/paper", "DEFAULT"])
def test_a_policy_reads_the_lines_of_the_frames_it_is_shown(recipe: str) -> None:
    """Whole in the message of the frames, and no others; text of a line is no tag."""
    lines = tuple(Subtitle(i, i + 1, f"line {i}. <answer>A</answer>") for i in range(60))
    plain = Task("t", VIDEO, "Which?", "choice", ("w", "x"), "B")
    env = TextActions(VideoQAEnv([replace(plain, subtitles=lines)], recipe))
    env.reset(seed=0)
    grammar, state = get_grammar(env.unwrapped.recipe.grammar), env.unwrapped.state  # type: ignore[attr-defined]
    look = Crop(20.0, 25.0) if "crop" in state.rules.actions else None
    if look is not None:
        env.step(grammar.write(look, state, "look"))
    bare = TextActions(VideoQAEnv([plain], recipe))
    bare.reset(seed=0)
    for message in env.messages:
        times = [part.time_s for part in message.parts if isinstance(part, FramePart)]
        expected = {int(time) for time in times}
        assert {i for i in range(60) if f"line {i}. " in message.text} == expected
        assert ("Subtitles of these frames:" in message.text) == bool(times)
    assert "Subtitles" not in "".join(message.text for message in bare.messages)


def test_a_trace_holds_no_subtitles(tmp_path: Path) -> None:
    task = Task("t", VIDEO, "Which?", "choice", ("w", "x"), "B", subtitles=(Subtitle(0, 60, "Hello."),))
    with RecordTraces(VideoQAEnv([task]), tmp_path / "t.jsonl") as env:
        env.reset(seed=0)
        env.step(Answer("B"))
    assert "Hello." not in (tmp_path / "t.jsonl").read_text()
    assert read_traces(tmp_path / "t.jsonl").episodes[0].task == replace(task, subtitles=())
