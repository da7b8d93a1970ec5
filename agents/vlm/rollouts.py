"""Whole episodes of a language model: opened, played in lockstep, or demonstrated by a script."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from videogym import VideoQAEnv
from videogym.cost import Cost, Stopwatch
from videogym.datasets import TaskList, Tasks
from videogym.evaluate import task_digest

from ..demonstrations.evidence import ScriptedPolicy, ScriptedTurn
from ..models.qwen_vl import QwenVL
from ..training.ranks import launched, require_alike
from ..training.run import Span, untimed
from .actor import ChatActor
from .config import EVALUATED_AT_ONCE, ChatConfig
from .env import ChatEnv, Episode, play
from .records import Record
from .responder import with_model


def make_chat_env(
    config: ChatConfig, model: QwenVL, tasks: str, *, groups: int = 1, group_size: int = 1
) -> ChatEnv:
    """Episodes of the configured recipe, whose frames the model's store has."""
    recipe = with_model(config.rules, model)
    env = VideoQAEnv(tasks, recipe, video_root=config.root, open_videos=max(8, groups))
    return ChatEnv(
        env,
        model.tokenizer,
        groups=groups,
        group_size=group_size,
        form=model.chat_form(config.sampling.video_form),
        window=config.sampling.window or None,
        max_context=config.sampling.max_context,
        first_frames=config.sampling.first_frames,
    )


def require_same_tasks(name: str, tasks: Tasks) -> None:
    """Refuse ranks whose tasks differ, as where a file of that name is another one on another machine.

    All ask. Tasks that are made when they are asked for follow from their source; some of them tell.

    Args:
        name: of the option that names them.
        tasks: of this rank.

    Raises:
        RanksDisagree: on all ranks.
    """
    if not launched():
        return
    told = tasks if isinstance(tasks, TaskList) else tasks[:: max(1, len(tasks) // 16)]
    asked = "\n".join(f"{task.task_id} {task_digest(task)}" for task in told)
    digest = hashlib.sha256(asked.encode()).hexdigest()[:12]
    require_alike({name: f"{len(tasks)} tasks of digest {digest}"})


def opened(env: ChatEnv) -> list[Episode]:
    """The episodes of a batch before their first turn, groups in order; the environment is reset."""
    rows = env.reset().unbind(0)
    return [Episode(row["record"], snapshot) for row, snapshot in zip(rows, env.snapshots, strict=True)]


def rollouts(env: ChatEnv, actor: ChatActor, at_once: int = 0, span: Span = untimed) -> list[Record]:
    """One batch of whole episodes, groups in order.

    Args:
        env: is reset.
        actor: plays.
        at_once: episodes in play together; 0: all.
        span: times ``generate`` and ``environment``.
    """
    with span("environment"):
        episodes = opened(env)
    return play_in_parts(env, actor, episodes, at_once, span)


def play_in_parts(
    env: ChatEnv, actor: ChatActor, episodes: Sequence[Episode], at_once: int = 0, span: Span = untimed
) -> list[Record]:
    """Play opened episodes to their ends, so many together; the engine forgets those that have ended.

    Args:
        env: plays their outputs.
        actor: samples.
        episodes: each in its own state; changed in place.
        at_once: episodes in play together; 0: all.
        span: times ``generate`` and ``environment``.
    """
    records: list[Record] = []
    size = at_once or len(episodes) or 1
    for first in range(0, len(episodes), size):
        records += play(env, actor.answer, episodes[first : first + size], span)
        actor.engine.reset_cache()
    return records


def play_tasks(
    env: ChatEnv,
    answer: Callable[[Sequence[Record]], list[Record]],
    task_ids: Sequence[str],
    at_once: int = EVALUATED_AT_ONCE,
    ended: Callable[[Record], object] = lambda record: None,
) -> Iterator[Record]:
    """One whole episode of every task, in order; cut where a task cannot be played.

    Args:
        env: plays them.
        answer: gives every record one output more.
        task_ids: of the environment's tasks.
        at_once: episodes in lockstep.
        ended: called with every record as soon as its episode has ended, in whatever order they do.

    Yields:
        With what each took: of the seconds in which several were answered together, an equal share.
    """
    for first in range(0, len(task_ids), at_once):
        begun: list[Record] = []
        episodes: list[Episode] = []
        for task_id in task_ids[first : first + at_once]:
            watch = Stopwatch()
            begun.append(env.open_task(task_id))
            if not begun[-1].abort_reason:
                episodes.append(Episode(begun[-1], env.env.get_state(), watch.lap("environment")))
            else:
                ended(begun[-1])
        play(env, answer, episodes, ended=lambda one: ended(replace(one.record, cost=_cost(env, one))))
        played = (replace(one.record, cost=_cost(env, one)) for one in episodes)
        yield from (record if record.abort_reason else next(played) for record in begun)


def _cost(env: ChatEnv, episode: Episode) -> Cost:
    record = episode.record
    return replace(episode.cost, tokens_in=env.tokens_read(record), tokens_out=record.sampled_tokens)


def demonstrate(
    env: ChatEnv, script: ScriptedPolicy, task_ids: Sequence[str], per_task: int = 1
) -> Iterator[Record]:
    """Episodes that a script plays, as records: outputs are its texts, and nothing was sampled."""
    for task_id in task_ids:
        for number in range(per_task):
            record = replace(env.open_task(task_id), kind="demonstration", sample_index=number)
            while not record.done:
                record = play_scripted_turn(env, record, script(env.env.state))
            yield record


def play_scripted_turn(env: ChatEnv, record: Record, said: ScriptedTurn) -> Record:
    """A record whose last turn is answered by a text that nobody sampled, played in its environment."""
    ids = [*env.chat.output_ids(said.text), env.chat.end_id]
    turn = replace(record.turns[-1], trainable=said.trainable)
    record = replace(record, turns=(*record.turns[:-1], turn))
    return env.advance(record.answered(ids, [0.0] * len(ids), [0] * len(ids)))
