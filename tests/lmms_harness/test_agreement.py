"""The same answers to the same documents, scored by `agents.evaluate` and by lmms-eval."""

# ruff: noqa: D103

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from running import run
from scripted_engine import Scripted
from small_benchmarks import Benchmarks

from agents import evaluate
from agents.train_grpo_mllm import Config
from agents.vlm.tiny import tiny_checkpoint
from videogym.traces import read_traces

pytestmark = [pytest.mark.lmms_eval, pytest.mark.filterwarnings("ignore")]


def by_pair(field: str, given: str, truth: str) -> Callable[[Any], bool]:
    return lambda sample: str(sample[field][given]) == str(sample[field][truth])


BENCHMARKS: dict[str, tuple[str, str, str, Callable[[Any], bool]]] = {
    "videomme": (
        "video-mme",
        "lmms-eval/Video-MME/data/test",
        "videomme/data",
        by_pair("videomme_perception_score", "pred_answer", "answer"),
    ),
    "mlvu_dev": (
        "mlvu",
        "sy1998/MLVU_dev/data/test",
        "mlvu",
        by_pair("mlvu_percetion_score", "pred_answer", "answer"),
    ),
    "mlvu_test": (
        "mlvu",
        "sy1998/MLVU_Test/data/test",
        "mlvu_test",
        by_pair("mlvu_percetion_score", "pred_answer", "answer"),
    ),
    "egoschema_subset": (
        "egoschema",
        "lmms-eval/egoschema/Subset/test",
        "egoschema/videos",
        by_pair("score", "pred", "ground_truth"),
    ),
    "lvbench": (
        "lvbench",
        "lmms-eval/LVBench/data/train",
        "lvbench",
        lambda sample: bool(sample["lvbench_score"]),
    ),
    "longvideobench_val_v": (
        "longvideobench",
        "longvideobench/LongVideoBench/data/validation",
        "datasets/longvideobench/videos",
        by_pair("lvb_acc", "parsed_pred", "answer"),
    ),
}


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("agents.vlm.policy.TransformersEngine", Scripted)
    tasks = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=50"
    return tiny_checkpoint(tmp_path / "tiny", Config.of(tasks=tasks))


def test_every_document_is_right_or_wrong_in_both(
    benchmarks: Benchmarks, checkpoint: Path, tmp_path: Path
) -> None:
    model = {"checkpoint": checkpoint, "recipe": "LONGVT_TINY", "max_new_tokens": 64}
    theirs = run(tmp_path / "theirs", list(BENCHMARKS), model).samples
    both = []
    for name, (reader, table, videos, right) in BENCHMARKS.items():
        source = f"{reader}:{benchmarks.hub / table}-00000-of-00001.parquet"
        out = tmp_path / name
        options = (
            "--recipe",
            "LONGVT_TINY",
            "--max-new-tokens",
            "64",
            "--out",
            str(out),
            "--tasks",
            source,
        )
        place = ("--checkpoint", str(checkpoint), "--video-root", str(benchmarks.home / videos))
        with mock.patch.object(sys, "argv", ["evaluate", *place, *options]):
            evaluate.main()
        for number, trace in enumerate(read_traces(out / "traces.jsonl")):
            both.append((name, trace.correct))
            assert trace.correct == right(theirs[f"{name}/{number}"]), (name, number, trace.answer)
    assert len(both) == len(theirs) == 12 + 28 + 36 + 10 + 8 + 8
    assert {(name, correct) for name, correct in both} == {
        (name, correct) for name in BENCHMARKS for correct in (True, False)
    }


def test_where_the_rules_differ(benchmarks: Benchmarks) -> None:
    """What docs/benchmarks.md says of them."""
    from lmms_eval.tasks import TaskManager, get_task_dict

    tasks = get_task_dict(["mlvu_test", "egoschema_subset", "videomme"], TaskManager("ERROR"), "chat")
    row = tasks["mlvu_test"].dataset["test"][0] | {"answer": "E"}
    told = tasks["mlvu_test"].process_results(row, ["E"])["mlvu_percetion_score"]
    assert told["pred_answer"] != "E"
    row = tasks["egoschema_subset"].dataset["test"][0]
    picked = {tasks["egoschema_subset"].process_results(row, ["-"])["score"]["pred"] for _ in range(60)}
    assert picked == {0, 1, 2, 3, 4}
    row = tasks["videomme"].dataset["test"][0]
    found = [
        tasks["videomme"].process_results(row, [text])["videomme_perception_score"]["pred_answer"]
        for text in ("-", "purple", "the second one", "Dark blue", "a Bus")
    ]
    assert found == ["", "", "", "D", "B"]
