"""From Gymnasium to TorchRL: one environment wrapped, and batches of whole episodes.

Observations keep their references, texts and masks on the way; pixels never enter a TensorDict unless
a policy puts them there. A policy resolves references where it runs. Nothing here knows an algorithm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import gymnasium
import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase, GymWrapper
from torchrl.envs.gym_like import BaseInfoDictReader
from torchrl.modules import ProbabilisticActor

from videogym import DiscreteActions, Snapshot, State, VideoError
from videogym.geometry import segment_iou
from videogym.rewards import finite, turn_segments
from videogym.state import Clip

from .discrete import Checked, DiscretePolicy, PolicyError

MAX_BAD_VIDEOS = 100  # tasks passed over one after another before a run gives up
log = logging.getLogger(__name__)
T = TypeVar("T")
REPORTED = ("is_success", "frames_shown", "invalid")  # scalars of info, beside the reward terms


class EpisodeInfo(BaseInfoDictReader):
    """Writes reward terms and some scalars of ``info`` into the TensorDict, (1,) float32 each.

    ``("terms", name)`` is NaN where a term is absent, as it is after every reset.

    Args:
        terms: names of the recipe's reward terms.
    """

    def __init__(self, terms: Sequence[str]) -> None:
        self.terms = tuple(terms)
        scalars = {name: Unbounded((1,)) for name in REPORTED}
        self._spec = Composite(**scalars, terms=Composite({name: Unbounded((1,)) for name in self.terms}))

    def __call__(self, info_dict: dict[str, Any], tensordict: TensorDictBase) -> TensorDictBase:
        """Write the values of one ``info``."""
        for name in REPORTED:
            tensordict.set(name, torch.tensor([float(info_dict[name])]))
        for name in self.terms:
            tensordict.set(("terms", name), torch.tensor([float(info_dict["reward_terms"][name])]))
        return tensordict

    @property
    def info_spec(self) -> Composite:
        """Specs of all entries."""
        return self._spec


def torchrl_env(env: gymnasium.Env[Any, Any]) -> EnvBase:
    """A TorchRL environment of a videogym environment, wrapped or not.

    Texts become NonTensor entries, as observations and as actions: TorchRL converts
    `videogym.spaces.UnicodeText` as the ``Text`` space it derives from. Discrete actions are integers.

    Args:
        env: a videogym environment.
    """
    wrapped = GymWrapper(env, categorical_action_encoding=True)
    recipe = env.unwrapped.recipe  # type: ignore[attr-defined]  # every videogym environment has one
    wrapped.set_info_dict_reader(EpisodeInfo(recipe.term_names))
    return wrapped


FLAGS = ("looked", "repeated", "invalid", "fault")  # of a turn, (1,) bool each
FIGURES = ("tiou", "is_success", "frames_shown")  # of a turn, (1,) float32 each


def passing_over(begin: Callable[[], T]) -> T:
    """What a call makes of the first task that can be shown; others are passed over and logged.

    Args:
        begin: begins another episode with every call, and reads its first frames.

    Raises:
        VideoError: too many tasks in a row could not be shown.
    """
    for _ in range(MAX_BAD_VIDEOS):
        try:
            return begin()
        except VideoError as error:
            log.warning("passed over: %s", error)
            last = error
    raise VideoError(f"{MAX_BAD_VIDEOS} tasks in a row had no usable video, the last: {last}")


class EpisodeEnv(EnvBase):
    """Many episodes in lockstep: a reset starts one in every row, and rows that are over wait.

    Rows share one Gymnasium environment, which goes from state to state, and so decoders and caches. In
    a batch of K steps every row holds one whole episode, K being the recipe's most turns; nothing is
    cut and nothing carried over. Rows of a group start from one cloned state.

    What a policy reads: ``"inputs"``, as `DiscretePolicy.read` made them. Beside it ``"waiting"`` (1,)
    bool, true when the row's episode is over, and ``"group"`` (1,) int64. After a step also ``"reward"``
    as the environment pays, its ``("terms", name)`` (NaN where absent), `FLAGS` and `FIGURES`; ``tiou``
    is the best temporal IoU of the turn's looks with the evidence, NaN without either. A turn whose frames
    cannot be read is a ``fault``, and cuts the episode.

    Args:
        env: plays every row; it must show references, not pixels.
        policy: its `read` is called here, in eval mode, and nothing else of it.
        rows: episodes of a batch.
        group_size: rows that start from one state; divides ``rows``.
        seed: of the tasks; batch i of a seed always has the same.

    Raises:
        ValueError: the environment shows pixels, or the numbers do not fit.
    """

    def __init__(
        self, env: DiscreteActions, policy: DiscretePolicy, *, rows: int, group_size: int = 1, seed: int = 0
    ) -> None:
        super().__init__(batch_size=(rows,))
        if rows < 1 or group_size < 1 or rows % group_size:
            raise ValueError(f"rows must be a positive multiple of group_size, got {rows} and {group_size}")
        self._env, self._policy = env, policy.eval()
        self._inner = cast(Any, env.unwrapped)
        if self._inner.observe != "references":
            raise ValueError(
                "an EpisodeEnv keeps frames as references; make the environment without pixels"
            )
        self._group_size, self._seed, self.next_batch = group_size, seed, 0
        self.term_names = self._inner.recipe.term_names
        self._snapshots: list[Snapshot] = []
        self._inputs: list[TensorDict] = []  # what was read last in each row
        self._over: list[bool] = []
        self._newest = TensorDict()  # what was given last
        self._make_specs()

    @property
    def max_turns(self) -> int:
        """Most turns of an episode, K."""
        return self._inner.recipe.rules.max_turns

    @property
    def actions(self) -> int:
        """Number of actions, A."""
        return int(self._env.action_space.n)  # type: ignore[attr-defined]  # it is discrete

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Release decoders."""
        super().close(raise_if_closed=raise_if_closed)
        self._env.close()

    def _make_specs(self) -> None:
        inputs = self._begin(np.random.default_rng(0))
        if trained := [name for name, value in inputs.items() if value.requires_grad]:
            raise ValueError(f"weights that `read` uses must not require gradients, but {trained} do")
        specs = {name: _spec(value) for name, value in inputs.items()}
        terms = {name: Unbounded((1,)) for name in self.term_names}
        single = Composite(
            inputs=Composite(specs),
            waiting=Binary(shape=(1,), dtype=torch.bool),
            group=Unbounded((1,), dtype=torch.int64),
            terms=Composite(terms),
            **{name: Binary(shape=(1,), dtype=torch.bool) for name in FLAGS},
            **{name: Unbounded((1,)) for name in FIGURES},
        )
        rows = self.batch_size[0]
        self.observation_spec = single.expand(rows)
        self.action_spec = Categorical(self.actions, shape=(rows,), dtype=torch.int64)
        self.reward_spec = Unbounded((rows, 1))

    def _set_seed(self, seed: int | None) -> None:
        self._seed = 0 if seed is None else seed

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        if tensordict is not None and "_reset" in tensordict.keys():
            # Rows that are over: they wait for the next batch.
            return self._newest.copy()
        rng = np.random.default_rng((self._seed, self.next_batch))
        inputs, numbers, snapshots = list[TensorDict](), list[int](), list[Snapshot]()
        for _group in range(self.batch_size[0] // self._group_size):
            inputs += [self._begin(rng)] * self._group_size
            numbers += [int(rng.integers(2**62))] * self._group_size  # no other worker's or batch's
            snapshots += [self._inner.get_state()] * self._group_size
        self._inputs, self._snapshots = inputs, snapshots
        self._groups = torch.tensor(numbers)[:, None]
        self._over = [False] * len(numbers)
        self.next_batch += 1
        return self._batch([{}] * len(numbers))

    def _begin(self, rng: np.random.Generator) -> TensorDict:
        """Start an episode whose skim can be read; tasks with bad videos are passed over and logged."""

        def begin() -> TensorDict:
            # A batch is an iteration where one process plays.
            now = {"iteration": self.next_batch}
            observation, _ = self._env.reset(seed=int(rng.integers(2**31)), options=now)
            return self._policy.read(observation)

        return passing_over(begin)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        actions = tensordict["action"]
        if actions.shape != self.batch_size:
            raise PolicyError(f"actions have shape {tuple(actions.shape)}; due is {tuple(self.batch_size)}")
        for action in actions.tolist():
            if not 0 <= action < self.actions:
                raise PolicyError(f"actions must be 0 to {self.actions - 1}, got {action}")
        played = [self._play(place, action) for place, action in enumerate(actions.tolist())]
        after = self._batch(played)
        return after.update(
            {
                "reward": _column([turn.get("reward", 0.0) for turn in played]),
                "terminated": _column([turn.get("terminated", True) for turn in played]),
                "done": after["waiting"].clone(),
            }
        )

    def _play(self, place: int, action: int) -> dict[str, Any]:
        """One turn of one row, in numbers; nothing of a row that is over."""
        if self._over[place]:
            return {}
        before, earlier = self._snapshots[place].state, self._inputs[place]
        try:
            self._inner.set_state(self._snapshots[place])
        except VideoError as error:  # it can no longer be opened, and the turn not be played
            log.warning("task %s: %s", before.task.task_id, error)
            self._over[place] = True
            return {"fault": True, "terminated": False}
        observation, reward, terminated, truncated, info = self._env.step(action)
        try:
            inputs = self._policy.read(observation, earlier)
        except VideoError as error:
            log.warning("task %s: %s", before.task.task_id, error)
            _, reward, terminated, _, info = self._inner.report_fault(str(error))
            inputs = earlier  # nothing is learned from the episode
        # Wrappers may have changed it, and in a loss it would move all weights or none.
        reward = finite(reward, f"the reward of task {before.task.task_id!r}")
        self._snapshots[place], self._inputs[place] = self._inner.get_state(), inputs
        self._over[place] = terminated or truncated or bool(info["fault"])
        return _figures(before, self._inner.state, info) | {"reward": reward, "terminated": terminated}

    def _batch(self, turns: Sequence[Mapping[str, Any]]) -> TensorDict:
        """(B,) the newest observations, and what the turns that led to them came to.

        Args:
            turns: B of `_play`; what one does not say is absent: NaN, or False.
        """
        rows, nan = self.batch_size, float("nan")
        inputs = [dict(one.items()) for one in self._inputs]  # a TensorDict takes longer to ask
        paid = [turn.get("terms", {}) for turn in turns]
        parts = {
            "inputs": {name: torch.stack([one[name] for one in inputs]) for name in inputs[0]},
            "terms": {name: _column([terms.get(name, nan) for terms in paid]) for name in self.term_names},
        }
        self._newest = TensorDict(
            {
                **{name: TensorDict(part, rows) for name, part in parts.items()},
                "waiting": _column(self._over),
                "group": self._groups,
                **{name: _column([turn.get(name, False) for turn in turns]) for name in FLAGS},
                **{name: _column([turn.get(name, nan) for turn in turns]) for name in FIGURES},
            },
            rows,
        )
        return self._newest.copy()


class OneEpisodeEnv(EnvBase):
    """A row of an `EpisodeEnv` by itself, without a batch dimension: for collectors that do the batching.

    Args:
        env: has one row.
    """

    def __init__(self, env: EpisodeEnv) -> None:
        super().__init__(batch_size=())
        self._rows = env
        self.observation_spec = env.observation_spec[0].clone()
        self.action_spec = Categorical(env.actions, shape=(), dtype=torch.int64)
        self.reward_spec = Unbounded((1,))

    def _set_seed(self, seed: int | None) -> None:
        self._rows.set_seed(seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        return self._rows._reset()[0]

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        return self._rows._step(tensordict.unsqueeze(0))[0]


def _spec(value: torch.Tensor) -> Unbounded:
    return Unbounded(tuple(value.shape), dtype=value.dtype)


def _column(values: Sequence[bool | float]) -> torch.Tensor:
    """(B, 1) bool or float32."""
    return torch.tensor(values)[:, None]


def _figures(before: State, after: State, info: dict[str, Any]) -> dict[str, Any]:
    """What one turn came to, in numbers."""
    turn = after.turns[-1]
    looks, evidence = turn_segments(after, turn), after.task.evidence or ()
    overlaps = [segment_iou(look, segment) for look in looks for segment in evidence]
    return {
        "looked": turn.looked,
        "repeated": bool(turn.clips) and _times(turn.clips) <= _times(before.clips),
        "invalid": bool(info["invalid"]),
        "fault": bool(info["fault"]),
        "tiou": max(overlaps, default=float("nan")),
        "is_success": float(info["is_success"]),
        "frames_shown": float(info["frames_shown"]),
        "terms": {name: float(value) for name, value in info["reward_terms"].items()},
    }


def _times(clips: Iterable[Clip]) -> set[float]:
    return {time_s for clip in clips for time_s in clip.times_s}


def make_actor(policy: DiscretePolicy, actions: int) -> ProbabilisticActor:
    """A policy as TorchRL's collectors and losses know it; shares its weights.

    Reads ``"inputs"``, writes ``"logits"``, ``"state_value"``, ``"action"`` and ``"action_log_prob"``.
    """
    return ProbabilisticActor(
        TensorDictModule(Checked(policy, actions), in_keys=["inputs"], out_keys=["logits", "state_value"]),
        in_keys=["logits"],
        spec=Categorical(actions, dtype=torch.int64),
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
    )
