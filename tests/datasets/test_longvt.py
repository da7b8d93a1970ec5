"""LongVT's rows in the shapes that its files, and files made with its scripts, have."""

# ruff: noqa: D103

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from videogym.datasets import TaskFileError, judge_moments, load_tasks, moment_task, read_longvt_traces
from videogym.geometry import Segment
from videogym.state import Task

RL = {
    "data_source": "longvt",
    "videos": [{"video": "file:///mnt/a.mp4"}],
    "reward_model": {"ground_truth": "Ann", "style": "model"},
    "extra_info": {"question": "Who?", "index": 0},
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_objects_may_be_stored_as_json(tmp_path: Path) -> None:
    packed = {name: json.dumps(value) for name, value in RL.items() if name != "data_source"}
    plain, stored = load_tasks(f"longvt-rl:{write(tmp_path / 'rl.jsonl', RL, RL | packed)}")
    assert stored == Task(**{**vars(plain), "task_id": "rl-2"})


def test_a_segment_may_be_absent(tmp_path: Path) -> None:
    (task,) = load_tasks(f"longvt-rl:{write(tmp_path / 'rl.jsonl', RL)}")
    assert task.evidence is None


def test_two_numbers_as_ground_truth_ask_for_a_moment(tmp_path: Path) -> None:
    row = RL | {"data_source": "TimeR1", "reward_model": {"ground_truth": [3, 4.5], "style": "rule"}}
    (task,) = load_tasks(f"longvt-rl:{write(tmp_path / 'rl.jsonl', row)}")
    assert task.evidence == (Segment(3, 4.5),)
    assert (task.answer, task.source) == ("[[3.0, 4.5]]", "TimeR1")
    assert "Who?" in task.question


def sft(user: Any, *said: str) -> dict[str, Any]:
    assistant = [{"role": "assistant", "content": [{"type": "text", "text": text}]} for text in said]
    return {"messages": [{"role": "user", "content": user}, *assistant]}


VIDEO = {"type": "video_url", "video_url": {"url": "longvt_source/a.mp4"}}


@pytest.mark.parametrize(
    "prompt",
    [
        "Who <b>sings</b>?",
        "Who <b>sings</b>? Think first, call **crop_video** if needed, then answer. Format strictly as: x",
        "Who <b>sings</b>? You FIRST think about the reasoning process as an internal monologue\nand then",
        "Who <b>sings</b>?\n The Video path for this video is: /mnt/a.mp4",
        "Who <b>sings</b>?\nVideo 0 has video path: a.mp4",
    ],
)
def test_the_question_is_what_comes_before_the_instruction(prompt: str, tmp_path: Path) -> None:
    row = sft([VIDEO, {"type": "text", "text": prompt}], "<answer>Ann</answer>")
    (task,) = load_tasks(f"longvt-sft:{write(tmp_path / 'sft.jsonl', row)}")
    assert task.question == "Who <b>sings</b>?"


def test_traces_keep_what_the_assistant_said(tmp_path: Path) -> None:
    said = (
        "<think>x</think><tool_call>{}</tool_call>",
        "<think><answer>no</answer></think><answer>Ann</answer>",
    )
    (trace,) = read_longvt_traces(
        write(tmp_path / "sft.jsonl", sft([VIDEO, {"type": "text", "text": "Who?"}], *said))
    )
    assert trace.outputs == said
    assert trace.task.answer == "Ann"


def test_rows_about_images_are_left_out_and_counted(tmp_path: Path) -> None:
    image = sft([{"type": "image_url", "image_url": {"url": "a.png"}}], "<answer>Ann</answer>")
    text = sft("What is 1 + 1?", "<answer>2</answer>")
    video = sft([VIDEO, {"type": "text", "text": "Who?"}], "<answer>Ann</answer>")
    path = write(tmp_path / "sft.jsonl", image, video, text)
    with pytest.warns(UserWarning, match="2 of 3 rows show no video and are left out"):
        (task,) = load_tasks(f"longvt-sft:{path}")
    assert task.task_id == "sft-2"
    with pytest.raises(TaskFileError, match="no row shows a video"):
        load_tasks(f"longvt-sft:{write(path, image)}")


# --- moments -----------------------------------------------------------------------------------

MOMENT = moment_task("m", "v.mp4", "A dog.", (Segment(10, 20), Segment(30, 40)), "x")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (MOMENT.answer, 1.0),
        ("[[10, 20], [30, 40]]", 1.0),
        ("[[30, 40], [10, 15], [12, 20]]", 1.0),  # the union counts
        ("[10, 20]", 0.5),
        ("[15, 35]", 10 / 30),  # 5 + 5 s in common of 10..40
        (" [[0, 10]] ", 0.0),
        ("[[20, 30]]", 0.0),
        ("[]", 0.0),
        ("[[]]", 0.0),
        ("10 to 20", 0.0),
        ("[20, 10]", 0.0),
        ("[[10, 20], null]", 0.0),
        ("[NaN, 20]", 0.0),
        ("[0, Infinity]", 0.0),
        ("[true, 20]", 0.0),
        ("__import__('os')", 0.0),
        ("[" * 100_000, 0.0),
        ("", 0.0),
    ],
)
def test_times_are_judged_by_their_overlap(answer: str, verdict: float) -> None:
    assert judge_moments(MOMENT, answer) == pytest.approx(verdict)


def test_a_moment_needs_evidence() -> None:
    with pytest.raises(ValueError, match="task 'm': a moment needs evidence"):
        moment_task("m", "v.mp4", "A dog.", (), "x")
    with pytest.raises(ValueError, match="task 't' has no evidence"):
        judge_moments(Task(task_id="t", video="v", question="Q?", kind="open", answer="a"), "[1, 2]")
