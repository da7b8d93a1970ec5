"""The judge of training and evaluation: in the recipe, in the folder of a run, and one that is down."""

# ruff: noqa: D103

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_chat import TASKS, said

from agents import evaluate, train_grpo, train_grpo_mllm, train_ppo, train_ppo_mllm, train_rft, train_sft
from agents.training.options import options_of, read_config
from agents.vlm.command import training_parser
from agents.vlm.estimates import estimates
from agents.vlm.played import PlayedFiles
from agents.vlm.records import Record
from videogym import get_recipe
from videogym.datasets import load_tasks, write_tasks
from videogym.judging import judge_named, with_judge
from videogym.traces import read_traces
from videogym.traces.training import read_judge

LOOPS = (train_grpo, train_grpo_mllm, train_ppo, train_ppo_mllm, train_rft, train_sft, evaluate)
DEAD = "http://127.0.0.1:9/v1"  # nobody listens at the port of discard


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_every_loop_has_a_judge(loop: Any) -> None:
    names = {option.name for option in options_of(loop.Config)}
    assert {"judge", "judge_model", "judge_cache", "judge_deadline_s"} <= names


def test_the_judge_is_in_the_identity_and_made_once() -> None:
    config = train_grpo_mllm.Config.of(judge="rules", recipe="LONGVT/paper")
    expected = with_judge(get_recipe("LONGVT/paper"), judge_named("rules"))
    assert config.rules.identity == expected.identity != get_recipe("LONGVT/paper").identity
    assert config.rules is config.rules
    assert train_grpo_mllm.Config.of(recipe="LONGVT/paper").rules == get_recipe("LONGVT/paper")


def test_a_command_refuses_what_is_no_judge(capsys: pytest.CaptureFixture[str]) -> None:
    parser = training_parser("", train_grpo_mllm.Config, Path("out"))
    with pytest.raises(SystemExit) as ended:
        read_config(parser, train_grpo_mllm.Config, vars(parser.parse_args(["--judge", "strict"])))
    assert ended.value.code == 2
    assert "a judge is one of lenient, letter, rules, cache" in capsys.readouterr().err.splitlines()[-1]


def test_a_run_names_its_judge_without_the_address(tmp_path: Path) -> None:
    """So that its episodes can be shown when nobody is there to be asked."""
    cache = tmp_path / "c.jsonl"
    config = train_grpo_mllm.Config.of(judge=DEAD, judge_model="m", judge_cache=str(cache))
    identity = config.rules.identity
    (tmp_path / "judge.json").write_text(json.dumps(config.judging.replayed()))
    assert DEAD not in (tmp_path / "judge.json").read_text()
    shown = with_judge(get_recipe("LONGVT_TINY"), read_judge(tmp_path / "judge.json"))
    assert shown.identity == identity
    cache.unlink()
    with pytest.raises(ValueError, match=r"judge\.json: names no judge that can be had: .*must exist"):
        read_judge(tmp_path / "judge.json")


def test_answers_of_a_judge_that_is_down_are_counted_and_asked_again(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One choice and one open question: the open one is cut with its reason, and played when resumed."""
    first, second = load_tasks(f"{TASKS}&split=test")[:2]
    open_task = replace(second, kind="open", options=(), answer="a red flag", evidence=None)
    write_tasks(tmp_path / "t.jsonl", [first, open_task])
    options = {"checkpoint": str(checkpoints["qwen2_5_vl"]), "recipe": "LONGVT_TINY"}
    dead = {"judge": DEAD, "judge_model": "m", "judge_deadline_s": 0.2}
    config = evaluate.Config.of(
        **options, **dead, tasks=str(tmp_path / "t.jsonl"), judge_cache=str(tmp_path / "c.jsonl")
    )
    evaluation = evaluate.prepare(config)
    answers = {first.task_id: first.answer, open_task.task_id: "a banner"}

    def answer(records: Sequence[Record]) -> list[Record]:
        texts = [f"<think>seen</think><answer>{answers[one.task_id]}</answer>" for one in records]
        return [said(evaluation.env, one, text) for one, text in zip(records, texts, strict=True)]

    monkeypatch.setattr(evaluate, "greedy", lambda actor: answer)
    files = PlayedFiles(tmp_path / "played", evaluate.settings(evaluation))
    records = evaluation.play(files=files)
    assert [record.abort_reason for record in records] == ["", "judge: it abstained from the answer"]
    found = estimates(records, evaluation.tasks)
    assert (found["accuracy"].mean, found["accuracy"].count) == (1.0, 1)
    lines = evaluate.told(found, evaluation, 2, 1)
    assert "1 of these were cut because the judge abstained" in lines
    assert list(PlayedFiles(tmp_path / "played", evaluate.settings(evaluation)).done) == [first.task_id]
    evaluate.write(tmp_path, records, config)  # plays the episodes again without asking anybody
    traces = read_traces(tmp_path / "traces.jsonl").episodes
    assert [(one.ending, one.cut, one.correct) for one in traces] == [
        ("answered", "", True),
        ("answered", "", None),
    ]
