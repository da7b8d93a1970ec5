"""Rollouts of a multimodal language model: by this process, by its threads, or by workers on many machines.

All three play the same episodes for the same seed and iteration: this process opens the groups, each in
one state, and whoever plays goes on from there. `RolloutCollector` is all that a training loop knows.
Threads are those of TorchRL's `AsyncBatchedCollector`, workers those of `agents.collect_ray`.
"""

from __future__ import annotations

import functools
import queue
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeVar, get_args

import numpy as np
import torch
from tensordict import NonTensorData, TensorDict, TensorDictBase, lazy_stack
from tensordict.nn import TensorDictModuleBase
from torchrl.collectors import AsyncBatchedCollector
from torchrl.data import Composite, NonTensor, Unbounded
from torchrl.envs import EnvBase

from videogym import FrameStore

from .chat import ChatEnv, Episode
from .loop import TrainingRun, untimed
from .mllm import ChatConfig, make_actor, make_chat_env, make_model, opened, play_in_parts, rollouts
from .policies.chat_actor import ChatActor
from .ranks import alone, divided, launched, rank
from .records import Record
from .sharding import whole

T = TypeVar("T")
RolloutKind = Literal["local", "async", "ray"]
IDLE = Record("", "", "", "", 0, "rollout", (), None, (), cut="idle")  # what a thread without work shows
PATIENCE_S = 0.1  # that a thread waits for work


class RolloutCollector(Protocol):
    """Plays the episodes of an iteration with the weights that were pushed last."""

    def collect(self, iteration: int) -> list[Record]:
        """Whole episodes, groups in order; the tasks follow from the seed and the iteration alone.

        Raises:
            Exception: what went wrong where an episode was played, with its message.
        """
        ...

    def sync(self) -> None:
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
        workers: processes of ``"ray"``; groups that ``"async"`` has in play at once.
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
        return AsyncCollector(config, actor, env, workers * group_size, run)
    if make_worker is None:
        if not config.checkpoint:
            raise ValueError(
                "Ray workers load config.checkpoint, which names none; name one or give make_worker"
            )
        make_worker = functools.partial(transformers_actor, config)
    try:
        from .collect_ray import RayCollector  # Ray is optional
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ImportError("the collector 'ray' needs Ray: pip install 'videogym[ray]'") from error
    return RayCollector(config, actor, env, workers, groups, make_worker, run)


def transformers_actor(config: ChatConfig) -> ChatActor:
    """The configured checkpoint, sampled with transformers."""
    # Ray shows a worker its own accelerator alone, whichever the trainer is on.
    config = replace(config, device=torch.device(config.device).type)
    return make_actor(config, make_model(config, FrameStore(video_root=config.root, open_videos=64)))


# --- episodes ----------------------------------------------------------------------------------


def open_episodes(config: ChatConfig, env: ChatEnv, iteration: int) -> list[Episode]:
    """The episodes of an iteration as `LocalCollector` begins them, groups in order."""
    env.set_seed(batch_seed(config, iteration))
    return opened(env)


def batch_seed(config: ChatConfig, iteration: int) -> int:
    """Of the tasks of an iteration."""
    return config.seed * 1_000_003 + iteration


# --- collectors --------------------------------------------------------------------------------


class LocalCollector:
    """Plays in this process; see `agents.mllm.rollouts`."""

    def __init__(
        self, config: ChatConfig, actor: ChatActor, env: ChatEnv, run: TrainingRun | None = None
    ) -> None:
        self._config, self._actor, self._env, self._run = config, actor, env, run

    def collect(self, iteration: int) -> list[Record]:
        """See `RolloutCollector`."""
        self._env.set_seed(batch_seed(self._config, iteration))
        span = self._run.span if self._run else untimed
        return rollouts(self._env, self._actor, self._config.rollouts_at_once, span)

    def sync(self) -> None:
        """See `RolloutCollector`."""
        self._actor.push()

    def close(self) -> None:
        """See `RolloutCollector`."""
        self._env.env.close()


class RankCollector:
    """Plays every group in one of the ranks, in lockstep there; all ranks get the records of all.

    The weights are gathered for as long as it takes: ranks sample without waiting for each other.

    Args:
        config: of the run.
        actor: samples.
        env: opens the episodes, in every rank all of them.
        group_size: episodes of a task.
        run: measures ``collect``.
    """

    def __init__(
        self,
        config: ChatConfig,
        actor: ChatActor,
        env: ChatEnv,
        group_size: int,
        run: TrainingRun | None = None,
    ) -> None:
        self._config, self._actor, self._env, self._run = config, actor, env, run
        self._group_size = group_size

    def collect(self, iteration: int) -> list[Record]:
        """See `RolloutCollector`."""
        with self._run.span("collect") if self._run else nullcontext():
            episodes = open_episodes(self._config, self._env, iteration)
            groups = self._groups(episodes)
            seed = np.random.SeedSequence((self._config.seed, iteration, rank())).generate_state(1)
            torch.manual_seed(int(seed[0]))
            with whole(self._actor.model):
                played = divided(groups, self._play)
        return [record for group in played for record in group]

    def _play(self, groups: Sequence[Sequence[Episode]]) -> list[Sequence[Record]]:
        episodes = [episode for group in groups for episode in group]
        return self._groups(play_in_parts(self._env, self._actor, episodes, self._config.rollouts_at_once))

    def _groups(self, rows: Sequence[T]) -> list[Sequence[T]]:
        return [rows[first : first + self._group_size] for first in range(0, len(rows), self._group_size)]

    def sync(self) -> None:
        """See `RolloutCollector`."""
        self._actor.push()

    def close(self) -> None:
        """See `RolloutCollector`."""
        self._env.env.close()


class _EpisodeSlot(EnvBase):
    """Plays one episode after another that it is given.

    A reset shows nothing. The first step waits for an episode and shows how it begins: a collector
    resets as soon as an episode has ended, when it is not yet known what comes next. Where none comes it
    shows nothing again, so that a thread is never stuck.

    Args:
        make_env: plays; has one row.
        work: episodes that nobody plays yet.
    """

    def __init__(self, make_env: Callable[[], ChatEnv], work: queue.SimpleQueue[Episode]) -> None:
        super().__init__(batch_size=())
        self._env, self._work = make_env(), work
        self._episode: Episode  # since the first that was taken
        self.observation_spec = Composite(record=NonTensor(()))
        self.action_spec = Composite(record=NonTensor(()))
        self.reward_spec = Unbounded((1,))

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Release decoders."""
        super().close(raise_if_closed=raise_if_closed)
        self._env.env.close()

    def _set_seed(self, seed: int | None) -> None:
        """Tasks are given."""

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        return TensorDict({"record": NonTensorData(IDLE)})

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        record: Record = tensordict["record"]
        if record != IDLE:
            self._episode.advance(self._env, record)
            record = self._episode.record
        else:
            with suppress(queue.Empty):
                self._episode = self._work.get(timeout=PATIENCE_S)
                record = self._episode.record
        done = torch.tensor([record.waiting and record != IDLE])
        return TensorDict(
            {
                "record": NonTensorData(record),
                "reward": torch.zeros(1),  # rewards are in the record
                "done": done,
                "terminated": done.clone(),
            }
        )


class _Answers(TensorDictModuleBase):
    """An actor as the server of `AsyncBatchedCollector` calls it: records only, no entries of a loss."""

    def __init__(self, actor: ChatActor) -> None:
        super().__init__()
        self.in_keys = self.out_keys = ["record"]
        self._answer = actor.answer

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        rows = tensordict.unbind(0) if tensordict.batch_dims else [tensordict]
        answered = [row["record"] for row in rows]
        # Between iterations weights change, and the engine must not be asked.
        if not all(record.waiting for record in answered):
            answered = self._answer(answered)
        written = [TensorDict({"record": NonTensorData(record)}) for record in answered]
        return lazy_stack(written) if tensordict.batch_dims else written[0]


class AsyncCollector:
    """Steps episodes in threads, through TorchRL's `AsyncBatchedCollector`.

    Its server samples with the trained actor itself, so that pushing is the engine's affair; nothing is
    sampled between iterations.

    Args:
        config: of the run.
        actor: samples, in a thread of the server.
        env: opens the episodes.
        slots: episodes in play at once.
        run: measures ``collect``.
    """

    def __init__(
        self,
        config: ChatConfig,
        actor: ChatActor,
        env: ChatEnv,
        slots: int,
        run: TrainingRun | None = None,
    ) -> None:
        self._config, self._actor, self._env, self._run = config, actor, env, run
        self._work: queue.SimpleQueue[Episode] = queue.SimpleQueue()
        make_env = functools.partial(make_chat_env, config, actor.model, config.tasks)
        self._collector = AsyncBatchedCollector(
            [functools.partial(_EpisodeSlot, make_env, self._work)] * slots,
            policy=_Answers(actor),
            env_backend="threading",
            policy_backend="threading",
            yield_completed_trajectories=True,
            frames_per_batch=1,
            total_frames=-1,
            max_batch_size=slots,
            # The server waits this long for all: larger batches are worth more than it costs.
            min_batch_size=slots,
            server_timeout=0.02,
        )
        self._ended = iter(self._collector)

    def collect(self, iteration: int) -> list[Record]:
        """See `RolloutCollector`.

        Raises:
            RuntimeError: an environment or the policy failed; the message holds the traceback. Nothing
                more can be collected.
        """
        with self._run.span("collect") if self._run else nullcontext():
            episodes = open_episodes(self._config, self._env, iteration)
            for episode in episodes:
                self._work.put(episode)
            records = [self._next() for _ in episodes]
        self._actor.engine.forget()
        played = {(record.group, record.number): record for record in records}
        return [played[episode.record.group, episode.record.number] for episode in episodes]

    def _next(self) -> Record:
        """The next episode that ends."""
        try:
            last: Record = next(self._ended)[-1]["next", "record"]
            return last
        except StopIteration:
            raise RuntimeError("the async collector has been stopped") from None
        except RuntimeError as error:
            reason = "".join(traceback.format_exception(error.__cause__ or error))
            raise RuntimeError(f"a thread of the async collector failed:\n{reason}") from error

    def sync(self) -> None:
        """See `RolloutCollector`."""
        self._actor.push()

    def close(self) -> None:
        """See `RolloutCollector`."""
        self._collector.shutdown(raise_on_error=False)
        self._env.env.close()
