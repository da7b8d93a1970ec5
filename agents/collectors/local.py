"""Rollouts of a language model in lockstep, in this process or in every rank of torchrun."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TypeVar

import numpy as np
import torch

from ..engines.base import EngineError
from ..training.ranks import map_across_ranks, rank
from ..training.run import TrainingRun, untimed
from ..vlm.actor import ChatActor
from ..vlm.config import ChatConfig
from ..vlm.env import ChatEnv, Episode
from ..vlm.records import Record
from ..vlm.rollouts import opened, play_in_parts, require_same_tasks, rollouts

T = TypeVar("T")
ANEW = 400_009  # between the numbers of an iteration's batches, more than a run has iterations


def open_episodes(config: ChatConfig, env: ChatEnv, iteration: int) -> list[Episode]:
    """The episodes of an iteration as `LocalCollector` begins them, groups in order."""
    set_iteration(config, env, iteration)
    return opened(env)


def set_iteration(config: ChatConfig, env: ChatEnv, iteration: int) -> None:
    """Let an environment draw the tasks of an iteration next, or of a further batch of it."""
    env.set_seed(config.seed * 1_000_003 + iteration)
    env.iteration = iteration % ANEW


class LocalCollector:
    """Plays in this process; see `agents.vlm.rollouts.rollouts`."""

    def __init__(
        self, config: ChatConfig, actor: ChatActor, env: ChatEnv, run: TrainingRun | None = None
    ) -> None:
        self._config, self._actor, self._env, self._run = config, actor, env, run

    def collect(self, iteration: int) -> list[Record]:
        """See `RolloutCollector`."""
        set_iteration(self._config, self._env, iteration)
        span = self._run.span if self._run else untimed
        return rollouts(self._env, self._actor, self._config.memory.max_concurrent_rollouts, span)

    def update_policy_weights_(self) -> None:
        """See `RolloutCollector`."""
        self._actor.update_weights()

    def close(self) -> None:
        """See `RolloutCollector`."""
        self._env.env.close()


class RankCollector(LocalCollector):
    """Plays every group in one of the ranks, in lockstep there; all ranks get the records of all.

    Where the model itself samples, its weights are gathered for as long as it takes: ranks sample without
    waiting for each other. An engine that fails one rank ends all.

    Args:
        config: of the run.
        actor: samples.
        env: opens the episodes, in every rank all of them.
        group_size: episodes of a task.
        run: measures ``collect``.

    Raises:
        RanksDisagree: ranks have different tasks.
    """

    def __init__(
        self,
        config: ChatConfig,
        actor: ChatActor,
        env: ChatEnv,
        group_size: int,
        run: TrainingRun | None = None,
    ) -> None:
        super().__init__(config, actor, env, run)
        require_same_tasks("tasks", env.env.tasks)
        self._group_size = group_size

    def collect(self, iteration: int) -> list[Record]:
        """See `RolloutCollector`."""
        with self._run.span("collect") if self._run else nullcontext():
            episodes = open_episodes(self._config, self._env, iteration)
            groups = self._groups(episodes)
            seed = np.random.SeedSequence((self._config.seed, iteration, rank())).generate_state(1)
            torch.manual_seed(int(seed[0]))
            with self._actor.gathered():
                played = map_across_ranks(groups, self._play, (EngineError,))
        return [record for group in played for record in group]

    def _play(self, groups: Sequence[Sequence[Episode]]) -> list[Sequence[Record]]:
        episodes = [episode for group in groups for episode in group]
        at_once = self._config.memory.max_concurrent_rollouts
        return self._groups(play_in_parts(self._env, self._actor, episodes, at_once))

    def _groups(self, rows: Sequence[T]) -> list[Sequence[T]]:
        return [rows[first : first + self._group_size] for first in range(0, len(rows), self._group_size)]
