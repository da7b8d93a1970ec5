"""The needle: an arm of a seed that is done is not done again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import Table

from agents.experiments import needle


class Killed(BaseException):
    """The end of a process, which nothing catches."""


@pytest.mark.parametrize("killed_in", range(4))
def test_a_stopped_seed_goes_on_behind_the_last_arm(
    killed_in: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lessons and two runs of PPO, stopped in one of them: all is done once but what was stopped."""
    begun: list[str] = []
    alive = True

    def begin(what: str) -> None:
        begun.append(what)
        if alive and len(begun) > killed_in:
            raise Killed

    def imitate(config: Any, *_: Any) -> tuple[Table, float]:
        begin(f"lesson of {config.rules.name}")
        return Table().always(3), 7.0

    def ppo(policy: Table, config: Any, folder: Path, progress: bool) -> dict[str, float]:
        begin(folder.name)
        assert (policy.logits[3] > 0) == (folder.name == "warm-5"), "it starts from what was taught"
        needle.write_archive(folder / "checkpoint", {"policy": policy.state_dict()}, {})
        return {"accuracy": 0.5, "hit_rate": 0.5, "seconds": 11.0}

    found = SimpleNamespace(accuracy=SimpleNamespace(mean=1.0), hit_rate=None)
    monkeypatch.setattr(needle, "evaluate", lambda *_: found)
    monkeypatch.setattr(needle, "_imitate", imitate)
    monkeypatch.setattr(needle, "_ppo", ppo)
    monkeypatch.setattr(needle, "_curve", lambda folder: [[0.0, 0.5]])
    monkeypatch.setattr(needle, "make_compact", lambda config: Table())
    monkeypatch.setattr(needle, "AnswerOnly", lambda policy: policy)
    with pytest.raises(Killed):
        needle.run_seed(5, tmp_path)
    alive = False
    row = needle.run_seed(5, tmp_path)
    once = ["lesson of VIDEO_MTR/paper", "warm-5", "lesson of VIDEO_MTR/paper, one turn of 32", "cold-5"]
    assert begun == [*once[: killed_in + 1], *once[killed_in:]]
    assert row["warm"]["seconds"] == 18.0 and row["cold_curve"] and row["oracle"] == 1.0
    assert json.loads((tmp_path / "seed-5.json").read_text()).keys() == row.keys()
