"""Turns against the same turn of their group: by hand, in closed form, and as a property."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from rounding import assert_close
from tensordict import TensorDict
from torch import Tensor
from torchrl.objectives.llm import MCAdvantage

from agents.training.groups import group_advantage, group_turn_advantage


def by_loops(reward: Tensor, played: Tensor, size: int, scale: bool) -> Tensor:
    """The definition, written out."""
    found = torch.zeros(reward.shape, dtype=torch.float64)
    for first in range(0, len(reward), size):
        for turn in range(reward.shape[1]):
            rows = [row for row in range(first, first + size) if played[row, turn]]
            worth = [
                sum(float(reward[row, k]) for k in range(turn, reward.shape[1]) if played[row, k])
                for row in rows
            ]
            if len(rows) < 2:
                continue
            mean = sum(worth) / len(worth)
            std = math.sqrt(sum((one - mean) ** 2 for one in worth) / (len(worth) - 1))
            for row, one in zip(rows, worth, strict=True):
                found[row, turn] = (one - mean) / (max(std, 1e-6) if scale else 1.0)
    return found


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 5), st.booleans())
def test_it_is_the_definition(seed: int, groups: int, size: int, scale: bool) -> None:
    """For episodes of one to four turns."""
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randn(groups * size, 4, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, 5, (groups * size, 1), generator=generator)
    played = torch.arange(4) < lengths
    reward[~played] = math.nan  # never read
    found = group_turn_advantage(reward, played, size, scale_by_std=scale)
    torch.testing.assert_close(found, by_loops(reward, played, size, scale))
    assert not found[~played].any()
    # What is kept of a group adds up to nothing, turn by turn.
    torch.testing.assert_close(
        found.reshape(groups, size, 4).sum(1), torch.zeros(groups, 4, dtype=torch.float64)
    )


@pytest.mark.parametrize("scale", [False, True])
def test_episodes_of_one_turn_are_grpo(scale: bool) -> None:
    """And so are rewards at the end of equally many turns."""
    returns = torch.tensor([0.0, 1.0, 5.0, 2.0, 2.0, 2.0], dtype=torch.float64)
    expected = group_advantage(returns, 3, scale_by_std=scale)
    played = torch.ones(6, 1, dtype=torch.bool)
    found = group_turn_advantage(returns[:, None], played, 3, scale_by_std=scale)
    assert_close(found[:, 0], expected.double())
    late = torch.stack([torch.zeros(6), torch.zeros(6), returns], 1)
    found = group_turn_advantage(late, played.expand(6, 3), 3, scale_by_std=scale)
    for turn in range(3):
        assert_close(found[:, turn], expected.double())


def test_a_look_is_credited_apart_from_the_answer() -> None:
    """By hand: both answer right, one looked well before. GRPO blames the other's answer, this does not."""
    reward = torch.tensor([[0.5, 1.0], [0.0, 1.0]])
    found = group_turn_advantage(reward, torch.ones(2, 2, dtype=torch.bool), 2, scale_by_std=False)
    assert found.tolist() == [[0.25, 0.0], [-0.25, 0.0]]


def test_a_turn_that_nobody_else_has_is_compared_with_nothing() -> None:
    """The third turn of one of two episodes gets 0, whatever it was paid; so do equal ones."""
    played = torch.tensor([[True, True, True], [True, True, False]])
    found = group_turn_advantage(torch.tensor([[0.0, 0.0, 7.0], [0.0, 7.0, 0.0]]), played, 2)
    assert found[:, 2].tolist() == [0.0, 0.0] and found.tolist()[0] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"group_size": 1}, "group_size must be at least 2, got 1"),
        ({"group_size": 3}, "4 episodes are no whole groups of 3"),
        ({"reward": torch.full((4, 2), math.inf)}, "reward is inf in episode 0, turn 0"),
        ({"reward": torch.zeros(4)}, r"must be \(N, K\)"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], told: str) -> None:
    """With the value."""
    usual: dict[str, Any] = {
        "reward": torch.zeros(4, 2),
        "played": torch.ones(4, 2, dtype=torch.bool),
        "group_size": 2,
    }
    with pytest.raises(ValueError, match=told):
        group_turn_advantage(**{**usual, **changes})


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(2, 6))
def test_advantages_of_episodes_are_those_of_torchrl(seed: int, groups: int, size: int) -> None:
    """`MCAdvantage` goes episode by episode; some groups return the same throughout."""
    returns = torch.randn(groups, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    returns[::2] = returns[::2].round()
    returns[-1] = 1.3
    ends = {
        "reward": returns.reshape(-1, 1),
        "done": torch.ones(groups * size, 1, dtype=torch.bool),
    }
    episodes = TensorDict({"query": torch.arange(groups * size) // size, "next": ends}, groups * size)
    compare = MCAdvantage(size, rewards_key=("next", "reward"), trajectory_return="sum")
    expected = compare.inv(episodes)["advantage"][:, 0]
    torch.testing.assert_close(group_advantage(returns.flatten(), size), expected)


@pytest.mark.parametrize(
    ("episodes", "size", "told"),
    [
        (4, 1, "at least 2, got 1"),
        (4, 0, "at least 2, got 0"),
        (5, 2, "5 episodes are no whole groups of 2"),
    ],
)
def test_what_is_no_group_is_refused(episodes: int, size: int, told: str) -> None:
    """Groups of one, and groups that are not whole."""
    with pytest.raises(ValueError, match=told):
        group_advantage(torch.zeros(episodes), size)


def test_of_no_episodes_there_are_no_advantages() -> None:
    """As after a batch whose groups were all cut from outside."""
    assert group_advantage(torch.zeros(0), 2).shape == (0,)
