"""Task files of Video-R1 and Video-MTR."""

# ruff: noqa: D103

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from videogym.datasets import TaskFileError, load_tasks
from videogym.geometry import Segment
from videogym.state import Task
from videogym.testing.dataset_suite import check_tasks

# NExT-GQA val, question 7, as Video-MTR's training file would hold it.
ROW = {
    "problem_id": 7,
    "problem": "How did the man get the watch?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. give him catalogue", "B. show him a video", "C. show him the watch"],
    "solution": "<answer>C</answer>",
    "path": "./Evaluation/NExT/0063/2435100235.mp4",
    "data_source": "nextgqa",
    "relevant_windows": [[20.9, 22.7], [23.8, 26.0]],
    "relevant_sample_frames": [21, 24, 25],
    "duration": 64,
    "reward": 0.5,
}
TASK = Task(
    task_id="7",
    video="NExT/0063/2435100235.mp4",
    question="How did the man get the watch?",
    kind="choice",
    options=("give him catalogue", "show him a video", "show him the watch"),
    answer="C",
    evidence=(Segment(20.9, 22.7), Segment(23.8, 26.0)),
    source="nextgqa",
    metadata={"data_type": "video", "problem_type": "multiple choice", "duration": 64, "reward": 0.5},
)


def write(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_a_row_of_video_mtr_is_read(tmp_path: Path) -> None:
    assert list(load_tasks(write(tmp_path / "t.json", [ROW]))) == [TASK]


def test_keeps_the_contract_of_tasks(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", [ROW, ROW | {"problem_id": "x"}])
    check_tasks(lambda: load_tasks(path))


@pytest.mark.parametrize(
    ("problem_type", "solution", "kind", "answer"),
    [
        ("numerical", "<answer> 12.5 </answer>", "numeric", "12.5"),
        ("regression", "<answer>3</answer>\n", "numeric", "3"),
        ("free-form", "<answer>a red\nhat</answer>", "open", "a red\nhat"),
        ("OCR", "<answer>EXIT</answer>", "open", "EXIT"),
    ],
)
def test_other_types_need_no_options(
    problem_type: str, solution: str, kind: str, answer: str, tmp_path: Path
) -> None:
    row = ROW | {"problem_type": problem_type, "solution": solution, "options": []}
    (task,) = load_tasks(write(tmp_path / "t.json", [row]))
    assert (task.kind, task.answer, task.options) == (kind, answer, ())


@pytest.mark.parametrize(
    ("path", "video"),
    [
        ("./a/b.mp4", "a/b.mp4"),
        ("a/b.mp4", "a/b.mp4"),
        ("/data/b.mp4", "/data/b.mp4"),
        ("../b.mp4", "../b.mp4"),
    ],
)
def test_a_leading_dot_means_the_video_root(path: str, video: str, tmp_path: Path) -> None:
    (task,) = load_tasks(write(tmp_path / "t.json", [ROW | {"path": path}]))
    assert task.video == video


@pytest.mark.parametrize(
    "options", [["A) x", "B) y", "C) z"], ["A: x", "B: y", "C: z"], [" A . x", "B. y", "C.z"]]
)
def test_letters_are_cut_off_the_options(options: list[str], tmp_path: Path) -> None:
    (task,) = load_tasks(write(tmp_path / "t.json", [ROW | {"options": options}]))
    assert task.options == ("x", "y", "z")


def test_frame_indices_without_windows_are_reported(tmp_path: Path) -> None:
    bare = {k: v for k, v in ROW.items() if k != "relevant_windows"}
    path = write(tmp_path / "t.json", [ROW, bare | {"problem_id": "8"}])
    with pytest.warns(
        UserWarning, match="1 of 2 rows have relevant_sample_frames without relevant_windows"
    ):
        tasks = load_tasks(path)
    assert tasks.by_id("8").evidence is None


def test_no_annotation_at_all_is_no_evidence(tmp_path: Path) -> None:
    bare = {k: v for k, v in ROW.items() if not k.startswith("relevant") and k != "duration"}
    (task,) = load_tasks(write(tmp_path / "t.json", [bare]))
    assert task.evidence is None


@pytest.mark.parametrize(
    ("says", "change"),
    [
        ("'problem_id' must be non-empty text", {"problem_id": None}),
        ("'problem_id' must be non-empty text", {"problem_id": True}),
        ("'problem' must be non-empty text", {"problem": ""}),
        ("'data_type' must be one of video, got 'image'", {"data_type": "image"}),
        ("'problem_type' must be one of multiple choice, numerical", {"problem_type": "essay"}),
        ("got the letters 'AC'", {"options": ["A. x", "C. y"]}),
        ("got the letters '?B'", {"options": ["x", "B. y"]}),
        ("'options' must be a list of texts", {"options": None}),
        ("2 to 26 options, got 0", {"options": []}),
        ("answer must be one of A, B, C", {"solution": "<answer>D</answer>"}),
        ("answer must be one of A, B, C", {"solution": "<answer></answer>"}),
        ("'solution' must read '<answer>...</answer>'", {"solution": "C"}),
        ("'path' must be non-empty text", {"path": None}),
        ("'relevant_windows[0]': segment needs", {"relevant_windows": [[5, 4]]}),
        ("'relevant_windows' must be a non-empty list", {"relevant_windows": []}),
        (
            "evidence [23.8, 26) s lies outside its video of 20",
            {"duration": 20, "relevant_windows": [[23.8, 26]]},
        ),
        ("'duration' must be a positive number", {"duration": "short"}),
        ("'duration' must be a positive number", {"duration": 0}),
        ("'duration' must be a positive number", {"duration": 10**400}),
    ],
)
def test_a_fault_is_named_by_file_row_and_field(says: str, change: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", [ROW, ROW | {"problem_id": "8"} | change])
    with pytest.raises(TaskFileError) as caught:
        load_tasks(path)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{path}: row 2 (line 1): ")


@pytest.mark.parametrize("problem_type", ["numerical", "regression"])
@pytest.mark.parametrize("truth", ["1,200", "three", "3 m", "nan", "inf", ""])
def test_rows_whose_number_is_none_are_left_out_and_listed(
    problem_type: str, truth: str, tmp_path: Path
) -> None:
    row = ROW | {"problem_id": "8", "problem_type": problem_type, "solution": f"<answer>{truth}</answer>"}
    with pytest.warns(UserWarning, match="left out") as caught:
        tasks = load_tasks(write(tmp_path / "t.json", [ROW, row]))
    assert [task.task_id for task in tasks] == ["7"]
    assert f"'solution' must hold a finite number where the problem is one, got {truth!r}" in str(
        caught[0].message
    )


def test_ids_are_unique_as_text(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", [ROW, ROW | {"problem_id": "7"}])
    with pytest.raises(TaskFileError, match=r"row 2 \(line 1\): the id '7' is already that of row 1"):
        load_tasks(path)


@pytest.mark.parametrize(
    ("says", "content"),
    [
        ("must hold a list of objects, got dict", b"{}"),
        ("there is no task in the file", b"[]"),
        (r"row 1 \(line 1\): a row must be an object, got str", b'["x"]'),
        ("not JSON", b"[{]"),
        ("not UTF-8", b"[\xff]"),
        ("nested too deeply", b"[" * 100_000),
    ],
)
def test_a_file_that_is_no_list_of_objects_is_refused(says: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(TaskFileError, match=says):
        load_tasks(path)
