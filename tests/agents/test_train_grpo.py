"""GRPO for compact policies: advantages by hand, groups that teach nothing, and what updates move."""

# ruff: noqa: D103

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rounding import rounded
from small_runs import LOOKING, NAN, SMALL, Table, collisions
from tensordict import TensorDict, TensorDictBase

from agents import train_ppo
from agents.compact.discrete import DiscretePolicy
from agents.compact.run import make_compact
from agents.train_grpo import Config, advantages, train
from videogym import RewardError

CONFIG = Config.of(group_size=4, **SMALL)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def batch_of(*groups: list[list[float]]) -> TensorDictBase:
    """Groups of episodes of these turn rewards, padded to the longest."""
    rows = [(number, rewards) for number, group in enumerate(groups, start=7) for rewards in group]
    turns = max(len(rewards) for _, rewards in rows)
    waiting = torch.tensor([[k >= len(rewards) for k in range(turns)] for _, rewards in rows])
    last = torch.tensor([[k >= len(rewards) - 1 for k in range(turns)] for _, rewards in rows])
    # Whatever lies beyond the end is not read.
    reward = torch.tensor([[*rewards, *[99.0] * (turns - len(rewards))] for _, rewards in rows])
    number = torch.tensor([[number] * turns for number, _ in rows])
    return TensorDict(
        {
            "inputs": {"turn": torch.arange(len(rows) * turns).reshape(len(rows), turns)},
            "waiting": waiting[..., None],
            "group": number[..., None],
            "action": torch.zeros(len(rows), turns, dtype=torch.int64),
            "action_log_prob": torch.zeros(len(rows), turns),
            "next": {
                "reward": reward[..., None],
                "done": last[..., None],
                "terminated": last[..., None],
                "fault": torch.zeros_like(last[..., None]),
            },
        },
        batch_size=(len(rows), turns),
    )


def advantages_of(*groups: list[list[float]], **changes) -> tuple[dict[int, float], float]:
    """Advantages by the place of a turn in the batch, and the share of groups that were kept."""
    size = len(groups[0])
    config = replace(CONFIG, group_size=size, episodes=len(groups) * size, **changes)
    turns, kept = advantages(config, batch_of(*groups))
    if turns is None:
        return {}, kept
    places = turns["inputs", "turn"].tolist()
    return dict(zip(places, turns["advantage"].flatten().tolist(), strict=True)), kept


def test_returns_are_compared_within_their_group() -> None:
    """Returns 0, 1, 2: mean 1, deviation 1. Returns 0, 3, 3: mean 2, deviation sqrt(3)."""
    found, kept = advantages_of([[0.0], [1.0], [2.0]], [[0.0], [3.0], [3.0]])
    third = 1 / math.sqrt(3)
    assert found == rounded({0: -1, 1: 0, 2: 1, 3: -2 * third, 4: third, 5: third})
    assert kept == 1.0


def test_without_the_deviation_differences_stay_as_they_are() -> None:
    found, _ = advantages_of([[0.0], [1.0], [2.0]], [[0.0], [3.0], [3.0]], scale_by_std=False)
    assert found == rounded({0: -1, 1: 0, 2: 1, 3: -2, 4: 1, 5: 1})


def test_a_return_is_the_sum_over_turns_and_all_turns_get_its_advantage() -> None:
    """Returns 1 and 3, by turn: mean 2, so -1 and 1, whatever each turn paid."""
    found, _ = advantages_of([[1.0], [4.0, -2.0, 1.0]], scale_by_std=False, aggregation="turn")
    assert found == rounded({0: -1, 3: 1, 4: 1, 5: 1})


def test_by_episode_every_episode_weighs_alike() -> None:
    """4 turns in 2 episodes of 1 and 3: a turn weighs 4 / (2 x 1) and 4 / (2 x 3)."""
    found, _ = advantages_of([[1.0], [4.0, -2.0, 1.0]], scale_by_std=False, aggregation="episode")
    assert found == rounded({0: -2, 3: 2 / 3, 4: 2 / 3, 5: 2 / 3})


returns = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=3)


@given(st.lists(st.lists(returns, min_size=3, max_size=3), min_size=1, max_size=4), st.booleans())
def test_advantages_of_the_aggregations(groups: list[list[list[float]]], scale: bool) -> None:
    """Means over all turns of one are means over episodes of means over turns of the other."""
    by_turn, kept = advantages_of(*groups, scale_by_std=scale, aggregation="turn")
    by_episode, kept_too = advantages_of(*groups, scale_by_std=scale, aggregation="episode")
    contrast = [group for group in groups if len({sum(rewards) for rewards in group}) > 1]
    assert kept == kept_too == pytest.approx(len(contrast) / len(groups))
    assert len(by_turn) == sum(len(rewards) for group in contrast for rewards in group)
    if not contrast:
        return
    width = max(len(rewards) for group in groups for rewards in group)
    rows = [group for group in groups for _ in group]
    means: dict[int, list[float]] = {}
    for place, value in by_turn.items():
        means.setdefault(place // width, []).append(value)
    for row, values in means.items():
        totals = [sum(rewards) for rewards in rows[row]]
        mean = sum(totals) / 3
        deviation = math.sqrt(sum((total - mean) ** 2 for total in totals) / 2)
        expected = (totals[row % 3] - mean) / (deviation if scale else 1.0)
        assert values == rounded([expected] * len(values))
    of_episodes = sum(sum(values) / len(values) for values in means.values()) / len(means)
    size = max(abs(value) for value in by_episode.values())
    assert sum(by_episode.values()) / len(by_episode) == rounded(of_episodes, of=size)


def test_groups_that_teach_nothing_are_left_out() -> None:
    found, kept = advantages_of([[0.5], [0.25, 0.25]], [[0.0], [1.0]], [[0.0], [0.0]])
    assert kept == pytest.approx(1 / 3)
    assert set(found) == {4, 6}


def test_a_group_that_lost_an_episode_is_left_out() -> None:
    batch = batch_of([[0.0], [1.0]], [[0.0], [1.0]])[:3]
    turns, kept = advantages(replace(CONFIG, group_size=2, episodes=4), batch)
    assert turns is not None and turns["inputs", "turn"].tolist() == [0, 1] and kept == 0.5


# --- training ----------------------------------------------------------------------------------


def trained(out: Path, policy: DiscretePolicy | None = None, **changes) -> Table:
    policy = policy or Table()
    train(replace(CONFIG, **changes), policy, out)
    return policy  # type: ignore[return-value]


def curve(out: Path, name: str) -> list[float]:
    lines = (out / "log" / "scalars" / f"{name}.csv").read_text().splitlines()
    return [float(line.partition(",")[2]) for line in lines]


def test_a_group_of_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="group_size must be at least 2, got 1"):
        trained(tmp_path, group_size=1)
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_without_contrast_nothing_is_updated(tmp_path: Path) -> None:
    """All episodes of every group are the same: a policy that always answers A."""
    policy = trained(tmp_path, Table().always(4))
    assert policy.logits.tolist() == [0.0] * 4 + [100.0] + [0.0] * 3
    assert curve(tmp_path, "groups_with_contrast") == [0.0, 0.0]
    assert not (tmp_path / "log" / "scalars" / "entropy.csv").exists()


def test_values_are_not_trained(tmp_path: Path) -> None:
    policy = trained(tmp_path)
    assert policy.logits.any() and not policy.worth.any()
    assert not collisions(tmp_path, CONFIG.rules)


@pytest.mark.parametrize("name", ["clip_high", "clip_low"])
def test_both_clips_reach_the_loss(name: str, tmp_path: Path) -> None:
    """Clipping one side only matters once the ratio has left 1, in the second pass over a batch."""
    changes = {"learning_rate": 0.3, "epochs": 4, "iterations": 1, "entropy_coef": 0.0}
    wide = trained(tmp_path / "wide", clip_low=0.9, clip_high=9.0, **changes)
    again = trained(tmp_path / "again", clip_low=0.9, clip_high=9.0, **changes)
    narrow = trained(tmp_path / "narrow", **{"clip_low": 0.9, "clip_high": 9.0, name: 0.01}, **changes)
    assert torch.equal(wide.logits, again.logits)
    assert not torch.equal(wide.logits, narrow.logits)
    assert curve(tmp_path / "narrow", "clip_fraction") > curve(tmp_path / "wide", "clip_fraction")


def test_aggregation_and_scale_reach_the_loss(tmp_path: Path) -> None:
    runs = [
        trained(
            tmp_path / f"{scale}-{aggregation}",
            scale_by_std=scale,
            aggregation=aggregation,
            learning_rate=0.1,
        )
        for scale in (True, False)
        for aggregation in ("episode", "turn")
    ]
    assert len({tuple(run.logits.tolist()) for run in runs}) == 4


def test_what_pays_becomes_likelier(tmp_path: Path) -> None:
    """Where only looks are paid, half of all actions are looks at first and nearly all in the end."""
    policy = trained(tmp_path, recipe=LOOKING, iterations=12, episodes=32, learning_rate=0.1, group_size=8)
    looks = policy.logits.detach().softmax(-1)[:4].sum()
    assert looks > 0.8, f"{looks:.2f}; retrieval rates {curve(tmp_path, 'retrieval_rate')}"


def test_a_compact_policy_keeps_its_encoder_and_its_critic(tmp_path: Path) -> None:
    policy = make_compact(CONFIG)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    train(CONFIG, policy, tmp_path)
    moved = {n.partition(".")[0] for n, v in policy.state_dict().items() if not torch.equal(v, before[n])}
    assert moved & {"encoder", "value"} == set() and {"film", "match", "look"} <= moved


def test_a_reward_that_is_not_finite_ends_a_run_before_anything_is_learned(tmp_path: Path) -> None:
    for loop, config in (
        (train, Config.of(group_size=4, **SMALL)),
        (train_ppo.train, train_ppo.Config.of(**SMALL)),
    ):
        policy = Table()
        with pytest.raises(RewardError, match=r"reward term 'endless' of task .* must be a finite number"):
            loop(replace(config, recipe=NAN), policy, tmp_path / loop.__module__)
        assert not policy.logits.any() and not policy.worth.any()
