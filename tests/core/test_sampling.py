"""Which frames are drawn: published vectors, edges, and what holds for every video."""

# ruff: noqa: D103

import math
from dataclasses import replace

import numpy as np
import pytest
from hand_episodes import Hand, choice
from hypothesis import example, given
from hypothesis import strategies as st

from videogym.actions import Crop, Select
from videogym.recipes import VIDEO_MTR_CODE, get_recipe
from videogym.rewards import relevant_pool
from videogym.video.sampling import (
    linspace_floored,
    linspace_rounded,
    pool_indices,
    smart_resize,
    window_bounds,
    window_indices,
    window_indices_by_time,
)

# LongVT: source frames, fps, window, cap -> frames (qwen-vl-utils 0.0.11).
WINDOWS = [
    (5400, 30.0, (10, 20), 128, [300, 333, 367, 400, 433, 467, 500, 533, 567, 600]),
    (5400, 30.0, (12.3, 17.9), 128, [369, 425, 481, 537]),
    (5400, 30.0, (0, 5), 128, [0, 50, 100, 150]),
    (5400, 30.0, (10, 10.05), 128, [300, 301]),
    (5400, 30.0, (179, 180), 128, [5370, 5399]),
    (5400, 29.97, (10, 20), 128, [300, 333, 366, 400, 433, 466, 499, 533, 566, 599]),
    (600, 1.0, (0, 10), 128, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]),
    (600, 0.5, (10, 20), 128, [5, 6, 7, 8, 9, 10]),
    (3, 30.0, (None, None), 512, [0, 2]),
]


@pytest.mark.parametrize(("frames", "fps", "window", "cap", "expected"), WINDOWS)
def test_windows_are_the_published_ones(frames, fps, window, cap, expected):
    assert window_indices(frames, fps, cap, 1.0, *window).tolist() == expected


@pytest.mark.parametrize(
    ("end_s", "count"), [(127, 126), (128, 128), (129, 128), (180, 128)], ids=lambda value: str(value)
)
def test_counts_around_the_cap(end_s, count):
    assert len(window_indices(5400, 30.0, 128, 1.0, 0, end_s)) == count


def test_the_skim_of_a_long_video_starts_as_published():
    skim = window_indices(30_000, 25.0, 512)
    assert (len(skim), skim[:5].tolist(), skim[-1]) == (512, [0, 59, 117, 176, 235], 29_999)
    assert len(window_indices(5400, 30.0, 512)) == 180


@pytest.mark.parametrize("window", [(10, 10.02), (20, 10), (10, math.nan), (300, 400)])
def test_a_window_of_fewer_than_two_frames_is_refused(window):
    with pytest.raises(ValueError, match="fewer than two frames"):
        window_bounds(5400, 30.0, *window)


def test_a_video_of_one_frame_cannot_be_skimmed():
    with pytest.raises(ValueError, match="fewer than two frames"):
        window_indices(1, 30.0, 64)
    with pytest.raises(ValueError, match="at least 2 frames"):
        pool_indices(1, 1.0, 64)


# Video-MTR: a pool of at most 64 frames at 1 fps.
@pytest.mark.parametrize(
    ("duration_s", "size"), [(10, 10), (45, 44), (63.9, 62), (64, 64), (3600, 64), (1, 4)]
)
def test_pools_have_the_published_sizes(duration_s, size):
    frames = round(duration_s * 30)
    pool = pool_indices(frames, duration_s, 64)
    assert (len(pool), pool[0], pool[-1]) == (size, 0, frames - 1)


def test_a_pool_has_no_more_frames_than_the_video():
    assert pool_indices(5, 100.0, 64).tolist() == [0, 1, 3, 4]


def test_initial_indices_are_the_published_ones():
    expected = [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]
    assert linspace_floored(0, 63, 16).tolist() == expected
    assert linspace_floored(0, 9, 16).tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 6, 6, 7, 7, 8, 9]


@pytest.mark.parametrize("cap", [8, 16])
def test_selected_indices_are_whole_number_division(cap):
    # Exact for every segment of a pool of 256, which double precision could have missed.
    for first in range(0, 256, 5):
        for last in range(first, 256, 3):
            count = min(last - first + 1, cap)
            step = [first + i * (last - first) // max(count - 1, 1) for i in range(count)]
            assert linspace_floored(first, last, count).tolist() == step


def test_forty_initial_frames_round_as_published_where_division_would_not():
    # Double precision falls just below a whole number at these sizes, and only at these below 256.
    missed = [
        n
        for n in range(40, 257)
        if linspace_floored(0, n - 1, 40).tolist() != [i * (n - 1) // 39 for i in range(40)]
    ]
    assert missed == [46, 91, 170, 181, 190]


def test_rounded_positions_are_those_of_torch():
    """On processors that fuse multiplication and addition; elsewhere but for positions that are ties.

    Without the fused operation torch rounds twice, and half a frame can come out on the other side.
    """
    torch = pytest.importorskip("torch")
    fused = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    rng = np.random.default_rng(0)
    for _ in range(20_000):
        first = int(rng.integers(0, 200_000))
        last = first + int(rng.integers(1, 200_000))
        count = int(rng.integers(2, 129))
        expected = torch.linspace(first, last, count).round().long().numpy()
        ours = linspace_rounded(first, last, count)
        other = np.flatnonzero(ours != expected)
        assert not len(other) or not fused, (first, last, count)
        assert np.all(np.abs(ours - expected) <= 1)
        exact = first + other * (last - first) / (count - 1)
        assert np.all(np.abs(exact % 1 - 0.5) <= 2 * np.spacing(np.float32(last))), (first, last, count)


videos = st.tuples(
    st.integers(2, 300_000), st.sampled_from([0.5, 1.0, 15.0, 23.976, 25.0, 29.97, 30.0, 60.0])
)
shares = st.floats(0, 1)


@given(videos, shares, shares, st.integers(2, 768))
@example((128, 0.5), 0.9921875, 1.0, 2)  # 254 to 256 s holds frame 127 alone: there is none at 256 s
@example((97_799, 1.0), 97_330 / 97_799, 1.0, 768)  # 468 of 469 frames, two of which are the same
def test_windows_are_even_bounded_and_inside(video, start, end, cap):
    frames, fps = video
    start_s, end_s = start * frames / fps, end * frames / fps
    try:
        first, last = window_bounds(frames, fps, start_s, end_s)
    except ValueError:
        # Whole numbers from start to end, none beyond the last frame; a millionth inside, so that
        # rounding does not decide.
        least, most = math.ceil(start * frames + 1e-6), math.floor(end * frames - 1e-6)
        assert min(most, frames - 1) - least + 1 < 2
        return
    indices = window_indices(frames, fps, cap, 1.0, start_s, end_s)
    assert len(indices) % 2 == 0 and 2 <= len(indices) <= cap
    assert (indices[0], indices[-1]) == (first, last)
    assert first / fps >= start_s - 1e-6 and last / fps <= end_s + 1e-6
    steps = np.diff(indices)
    assert (steps >= 0).all()
    # Frames repeat only as published: positions are float32, 1/32 apart near 300,000, rounded half to even.
    if not 1 < (last - first) / (len(indices) - 1) < 1 + 1 / 32:
        assert (steps > 0).all()


@given(st.integers(2, 100_000), st.floats(0.1, 20_000), st.integers(4, 256))
def test_pools_are_even_distinct_and_reach_both_ends(frames, duration_s, cap):
    pool = pool_indices(frames, duration_s, cap)
    assert len(pool) % 2 == 0 and len(pool) <= min(cap, frames)
    assert (np.diff(pool) > 0).all()
    assert (pool[0], pool[-1]) == (0, frames - 1)


gaps = st.lists(st.floats(0.001, 5.0), min_size=3, max_size=60)


@given(gaps, shares, shares, st.integers(2, 40), st.sampled_from([1.0, 2.0]))
def test_frames_of_a_variable_rate_lie_inside_the_window(gaps, start, end, cap, fps):
    pts_s = np.concatenate([[0.0], np.cumsum(gaps)])
    start_s, end_s = start * pts_s[-1], end * pts_s[-1]
    inside = (pts_s >= start_s) & (pts_s <= end_s)
    try:
        indices = window_indices_by_time(pts_s, cap, fps, start_s, end_s)
    except ValueError:
        assert inside.sum() < 2
        return
    assert inside[indices].all()
    assert len(indices) % 2 == 0 and len(indices) <= cap
    assert (np.diff(indices) >= 0).all()


def test_a_variable_rate_is_sampled_by_time_and_not_by_frame_number():
    # 100 frames in the first second, then one a second: frame numbers would stay in the first second.
    pts_s = np.concatenate([np.arange(100) / 100, np.arange(1, 21)])
    assert pts_s[window_indices_by_time(pts_s, 128)].tolist() == pytest.approx(
        [
            0.0,
            1.0,
            2.0,
            3.0,
            4.0,
            5.0,
            6.0,
            7.0,
            8.0,
            9.0,
            10.0,
            11.0,
            12.0,
            13.0,
            14.0,
            15.0,
            16.0,
            17.0,
            18.0,
            20.0,
        ]
    )


# Every recipe by name: an episode never shows more frames than its rules say, whatever is asked.
wishes = st.lists(st.tuples(st.floats(0, 700), st.floats(0, 700)), min_size=1, max_size=8)


@given(st.sampled_from(["VIDEO_MTR/paper", "VIDEO_MTR/paper-80-code", "LONGVT/code-64", "DEFAULT"]), wishes)
def test_no_episode_shows_more_frames_than_its_rules_allow(name, wishes):
    recipe = get_recipe(name)
    hand, look = Hand(recipe, num_frames=6000, fps=10.0), Select if recipe.rules.pool_frames else Crop
    for wish in wishes:
        if hand.state.terminated:
            break
        hand.step(look(min(wish), max(wish)), look(*wish))
    assert hand.state.frames_shown <= recipe.rules.max_shown_frames
    if recipe.rules.frame_budget is not None:
        assert hand.state.frames_shown <= recipe.rules.frame_budget


def test_relevant_frames_follow_the_pool_of_any_size():
    # The same evidence in seconds, pools of 64 and 128 frames over 128 s.
    for pool, shown in ((64, 5), (128, 10)):
        recipe = replace(VIDEO_MTR_CODE, rules=replace(VIDEO_MTR_CODE.rules, pool_frames=pool))
        relevant = relevant_pool(Hand(recipe, choice([(20, 30)])).state)
        assert relevant is not None and len(relevant) == shown


SIZES = [
    ((360, 640), (168, 280)),
    ((720, 1280), (168, 280)),
    ((1080, 1920), (168, 280)),
    ((240, 320), (168, 252)),
    ((224, 224), (224, 224)),
    ((100, 100), (112, 112)),
    ((20, 20), (28, 28)),
]


@pytest.mark.parametrize(("source", "resized"), SIZES)
def test_frames_are_resized_as_published(source, resized):
    assert smart_resize(*source, 784, 50_176) == resized


@pytest.mark.parametrize("size", [(0, 100), (10, 2010)])
def test_frames_that_cannot_be_resized_are_refused(size):
    with pytest.raises(ValueError, match="cannot resize"):
        smart_resize(*size, 784, 50_176)
