"""Looks with arguments: rate, count, scale and region under every rule, and bounds that always hold."""

# ruff: noqa: D102, D103

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogym import Answer, Crop, TextActions, VideoQAEnv
from videogym.actions import Look, Select, begin, play
from videogym.actions.structured import action_space, as_move
from videogym.grammars import get_grammar
from videogym.play import Game
from videogym.recipes import DEFAULT, VIDEO_MTR
from videogym.sizes import clip_tokens, frame_size, native_size, resized, tokens
from videogym.state import Clip, Invalid, Move, Rules, Task
from videogym.testing.blank_video import BlankVideo
from videogym.traces import Trace, TurnTrace, from_line, to_line

TASK = Task("t", "blank", "What?", "choice", ("a", "b"), "A")
OPEN = Rules(
    actions=("crop", "answer"),
    max_turns=6,
    skim_frames=4,
    clip_frames=16,
    crop_arguments=("fps", "frames", "scale"),
    regions=True,
    max_pixels=112 * 112,
    max_scaled_pixels=1288 * 728,  # 720p in whole squares of 28
)


def started(rules=OPEN, video=None, **changes):
    video = video or BlankVideo(3000, 30.0, 1280, 720)
    state = begin(TASK, video.meta, video.pts_s, replace(rules, **changes), "TEST@0")
    return state, video


def looked(*actions, video=None, rules=OPEN, **changes):
    """The results of one turn."""
    state, video = started(rules, video, **changes)
    return play(state, Move(actions), video.pts_s).turns[-1].results


def code(*actions, **changes):
    error = looked(*actions, **changes)[-1].error
    return error and error.code


# --- what is asked for is shown ----------------------------------------------------------------


def test_a_rate_a_count_and_a_scale_are_shown():
    (rate,) = looked(Crop(10, 12, fps=4))
    assert len(rate.clip.times_s) == 8 and rate.clip.scale is None
    assert rate.clip.times_s[0] == 10 and rate.clip.times_s[-1] == 12
    # Five instants of [10, 20 - 0.001): 10, 12.49975, ..., and the nearest of frames 1/30 s apart.
    (count,) = looked(Crop(10, 20, frames=5))
    assert np.allclose(count.clip.times_s, [10, 12.5, 15, 17.5, 20], atol=1e-9)
    (one,) = looked(Crop(10, 20, frames=1))
    assert one.clip.times_s == (15.0,)
    (scaled,) = looked(Crop(10, 20, frames=2, scale=0.5))
    # 640 x 360: 22.86 and 12.86 squares of 28, to the nearest 23 and 13.
    assert frame_size(BlankVideo(9, 1.0, 1280, 720).meta, OPEN, None, 0.5) == (644, 364)
    assert scaled.clip.scale == 0.5
    # Without a scale the pixel budget decides: 112 x 112 hold 16 squares, 5 x 3 with this aspect.
    assert frame_size(BlankVideo(9, 1.0, 1280, 720).meta, OPEN) == (140, 84)


def test_a_scale_is_one_of_the_regions_own_pixels():
    video = BlankVideo(9, 1.0, 1280, 720).meta
    (result,) = looked(Crop(0, 9, (0, 0, 0.5, 0.5), frames=1, scale=1.0))
    assert frame_size(video, OPEN, result.clip.region, 1.0) == (644, 364)
    assert native_size(video, result.clip.region) == (640, 360)


REFUSED = [
    (Crop(0, 9, fps=math.nan), "type"),
    (Crop(0, 9, fps=math.inf), "type"),
    (Crop(0, 9, fps=-1), "fps"),
    (Crop(0, 9, fps=0), "fps"),
    (Crop(0, 9, fps=31), "fps"),
    (Crop(0, 9, fps="2"), "type"),
    (Crop(0, 9, fps=10**400), "type"),
    (Crop(0, 9, frames=math.nan), "type"),
    (Crop(0, 9, frames=2.5), "type"),
    (Crop(0, 9, frames=0), "frames"),
    (Crop(0, 9, frames=-3), "frames"),
    (Crop(0, 9, frames="3"), "type"),
    (Crop(0, 9, scale=math.nan), "type"),
    (Crop(0, 9, scale=0), "scale"),
    (Crop(0, 9, scale=-0.5), "scale"),
    (Crop(0, 9, scale=1.5), "scale"),
    (Crop(0, 9, scale=[1]), "type"),
    (Crop(0, 9, fps=1, frames=2), "both"),
]


@pytest.mark.parametrize(("action", "expected"), REFUSED, ids=lambda value: str(value)[:70])
def test_a_value_out_of_its_range_is_refused_with_a_reason(action, expected):
    assert code(action) == expected
    (result,) = looked(action)
    assert result.error.reason and "\n" not in result.error.reason
    assert isinstance(action.label(), str)


def test_rules_that_clamp_bring_values_into_their_range():
    clamp = {"crop_range": "clamp"}
    assert len(looked(Crop(10, 10.5, fps=1e9), **clamp)[0].clip.times_s) == 16  # 30 fps, both ends
    assert len(looked(Crop(10, 20, frames=0), **clamp)[0].clip.times_s) == 1
    assert looked(Crop(10, 20, frames=2, scale=7), **clamp)[0].clip.scale == 1.0
    assert looked(Crop(-5, 1e9), **clamp)[0].clip.times_s[0] == 0.0
    for value in (math.nan, math.inf):
        assert code(Crop(10, 20, fps=value), **clamp) == "type"
    assert code(Crop(10, 20, fps=-1), **clamp) == "fps"  # nothing near to it is a rate


@pytest.mark.parametrize("name", ["fps", "frames", "scale"])
def test_an_argument_that_the_rules_do_not_open_is_refused_offered_nowhere_and_in_no_space(name):
    rest = tuple(one for one in OPEN.crop_arguments if one != name)
    rules = replace(OPEN, crop_arguments=rest)
    assert code(Crop(10, 20, **{name: 1}), crop_arguments=rest) == name
    assert name not in Crop.parameters(rules) and name not in action_space(rules).spaces
    assert name in Crop.parameters(OPEN) and name in action_space(OPEN).spaces
    state, _ = started(rules)
    text = get_grammar("native").write(Crop(10, 20), state).replace("20.0", f'20.0, "{name}": 1')
    (action,) = get_grammar("native").parse(text, state).actions
    assert isinstance(action, Invalid) and action.code == "unknown_argument"


def test_unknown_arguments_and_bounds_are_refused_where_rules_are_made():
    with pytest.raises(ValueError, match="'rate'"):
        replace(OPEN, crop_arguments=("rate",))
    for name in ("turn_frames", "look_tokens", "turn_tokens", "token_budget"):
        with pytest.raises(ValueError, match=name):
            replace(OPEN, **{name: 0})
    with pytest.raises(ValueError, match="max_fps"):
        replace(OPEN, max_fps=math.inf)


# --- bounds ------------------------------------------------------------------------------------


def test_above_the_bound_a_look_is_refused_cut_or_shrunk():
    over = Crop(0, 60, frames=40)
    assert code(over, over_bound="refuse") == "too_many_frames"
    assert len(looked(over, over_bound="clamp")[0].clip.times_s) == 16
    tokens_of_all = Crop(0, 60, frames=10, scale=1.0)  # 46 x 26 squares each, 11,960 in all
    assert tokens(frame_size(BlankVideo(9, 1.0, 1280, 720).meta, OPEN, None, 1.0), OPEN) == 1196
    assert code(tokens_of_all, over_bound="refuse", look_tokens=4000) == "too_many_tokens"
    clamped = looked(tokens_of_all, over_bound="clamp", look_tokens=4000)[0].clip
    assert (len(clamped.times_s), clamped.scale) == (3, 1.0)
    # The cube root of 4000 / 11,960 is 0.694: six frames at 0.694, 32 x 18 squares, 3,456 in all.
    shrunk = looked(tokens_of_all, over_bound="shrink", look_tokens=4000)[0].clip
    assert len(shrunk.times_s) == 6 and shrunk.scale == pytest.approx((4000 / 11960) ** (1 / 3))


def test_a_look_that_the_policy_left_to_the_rules_is_cut_not_refused():
    (result,) = looked(Crop(0, 90), over_bound="refuse")
    assert len(result.clip.times_s) == 16 and result.clip.note == ""


@pytest.mark.parametrize(
    ("bounds", "expected"),  # a frame of the pool is 120 visual tokens, the skim 16 of them
    [
        ({}, 8),
        ({"look_tokens": 960}, 8),
        ({"look_tokens": 959}, 7),
        ({"look_tokens": 200, "token_budget": 2348}, 1),
        ({"token_budget": 1920 + 428}, 3),
        ({"turn_tokens": 250, "over_bound": "refuse"}, 2),
        ({"look_tokens": 100}, 0),
        ({"token_budget": 1920}, 0),
    ],
)
def test_bounds_in_tokens_hold_for_looks_that_are_no_crops(bounds, expected):
    rules = replace(VIDEO_MTR.rules, frame_budget=None, **bounds)
    (result,) = looked(Select(0, 100), rules=rules)
    if not expected:
        assert result.error.code == "budget" and "120 visual tokens" in result.error.reason
        return
    times_s = result.clip.times_s
    assert len(times_s) == expected and result.clip.note == ""
    # Fewer frames are spread like more, from the first of the segment on.
    (unbounded,) = looked(Select(0, 100), rules=replace(rules, clip_frames=expected, **NO_BOUNDS))
    assert times_s == unbounded.clip.times_s


NO_BOUNDS = {"look_tokens": None, "turn_tokens": None, "token_budget": None}


@dataclass(frozen=True, slots=True)
class CloseUp(Look):
    """Ten frames of a segment at a scale that it says itself."""

    kind: ClassVar[str] = "close_up"

    start_s: float
    end_s: float
    count: int = 10

    def frames(self, state, cap, pts_s):
        times_s = np.linspace(self.start_s, self.end_s, min(self.count, cap), endpoint=False)
        return Clip(tuple(times_s.tolist()), None, 1.0)


def test_a_look_of_ones_own_that_says_its_scale_is_bounded_as_the_rules_say():
    # 1288 x 728 pixels are 46 x 26 squares of 28: 1,196 tokens a frame.
    rules = replace(OPEN, actions=("close_up", "answer"), look_tokens=4000, tell_bound=True)
    (cut,) = looked(CloseUp(10, 20), rules=rules)
    assert (len(cut.clip.times_s), cut.clip.scale) == (3, 1.0) and "3 of 10 frames" in cut.clip.note
    assert cut.clip.times_s[-1] == pytest.approx(10 + 2 * 10 / 3)
    (refused,) = looked(CloseUp(10, 20), rules=rules, over_bound="refuse")
    assert refused.error.code == "too_many_tokens"
    (shrunk,) = looked(CloseUp(10, 20), rules=rules, over_bound="shrink")
    state, _ = started(rules)
    assert 3 < len(shrunk.clip.times_s) < 10 and shrunk.clip.scale < 1.0
    assert clip_tokens(shrunk.clip, state.video, rules) <= 4000
    (free,) = looked(CloseUp(10, 20), rules=rules, look_tokens=None)
    assert free.clip == CloseUp(10, 20).frames(state, 16, np.empty(0))


def test_a_look_of_ones_own_that_shows_more_than_its_cap_is_a_mistake_of_its_author():
    @dataclass(frozen=True, slots=True)
    class Greedy(CloseUp):
        kind: ClassVar[str] = "greedy"

        def frames(self, state, cap, pts_s):
            return Clip((1.0,) * (cap + 1))

    with pytest.raises(ValueError, match=r"Greedy\(.*shows 17 frames, its cap is 16"):
        looked(Greedy(10, 20), rules=replace(OPEN, actions=("greedy", "answer")))


def test_what_a_bound_took_is_told_where_the_rules_say_so():
    env = VideoQAEnv([TASK], replace(DEFAULT, rules=replace(OPEN, over_bound="clamp", tell_bound=True)))
    from videogym.testing.blank_video import OneVideoStore

    env.store = OneVideoStore(BlankVideo(3000, 30.0, 1280, 720))
    env.reset(seed=0)
    observation, _, _, _, info = env.step(Crop(0, 60, frames=40))
    assert "16 of 40 frames" in observation["message"] and not info["invalid"]
    assert "16 of 40 frames" in get_grammar("native").messages(env.state)[-1].text
    quiet = replace(env.recipe, rules=replace(env.recipe.rules, tell_bound=False))
    other = VideoQAEnv([TASK], quiet)
    other.store = env.store
    other.reset(seed=0)
    assert other.step(Crop(0, 60, frames=40))[0]["message"] == ""


def test_looks_of_one_turn_share_the_turns_bound():
    results = looked(
        *(Crop(start, start + 10, frames=4) for start in (0, 20, 40)),
        max_calls_per_turn=3,
        turn_frames=10,
        over_bound="refuse",
    )
    assert [result.clip and len(result.clip.times_s) for result in results] == [4, 4, None]
    assert results[2].error.code == "too_many_frames"
    full = looked(Crop(0, 10, frames=10), Crop(0, 10), max_calls_per_turn=2, turn_frames=10)
    assert full[1].error.code == "turn_frames"


def test_a_skim_that_does_not_fit_the_token_budget_is_no_episode():
    with pytest.raises(ValueError, match="visual tokens"):
        started(token_budget=3)


argument = st.one_of(
    st.none(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(0.001, 40.0),
    st.integers(-2, 10**6),
    st.sampled_from(["2", "", b"1", True, [1], 10**400]),
)
region = st.one_of(
    st.none(),
    st.tuples(*[st.floats(0, 1)] * 4),
    st.sampled_from([(0.0, 0.0, 0.001, 1.0), (0.2, 0.2, 0.7, 0.9)]),
)
moment = st.one_of(st.floats(-20, 130), st.floats(allow_nan=True, allow_infinity=True))
crops = st.builds(Crop, moment, moment, region, argument, argument, argument)
bound = st.one_of(st.none(), st.integers(1, 5000))
some_rules = st.builds(
    lambda **changes: replace(OPEN, **changes),
    over_bound=st.sampled_from(["refuse", "shrink", "clamp"]),
    crop_range=st.sampled_from(["refuse", "clamp"]),
    crop_sampling=st.sampled_from(["window", "truncated", "nearest"]),
    max_calls_per_turn=st.integers(1, 3),
    turn_frames=st.one_of(st.none(), st.integers(1, 30)),
    frame_budget=st.one_of(st.none(), st.integers(4, 40)),
    look_tokens=bound,
    turn_tokens=bound,
    token_budget=st.one_of(st.none(), st.integers(64, 9000)),
    frame_resize=st.sampled_from(["smart", "truncated"]),
    max_scale=st.sampled_from([0.3, 1.0, 4.0]),
)
videos = st.sampled_from(
    [BlankVideo(3000, 30.0, 1280, 720), BlankVideo(7, 1.0, 64, 36), BlankVideo(100, 23.976, 36, 3000)]
)


@settings(max_examples=400, deadline=None)
@given(some_rules, videos, st.lists(st.lists(crops, min_size=1, max_size=4), min_size=1, max_size=6))
def test_what_is_shown_never_exceeds_a_bound(rules, video, turns):
    try:
        state, _ = started(rules, video)
    except ValueError as error:
        assert "visual tokens" in str(error)
        return
    for actions in turns:
        state = play(state, Move(tuple(actions)), video.pts_s)
        turn = state.turns[-1]
        sizes = [len(clip.times_s) for clip in turn.clips]
        used = [clip_tokens(clip, video.meta, rules) for clip in turn.clips]
        assert all(1 <= size <= rules.clip_frames for size in sizes)
        assert sum(sizes) <= rules.max_turn_frames and len(sizes) <= rules.max_calls_per_turn
        assert all(used_by <= (rules.look_tokens or math.inf) for used_by in used)
        assert sum(used) <= (rules.turn_tokens or math.inf)
        for clip in turn.clips:
            assert set(clip.times_s) <= set(video.pts_s) and list(clip.times_s) == sorted(clip.times_s)
        for result in turn.results:
            assert (result.clip is None) == (result.error is not None)
    assert state.frames_shown <= rules.max_shown_frames
    assert state.frames_shown <= (rules.frame_budget or math.inf)
    shown = sum(clip_tokens(clip, video.meta, rules) for clip in state.clips)
    assert shown <= (rules.token_budget or math.inf)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 400), st.floats(0.05, 1.0), st.integers(1, 20_000),
    st.sampled_from([(1280, 720), (640, 360), (1920, 1080), (360, 640)]),
)  # fmt: skip
def test_shrink_keeps_as_much_as_the_published_formula(frames, scale, limit, size):
    video = BlankVideo(3000, 30.0, *size)
    big = {"clip_frames": 1000, "max_scaled_pixels": 10**8, "look_tokens": limit}
    (result,) = looked(Crop(0, 90, frames=frames, scale=scale), video=video, over_bound="shrink", **big)

    def cost(count, factor):
        sides = (max(1, round(side * factor / 28)) for side in size)
        return count * math.prod(sides)

    # EVA's evaluation code, as it is described: sides to 720 first, then the cube root for both.
    count, factor = frames, scale
    if cost(count, factor) > limit:
        factor = min(factor, 720 / min(size))
    if cost(count, factor) > limit:
        share = (limit / cost(count, factor)) ** (1 / 3)
        count, factor = max(1, int(count * share)), factor * share
    if cost(count, factor) <= limit:
        assert (len(result.clip.times_s), result.clip.scale) == (count, pytest.approx(factor))
    else:  # its rounding lands above the limit, which is a bound here
        assert result.clip is None or clip_tokens(result.clip, video.meta, replace(OPEN, **big)) <= limit


# --- spaces, texts, traces ---------------------------------------------------------------------


def test_structured_actions_read_every_argument_and_zero_leaves_it_out():
    state, _ = started()
    values = {
        "kind": 0,
        "segment": np.array([0.1, 0.2]),
        "region": np.array([0, 0, 1, 1], np.float32),
        "fps": np.array([0.25]),  # of the highest rate, 30
        "frames": 0,
        "scale": np.array([0.0]),
    }
    (action,) = as_move(values, state).actions
    assert (action.start_s, action.end_s, action.fps, action.frames, action.scale) == (
        10,
        20,
        7.5,
        None,
        None,
    )
    (action,) = as_move({**values, "frames": 5, "scale": np.array([0.5])}, state).actions
    assert (action.fps, action.frames, action.scale) == (None, 5, 0.5)
    both = as_move([values, Answer("A")], state)
    assert len(both.actions) == 2
    for member in (action_space(OPEN).sample() for _ in range(50)):
        as_move(member, state)


@settings(max_examples=150, deadline=None)
@given(
    st.builds(
        Crop, st.floats(0, 50), st.floats(50, 90), st.one_of(st.none(), st.just((0.1, 0.2, 0.5, 0.7))),
        st.one_of(st.none(), st.floats(0.01, 30)), st.one_of(st.none(), st.integers(1, 99)),
        st.one_of(st.none(), st.floats(0.01, 1)),
    )
)  # fmt: skip
def test_written_arguments_come_back_through_text_and_through_a_trace(action):
    state, video = started()
    grammar = get_grammar("native")
    assert grammar.parse(grammar.write(action, state), state).actions == (action,)
    after = play(state, Move((action,)), video.pts_s)
    trace = Trace(
        "r", "TEST@0", TASK, video.meta, state.skim, (TurnTrace(after.turns[0], 0.0, {}),), "", "", None
    )
    assert from_line(to_line(trace)) == trace


@pytest.mark.parametrize("value", ['"2"', "true", "[2]", "null", "{}", "1e999", "NaN"])
@pytest.mark.parametrize("name", ["fps", "frames", "scale"])
def test_a_text_with_an_argument_of_a_wrong_type_is_refused(name, value):
    state, _ = started()
    given = f'{{"start_s": 1, "end_s": 2, "{name}": {value}}}'
    text = f'<tool_call>{{"name": "crop", "arguments": {given}}}</tool_call>'
    (action,) = get_grammar("native").parse(text, state).actions
    assert isinstance(action, Invalid)


def test_several_looks_of_one_turn_are_written_read_and_shown():
    state, video = started(max_calls_per_turn=2)
    grammar = get_grammar("native")
    text = "<think>Two places.</think>" + "\n".join(
        grammar.write(Crop(start, start + 5, frames=3), state) for start in (10, 50)
    )
    move = grammar.parse(text, state)
    assert move.actions == (Crop(10, 15, frames=3), Crop(50, 55, frames=3)) and move.well_formed
    after = play(state, move, video.pts_s)
    assert len(after.turns[0].clips) == 2
    single, _ = started()
    (refused,) = grammar.parse(text, single).actions
    assert isinstance(refused, Invalid)


def test_an_episode_may_begin_without_a_frame():
    rules = replace(OPEN, skim_frames=0, frame_budget=8)
    env = TextActions(
        VideoQAEnv("procedural:brief_event?duration_s=60&count=3&size=64x36", replace(DEFAULT, rules=rules))
    )
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space and observation["shown_mask"].sum() == 0
    assert "No frame is shown first" in observation["prompt"]
    written = env.grammar.write(Crop(1, 9, frames=4), env.unwrapped.state)
    observation, *_ = env.step(written)
    assert observation["clip_mask"].sum() == 4 and observation["frames_left"] == 4
    env.unwrapped.render_mode = "rgb_array"
    assert env.unwrapped.render().shape[2] == 3


def test_a_coarse_look_is_coarse_in_pixels_too():
    rules = replace(OPEN, skim_frames=1, max_pixels=224 * 224)
    source = "procedural:brief_event?duration_s=60&count=3&size=640x360"
    env = VideoQAEnv(source, replace(DEFAULT, rules=rules), observe="pixels")
    env.reset(seed=0)
    fine = env.step(Crop(10, 20, frames=1))[0]["clip"][0]
    coarse = env.step(Crop(10, 20, frames=1, scale=0.1))[0]["clip"][0]
    # 64 x 36 are 56 x 28 in squares of 28: the rest of the place of 224 x 224 is black.
    assert (coarse.any(axis=2)).sum() <= 56 * 28 < (fine.any(axis=2)).sum()


def test_a_size_follows_from_scale_and_pixel_bound_alone():
    assert resized(OPEN, 1280, 720, 0.01) == (28, 28)
    assert resized(replace(OPEN, max_scaled_pixels=0), 1280, 720, 1.0) == (140, 84)


def test_a_person_is_offered_the_arguments_that_are_open_and_their_look_has_them():
    rules = replace(OPEN, skim_frames=0, crop_arguments=("frames", "scale"))
    source = "procedural:brief_event?duration_s=60&count=2&size=64x36"
    game = Game(VideoQAEnv(source, replace(DEFAULT, rules=rules)))
    view = game.view()
    assert [(one["name"], one["whole"]) for one in view["arguments"]] == [
        ("frames", True),
        ("scale", False),
    ]
    assert view["clips"][0]["pictures"] == 0  # no frame first
    game.act(view["episode"], 0, Crop(1.0, 9.0, frames=3, scale=1.0))
    view = game.view()
    assert view["clips"][1]["pictures"] == 3 and view["clips"][1]["size"] == (56, 28)
    assert view["turns"][0]["results"][0]["label"] == "1 to 9 s, 3 frames at scale 1"
