"""Integers stand for windows that tile the video, and for options."""

# ruff: noqa: D103

from dataclasses import replace
from itertools import pairwise

import pytest
from hand_episodes import Hand
from pytest import approx

from videogym import Answer, Crop, DiscreteActions, Find, Segment, Select, Task, VideoQAEnv, get_recipe
from videogym.actions.find import MAX_QUERY_CHARS
from videogym.datasets import TaskList
from videogym.recipes import FIND
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


SEARCHED = replace(
    FIND, name="SEARCHED", rules=replace(FIND.rules, crop_arguments=("fps", "frames", "scale"))
)


def test_every_window_comes_once_for_each_set_of_arguments_then_a_search_then_the_answers():
    """Of 64 seconds: halves, and quarters at two further rates."""
    sets = ({}, {"fps": 4}, {"frames": 3, "scale": 0.5, "region": (0.0, 0.0, 0.5, 1.0)})
    env = make(SEARCHED, windows=(2, 1), options=4, arguments=sets, moments=2)
    assert env.action_space.n == 3 * 3 + 1 + 4 and env.looks == 10
    segments = [(0, 32), (32, 64), (0, 64)]
    looks = [Crop(start, end, **some) for some in sets for start, end in segments]
    assert [env.decode(index) for index in range(9)] == looks
    assert env.decode(9) == Find("Which?", 2) and env.decode(11) == Answer("B")
    assert env.step(5)[4]["frames_shown"] > 0 and env.unwrapped.state.turns[-1].valid
    assert env.step(9)[4]["frames_shown"] > 0 and env.unwrapped.state.turns[-1].looked
    assert env.step(11)[4]["is_success"]


def test_a_search_is_offered_with_one_window_too():
    env = make(SEARCHED, windows=1, options=2, moments=1)
    assert [env.decode(index) for index in range(4)] == [
        *(Crop(0.0, 64.0), Find("Which?", 1)),
        *(Answer("A"), Answer("B")),
    ]


def test_a_long_question_is_searched_for_by_its_beginning():
    task = replace(TASK, question="w" * 8000)
    env = DiscreteActions(VideoQAEnv([task], SEARCHED), moments=1)
    env.reset(seed=0)
    assert env.decode(16).query == "w" * MAX_QUERY_CHARS and env.step(16)[4]["error_code"] == ""


@pytest.mark.parametrize(
    ("recipe", "arguments", "complaint"),
    [
        ("DEFAULT", {"arguments": ({}, {"fps": 8})}, r"no argument 'fps' of looks; open are \['region'\]"),
        (
            "LONGVT/paper",
            {"arguments": ({"region": (0, 0, 1, 1)},)},
            r"no argument 'region' .* open are \[\]",
        ),
        ("VIDEO_MTR/paper", {"arguments": ({"fps": 8},)}, r"no argument 'fps' .* open are \[\]"),
        (SEARCHED, {"arguments": ({"speed": 2},)}, r"no argument 'speed'"),
        (SEARCHED, {"arguments": ()}, "at least one set"),
        (SEARCHED, {"moments": -1}, "moments must not be negative, got -1"),
        ("DEFAULT", {"moments": 2}, "offers no search, got 2"),
    ],
)
def test_looks_that_the_recipe_does_not_open_are_refused(recipe, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        make(recipe, **arguments)


DEFAULT = get_recipe("DEFAULT")
RATES = replace(
    DEFAULT, rules=replace(DEFAULT.rules, clip_frames=8, max_fps=30.0, crop_arguments=("fps", "frames"))
)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"fps": -1}, r"arguments \{'fps': -1\}: fps must be above 0 and at most 30, got -1"),
        ({"fps": 0}, "fps must be above 0 and at most 30, got 0"),
        ({"fps": 1e9}, r"fps must be above 0 and at most 30, got 1e\+09"),
        ({"fps": "fast"}, r"arguments \{'fps': 'fast'\}: fps must be a finite number"),
        ({"fps": [1]}, r"arguments \{'fps': \[1\]\}: fps must be a finite number"),
        ({"fps": True}, r"arguments \{'fps': True\}: fps must be a finite number"),
        ({"fps": 1, "frames": 2}, "fps or frames, not both"),
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"frames": 1.5}, r"frames must be a whole number, got 1\.5"),
        ({"frames": 9}, "frames must be 1 to 8, which one look can show, got 9"),
        ({"region": (0.5, 0.0, 0.2, 1.0)}, r"arguments \{'region': \(0\.5, 0\.0, 0\.2, 1\.0\)\}"),
        ({"region": "left"}, r"arguments \{'region': 'left'\}"),
    ],
)
def test_a_value_that_every_look_would_be_refused_for_is_refused_at_once(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        make(RATES, windows=4, arguments=({}, arguments))


def test_what_rules_clamp_is_a_value():
    clamped = replace(RATES, rules=replace(RATES.rules, crop_range="clamp"))
    env = make(clamped, windows=1, arguments=({"fps": 1e9},))
    assert env.step(0)[4]["error_code"] == "" and env.unwrapped.state.turns[-1].valid


def test_a_search_brings_no_more_moments_than_one_look_shows():
    most = FIND.rules.clip_frames
    assert make(SEARCHED, moments=most).moments == most
    with pytest.raises(ValueError, match=f"moments must be 0 to {most}, .* got {most + 1}"):
        make(SEARCHED, moments=most + 1)


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
