"""NExT-GQA: three files read together, and the filter that Video-MTR publishes."""

# ruff: noqa: D103

from __future__ import annotations

import csv
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogym.datasets import (
    TaskFileError,
    evidence_share,
    load_tasks,
    read_nextgqa,
    read_qvhighlights,
    video_mtr_keeps,
)
from videogym.geometry import Segment

COLUMNS = ("video_id", "question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4")
Times = dict[str, tuple[float, list[list[float]]]]


def write(folder: Path, split: str, times: Times, **beside: Any) -> Path:
    """One question a video."""
    with (folder / f"{split}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([video, "why", "c", 0, "CW", *"abcde"] for video in times)
    spans = {
        video: {"duration": duration_s, "location": {"0": windows} if windows else {}, "fps": 25}
        for video, (duration_s, windows) in times.items()
    }
    for name, content in ({f"gsub_{split}.json": spans} | beside).items():
        (folder / name).write_text(json.dumps(content))
    return folder / f"{split}.csv"


BOUNDS: Times = {
    "short": (29.9, [[0, 1]]),
    "exactly_30": (30, [[0, 14.9]]),
    "longer": (31, [[0, 1], [5, 6]]),
    "half": (40, [[0, 10], [20, 30]]),  # a share of 0.5 is too much
    "less_than_half": (40, [[0, 10], [5, 15], [20, 24.5]]),  # 19.5 s, though the windows add up to 24.5
    "unannotated": (40, []),
}


def test_the_published_filter_and_its_strict_form_differ_at_thirty_seconds(tmp_path: Path) -> None:
    path = write(tmp_path, "val", BOUNDS)
    assert [task.video for task in read_nextgqa(path)] == [f"{name}.mp4" for name in BOUNDS]
    kept = [task.video for task in read_nextgqa(path, keep=video_mtr_keeps)]
    assert kept == ["exactly_30.mp4", "longer.mp4", "less_than_half.mp4"]
    strict = read_nextgqa(path, keep=partial(video_mtr_keeps, strict=True))
    assert [task.video for task in strict] == ["longer.mp4", "less_than_half.mp4"]


def test_a_question_without_times_has_no_evidence(tmp_path: Path) -> None:
    tasks = read_nextgqa(write(tmp_path, "val", BOUNDS))
    assert tasks.by_id("unannotated_0").evidence is None
    assert tasks.by_id("longer_0").evidence == (Segment(0, 1), Segment(5, 6))


def test_a_folder_is_validation_and_test_together(tmp_path: Path) -> None:
    write(tmp_path, "test", {"2": (60, [[0, 1]])})
    write(
        tmp_path, "val", {"1": (60, [[0, 1]])}, **{"map_vid_vidorID.json": {"1": "0000/1", "2": "0101/2"}}
    )
    write(tmp_path, "train", {"3": (60, [])})
    assert [task.video for task in load_tasks(f"nextgqa:{tmp_path}")] == ["0000/1.mp4", "0101/2.mp4"]
    (task,) = read_nextgqa(tmp_path / "val.csv")
    assert task.task_id == "1_0"


def test_the_training_file_has_no_times(tmp_path: Path) -> None:
    path = write(tmp_path, "train", {"3": (60, [])})
    (tmp_path / "gsub_train.json").unlink()
    (task,) = read_nextgqa(path)
    assert task.evidence is None
    with pytest.raises(TaskFileError, match="there is no task"):
        read_nextgqa(path, keep=video_mtr_keeps)


@pytest.mark.parametrize(
    ("beside", "says"),
    [
        ({"gsub_val.json": []}, "gsub_val.json: the file must hold one object, got list"),
        ({"gsub_val.json": {"1": {"location": {}}}}, "line 2: gsub_val.json, video 1: field 'duration'"),
        ({"gsub_val.json": {"1": {"duration": 9}}}, "line 2: gsub_val.json, video 1: field 'location'"),
        (
            {"gsub_val.json": {"1": {"duration": 9, "location": {"0": [[2, 1]]}}}},
            "line 2: gsub_val.json, video 1: field '0[0]': segment needs",
        ),
        ({"map_vid_vidorID.json": {"2": "0/2"}}, "line 2: field '1' is missing"),
        ({"map_vid_vidorID.json": {"1": "../2"}}, "line 2: field '1' must be a path to a local file"),
    ],
)
def test_faults_of_the_files_beside_are_named(beside: Any, says: str, tmp_path: Path) -> None:
    path = write(tmp_path, "val", {"1": (60, [[0, 1]])}, **beside)
    with pytest.raises(TaskFileError) as caught:
        read_nextgqa(path)
    assert says in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TaskFileError, match=r"there is neither val\.csv nor test\.csv"):
        read_nextgqa(tmp_path)
    (write(tmp_path, "val", BOUNDS).with_name("gsub_val.json")).unlink()
    with pytest.raises(TaskFileError, match=r"gsub_val\.json: cannot be read"):
        read_nextgqa(tmp_path)


def test_qvhighlights_takes_the_same_filter(tmp_path: Path) -> None:
    row = {"query": "A dog.", "vid": "v", "duration": 150}
    windows = ([[0, 74.9]], [[0, 75]], [[0, 40], [35, 74]])
    path = tmp_path / "highlight_train_release.jsonl"
    path.write_text(
        "\n".join(json.dumps(row | {"qid": i, "relevant_windows": w}) for i, w in enumerate(windows))
    )
    assert [task.task_id for task in read_qvhighlights(path, keep=video_mtr_keeps)] == ["0", "2"]


seconds = st.integers(0, 59)


@given(st.lists(st.tuples(seconds, seconds).filter(lambda pair: pair[0] < pair[1]), min_size=1))
def test_the_share_counts_every_second_once(pairs: list[tuple[int, int]]) -> None:
    covered = {second for start, end in pairs for second in range(start, end)}
    assert evidence_share([Segment(*pair) for pair in pairs], 60) == pytest.approx(len(covered) / 60)


DATA = os.environ.get("VIDEOGYM_DATA", "")


@pytest.mark.skipif(not DATA, reason="set VIDEOGYM_DATA to a folder that holds nextgqa/ and qvhighlights/")
def test_the_published_counts() -> None:
    nextgqa = Path(DATA, "nextgqa")
    assert len(read_nextgqa(nextgqa)) == 8911
    assert len(read_nextgqa(nextgqa, keep=video_mtr_keeps)) == 4918
    assert len(read_nextgqa(nextgqa, keep=partial(video_mtr_keeps, strict=True))) == 4705
    train = Path(DATA, "qvhighlights", "highlight_train_release.jsonl")
    assert len(read_qvhighlights(train)) == 7218
    assert len(read_qvhighlights(train, keep=video_mtr_keeps)) == 6152


def test_spans_that_start_before_their_video_count_from_its_start(tmp_path: Path) -> None:
    """As 36 of the published test file do; such a row passes the filter by what lies in the video."""
    times: Times = {"early": (31, [[-0.1, 11.0]]), "half": (30, [[-5, 15]]), "less": (30, [[-5, 14.9]])}
    path = write(tmp_path, "test", times)
    with pytest.warns(UserWarning, match="3 spans start before their video and are read from 0"):
        tasks = read_nextgqa(path)
    assert tasks.by_id("early_0").evidence == (Segment(0, 11),)
    with pytest.warns(UserWarning, match="3 spans"):
        kept = read_nextgqa(path, keep=video_mtr_keeps)
    assert [task.task_id for task in kept] == ["early_0", "less_0"]
