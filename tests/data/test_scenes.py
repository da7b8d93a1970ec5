"""Scenes: where they begin and end, and which files have none."""

# ruff: noqa: D103

import os
import shutil
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scripted_endpoint import ADDRESSES

from videogym.data import SceneOptions, WorkFolder, find_scenes, scenes_of
from videogym.data.scenes import _divided, _joined
from videogym.testing.coded_clips import write_clip
from videogym.video import open_video
from videogym.video.synthetic import open_synthetic

EVENLY = SceneOptions(cuts="none")
COLOURS = ((200, 30, 30), (20, 60, 220), (240, 240, 240), (10, 10, 10))


@given(
    st.lists(st.floats(0.01, 100.0), min_size=1, max_size=60),
    st.floats(0.0, 50.0),
    st.floats(0.5, 60.0),
)
def test_scenes_are_all_of_the_video_and_as_long_as_they_may_be(
    lengths: list[float], least_s: float, most_s: float
) -> None:
    ends = [0.0, *np.cumsum(lengths).tolist()]
    joined = _joined(list(pairwise(ends)), least_s)
    scenes = list(_divided(joined, most_s))
    for some in (joined, scenes):
        assert some[0][0] == 0.0 and some[-1][1] == ends[-1]
        assert all(one[1] == other[0] for one, other in pairwise(some))
    assert all(end - start >= least_s * (1 - 1e-9) for start, end in joined) or len(joined) == 1
    assert {end for _, end in joined} <= set(ends), "scenes are joined, not cut"
    assert all(end - start <= most_s * (1 + 1e-6) for start, end in scenes)


def test_short_scenes_join_the_next_and_a_short_rest_the_one_before() -> None:
    """Lengths 3, 4, 12, 2, 3 with at least 5: 3 + 4, 12, 2 + 3; with at least 6 the rest joins 12."""
    scenes = [(0.0, 3.0), (3.0, 7.0), (7.0, 19.0), (19.0, 21.0), (21.0, 24.0)]
    assert _joined(scenes, 5.0) == [(0.0, 7.0), (7.0, 19.0), (19.0, 24.0)]
    assert _joined(scenes, 6.0) == [(0.0, 7.0), (7.0, 24.0)]
    assert _joined(scenes, 99.0) == [(0.0, 24.0)]
    assert list(_divided([(0.0, 7.0), (7.0, 24.0)], 8.5)) == [(0.0, 7.0), (7.0, 15.5), (15.5, 24.0)]


def cut_clip(path: Path, firsts: tuple[int, ...], count: int, **options: object) -> None:
    """A clip whose colour changes at these frames."""

    def draw(number: int, width: int, height: int) -> NDArray[np.uint8]:
        scene = sum(number >= first for first in firsts)
        return np.broadcast_to(np.array(COLOURS[scene % 4], np.uint8), (height, width, 3)).copy()

    write_clip(path, count, draw=draw, **options)  # type: ignore[arg-type]


def test_cuts_are_the_presentation_times_of_their_first_frames(tmp_path: Path) -> None:
    """On a variable rate: frames stand 1/30 s up to the 60th, and 1/5 s from there on."""
    pytest.importorskip("scenedetect")
    pts = [*range(60), *(60 + 6 * i for i in range(60))]
    cut_clip(tmp_path / "a.mp4", (40, 80, 100), 120, pts=pts, time_base=Fraction(1, 30))
    with open_video(str(tmp_path / "a.mp4")) as video:
        scenes = scenes_of(video, SceneOptions(min_scene_s=0.0, max_scene_s=1000.0))
        assert [start for start, _ in scenes] == [0.0, *(float(video.pts_s[i]) for i in (40, 80, 100))]
        assert [start for start, _ in scenes] == pytest.approx([0.0, 40 / 30, 180 / 30, 300 / 30])
        assert scenes[-1][1] == video.meta.duration_s


def test_every_change_of_the_background_is_a_cut_also_where_frames_are_few(footage: Path) -> None:
    """Two frames a second: 15 frames would be more than what lies between two cuts."""
    pytest.importorskip("scenedetect")
    for name in ("film-1.mp4", "film-3.mp4"):
        script = open_synthetic(ADDRESSES[name]).script
        with open_video(str(footage / name)) as video:
            scenes = scenes_of(video, SceneOptions(min_scene_s=0.0, max_scene_s=1000.0))
        assert {start for start, _ in scenes} >= {scene.first / 2 for scene in script.scenes}


def test_a_video_of_many_scenes_and_one_of_none(tmp_path: Path) -> None:
    pytest.importorskip("scenedetect")
    firsts = tuple(range(20, 20 * 60, 20))
    cut_clip(tmp_path / "many.mp4", firsts, 20 * 60, size=(32, 32))
    cut_clip(tmp_path / "one.mp4", (), 300, size=(32, 32))
    every = SceneOptions(min_scene_s=0.0, max_scene_s=1000.0)
    with open_video(str(tmp_path / "many.mp4")) as many, open_video(str(tmp_path / "one.mp4")) as one:
        assert len(scenes_of(many, every)) == 60
        assert scenes_of(one, every) == [(0.0, one.meta.duration_s)]


def test_without_the_detector_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scenedetect", None)
    with (
        WorkFolder(tmp_path / "work") as work,
        pytest.raises(ImportError, match=r"pip install 'videogym\[data\]'"),
    ):
        find_scenes(work, [], tmp_path)
    assert not (tmp_path / "work" / "scenes.jsonl").exists()


def test_broken_files_are_listed_with_the_reason_and_the_others_are_used(
    footage: Path, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(footage / "film-1.mp4", videos / "a.mp4")
    shutil.copy(footage / "film-1.mp4", videos / "b.mp4")
    (videos / "cut.mp4").write_bytes((footage / "film-2.mp4").read_bytes()[:5000])
    (videos / "text.mkv").write_text("no video")
    (videos / "empty.mp4").touch()
    write_clip(videos / "single.mp4", 1)
    names = sorted(os.listdir(videos))
    with WorkFolder(tmp_path / "work") as work:
        summary = find_scenes(work, names, videos, EVENLY)
        rows = {row["video"]: row for row in work.current("scenes")}
    assert (summary.kept, summary.dropped["duplicate"], summary.dropped.total()) == (1, 1, 5)
    assert rows["b.mp4"]["reason"] == "b.mp4: the same content as a.mp4"
    assert all(name in rows[name]["reason"] for name in names if name != "a.mp4")
    assert len(rows["a.mp4"]["scenes"]) == 20 and rows["a.mp4"]["scenes"][3] == [90.0, 120.0]


def test_a_name_that_no_file_of_tasks_can_hold_is_listed_and_no_twin_of_it(tmp_path: Path) -> None:
    """A byte that is not UTF-8 is half a surrogate pair in a name; not every file system takes one."""
    write_clip(tmp_path / "b.mp4", 20)
    with WorkFolder(tmp_path / "work") as work:
        summary = find_scenes(work, ["a\udcff.mp4", "b.mp4"], tmp_path, EVENLY)
        rows = {row["video"]: row for row in work.current("scenes")}
    assert (summary.kept, summary.dropped) == (1, {"unusable": 1})
    assert "its name is not UTF-8" in rows["a\udcff.mp4"]["reason"] and "code" not in rows["b.mp4"]


def test_another_run_makes_nothing_anew_until_a_file_has_changed(footage: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(footage, videos)
    names = sorted(os.listdir(videos))
    for made in (3, 0):
        with WorkFolder(tmp_path / "work") as work:
            assert find_scenes(work, names, videos, EVENLY, jobs=2).made == made
    shutil.copy(videos / "film-2.mp4", videos / "film-1.mp4")  # another film under an old name
    with WorkFolder(tmp_path / "work") as work:
        summary = find_scenes(work, names, videos, EVENLY)
        assert (summary.made, summary.kept, summary.dropped["duplicate"]) == (2, 2, 1)
    with WorkFolder(tmp_path / "work") as work:
        summary = find_scenes(work, names, videos, SceneOptions(cuts="none", max_scene_s=60.0))
        assert (summary.made, summary.kept) == (3, 2)
        assert {len(row["scenes"]) for row in work.kept("scenes")} == {10}


@pytest.mark.parametrize(
    "options",
    [
        {"cuts": "all"},
        {"threshold": 0.0},
        {"threshold": 300.0},
        {"min_scene_s": -1.0},
        {"max_scene_s": 0.0},
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SceneOptions(**options)  # type: ignore[arg-type]
