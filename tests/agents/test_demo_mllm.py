"""The demonstration on a language model: every stage once, from its parent, and measured blind too."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from agents import train_grpo_mllm, train_rft, train_sft
from agents.experiments import demo_mllm, runs
from agents.experiments import stages as shared
from agents.experiments.demo_mllm import guessed, missed, run_seed, stages, table
from agents.experiments.runs import runs_at_once
from agents.experiments.stages import EVENT_S, Grey, Stage, result, skim
from videogym import FrameStore
from videogym.datasets import load_tasks
from videogym.evaluate import hits as met

CONFIG = stages("LONGVT_TINY", 0)["sft"].config.with_options(
    eval_tasks=demo_mllm.tested(stages("LONGVT_TINY", 0)["sft"].config),
)
TASK = load_tasks(CONFIG.evaluation.eval_tasks)[0]


def short(recipe: str, seed: int) -> dict[str, Stage]:
    """Two stages of one iteration each."""
    whole = stages(recipe, seed)
    few = {"eval_episodes": 2, "max_new_tokens": 12}
    sft, grpo = whole["sft"].config, whole["grpo"].config
    assert isinstance(sft, train_sft.Config) and isinstance(grpo, train_grpo_mllm.Config)
    sft = sft.with_options(iterations=1, demonstrated_tasks=2, groups=1, **few)  # type: ignore[arg-type]
    grpo = grpo.with_options(iterations=1, groups=1, group_size=2, **few)  # type: ignore[arg-type]
    return {"sft": replace(whole["sft"], config=sft), "grpo": replace(whole["grpo"], config=grpo)}


def test_every_stage_starts_from_its_parent() -> None:
    """LongVT's three stages and Video-MTR's two follow each other; the lone ones start from nothing."""
    parents = {name: stage.parent for name, stage in stages("LONGVT_TINY", 0).items()}
    assert parents == {"sft": "base", "grpo": "sft", "rft": "grpo", "grpo_alone": "base"}
    parents = {name: stage.parent for name, stage in stages("VIDEO_MTR_TINY", 0).items()}
    assert parents == {"sft": "base", "ppo": "sft", "ppo_alone": "base"}
    for recipe in ("LONGVT_TINY", "VIDEO_MTR_TINY"):
        for stage in stages(recipe, 3).values():
            assert stage.config.recipe == recipe and stage.config.seed == 3
            assert "split=train" in stage.config.tasks and "split=val" in stage.config.evaluation.eval_tasks


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call trains nothing and returns the same; a missing stage is made from the model before."""
    monkeypatch.setattr(demo_mllm, "stages", short)
    monkeypatch.setattr(demo_mllm, "TESTED", 2)
    monkeypatch.setattr(demo_mllm, "SIZES", {"vocab_size": 700})
    first = run_seed("LONGVT_TINY", 0, tmp_path)
    folder = tmp_path / "LONGVT_TINY" / "seed-0"
    assert list(first) == ["base", "sft", "grpo"]
    for row in first.values():
        assert [len(row[name]) for name in ("right", "right_blind", "right_skim")] == [2, 2, 2]
        assert row["hit_rate"] >= row["skim_hit_rate"]
    for name in first:
        assert (folder / name / "model.safetensors").exists()
    (folder / "grpo.json").unlink()
    trained: list[Path] = []
    loop = train_grpo_mllm.train

    def train(*arguments: object) -> object:
        trained.append(arguments[2])  # type: ignore[arg-type]
        return loop(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(
        demo_mllm, "stages", lambda *a: {n: replace(s, train=train) for n, s in short(*a).items()}
    )
    again = run_seed("LONGVT_TINY", 0, tmp_path)
    assert trained == [folder / "runs" / "grpo"]  # which had ended, and is only measured again
    assert again["sft"] == first["sft"] and again["grpo"]["right"] == first["grpo"]["right"]


def test_rft_selects_from_the_rollouts_of_grpo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder it is told is the one that GRPO writes."""
    seen: list[train_rft.Config] = []

    class Told(Exception):
        pass

    def train(config: train_rft.Config, *_: object) -> object:
        seen.append(config)
        raise Told

    monkeypatch.setattr(shared, "make_actor", lambda *_: None)
    monkeypatch.setattr(shared, "make_model", lambda *_: None)
    with pytest.raises(Told):
        demo_mllm.run_stage("rft", replace(stages("LONGVT_TINY", 0)["rft"], train=train), tmp_path)  # type: ignore[arg-type]
    assert seen[0].rollouts == str(tmp_path / "runs" / "grpo" / "records")
    assert seen[0].model.checkpoint == str(tmp_path / "grpo")


def test_a_result_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """What fails leaves no file; what is there is not made again, and not taken for something else."""
    path = tmp_path / "a.json"

    def fail() -> dict[str, float]:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        result(path, "one way", fail)
    assert list(tmp_path.iterdir()) == []
    made = result(path, "one way", lambda: {"x": 1.0})
    assert made["x"] == 1.0 and result(path, "one way", fail) == made == json.loads(path.read_text())
    with pytest.raises(ValueError, match=r"a\.json was made by .*choose another folder"):
        result(path, "another way", fail)


def in_threads(jobs: int, *_: object, **options: object) -> ThreadPoolExecutor:
    """In place of processes, each of which would load torch anew."""
    return ThreadPoolExecutor(jobs)


def test_a_run_that_fails_lets_none_that_waits_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the one that has begun meanwhile are cancelled, and nobody waits for that one."""
    monkeypatch.setattr(runs, "RunPool", in_threads)
    held = Event()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        with runs_at_once(1) as pool:
            failing = pool.submit(os.listdir, "nowhere")
            waiting = [pool.submit(held.wait, 60) for _ in range(9)]
            failing.result()
    assert sum(one.cancelled() for one in waiting) >= 8
    held.set()


def test_a_stage_that_fails_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its message, though more runs are waiting than are in play."""
    for folder in (tmp_path / recipe / f"seed-{seed}" for recipe in EVENT_S for seed in range(3)):
        (folder / "base").mkdir(parents=True)
        (folder / "base" / "config.json").write_text("no model")
    monkeypatch.setattr(demo_mllm, "TESTED", 2)
    monkeypatch.setattr(runs, "RunPool", in_threads)
    monkeypatch.setattr("sys.argv", ["demo_mllm", "--jobs", "1", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        demo_mllm.main()
    assert ended.value.code == 2 and "config.json" in str(ended.value.__cause__)


def test_grey_eyes_see_what_they_are_left() -> None:
    """Grey at all times of all videos, or at those that are not the skim's."""
    store, video = FrameStore(), TASK.video
    times = skim(CONFIG, TASK.task_id).times_s[:2]
    asked = [times[0], (times[0] + times[1]) / 2, times[1]]
    plain = store.frames(video, asked, size=(28, 56), region=None).pixels
    blind = Grey(store, {}).frames(video, asked, size=(28, 56), region=None).pixels
    assert blind.shape == plain.shape and np.unique(blind).tolist() == [128]
    left = Grey(store, {video: set(times)}).frames(video, asked, size=(28, 56), region=None).pixels
    np.testing.assert_array_equal(left[[0, 2]], plain[[0, 2]])
    assert np.unique(left[1]).tolist() == [128] and np.unique(plain[1]).tolist() != [128]


@pytest.mark.parametrize(("recipe", "share"), [("LONGVT_TINY", 0.725), ("VIDEO_MTR_TINY", 0.0)])
def test_how_often_a_skim_meets_the_event(recipe: str, share: float) -> None:
    """A skim of 64 frames leaves no gaps for events of three seconds; one of 16 hides those of six."""
    config = stages(recipe, 0)["sft"].config.with_options(
        eval_tasks=demo_mllm.tested(stages(recipe, 0)["sft"].config)
    )
    tasks = load_tasks(config.evaluation.eval_tasks)[: demo_mllm.TESTED]
    assert np.mean([met(task, [skim(config, task.task_id)]) for task in tasks]) == share


def row(right: float, blind: float) -> dict[str, object]:
    """Results of a stage over ten tasks."""
    shares = {"right": right, "right_blind": blind, "right_skim": blind}
    lists = {name: [place < 10 * share for place in range(10)] for name, share in shares.items()}
    return {**lists, "accuracy": right, "changed": 1.0, "hit_rate": 0.5, "looks": 1.0, "seconds": 90.0}


def test_goals_are_held_against_every_seed() -> None:
    """Sight: above blind and a guess among four after sft. Goal: 85 % in the best stage afterwards."""
    good = {"base": row(0.0, 0.0), "sft": row(0.7, 0.2), "grpo": row(0.9, 0.2), "grpo_alone": row(0.0, 0.0)}
    assert missed("LONGVT_TINY", 0, good) == []
    for right, blind, told in ((0.4, 0.4, "0.400"), (0.3, 0.0, "0.000"), (0.3, 0.2, "0.200")):
        assert missed("LONGVT_TINY", 1, {**good, "sft": row(right, blind)}) == [
            f"seed 1: after sft {right:.3f} are right, {told} without seeing, 0.250 by guessing"
        ]
    assert missed("LONGVT_TINY", 1, {**good, "sft": row(0.4, 0.2)}) == []
    weak = {**good, "sft": row(0.9, 0.2), "grpo": row(0.8, 0.2), "grpo_alone": row(1.0, 0.2)}
    assert missed("LONGVT_TINY", 2, weak) == [
        "seed 2: after reinforcement learning 0.800 are right, fewer than 0.85"
    ]
    lines = table([good, weak]).splitlines()
    # Wilson's interval of 17 of 20.
    assert lines[4].startswith("| grpo | 0.850 [0.640, 0.948] | 0.900, 0.800 | 0.200 | 0.200 |")
    assert lines[4].endswith("| 1.5 |")


def test_a_stage_may_not_be_worse_than_its_parent() -> None:
    """Of ten tasks the parent alone has five right: p = 2/32. Six: p = 2/64."""
    good = {"base": row(0.0, 0.0), "sft": row(0.9, 0.2), "grpo": row(0.9, 0.2), "rft": row(0.4, 0.2)}
    assert missed("LONGVT_TINY", 0, good) == []
    assert missed("LONGVT_TINY", 0, {**good, "rft": row(0.3, 0.2)}) == [
        "seed 0: rft is worse than grpo: right in 0 that grpo is not, wrong in 6 that it is, p = 0.031"
    ]
    # Better than the parent by as much is no miss; the lone stages start from nothing.
    assert missed("LONGVT_TINY", 0, {**good, "sft": row(0.4, 0.2), "grpo": row(1.0, 0.2)}) == [
        "seed 0: rft is worse than grpo: right in 0 that grpo is not, wrong in 6 that it is, p = 0.031"
    ]
    ppo = {"base": row(0.0, 0.0), "sft": row(1.0, 0.2), "ppo": row(0.9, 0.2), "ppo_alone": row(0.0, 0.0)}
    assert missed("VIDEO_MTR_TINY", 3, ppo) == []


@pytest.mark.parametrize("recipe", EVENT_S)
def test_a_guess_is_one_of_four(recipe: str) -> None:
    """As many options has every task that models are measured on."""
    assert guessed(recipe) == 0.25
