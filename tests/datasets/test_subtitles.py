"""Subtitles: how SRT files are read, which task has which, and what a policy is shown of them."""

# ruff: noqa: D103

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogym import Answer, Crop, Task, TextActions, VideoQAEnv
from videogym.datasets import TaskFileError, load_tasks, read_srt, write_tasks
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
    with pytest.warns(UserWarning, match="1 of 2 videos have no subtitles: two"):
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
