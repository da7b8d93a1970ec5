"""Commands of the training loops, given what they cannot use: one line, before anything is made."""

# ruff: noqa: D103

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_chat import build

from agents import train_grpo, train_grpo_mllm, train_ppo, train_ppo_mllm, train_sft
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
        (
            ["--look-arguments", '{"fps": 8}'],
            "--look-arguments or --moments: the recipe opens no argument 'fps'",
        ),
        (["--moments", "2"], "--moments: moments must be 0 where the recipe offers no search, got 2"),
        (["--options", "0"], "options must be at least 1, got 0"),
        (["--windows", "0"], "windows and options must be at least 1"),
    ],
)
def test_actions_that_do_not_fit_the_recipe_or_the_tasks_are_told_in_a_line(
    more: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["train", *more])
    with pytest.raises(SystemExit) as ended:
        of_compact_policies("", train_grpo.Config, train_grpo.train, tmp_path / "out")
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


CURRICULUM = (
    'mixture:[{"tasks": "procedural:brief_event?count=3", "weight": [[0, 1], [9, 2]]}, '
    '{"tasks": "procedural:digits?count=3"}]'
)
CHOSEN = 'mixture:[{"tasks": "longvt-images:rows.jsonl", "where": {"kind": "chart"}}]'


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--tasks", CURRICULUM, "--eval-tasks", "procedural:counting?count=3"],
            "tasks: fine-tuning takes",
        ),
        (["--images", CHOSEN], "images: rows of images have no metadata"),
    ],
)
def test_mixtures_that_fine_tuning_cannot_take_are_told_in_a_line(
    more: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["train", "--script", "scenes", *more])
    with pytest.raises(SystemExit) as ended:
        of_language_models("", train_sft.Config, train_sft.train, tmp_path / "out")
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("hub_offline")
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nowhere", "error: --critic-model nowhere is no model that can be loaded: "),
        ("small", "error: --critic-model: the critic small has another tokenizer"),
    ],
)
def test_a_critic_that_cannot_be_used_is_told_in_a_line(
    model: str,
    said: str,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    build(Path("small"), "qwen2_5_vl", vocab_size=500)
    policy = str(checkpoints["qwen2_5_vl"])
    monkeypatch.setattr("sys.argv", ["train", "--checkpoint", policy, "--critic-model", model])
    with pytest.raises(SystemExit) as ended:
        of_language_models("", train_ppo_mllm.Config, train_ppo_mllm.train, tmp_path / "out")
    last = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and said in last
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
