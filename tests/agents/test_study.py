"""The study: where a run starts from, what is not done twice, and how seeds become an interval."""

# ruff: noqa: D103

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import SMALL

from agents.compact.imitation import ImitationConfig
from agents.compact.run import make_compact, make_env
from agents.experiments import study
from agents.experiments.study import prefer_answers, run_cell
from agents.experiments.study_cells import CONDITIONS, cell_path, read_cell
from agents.experiments.study_report import PANELS, mean, report
from agents.train_ppo import Config
from videogym import get_recipe

TINY = Config.of(**{**SMALL, "eval_every": 1}, bonus="paper")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two conditions of a second each."""
    monkeypatch.setattr(study, "LESSON", ImitationConfig(rounds=2, updates=1, batch=8))
    for name in ("full", "no_bootstrapping"):
        bonus = "paper" if name == "full" else "none"
        monkeypatch.setitem(CONDITIONS, name, replace(CONDITIONS[name], config=replace(TINY, bonus=bonus)))


def test_a_run_starts_undecided_and_answers_at_once() -> None:
    """All looks have the same odds, and 95 % of first turns answer."""
    policy = make_compact(TINY)
    study.soften_looks(policy, 0.0)
    prefer_answers(policy, TINY, 0.95)
    env = make_env(TINY, TINY.tasks)
    odds = []
    for seed in range(64):
        logits, _ = policy(policy.read(env.reset(seed=seed)[0]).unsqueeze(0))
        odds.append(logits[0].softmax(-1))
    shares = torch.stack(odds)
    assert shares[:, 4:].sum(-1).mean().item() == pytest.approx(0.95, abs=1e-3)
    assert (shares[:, :4] == shares[:, :1]).all()


def test_cells_are_run_once_and_reported(
    tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("full", "no_bootstrapping"):
        run_cell(name, 0, tmp_path)
    cell = read_cell(cell_path(tmp_path, "full", 0))
    assert cell.recipe == get_recipe("VIDEO_MTR/paper").identity
    assert cell.command == "python -m agents.experiments.study --conditions full --seeds 0 --confidence 0"
    assert 0 <= cell.accuracy <= 1 and len(cell.curves["trained_reward"]) == 2
    (cell_path(tmp_path, "full", 1).with_suffix(".part")).write_text("{")  # of a cell that was killed
    lines = report(tmp_path).splitlines()
    assert len(lines) == 6 and lines[2].startswith("| `full`: Video-MTR as in the paper | ")
    assert f" | {cell.accuracy:.2f} | " in lines[2], "the accuracies by seed are shown"
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert (tmp_path / "ppo_grpo.png").exists()

    def never(*arguments: object) -> None:
        raise AssertionError("a cell that is done was run again")

    monkeypatch.setattr(study, "run_cell", never)
    study.run_missing(["full", "no_bootstrapping"], [0], tmp_path, 0.0, jobs=1)


def test_a_cell_that_was_stopped_knows_all_its_seconds(
    tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained to the end by a process that took an hour and was stopped before the cell was written."""
    first = study.train_ppo.train

    def slow(config: Config, policy: Any, folder: Path, progress: bool) -> Any:
        run = first(config, policy, folder, progress)
        run.seconds += 3600
        run.save(config.iterations)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study.train_ppo, "train", slow)
        with pytest.raises(KeyboardInterrupt):
            run_cell("full", 0, tmp_path)
    assert 3600 < run_cell("full", 0, tmp_path).seconds < 7200


def test_a_folder_without_cells_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the study first"):
        report(tmp_path)


def test_intervals_over_few_seeds_are_students() -> None:
    # 1, 2, 3: deviation 1, t of two degrees of freedom 4.303, so 4.303 / sqrt(3).
    estimate = mean([1.0, 2.0, 3.0])
    assert (estimate.mean, estimate.high) == (2.0, pytest.approx(2 + 4.303 / math.sqrt(3)))
    assert mean([0.5]).low == mean([0.5]).high == 0.5
    with pytest.raises(ValueError, match="1 to 10 seeds, got 11"):
        mean([0.0] * 11)


def test_conditions_differ_in_what_they_say_and_in_nothing_else() -> None:
    """Every condition is drawn, and the ablations of one system share rules, tasks and sizes."""
    drawn = {name for names in PANELS.values() for name in names}
    assert drawn | {"grpo"} == set(CONDITIONS)
    full = CONDITIONS["full"].config
    for name, changed in (
        ("trajectory_only", {"recipe"}),
        ("no_gate", {"gate"}),
        ("no_bootstrapping", {"bonus"}),
        ("single_turn", {"recipe"}),
        ("code_profile", {"recipe", "gate", "bonus", "gamma"}),
    ):
        config = CONDITIONS[name].config
        differs = {field for field in vars(full) if getattr(config, field) != getattr(full, field)}
        assert differs == changed, name
    assert CONDITIONS["trajectory_only"].config.rules.rules == full.rules.rules
    assert CONDITIONS["code_profile"].config.rules.rules == full.rules.rules
    one_turn = CONDITIONS["single_turn"].config.rules.rules
    assert one_turn.skim_frames == one_turn.frame_budget == full.rules.rules.frame_budget == 32
