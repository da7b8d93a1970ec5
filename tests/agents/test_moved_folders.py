"""A run is known by what it does, wherever its folder is, and by no option that nothing depends on."""

# ruff: noqa: D103

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_chat import RECIPE
from small_runs import Table
from torch import nn

from agents import train_rft, train_sft
from agents.training import run as loop
from agents.training.run import CheckpointMismatch, TrainingRun


def config_of(out: Path, **changes: Any) -> train_rft.Config:
    """What a run derives from its folder: the tiny model that it makes, and what it selects."""
    derived = {"checkpoint": str(out / "tiny"), "records": str(out / "selected.jsonl")}
    return train_rft.Config.of(**{"recipe": RECIPE, "rollouts": "played", **derived, **changes})


def run_in(out: Path, config: train_sft.Config) -> TrainingRun:
    policy = Table()
    return TrainingRun(config, out, policy, torch.optim.Adam(policy.parameters()), nn.Module(), dict)


def begun(out: Path, config: train_sft.Config) -> None:
    (out / "tiny").mkdir(parents=True)
    (out / "selected.jsonl").write_text("")
    run_in(out, config).save(1)


@pytest.mark.parametrize("before", [False, True], ids=["now", "before"])
@pytest.mark.parametrize("how", ["as begun", "absolute", "elsewhere", "moved"])
def test_a_run_is_resumed_wherever_its_folder_is(
    how: str, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one of before, whose checkpoint has these paths as they were given."""
    monkeypatch.chdir(tmp_path)
    out = Path("runs/rft")
    with monkeypatch.context() as patch:
        if before:
            patch.setattr(loop, "_from_folder", lambda value, out: str(value), raising=False)
        begun(out, config_of(out))
    if how != "as begun":
        out = tmp_path / out
    if how == "elsewhere":
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
    if how == "moved":
        out = out.rename(tmp_path / "kept")
    assert run_in(out, config_of(out)).first_iteration == 1


@pytest.mark.parametrize("begun_with_it", [True, False])
def test_a_checkpoint_of_elsewhere_is_no_part_of_the_folder(begun_with_it: bool, tmp_path: Path) -> None:
    """It is called as the one that a run makes, and is another: so is the run."""
    out, other = tmp_path / "run", tmp_path / "models" / "tiny"
    other.mkdir(parents=True)
    configs = [config_of(out), config_of(out, checkpoint=str(other))]
    if begun_with_it:
        configs.reverse()
    begun(out, configs[0])
    with pytest.raises(CheckpointMismatch, match="it has checkpoint "):
        run_in(out, configs[1])


def test_what_nothing_depended_on_is_left_out_when_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was begun with such an option goes on without it, and as no other run."""
    with monkeypatch.context() as patch:
        patch.setattr(train_sft.Config, "_refuse_ignored", lambda self: None)
        begun(tmp_path / "run", config_of(tmp_path / "run", per_task=2, first_frames=(2, 4)))
    assert run_in(tmp_path / "run", config_of(tmp_path / "run")).first_iteration == 1
    with pytest.raises(CheckpointMismatch, match=r"it has min_overlap 0\.3, this run 0\.5;"):
        run_in(tmp_path / "run", config_of(tmp_path / "run", min_overlap=0.5))
