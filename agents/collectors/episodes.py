"""Batches of whole episodes of a compact policy, through one of TorchRL's collectors."""

from __future__ import annotations

import copy
import functools
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.collectors import AsyncBatchedCollector, Collector, MultiSyncCollector
from torchrl.modules import ProbabilisticActor

from ..compact.discrete import DiscretePolicy
from ..compact.env import FIGURES, FLAGS, EpisodeEnv, OneEpisodeEnv
from ..compact.run import RunConfig, env_factory

CollectorKind = Literal["single", "parallel", "async"]


class EpisodeCollector:
    """Batches of whole episodes, (B, K), through one of TorchRL's collectors.

    ``"single"`` plays in this process and is repeatable; ``"parallel"`` plays shares of a batch in
    worker processes that wait for each other; ``"async"`` steps every episode in a thread of its own,
    while one server answers them in batches, so that slow decoders overlap. With the last, episodes come
    in the order in which they end and may be older than the newest weights.

    Args:
        make_env: called with rows and a seed; picklable for ``"parallel"``.
        actor: see `make_actor`; collectors other than ``"single"`` act with copies, see `sync`.
        kind: see above.
        episodes: B.
        group_size: rows that start from one state.
        workers: processes of ``"parallel"``; groups are not divided among them.
        seed: of the tasks.
        first_iteration: of this part of a run: what is played goes on from there.

    Raises:
        ValueError: an unknown kind, or numbers that do not divide.
    """

    def __init__(
        self,
        make_env: Callable[..., EpisodeEnv],
        actor: ProbabilisticActor,
        *,
        kind: CollectorKind = "single",
        episodes: int,
        group_size: int = 1,
        workers: int = 2,
        seed: int = 0,
        first_iteration: int = 0,
    ) -> None:
        if kind not in get_args(CollectorKind):
            raise ValueError(f"collector must be one of {get_args(CollectorKind)}, got {kind!r}")
        if episodes % group_size:
            raise ValueError(f"episodes must be a multiple of group_size, got {episodes} and {group_size}")
        self.kind, self.episodes, self.group_size = kind, episodes, group_size
        self._begun: dict[int, list[TensorDictBase]] = {}  # of "async": groups that miss an episode
        self._errors: Any = None  # of "parallel": tracebacks of workers
        self._actor = actor
        # In this process: plays all rows, or only tells what episodes are like.
        rows = episodes if kind == "single" else group_size
        self._first: EpisodeEnv = make_env(rows=rows, group_size=group_size, seed=seed)
        self.max_turns, self.term_names = self._first.max_turns, self._first.term_names
        common: dict[str, Any] = {"total_frames": -1, "frames_per_batch": episodes * self.max_turns}
        if kind == "single":
            self._collector: Any = Collector(
                self._first,
                actor,
                reset_at_each_iter=True,
                auto_register_policy_transforms=False,
                **common,
            )
        elif kind == "parallel":
            if workers < 1 or episodes % (workers * group_size):
                raise ValueError(
                    f"episodes must be a multiple of workers x group_size, got {episodes} and "
                    f"{workers} x {group_size}"
                )
            make = functools.partial(make_env, rows=episodes // workers, group_size=group_size)
            self._errors = torch.multiprocessing.get_context("spawn").SimpleQueue()
            self._collector = MultiSyncCollector(
                [
                    functools.partial(
                        _in_worker, make, seed=seed * workers + i, first_batch=first_iteration
                    )
                    for i in range(workers)
                ],
                copy.deepcopy(actor),
                reset_at_each_iter=True,
                cat_results=0,
                use_buffers=True,
                collector_class=functools.partial(_Reporting, errors=self._errors),
                **common,
            )
        else:
            # Environments of one seed play the same tasks in the same order: they make up a group.
            makers = [
                functools.partial(make_env, rows=1, seed=seed * episodes + i // group_size)
                for i in range(min(episodes, 8 * group_size))
            ]
            # Batches of one episode, of which an environment has played no more than there were in all.
            first_batch = first_iteration * episodes
            self._collector = AsyncBatchedCollector(
                [functools.partial(_alone, make, first_batch) for make in makers],
                policy=copy.deepcopy(actor),
                env_backend="threading",
                policy_backend="threading",
                yield_completed_trajectories=True,
                frames_per_batch=1,
                total_frames=-1,
            )
        self._batches: Iterator[TensorDictBase] = iter(self._collector)

    def collect(self, batch: int) -> TensorDictBase:
        """The next (B, K) batch.

        Args:
            batch: its number, which decides the tasks of ``"single"``; others go on in their own order.

        Raises:
            PolicyError: the policy put out what cannot be an action.
            RuntimeError: a worker failed; the message holds its traceback.
        """
        if self.kind == "single":
            self._first.next_batch = batch
        if self.kind != "async":
            return self._next()
        episodes: list[TensorDictBase] = []
        while len(episodes) < self.episodes:
            episodes += self._next_group()
        return torch.stack(episodes)

    def _next_group(self) -> list[TensorDictBase]:
        """The next group of ``"async"`` all of whose episodes have ended."""
        while True:
            episode = self._next().to_tensordict()
            group = self._begun.setdefault(int(episode["group"][0]), [])
            group.append(_padded(episode, self.max_turns))
            if len(group) == self.group_size:
                return self._begun.pop(int(episode["group"][0]))

    def _next(self) -> TensorDictBase:
        try:
            return next(self._batches)
        # torchrl gives the other workers a tenth of a second to end; where they take longer it raises
        # `ValueError` about that instead of telling that one failed.
        except (RuntimeError, ValueError) as error:
            if self.kind == "single" or (isinstance(error, ValueError) and self.kind != "parallel"):
                raise
            if self._errors is None or self._errors.empty():
                reason = "".join(traceback.format_exception(error.__cause__ or error))
            else:
                reason = self._errors.get()
            raise RuntimeError(f"a worker of the {self.kind} collector failed:\n{reason}") from error

    def update_policy_weights_(self) -> None:
        """Give the newest weights to whoever acts."""
        if self.kind != "single":
            self._collector.update_policy_weights_(TensorDict.from_module(self._actor).data)

    def close(self) -> None:
        """Stop all workers."""
        self._collector.shutdown()


class _Reporting(Collector):
    """The collector of a worker process, which says why it ends."""

    def __init__(self, *args: Any, errors: Any, **kwargs: Any) -> None:
        self._errors = errors
        super().__init__(*args, **kwargs)

    def rollout(self) -> TensorDictBase:
        """As the collector's."""
        try:
            return super().rollout()
        except Exception:  # of an environment or a policy of the user's; torchrl tells only that one failed
            self._errors.put(traceback.format_exc())
            raise


def _in_worker(make: Callable[..., EpisodeEnv], seed: int, first_batch: int) -> EpisodeEnv:
    torch.set_num_threads(1)
    env = make(seed=seed)
    env.next_batch = first_batch
    return env


def _alone(make: Callable[..., EpisodeEnv], first_batch: int) -> OneEpisodeEnv:
    env = make()
    env.next_batch = first_batch
    return OneEpisodeEnv(env)


def _padded(episode: TensorDictBase, turns: int) -> TensorDictBase:
    """(K,) an episode and the turns that it did not need, as `EpisodeEnv` writes them."""
    missing = turns - len(episode)
    if not missing:
        return episode
    filler = episode[-1:].clone()
    filler["waiting"] = torch.ones_like(filler["waiting"])
    filler["next", "reward"] = torch.zeros_like(filler["next", "reward"])
    filler["next", "terms"] = filler["next", "terms"].apply(lambda term: torch.full_like(term, torch.nan))
    for name in FLAGS:
        filler["next", name] = torch.zeros_like(filler["next", name])
    for name in FIGURES:
        filler["next", name] = torch.full_like(filler["next", name], torch.nan)
    return torch.cat((episode, *[filler] * missing))


def make_collector(
    config: RunConfig,
    policy: DiscretePolicy,
    actor: ProbabilisticActor,
    group_size: int = 1,
    first_iteration: int = 0,
) -> EpisodeCollector:
    """The configured collector of batches of whole episodes."""
    return EpisodeCollector(
        env_factory(config, copy.deepcopy(policy)),
        actor,
        kind=config.collector,
        episodes=config.episodes,
        group_size=group_size,
        workers=config.workers,
        seed=config.seed,
        first_iteration=first_iteration,
    )
