"""Training loops refuse to call tasks held out whose videos they train on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from small_chat import ANSWER, RECIPE, TASKS, load, make_actor, make_env, play
from small_runs import SMALL, Table

from agents import train_ppo, train_rft, train_sft
from agents.compact.run import Evaluator
from agents.vlm.config import ChatConfig
from agents.vlm.evaluation import make_evaluator
from agents.vlm.records import write_records
from videogym.datasets import TrainedOnError, load_tasks, write_tasks
from videogym.testing.coded_clips import write_clip


def test_a_run_of_a_compact_policy_refuses_before_it_trains(tmp_path: Path) -> None:
    """At once, not at the first evaluation; and nothing is written."""
    config = train_ppo.Config.of(**SMALL)
    policy = Table()
    with pytest.raises(TrainedOnError, match=r"^20 of 20 tasks ask about videos that were trained on"):
        train_ppo.train(
            config.with_options(eval_tasks=config.tasks, eval_episodes=20), policy, tmp_path / "run"
        )
    assert not list(tmp_path.iterdir())
    Evaluator(config, policy)


def test_only_tasks_that_are_played_count(tmp_path: Path) -> None:
    """The second held-out task is trained on; an evaluation of one episode never meets it."""
    config = train_ppo.Config.of(**SMALL)
    tasks = [load_tasks(config.evaluation.eval_tasks)[0], load_tasks(config.tasks)[5]]
    write_tasks(tmp_path / "tasks.jsonl", tasks)
    config = config.with_options(eval_tasks=str(tmp_path / "tasks.jsonl"), eval_episodes=2)
    policy = Table()
    with pytest.raises(TrainedOnError, match=rf"^1 of 2 tasks .*: {tasks[1].task_id}$"):
        Evaluator(config, policy)
    Evaluator(config.with_options(eval_episodes=1), policy)


def test_a_language_model_is_not_evaluated_on_what_it_learns_from(checkpoints: dict[str, Path]) -> None:
    """Of one source, and of its two splits."""
    actor = make_actor(load(checkpoints["qwen2_5_vl"]))
    config = ChatConfig.of(recipe=RECIPE, tasks=TASKS, eval_tasks=TASKS, eval_episodes=2)
    with pytest.raises(TrainedOnError, match=r"^2 of 2 tasks"):
        make_evaluator(config, actor)
    assert callable(make_evaluator(config.with_options(eval_tasks=f"{TASKS}&split=val"), actor))


@pytest.mark.parametrize("loop", ["sft", "rft"])
def test_videos_of_stored_examples_are_trained_on(
    loop: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Whatever the source of tasks is: the records name the videos. Refused before anything is trained."""
    actor = make_actor(load(checkpoints["qwen2_5_vl"]))
    env = make_env(actor.model, groups=2, group_size=1)
    record, other = (
        replace(row, ending="answered", success=True) for row in play(env, actor, lambda turn, row: ANSWER)
    )
    assert record.task_id != other.task_id
    paid = [replace(turn, terms={**turn.terms, "time": 1.0}) for turn in record.turns]
    write_records(tmp_path / "records.jsonl", [replace(record, turns=tuple(paid))])
    held_out = load_tasks(TASKS)
    by_id = {task.task_id: task for task in held_out}
    options = {"recipe": RECIPE, "tasks": f"{TASKS}&split=test", "iterations": 1, "max_new_tokens": 2}
    module, named = (train_sft, "records") if loop == "sft" else (train_rft, "rollouts")
    options |= {named: str(tmp_path / "records.jsonl"), "eval_tasks": str(tmp_path / "held_out.jsonl")}
    config = module.Config.of(**options, groups=1)
    write_tasks(tmp_path / "held_out.jsonl", [by_id[other.task_id], by_id[record.task_id]])
    with pytest.raises(TrainedOnError, match=rf"^1 of 2 tasks .*: {record.task_id}$"):
        module.train(config.with_options(eval_episodes=2), actor, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint").exists() and not (tmp_path / "run" / "log").exists()
    module.train(config.with_options(eval_episodes=1), actor, tmp_path / "run")


def test_pictures_of_a_held_out_video_are_trained_on(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Conversations about its frames, which lie in a folder of its name."""
    video = load_tasks(f"{TASKS}&split=val")[0]
    write_tasks(tmp_path / "held_out.jsonl", [replace(video, video=str(tmp_path / "film.mp4"))])
    write_clip(tmp_path / "film.mp4", 240, rate=4)
    said = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "shots/film/7.png"}}]},
        {"role": "assistant", "content": "A cat."},
    ]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "1", "messages": said}))
    config = train_sft.Config.of(
        recipe=RECIPE,
        tasks=f"{TASKS}&split=train",
        eval_tasks=str(tmp_path / "held_out.jsonl"),
        images=str(tmp_path / "rows.jsonl"),
    )
    with pytest.raises(TrainedOnError, match=r"^1 of 1 tasks ask about videos that were trained on"):
        train_sft.train(config, make_actor(load(checkpoints["qwen2_5_vl"])), tmp_path / "run")
    assert not (tmp_path / "run").exists()
