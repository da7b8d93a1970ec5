"""Which videos are found below a folder, which can be used, and which are refused."""

# ruff: noqa: D103

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from videogym import VideoQAEnv
from videogym.datasets import VideoProblem, check_videos, find_videos, load_tasks
from videogym.state import Segment, Task
from videogym.testing.coded_clips import write_clip


def task(video: str, task_id: str = "", evidence: tuple[Segment, ...] | None = None) -> Task:
    return Task(
        task_id=task_id or f"t {video}",
        video=video,
        question="Q?",
        kind="open",
        answer="a",
        evidence=evidence,
    )


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.mp4", "a.mp4"),
        ("set/a.mp4", "set/a.mp4"),
        ("a.mp4", "a.MKV"),
        ("A b ü.mp4", "a B Ü.webm"),
        ("x_360.0_510.0.mp4", "x_360.0_510.0.mkv"),
        ("a.mp4", "deep/er/a.mp4"),
        ("set/a.mp4", "a.mp4"),
        ("set/a.mp4", "deep/set/a.mp4"),
        ("/mnt/somebody/set/a.mp4", "set/a.mp4"),
        ("/mnt/somebody/set/a.mp4", "a.avi"),
    ],
)
def test_a_video_is_found_by_its_name(name: str, file: str, tmp_path: Path) -> None:
    check = find_videos([task(name)], touch(tmp_path, file, "other/b.mp4", "a.txt", "a"))
    assert [found.video for found in check.tasks] == [file]
    assert not check.problems


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.mp4", "b.mp4"),
        ("one/a.mp4", "two/a.mp4"),  # a file of that name, but of another folder
        ("/mnt/one/a.mp4", "two/one/b/a.mp4"),
        ("a.mp4", "a.srt"),
        ("a\0.mp4", "a.mp4"),
        ("", "a.mp4"),
    ],
)
def test_another_file_is_not_taken(name: str, file: str, tmp_path: Path) -> None:
    check = find_videos([task(name or "none.mp4", "t")], touch(tmp_path, file))
    assert len(check.tasks) == 0
    (problem,) = check.problems
    assert (problem.cause, problem.task_ids) == ("missing", ("t",))
    assert problem.message == f"no such file below {os.path.realpath(tmp_path)}"


def test_several_files_that_fit_alike_are_none(tmp_path: Path) -> None:
    root = touch(tmp_path, "one/a.mp4", "two/a.mp4", "one/b.mp4", "one/b.mkv")
    check = find_videos([task("a.mp4"), task("two/a.mp4"), task("b.webm")], root)
    assert [found.video for found in check.tasks] == ["two/a.mp4"]
    assert [(p.video, p.cause, p.message) for p in check.problems] == [
        ("a.mp4", "ambiguous", "several files fit: one/a.mp4, two/a.mp4"),
        ("b.webm", "ambiguous", "several files fit: one/b.mkv, one/b.mp4"),
    ]


def test_two_videos_are_never_one_file(tmp_path: Path) -> None:
    root = touch(tmp_path, "1.mp4", "set/2.mp4")
    names = ["one/1.mp4", "two/1.mp4", "/mnt/set/2.mp4", "set/2.mp4", "2.mp4"]
    check = find_videos([task(name) for name in names], root)
    # The names of the second file agree as far as they go: one video.
    assert [found.video for found in check.tasks] == ["set/2.mp4"] * 3
    assert [(p.video, p.message) for p in check.problems] == [
        ("one/1.mp4", "leads to 1.mp4, as does two/1.mp4"),
        ("two/1.mp4", "leads to 1.mp4, as does one/1.mp4"),
    ]


def test_nothing_outside_the_folder_is_taken(tmp_path: Path) -> None:
    outside, root = touch(tmp_path / "outside", "a.mp4", "b.mp4"), touch(tmp_path / "root", "set/c.mp4")
    (root / "a.mp4").symlink_to(outside / "a.mp4")
    (root / "linked").symlink_to(outside, target_is_directory=True)
    (root / "d.mp4").symlink_to(root / "set" / "c.mp4")
    names = ["a.mp4", "linked/b.mp4", "../outside/b.mp4", str(outside / "b.mp4"), "d.mp4"]
    check = find_videos([task(name) for name in names], root)
    assert [found.video for found in check.tasks] == ["d.mp4"]
    assert [problem.cause for problem in check.problems] == ["missing"] * 4


def test_synthetic_videos_and_absolute_paths_inside_stay(tmp_path: Path) -> None:
    synthetic = load_tasks("procedural:brief_event?count=1")[0]
    inside = task(str(touch(tmp_path, "a b.mp4") / "a b.mp4"))
    assert list(find_videos([synthetic, inside], tmp_path).tasks) == [synthetic, inside]


def test_a_folder_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="video_root must be a folder, got '/no/such'"):
        find_videos([], "/no/such")
    assert find_videos([], tmp_path).problems == ()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good video, a cut one and one that is none."""
    write_clip(tmp_path / "good one.mp4", 60)  # 2 s
    whole = (tmp_path / "good one.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("not a video")
    return tmp_path


def test_videos_that_cannot_be_used_are_listed(folder: Path) -> None:
    tasks = [
        task("good one.mp4", "fine", (Segment(0.5, 1.5),)),
        task("gone.mp4", "gone 1"),
        task("gone.mp4", "gone 2"),
        task("cut.mp4", "cut"),
        task("text.mp4", "text"),
        task("good one.mp4", "late", (Segment(5, 6),)),
        task("good one.webm", "elsewhere"),
    ]
    check = check_videos(tasks, folder)
    assert [(t.task_id, t.video) for t in check.tasks] == [
        ("fine", "good one.mp4"),
        ("elsewhere", "good one.mp4"),
    ]
    causes = {problem.task_ids: problem.cause for problem in check.problems}
    assert causes == {
        ("gone 1", "gone 2"): "missing",
        ("cut",): "unusable",
        ("text",): "unusable",
        ("late",): "evidence",
    }
    assert str(check.problems[0]) == f"gone.mp4: no such file below {folder} (2 tasks)"


def test_without_a_folder_paths_are_taken_as_they_stand(folder: Path) -> None:
    tasks = [task(str(folder / "good one.mp4")), task(str(folder / "gone.mp4")), task("a\0b")]
    check = check_videos(tasks)
    assert list(check.tasks) == tasks[:1]
    assert [problem.cause for problem in check.problems] == ["missing", "missing"]


def test_missing_videos_of_a_data_set_are_a_warning_and_their_tasks_stay(folder: Path) -> None:
    rows = [
        {"question_id": f"{i}", "videoID": name, "question": "Q?", "options": ["a", "b"], "answer": "A"}
        for i, name in enumerate(["good one", "gone 1", "gone 2", "gone 3", "gone 4"])
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    source = f"video-mme:{folder / 'rows.json'}"
    says = r"not found in .*: gone 1\.mp4: no such file below .* \(1 tasks\); .*; and 1 more, see check_v"
    with pytest.warns(UserWarning, match=says):
        tasks = load_tasks(source, video_root=folder)
    assert [t.video for t in tasks][:2] == ["good one.mp4", "gone 1.mp4"]
    assert len(tasks) == 5


def test_an_environment_plays_a_data_set_by_name(folder: Path) -> None:
    row = {
        "qid": 1,
        "video_uid": "good one",
        "question": "Who?",
        "choices": ["Ann", "Bo"],
        "right_answer": "B",
        "clue_intervals": [[0.5, 1]],
    }
    (folder / "cgbench.json").write_text(json.dumps([row]))
    env = VideoQAEnv(f"cg-bench:{folder / 'cgbench.json'}", video_root=str(folder))
    observation, info = env.reset(seed=0)
    assert (observation["question"], info["task_id"]) == ("Who?", "1")
    assert env.state.task.evidence == (Segment(0.5, 1),)


def test_problems_are_plain_records() -> None:
    problem = VideoProblem("a.mp4", "missing", "no such file", ("1",))
    assert str(problem) == "a.mp4: no such file (1 tasks)"
