"""What training leaves is what ``videogym report`` reads, although neither imports the other."""

from dataclasses import replace
from pathlib import Path

import pytest
from small_chat import ANSWER, RECIPE, TASKS, crop, load, make_env, said
from small_runs import SMALL, Table

from agents.tools.traces import trace_of_record
from agents.train_ppo import Config, train
from agents.vlm.env import ChatEnv
from agents.vlm.records import write_records
from videogym import VideoQAEnv
from videogym.report import Sources, write_report
from videogym.traces import training


@pytest.fixture
def chat(checkpoints: dict[str, Path]) -> ChatEnv:
    """An environment of language models."""
    return make_env(load(checkpoints["qwen2_5_vl"]))


def test_curves_and_episodes_of_a_real_run(
    chat: ChatEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Curves as the logger wrote them; records of the tasks that the checkpoint names."""
    out = tmp_path / "grpo"
    train(Config.of(**{**SMALL, "tasks": TASKS, "eval_tasks": SMALL["eval_tasks"]}), Table(), out)
    chat.env.reset(seed=1)
    record = chat.open("g")
    for output in (crop(10, 14), crop(14, 10), "what?", ANSWER):
        record = chat.advance(said(chat, record, output))
    write_records(out / "records" / "000000.jsonl", [record, replace(record, sample_index=1)])
    assert ["none of the recipes" in note or RECIPE.name in note for note in _left_out(out)] == [True, True]
    monkeypatch.setattr(training, "get_recipe", lambda name: RECIPE)  # as if it were one of the named ones
    sources = Sources([out])
    assert {"eval_accuracy", "reward"} <= {curve.name for curve in sources.curves}
    assert all(curve.path and curve.last_step <= 1 for curve in sources.curves)
    trace = trace_of_record(record, VideoQAEnv(TASKS, RECIPE), "grpo")
    assert list(sources) == [trace, trace] and sources.notes == ()
    assert write_report(Sources([out]), tmp_path / "r.html", thumbnails=0) is None


def _left_out(out: Path) -> tuple[str, ...]:
    sources = Sources([out])
    assert list(sources) == []
    return sources.notes
