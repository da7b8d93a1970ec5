"""Rollouts of a language model in threads, one an episode: those of TorchRL's `AsyncBatchedCollector`."""

from __future__ import annotations

import functools
import queue
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import torch
from tensordict import NonTensorData, TensorDict, TensorDictBase, lazy_stack
from tensordict.nn import TensorDictModuleBase
from torchrl.collectors import AsyncBatchedCollector
from torchrl.data import Composite, NonTensor, Unbounded
from torchrl.envs import EnvBase

from ..training.run import TrainingRun
from ..vlm.actor import ChatActor
from ..vlm.config import ChatConfig
from ..vlm.env import ChatEnv, Episode
from ..vlm.records import Record
from ..vlm.rollouts import make_chat_env
from .local import open_episodes

IDLE = Record(
    "", "", "", "", 0, "rollout", (), None, (), abort_reason="idle"
)  # what a thread without work shows
PATIENCE_S = 0.1  # that a thread waits for work


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
        done = torch.tensor([record.done and record != IDLE])
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
        if not all(record.done for record in answered):
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
        self._actor.engine.reset_cache()
        played = {(record.group, record.sample_index): record for record in records}
        return [played[episode.record.group, episode.record.sample_index] for episode in episodes]

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

    def update_policy_weights_(self) -> None:
        """See `RolloutCollector`."""
        self._actor.update_weights()

    def close(self) -> None:
        """See `RolloutCollector`."""
        self._collector.shutdown(raise_on_error=False)
        self._env.env.close()
