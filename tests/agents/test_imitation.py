"""Imitation of the oracle: its labels, what demonstrations hold, and what each lesson teaches."""

# ruff: noqa: D103

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import SMALL

from agents.compact import imitation
from agents.compact.imitation import (
    Demonstration,
    ImitationConfig,
    demonstrate,
    imitate,
    imitation_loss,
    oracle_action,
    teach,
)
from agents.compact.network import CompactPolicy
from agents.compact.run import RunConfig, make_compact, make_env
from videogym import DiscreteActions, FrameStore, State, VideoError, VideoQAEnv
from videogym.datasets import load_tasks, write_tasks
from videogym.recipes import FIND

CONFIG = RunConfig.of()
SHORT = ImitationConfig(rounds=2, updates=1, batch=4)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def state_of(env: DiscreteActions) -> State:
    inner = env.unwrapped
    assert isinstance(inner, VideoQAEnv)
    return inner.state


def test_the_oracle_looks_at_the_evidence_then_answers_right() -> None:
    """Two turns: a frame of the evidence, then the right option."""
    env = make_env(CONFIG, CONFIG.tasks)
    for seed in range(20):
        env.reset(seed=seed)
        (evidence,) = state_of(env).task.evidence or ()
        observation, *_ = env.step(oracle_action(state_of(env), (16,)))
        times = observation["shown_times_s"][16:24]
        assert ((times >= evidence.start_s) & (times < evidence.end_s)).any()
        *_, terminated, _, info = env.step(oracle_action(state_of(env), (16,)))
        assert terminated and info["is_success"]


def test_the_oracle_goes_on_looking_after_a_look_in_vain() -> None:
    """It looks until the last turn, which is for answering."""
    env = make_env(CONFIG, CONFIG.tasks)
    env.reset(seed=0)
    first = oracle_action(state_of(env), (16,))
    env.step((first + 8) % 16)
    assert oracle_action(state_of(env), (16,)) == first
    env.step((first + 9) % 16)
    assert oracle_action(state_of(env), (16,)) >= 16, "the last turn is for answering"


@pytest.mark.parametrize(
    ("share", "played"), [(0.5, "olololol"), (1.0, "oooooooo"), (0.0, "llllllll"), (0.25, "olllolll")]
)
def test_the_oracle_plays_its_share_of_the_episodes(
    share: float, played: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Success is the learner's; where it plays nothing, it is not a number."""
    shares = []

    def noted(policy, envs, by_oracle, generator):  # type: ignore[no-untyped-def]
        shares.append("".join("lo"[int(one)] for one in by_oracle))
        return demonstrate(policy, envs, by_oracle, generator)

    monkeypatch.setattr(imitation, "demonstrate", noted)
    envs = [make_env(CONFIG, CONFIG.tasks) for _ in range(8)]
    curve = teach(make_compact(CONFIG), envs, replace(SHORT, oracle_share=share), seed=0)
    assert shares == [played] * 2
    assert [math.isnan(success) for _, _, success in curve] == [share == 1.0] * 2
    with pytest.raises(ValueError, match=r"oracle_share must lie in \[0, 1\], got 1.5"):
        ImitationConfig(oracle_share=1.5)


@pytest.mark.parametrize("recipe", ["VIDEO_MTR/paper", "DEFAULT"])
@pytest.mark.parametrize("windows", [(4, 16), (16, 4)])
def test_of_several_scales_the_oracle_takes_the_finest(recipe: str, windows: tuple[int, ...]) -> None:
    """And answers beyond all looks, with a pool and without."""
    env = DiscreteActions(VideoQAEnv(CONFIG.tasks, recipe), windows)
    plain = DiscreteActions(VideoQAEnv(CONFIG.tasks, recipe), (16,))
    offset = 4 if windows == (4, 16) else 0
    for seed in range(5):
        env.reset(seed=seed)
        plain.reset(seed=seed)
        look = oracle_action(state_of(env), windows)
        assert look == oracle_action(state_of(plain), (16,)) + offset
        terminated = False
        while not terminated:
            *_, terminated, _, info = env.step(oracle_action(state_of(env), windows))
        assert info["is_success"]


def test_the_oracle_looks_by_the_last_arguments_and_never_searches() -> None:
    """Of 4 windows, looked at in two ways, and a search: looks 4 to 7, answers from 9."""
    recipe = replace(FIND, name="ASKED", rules=replace(FIND.rules, crop_arguments=("fps",)))
    env = DiscreteActions(VideoQAEnv(CONFIG.tasks, recipe), 4, 4, ({}, {"fps": 8}), moments=1)
    for seed in range(5):
        env.reset(seed=seed)
        plain = oracle_action(state_of(env), (4,))
        terminated, played = False, []
        while not terminated:
            played.append(oracle_action(state_of(env), (4,), variants=2, searches=True))
            *_, terminated, _, info = env.step(played[-1])
        assert plain < 4 and played[0] == plain + 4 and 9 <= played[-1] < 13 and info["is_success"]


def test_demonstrations_hold_what_was_shown() -> None:
    """The pixels kept are those of the frames of the episode, in order."""
    policy, envs = make_compact(CONFIG), [make_env(CONFIG, CONFIG.tasks) for _ in range(3)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    by_oracle = np.array([True, True, False])
    played = demonstrate(policy, envs, by_oracle, torch.Generator().manual_seed(0))
    for demonstration, env in zip(played[:2], envs, strict=False):
        assert demonstration.success and len(demonstration.labels) == 2
        state = state_of(env)
        times = [t for clip in state.clips for t in clip.times_s]
        direct = policy.reader.store.frames(state.task.video, times, size=policy.reader.size).pixels
        np.testing.assert_array_equal(demonstration.pixels[:24], direct)
        assert not demonstration.pixels[24:].any()


@pytest.mark.parametrize("lesson", ["oracle", "answers"])
def test_a_lesson_moves_what_it_is_about(lesson) -> None:
    """Answers say nothing of where to look, none teaches the critic, the encoder is frozen after."""
    config = RunConfig.of(**{name: value for name, value in SMALL.items() if name != "mini_batch_size"})
    policy = make_compact(config)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    curve = teach(policy, [make_env(config, config.tasks) for _ in range(4)], SHORT, 0, lesson)
    after = policy.state_dict()
    moved = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert {"encoder", "film", "match", "reading"} <= moved
    assert "value" not in moved and ({"look", "near"} <= moved) == (lesson == "oracle")
    assert not any(p.requires_grad for p in policy.encoder.parameters())
    assert [row[0] for row in curve] == [4, 8] and all(np.isfinite(row[1]) for row in curve)


# --- videos that cannot be shown -----------------------------------------------------------------

FEW = RunConfig.of(**{name: value for name, value in SMALL.items() if name != "mini_batch_size"})


class Damaged(FrameStore):
    """Shows the skims of all videos but some, and of others nothing beside the skim."""

    def __init__(self, unreadable: Sequence[str] = (), broken: Sequence[str] = ()) -> None:
        super().__init__()
        self.unreadable, self.broken = unreadable, broken

    def frames(self, source: str, times_s: Sequence[float], **options: Any) -> Any:  # type: ignore[override]
        """As a store's; a skim has 16 frames, a look 8."""
        if source in self.unreadable or (source in self.broken and len(times_s) < 16):
            raise VideoError(f"{source}: damaged")
        return super().frames(source, times_s, **options)


def policy_with(store: FrameStore) -> CompactPolicy:
    policy = make_compact(FEW)
    policy.reader = replace(policy.reader, store=store)
    return policy


def test_imitation_passes_over_tasks_that_cannot_be_shown(tmp_path: Path) -> None:
    """Half of the files are gone, and of the other half's skims one in two cannot be read."""
    tasks = load_tasks(FEW.tasks)
    rows = [replace(task, video=f"{i}.mp4") if i % 2 else task for i, task in enumerate(tasks)]
    write_tasks(tmp_path / "tasks.jsonl", rows)
    config = replace(FEW, tasks=str(tmp_path / "tasks.jsonl"))
    policy = policy_with(Damaged(unreadable=[task.video for task in tasks[::4]]))
    curve = teach(policy, [make_env(config, config.tasks) for _ in range(8)], SHORT, 0)
    assert [row[0] for row in curve] == [8, 16] and all(np.isfinite(row[1]) for row in curve)


def test_nothing_is_imitated_of_an_episode_that_breaks() -> None:
    """The oracle would look at what cannot be shown until it has to answer unseen."""
    videos = [task.video for task in load_tasks(FEW.tasks)]
    learned: list[Demonstration] = []

    def loss_of(policy: CompactPolicy, batch: Sequence[Demonstration]) -> torch.Tensor:
        learned.extend(batch)
        return imitation_loss(policy, batch)

    def run(broken: Sequence[str]) -> None:
        policy = policy_with(Damaged(broken=broken))
        with torch.no_grad():
            policy.answer_now.get_parameter("2.bias").fill_(-100.0)  # it looks first, as the oracle does
        envs = [make_env(FEW, FEW.tasks) for _ in range(8)]
        for seed, env in enumerate(envs):
            env.reset(seed=seed)
        imitate(policy, envs, SHORT, 0, lambda *_: None, loss_of)

    run(videos[::2])
    assert learned and not any(demonstration.broken for demonstration in learned)
    assert all(demonstration.labels[-1] >= FEW.looks for demonstration in learned), (
        "the oracle answers last"
    )
    with pytest.raises(VideoError, match="of none of the 8 episodes of a round could all frames be shown"):
        run(videos)
