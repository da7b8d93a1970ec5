"""The demonstration on real footage, end to end on small clips with a lesson of two rounds."""

# ruff: noqa: D103

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agents.experiments import demo_planted
from agents.experiments.demo_planted import (
    RECIPE,
    SIDE,
    SKIM,
    around_chance,
    compare,
    draw_episodes,
    learn,
    lessons_of,
    policy_of,
    problem,
    require_disjoint,
    table,
)
from videogym.datasets import PlantedTasks
from videogym.evaluate import proportion
from videogym.testing import footage
from videogym.testing.coded_clips import write_clip
from videogym.video import open_video


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> demo_planted.Folders:
    monkeypatch.setenv("VIDEOGYM_CACHE", str(tmp_path / "cache"))
    both = demo_planted.Folders(tmp_path / "train", tmp_path / "held_out")
    for number, folder in enumerate((both.train, both.test)):
        folder.mkdir()
        write_clip(folder / "a.mp4", 256, rate=2, first=300 * number, codec_options={"preset": "ultrafast"})
    return both


def tasks_of(folder: Path, count: int) -> PlantedTasks:
    return PlantedTasks("scene", folder, split="all", num_tasks=count, side=SIDE)


def test_it_teaches_compares_and_draws(
    folders: demo_planted.Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two rounds nobody has learnt much; the oracle is right, and what is missing is said."""
    monkeypatch.setattr(demo_planted, "ENVS", 4)
    train, test = tasks_of(folders.train, 100), tasks_of(folders.test, 6)
    learnt = {}
    for name, recipe, lessons in (
        ("looking", RECIPE, lessons_of(2)),
        ("skimming", SKIM, lessons_of(2)[:1]),
    ):
        weights = learn(recipe, train, folders.train, lessons, seed=0)
        learnt[name] = policy_of(train, folders.test, weights)
        untaught = policy_of(train, folders.test).state_dict()
        assert all(np.isfinite(weight).all() for weight in weights.values())
        assert not np.array_equal(weights["words.weight"], untaught["words.weight"].numpy())
    reports = compare(learnt, test, folders.test, seed=0)
    assert reports["oracle"].accuracy.mean == reports["oracle"].hit_rate.mean == 1.0
    assert reports["trained on the skim"].frames.mean == 16 and reports["blind"].accuracy.count == 6
    lines = table(reports).splitlines()
    assert len(lines) == 6 and lines[-1].startswith("oracle") and "1.00" in lines[-1]
    assert problem(reports) == "the trained policy is right in less than 0.85 of the held-out tasks"
    draw_episodes(learnt["looking"], test, folders.test, tmp_path / "episodes.jpg")
    with Image.open(tmp_path / "episodes.jpg") as picture:
        assert picture.size == (960, 3 * 360)


def test_a_video_that_is_trained_on_is_not_held_out(folders: demo_planted.Folders) -> None:
    train, test = tasks_of(folders.train, 4), tasks_of(folders.test, 4)
    require_disjoint(train, test)
    (folders.test / "b.mp4").write_bytes((folders.train / "a.mp4").read_bytes())
    with pytest.raises(SystemExit, match=r"1 held-out videos are among those to train on.* b\.mp4"):
        require_disjoint(train, tasks_of(folders.test, 4))


@pytest.mark.parametrize(
    ("right", "is_near"),
    # A deviation of 200 guesses among four is sqrt(200 * 1/4 * 3/4) = 6.12: three are 18.4.
    [(50, True), (68, True), (32, True), (69, False), (31, False)],
)
def test_chance_is_within_three_deviations(right: int, is_near: bool) -> None:
    assert around_chance(proportion(right, 200)) is is_near


def test_mixtures_of_parts_that_do_not_overlap_share_no_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a clip that is red at first and blue from its middle on."""
    colours = [(200, 0, 0)] * 10 + [(0, 0, 200)] * 10
    clip = [Image.new("RGB", (64, 48), colour) for colour in colours]
    monkeypatch.setattr(footage, "find_clip", Path)
    monkeypatch.setattr(footage, "_frames", lambda path, size: clip)
    for name, part, channel in (("a.mp4", (0.0, 0.5), 0), ("b.mp4", (0.5, 1.0), 2)):
        footage.write_mixture(tmp_path / name, ("x",), seed=1, duration_s=8.0, size=(64, 48), part=part)
        with open_video(str(tmp_path / name)) as video:
            shown = video.frames_at(video.pts_s.tolist()).pixels.mean(axis=(0, 1, 2))
        assert shown.argmax() == channel and np.delete(shown, channel).max() < 30


@pytest.mark.parametrize("part", [(0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (0.6, 0.4), (0.0, 0.001)])
def test_a_part_that_holds_nothing_is_refused(
    part: tuple[float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footage, "find_clip", Path)
    monkeypatch.setattr(footage, "_frames", lambda path, size: [Image.new("RGB", (64, 48))] * 20)
    with pytest.raises(ValueError, match="part"):
        footage.write_mixture(tmp_path / "a.mp4", ("x",), seed=1, size=(64, 48), part=part)
    assert not list(tmp_path.iterdir())
