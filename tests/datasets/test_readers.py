"""Readers of published data sets: what each field becomes, and that every fault is named with its place.

The rows are made up, in the shape in which each data set is published.
"""

# ruff: noqa: D103

from __future__ import annotations

import csv
import datetime
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from videogym.data.prompts import step_prompt
from videogym.datasets import READERS, TaskFileError, load_tasks
from videogym.datasets.fields import text_of
from videogym.geometry import Segment
from videogym.grammars import load_prompt
from videogym.metadata import Metadata
from videogym.state import Task
from videogym.testing.dataset_suite import check_tasks

Rows = list[dict[str, Any]]


def write_json(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows, indent=1))
    return path


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def write_csv(path: Path, rows: Rows) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_lvbench(path: Path, rows: Rows) -> Path:
    """A line a video: here each video has one question."""
    lines = [
        {"key": row["key"], "type": "tv", "qa": [{k: v for k, v in row.items() if k != "key"}]}
        for row in rows
    ]
    return write_jsonl(path, lines)


def write_choices(path: Path, rows: Rows) -> Path:
    made = {"suitable": True, "question": HTML, "options": MCQ, "answer": "C"}
    write_jsonl(path.with_suffix(".questions.jsonl"), [{"qid": qid, **made} for qid in (8737, 2)])
    return write_jsonl(path, rows)


def write_nextgqa(path: Path, rows: Rows) -> Path:
    write_json(
        path.with_name("gsub_val.json"),
        {
            "2435100235": {
                "duration": 64,
                "location": {"7": [[20.9, 22.7], [58.5, 63.6]], "8": [[40.0, 42]]},
                "fps": 29.97,
            }
        },
    )
    write_json(path.with_name("map_vid_vidorID.json"), {"2435100235": "0063/2435100235"})
    return write_csv(path, rows)


@dataclass(frozen=True)
class Sample:
    """Two rows in the shape of a data set and what becomes of the first."""

    file: str
    write: Callable[[Path, Rows], Path]
    rows: tuple[dict[str, Any], dict[str, Any]]
    task: Task
    second: str  # place of the second row


MCQ = ["A. red", "B. blue", "C. green", "D. a\nB. c"]
OPTIONS = ("red", "blue", "green", "a\nB. c")
HTML = "<b>Who</b> &amp; <script>alert(1)</script> ü 問?"

SAMPLES = {
    "cg-bench": Sample(
        "cgbench_mini.json",
        write_json,
        (
            {
                "qid": 3,
                "video_uid": "u v ü",
                "question": HTML,
                "answer": "blue",
                "choices": ["red", "blue", "green"],
                "right_answer": "B",
                "clue_intervals": [[10, 12], [3000, 3010.5]],
                "duration": 3600.2,
                "domain": "Life",
                "sub_category": "x",
            },
            {
                "qid": 4,
                "video_uid": "w",
                "question": "Who?",
                "choices": ["Ann", "Bo"],
                "right_answer": "A",
                "clue_intervals": [[0, 1]],
            },
        ),
        Task(
            task_id="3",
            video="u v ü.mp4",
            question=HTML,
            kind="choice",
            options=("red", "blue", "green"),
            answer="B",
            evidence=(Segment(10, 12), Segment(3000, 3010.5)),
            source="cg-bench",
            metadata={"duration": 3600.2, "domain": "Life", "sub_category": "x"},
        ),
        "row 2 (line 27)",  # as the file is written here, a value a line
    ),
    "charades-sta": Sample(
        "charades_sta_test.parquet",
        write_parquet,
        (
            {"video": "3MSZA.mp4", "caption": "person turn a light on.", "timestamp": [24.3, 30.4]},
            {
                "video": "3MSZA.mp4",
                "caption": "person flips a switch.",
                "timestamp": [24.3, 30.4],
            },
        ),
        Task(
            task_id="charades_sta_test-1",
            video="3MSZA.mp4",
            question="When does this happen in the video? person turn a light on.\n"
            "Answer with [[start, end], ...] in seconds.",
            kind="open",
            answer="[[24.3, 30.4]]",
            evidence=(Segment(24.3, 30.4),),
            source="charades-sta",
        ),
        "row 2",
    ),
    "egoschema": Sample(
        "Subset.parquet",
        write_parquet,
        (
            {
                "question_idx": "0",
                "question": "What is C doing?",
                "video_idx": "0074f737-11cb",
                "option": ["A. eats", "B. cooks", "C. sews", "D. sings", "E. C. reads"],
                "answer": "4",
            },
            {
                "question_idx": "1",
                "question": "Why?",
                "video_idx": "00b9a0de-c59e",
                "option": ["A. a", "B. b", "C. c", "D. d", "E. e"],
                "answer": "0",
            },
        ),
        Task(
            task_id="0074f737-11cb",
            video="0074f737-11cb.mp4",
            question="What is C doing?",
            kind="choice",
            options=("eats", "cooks", "sews", "sings", "C. reads"),
            answer="E",
            source="egoschema",
            metadata={"question_idx": "0"},
        ),
        "row 2",
    ),
    "longvideobench": Sample(
        "lvb_val.json",
        write_json,
        (
            {
                "video_id": "86CxyhFV9MI",
                "question": "In the shot, what is there?",
                "candidates": ["A chair", "A lamp", "7"],
                "correct_choice": 2,
                "position": [854],
                "id": "86CxyhFV9MI_0",
                "video_path": "86CxyhFV9MI.mp4",
                "subtitle_path": "86CxyhFV9MI_en.json",
                "duration_group": 600,
                "starting_timestamp_for_subtitles": 0,
                "duration": 190.16,
            },
            {
                "id": "@user-1_0",
                "video_path": "@user-1.mp4",
                "question": "What?",
                "candidates": ["a", "b"],
                "correct_choice": 0,
            },
        ),
        Task(
            task_id="86CxyhFV9MI_0",
            video="86CxyhFV9MI.mp4",
            question="In the shot, what is there?",
            kind="choice",
            options=("A chair", "A lamp", "7"),
            answer="C",
            source="longvideobench",
            metadata={
                "video_id": "86CxyhFV9MI",
                "position": [854],
                "subtitle_path": "86CxyhFV9MI_en.json",
                "duration_group": 600,
                "starting_timestamp_for_subtitles": 0,
                "duration": 190.16,
            },
        ),
        "row 2 (line 21)",
    ),
    "longvt-rl": Sample(
        "longvt_rl_train_1k6.parquet",
        write_parquet,
        (
            {
                "data_source": "longvt",
                "prompt": [{"role": "user", "content": "<video>What is poured? The Video path ..."}],
                "videos": [{"video": "file:///mnt/longvt_source/self qa/a.mp4", "fps": 1}],
                "reward_model": {"ground_truth": "Olive oil.", "style": "model"},
                "extra_info": {
                    "question": "What is poured?",
                    "answer": "Olive oil.",
                    "video_segment": [101.5, 120.0],
                    "index": 12,
                    "split": "train",
                },
            },
            {
                "data_source": "longvt-val",
                "prompt": [{"role": "user", "content": "<video>Who?"}],
                "videos": [{"video": "longvt_source/b.mp4", "fps": 1}],
                "reward_model": {"ground_truth": "Ann", "style": "model"},
                "extra_info": {
                    "question": "Who?",
                    "answer": "Ann",
                    "video_segment": None,
                    "index": 12,
                    "split": "test",
                },
            },
        ),
        Task(
            task_id="longvt_rl_train_1k6-1",
            video="/mnt/longvt_source/self qa/a.mp4",
            question="What is poured?",
            kind="open",
            answer="Olive oil.",
            evidence=(Segment(101.5, 120.0),),
            source="longvt",
            metadata={"index": 12, "split": "train"},
        ),
        "row 2",
    ),
    "longvt-sft": Sample(
        "longvt_rft_selftrace_15k3.parquet",
        write_parquet,
        tuple(  # type: ignore[arg-type]
            {
                "messages": [
                    {"role": "system", "content": [{"type": "text", "text": "You may call tools."}]},
                    {
                        "role": "user",
                        "content": [
                            {"type": "video_url", "video_url": {"url": f"longvt_source/tvg_{i}/x.mp4"}},
                            {
                                "type": "text",
                                "text": f"{question} Think first, call **crop_video** if needed, then "
                                "answer. Format ...\n The Video path for this video is: x.mp4",
                            },
                        ],
                    },
                    {
                        "role": "assistant",
                        "content": [{"type": "text", "text": "<think>a</think><tool_call>{}</tool_call>"}],
                    },
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "<tool_response>"},
                            {"type": "image_url", "image_url": {"url": "frame.png"}},
                        ],
                    },
                    {
                        "role": "assistant",
                        "content": [{"type": "text", "text": "<think>b</think><answer> Ann </answer>"}],
                    },
                ]
            }
            for i, question in enumerate(["Who sings?", "Who dances?"])
        ),
        Task(
            task_id="longvt_rft_selftrace_15k3-1",
            video="longvt_source/tvg_0/x.mp4",
            question="Who sings?",
            kind="open",
            answer="Ann",
            source="longvt-sft",
        ),
        "row 2",
    ),
    "lvbench": Sample(
        "video_info.meta.jsonl",
        write_lvbench,
        (
            {
                "key": "Cm73ma6Ibcs",
                "uid": "0",
                "question": "What year?\n(A) 1636\n(B) 1366\n(C) 1363 (B)\n(D) 1633",
                "answer": "D",
                "question_type": ["key information retrieval"],
                "time_reference": "00:15-01:02:19",
            },
            {
                "key": "Cm73ma6Ibcs",
                "uid": "1",
                "question": "Who?\n(A) Ann\n(B) Bo",
                "answer": "A",
                "question_type": ["reasoning"],
                "time_reference": "1:05-01:05",
            },
        ),
        Task(
            task_id="0",
            video="Cm73ma6Ibcs.mp4",
            question="What year?",
            kind="choice",
            options=("1636", "1366", "1363 (B)", "1633"),
            answer="D",
            evidence=(Segment(15, 3739),),
            source="lvbench",
            metadata={"type": "tv", "question_type": ["key information retrieval"]},
        ),
        "line 2, question 1",
    ),
    "mlvu": Sample(
        "4_count.json",
        write_json,
        (
            {
                "video": "count_1.mp4",
                "duration": 480.0,
                "question": "How often?",
                "candidates": ["2", 4, "8", "1"],
                "answer": 4,
                "question_type": "count",
            },
            {"video": "c.mp4", "question": "How often?", "candidates": ["1", "2"], "answer": "2"},
        ),
        Task(
            task_id="4_count-1",
            video="4_count/count_1.mp4",
            question="How often?",
            kind="choice",
            options=("2", "4", "8", "1"),
            answer="B",
            source="mlvu",
            metadata={"duration": 480.0, "question_type": "count"},
        ),
        "row 2 (line 15)",
    ),
    "nextgqa": Sample(
        "val.csv",
        write_nextgqa,
        (
            {
                "video_id": "2435100235",
                "frame_count": 1906,
                "width": 640,
                "height": 480,
                "question": "how does the man cycling try to sell the watch",
                "answer": "show him the watch",
                "qid": 7,
                "type": "CH",
                "a0": "give him catalogue",
                "a1": "show him a video",
                "a2": "show him the watch",
                "a3": "dismount, his bicycle",
                "a4": "give him the watch strap",
            },
            {
                "video_id": "2435100235",
                "frame_count": 1906,
                "width": 640,
                "height": 480,
                "question": "why",
                "answer": "e",
                "qid": 8,
                "type": "CW",
                "a0": "a",
                "a1": "b",
                "a2": "c",
                "a3": "d",
                "a4": "e",
            },
        ),
        Task(
            task_id="2435100235_7",
            video="0063/2435100235.mp4",
            question="how does the man cycling try to sell the watch",
            kind="choice",
            options=(
                "give him catalogue",
                "show him a video",
                "show him the watch",
                "dismount, his bicycle",
                "give him the watch strap",
            ),
            answer="C",
            evidence=(Segment(20.9, 22.7), Segment(58.5, 63.6)),
            source="nextgqa",
            metadata={
                "frame_count": "1906",
                "width": "640",
                "height": "480",
                "type": "CH",
                "duration": 64.0,
            },
        ),
        "line 3",
    ),
    "qvhighlights": Sample(
        "highlight_val_release.jsonl",
        write_jsonl,
        (
            {
                "qid": 8737,
                "query": "A family is playing basketball.",
                "duration": 126,
                "vid": "bP5KfdFJzC4_660.0_810.0",
                "relevant_windows": [[0, 16], [20, 24]],
                "relevant_clip_ids": [0, 1],
                "saliency_scores": [[4, 1, 1], [4, 1, 1]],
            },
            {
                "qid": 2,
                "query": "A dog.",
                "duration": 150,
                "vid": "x_0.0_150.0",
                "relevant_windows": [[2, 8]],
            },
        ),
        Task(
            task_id="8737",
            video="bP5KfdFJzC4_660.0_810.0.mp4",
            question="When does this happen in the video? A family is playing basketball.\n"
            "Answer with [[start, end], ...] in seconds.",
            kind="open",
            answer="[[0.0, 16.0], [20.0, 24.0]]",
            evidence=(Segment(0, 16), Segment(20, 24)),
            source="qvhighlights",
            metadata={"duration": 126},
        ),
        "line 2",
    ),
    "qvhighlights-choices": Sample(
        "highlight_train_release.jsonl",
        write_choices,
        (
            {
                "qid": 8737,
                "query": "A family is playing basketball.",
                "duration": 126,
                "vid": "bP5KfdFJzC4_660.0_810.0",
                "relevant_windows": [[0, 16], [20, 24]],
                "saliency_scores": [[4, 1, 1], [4, 1, 1]],
            },
            {
                "qid": 2,
                "query": "A dog.",
                "duration": 150,
                "vid": "x_0.0_150.0",
                "relevant_windows": [[2, 8]],
            },
        ),
        Task(
            task_id="8737",
            video="bP5KfdFJzC4_660.0_810.0.mp4",
            question=HTML,
            kind="choice",
            options=OPTIONS,
            answer="C",
            evidence=(Segment(0, 16), Segment(20, 24)),
            source="qvhighlights",
            metadata={"duration": 126, "query": "A family is playing basketball."},
        ),
        "line 2",
    ),
    "video-mme": Sample(
        "test-00000-of-00001.parquet",
        write_parquet,
        (
            {
                "video_id": "001",
                "duration": "short",
                "videoID": "fFjv93ACGo8",
                "question_id": "001-1",
                "question": HTML,
                "options": MCQ,
                "answer": "C",
            },
            {
                "video_id": "001",
                "duration": "long",
                "videoID": "fFjv93ACGo8",
                "question_id": "001-2",
                "question": "Why?",
                "options": MCQ,
                "answer": "A",
            },
        ),
        Task(
            task_id="001-1",
            video="fFjv93ACGo8.mp4",
            question=HTML,
            kind="choice",
            options=OPTIONS,
            answer="C",
            source="video-mme",
            metadata={"video_id": "001", "duration": "short"},
        ),
        "row 2",
    ),
    "video-mmmu": Sample(
        "test-00000-of-00001.parquet",
        write_parquet,
        (
            {
                "id": "validation_Art_Theory_8",
                "question": "Which?",
                "options": MCQ,
                "answer": "B",
                "question_type": "multiple-choice",
            },
            {
                "id": "validation_Math_1",
                "question": "How much?",
                "options": [],
                "answer": "3.5",
                "question_type": "open",
            },
        ),
        Task(
            task_id="validation_Art_Theory_8",
            video="validation_Art_Theory_8.mp4",
            question="Which?",
            kind="choice",
            options=OPTIONS,
            answer="B",
            source="video-mmmu",
            metadata={
                "question_type": "multiple-choice",
                "subject": "Art_Theory",
                "discipline": "Art and Design",
            },
        ),
        "row 2",
    ),
    "videosiah-eval": Sample(
        "test-00000-of-00001.parquet",
        write_parquet,
        (
            {"video_path": "videos/a b.mp4", "question": "What is poured?", "answer": "Olive oil, twice."},
            {"video_path": "videos/a b.mp4", "question": "Who?", "answer": "Ann"},
        ),
        Task(
            task_id="test-00000-of-00001-1",
            video="videos/a b.mp4",
            question="What is poured?",
            kind="open",
            answer="Olive oil, twice.",
            source="videosiah-eval",
        ),
        "row 2",
    ),
}


def write(name: str, folder: Path, *changes: dict[str, Any]) -> Path:
    """The file of a sample, its second row changed."""
    sample = SAMPLES[name]
    first, second = sample.rows
    for change in changes:
        second = {key: value for key, value in (second | change).items() if value is not MISSING}
    return sample.write(folder / sample.file, [first, second])


MISSING = object()


def test_every_reader_has_a_sample() -> None:
    assert set(SAMPLES) == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_the_fields_of_a_row_become_those_of_a_task(name: str, tmp_path: Path) -> None:
    tasks = load_tasks(f"{name}:{write(name, tmp_path)}")
    assert len(tasks) == 2
    assert tasks[0] == SAMPLES[name].task


@pytest.mark.parametrize("name", READERS)
def test_every_reader_keeps_the_contract_of_tasks(name: str, tmp_path: Path) -> None:
    path = write(name, tmp_path)
    check_tasks(lambda: load_tasks(f"{name}:{path}"))


PLAIN = {"topic": "sport", "level": 3, "share": 0.5, "hard": True, "tags": ["a", "b"], "numbers": [1, 2]}


@pytest.mark.parametrize("name", READERS)
def test_whatever_else_a_row_tells_is_metadata(name: str, tmp_path: Path) -> None:
    """Texts, numbers, truth values and lists of such, in any format; the rest stops nothing."""
    if name == "nextgqa":  # a table of texts
        told: dict[str, Any] = {"topic": "sport", "level": "3"}
        path = write_csv(tmp_path / "val.csv", [row | told for row in SAMPLES[name].rows])
        write_nextgqa(tmp_path / "test.csv", list(SAMPLES[name].rows))  # for what stands beside
        files = [path]
    else:
        told = PLAIN
        rest = {
            "long": "x" * 1001,
            "none": None,
            "nan": float("nan"),
            "inside": {"x": 1},
            "most": [0] * 101,
        }
        rows = [row | told | rest for row in SAMPLES[name].rows]
        SAMPLES[name].write(tmp_path / SAMPLES[name].file, list(SAMPLES[name].rows))  # and what is beside
        files = [write_json((tmp_path / SAMPLES[name].file).with_suffix(".json"), rows)]
        if name != "mlvu":  # whose candidates are of several types, which no table holds
            blobs = [row | {"blob": b"x", "day": datetime.date(2026, 1, 1)} for row in rows]
            files += [write_parquet((tmp_path / SAMPLES[name].file).with_suffix(".parquet"), blobs)]
    for file in files:
        kept = load_tasks(f"{name}:{file}")[0].metadata
        assert {field: kept.get(field) for field in told} == Metadata(told), file
        assert not {"long", "none", "nan", "inside", "most", "blob", "day"} & set(kept), file


@pytest.mark.parametrize("name", READERS)
def test_nothing_is_told_twice(name: str, tmp_path: Path) -> None:
    """What a field of the task is made of is not metadata too, least of all the truth."""
    task = load_tasks(f"{name}:{write(name, tmp_path)}")[0]
    told = json.dumps(Metadata(task.metadata).to_json())
    for text in (task.question, *task.options, task.answer if task.kind == "open" else "?"):
        assert json.dumps(text) not in told
    assert "answer" not in told


def test_of_a_lecture_subject_discipline_and_track_are_known(tmp_path: Path) -> None:
    row = SAMPLES["video-mmmu"].rows[0]
    for name in ("Perception", "other"):
        (tmp_path / name).mkdir()
        ids = ("dev_Energy_and_Power_3", "new_Juggling_1", "17")
        path = write_json(tmp_path / name / "test.json", [row | {"id": task_id} for task_id in ids])
        known = [
            {"subject": "Energy_and_Power", "discipline": "Tech and Engineering"},
            {"subject": "Juggling"},
            {},
        ]
        track = {"track": "perception"} if name == "Perception" else {}
        for task, told in zip(load_tasks(f"video-mmmu:{path}"), known, strict=True):
            assert task.metadata == {"question_type": "multiple-choice", **told, **track}


def test_what_is_known_of_a_video_is_told_of_its_questions(tmp_path: Path) -> None:
    questions = [
        {"uid": "0", "question": "Who?\n(A) Ann\n(B) Bo", "answer": "A", "question_type": ["a", "b"]}
    ]
    line = {"key": "k", "type": "tv", "video_info": {"duration_minutes": 33.5, "fps": 30}, "qa": questions}
    (task,) = load_tasks(f"lvbench:{write_jsonl(tmp_path / 'v.jsonl', [line])}")
    assert task.metadata == {
        "type": "tv", "duration_minutes": 33.5, "fps": 30, "question_type": ("a", "b")
    }  # fmt: skip


def message(asked: Any, said: str) -> dict[str, Any]:
    answer = {"role": "assistant", "content": [{"type": "text", "text": said}]}
    return {"messages": [{"role": "user", "content": asked}, answer]}


ASKED = [{"type": "video_url", "video_url": {"url": "a.mp4"}}, {"type": "text", "text": "Who?"}]

FAULTS = [
    ("cg-bench", {"qid": MISSING}, "field 'qid' is missing; there are 'video_uid', "),
    (
        "cg-bench",
        {"choices": MISSING, "options": ["a", "b"]},
        "field 'choices' is missing; there are 'qid', ",
    ),
    ("cg-bench", {"qid": 3}, "the id '3' is already that of row 1 (line 2)"),
    ("cg-bench", {"video_uid": None}, "field 'video_uid' must be non-empty text, got None"),
    ("cg-bench", {"choices": "['a', 'b']"}, "field 'choices' must be a list or an object, or JSON of one"),
    ("cg-bench", {"choices": ["a"]}, "2 to 26 options, got 1"),
    ("cg-bench", {"right_answer": "C"}, "answer must be one of A, B"),
    ("cg-bench", {"clue_intervals": [[5, 4]]}, "field 'clue_intervals[0]': segment needs"),
    ("cg-bench", {"clue_intervals": []}, "field 'clue_intervals' must be a non-empty list"),
    ("cg-bench", {"duration": 0.5, "clue_intervals": [[0.6, 1]]}, "lies outside its video of 0.5 s"),
    ("charades-sta", {"timestamp": [1.0, 2.0, 3.0]}, "field 'timestamp' must be [start_s, end_s]"),
    ("charades-sta", {"timestamp": [3.0, -2.0]}, "field 'timestamp': segment needs 0 <= start_s < end_s"),
    ("charades-sta", {"caption": " "}, "field 'caption' must be non-empty text"),
    ("egoschema", {"answer": "5"}, "field 'answer' must be a whole number from 0 to 4, got 5"),
    ("egoschema", {"answer": "A"}, "field 'answer' must be a whole number from 0 to 4, got 'A'"),
    ("egoschema", {"option": None}, "field 'option 0' is missing"),
    ("longvideobench", {"correct_choice": 2}, "field 'correct_choice' must be a whole number from 0 to 1"),
    ("longvideobench", {"correct_choice": True}, "field 'correct_choice' must be a whole number"),
    (
        "longvideobench",
        {"correct_choice": MISSING},
        "'correct_choice' must be a whole number from 0 to 1, got",
    ),
    ("longvideobench", {"candidates": MISSING}, "'candidates' is missing, and so are option0 to option4"),
    ("longvideobench", {"video_path": "../b.mp4"}, "field 'video_path' must be a path to a local file"),
    ("longvt-rl", {"videos": []}, "field 'videos' must name a video, got []"),
    ("longvt-rl", {"extra_info": None}, "field 'extra_info' must be an object, got None"),
    (
        "longvt-rl",
        {"reward_model": {"style": "rule"}},
        "field 'ground_truth' must be non-empty text, got None",
    ),
    (
        "longvt-sft",
        message(asked=ASKED, said="Ann"),
        "must end in an assistant message with <answer>...</answer>",
    ),
    (
        "longvt-sft",
        message(asked=ASKED, said="<answer> </answer>"),
        "field '<answer>' must be non-empty text",
    ),
    (
        "longvt-sft",
        message(
            asked=[ASKED[0], {"type": "text", "text": "Think first, call **crop_video** now"}], said=""
        ),
        "must end in",
    ),
    ("longvt-sft", {"messages": []}, "field 'messages' must hold a message of the user"),
    ("lvbench", {"question": "Who?\n(A) Ann\n(C) Bo"}, "got the letters 'AC'"),
    ("lvbench", {"question": "Who?"}, "got the letters ''"),
    ("lvbench", {"key": None}, "field 'key' must be non-empty text, got None"),
    ("mlvu", {"video": "https://x.org/a.mp4"}, "field 'video' must be a path to a local file"),
    ("mlvu", {"video": "synthetic:brief_event"}, "field 'video' must be a path to a local file"),
    ("nextgqa", {"video_id": "1"}, "gsub_val.json, video 1: field '1' is missing"),
    ("nextgqa", {"question": ""}, "field 'question' must be non-empty text, got ''"),
    ("qvhighlights", {"relevant_windows": MISSING}, "field 'relevant_windows' is missing"),
    ("qvhighlights", {"relevant_windows": [[0, 152]]}, "evidence [0, 152) s lies outside its video of 150"),
    ("qvhighlights", {"duration": MISSING, "length": 150}, "field 'duration' is missing; there are "),
    ("qvhighlights", {"duration": MISSING, "length": 150}, ", 'length'"),
    ("qvhighlights", {"duration": "long"}, "field 'duration' must be a positive number of seconds"),
    ("qvhighlights-choices", {"relevant_windows": [[0, 152]]}, "lies outside its video of 150"),
    ("qvhighlights-choices", {"duration": None}, "field 'duration' must be a positive number of seconds"),
    ("video-mme", {"options": ["A. a", "B. b"], "answer": "a"}, "answer must be one of A, B"),
    ("video-mme", {"videoID": "a\x00b"}, "field 'videoID' must be a path to a local file"),
    ("video-mme", {"videoID": "a/"}, "field 'videoID' must name a file, got 'a/'"),
    ("video-mmmu", {"id": "validation_Art_Theory_8"}, "is already that of row 1"),
    ("videosiah-eval", {"answer": None}, "field 'answer' must be non-empty text, got None"),
]


@pytest.mark.parametrize(("name", "change", "says"), FAULTS)
def test_a_fault_is_named_by_file_place_and_field(
    name: str, change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = write(name, tmp_path, change)
    with pytest.raises(TaskFileError) as caught:
        load_tasks(f"{name}:{path}")
    assert str(caught.value).startswith(f"{path}: {SAMPLES[name].second}: ")
    assert says in str(caught.value)


def test_of_many_fields_twenty_are_named_beside_a_missing_one() -> None:
    with pytest.raises(ValueError, match=r"^field 'x' is missing; there are '0', .*, '19' and 3 more$"):
        text_of({str(number): "" for number in range(23)}, "x")
    with pytest.raises(ValueError, match=r"^field 'x' is missing; there are none$"):
        text_of({}, "x")


LEFT_OUT = [
    ("mlvu", {"answer": "3"}, "field 'answer' must be the text of one of the options, got '3'"),
    (
        "mlvu",
        {"candidates": ["1", ""], "answer": "1"},
        "field 'candidates' holds an empty text, got ['1', '']",
    ),
    (
        "mlvu",
        {"candidates": [" ", "2"], "answer": "2"},
        "field 'candidates' holds an empty text, got [' ', '2']",
    ),
    ("mlvu", {"candidates": [], "question_type": "ego"}, "field 'candidates' is empty"),
    ("nextgqa", {"answer": "4"}, "field 'answer' must be the text of one of the options, got '4'"),
    (
        "charades-sta",
        {"timestamp": [3.0, 3.0]},
        "field 'timestamp' does not end after it begins, got [3, 3]",
    ),
]


@pytest.mark.parametrize(("name", "change", "why"), LEFT_OUT)
def test_a_published_row_that_cannot_be_a_task_is_listed_and_not_the_end(
    name: str, change: dict[str, Any], why: str, tmp_path: Path
) -> None:
    path, place = write(name, tmp_path, change), SAMPLES[name].second.partition(" (")[0]
    with pytest.warns(UserWarning, match=f"1 of 2 rows cannot be tasks and are left out: {place}.*: field"):
        tasks = READERS[name](str(path))
    assert list(tasks) == [SAMPLES[name].task]
    assert [(one.path, one.why) for one in tasks.left_out] == [(path, why)]


def test_rows_of_a_mirror_that_cannot_be_tasks_are_listed_too(tmp_path: Path) -> None:
    asked = "Who?\n(A) Ann\n(B) {}"
    rows = [
        {"video_name": "a.mp4", "question": asked.format(text), "answer": answer, "question_type": "ego"}
        for text, answer in [("Bo", "B"), ("", "A"), ("Bo", "C")] * 6
    ]
    path = write_json(tmp_path / "mirror.json", rows)
    with pytest.warns(UserWarning, match=r"12 of 18 rows .*; and 2 more, see TaskList\.left_out"):
        tasks = READERS["mlvu"](str(path))
    assert [task.answer for task in tasks] == ["B"] * 6 and len(tasks.left_out) == 12


def test_candidates_are_missing_where_a_question_is_open(tmp_path: Path) -> None:
    row = {"video": "a.mp4", "question": "What?", "candidates": [], "answer": "Ann sings."}
    rows = [row | {"question_type": kind} for kind in ("subPlot", "summary")]
    assert [task.kind for task in load_tasks(f"mlvu:{write_json(tmp_path / '8.json', rows)}")] == [
        "open"
    ] * 2


def test_a_file_of_nothing_but_such_rows_is_refused(tmp_path: Path) -> None:
    row = SAMPLES["mlvu"].rows[1] | {"answer": "none of them"}
    path = write_json(tmp_path / "4_count.json", [row])
    with pytest.warns(UserWarning, match="1 of 1 rows"), pytest.raises(TaskFileError, match="no task"):
        READERS["mlvu"](str(path))


EARLY: list[tuple[str, dict[str, Any], list[tuple[float, float]]]] = [
    ("cg-bench", {"clue_intervals": [[-0.1, 0.5], [-2, 1]]}, [(0, 0.5), (0, 1)]),
    ("charades-sta", {"timestamp": [-0.1, 11.0]}, [(0, 11)]),
    ("qvhighlights", {"relevant_windows": [[-1, 2], [4, 6]]}, [(0, 2), (4, 6)]),
    ("longvt-rl", {"extra_info": {"question": "Who?", "video_segment": [-0.5, 3.0]}}, [(0, 3)]),
    ("longvt-rl", {"reward_model": {"ground_truth": [-0.5, 3.0]}}, [(0, 3)]),
]


@pytest.mark.parametrize(("name", "change", "spans"), EARLY)
def test_a_span_that_starts_before_its_video_is_read_from_0(
    name: str, change: dict[str, Any], spans: list[tuple[float, float]], tmp_path: Path
) -> None:
    sample = SAMPLES[name]
    rows = [sample.rows[0], sample.rows[1] | change]
    path = write_json((tmp_path / sample.file).with_suffix(".json"), rows)
    early = sum(start == 0 for start, _ in spans)
    with pytest.warns(
        UserWarning, match=f"{early} spans start before their video and are read from 0, the"
    ):
        task = load_tasks(f"{name}:{path}")[1]
    assert task.evidence == tuple(Segment(*span) for span in spans)


@pytest.mark.parametrize("span", [[-2.0, -1.0], [-2.0, 0.0], [-1.0, float("nan")], [5.0, -3.0]])
def test_a_span_that_is_not_in_its_video_at_all_is_refused(span: list[float], tmp_path: Path) -> None:
    path = write("cg-bench", tmp_path, {"clue_intervals": [[0, 1], span]})
    with pytest.raises(TaskFileError, match=r"row 2 .*: field 'clue_intervals\[1\]': segment"):
        load_tasks(f"cg-bench:{path}")


def test_every_reader_is_tried_with_faults() -> None:
    assert {name for name, *_ in FAULTS} == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_missing_empty_or_something_else_is_refused(name: str, tmp_path: Path) -> None:
    bad = tmp_path / SAMPLES[name].file
    with pytest.raises(TaskFileError, match="cannot be read"):
        READERS[name](str(bad))
    write(name, tmp_path)  # with the files that belong beside it
    for content in (b"", b"\x00\xff", b"PAR1 \x00 PAR1", b"{", b"<html>"):
        bad.write_bytes(content)
        with pytest.raises(TaskFileError, match="".join(("^", str(bad)))):
            READERS[name](str(bad))


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("[[1, 2]]"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_whatever_a_field_holds_it_is_read_or_named(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sample = SAMPLES[name]
    field = data.draw(st.sampled_from(sorted(sample.rows[1])))
    rows = [sample.rows[0], sample.rows[1] | {field: data.draw(values)}]
    folder = tmp_path_factory.mktemp("any")
    write(name, folder)
    if name == "lvbench":
        path = write_lvbench(folder / "any.jsonl", rows)
    else:
        path = write_json((folder / sample.file).with_suffix(".json"), rows)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of times that cannot be read
            task = load_tasks(f"{name}:{path}")[0]
        assert replace(task, metadata=sample.task.metadata) == sample.task
    except TaskFileError as error:
        assert error.path == str(path)
        assert error.place


@pytest.mark.parametrize("source", ["cgbench:x.json", "cg-benchx.parquet", "x:y.jsonl", "cg-bench"])
def test_an_unknown_format_is_refused_with_the_known_ones(source: str) -> None:
    with pytest.raises(ValueError, match=f"with a format of cg-bench, charades-sta, .*; got '{source}'"):
        load_tasks(source)


def test_a_byte_order_mark_is_no_part_of_what_stands_behind_it(tmp_path: Path) -> None:
    """Some editors begin a file with one; it is read in every file that a person writes."""
    mark = "\ufeff".encode()
    line = b"ABC 1.0 2.5##a person sits.\n"
    (tmp_path / "test.txt").write_bytes(mark + line + line.replace(b"ABC", b"DEF"))
    tasks = load_tasks(f"charades-sta:{tmp_path}/test.txt")
    assert [task.video for task in tasks] == ["ABC.mp4", "DEF.mp4"]
    parts = tmp_path / "parts.json"
    parts.write_bytes(mark + b'[{"tasks": "procedural:brief_event?count=2"}]')
    assert len(load_tasks(f"mixture:{parts}")) == 2
    prompt = tmp_path / "prompt.toml"
    prompt.write_bytes(mark + b'system = "You see {max_turns}."\n')
    assert load_prompt(prompt).system == "You see {max_turns}."
    ours = step_prompt("questions").text
    (tmp_path / "questions.txt").write_bytes(mark + ours.encode())
    assert step_prompt("questions", tmp_path / "questions.txt").text == ours
