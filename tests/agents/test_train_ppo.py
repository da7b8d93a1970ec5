"""Training the compact policy: the oracle's labels, PPO's targets, repeatability, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from agents.imitation import ImitationConfig, demonstrate, oracle_action
from agents.policies.compact import CompactNet, CompactPolicy
from agents.train_ppo import (
    Config,
    actor_critic,
    episode_means,
    estimator,
    make_env,
    make_reader,
    train,
    training_env,
)
from videogym import evaluate
from videogym.testing.policies import SkimOnly

SMALL = Config(
    imitation=ImitationConfig(rounds=2, updates=1, batch=4),
    imitation_envs=4,
    batches=1,
    batch_turns=32,
    epochs=1,
    minibatch_turns=16,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_net(config: Config = SMALL) -> CompactNet:
    """A net of fixed random weights."""
    torch.manual_seed(0)
    reader = make_reader(config)
    return CompactNet(len(reader.vocabulary), config.windows, reader.size)


def test_the_oracle_looks_at_the_evidence_then_answers_right() -> None:
    """Two turns: a frame of the evidence, then the right option."""
    env = make_env(SMALL)
    for seed in range(20):
        env.reset(seed=seed)
        state = env.unwrapped.state  # type: ignore[attr-defined]
        (evidence,) = state.task.evidence
        observation, *_ = env.step(oracle_action(state, 16))
        times = observation["shown_times_s"][16:24]
        assert ((times >= evidence.start_s) & (times < evidence.end_s)).any()
        *_, terminated, _, info = env.step(oracle_action(env.unwrapped.state, 16))  # type: ignore[attr-defined]
        assert terminated and info["is_success"]


def test_the_oracle_goes_on_looking_after_a_look_in_vain() -> None:
    """It looks until the last turn, which is for answering."""
    env = make_env(SMALL)
    env.reset(seed=0)
    first = oracle_action(env.unwrapped.state, 16)  # type: ignore[attr-defined]
    env.step((first + 8) % 16)
    assert oracle_action(env.unwrapped.state, 16) == first  # type: ignore[attr-defined]
    env.step((first + 9) % 16)
    assert oracle_action(env.unwrapped.state, 16) >= 16, "the last turn is for answering"  # type: ignore[attr-defined]


def test_demonstrations_hold_what_was_shown() -> None:
    """The pixels kept are those of the frames of the episode, in order."""
    reader, envs = make_reader(SMALL), [make_env(SMALL) for _ in range(3)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    by_oracle = np.array([True, True, False])
    played = demonstrate(make_net(), reader, envs, by_oracle, torch.Generator().manual_seed(0))
    for demonstration, env in zip(played[:2], envs, strict=False):
        assert demonstration.success and len(demonstration.labels) == 2
        state = env.unwrapped.state  # type: ignore[attr-defined]
        times = [t for clip in state.clips for t in clip.times_s]
        direct = reader.store.frames(state.task.video, times, size=reader.size).pixels
        np.testing.assert_array_equal(demonstration.pixels[:24], direct)
        assert not demonstration.pixels[24:].any()


def test_encoded_frames_are_those_of_the_policy() -> None:
    """Encoding frames as they come gives what encoding all at once gives."""
    net, reader = make_net(), make_reader(SMALL)
    env = training_env(SMALL, net, reader)
    check_env_specs(env)
    env.set_seed(0)
    rollout = env.rollout(3)
    inner = env.base_env._env.unwrapped  # the videogym environment under both libraries
    times = [t for clip in inner.state.clips for t in clip.times_s]
    last = rollout["next", "net"][-1]
    assert int(last["mask"].sum()) == len(times)
    pixels = reader.store.frames(inner.state.task.video, times, size=reader.size).pixels
    expected = net.encoder(torch.from_numpy(pixels))
    torch.testing.assert_close(last["features"][: len(times)], expected, rtol=1e-5, atol=1e-5)
    assert not last["features"][len(times) :].any()


def test_value_targets_do_not_reach_past_the_end() -> None:
    """A critic that promises 100 everywhere must leave the last turn's target at its reward."""
    net, reader = make_net(), make_reader(SMALL)
    env = training_env(SMALL, net, reader)
    actor, critic = actor_critic(net, env)
    with torch.no_grad():
        net.value[-1].weight.zero_()  # type: ignore[operator]
        net.value[-1].bias.fill_(100.0)  # type: ignore[operator]
        batch = env.rollout(30, actor, break_when_any_done=False)
        estimator(replace(SMALL, lmbda=0.0), critic)(batch)
    over = batch["next", "terminated"]
    rewards, targets = batch["next", "reward"], batch["value_target"]
    torch.testing.assert_close(targets[over], rewards[over])
    torch.testing.assert_close(targets[~over], rewards[~over] + 100.0)
    assert over.any() and not over.all()


def test_episode_means() -> None:
    """The terms add up to the reward, and success is the share of right answers."""
    net, reader = make_net(), make_reader(SMALL)
    batch = training_env(SMALL, net, reader).rollout(60, break_when_any_done=False)
    ended = batch["next", "done"].sum()
    means = episode_means(batch)
    torch.testing.assert_close(torch.tensor(means["reward"]), batch["next", "reward"].sum() / ended)
    assert sum(means[name] for name in ("format", "frame_gain", "answer", "gate")) == pytest.approx(
        means["reward"]
    )
    assert means["success"] == pytest.approx(means["answer"])  # an answer pays 1 if it is right


def test_equal_seeds_give_equal_weights(tmp_path: Path) -> None:
    """To the bit, on one thread, and so do the curves."""
    runs = [train(replace(SMALL, seed=seed), tmp_path / str(i)) for i, seed in enumerate((0, 0, 1))]
    weights = [torch.cat([p.flatten() for p in run.trained.parameters()]) for run in runs]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert runs[0].curves == runs[1].curves
    rows = (tmp_path / "0" / "scalars" / "frame_gain.csv").read_text().splitlines()
    assert len(rows) == 1, "one row for the one batch of PPO"


def test_ppo_keeps_the_encoder_and_moves_the_rest(tmp_path: Path) -> None:
    """The encoder is what imitation left."""
    run = train(SMALL, tmp_path / "log")
    before, after = run.imitated.state_dict(), run.trained.state_dict()
    moved = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "encoder" not in moved
    assert {"film", "match", "near", "value"} <= moved


def test_it_learns(tmp_path: Path) -> None:
    """A short run beats by far what can be known without looking: one of four colours."""
    imitation = ImitationConfig(rounds=24, updates=6, batch=48)
    config = Config(imitation=imitation, imitation_envs=32, batches=1, batch_turns=512)
    run = train(config, tmp_path / "log")
    held_out = make_env(replace(config, tasks=config.tasks.replace("train", "test")))
    ids = [held_out.unwrapped.tasks[i].task_id for i in range(100)]  # type: ignore[attr-defined]
    reader = replace(run.reader, store=held_out.unwrapped.store)  # type: ignore[attr-defined]
    trained = evaluate(CompactPolicy(run.trained, reader), held_out, task_ids=ids)
    skim = evaluate(SkimOnly(0), held_out.unwrapped, task_ids=ids)
    assert skim.accuracy.mean < 0.4
    assert trained.accuracy.mean > skim.accuracy.mean + 0.15, f"{trained.accuracy} against {skim.accuracy}"
