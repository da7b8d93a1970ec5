"""What cannot be played is passed over, and `check_videos` and the doctor say the same as `reset`."""

# ruff: noqa: D103

import os
from fractions import Fraction

import pytest

from videogym import Task, VideoQAEnv
from videogym.datasets import check_videos
from videogym.doctor import examine
from videogym.testing.coded_clips import write_clip
from videogym.video import VideoError

DAY_S = 86_400
RECIPES = ("DEFAULT", "LONGVT/paper", "LONGVT/code", "VIDEO_MTR/paper", "VIDEO_MTR/code")


def task(video, task_id="0"):
    return Task(task_id=task_id, video=video, question="Q?", kind="choice", options=("a", "b"), answer="A")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    write_clip(folder / "one.mp4", 1)
    write_clip(folder / "two.mp4", 2)
    write_clip(folder / "good.mp4", 30)
    seconds = {"time_base": Fraction(1, 1), "rate": 1}
    write_clip(folder / "a day.mkv", 2, pts=[0, DAY_S - 2], **seconds)
    write_clip(folder / "more than a day.mkv", 2, pts=[0, DAY_S], **seconds)
    os.mkfifo(folder / "pipe.mp4")
    os.symlink("/dev/zero", folder / "device.mp4")
    (folder / "folder.mp4").mkdir()
    return folder


def plays(folder, name, recipe):
    with VideoQAEnv([task(name)], recipe, video_root=str(folder)) as env:
        try:
            env.reset()
        except VideoError:
            return False
    return True


@pytest.mark.parametrize(
    ("name", "is_usable"),
    [
        ("one.mp4", False),
        ("two.mp4", True),
        ("a day.mkv", True),
        ("more than a day.mkv", False),
        ("pipe.mp4", False),
        ("device.mp4", False),
        ("folder.mp4", False),
    ],
)
def test_what_can_be_used_is_said_alike(folder, name, is_usable):
    assert bool(check_videos([task(name)], folder).tasks) is is_usable
    assert examine(str(folder / name)).usable is is_usable
    assert {recipe: plays(folder, name, recipe) for recipe in RECIPES} == dict.fromkeys(RECIPES, is_usable)


PATHS = {
    "a NUL": "a\0b.mp4",
    "a lone surrogate": "a\ud800.mp4",
    "half of a byte": "a\udcff.mp4",  # how Python spells a name that is no UTF-8
    "too long a name": "x" * 300 + ".mp4",
    "too long a path": "x/" * 5000 + "a.mp4",
    "a way out": "../../../../../../etc/passwd",
    "a file as a folder": "good.mp4/a.mp4",
    "a pipe": "pipe.mp4",
    "a device": "device.mp4",
    "a folder": "folder.mp4",
    "one frame": "one.mp4",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("rooted", [True, False])
def test_a_run_that_skips_passes_over_it(folder, path, rooted):
    root = str(folder) if rooted else None
    bad = path if rooted or not path.endswith(("pipe.mp4", "one.mp4")) else str(folder / path)
    tasks = [task(bad, "bad"), task("good.mp4" if rooted else str(folder / "good.mp4"), "good")]
    with VideoQAEnv(tasks, video_root=root, on_bad_video="skip") as env:
        for seed in range(4):
            assert env.reset(seed=seed)[1]["task_id"] == "good"
        assert env.reset(seed=0)[1]["bad_videos"] > 0
    with VideoQAEnv(tasks, video_root=root) as env, pytest.raises(VideoError, match="task 'bad'") as caught:
        env.reset(options={"task_id": "bad"})
    str(caught.value).encode()  # it can be printed
    assert [t.task_id for t in check_videos(tasks, root).tasks] == ["good"]
