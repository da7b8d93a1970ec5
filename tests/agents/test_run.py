"""What surrounds training: curves, checkpoints, resuming to the bit, and faults that must not harm them."""

# ruff: noqa: D102, D103

from __future__ import annotations

import json
import random
import resource
import runpy
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import in_fork
from small_runs import BROKEN, SMALL, Table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensordict import TensorDict, TensorDictBase
from torch import nn

from agents import train_grpo, train_ppo
from agents.compact.run import Evaluator, episode_metrics
from agents.training import run as loop
from agents.training import staging
from agents.training.archive import UnreadableCheckpoint, load_archive, read_metadata, write_archive
from agents.training.provenance import digest_of_weights
from agents.training.run import CheckpointMismatch, RunDiverged, TrainingRun, optimizer_step
from videogym import Segment, Task, VideoError
from videogym.datasets import load_tasks, write_tasks
from videogym.testing.coded_clips import write_clip

PROOF = Path(__file__).parents[1] / "benchmarks" / "prove_resume.py"
LOOPS: dict[str, tuple[Any, Any]] = {
    "ppo": (train_ppo.train, train_ppo.Config.of(**SMALL)),
    "grpo": (train_grpo.train, train_grpo.Config.of(group_size=4, **SMALL)),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_run(out: Path, policy: nn.Module | None = None, config=LOOPS["ppo"][1]) -> TrainingRun:
    policy = policy or Table()
    optimizer = torch.optim.Adam(policy.parameters())
    return TrainingRun(config, out, policy, optimizer, nn.Module(), Evaluator(config, policy))


# --- resuming ----------------------------------------------------------------------------------


def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """SIGKILL at a random moment, then the same command: equal tensors and curves, to the byte."""
    proof = runpy.run_path(str(PROOF))
    seconds = proof["train"]("ppo", tmp_path / "whole")
    delay = random.uniform(0.1, 0.8) * seconds
    proof["killed_after"](delay, "ppo", tmp_path / "killed")
    proof["ended"]("ppo", tmp_path / "killed")
    assert proof["difference"](tmp_path / "whole", tmp_path / "killed") == "", f"killed after {delay} s"
    curves = proof["curves"](tmp_path / "killed")
    assert [int(row.split(",")[0]) for row in curves["reward"]] == list(range(12))
    assert [int(row.split(",")[0]) for row in curves["eval_accuracy"]] == [3, 7, 11]


def test_states_hold_what_was_trained(tmp_path: Path) -> None:
    """The comparison above would see a weight, a moment of Adam or a memory that differs."""
    train, config = LOOPS["ppo"]
    proof = runpy.run_path(str(PROOF))
    for name, seed in (("a", 0), ("b", 1)):
        train(replace(config, seed=seed), Table(), tmp_path / name)
    assert proof["difference"](tmp_path / "a", tmp_path / "b")
    names = {name.split("/")[1].partition("-")[2] for name in proof["states"](tmp_path / "a")}
    assert names == {"policy", "optimizer", "memory"}


def test_videos_lie_below_a_folder_that_may_be_moved(tmp_path: Path) -> None:
    """Trained on and evaluated by relative paths; the run goes on where the folder is another."""
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        write_clip(tmp_path / "videos" / f"{name}.mp4", count=240, rate=8)
        options = ("red", "blue", "green", "grey")
        task = Task(name, f"{name}.mp4", "Which?", "choice", options, "A", (Segment(4, 9),))
        write_tasks(tmp_path / f"{name}.jsonl", [task])
    config = LOOPS["ppo"][1].with_options(
        tasks=str(tmp_path / "a.jsonl"),
        eval_tasks=str(tmp_path / "b.jsonl"),
        video_root=str(tmp_path / "videos"),
        iterations=1,
        eval_episodes=1,
    )
    assert train_ppo.train(config, Table(), tmp_path / "run").turns > 0
    (tmp_path / "videos").rename(tmp_path / "moved")
    again = config.with_options(iterations=2, video_root=str(tmp_path / "moved"))
    assert train_ppo.train(again, Table(), tmp_path / "run").first_iteration == 1
    with pytest.raises(ValueError, match=r"video_root must be a folder, got .*videos"):
        train_ppo.train(config, Table(), tmp_path / "other")


@pytest.mark.parametrize("name", LOOPS)
def test_a_run_that_has_ended_does_nothing_more(name: str, tmp_path: Path) -> None:
    train, config = LOOPS[name]
    trained, again = Table(), Table()
    train(config, trained, tmp_path)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*checkpoint*"))
    train(config, again, tmp_path)
    assert torch.equal(trained.logits, again.logits)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*checkpoint*")) == before
    assert len((tmp_path / "log" / "scalars" / "reward.csv").read_text().splitlines()) == 2


def test_curves_are_cut_where_the_checkpoint_is(tmp_path: Path) -> None:
    """Later points and a line that was not finished go; others stay."""
    run = make_run(tmp_path)
    for step in range(12):
        run.log(step, {"reward": step / 8})
    run.save(11)
    path = tmp_path / "log" / "scalars" / "reward.csv"
    with path.open("a") as file:
        file.write("1")  # of "12,1.5"
    again = make_run(tmp_path)
    assert again.first_iteration == 11
    assert path.read_text().splitlines() == [f"{step},{step / 8}" for step in range(11)]


def test_a_folder_holds_curves_and_one_checkpoint(tmp_path: Path) -> None:
    """What a killed run left half written is cleared away."""
    (tmp_path / ".checkpoint.new.stage-1").mkdir()
    (tmp_path / ".checkpoint.new").write_text("half")
    train, config = LOOPS["ppo"]
    train(config, Table(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "config.yaml", "log"]


# --- faults ------------------------------------------------------------------------------------


class Unseeing(Table):
    """Cannot be shown some videos."""

    def __init__(self, gone: Sequence[str]) -> None:
        super().__init__()
        self.gone = gone

    def read(self, observation: Mapping[str, Any], earlier: TensorDictBase | None = None) -> TensorDict:
        """Or the table's."""
        if observation["video"] in self.gone:
            raise VideoError("the share is gone")
        return super().read(observation, earlier)


def test_held_out_tasks_that_say_nothing_are_told_and_end_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their videos are away for a time: no figure but how many, no best checkpoint, and a run goes on."""
    config = LOOPS["ppo"][1].with_options(eval_every=1, keep_best=True)
    policy = Unseeing(videos := [task.video for task in load_tasks(SMALL["eval_tasks"])[:4]])
    run = make_run(tmp_path, policy, config)
    for iteration in run.iterations():
        if iteration:
            policy.gone = videos[1:2]
        run.end_iteration(iteration, 1, {})
        assert run.evaluated["eval_cut_rate"] == (0.25 if iteration else 1.0)
        assert (len(run.evaluated) > 1) == (tmp_path / "best").exists() == bool(iteration)
    assert caplog.text.count("no episode could be scored: 4 bad videos") == 1
    assert "the share is gone" in caplog.text
    assert make_run(tmp_path, config=config).first_iteration == 2


@pytest.mark.parametrize("name", LOOPS)
def test_a_checkpoint_of_another_recipe_is_refused(name: str, tmp_path: Path) -> None:
    train, config = LOOPS[name]
    train(config, Table(), tmp_path)
    with pytest.raises(CheckpointMismatch) as caught:
        train(replace(config, recipe="VIDEO_MTR/code"), Table(), tmp_path)
    assert config.rules.identity in str(caught.value) and "VIDEO_MTR/code@" in str(caught.value)


def test_a_checkpoint_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path).save(1)
    with pytest.raises(CheckpointMismatch, match=r"'train_ppo'.*'train_grpo'"):
        make_run(tmp_path, config=LOOPS["grpo"][1])


def test_a_checkpoint_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path).save(1)
    monkeypatch.setattr(loop, "VERSION", 99)
    with pytest.raises(CheckpointMismatch, match=r"version 1, this run 99"):
        make_run(tmp_path)


def test_a_checkpoint_of_another_engine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of before there was a second version, too: they do not say what sampled."""
    (run := make_run(tmp_path)).save(1)
    assert run._identity.pop("engine_version") == 1
    run.save(1)  # as earlier versions did
    assert make_run(tmp_path).first_iteration == 1
    expected = r"engine version 1, this run 2, and a seed samples other outputs with each; choose another"
    monkeypatch.setattr(train_ppo.Config, "engine_version", 2)
    with pytest.raises(CheckpointMismatch, match=expected):
        make_run(tmp_path)


def test_a_run_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    """Files under the same path may be others by then; one of before does not say what it began with."""

    def run(**began_with: str) -> TrainingRun:
        policy, config = Table(), LOOPS["ppo"][1]
        optimizer = torch.optim.Adam(policy.parameters())
        return TrainingRun(config, tmp_path, policy, optimizer, nn.Module(), dict, began_with)

    run().save(1)  # as earlier versions did
    run(checkpoint="ab", critic_model="cd").save(1)
    assert run(checkpoint="ab", critic_model="cd").first_iteration == 1
    with pytest.raises(CheckpointMismatch, match=r"it has critic_model .*, whose weights have changed"):
        run(checkpoint="ab", critic_model="ef")


def test_a_digest_changes_with_any_weight_and_with_no_adapter() -> None:
    """Whatever its type and place, by a single bit; adapters begin at random."""
    digests = set()
    for kind in (torch.float32, torch.bfloat16):
        model = nn.ModuleDict({"a": nn.Linear(100, 3, dtype=kind), "lora_B": nn.Linear(2, 2, dtype=kind)})
        digests.add(first := digest_of_weights(model))
        with torch.no_grad():
            model["lora_B"].weight += 1
            assert digest_of_weights(model) == first
            model["a"].weight[2, 99] *= -1  # its first bit
        digests.add(digest_of_weights(model))
    assert len(digests) == 4 and all(len(one) == 12 for one in digests)


@pytest.mark.parametrize(
    "change",
    [{"iteration": -1}, {"iteration": "1"}, {"iteration": True}, {"turns": None}, {"config": []}],
    ids=str,
)
def test_a_checkpoint_that_does_not_say_how_far_it_came_is_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    make_run(tmp_path).save(1)
    about = read_metadata(tmp_path / "checkpoint") | change
    write_archive(tmp_path / "checkpoint", {}, about)
    with pytest.raises(UnreadableCheckpoint, match="does not say how far"):
        make_run(tmp_path)


def test_a_checkpoint_without_the_state_of_a_part_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path).save(1)
    about = read_metadata(tmp_path / "checkpoint")
    write_archive(tmp_path / "checkpoint", {"policy": Table().state_dict()}, about)
    with pytest.raises(UnreadableCheckpoint, match="it holds policy, but no"):
        make_run(tmp_path)


FULL = LOOPS["ppo"][1].with_options(keep_checkpoints=2, keep_best=True)


def refuses_on_a_full_disk(out: Path) -> bool:
    """Whether a second checkpoint is refused where a file may grow to no byte, and to a thousand."""
    policy = Table()
    run = make_run(out, policy, FULL)
    run.save(1, best=True)
    with torch.no_grad():
        policy.logits += 1.0
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 1000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(OSError, match="File too large"):
            run.save(2, best=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    return True


def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path: Path) -> None:
    """No file may grow beyond the limit: at once, or in the midst of writing."""
    assert in_fork(lambda: refuses_on_a_full_disk(tmp_path))
    for name in ("checkpoint", "best", "checkpoints/000001"):
        policy = Table()
        policy.logits.data += 5.0
        load_archive(tmp_path / name, {"policy": policy})
        assert not policy.logits.any() and read_metadata(tmp_path / name)["iteration"] == 1
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["000001"]
    assert make_run(tmp_path, config=FULL).first_iteration == 1


def test_best_and_kept_checkpoints_are_never_behind_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends while it names them is resumed from before, and names them then."""
    config = FULL
    make_run(tmp_path, config=config).save(1, best=True)
    for done in (0, 1):
        made: list[Path] = []

        def link(source: Path, path: Path, done: int = done, made: list[Path] = made) -> None:
            if len(made) == done:
                raise KeyboardInterrupt
            made.append(path)
            staging.link(source, path)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(loop, "link", link)
            make_run(tmp_path, config=config).save(2, best=True)
        assert make_run(tmp_path, config=config).first_iteration == 1
    make_run(tmp_path, config=config).save(2, best=True)
    assert read_metadata(tmp_path / "checkpoint")["iteration"] == 2
    assert read_metadata(tmp_path / "best")["iteration"] == 2
    kept = sorted((tmp_path / "checkpoints").iterdir())
    assert [read_metadata(path)["iteration"] for path in kept] == [1, 2]


@pytest.mark.parametrize("name", LOOPS)
def test_a_failing_reward_term_stops_the_run(name: str, tmp_path: Path) -> None:
    train, config = LOOPS[name]
    with pytest.raises(ArithmeticError, match="the judge is out") as caught:
        train(replace(config, recipe=BROKEN), Table().always(0), tmp_path)
    (note,) = [note for note in caught.value.__notes__ if "reward term" in note]
    assert "'verdict'" in note and "brief_event" in note


class Explodes(Table):
    """Finite scores, the gradients of which are not."""

    def forward(self, inputs):
        logits, value = super().forward(inputs)
        logits = logits + 0.0
        if logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * torch.nan)
        return logits, value


@pytest.mark.parametrize("name", LOOPS)
def test_a_diverged_run_leaves_weights_as_they_were(name: str, tmp_path: Path) -> None:
    train, config = LOOPS[name]
    policy = Explodes()
    with pytest.raises(RunDiverged, match="gradient's norm nan"):
        train(config, policy, tmp_path)
    assert not policy.logits.any() and not policy.worth.any()


def test_a_checkpoint_from_before_fields_were_renamed_is_resumed(tmp_path: Path) -> None:
    """Of the same values, and told apart by them: `lr` is `learning_rate`."""
    make_run(tmp_path).save(1)
    path = tmp_path / "checkpoint"
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(files["manifest.json"])
    config = manifest["metadata"]["config"]
    earlier = {"lr": "learning_rate", "critic": "vf_coef", "minibatch": "mini_batch_size"}
    for old, new in {**earlier, "entropy": "entropy_coef"}.items():
        config[old] = config.pop(new)
    for value, resumed in ((config["lr"], True), ("7.0", False)):
        config["lr"] = value
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
                archive.writestr(name, content)
        if resumed:
            assert make_run(tmp_path).first_iteration == 1
        else:
            with pytest.raises(CheckpointMismatch, match=r"learning_rate 7\.0, this run 0\.0005"):
                make_run(tmp_path)


def test_a_checkpoint_from_before_an_option_is_of_a_run_with_its_default(tmp_path: Path) -> None:
    """As `--estimator` had been unknown then: bilevel, which is its default, goes on; another does not."""
    usual = LOOPS["ppo"][1]
    make_run(tmp_path, config=usual).save(1)
    path = tmp_path / "checkpoint"
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(files["manifest.json"])
    assert manifest["metadata"]["config"].pop("estimator") == "bilevel"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
            archive.writestr(name, content)
    assert make_run(tmp_path, config=usual).first_iteration == 1
    with pytest.raises(CheckpointMismatch, match=r"it has estimator bilevel, this run gae"):
        make_run(tmp_path, config=replace(usual, estimator="gae"))


def test_no_step_is_made_down_a_loss_that_is_not_finite() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight])
    with pytest.raises(RunDiverged, match="the loss is inf"):
        loss = (weight * torch.inf).sum()
        loss.backward()
        optimizer_step([weight], optimizer, loss.item(), 0.5)
    assert weight.tolist() == [1.0, 1.0] and not optimizer.state


@pytest.mark.parametrize("name", LOOPS)
def test_episodes_without_a_valid_turn_are_trained_on(name: str, tmp_path: Path) -> None:
    """Action 11 answers with the eighth of four options, which spends the turn."""
    train, config = LOOPS[name]
    policy = Table(12).always(11)
    train(replace(config, options=8), policy, tmp_path)
    assert policy.logits.isfinite().all() and policy.worth.isfinite().all()
    rates = (tmp_path / "log" / "scalars" / "invalid_rate.csv").read_text().splitlines()
    assert rates == ["0,1.0", "1,1.0"]


# --- metrics -----------------------------------------------------------------------------------


def test_figures_of_a_batch() -> None:
    """Two episodes of two and one turn, by hand."""
    nan = float("nan")

    def turns(*rows, dtype=torch.float32):
        return torch.tensor(rows, dtype=dtype)[..., None]

    batch = TensorDict(
        {
            "waiting": turns([False, False], [False, True], dtype=torch.bool),
            "next": {
                "reward": turns([0.25, 1.0], [0.5, 0.0]),
                "terms": {
                    "answer": turns([nan, 1.0], [0.0, nan]),
                    "frame_gain": turns([0.25, nan], [0.5, nan]),
                },
                "is_success": turns([0.0, 1.0], [0.0, nan]),
                "frames_shown": turns([24.0, 32.0], [24.0, nan]),
                "invalid": turns([False, False], [True, False], dtype=torch.bool),
                "looked": turns([True, True], [False, False], dtype=torch.bool),
                "repeated": turns([False, True], [False, False], dtype=torch.bool),
                "fault": turns([False, False], [False, False], dtype=torch.bool),
                "tiou": turns([0.5, nan], [nan, nan]),
            },
        },
        batch_size=(2, 2),
    )
    metrics = episode_metrics(batch)
    expected = {
        "reward": 0.875,
        "answer": 0.5,
        "frame_gain": 0.375,
        "success": 0.5,
        "frames": 28.0,
        "turns": 1.5,
        "fault_rate": 0.0,
        "retrieval_rate": 2 / 3,
        "invalid_rate": 1 / 3,
        "repeat_rate": 0.5,
        "tiou_turn_1": 0.5,
    }
    assert metrics == pytest.approx(expected)


@pytest.mark.parametrize("name", LOOPS)
def test_times_of_an_iteration_add_up(name: str, tmp_path: Path) -> None:
    """Collecting, advantages, loss, evaluation and the rest are all of it."""
    train, config = LOOPS[name]
    train(config, Table(), tmp_path)
    rows = {
        path.stem: dict(line.split(",") for line in path.read_text().splitlines())
        for path in (tmp_path / "log" / "scalars").glob("seconds_*.csv")
    }
    parts = {"collect", "advantage", "loss", "evaluate", "other"}
    assert {f"seconds_{part}" for part in parts} | {"seconds_iteration", "seconds_total"} == set(rows)
    # The rest is what is left over: parts that were timed twice would make it negative.
    assert all(float(seconds) >= 0 for seconds in rows["seconds_other"].values())
    last = sum(float(rows[f"seconds_{part}"]["1"]) for part in parts)
    assert last == pytest.approx(float(rows["seconds_iteration"]["1"]))
    # The first iteration was not evaluated after.
    first = sum(float(rows[f"seconds_{part}"]["0"]) for part in parts - {"evaluate"})
    assert first == pytest.approx(float(rows["seconds_iteration"]["0"]))


def test_curves_can_go_to_tensorboard(tmp_path: Path) -> None:
    """One point an iteration, read back by TensorBoard's own reader."""
    train_ppo.train(train_ppo.Config.of(**SMALL, logger="tensorboard"), Table(), tmp_path)
    events = EventAccumulator(str(next((tmp_path / "log").rglob("events.*")).parent))
    events.Reload()
    points = events.Scalars("trained_reward")
    assert [point.step for point in points] == list(range(SMALL["iterations"]))
