"""Training loops refuse to call tasks held out whose videos they train on."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_chat import RECIPE, TASKS, load, make_actor
from small_runs import SMALL, Table

from agents import train_ppo
from agents.compact.run import Evaluator
from agents.vlm.config import ChatConfig
from agents.vlm.evaluation import make_evaluator
from videogym.datasets import TrainedOnError, load_tasks, write_tasks


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
