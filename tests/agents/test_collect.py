"""Environments under TorchRL: specs, rollouts, texts and what is reported beside the reward."""

from __future__ import annotations

import gymnasium
import pytest
import torch
from torchrl.collectors import Collector
from torchrl.data import NonTensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import check_env_specs

from agents.collect import torchrl_env
from videogym import DiscreteActions, TextActions
from videogym.datasets import load_tasks

IDS = sorted(name for name in gymnasium.registry if name.startswith("videogym/"))
TASKS = "procedural:brief_event?level=0&duration_s=60&count=20"


def discrete_env() -> EnvBase:
    """VideoMTR with 16 windows and 4 options."""
    return torchrl_env(DiscreteActions(gymnasium.make("videogym/VideoMTR-v0", tasks=TASKS)))


def test_registered_ids_are_found() -> None:
    """The ids that all tests here run over are the registered ones."""
    assert {"videogym/VideoMTR-v0", "videogym/LongVT-v0", "videogym/VideoQA-v0"} <= set(IDS)


@pytest.mark.parametrize("env_id", IDS)
def test_specs_and_rollout(env_id: str) -> None:
    """What an environment gives fits its specs, and random episodes end by the rules."""
    env = torchrl_env(gymnasium.make(env_id, tasks=TASKS))
    check_env_specs(env, seed=0)
    rollout = env.rollout(20)
    # TorchRL's random answer is "a string" and its looks are rarely valid: turns pass all the same.
    assert bool(rollout["next", "terminated"][-1]), f"{env_id}: no end within 20 turns"
    assert not rollout["next", "truncated"].any()


@pytest.mark.parametrize("env_id", IDS)
def test_text_actions(env_id: str) -> None:
    """A text policy acts through TorchRL too."""
    env = torchrl_env(TextActions(gymnasium.make(env_id, tasks=TASKS)))
    assert isinstance(env.action_spec, NonTensor)
    check_env_specs(env, seed=0)


def test_discrete_actions_are_integers() -> None:
    """No one-hot vectors: 16 windows and 4 options are 20 integers."""
    env = discrete_env()
    assert env.action_spec.shape == torch.Size([])
    assert env.action_spec.space.n == 20


def test_texts_survive_the_collector() -> None:
    """Every question that a collector yields is the one about the video beside it."""
    questions = {task.video: task.question for task in load_tasks(TASKS)}
    collector = Collector(discrete_env(), frames_per_batch=12, total_frames=12)
    (batch,) = list(collector)
    videos, asked = batch["video"], batch["question"]
    assert len(videos) == len(asked) == 12
    assert [questions[video] for video in videos] == list(asked)
    assert len(set(videos)) > 1, "the collector never reset"


def test_reported_terms_add_up_to_the_reward() -> None:
    """Nothing is paid that no term names, and trajectory terms are absent before the end."""
    rollout = discrete_env().rollout(40, break_when_any_done=False)
    terms = torch.stack(
        [rollout["next", "terms", name] for name in ("format", "frame_gain", "answer", "gate")]
    )
    torch.testing.assert_close(terms.nansum(0), rollout["next", "reward"])
    running = ~rollout["next", "terminated"]
    assert rollout["next", "terms", "answer"][running].isnan().all(), "an answer is paid before the end"
    assert rollout["next", "frames_shown"].max() <= 32
