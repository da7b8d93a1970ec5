"""The folder of a pipeline between two runs: which of its lines count, and which are made again."""

# ruff: noqa: D103

import os
import shutil
from pathlib import Path

import pytest

from videogym.cli import main
from videogym.data import DataError, SceneOptions, WorkFolder, export, find_scenes
from videogym.data.work import Dropped, Item, Summary, run_step
from videogym.datasets import TaskFileError
from videogym.judging import NoReply
from videogym.testing.coded_clips import write_clip

EVENLY = SceneOptions(cuts="none", max_scene_s=10.0)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, name in enumerate(("a.mp4", "b.mp4")):
        write_clip(folder / name, 80 + number, rate=4, size=(64, 48))
    return folder


def found(work: WorkFolder, videos: Path, options: SceneOptions = EVENLY) -> Summary:
    return find_scenes(work, sorted(os.listdir(videos)), videos, options)


def places(work: WorkFolder, step: str) -> list[str]:
    return [row["place"] for row in work.current(step)]


def captioned(work: WorkFolder) -> None:
    items = [
        Item(f"{row['place']}#{i}", (row["key"],), {}, None)
        for row in work.kept("scenes")
        for i in range(len(row["scenes"]))
    ]
    run_step(work, "captions", items, lambda _: {})


def asked(work: WorkFolder, each: int) -> Summary:
    """Groups of so many captions."""
    keys = [row["key"] for row in work.kept("captions")]
    groups = [tuple(keys[first : first + each]) for first in range(0, len(keys), each)]
    items = [Item(f"group {i}", keys, {"each": each}, None) for i, keys in enumerate(groups)]
    return run_step(work, "questions", items, lambda _: {})


def test_a_video_that_is_gone_or_renamed_counts_no_more(videos: Path, tmp_path: Path) -> None:
    """Nor do its captions; the export, which opens every video, finds those that are there, and no task."""
    with WorkFolder(tmp_path / "work") as work:
        found(work, videos)
        captioned(work)
        (videos / "a.mp4").rename(videos / "c.mp4")
        summary = found(work, videos)
        assert (summary.made, summary.kept) == (1, 2)
        assert places(work, "scenes") == ["b.mp4", "c.mp4"]
        assert {place[:5] for place in places(work, "captions")} == {"b.mp4"}
        with pytest.raises(TaskFileError, match="there is no task to write"):
            export(work, "tasks", tmp_path / "tasks.jsonl")


def test_a_video_that_is_back_is_not_divided_again(videos: Path, tmp_path: Path) -> None:
    aside = tmp_path / "aside.mp4"
    with WorkFolder(tmp_path / "work") as work:
        found(work, videos)
        shutil.move(videos / "a.mp4", aside)
        assert found(work, videos).kept == 1
        shutil.move(aside, videos / "a.mp4")
        summary = found(work, videos)
        assert (summary.made, summary.kept) == (0, 2)


def test_lines_of_older_settings_do_not_stay_where_there_is_nothing_to_make_any_more(
    videos: Path, tmp_path: Path
) -> None:
    """A video that is gone, and groups that are fewer: 4 scenes make 4 groups of one, or 2 of two."""
    with WorkFolder(tmp_path / "work") as work:
        found(work, videos)
        captioned(work)
        assert asked(work, 1).kept == 5 and asked(work, 2).kept == 3  # 20 s and 20.25 s: 2 and 3 scenes
        assert places(work, "questions") == ["group 0", "group 1", "group 2"]
        assert asked(work, 1).kept == 5
        (videos / "b.mp4").unlink()
        assert found(work, videos, SceneOptions(cuts="none", max_scene_s=5.0)).kept == 1
        assert places(work, "scenes") == ["a.mp4"] and not work.current("questions")


def test_a_step_before_its_turn_is_refused_and_changes_nothing(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One whose step before kept nothing is in turn, and has nothing to do."""
    folder, model = tmp_path / "work", ["--endpoint", "http://127.0.0.1:9/v1", "--model", "m"]
    with WorkFolder(folder) as work:
        found(work, videos)
    for step, first in (("filter", "questions"), ("traces", "filter")):
        before = sorted(folder.iterdir())
        assert main(["data", step, "--work", str(folder), *model]) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert f"the step before {step} was not run: run `videogym data {first}` first" in told
        assert {path.suffix for path in set(folder.iterdir()) - set(before)} <= {".jsonl"}
    with WorkFolder(folder) as work:
        assert run_step(work, "captions", [], lambda _: {}).made == 0
        assert run_step(work, "questions", [], lambda _: {}).made == 0


def test_a_run_of_other_settings_that_leaves_something_tells_what_and_why(
    videos: Path, tmp_path: Path
) -> None:
    def make(number: int) -> dict[str, int] | Dropped:
        if number == 1:
            raise NoReply("deadline", "nothing came")
        return {"number": number} if number else Dropped("span", "too long")

    with WorkFolder(tmp_path / "work") as work:
        found(work, videos)
        key = work.kept("scenes")[0]["key"]
        for fps in (1, 2):
            items = [Item(f"a.mp4#{i}", (key,), {"fps": fps}, i) for i in range(3)]
            if fps == 1:
                assert run_step(work, "captions", items, lambda number: {"number": number}).kept == 3
        summary = run_step(work, "captions", items, make)
        assert (summary.kept, summary.dropped, summary.made) == (1, {"span": 1}, 2)
        assert summary.left == ["a.mp4#1: deadline: nothing came"]
        with pytest.raises(DataError, match="lines of different settings: run that step to its end first"):
            work.current("captions")
        assert run_step(work, "captions", items, lambda number: {"number": number}).kept == 2
        assert len(work.current("captions")) == 3


def test_what_a_cut_reply_dropped_is_made_again_with_another_limit_and_nothing_else(
    videos: Path, tmp_path: Path
) -> None:
    drops = {0: Dropped("cut", "it ends"), 1: Dropped("malformed", "no JSON")}
    with WorkFolder(tmp_path / "work") as work:
        found(work, videos)
        key = work.kept("scenes")[0]["key"]
        items = [Item(f"a.mp4#{i}", (key,), {}, i) for i in range(3)]
        made: list[int] = []

        def make(number: int) -> dict[str, int] | Dropped:
            made.append(number)
            return drops.get(number, {"number": number})

        for limit, again in ((100, [0, 1, 2]), (100, []), (200, [0]), (200, [])):
            made.clear()
            summary = run_step(work, "captions", items, make, max_tokens=limit)
            assert (made, summary.dropped) == (again, {"cut": 1, "malformed": 1}), limit
        del drops[0]
        summary = run_step(work, "captions", items, make, max_tokens=400)
        assert (summary.made, summary.kept, summary.dropped) == (1, 2, {"malformed": 1})
        assert run_step(work, "captions", items, make, max_tokens=100).made == 0, "it was not cut"


def test_only_the_step_of_scenes_makes_a_folder(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typo = tmp_path / "typo"
    model = ["--endpoint", "http://127.0.0.1:9/v1", "--model", "m"]
    out = tmp_path / "tasks.jsonl"
    lines = [["export", "--format", "tasks", "--out", str(out)], ["caption", *model], ["filter", *model]]
    for step, *rest in lines:
        assert main(["data", step, "--work", str(typo), *rest]) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert f"{typo}: no such folder: `videogym data scenes` makes one" in told
        assert not typo.exists() and not out.exists()
    assert main(["data", "scenes", "--work", str(typo), str(videos), "--cuts", "none"]) == 0
