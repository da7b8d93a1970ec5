"""Rollouts by worker processes that Ray places, on one machine or many.

Plain Ray actors, not TorchRL's `RayLLMCollector`, which in 0.14.1 cannot carry this. It is one remote
collector that cannot be told what to play: ``set_seed`` is an AttributeError, and after its last episode
it resets for a next batch that nobody has asked for. It copies weights into the model without a word to
the engine, so that records keep the old version. And once its process has died, every call is an
ActorDiedError.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import ray
import torch
from transformers.utils.logging import disable_progress_bar

from ..training.bounds import OptionError
from ..training.run import TrainingRun
from ..vlm.actor import ChatActor
from ..vlm.config import ChatConfig
from ..vlm.env import ChatEnv, Episode
from ..vlm.records import Record, RecordError, fingerprint
from ..vlm.rollouts import make_chat_env, play_in_parts
from .local import open_episodes

RETRIES = 3  # times that a share of an iteration is played again because its worker died


@dataclass(frozen=True)
class Weights:
    """Of a version, in Ray's object store."""

    version: int
    trained: Any  # reference to tensors by name: those that training changes
    fixed: Any  # reference to all others, which a worker asks for once


class RolloutWorker:
    """Plays shares of iterations in a process of its own.

    Calls depend on nothing that earlier ones left: Ray may start the process anew and call again.

    Args:
        config: of the run.
        groups: most groups of a share.
        make_actor: makes the policy.
    """

    def __init__(self, config: ChatConfig, groups: int, make_actor: Callable[[], ChatActor]) -> None:
        disable_progress_bar()
        torch.set_num_threads(config.runtime.threads)
        self._actor, self._loaded = make_actor(), False
        self._at_once = config.memory.max_concurrent_rollouts
        self._tokenizer = fingerprint(self._actor.model.tokenizer)
        self._env = make_chat_env(config, self._actor.model, config.tasks, groups=groups)

    def play(self, episodes: Sequence[Episode], weights: Weights, seed: int) -> list[Record]:
        """Play opened episodes to their ends.

        Args:
            episodes: whole groups.
            weights: to sample with.
            seed: of sampling.

        Raises:
            RecordError: the episodes were opened with another tokenizer.
        """
        if (theirs := episodes[0].record.tokenizer) != self._tokenizer:
            raise RecordError(f"the worker's tokenizer is {self._tokenizer}, the episodes' is {theirs}")
        self._load(weights)
        torch.manual_seed(seed)
        return play_in_parts(self._env, self._actor, episodes, self._at_once)

    def _load(self, weights: Weights) -> None:
        actor = self._actor
        if self._loaded and actor.version == weights.version:
            return
        state = ray.get(weights.trained)
        if not self._loaded:
            state |= ray.get(weights.fixed)
        actor.model.load_state_dict(state, strict=not self._loaded)
        actor.version = weights.version
        actor.engine.update_weights(actor.model.model, actor.version)
        self._loaded = True

    def process_id(self) -> int:
        """Of the worker's process."""
        return os.getpid()


class RayCollector:
    """Plays in worker processes that Ray places; a worker that dies is started again elsewhere.

    A Ray that is initialised is used as it is. Otherwise the cluster that the variable ``RAY_ADDRESS``
    names is joined, or one is started here. Workers need this code and the videos under the same
    paths, one CPU each, and one GPU each where the model is on one.

    Args:
        config: of the run.
        actor: whose weights are pushed.
        env: opens the episodes.
        workers: processes.
        groups: tasks of an iteration, divided among the workers.
        make_worker: makes the actor of a worker.
        run: measures ``collect`` and ``push``.

    Raises:
        ValueError: Ray has no room for that many workers.
    """

    def __init__(
        self,
        config: ChatConfig,
        actor: ChatActor,
        env: ChatEnv,
        workers: int,
        groups: int,
        make_worker: Callable[[], ChatActor],
        run: TrainingRun | None = None,
    ) -> None:
        self._config, self._actor, self._env, self._run = config, actor, env, run
        self._group_size = env.batch_size[0] // groups
        self._started = not ray.is_initialized()
        if self._started:
            ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else workers)
        needed = {"CPU": 1, "GPU": int(torch.device(config.model.device).type == "cuda")}
        there = ray.cluster_resources()
        for name, each in needed.items():
            if workers * each > there.get(name, 0):
                if self._started:
                    ray.shutdown()
                raise OptionError(
                    f"workers={workers} need {workers * each} {name}s, Ray has {there.get(name, 0):g}"
                )
        remote = ray.remote(
            num_cpus=needed["CPU"], num_gpus=needed["GPU"], max_restarts=-1, max_task_retries=RETRIES
        )
        most = -(-groups // workers)
        make: Any = remote(RolloutWorker)
        self._workers = [make.remote(config, most, make_worker) for _ in range(workers)]
        self._weights: Weights | None = None
        self._fixed = ray.put(self._state(trained=False))

    def _state(self, trained: bool) -> dict[str, torch.Tensor]:
        """Weights and buffers that training changes, or those it does not."""
        state = self._actor.model.state_dict(keep_vars=True)
        return {
            name: value.detach().cpu() for name, value in state.items() if value.requires_grad == trained
        }

    def collect(self, iteration: int) -> list[Record]:
        """See `RolloutCollector`.

        Raises:
            RuntimeError: nothing was pushed yet.
            ray.exceptions.RayTaskError: an environment or the policy failed; it is of the original type
                too, and holds its message.
            ray.exceptions.RayActorError: the workers of a share died over and over.
        """
        if self._weights is None:
            raise RuntimeError("no weights were pushed; call sync before collect")
        with self._run.span("collect") if self._run else nullcontext():
            episodes = open_episodes(self._config, self._env, iteration)
            shares = self._shares(episodes)
            seeds = np.random.SeedSequence((self._config.seed, iteration)).generate_state(len(shares))
            playing = [
                worker.play.remote(share, self._weights, int(seed))
                for worker, share, seed in zip(self._workers, shares, seeds, strict=True)
            ]
            return [record for share in ray.get(playing) for record in share]

    def _shares(self, episodes: Sequence[Episode]) -> list[Sequence[Episode]]:
        """Whole groups for every worker, as evenly as they divide."""
        groups = len(episodes) // self._group_size
        ends = [
            groups * number // len(self._workers) * self._group_size
            for number in range(len(self._workers) + 1)
        ]
        return [episodes[first:last] for first, last in pairwise(ends)]

    def update_policy_weights_(self) -> None:
        """See `RolloutCollector`; workers fetch the weights when they next play."""
        with self._run.span("push") if self._run else nullcontext():
            self._actor.update_weights()
            trained = ray.put(self._state(trained=True))
            self._weights = Weights(self._actor.version, trained, self._fixed)

    def process_ids(self) -> list[int]:
        """Of the workers' processes, when they are ready."""
        ids: list[int] = ray.get([worker.process_id.remote() for worker in self._workers])
        return ids

    def close(self) -> None:
        """See `RolloutCollector`."""
        for worker in self._workers:
            ray.kill(worker)
        self._env.env.close()
        if self._started:
            ray.shutdown()
