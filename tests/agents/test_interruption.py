"""Ctrl-C and SIGTERM: what was done is saved, a line says how to resume, and the bits are the same."""

# ruff: noqa: D103

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import SMALL, Table
from torch import nn

from agents import train_ppo, train_sft
from agents.compact import imitation
from agents.compact.run import command_line as of_compact_policies
from agents.compact.run import make_compact, make_env
from agents.training.archive import UnreadableCheckpoint, load_archive, read_metadata
from agents.training.command import interruptible
from agents.training.interruption import Interrupted
from agents.training.provenance import read_provenance
from agents.training.run import TrainingRun
from agents.vlm.command import command_line

CONFIG = train_ppo.Config.of(**SMALL)


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, as at a prompt: a shell starts its background jobs deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def signalled(monkeypatch: pytest.MonkeyPatch, where: str, number: int, times: int = 1) -> Iterator[None]:
    """Send this process a signal where a span of the second iteration begins."""
    span, seen = TrainingRun.span, []

    def watched(self: TrainingRun, name: str) -> Any:
        if name == where:
            seen.append(name)
            if len(seen) == 2:
                for _ in range(times):
                    os.kill(os.getpid(), number)
        return span(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "span", watched)
        yield


def weights(policy: Table) -> list[float]:
    return [x for parameter in policy.parameters() for x in parameter.detach().flatten().tolist()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("where", "done"), [("collect", 1), ("advantage", 1), ("loss", 1), ("evaluate", 2)]
)
def test_an_interrupted_run_resumes_to_the_same_bits(
    where: str, done: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a weight has moved the iteration is begun anew; in the evaluation it is ended and saved."""
    config = CONFIG.with_options(iterations=3, checkpoint_every=100, eval_every=1)
    whole, stopped, resumed = Table(), Table(), Table()
    train_ppo.train(config, whole, tmp_path / "whole")
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with signalled(monkeypatch, where, number), pytest.raises(Interrupted):
        train_ppo.train(config, stopped, tmp_path / "run")
    assert read_metadata(tmp_path / "run" / "checkpoint")["iteration"] == done
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    train_ppo.train(config, resumed, tmp_path / "run")
    assert weights(resumed) == weights(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moved", [1, 2])
def test_a_signal_within_a_step_ends_the_iteration_first(
    moved: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second iteration's first step, when one of the policy's two parameters has moved, or both."""
    config = CONFIG.with_options(iterations=3, checkpoint_every=100, eval_every=100)
    whole, stopped, resumed = Table(), Table(), Table()
    train_ppo.train(config, whole, tmp_path / "whole")
    span, seen = TrainingRun.span, []
    module = importlib.import_module("torch.optim.adam")  # torch.optim has no such name
    adam = module.adam

    def watched(self: TrainingRun, name: str) -> Any:
        seen.append(name)
        return span(self, name)

    def interrupted(*lists: list[torch.Tensor], **settings: Any) -> None:
        if seen.count("loss") == 2 and "signal" not in seen:
            adam(*(some[:moved] for some in lists), **settings)
            seen.append("signal")
            os.kill(os.getpid(), number)
            lists = tuple(some[moved:] for some in lists)
        if lists[0]:
            adam(*lists, **settings)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(TrainingRun, "span", watched)
        patch.setattr(module, "adam", interrupted)
        train_ppo.train(config, stopped, tmp_path / "run")
    assert read_metadata(tmp_path / "run" / "checkpoint")["iteration"] == 2
    train_ppo.train(config, resumed, tmp_path / "run")
    assert weights(resumed) == weights(whole)


def test_an_iteration_that_is_counted_is_saved_as_done(tmp_path: Path) -> None:
    """Also where it made no step, as one in which no group has contrast: its turns count once."""
    policy = Table()
    optimizer = torch.optim.Adam(policy.parameters())

    def evaluate() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        return {}

    run = TrainingRun(CONFIG.with_options(eval_every=1), tmp_path, policy, optimizer, nn.Module(), evaluate)
    with pytest.raises(Interrupted):
        for iteration in run.iterations():
            run.end_iteration(iteration, 8, {})
    saved = read_metadata(tmp_path / "checkpoint")
    assert (saved["iteration"], saved["turns"]) == (1, 8)


def test_a_second_signal_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the evaluation, which would be ended after the first; the last checkpoint stays."""
    config = CONFIG.with_options(iterations=3, checkpoint_every=1, eval_every=1)
    with (
        signalled(monkeypatch, "evaluate", signal.SIGINT, times=2),
        pytest.raises(KeyboardInterrupt) as caught,
    ):
        train_ppo.train(config, Table(), tmp_path)
    assert not isinstance(caught.value, Interrupted)
    assert read_metadata(tmp_path / "checkpoint")["iteration"] == 1


def test_a_run_in_a_thread_leaves_signals_alone(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: train_ppo.train(CONFIG, Table(), tmp_path))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_ends_in_a_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever it was; afterwards SIGTERM means what it meant."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, interruptible(lambda: "It resumes."):
        os.kill(os.getpid(), number)
        threading.Event().wait(5)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\nInterrupted. It resumes.\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_that_ends_by_itself_goes_on_ignoring_torchruns_signal() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit), interruptible(lambda: "It resumes."):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            sys.exit(2)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


# --- imitation and commands ----------------------------------------------------------------------


def test_an_interrupted_imitation_is_taught_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 2 of 5 rounds: three are left, from the weights that there were; another lesson is refused."""
    config = CONFIG.with_options(episodes=4)
    lesson = imitation.ImitationConfig(rounds=5, updates=1, batch=4)
    saved, played = tmp_path / "imitation", []
    demonstrate = imitation.demonstrate

    def interrupted(*arguments: Any) -> Any:
        played.append(1)
        if len(played) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return demonstrate(*arguments)

    monkeypatch.setattr(imitation, "demonstrate", interrupted)
    policy, again = make_compact(config), make_compact(config)
    envs = [make_env(config, config.tasks) for _ in range(4)]
    with pytest.raises(KeyboardInterrupt):
        imitation.teach(policy, envs, lesson, 0, saved=saved)
    assert read_metadata(saved)["round"] == 2
    load_archive(saved, {"policy": again})
    for name, tensor in again.state_dict().items():
        assert tensor.equal(policy.state_dict()[name])
    assert len(imitation.teach(make_compact(config), envs, lesson, 0, saved=saved)) == 3
    assert imitation.teach(make_compact(config), envs, lesson, 0, saved=saved) == []
    with pytest.raises(UnreadableCheckpoint, match="is of another imitation"):
        imitation.teach(policy, envs, lesson, 0, "answers", saved=saved)


def test_an_interrupted_command_says_how_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SFT of a tiny language model, at its second step: status 130, a line, a checkpoint, no traceback."""
    out, tasks = tmp_path / "sft", "procedural:brief_event?level=0&duration_s=60&fps=4&size=64x48&count=4"
    few = ("--eval-episodes", "1", "--demonstrated-tasks", "2", "--groups", "1", "--max-new-tokens", "4")
    options = ("--tasks", f"{tasks}&split=train", "--eval-tasks", f"{tasks}&split=val", "--iterations", "3")
    command = ["agents.train_sft", *few, *options, "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    with signalled(monkeypatch, "update", signal.SIGTERM), pytest.raises(SystemExit) as ended:
        command_line("", train_sft.Config, train_sft.train, out)
    said = capsys.readouterr().err
    assert ended.value.code == 130 and "Traceback" not in said
    assert said.endswith(f"1 iterations are saved; the same command resumes the run in {out}\n")
    command_line("", train_sft.Config, train_sft.train, out)
    assert read_metadata(out / "checkpoint")["iteration"] == 3
    monkeypatch.setattr("sys.argv", [*command, "--iterations", "2"])  # fewer than it has done
    command_line("", train_sft.Config, train_sft.train, out)
    assert read_provenance(out / "model")["iteration"] == 3  # type: ignore[index]


def test_what_the_user_can_mend_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that is not there, tasks that were trained on, a folder of another run."""
    tasks = "procedural:brief_event?level=0&duration_s=60&fps=4&size=64x48&count=4&split=train"
    same = ("--tasks", tasks, "--eval-tasks", tasks, "--out", str(tmp_path / "x"), "--start", "cold")
    cases = [
        (["--device", "cuda:99"], "--device: device 'cuda:99' cannot be used", "sft"),
        ([*same, "--windows", "4"], "trained on", "ppo"),
    ]
    for options, told, kind in cases:
        monkeypatch.setattr("sys.argv", ["train", *options])
        with pytest.raises(SystemExit) as ended:
            if kind == "sft":
                command_line("", train_sft.Config, train_sft.train, tmp_path / "x")
            else:
                of_compact_policies("", train_ppo.Config, train_ppo.train, tmp_path / "x")
        assert ended.value.code == 2
        assert told in capsys.readouterr().err.splitlines()[-1]
