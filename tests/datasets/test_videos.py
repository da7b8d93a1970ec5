"""Which videos are found below a folder, which can be used, and which are refused."""

# ruff: noqa: D103

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import av
import pytest

from videogym import VideoQAEnv
from videogym.datasets import VideoProblem, check_videos, find_videos, load_tasks
from videogym.geometry import Segment
from videogym.state import Task
from videogym.testing.coded_clips import write_clip
from videogym.video.containers import CONTAINERS, VIDEO_SUFFIXES


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
        ("A b ü.mp4", "A b ü.webm"),
        ("a.mp4", "a.WebM"),
        ("\u00e9.mp4", "e\u0301.mkv"),  # as other disks write it
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


@pytest.mark.parametrize("below", ["", "v/", "deep/er/"])
def test_ids_that_differ_in_case_alone_are_two_videos(below: str, tmp_path: Path) -> None:
    root = touch(tmp_path, f"{below}aBc_1.mkv", f"{below}abc_1.mkv")
    check = find_videos([task("abc_1.mp4"), task("aBc_1.mp4"), task("x/aBc_1.webm")], root)
    wanted = [f"{below}{name}.mkv" for name in ("abc_1", "aBc_1", "aBc_1")]
    if below:  # a folder x is not there
        wanted, (problem,) = wanted[:2], check.problems
        assert (problem.video, problem.cause) == ("x/aBc_1.webm", "missing")
    assert [found.video for found in check.tasks] == wanted


@pytest.mark.parametrize("file", ["v/abc.mp4", "abc.mkv", "abc.mp4"])
def test_the_only_file_is_that_of_its_very_name(file: str, tmp_path: Path) -> None:
    asked = [task("aBc.mp4"), task("abc.mp4"), task("ABC.mp4")]
    check = find_videos(asked, touch(tmp_path, file))
    assert [(found.task_id, found.video) for found in check.tasks] == [("t abc.mp4", file)]
    assert [(problem.video, problem.cause) for problem in check.problems] == [
        ("ABC.mp4", "ambiguous"),
        ("aBc.mp4", "ambiguous"),
    ]
    assert all(f"leads to {file}, as does " in problem.message for problem in check.problems)


def test_where_no_name_is_the_file_s_own_none_has_it(tmp_path: Path) -> None:
    check = find_videos([task("ABC.mp4"), task("Abc.mp4")], touch(tmp_path, "abc.mp4"))
    assert not check.tasks and [problem.cause for problem in check.problems] == ["ambiguous"] * 2


def test_folders_are_told_apart_by_their_case_too(tmp_path: Path) -> None:
    root = touch(tmp_path, "Set/1.mkv", "set/1.mkv")
    names = ["/mnt/set/1.mp4", "/mnt/Set/1.mp4"]
    assert [found.video for found in find_videos(map(task, names), root).tasks] == [
        "set/1.mkv",
        "Set/1.mkv",
    ]
    check = find_videos([task("/mnt/SET/1.mp4")], root)
    assert [problem.cause for problem in check.problems] == ["ambiguous"]


@pytest.mark.parametrize(("name", "file"), [("A b ü.mp4", "a B Ü.webm"), ("Set/a.mp4", "x/set/a.mp4")])
def test_a_video_in_another_case_alone_is_found_and_told(name: str, file: str, tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match=f"1 videos are there under .* case alone, such as {name} as {file}"
    ):
        check = find_videos([task(name)], touch(tmp_path, file))
    assert [found.video for found in check.tasks] == [file] and not check.problems


def test_whatever_file_a_reader_plays_is_found_by_its_name(tmp_path: Path) -> None:
    """Endings are those of libav's own list for the containers that are opened, without those of sound."""
    other = {"heic", "heif", "avif", "ism"}  # pictures, and a list of other files
    sound = {"m4a", "m4b", "isma", "mka", "mks", "wma", "oga"}
    listed: set[str] = set(VIDEO_SUFFIXES)
    for name in [*CONTAINERS.split(","), "vob", "svcd", "ogv", "ismv", "f4v", "ipod"]:
        for mode in ("r", "w"):
            with contextlib.suppress(ValueError):
                listed |= {f".{ending}" for ending in av.format.ContainerFormat(name, mode).extensions}
    endings = sorted(listed - {f".{ending}" for ending in other | sound})
    assert {".gif", ".3gp", ".m2ts", ".mts", ".ogv", ".asf", ".wmv", ".flv", ".m4v", ".vob"} <= set(endings)
    names = [f"x{i}{ending}" for i, ending in enumerate([*endings, *map(str.upper, endings)])]
    asked = {"question": "Q?", "options": ["a", "b"], "answer": "A"}
    rows = [asked | {"question_id": name, "videoID": name} for name in names]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    tasks = load_tasks(f"video-mme:{tmp_path / 'rows.json'}")
    assert [one.video for one in tasks] == names
    root = touch(tmp_path / "videos", *(f"below/{one.video}" for one in tasks))
    assert [one.video for one in find_videos(tasks, root).tasks] == [f"below/{one.video}" for one in tasks]


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
