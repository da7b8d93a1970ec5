"""Every registered id keeps the contract: plain, acted by text, acted by integers, with pixels."""

# ruff: noqa: D103

import random

import gymnasium
import pytest

from videogym import DiscreteActions, TextActions, VideoQAEnv
from videogym.recipes import get_recipe
from videogym.testing.env_suite import (
    check_determinism,
    check_environment,
    check_gymnasium,
    check_no_leak,
    check_snapshots,
    check_vector_envs,
)

IDS = sorted(name for name in gymnasium.registry if name.startswith("videogym/"))
SOURCE = "procedural:event_order?level=1&duration_s=120&count=50&size=64x36"
VIDEO = "synthetic:event_order?level=1&duration_s=600&seed=3&size=64x36"
RECIPES = [
    *("VIDEO_MTR/paper", "VIDEO_MTR/code", "LONGVT/paper", "LONGVT/code", "DEFAULT", "FIND"),
    *("VIDEO_ZOOMER/paper", "VIDEO_ZOOMER/code", "PARAVT/paper", "PARAVT/code", "EVA/code"),
]


def plain(env):
    return env


def test_the_ids_are_these():
    assert IDS == [
        "videogym/EVA-v0",
        "videogym/Find-v0",
        "videogym/LongVT-v0",
        "videogym/LongVTCode-v0",
        "videogym/ParaVT-v0",
        "videogym/ParaVTCode-v0",
        "videogym/VideoMTR-v0",
        "videogym/VideoMTRCode-v0",
        "videogym/VideoQA-v0",
        "videogym/VideoZoomer-v0",
        "videogym/VideoZoomerCode-v0",
    ]


@pytest.mark.parametrize("env_id", IDS)
def test_the_default_environment_passes_gymnasiums_checker_without_a_warning(env_id):
    check_gymnasium(lambda: gymnasium.make(env_id).unwrapped)


@pytest.mark.parametrize("wrapper", [plain, TextActions, DiscreteActions], ids=lambda w: w.__name__)
@pytest.mark.parametrize("env_id", IDS)
def test_every_id_keeps_the_contract(env_id, wrapper):
    check_environment(lambda: wrapper(gymnasium.make(f"videogym:{env_id}", tasks=SOURCE)))


@pytest.mark.parametrize(
    ("env_id", "arguments", "moments"),
    [
        ("videogym/Find-v0", ({}, {"region": (0.0, 0.0, 0.5, 0.5)}), 2),
        ("videogym/VideoZoomer-v0", ({}, {"fps": 2}), 0),
        ("videogym/EVA-v0", ({"frames": 4}, {"frames": 2, "scale": 0.5}), 0),
    ],
)
def test_integers_for_arguments_and_a_search_keep_the_contract(env_id, arguments, moments):
    def make():
        env = gymnasium.make(f"videogym:{env_id}", tasks=SOURCE)
        return DiscreteActions(env, 4, arguments=arguments, moments=moments)

    check_environment(make)


@pytest.mark.parametrize("env_id", ["videogym/VideoQA-v0", "videogym/VideoMTR-v0"])
def test_pixels_keep_the_contract(env_id):
    # The prefix imports videogym, and so registers the id, in worker processes that were spawned.
    pixels = {"tasks": SOURCE, "observe": "pixels", "frame_size": (32, 24)}
    check_environment(lambda: gymnasium.make(f"videogym:{env_id}", **pixels), episodes=1)


@pytest.mark.parametrize("wrapper", [plain, TextActions], ids=lambda w: w.__name__)
@pytest.mark.parametrize("recipe", RECIPES)
def test_planted_answers_and_evidence_are_shown_nowhere(recipe, wrapper):
    check_no_leak(lambda tasks: wrapper(VideoQAEnv(tasks, recipe)), VIDEO, 600.0)


def test_the_leak_check_finds_a_leak():
    with pytest.raises(AssertionError, match="tells the answer or the evidence"):
        check_no_leak(lambda tasks: VideoQAEnv(tasks, "DEFAULT", privileged=True), VIDEO, 600.0)


class Forgetful(gymnasium.Wrapper):
    """An environment that breaks one promise."""

    def step(self, action):
        """Pay a reward that nothing determines."""
        observation, _, *rest = self.env.step(action)
        return observation, random.random(), *rest


def test_the_contract_finds_a_reward_that_does_not_follow_from_the_state():
    for check in (check_gymnasium, check_determinism, check_snapshots, check_vector_envs):
        with pytest.raises(AssertionError, match=r"not equivalent|differ|otherwise"):
            check(lambda: Forgetful(VideoQAEnv(SOURCE)))


def test_ids_play_the_recipes_they_are_named_for():
    names = {env_id: gymnasium.make(env_id, tasks=SOURCE).unwrapped.recipe for env_id in IDS}
    assert names["videogym/VideoMTR-v0"] == get_recipe("VIDEO_MTR/paper")
    assert names["videogym/LongVTCode-v0"] == get_recipe("LONGVT/code")
    assert names["videogym/VideoQA-v0"] == get_recipe("DEFAULT")
