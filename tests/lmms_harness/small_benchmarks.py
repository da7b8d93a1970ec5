"""Small benchmarks of our own, in the shape in which each is published, where lmms-eval looks for them.

A YAML of lmms-eval names its data set as ``owner/name``. `datasets` takes a folder of that name below the
current one before it asks a hub, and videos are looked for below ``HF_HOME``. So lmms-eval runs in
`Benchmarks.hub` with ``HF_HOME`` set to `Benchmarks.home`, and its tasks are unmodified to the last file.

Answers are balanced: in every group that a benchmark averages over, each option is right equally often.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from videogym.testing.coded_clips import write_clip

LETTERS = "ABCDEFGHIJ"
COLOURS = ("red", "green", "blue", "white", "black", "grey", "pink", "brown", "amber", "teal")
Row = dict[str, Any]


@dataclass(frozen=True)
class Benchmarks:
    """Where the small benchmarks lie."""

    root: Path

    @property
    def hub(self) -> Path:
        """The current folder of lmms-eval."""
        return self.root / "hub"

    @property
    def home(self) -> Path:
        """``HF_HOME``."""
        return self.root / "home"


def build(root: Path) -> Benchmarks:
    """All of them."""
    made = Benchmarks(root)
    film = root / "film.mp4"
    root.mkdir(parents=True, exist_ok=True)
    write_clip(film, 48, rate=4, codec_options={"g": "8", "bf": "2", "crf": "23"})
    for write in (video_mme, mlvu, egoschema, lvbench, video_mmmu, longvideobench, longvt):
        for name, config, split, rows, videos in write():
            store_rows(made.hub / name, config, split, rows)
            for video in videos:
                place = made.home / video
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.exists():
                    os.link(film, place)
    return made


def store_rows(folder: Path, config: str, split: str, rows: Iterable[Row]) -> None:
    """One split of a data set as parquet; several configs are listed in its README, as on a hub."""
    place = folder / (config or "data")
    place.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), place / f"{split}-00000-of-00001.parquet")
    if config:
        configs = sorted(path.name for path in folder.iterdir() if path.is_dir())
        told = [
            {"config_name": name, "data_files": [{"split": split, "path": f"{name}/{split}-*"}]}
            for name in configs
        ]
        (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(told)}\n---\n")


def _options(count: int, form: str) -> list[str]:
    return [form.format(letter=LETTERS[i], text=COLOURS[i]) for i in range(count)]


def video_mme() -> Iterable[Any]:
    """Video-MME: two questions a video, options with their letters, a letter as answer."""
    kinds = (
        ("short", "Knowledge", "Astronomy", "Object Recognition"),
        ("medium", "Sports Competition", "Football", "Counting Problem"),
        ("long", "Life Record", "Food", "Temporal Reasoning"),
    )
    rows = [
        {
            "video_id": f"{number // 2:03d}",
            "duration": kinds[number // 4][0],
            "domain": kinds[number // 4][1],
            "sub_category": kinds[number // 4][2],
            "url": f"https://example.invalid/{number // 2}",
            "videoID": f"mme{number // 2}",
            "question_id": f"{number // 2:03d}-{number % 2 + 1}",
            "task_type": kinds[number // 4][3],
            "question": f"Which colour is the flag in scene {number}?",
            "options": _options(4, "{letter}. {text}."),
            "answer": LETTERS[number % 4],
        }
        for number in range(12)
    ]
    yield "lmms-eval/Video-MME", "", "test", rows, {f"videomme/data/{row['videoID']}.mp4" for row in rows}


def mlvu() -> Iterable[Any]:
    """MLVU, both splits: the options stand in the question; a mean over types."""
    dev = ("anomaly_reco", "count", "ego", "needle", "order", "plotQA", "topic_reasoning")
    test = (*dev[:3], "needleQA", "order", "plotQA", "sportsQA", "topic_reasoning", "tutorialQA")
    for name, types, count in (("MLVU_dev", dev, 4), ("MLVU_Test", test, 6)):
        rows = [
            {
                "video_name": f"{kind}/{kind}_{number}.mp4",
                "question": f"Which colour is the flag in scene {number}?\n"
                + "\n".join(_options(count, "({letter}) {text}")),
                "answer": LETTERS[number],
                "task_type": kind,
            }
            for kind in types
            for number in range(4)  # lmms-eval finds A to D only
        ]
        folder = {"MLVU_dev": "mlvu", "MLVU_Test": "mlvu_test"}[name]
        yield f"sy1998/{name}", "", "test", rows, {f"{folder}/{row['video_name']}" for row in rows}


def egoschema() -> Iterable[Any]:
    """EgoSchema's subset: five options with letters, an index in digits as answer."""
    rows = [
        {
            "question_idx": str(number),
            "question": f"What does C do in scene {number}?",
            "video_idx": f"0074f737-11cb-497d-8d07-77c3a8127391-{number}",
            "option": _options(5, "{letter}. C paints a wall {text}."),
            "answer": str(number % 5),
        }
        for number in range(10)
    ]
    videos = {f"egoschema/videos/{row['video_idx']}.mp4" for row in rows}
    yield "lmms-eval/egoschema", "Subset", "test", rows, videos


def lvbench() -> Iterable[Any]:
    """LVBench: options in the question, several types a question, a span as text."""
    rows = [
        {
            "key": f"key{number // 4}",
            "video_path": f"key{number // 4}.mp4",
            "uid": str(number),
            "question": f"Which colour is the flag in scene {number}?\n"
            + "\n".join(_options(4, "({letter}) {text}")),
            "answer": LETTERS[number % 4],
            "question_type": [["entity recognition"], ["event understanding", "reasoning"]][number % 2],
            "time_reference": "00:01-00:03",
            "type": "cartoon",
        }
        for number in range(8)
    ]
    yield "lmms-eval/LVBench", "", "train", rows, {f"lvbench/{row['video_path']}" for row in rows}


def video_mmmu() -> Iterable[Any]:
    """Video-MMMU, three tracks: up to ten options, and open questions in one."""
    for config, start in (("Adaptation", "validation"), ("Comprehension", "new"), ("Perception", "dev")):
        subjects = {"Accounting": "Business", "Art_Theory": "Art", "Physics": "Science"}
        rows: list[Row] = [
            {
                "id": f"{start}_{subject}_{number}",
                "question": f"Which colour is the flag in scene {number}?",
                "options": list(COLOURS[: 10 if config == "Perception" else 4]),
                "answer": LETTERS[number],
                "question_type": "multiple-choice",
                "link_selected": "https://example.invalid",
            }
            for subject in subjects
            for number in range(10 if config == "Perception" else 4)
        ]
        if config == "Adaptation":
            told = {"id": f"{start}_Physics_9", "question_type": "open", "answer": "12.5", "options": []}
            rows += [rows[0] | told | {"question": "How many volts are shown?"}]
        videos = {
            f"video_mmmu/{subjects['_'.join(row['id'].split('_')[1:-1])]}/{row['id']}.mp4" for row in rows
        }
        yield "lmms-eval/VideoMMMU", config, "test", rows, videos


def longvideobench() -> Iterable[Any]:
    """LongVideoBench: five columns of options, N/A for none, an index as answer."""
    rows = [
        {
            "id": f"lvb_{number}",
            "video_id": f"lvb{number}",
            "video_path": f"lvb{number}.mp4",
            "question": f"Which colour is the flag in scene {number}?",
            **{f"option{i}": COLOURS[i] if i < 4 + number // 4 % 2 else "N/A" for i in range(5)},
            "correct_choice": number % 4,
            "duration": 12.0,
            "duration_group": (15, 3600)[number // 4],
            "question_category": ("T2E", "S2A")[number // 4],
            "topic_category": "NP-News-Programs",
            "level": "IntraMoment",
            "subtitle_path": f"lvb{number}_en.json",
            "starting_timestamp_for_subtitles": 0.0,
        }
        for number in range(8)
    ]
    videos = {f"datasets/longvideobench/videos/{row['video_path']}" for row in rows}
    yield "longvideobench/LongVideoBench", "", "validation", rows, videos


def longvt() -> Iterable[Any]:
    """VideoSIAH-Eval: open questions, answers in words and numbers."""
    answers = ("a red kite", "12", "the second door", "Paris")
    rows = [
        {
            "video_path": f"videos/siah{number}.mp4",
            "question": f"What is shown in scene {number}?",
            "answer": answer,
        }
        for number, answer in enumerate(answers)
    ]
    videos = {f"longvt_benchmark/{row['video_path']}" for row in rows}
    yield "longvideotool/VideoSIAH-Eval", "", "test", rows, videos


def rows_of(benchmarks: Benchmarks, name: str, config: str = "") -> list[Mapping[str, Any]]:
    """The rows of a data set."""
    (file,) = (benchmarks.hub / name / (config or "data")).glob("*.parquet")
    rows: list[Mapping[str, Any]] = pq.read_table(file).to_pylist()
    return rows
