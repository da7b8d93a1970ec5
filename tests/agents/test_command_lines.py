"""Commands of the training loops, given what they cannot use: one line, before anything is made."""

# ruff: noqa: D103

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agents import train_grpo_mllm, train_ppo, train_sft
from agents.compact.run import command_line as of_compact_policies
from agents.vlm.command import command_line as of_language_models

COMMANDS = {
    "train_sft": lambda out: of_language_models("", train_sft.Config, train_sft.train, out),
    "train_ppo": lambda out: of_compact_policies("", train_ppo.Config, train_ppo.train, out),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--recipe", "LONGVT/papr", "unknown recipe 'LONGVT/papr'; known: "),
        ("--tasks", "procedural:brief", "must be one of brief_event"),
        ("--tasks", "empty.jsonl", "empty.jsonl: there is no task in the file"),
        ("--eval-tasks", "nowhere.jsonl", "nowhere.jsonl"),
        ("--tasks", "procedural:brief_event?count=3", "--tasks needs --eval-tasks: held-out tasks of"),
        ("--video-root", "nowhere", "video_root must be a folder, got 'nowhere'"),
        ("--itrations", "3", "unrecognized arguments: --itrations"),
        ("--iterations", "x", "invalid int value: 'x'"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(
    command: Callable[[Path], None],
    option: str,
    value: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    monkeypatch.setattr("sys.argv", ["train", option, value])
    with pytest.raises(SystemExit) as ended:
        command(tmp_path / "out")
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--server", "http://localhost:8000", "--collector", "ray"], "--collector local and async"),
        (["--server", "localhost:8000"], "a server's URL starts with http:// or https://, got 'localhost"),
        (["--server", "http://localhost:8000", "--video-form"], "frames as images, got temperature 1.0"),
        (["--server", "http://localhost:8000", "--temperature", "0.001"], "at least 0.01"),
    ],
)
def test_a_server_that_cannot_sample_is_told_in_a_line(
    more: list[str],
    said: str,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["train", "--checkpoint", str(checkpoints["qwen2_5_vl"]), *more])
    with pytest.raises(SystemExit) as ended:
        of_language_models("", train_grpo_mllm.Config, train_grpo_mllm.train, tmp_path / "out")
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("option", "package"), [("--collector", "ray"), ("--logger", "wandb")])
def test_a_package_that_an_option_needs_is_told_before_anything_is_made(
    option: str,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("sys.argv", ["train", option, package])
    with pytest.raises(SystemExit) as ended:
        of_language_models("", train_grpo_mllm.Config, train_grpo_mllm.train, tmp_path / "out")
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"pip install 'videogym[{package}]'\n")
    assert not (tmp_path / "out").exists()
