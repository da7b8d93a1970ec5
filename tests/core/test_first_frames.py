"""An episode may begin with fewer frames than its recipe shows; everything else stays."""

# ruff: noqa: D103

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from videogym import Crop, Task, VideoError, VideoQAEnv, get_recipe
from videogym.testing.coded_clips import write_clip

TASKS = "procedural:brief_event?duration_s=60&count=20&size=64x36"
RECIPES = ["DEFAULT", "VIDEO_MTR/paper", "LONGVT/paper", "VIDEO_ZOOMER/paper", "PARAVT/paper"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_so_many_frames_are_shown_first_over_the_whole_video(recipe):
    env = VideoQAEnv(TASKS, recipe)
    whole, _ = env.reset(seed=3)
    few, info = env.reset(seed=3, options={"skim_frames": 6})
    assert few in env.observation_space and few["video"] == whole["video"]
    times_s = env.state.skim.times_s
    assert len(times_s) == 6 == int(info["frames_shown"]) and times_s[0] < 10 and times_s[-1] > 49
    assert env.state.recipe_id == env.recipe.identity and env.state.rules == env.recipe.rules
    saved = env.get_state()
    env.reset()
    env.set_state(saved)
    assert env.state.skim.times_s == times_s
    assert len(env.reset(seed=3)[0]["clip_mask"].nonzero()[0]) == whole["clip_mask"].sum()


def test_the_frames_that_are_not_shown_first_are_left_in_the_budget():
    env = VideoQAEnv(TASKS)
    env.reset(options={"skim_frames": 8})
    assert env.state.frames_left == 96 - 8
    none, _ = env.reset(options={"skim_frames": 0})
    assert none["clip_mask"].sum() == 0 and env.state.frames_left == 96
    env.step(Crop(1.0, 9.0))
    assert env.state.frames_left == 80


@pytest.mark.parametrize("number", [33, -1, 2.0, "8", True, math.nan, [8]])
def test_what_is_no_number_of_frames_of_the_recipe_is_refused_and_the_episode_goes_on(number):
    env = VideoQAEnv(TASKS)
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ValueError, match="skim_frames must be a whole number from 0 to 32"):
        env.reset(options={"skim_frames": number})
    assert env.state is before.state


@pytest.mark.parametrize("recipe", ["LONGVT/paper", "PARAVT/code"])
@pytest.mark.parametrize("number", [1, 5, np.int64(63)])
def test_an_odd_number_is_refused_where_frames_come_in_pairs(recipe, number):
    """Whatever the tasks: no video is blamed for it, and none shows one frame fewer."""
    env = VideoQAEnv(TASKS, recipe, on_bad_video="skip")
    most = env.recipe.rules.skim_frames
    with pytest.raises(
        ValueError, match=f"skim_frames must be an even number from 0 to {most}, got"
    ) as refused:
        env.reset(options={"skim_frames": number})
    assert not isinstance(refused.value, VideoError)
    assert int(env.reset()[1]["bad_videos"]) == 0


@pytest.mark.parametrize("changes", [{"skim_fps": 1.0}, {"skim_sampling": "counted"}])
def test_rules_of_one_first_frame_that_no_video_could_show_are_refused(changes):
    with pytest.raises(ValueError, match="skim_frames must be 0 or at least 2"):
        replace(get_recipe("DEFAULT").rules, skim_frames=1, **changes)


def varying(path, count):
    """A film whose frames come at 8 and at 4 a second in turn."""
    pts = np.cumsum([0] + [1 + i // 8 % 2 for i in range(count - 1)])
    write_clip(path, count, pts=pts.tolist(), time_base=Fraction(1, 8))
    return str(path)


@pytest.mark.parametrize("name", ["DEFAULT", "VIDEO_MTR/paper", "VIDEO_ZOOMER/code", "VIDEO_ZOOMER/paper"])
@pytest.mark.parametrize("number", [1, 3, 6])
def test_any_other_number_is_shown_exactly_whatever_the_frame_rate(name, number, tmp_path):
    task = Task("t", varying(tmp_path / "v.mkv", 96), "Who?", "open", answer="Ann")
    for tasks in (TASKS, [task]):
        env = VideoQAEnv(tasks, name)
        assert int(env.reset(seed=0, options={"skim_frames": number})[1]["frames_shown"]) == number
        assert len(env.state.skim.times_s) == number and env.state.skim.times_s[0] < 0.2
    assert env.state.video.is_vfr


def test_a_number_of_numpy_is_a_number_and_changes_no_draw_of_tasks():
    first, second = VideoQAEnv(TASKS), VideoQAEnv(TASKS)
    first.reset(seed=5)
    second.reset(seed=5, options={"skim_frames": np.int64(4)})
    assert [first.reset()[1]["task_id"] for _ in range(9)] == [
        second.reset()[1]["task_id"] for _ in range(9)
    ]
