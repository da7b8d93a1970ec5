"""Integers stand for windows that tile the video, and for options."""

# ruff: noqa: D103

from itertools import pairwise

import pytest
from hand_episodes import Hand
from pytest import approx

from videogym import Answer, Crop, DiscreteActions, Segment, Select, Task, VideoQAEnv, get_recipe
from videogym.datasets import TaskList
from videogym.wrappers import window_bounds_s

ADDRESS = "synthetic:brief_event?level=0&duration_s=64&seed=1&size=64x36"
TASK = Task("task", ADDRESS, "Which?", "choice", ("w", "x"), "B", (Segment(20, 25),))


def make(recipe, **arguments):
    env = DiscreteActions(VideoQAEnv([TASK], recipe), **arguments)
    env.reset(seed=0)
    return env


@pytest.mark.parametrize("recipe", ["DEFAULT", "VIDEO_MTR/paper"])
@pytest.mark.parametrize("windows", [1, 7, 16])
def test_windows_tile_the_video(recipe, windows):
    state = Hand(get_recipe(recipe), num_frames=640, fps=10.0).state
    bounds = [window_bounds_s(state, index, windows) for index in range(windows)]
    assert bounds[0][0] == 0.0 and bounds[-1][1] == approx(64.0)
    assert all(end == start for (_, end), (start, _) in pairwise(bounds))


def test_windows_of_a_pool_hold_equally_many_frames():
    state = Hand(get_recipe("VIDEO_MTR/paper"), num_frames=1280, fps=10.0).state
    for index in range(16):
        start_s, end_s = window_bounds_s(state, index, 16)
        assert sum(start_s <= t < end_s for t in state.pool_s) == 8


def test_integers_become_looks_and_answers():
    env = make("DEFAULT", windows=8, options=4)
    assert env.action_space.n == 12
    assert env.decode(2) == Crop(16.0, 24.0)
    assert env.decode(9) == Answer("B")
    assert make("VIDEO_MTR/paper", windows=8).decode(0) == Select(
        0.0, env.unwrapped.state.video.duration_s / 8 + 0.125
    )
    assert env.step(9)[4]["is_success"]


@pytest.mark.parametrize(("recipe", "look"), [("DEFAULT", Crop), ("VIDEO_MTR/paper", Select)])
@pytest.mark.parametrize("scales", [(2, 8), (8, 2), (1, 3, 7)])
def test_several_scales_follow_one_another(recipe, look, scales):
    """Every scale tiles the video by itself, as it does alone; answers come after all looks."""
    env = make(recipe, windows=scales)
    assert env.action_space.n == sum(scales) + 4
    actions = iter(range(sum(scales)))
    for windows in scales:
        alone = make(recipe, windows=windows)
        for index in range(windows):
            action = env.decode(next(actions))
            assert action == alone.decode(index) and isinstance(action, look)
    assert env.decode(sum(scales) + 1) == Answer("B")
    assert env.step(sum(scales) + 1)[4]["is_success"]


def test_windows_of_two_sizes_without_a_pool():
    """Of 64 seconds: halves, then quarters, then options."""
    env = make("DEFAULT", windows=(2, 4))
    bounds = [(0, 32), (32, 64), (0, 16), (16, 32), (32, 48), (48, 64)]
    assert [env.decode(index) for index in range(6)] == [Crop(start, end) for start, end in bounds]
    assert env.decode(6) == Answer("A")


def test_windows_of_two_sizes_of_a_pool():
    """Of 64 pool frames: 32 in each half, 16 in each quarter."""
    env = make("VIDEO_MTR/paper", windows=(2, 4))
    pool = env.unwrapped.state.pool_s
    looks = [env.decode(index) for index in range(6)]
    held = [sum(look.start_s <= t < look.end_s for t in pool) for look in looks]
    assert held == [32, 32, 16, 16, 16, 16]


def test_an_option_the_task_does_not_have_spends_the_turn():
    env = make("DEFAULT", windows=8, options=4)
    assert env.step(11)[4]["error_code"] == "unknown_option"


@pytest.mark.parametrize("action", [-1, 12])
def test_a_number_outside_the_space_is_a_mistake_of_the_caller(action):
    with pytest.raises(ValueError, match="0 to 11"):
        make("DEFAULT", windows=8, options=4).step(action)


@pytest.mark.parametrize("windows", [0, (), (4, 0), [-1]])
def test_no_windows_is_refused(windows):
    with pytest.raises(ValueError, match="at least 1"):
        make("DEFAULT", windows=windows)


OPEN = Task("what", ADDRESS, "What is it?", "open", answer="a flag")
NUMERIC = Task("many", ADDRESS, "How many?", "numeric", answer="3")
FIVE = Task("five", ADDRESS, "Which?", "choice", tuple("vwxyz"), "E")


@pytest.mark.parametrize(
    ("task", "complaint"),
    [
        (OPEN, "task 'what' has no options .* its kind is 'open'; use TextActions"),
        (NUMERIC, "task 'many' has no options .* its kind is 'numeric'; use TextActions"),
        (FIVE, r"task 'five' has 5 options, the actions reach 4: use DiscreteActions\(env, options=5\)"),
    ],
)
def test_tasks_that_no_integer_can_answer_are_refused(task, complaint):
    with pytest.raises(ValueError, match=complaint):
        DiscreteActions(VideoQAEnv([TASK, task]))

    lazy = VideoQAEnv([TASK])
    env = DiscreteActions(lazy)
    lazy.tasks = TaskList([task])
    with pytest.raises(ValueError, match=complaint):
        env.reset(seed=0)
    with pytest.raises(ValueError, match=complaint):
        env.step(17)


def test_all_options_can_be_answered():
    env = DiscreteActions(VideoQAEnv([TASK, FIVE]), options=5)
    env.reset(options={"task_id": "five"})
    assert env.step(20)[4]["is_success"]
