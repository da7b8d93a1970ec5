"""Prompt files in the commands of language models: trained and evaluated behind them, and told."""

# ruff: noqa: D103

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_chat import TASKS

from agents import evaluate, train_sft
from agents.tools import traces as traces_command
from agents.vlm.command import command_line
from agents.vlm.records import read_records
from videogym import get_recipe
from videogym.cli import main as videogym_command
from videogym.grammars import load_prompt
from videogym.report import Sources
from videogym.traces import read_traces

WORDS = """
system = "Stand-in: look closely."
question = "{frames}{question}\\n{options}\\n{instruction} {path}"
instruction = "Stand-in: think, then look or answer."
"""
SMALL = ("--recipe", "LONGVT_TINY", "--max-new-tokens", "6")


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    path = tmp_path / "words.toml"
    path.write_text(WORDS, encoding="utf-8")
    return path


def test_an_evaluation_asks_in_the_words_of_the_file(
    checkpoints: dict[str, Path],
    prompt: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The model reads them, records and traces have the identity, and the command says whose they are."""
    recipe = get_recipe("LONGVT_TINY").with_prompt(prompt)
    out, checkpoint = tmp_path / "eval", str(checkpoints["qwen2_5_vl"])
    places = ("--checkpoint", checkpoint, "--out", str(out), "--prompt-file", str(prompt))
    options = (*places, *SMALL, "--tasks", TASKS, "--episodes", "2")
    monkeypatch.setattr("sys.argv", ["agents.evaluate", *options])
    evaluate.main()
    said = capsys.readouterr()
    assert f"2 episodes of {recipe.identity}" in said.out
    assert f"prompt of {prompt}\n  system: no published text known here, SHA-256 " in said.err
    assert {record.recipe for record in read_records(out / "played")} == {recipe.identity}
    assert {trace.recipe for trace in read_traces(out).episodes} == {recipe.identity}
    again = (str(out / "played"), "--tasks", TASKS, "--out", str(tmp_path / "again.jsonl"))
    monkeypatch.setattr("sys.argv", ["agents.tools.traces", *again, "--prompt-file", str(prompt)])
    traces_command.main()
    assert {trace.recipe for trace in read_traces(tmp_path / "again.jsonl").episodes} == {recipe.identity}
    # A run's folder says it by its prompt.toml; without one, its episodes are of another recipe.
    run = tmp_path / "run"
    shutil.copytree(out / "played", run / "records")
    assert list(lost := Sources([run], tasks=TASKS)) == [] and recipe.identity in lost.notes[0]
    (run / "prompt.toml").write_text(WORDS, encoding="utf-8")
    assert [trace.recipe for trace in Sources([run], tasks=TASKS)] == [recipe.identity] * 2


def test_a_run_keeps_its_words(
    prompt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny model's tokenizer knows them, and another file with the same words resumes the run."""
    out = tmp_path / "sft"
    tasks = (f"{TASKS}&split=train", f"{TASKS}&split=val")
    options = ("--tasks", tasks[0], "--eval-tasks", tasks[1], "--eval-episodes", "1", "--iterations", "1")
    few = ("--demonstrated-tasks", "2", "--groups", "1", "--prompt-file", str(prompt), "--out", str(out))
    monkeypatch.setattr("sys.argv", ["agents.train_sft", *SMALL, *options, *few])
    command_line(train_sft.__doc__, train_sft.Config, train_sft.train, out)
    assert "instruction: no published text known here" in capsys.readouterr().err
    assert load_prompt(out / "prompt.toml") == load_prompt(prompt)
    moved, edited = prompt.rename(tmp_path / "moved.toml"), tmp_path / "edited.toml"
    edited.write_text(WORDS.replace("closely", "slowly"), encoding="utf-8")
    monkeypatch.setattr(
        "sys.argv", ["agents.train_sft", *SMALL, *options, *few, "--prompt-file", str(moved)]
    )
    command_line(train_sft.__doc__, train_sft.Config, train_sft.train, out)
    monkeypatch.setattr(
        "sys.argv", ["agents.train_sft", *SMALL, *options, *few, "--prompt-file", str(edited)]
    )
    with pytest.raises(SystemExit) as ended:
        command_line(train_sft.__doc__, train_sft.Config, train_sft.train, out)
    assert ended.value.code == 2
    assert "is of another run: it has recipe 'LONGVT_TINY@" in capsys.readouterr().err.splitlines()[-1]


def test_a_bad_prompt_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In every command, before anything is loaded or made."""
    bad = tmp_path / "bad.toml"
    bad.write_text("system = '{max_turn}'", encoding="utf-8")
    common = ("--recipe", "LONGVT_TINY", "--prompt-file", str(bad))
    calls = {
        "agents.evaluate": lambda: evaluate.main(),
        "agents.train_sft": lambda: command_line("", train_sft.Config, train_sft.train, tmp_path / "x"),
    }
    own = ("--checkpoint", "nowhere", "--tasks", TASKS, "--out", str(tmp_path / "y"))
    for name, call in calls.items():
        monkeypatch.setattr("sys.argv", [name, *common, *(own if name == "agents.evaluate" else ())])
        with pytest.raises(SystemExit) as left:
            call()
        assert left.value.code == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert f"{bad}: system has the unknown place {{max_turn}}; did you mean {{max_turns}}?" in last
    assert videogym_command(["eval", "oracle", *common]) == 2
    assert str(bad) in capsys.readouterr().err
    assert not (tmp_path / "x").exists() and not (tmp_path / "y").exists()
