"""Count how much recorded behaviour of Video-MTR's published trainer comes out the same here.

``python -m agents.tools.conformance FILE.jsonl ...`` checks batch shaping (``shaping_probe``) and bi-level
advantages (``gae_probe``), with the report and the exit status of `videogym.testing.conformance`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from videogym.testing import conformance
from videogym.testing.replay import ConformanceRow, Mismatches, UnusableRow

from ..training.advantage import bilevel_gae, masked_moments, whiten
from ..training.releveling import CodeGate, ExplorationBonus

TOLERANCE = 1e-5  # of a value, and near 0: records are rounded to six decimals, of float32 arithmetic


def check_row(row: dict[str, Any]) -> list[str]:
    """What comes out differently from the record; empty if nothing does.

    An exception of the code under test is a mismatch too.

    Raises:
        UnusableRow: the kind is unknown, or a field is missing or holds no numbers.
    """
    record = ConformanceRow(row)
    kind = record["kind"]
    if kind not in CHECKS:
        raise UnusableRow(f"unknown kind {kind!r}; known: {', '.join(sorted(CHECKS))}")
    try:
        return list(CHECKS[kind](record))
    except UnusableRow:
        raise
    except Exception as error:  # whatever it is, the row does not come out as recorded
        return [f"raised {type(error).__name__}: {error}"]


def _check_shaping(row: ConformanceRow) -> Mismatches:
    recorded = {
        name: _numbers(row, name)
        for name in ("turn_rewards_in", "after_answer_gate", "after_bootstrapping")
    }
    batch = _batch(recorded["turn_rewards_in"])
    for name, transform in (
        ("after_answer_gate", CodeGate()),
        ("after_bootstrapping", ExplorationBonus("code")),
    ):
        batch = transform(batch)
        yield from _compare(name, recorded[name], _rows(batch))


def _batch(turn_rewards: list[list[float]]) -> TensorDictBase:
    """Episodes of these turn rewards, padded."""
    turns = max(map(len, turn_rewards), default=0)
    reward = torch.zeros(len(turn_rewards), turns, 1, dtype=torch.float64)  # as the source's floats
    waiting = torch.ones(reward.shape, dtype=torch.bool)
    for i, rewards in enumerate(turn_rewards):
        reward[i, : len(rewards), 0] = _tensor(rewards)
        waiting[i, : len(rewards)] = False
    return TensorDict({"waiting": waiting, "next": {"reward": reward}}, batch_size=reward.shape[:2])


def _rows(batch: TensorDictBase) -> list[list[float]]:
    pairs = zip(batch["next", "reward"], batch["waiting"], strict=True)
    return [reward[~waiting].tolist() for reward, waiting in pairs]


def _check_gae(row: ConformanceRow) -> Mismatches:
    reward, value = (torch.tensor(_numbers(row, name)) for name in ("token_level_rewards", "values"))
    mask, turn_end = (torch.tensor(_numbers(row, name)) > 0 for name in ("loss_mask", "reward_mask"))
    advantage, value_target = bilevel_gae(
        reward,
        value,
        mask,
        turn_end,
        gamma_turn=row["high_level_gamma"],
        gamma_token=row["gamma"],
        lmbda_turn=row["lam"],
        lmbda_token=row["lam"],
    )
    yield from _compare("raw_advantages", _numbers(row, "raw_advantages"), advantage.tolist())
    yield from _compare("returns", _numbers(row, "returns"), value_target.tolist())
    # The source shifts and scales what lies outside the mask too, `whiten` leaves it 0.
    mean, std = masked_moments(advantage, mask)
    whitened = torch.where(mask, whiten(advantage, mask), (advantage - mean) / std)
    yield from _compare("whitened_advantages", _numbers(row, "whitened_advantages"), whitened.tolist())


def _numbers(row: ConformanceRow, name: str) -> list[list[float]]:
    rows = row[name]
    if not (isinstance(rows, list) and all(isinstance(numbers, list) for numbers in rows)):
        raise UnusableRow(f"{name} must be a list of lists of numbers, got {rows!r}")
    for number in (number for numbers in rows for number in numbers):
        if not isinstance(number, int | float):
            raise UnusableRow(f"{name} must hold numbers, got {number!r}")
    return [list(map(float, numbers)) for numbers in rows]


def _compare(name: str, expected: list[list[float]], actual: list[list[float]]) -> Mismatches:
    if list(map(len, expected)) != list(map(len, actual)):
        yield f"{name}: expected rows of {list(map(len, expected))}, got {list(map(len, actual))}"
        return
    for i, (wanted, got) in enumerate(zip(expected, actual, strict=True)):
        if not torch.allclose(_tensor(wanted), _tensor(got), rtol=TOLERANCE, atol=TOLERANCE):
            yield f"{name}: row {i}: expected {wanted}, got {[round(number, 6) for number in got]}"


def _tensor(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


CHECKS: dict[str, Callable[[ConformanceRow], Mismatches]] = {
    "shaping_probe": _check_shaping,
    "gae_probe": _check_gae,
}


if __name__ == "__main__":
    sys.exit(conformance.main(sys.argv[1:], check_row, "agents.tools.conformance"))
