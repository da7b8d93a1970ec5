"""Packet tables and grids ahead of time: what is reported done is there, and serves episodes."""

# ruff: noqa: D103

import json
import os
from pathlib import Path

import numpy as np
import pytest
from films import film

from videogym import Task, VideoQAEnv
from videogym.cli import main
from videogym.cli.index import Request, index
from videogym.datasets import write_tasks
from videogym.video import FrameStore
from videogym.video import grid as grid_module
from videogym.video.pyav_reader import PyAVVideo

KINDS = dict(kind="choice", options=("x", "y"), answer="A")


def rows(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def files(cache_dir):
    """Names and times of everything in the cache."""
    return {path: path.stat().st_mtime_ns for path in sorted(cache_dir.rglob("*")) if path.is_file()}


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    for name in ("a b.mp4", "c.mkv"):
        film(folder / name)
    return folder


def test_tables_are_made_once_and_bad_videos_are_listed(videos, cache_dir, capsys):
    (videos / "bad.mp4").write_text("no video")
    assert main(["index", str(videos)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"BAD   {videos}/bad.mp4" and "not a video" in said[1]
    assert said[2] == f"2 of 3 videos are indexed in {cache_dir}"
    made = files(cache_dir)
    assert len(made) == 2 and all(path.suffix == ".npz" for path in made)
    assert main(["index", str(videos), "--json"]) == 1
    assert [(Path(row["path"]).name, row["frames"], bool(row["problem"])) for row in rows(capsys)] == [
        ("a b.mp4", 160, False),
        ("bad.mp4", 0, True),
        ("c.mkv", 160, False),
    ]
    assert files(cache_dir) == made, "what was there was made again"


@pytest.mark.parametrize("recipe", ["DEFAULT", "VIDEO_MTR/paper", "LONGVT/paper"])
def test_an_indexed_episode_begins_without_a_decoder(videos, capsys, recipe, monkeypatch):
    """Pixels in the observation, served from the grid; not one frame is decoded for them."""
    write_tasks(videos / "t.jsonl", [Task("1", "a b.mp4", "?", **KINDS)])
    arguments = [str(videos / "t.jsonl"), "--video-root", str(videos)]
    assert main(["index", *arguments, "--recipe", recipe, "--frame-size", "64x64"]) == 0
    how = dict(video_root=str(videos), observe="pixels", frame_size=(64, 64))
    env = VideoQAEnv(str(videos / "t.jsonl"), recipe, **how)
    shown, _ = env.reset(seed=0)
    opened = env.store.open("a b.mp4")
    assert isinstance(opened, PyAVVideo) and opened.stats.decoded == 0
    monkeypatch.setenv("VIDEOGYM_CACHE", str(videos / "another"))
    again, _ = VideoQAEnv(str(videos / "t.jsonl"), recipe, **how).reset(seed=0)
    assert np.array_equal(shown["clip"], again["clip"]) and shown["clip"].any()


def test_references_are_resolved_from_the_grid_at_the_recipes_pixels(videos, capsys):
    """160 x 96 is within 224 x 224 pixels: sides become multiples of 28."""
    assert main(["index", str(videos / "c.mkv"), "--recipe", "DEFAULT", "--json"]) == 0
    (row,) = rows(capsys)
    pixels = np.load(Path(row["grid"]) / "pixels.npy")
    assert pixels.shape == (32, 84, 168, 3)
    with FrameStore() as store:
        times = np.load(Path(row["grid"]) / "pts_s.npy").tolist()
        assert np.array_equal(store.frames(str(videos / "c.mkv"), times, size=(168, 84)).pixels, pixels)
        assert store.open(str(videos / "c.mkv")).stats.decoded == 0


def test_the_slower_of_two_builders_leaves_the_grid_of_the_faster(videos, capsys, monkeypatch):
    """It appears after the slower one has looked, and was reported done: it is never taken away."""
    command = ["index", str(videos / "c.mkv"), "--recipe", "DEFAULT", "--json"]
    assert main(command) == 0
    first = Path(rows(capsys)[0]["grid"])
    held = {path.name: path.read_bytes() for path in first.iterdir()}
    times_s, pixels = np.load(first / "pts_s.npy"), np.load(first / "pixels.npy")
    other, node = first.parent / "other", os.stat(first).st_ino
    first.rename(other)

    publish = grid_module.publish_folder

    def publish_late(folder, fill):  # the slower one has found nothing, and the faster one is done
        other.rename(folder)
        publish(folder, fill)

    monkeypatch.setattr(grid_module, "publish_folder", publish_late)
    assert grid_module.write_grid(first.parent, times_s, iter([pixels])) == first
    assert os.stat(first).st_ino == node
    assert {path.name: path.read_bytes() for path in first.iterdir()} == held


def test_a_synthetic_video_has_a_grid_and_no_table(cache_dir, capsys):
    tasks = "procedural:brief_event?duration_s=60&count=2"
    assert main(["index", tasks, "--recipe", "DEFAULT", "--json"]) == 0
    assert all(Path(row["grid"]).is_dir() and row["path"].startswith("synthetic:") for row in rows(capsys))
    assert not (cache_dir / "tables").exists()


def test_a_video_that_does_not_fit_the_recipe_is_a_problem(tmp_path, capsys):
    film(tmp_path / "short.mp4", 1)
    assert main(["index", str(tmp_path), "--recipe", "VIDEO_MTR/paper", "--json"]) == 1
    assert "at least 2 frames" in rows(capsys)[0]["problem"]


def test_a_cache_that_cannot_be_written_is_not_reported_as_done(videos, tmp_path, monkeypatch, capsys):
    """Readers go on without their tables; an index that was not kept is none."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VIDEOGYM_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="could not be kept"):
        index(Request(str(videos / "c.mkv"), None, None), lambda: None)
    assert main(["index", str(videos / "c.mkv")]) == 1
    assert "could not be kept" in capsys.readouterr().out


def test_signs_of_life_come_with_every_batch(videos):
    beats = []
    index(Request(str(videos / "c.mkv"), "LONGVT/paper", (32, 32)), lambda: beats.append(1))
    assert len(beats) >= 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipe", "NOTHING"], "unknown recipe 'NOTHING'; known: DEFAULT"),
        (["--frame-size", "9x9"], "--frame-size is of kept frames: give a --recipe too"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(videos, capsys, arguments, said):
    assert main(["index", str(videos), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("videogym index: error: ") and said in error and error.count("\n") == 1


def test_a_task_file_that_is_not_there_is_a_problem_like_others(capsys):
    assert main(["index", "nowhere.jsonl", "--json"]) == 1
    assert "nowhere.jsonl" in rows(capsys)[0]["problem"]


@pytest.mark.parametrize("size", ["9", "0x9", "9x99999", "-1x5", "axb"])
def test_a_wrong_size_is_refused_by_the_parser(videos, capsys, size):
    with pytest.raises(SystemExit) as ended:
        main(["index", str(videos), "--recipe", "DEFAULT", f"--frame-size={size}"])
    assert ended.value.code == 2 and f"got {size!r}" in capsys.readouterr().err
