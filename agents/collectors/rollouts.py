"""Rollouts of a multimodal language model: by this process, by its threads, or by workers on many machines.

All three play the same episodes for the same seed and iteration: this process opens the groups, each in
one state, and whoever plays goes on from there. `RolloutCollector` is all that a training loop knows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, Protocol, get_args

import torch

from videogym import FrameStore
from videogym.extras import require

from ..training.ranks import alone, launched
from ..training.run import TrainingRun
from ..vlm.actor import ChatActor
from ..vlm.config import ChatConfig
from ..vlm.policy import make_actor, make_model
from ..vlm.records import Record
from ..vlm.rollouts import make_chat_env
from .local import LocalCollector, RankCollector
from .threads import AsyncCollector

RolloutKind = Literal["local", "async", "ray"]


class RolloutCollector(Protocol):
    """Plays the episodes of an iteration with the weights that were pushed last."""

    def collect(self, iteration: int) -> list[Record]:
        """Whole episodes, groups in order; the tasks follow from the seed and the iteration alone.

        Raises:
            Exception: what went wrong where an episode was played, with its message.
        """
        ...

    def update_policy_weights_(self) -> None:
        """Push the actor's weights under a new version to whoever samples."""
        ...

    def close(self) -> None:
        """End all threads and processes."""
        ...


def make_collector(
    config: ChatConfig,
    actor: ChatActor,
    *,
    groups: int,
    group_size: int,
    kind: RolloutKind = "local",
    workers: int = 2,
    make_worker: Callable[[], ChatActor] | None = None,
    run: TrainingRun | None = None,
) -> RolloutCollector:
    """A collector of the configured episodes.

    Args:
        config: of the run.
        actor: the policy that is trained.
        groups: tasks of an iteration.
        group_size: episodes of a task.
        kind: ``"local"`` plays in lockstep in this process, or under torchrun a share of the groups in
            every rank, and is repeatable for the same number of ranks. ``"async"`` steps every episode in
            a thread of its own, while one server answers them in batches through ``actor``: slow videos
            overlap, and what is sampled depends on who comes first. ``"ray"`` plays whole groups in worker
            processes, on one machine or many, and is repeatable for the same workers.
        workers: processes of ``"ray"``; groups that ``"async"`` has in play at once, as far as
            ``max_concurrent_rollouts`` allows.
        make_worker: makes the actor of a Ray worker, picklable, the same model with any engine; None:
            the configured checkpoint, sampled with transformers.
        run: measures what collecting takes; None: nobody does.

    Raises:
        ValueError: an unknown kind, no workers, more than Ray has room for, or nothing to make them from;
            or torchrun started this and the kind is not ``"local"``.
        ImportError: Ray is not installed.
    """
    if kind not in get_args(RolloutKind):
        raise ValueError(f"collector must be one of {get_args(RolloutKind)}, got {kind!r}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    env = make_chat_env(config, actor.model, config.tasks, groups=groups, group_size=group_size)
    if kind == "local" and launched():
        return RankCollector(config, actor, env, group_size, run)
    if kind == "local":
        return LocalCollector(config, actor, env, run)
    alone(f"the collector {kind!r}")
    workers = min(workers, groups)
    if kind == "async":
        slots = workers * group_size
        return AsyncCollector(
            config, actor, env, min(slots, config.memory.max_concurrent_rollouts or slots), run
        )
    if make_worker is None:
        if not config.model.checkpoint:
            raise ValueError(
                "Ray workers load config.model.checkpoint, which names none; name one or give make_worker"
            )
        make_worker = functools.partial(transformers_actor, config)
    require("ray", "the collector 'ray'")
    from .ray_workers import RayCollector  # Ray is optional

    return RayCollector(config, actor, env, workers, groups, make_worker, run)


def transformers_actor(config: ChatConfig) -> ChatActor:
    """The configured checkpoint, sampled with transformers."""
    # Ray shows a worker its own accelerator alone, whichever the trainer is on.
    config = config.with_options(device=torch.device(config.model.device).type)
    return make_actor(config, make_model(config, FrameStore(video_root=config.root, open_videos=64)))
