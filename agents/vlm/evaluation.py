"""How good a language model is: metrics of whole episodes, and of held-out tasks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from videogym import Region, Task
from videogym.datasets import TrainedOnError, load_tasks, require_unseen, require_unseen_files
from videogym.evaluate import NothingScored
from videogym.evaluate import hits as evidence_shown
from videogym.state import Clip

from ..engines.base import EngineError
from ..training.ranks import is_first, map_across_ranks, together
from .actor import ChatActor
from .config import EVALUATED_AT_ONCE, ChatConfig
from .records import Record
from .rollouts import make_chat_env, play_tasks, require_same_tasks

SCORED = ("", "context")  # reasons for which an episode was cut that say whether it answered right


def make_evaluator(
    config: ChatConfig, actor: ChatActor, shown: Callable[[], Iterable[str]] = tuple
) -> Callable[[], dict[str, float]]:
    """What evaluates a policy: metrics and hits of its likeliest outputs on the first held-out tasks.

    Args:
        config: of the run.
        actor: the policy.
        shown: files of videos and images that are trained on beside the tasks; the first rank asks.

    Raises:
        TrainedOnError: they ask about videos of the tasks that are trained on, or about these.
        RanksDisagree: ranks have different ones.
    """
    env = make_chat_env(config, actor.model, config.evaluation.eval_tasks)
    require_same_tasks("eval_tasks", env.env.tasks)
    tasks = env.env.tasks[: config.evaluation.eval_episodes]
    require_unseen(tasks, load_tasks(config.tasks, config.root))
    together(lambda: require_unseen_files(tasks, shown() if is_first() else ()), (TrainedOnError,))

    def play_some(task_ids: Sequence[str]) -> list[Record]:
        records = list(
            play_tasks(
                env, greedy(actor), task_ids, config.memory.max_concurrent_rollouts or EVALUATED_AT_ONCE
            )
        )
        actor.engine.reset_cache()
        return records

    def evaluate() -> dict[str, float]:
        with actor.gathered():
            records = map_across_ranks([task.task_id for task in tasks], play_some, (EngineError,))
        if not any(record.abort_reason in SCORED for record in records):
            told = f"{records[0].task_id}: {records[0].abort_reason}"
            raise NothingScored(f"no episode could be scored: all {len(records)} were cut, such as {told}")
        values = {**rollout_metrics(records), **hits(records, tasks)}
        return {f"eval_{name}": value for name, value in values.items()}

    return evaluate


def hits(records: Sequence[Record], tasks: Sequence[Task]) -> dict[str, float]:
    """``hit_rate``: share of episodes that were shown all evidence, see `videogym.evaluate.hits`.

    Args:
        records: one of every task, in order; those that were cut do not count, as in `rollout_metrics`.
        tasks: those without evidence do not count.
    """
    found = []
    for record, task in zip(records, tasks, strict=True):
        if record.abort_reason:
            continue
        shown = [visual for turn in record.turns for visual in turn.visuals]
        hit = evidence_shown(task, [Clip(visual.times_s, Region(*visual.region)) for visual in shown])
        found += [] if hit is None else [hit]
    return {"hit_rate": float(np.mean(found))} if found else {}


def greedy(actor: ChatActor) -> Callable[[Sequence[Record]], list[Record]]:
    """The actor's likeliest outputs."""
    return functools.partial(actor.answer, sampling=replace(actor.sampling, greedy=True))


def rollout_metrics(records: Sequence[Record]) -> dict[str, float]:
    """Means over whole episodes.

    Returns:
        ``accuracy``, ``reward``, every reward term where it is present, ``turns``, ``looks``, sampled
        ``tokens``; ``invalid_rate`` of turns; ``cut_rate`` of episodes, which count in nothing else, but
        for this: whose context was full has not answered, and that is not right.
    """
    whole = [record for record in records if not record.abort_reason]
    judged = [record for record in records if record.abort_reason in SCORED]
    values: dict[str, float] = {"cut_rate": 1 - len(whole) / len(records)}
    if judged:
        values["accuracy"] = float(np.mean([bool(record.success) for record in judged]))
    if not whole:
        return values
    turns = [turn for record in whole for turn in record.played]
    values |= {
        "reward": float(np.mean([record.total_reward for record in whole])),
        "turns": len(turns) / len(whole),
        "looks": sum(turn.looked for turn in turns) / len(whole),
        "tokens": sum(record.sampled_tokens for record in whole) / len(whole),
        "invalid_rate": sum(bool(turn.error) for turn in turns) / len(turns),
    }
    for name in turns[0].terms:
        totals = [total for record in whole if (total := record.total(name)) is not None]
        if totals:
            values[name] = float(np.mean(totals))
    return values
