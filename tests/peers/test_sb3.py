"""Stable-Baselines3 takes our arrays and integers as they are, and learns from them."""

# ruff: noqa: D103

import warnings

import gymnasium
import numpy as np
import pytest

from videogym import DiscreteActions, evaluate
from videogym.wrappers import ArrayObservations

pytestmark = pytest.mark.peers("stable_baselines3")

# One question, whose options stay in their order: what a policy that reads no text can learn by heart.
TASKS = "procedural:brief_event?level=0&duration_s=60&count=1&size=64x36"
LOOKS, OPTIONS = 4, 4


def make():
    """Frames of 12 x 9 in a picture of 60 x 63: networks for pictures want 36 pixels a side at least."""
    env = gymnasium.make("videogym/VideoQA-v0", tasks=TASKS, observe="pixels", frame_size=(12, 9))
    return ArrayObservations(DiscreteActions(env, windows=LOOKS, options=OPTIONS))


def test_the_checker_has_nothing_to_say():
    from stable_baselines3.common.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make())


@pytest.mark.filterwarnings("ignore:.*unconventional shape")
def test_without_the_wrapper_the_checker_refuses_texts():
    """The reason for the wrapper: where this passes, it has become needless."""
    from stable_baselines3.common.env_checker import check_env

    env = DiscreteActions(gymnasium.make("videogym/VideoQA-v0", tasks=TASKS))
    with pytest.raises(AssertionError, match=r"key=message.*must be a numpy array"):
        check_env(env)


def test_ppo_learns_one_question_by_heart():
    """A wrong answer pays 0 and ends the episode, the right one 1: a quarter by chance, all in the end."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy

    model = PPO(
        "MultiInputPolicy", make(), n_steps=64, batch_size=64, n_epochs=4, learning_rate=1e-3, seed=0
    )
    model.learn(64)
    # SB3's own count of info["is_success"], of episodes played by an untrained network.
    assert np.mean(model.ep_success_buffer) < 0.7
    model.learn(192, reset_num_timesteps=False)
    assert model.num_timesteps == 256
    env = make()
    report = evaluate(lambda observation, info: model.predict(observation, deterministic=True)[0], env)
    assert report.accuracy.mean == 1.0
    rewards, lengths = evaluate_policy(
        model, env, n_eval_episodes=2, return_episode_rewards=True, warn=False
    )
    assert rewards == [pytest.approx(report.reward.mean)] * 2, "SB3 and videogym score it differently"
    assert lengths == [report.turns.mean] * 2
