"""An episode may begin with fewer frames than its recipe shows; everything else stays."""

# ruff: noqa: D103

import math

import numpy as np
import pytest

from videogym import Crop, VideoQAEnv

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


def test_a_number_of_numpy_is_a_number_and_changes_no_draw_of_tasks():
    first, second = VideoQAEnv(TASKS), VideoQAEnv(TASKS)
    first.reset(seed=5)
    second.reset(seed=5, options={"skim_frames": np.int64(4)})
    assert [first.reset()[1]["task_id"] for _ in range(9)] == [
        second.reset()[1]["task_id"] for _ in range(9)
    ]
