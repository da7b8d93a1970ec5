"""Configs as YAML files: the same run as by options, a run keeps its own, and what is wrong is named."""

# ruff: noqa: D103

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_runs import SMALL, Table

from agents import evaluate, train_grpo, train_grpo_mllm, train_ppo, train_ppo_mllm, train_rft, train_sft
from agents.compact.run import command_line as of_compact_policies
from agents.training.archive import read_metadata
from agents.training.config_file import config_text, parse_with_config
from agents.training.options import LoopConfig, add_options, from_options, options_of
from agents.vlm.command import training_parser

CONFIGS: dict[str, type[LoopConfig]] = {
    "train_grpo": train_grpo.Config,
    "train_grpo_mllm": train_grpo_mllm.Config,
    "train_ppo": train_ppo.Config,
    "train_ppo_mllm": train_ppo_mllm.Config,
    "train_rft": train_rft.Config,
    "train_sft": train_sft.Config,
}
EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "configs").glob("*.yaml"))


def parser_of(config: type[LoopConfig]) -> argparse.ArgumentParser:
    if config in (train_ppo.Config, train_grpo.Config):
        parser = argparse.ArgumentParser()
        add_options(parser, config)
        return parser
    return training_parser("", config, Path("runs/x"))  # type: ignore[arg-type]


def read(config: type[LoopConfig], *arguments: str) -> Any:
    return from_options(config, vars(parse_with_config(parser_of(config), arguments)))


def refused(path: Path, capsys: pytest.CaptureFixture[str], config: type[LoopConfig]) -> str:
    with pytest.raises(SystemExit) as ended:
        read(config, "--config", str(path))
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_is_the_same_config_as_its_options(name: str, tmp_path: Path) -> None:
    """Other values than the defaults, in both forms; then read back from what a run keeps."""
    config, path = CONFIGS[name], tmp_path / "run.yaml"
    flat = {"seed": 7, "iterations": 3, "eval_every": 2, "learning_rate": 1e-6, "threads": 2}
    path.write_text("\n".join(f"{key}: {value}" for key, value in flat.items()), encoding="utf-8")
    options = [text for key, value in flat.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    by_file, by_options = read(config, "--config", str(path)), read(config, *options)
    assert by_file == by_options != config()
    path.write_text(config_text(by_file), encoding="utf-8")
    assert read(config, "--config", str(path)) == by_file
    path.write_text(config_text(config()), encoding="utf-8")
    assert read(config, "--config", str(path)) == config()


def test_the_command_line_wins(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "out: runs/y\nserver: http://a\nsampling: {window: 2, video_form: true}\nseed: 5\nlr: 3e-4\n",
        encoding="utf-8",
    )
    parser = training_parser("", train_grpo_mllm.Config, Path("runs/x"))
    given = ["--window", "3", "--no-video-form", "--config", str(path)]
    arguments = parse_with_config(parser, given)
    assert (arguments.out, arguments.server, arguments.seed) == (Path("runs/y"), "http://a", 5)
    assert (arguments.window, arguments.video_form) == (3, False)
    assert arguments.learning_rate == 3e-4, "an earlier name of an option is known as on the command line"


@given(st.floats(0, allow_infinity=False), st.text(st.characters(exclude_categories=("C",))))
def test_any_number_and_text_comes_back(number: float, text: str) -> None:
    config = train_ppo.Config(learning_rate=number, tasks=text, windows=(4, 16))
    found = yaml.safe_load(config_text(config))
    assert math.isclose(float(found["learning_rate"]), number, rel_tol=0) and found["tasks"] == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("- a\n- b\n", "holds no fields: write them as in seed: 3"),
        ("seed: 3\nlerning_rate: 1\n", "line 2: unknown field 'lerning_rate'; did you mean learning_rate?"),
        ("\n\nzzz: 1\n", "line 3: unknown field 'zzz'; there are "),
        ("runtime:\n  thread: 1\n", "line 2: unknown field 'thread'; did you mean threads?"),
        ("seed: x\n", "line 1: seed must be a whole number, got 'x'"),
        ("seed: 1.5\n", "line 1: seed must be a whole number, got '1.5'"),
        ("seed: '3'\n", "line 1: seed must be a whole number, got '3'"),
        ("learning_rate: fast\n", "line 1: learning_rate must be a number, got 'fast'"),
        ("seed: [1]\n", "line 1: seed must be a whole number, got a list"),
        ("seed: {a: 1}\n", "line 1: seed must be a whole number, got several fields"),
        ("seed:\n", "line 1: seed has no value"),
        ("windows: []\n", "line 1: windows has no value"),
        ("windows: [4, x]\n", "line 1: windows must be a whole number, got 'x'"),
        ("logger: wandbb\n", "line 1: logger must be one of csv, tensorboard, wandb"),
        ("seed: 1\nseed: 2\n", "line 2: seed is given twice"),
        ("seed: 1\nmodel: [", "line 2: not YAML"),
        ("seed: !!python/object/apply:os.system ['x']\n", "seed must be a whole number"),
        ("seed: !!python/name:os.system x\n", "got the tag tag:yaml.org,2002:python"),
        ("? [a]\n: 1\n", "line 1: the name of a field is a text"),
        ("a: &a [*a]\n", "line 1"),
        ("recipe: LONGVT/papr\n", None),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line(
    content: str, said: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content, encoding="utf-8")
    if said is None:  # a text like any other; whether there is such a recipe the command asks
        assert read(train_ppo.Config, "--config", str(path)).recipe == "LONGVT/papr"
        return
    line = refused(path, capsys, train_ppo.Config)
    assert str(path) in line and said in line


def test_a_switch_is_true_or_false(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML's other words for it are texts to half of its readers."""
    path = tmp_path / "run.yaml"
    for value in ("yes", "on", "1", "'true'"):
        path.write_text(f"freeze_vision: {value}", encoding="utf-8")
        assert "freeze_vision must be true or false" in refused(path, capsys, train_sft.Config)


def test_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refused(tmp_path / "none.yaml", capsys, train_ppo.Config)
    assert "Is a directory" in refused(tmp_path, capsys, train_ppo.Config)
    path = tmp_path / "run.yaml"
    path.write_bytes(b"seed: 3 # \xff")
    assert "is not UTF-8: byte 10" in refused(path, capsys, train_ppo.Config)
    path.write_bytes(b"#" * 1_000_001)
    assert "more than 1,000,000 bytes" in refused(path, capsys, train_ppo.Config)
    path.write_text("[" * 5_000, encoding="utf-8")
    assert str(path) in refused(path, capsys, train_ppo.Config)


def test_a_command_names_the_file_of_what_cannot_be_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    for content, said in (
        ("recipe: LONGVT/papr", "unknown recipe 'LONGVT/papr'"),
        ("tasks: procedural:brief_event?count=3", "--tasks needs --eval-tasks"),
    ):
        path.write_text(content, encoding="utf-8")
        monkeypatch.setattr("sys.argv", ["train", "--config", str(path)])
        with pytest.raises(SystemExit) as ended:
            of_compact_policies("", train_ppo.Config, train_ppo.train, tmp_path / "out")
        assert ended.value.code == 2 and f"{path}: {said}" in capsys.readouterr().err
    path.write_text(f"out: {tmp_path / 'e'}\nwindow: 1\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["agents.evaluate", "--config", str(path)])
    with pytest.raises(SystemExit) as ended:
        evaluate.main()
    assert ended.value.code == 2 and f"{path}: name the checkpoint" in capsys.readouterr().err


def test_a_run_by_a_file_is_the_run_by_options(tmp_path: Path) -> None:
    """The checkpoints say the same of themselves; what the run keeps begins another that is equal."""
    config = train_ppo.Config.of(**SMALL)
    train_ppo.train(config, Table(), tmp_path / "a")
    kept = tmp_path / "a" / "config.yaml"
    assert kept.read_text(encoding="utf-8").startswith(f"# {config.rules.identity}\n")
    again = read(train_ppo.Config, "--config", str(kept))
    assert again == config
    train_ppo.train(again, Table(), tmp_path / "b")
    first, second = (read_metadata(tmp_path / name / "checkpoint") for name in "ab")
    timeless = {"seconds": 0, "cpu_seconds": 0}
    assert first | timeless == second | timeless
    assert (tmp_path / "a/log/scalars/reward.csv").read_bytes() == (
        tmp_path / "b/log/scalars/reward.csv"
    ).read_bytes()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_config_of_the_command_it_names(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both papers at 3B and 7B; started as its first line says, in shards where that says so."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    module = first.partition(" -m agents.")[2].split()[0]
    if "torchrun" in first:
        monkeypatch.setattr("agents.vlm.config.launched", lambda: True)
    config = read(CONFIGS[module], "--config", str(path))
    assert f"--config examples/configs/{path.name}" in first
    assert config.rules.name.partition("/")[0] == ("LONGVT" if "longvt" in path.stem else "VIDEO_MTR")
    size = path.stem.rpartition("_")[2]
    assert size in config.model.checkpoint.lower()
    known = {option.name for option in options_of(CONFIGS[module])}
    assert {"recipe", "checkpoint", "learning_rate"} <= known


def test_there_are_examples_of_both_papers_and_sizes() -> None:
    stems = {path.stem for path in EXAMPLES}
    assert {f"{name}_{size}" for name in ("video_mtr_ppo", "longvt_grpo") for size in ("3b", "7b")} <= stems
