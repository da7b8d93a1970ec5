"""Tasks of several sources in one run, with one folder of videos or with a folder for each."""

# ruff: noqa: D103

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videogym import FrameStore, VideoQAEnv
from videogym.datasets import TaskFileError, load_tasks, write_tasks
from videogym.testing.coded_clips import read_code, write_clip
from videogym.video import open_video
from videogym.video.planted import Insertion, PlantedAddress

PROCEDURAL = "procedural:brief_event?count=2&duration_s=60"


def write_rows(path: Path, *tasks: tuple[str, str], **other: Any) -> str:
    rows = [
        {"task_id": task_id, "video": video, "question": "Who?", "kind": "open", "answer": "Ann"} | other
        for task_id, video in tasks
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def write_cg_bench(path: Path, video: str) -> str:
    row = {
        "qid": 1,
        "video_uid": video,
        "question": "Who?",
        "choices": ["Ann", "Bo"],
        "right_answer": "B",
        "clue_intervals": [[0.5, 1]],
    }
    path.write_text(json.dumps([row]), encoding="utf-8")
    return f"cg-bench:{path}"


def first_code(env: VideoQAEnv, task_id: str) -> int:
    """The number that the first frame of a task's video carries."""
    observation, _ = env.reset(options={"task_id": task_id})
    return read_code(np.asarray(observation["clip"])[0])


def test_videos_of_one_name_are_those_of_their_source(tmp_path: Path) -> None:
    for number, folder in enumerate(("one", "two/deep"), start=1):
        (tmp_path / folder).mkdir(parents=True)
        write_clip(tmp_path / folder / "a.mp4", count=60, first=100 * number)
    mine = write_rows(tmp_path / "mine.jsonl", ("m", "a.mp4"))
    published = write_cg_bench(tmp_path / "cg.json", "a")
    sources = {mine: str(tmp_path / "one"), published: str(tmp_path / "two"), PROCEDURAL: None}
    env = VideoQAEnv(sources, observe="pixels", frame_size=(160, 96))
    assert len(env.tasks) == 4
    assert (first_code(env, "m"), first_code(env, "1")) == (100, 200)
    assert env.tasks[2].video.startswith("synthetic:")
    # Written to one file they need no folder any more, in whatever command.
    write_tasks(tmp_path / "all.jsonl", load_tasks(sources))
    assert [task.video for task in load_tasks(tmp_path / "all.jsonl")] == [t.video for t in env.tasks]
    with FrameStore() as store:
        assert store.open(load_tasks(tmp_path / "all.jsonl")[0].video).meta.num_frames == 60


def test_a_list_of_sources_shares_one_folder(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", count=60, first=7)
    sources = [write_rows(tmp_path / f"{name}.jsonl", (name, "a.mp4")) for name in "xy"]
    env = VideoQAEnv(sources, video_root=str(tmp_path), observe="pixels", frame_size=(160, 96))
    assert [task.task_id for task in env.tasks] == ["x", "y"]
    assert first_code(env, "y") == 7
    assert list(VideoQAEnv([Path(path) for path in sources]).tasks) == list(env.tasks)
    assert list(VideoQAEnv(Path(sources[0])).tasks) == [env.tasks[0]]


def test_rows_that_one_source_leaves_out_are_listed(tmp_path: Path) -> None:
    rows = [
        {"video": "v.mp4", "question": "Q?", "answer": answer, "candidates": ["a", "b"], "duration": 9}
        for answer in ("a", "c")
    ]
    (tmp_path / "1_plotQA.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.warns(UserWarning, match="left out"):
        tasks = load_tasks([f"mlvu:{tmp_path / '1_plotQA.json'}", PROCEDURAL])
    assert len(tasks) == 3
    assert [row.place for row in tasks.left_out] == ["row 2 (line 1)"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", [list, dict.fromkeys])
def test_an_id_in_two_sources_is_refused_with_both(how: Any, tmp_path: Path) -> None:
    one, two = (write_rows(tmp_path / f"{name}.jsonl", ("7", "a.mp4")) for name in ("one", "two"))
    with pytest.raises(ValueError, match=r"id '7' is in .*one\.jsonl and in .*two\.jsonl"):
        load_tasks(how([one, two]))


def test_a_source_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "one.jsonl", ("7", "a.mp4"))
    with pytest.raises(ValueError, match="id '7' is in"):
        load_tasks([one, one])


@pytest.mark.parametrize("video", ["../secret.mp4", "/etc/secret.mp4", "link.mp4"])
def test_nothing_outside_the_folder_of_its_source_is_taken(video: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    source = write_rows(tmp_path / "mine.jsonl", ("m", video))
    with pytest.raises(TaskFileError, match=r"task 'm': video .* lies outside the folder of its source"):
        load_tasks({source: root})


def test_files_of_a_planted_video_lie_in_the_folder_of_its_source(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_clip(root / "a.mp4", count=60)
    with open_video(str(root / "a.mp4")) as video:
        content = video.meta.fingerprint
    box, inset = (0.1, 0.4, 0.6, 0.9), {"file": "a.mp4", "fingerprint": content}
    address = str(PlantedAddress("a.mp4", content, (Insertion(5, 9, box, "video", **inset),)))
    source = write_rows(tmp_path / "mine.jsonl", ("m", address))
    (task,) = load_tasks({source: root})
    with FrameStore() as store, FrameStore(video_root=root) as rooted:
        moved, first = (s.frames(v, [0.2], size=None) for s, v in ((store, task.video), (rooted, address)))
    assert np.array_equal(moved.pixels, first.pixels)
    outside = PlantedAddress(
        "a.mp4", content, (Insertion(5, 9, box, "video", file="../b.mp4", fingerprint="0"),)
    )
    source = write_rows(tmp_path / "other.jsonl", ("m", str(outside)))
    with pytest.raises(TaskFileError, match=r"video '../b.mp4' lies outside the folder of its source"):
        load_tasks({source: root})


def test_what_is_no_source_is_named(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "mine.jsonl", ("m", "a.mp4"))
    with pytest.raises(ValueError, match="video_root must be None"):
        load_tasks({source: tmp_path}, tmp_path)
    with pytest.raises(ValueError, match="there are no tasks"):
        VideoQAEnv({})
    with pytest.raises(ValueError, match="video_root must be a folder"):
        load_tasks({source: tmp_path / "gone"})
    others: list[Any] = [[source, load_tasks(source)[0]], [b"mine.jsonl"], {b"mine.jsonl": None}, [3]]
    for other in others:
        with pytest.raises(ValueError, match="a source of tasks is text or a path, got"):
            VideoQAEnv(other)
    for other in (3, None):
        with pytest.raises(ValueError, match="tasks are a source, several of them, or tasks, got"):
            VideoQAEnv(other)  # type: ignore[arg-type]
