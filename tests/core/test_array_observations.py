"""Observations without texts: rows of numbers, and one picture of the newest frames."""

# ruff: noqa: D103

import gymnasium
import numpy as np
import pytest

from videogym import DiscreteActions, VideoQAEnv
from videogym.testing.env_suite import (
    check_determinism,
    check_gymnasium,
    check_spaces_and_info,
    check_spec,
    check_vector_envs,
)
from videogym.wrappers import ArrayObservations, tiled

TASKS = "procedural:brief_event?level=1&duration_s=120&count=20&size=64x36"


def make(**options):
    return ArrayObservations(gymnasium.make("videogym:videogym/VideoQA-v0", tasks=TASKS, **options))


def test_frames_fill_the_places_of_a_picture_line_by_line():
    frames = np.arange(1, 4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    picture = tiled(frames, 2)
    assert picture.shape == (4, 6, 3)
    assert picture[:, :, 0].tolist() == [[1] * 3 + [2] * 3] * 2 + [[3] * 3 + [0] * 3] * 2


def test_what_is_left_are_rows_and_one_picture():
    """32 frames of 16 x 9: round(sqrt(32 * 9 / 16)) = 4 columns, 8 lines."""
    env = make(observe="pixels", frame_size=(16, 9))
    observation, _ = env.reset(seed=0)
    assert not {"question", "options", "video", "message"} & observation.keys()
    assert {np.ndim(value) for name, value in observation.items() if name != "clip"} <= {0, 1}
    assert observation["clip"].shape == (72, 64, 3) and observation["clip"].dtype == np.uint8
    plain = env.env.reset(seed=0)[0]
    for number in (0, 5, 31):
        line, column = divmod(number, 4)
        place = observation["clip"][line * 9 : line * 9 + 9, column * 16 : column * 16 + 16]
        assert np.array_equal(place, plain["clip"][number])
    assert np.array_equal(observation["clip_regions"], plain["clip_regions"].ravel())


@pytest.mark.parametrize(
    "options", [{}, {"observe": "pixels", "frame_size": (16, 9)}], ids=["plain", "pixels"]
)
def test_the_contract_holds(options):
    for check in (check_gymnasium, check_spaces_and_info, check_determinism, check_spec, check_vector_envs):
        check(lambda: make(**options))


def test_wrappers_go_around_it_in_any_order():
    inside = ArrayObservations(DiscreteActions(VideoQAEnv(TASKS)))
    outside = DiscreteActions(ArrayObservations(VideoQAEnv(TASKS)))
    for env in (inside, outside):
        env.reset(seed=0)
        assert env.step(0)[0] in env.observation_space


def test_an_environment_without_a_dict_is_refused():
    with pytest.raises(ValueError, match="Dict"):
        ArrayObservations(gymnasium.make("CartPole-v1"))
