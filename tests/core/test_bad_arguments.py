"""Every argument of a look, as every way of acting may get it wrong: refused, or within all bounds.

Ways are structured actions, the native grammar's calls, tool calls, and the calls of VideoZoomer and EVA.
"""

# ruff: noqa: D103

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogym import Crop, DiscreteActions, Select, TextActions, VideoQAEnv
from videogym.actions import Showing
from videogym.recipes import DEFAULT, FIND, get_recipe, recipe_names
from videogym.sizes import clip_tokens
from videogym.state import action_kinds
from videogym.tool_episode import ToolEpisode

TASKS = "procedural:brief_event?level=0&duration_s=60&count=20&size=280x168"
OPEN = replace(
    DEFAULT,
    name="OPEN",
    rules=replace(
        DEFAULT.rules,
        crop_arguments=("fps", "frames", "scale"),
        max_scaled_pixels=640 * 360,
        look_tokens=2000,
        skim_frames=4,
    ),
)
NAMES = ("fps", "frames", "scale")
# As JSON writes them, so that a policy can.
WRONG = ("NaN", "Infinity", "-Infinity", "-1", "0", "1e400", "9" * 500, '"2"', '""', "[2]", "{}", "true")
TIMES = {"start_s": 10.0, "end_s": 20.0}


def started(recipe=OPEN):
    env = VideoQAEnv(TASKS, recipe)
    env.reset(seed=0)
    return env


def by_text(recipe, text):
    env = TextActions(started(recipe))
    env.reset(seed=0)
    observation, reward, *_, info = env.step(text)
    assert observation in env.observation_space and math.isfinite(reward)
    return env.unwrapped.state, info


def check_spent(state):
    """The turn was spent, with a reason in one line or with frames within all bounds."""
    (turn,) = state.turns
    if turn.error is not None:
        assert turn.error.code and turn.error.reason and "\n" not in turn.error.reason
        assert len(turn.error.reason) < 300
    for clip in turn.clips:
        assert 1 <= len(clip.times_s) <= state.rules.clip_frames
        if state.rules.look_tokens:
            assert clip_tokens(clip, state.video, state.rules) <= state.rules.look_tokens
    return turn


@pytest.mark.parametrize("value", WRONG, ids=lambda value: value[:12])
@pytest.mark.parametrize("name", NAMES)
def test_a_call_with_a_wrong_value_is_refused_by_text_and_by_tool(name, value):
    arguments = json.dumps(TIMES)[:-1] + f', "{name}": {value}}}'
    state, info = by_text(OPEN, f'<tool_call>{{"name": "crop", "arguments": {arguments}}}</tool_call>')
    turn = check_spent(state)
    assert turn.error is not None and info["invalid"] and not turn.clips
    episode = ToolEpisode(VideoQAEnv(TASKS, OPEN))
    episode.begin(seed=0)
    reply = episode.call("crop", TIMES | {name: json.loads(value)})
    assert reply.error_code and check_spent(episode.state).error is not None


@pytest.mark.parametrize("bounds", ["refuse", "clamp"])
@pytest.mark.parametrize("name", NAMES)
def test_a_huge_value_shows_no_more_than_the_bounds(name, bounds):
    """Above the range it is refused, or cut to it; a count is cut by the bound of a look in either case."""
    recipe = replace(OPEN, rules=replace(OPEN.rules, crop_range=bounds))
    call = {"name": "crop", "arguments": TIMES | {name: 10**15}}
    turn = check_spent(by_text(recipe, f"<tool_call>{json.dumps(call)}</tool_call>")[0])
    assert bool(turn.clips) == (name == "frames" or bounds == "clamp")


def test_rate_and_count_together_are_refused_and_by_structured_actions_the_count_holds():
    call = {"name": "crop", "arguments": TIMES | {"fps": 2, "frames": 3}}
    state, info = by_text(OPEN, f"<tool_call>{json.dumps(call)}</tool_call>")
    assert info["error_code"] == "both" and not state.turns[0].clips
    env = started()
    env.step(member(fps=np.array([0.5]), frames=3))
    assert len(env.state.turns[0].clips[0].times_s) == 3


@pytest.mark.parametrize("missing", ["start_s", "end_s"])
def test_a_missing_time_is_refused_and_a_missing_argument_is_left_to_the_rules(missing):
    times = {name: value for name, value in TIMES.items() if name != missing}
    call = {"name": "crop", "arguments": times | {"fps": 2}}
    state, info = by_text(OPEN, f"<tool_call>{json.dumps(call)}</tool_call>")
    assert info["invalid"] and missing in state.turns[0].error.reason
    call = {"name": "crop", "arguments": TIMES}
    state, info = by_text(OPEN, f"<tool_call>{json.dumps(call)}</tool_call>")
    assert not info["invalid"] and state.turns[0].clips


# --- structured actions ------------------------------------------------------------------------


def member(**changes):
    action = {
        "kind": 0,
        "segment": np.array([0.2, 0.4]),
        "region": np.array([0, 0, 1, 1], np.float32),
        "fps": np.array([0.0]),
        "frames": 0,
        "scale": np.array([0.0]),
    }
    return action | changes


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        *((name, np.array([value]), "type") for name in ("fps", "scale") for value in (math.nan, math.inf)),
        ("fps", np.array([-1.0]), "fps"),
        ("fps", np.array([1e300]), "fps"),
        ("scale", np.array([-1.0]), "scale"),
        ("scale", np.array([1e300]), "scale"),
        ("frames", -1, "frames"),
        ("frames", 10**400, "type"),
        ("segment", np.array([math.nan, 0.5]), "type"),
        ("segment", np.array([-0.5, 0.5]), "negative"),
        ("region", np.array([0, 0, math.nan, 1]), "region"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_value_out_of_its_space_is_a_refused_turn(name, value, code):
    env = started()
    observation, *_, info = env.step(member(**{name: value}))
    assert info["error_code"] == code and check_spent(env.state).error is not None
    assert observation in env.observation_space


@pytest.mark.parametrize(
    "value", [None, [], np.array([]), "fast", b"x", {}, object()], ids=lambda v: type(v).__name__
)
@pytest.mark.parametrize("name", ["fps", "frames", "scale", "region", "segment"])
def test_a_value_of_another_shape_is_a_mistake_of_the_caller(name, value):
    """A line that names the argument, what is allowed and what was given; the episode stands as it was."""
    env = started()
    with pytest.raises(ValueError, match=rf"does not fit its space: {name} must be in .*, got") as caught:
        env.step(member(**{name: value}))
    assert "\n" not in str(caught.value) and env.state.turns == ()


@pytest.mark.parametrize("value", [np.datetime64("2020-01-01T00:00:00"), np.timedelta64(1, "s")], ids=repr)
def test_a_date_is_no_kind_of_action(value):
    """NumPy takes it for a number and Python does not: the line names the key all the same."""
    env = started()
    with pytest.raises(ValueError, match=r"its space: kind must be in .*, got") as caught:
        env.step(member() | {"kind": value})
    assert "\n" not in str(caught.value) and env.state.turns == ()


@pytest.mark.parametrize("name", ["fps", "frames", "scale", "region", "segment"])
def test_a_structured_action_without_an_argument_is_a_mistake_of_the_caller(name):
    action = member()
    del action[name]
    with pytest.raises(ValueError, match=f"lacks the key '{name}'"):
        started().step(action)


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "two", [1]])
def test_a_count_or_kind_that_is_no_number_is_a_mistake_of_the_caller(value):
    for name in ("frames", "kind"):
        with pytest.raises(ValueError, match=f"{name} must be in Discrete"):
            started().step(member(**{name: value}))


# --- other grammars ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", WRONG, ids=lambda value: value[:12])
@pytest.mark.parametrize("profile", ["paper", "code"])
def test_video_zoomer_refuses_a_wrong_rate_or_shows_within_its_bounds(profile, value):
    """The published reader takes strings and truth values for numbers, and some rates below one."""
    text = f'<think>x</think><video_zoom>{{"segment": [10, 20], "fps": {value}}}</video_zoom>'
    turn = check_spent(by_text(get_recipe(f"VIDEO_ZOOMER/{profile}"), text)[0])
    assert profile == "code" or (turn.error is not None and not turn.clips)


@pytest.mark.parametrize("value", WRONG, ids=lambda value: value[:12])
@pytest.mark.parametrize("name", ["start_time", "end_time", "nframes", "resize"])
def test_eva_takes_or_leaves_a_wrong_value_and_keeps_its_budget(name, value):
    given = {"start_time": 10, "end_time": 20, "nframes": 4, "resize": 0.5}
    written = ", ".join(f'"{key}": {value if key == name else json.dumps(x)}' for key, x in given.items())
    text = f'Look.<tool_call>{{"tool": "frame_select", "arguments": {{{written}}}}}</tool_call>'
    check_spent(by_text(get_recipe("EVA/code"), text)[0])


values = st.one_of(
    st.floats(),
    st.integers(),
    st.text(max_size=3),
    st.booleans(),
    st.none(),
    st.lists(st.floats(), max_size=2),
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["start_s", "end_s", "region", *NAMES]), values))
def test_whatever_a_tool_is_called_with_the_turn_is_spent(arguments):
    episode = ToolEpisode(VideoQAEnv(TASKS, OPEN))
    episode.begin(seed=0)
    reply = episode.call("crop", arguments)
    turn = check_spent(episode.state)
    assert bool(reply.error_code) == (turn.error is not None) and (turn.error is None) == bool(turn.clips)


# --- searches ----------------------------------------------------------------------------------

QUERIES = {
    "empty": {"query": ""},
    "white": {"query": " \n\u2003"},
    "long": {"query": "x" * 100_000},
    "number": {"query": 7},
    "list": {"query": ["a"]},
    "none": {"query": None},
    "missing": {},
    "no moments": {"query": "a flag", "k": 0},
    "fewer": {"query": "a flag", "k": -1},
    "half": {"query": "a flag", "k": 1.5},
    "text": {"query": "a flag", "k": "2"},
    "nan": {"query": "a flag", "k": math.nan},
    "infinite": {"query": "a flag", "k": math.inf},
    "more": {"query": "a flag", "of": 2},
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_wrong_search_is_refused_by_text_and_by_tool(name):
    """With a reason that does not repeat a long query; nothing is searched for."""
    call = json.dumps({"name": "find", "arguments": QUERIES[name]})
    state, info = by_text(get_recipe("FIND"), f"<tool_call>{call}</tool_call>")
    assert check_spent(state).error is not None and info["invalid"] and not state.turns[0].clips
    episode = ToolEpisode(VideoQAEnv(TASKS, "FIND"))
    episode.begin(seed=0)
    reply = episode.call("find", QUERIES[name])
    assert reply.error_code and check_spent(episode.state).error is not None


def test_a_search_for_more_moments_than_may_be_shown_shows_as_many_as_may():
    call = json.dumps({"name": "find", "arguments": {"query": "a flag", "k": 10**12}})
    turn = check_spent(by_text(get_recipe("FIND"), f"<tool_call>{call}</tool_call>")[0])
    assert turn.error is None and turn.clips


NUMBERS = [math.nan, math.inf, -math.inf, -1, -1e308, 0, 1e-300, 1e300, 1e308, 10**400, -(10**400)]
NO_NUMBERS = ["8", "nan", "", True, False, None, [1], {}, b"8", 1j, np.bool_(True)]
LEFT_OUT = {"region", "fps", "frames", "scale", "k"}  # by None


def wrong_looks(kind):
    """Every argument of a kind of look with every value, beside sound ones."""
    if kind == "find":
        sound = {"query": "a red circle", "k": 2}
    else:
        sound = {"start_s": 10.0, "end_s": 14.0}
    for name in [one.name for one in fields(action_kinds()[kind]) if one.name != "found_s"]:
        values = [*NUMBERS, *NO_NUMBERS]
        if name == "region":
            values += [[0.1, value, 0.9, 0.9] for value in [*NUMBERS, *NO_NUMBERS]]
        for value in values:
            if not (name in LEFT_OUT and value is None):
                yield {**sound, name: value}


@pytest.mark.parametrize("name", recipe_names())
def test_no_recipe_shows_frames_for_what_is_no_number_or_more_than_it_may(name):
    """By actions that a caller makes; what is executed has finite times, and no more frames than it may."""
    recipe = get_recipe(name)
    env = started(recipe)
    first = env.get_state()
    for kind in recipe.rules.actions:
        for arguments in wrong_looks(kind) if issubclass(action_kinds()[kind], Showing) else ():
            env.set_state(first)
            _, reward, *_ = env.step(action_kinds()[kind](**arguments))
            (turn,) = env.state.turns
            assert math.isfinite(reward), (kind, arguments)
            check_spent(env.state)
            turn.results[0].action.label()
            values = [
                v for value in arguments.values() for v in (value if isinstance(value, list) else [value])
            ]
            strange = any(type(v) not in (int, float, str) or v != v for v in values)
            if kind != "find":
                strange |= any(isinstance(v, str) for v in values)
            assert not (strange and turn.clips), (kind, arguments)


BOTH = replace(
    get_recipe("VIDEO_MTR/paper"),
    name="BOTH",
    rules=replace(
        get_recipe("VIDEO_MTR/paper").rules, actions=("select", "crop", "answer"), crop_arguments=("fps",)
    ),
)


def test_arguments_of_a_discrete_look_are_those_of_a_crop_where_the_recipe_selects_too():
    env = DiscreteActions(VideoQAEnv(TASKS, BOTH), windows=2, arguments=({}, {"fps": 2}))
    env.reset(seed=0)
    looks = [env.decode(index) for index in range(4)]
    assert [type(look) for look in looks] == [Select, Select, Crop, Crop]
    assert [look.fps for look in looks[2:]] == [2, 2]
    assert [(one.start_s, one.end_s) for one in looks[:2]] == [
        (one.start_s, one.end_s) for one in looks[2:]
    ]


@pytest.mark.parametrize("fps", [math.nan, math.inf, -math.inf, -1, 0])
def test_a_rate_at_which_no_window_shows_frames_is_refused_at_once(fps):
    """Also where the published code takes any rate, and refuses what comes of it."""
    with pytest.raises(ValueError, match="fps must be"):
        DiscreteActions(VideoQAEnv(TASKS, "VIDEO_ZOOMER/code"), arguments=({"fps": fps},))


def test_windows_need_a_recipe_that_looks_at_them():
    recipe = replace(FIND, name="ONLY", rules=replace(FIND.rules, actions=("find", "answer")))
    with pytest.raises(ValueError, match="windows are looked at by select or crop, the recipe has find"):
        DiscreteActions(VideoQAEnv(TASKS, recipe))
