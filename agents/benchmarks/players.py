"""Who plays the episodes of a benchmark: a checkpoint, in this process or behind a server, or any policy.

A player takes tasks and gives back their traces one by one, in order; what cannot be played has a cause
instead. Harnesses are not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol, get_args, get_origin

import gymnasium
import torch

from videogym import FrameStore, Recipe, Task, TextActions, VideoQAEnv, get_recipe
from videogym.cli.evaluation import load_policy
from videogym.cost import Stopwatch
from videogym.evaluate import Policy, with_env
from videogym.rewards import answered_right
from videogym.traces import Trace, TurnTrace, trace_of
from videogym.video import VideoError

from ..tools.traces import trace_of_record
from ..training.bounds import CountOrNone
from ..training.options import options_of
from ..vlm.config import EVALUATED_AT_ONCE, ChatConfig
from ..vlm.env import ChatEnv
from ..vlm.evaluation import greedy
from ..vlm.played import weights_digest
from ..vlm.policy import make_actor, make_model
from ..vlm.responder import with_model
from ..vlm.rollouts import play_tasks
from .questions import AsAsked

BUDGETS = ("max_turns", "skim_frames", "clip_frames", "frame_budget", "max_calls", "max_pixels")
RUN = "lmms-eval"  # name of the run in its traces


@dataclass(frozen=True)
class BenchmarkConfig(ChatConfig):
    """What playing a benchmark depends on; of `ChatConfig` the rest is for training."""

    trains: ClassVar[bool] = False

    recipe: str = ""
    """Recipe of all episodes, by name, such as LONGVT/paper."""
    policy: str = ""
    """Policy in place of a checkpoint: blind, random, or MODULE:NAME of your own, as for videogym eval."""
    text: bool = False
    """The policy writes text in the recipe's grammar."""
    server: str = ""
    """URL of a vLLM that samples, see agents.engines.vllm_server; of several, with + between, each process
    has one."""
    grammar: str = ""
    """Grammar in place of the recipe's, such as longvt/code."""
    max_turns: CountOrNone = 0
    """Turns of an episode; 0: the recipe's. So with all that follow."""
    skim_frames: CountOrNone = 0
    """Frames shown first."""
    clip_frames: CountOrNone = 0
    """Most frames of one look."""
    frame_budget: CountOrNone = 0
    """Most frames of an episode, the skim included."""
    max_calls: CountOrNone = 0
    """Most looks of an episode."""
    max_pixels: CountOrNone = 0
    """Most pixels of a frame."""
    traces: str = "runs/lmms-eval"
    """Folder of the traces; one that holds some of this run is continued."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: recipe, or checkpoint or policy, are not named, or a number is out of range.
        """
        if not self.recipe:
            raise ValueError("name the recipe: a benchmark has none by default, e.g. recipe=LONGVT/paper")
        if bool(self.model.checkpoint) == bool(self.policy):
            raise ValueError("name what plays: either a checkpoint or a policy")
        if self.server and not self.model.checkpoint:
            raise ValueError("a server samples with the weights of a checkpoint: name it")
        super().__post_init__()

    @cached_property
    def rules(self) -> Recipe:  # type: ignore[override]
        """The recipe with grammar, budgets and words as they were named; questions are shown as asked."""
        base = get_recipe(self.recipe)
        changed = {name: getattr(self, name) for name in BUDGETS if getattr(self, name)}
        base = replace(base, rules=replace(base.rules, **changed), grammar=self.grammar or base.grammar)
        worded = base.with_prompt(self.prompt_file) if self.prompt_file else base
        return replace(worded, grammar=AsAsked(worded.language), prompt=None)

    @property
    def at_once(self) -> int:
        """Episodes in lockstep."""
        return self.memory.max_concurrent_rollouts or EVALUATED_AT_ONCE

    def settings(self) -> dict[str, Any]:
        """What tells this run from another in the same folder."""
        told = {
            option.name: option.of(self) for option in options_of(type(self)) if option.name in _TELLING
        }
        # The path of a checkpoint stays when training goes on.
        weights = weights_digest(self.model.checkpoint) if self.model.checkpoint else ""
        return told | {"recipe": self.rules.identity} | ({"weights": weights} if weights else {})


def config_from(arguments: dict[str, Any]) -> BenchmarkConfig:
    """The config of named arguments.

    Raises:
        ValueError: there is no such argument, or its value is of another type or out of range.
    """
    known = {option.name: option for option in options_of(BenchmarkConfig) if option.name in OPTIONS}
    read: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in known:
            raise ValueError(f"unknown argument {name!r}; known: {', '.join(sorted(OPTIONS))}")
        kind = type(known[name].default)
        read[name] = str(value) if kind is str else value  # a folder can be called 7
        if kind is not str and type(value) is not kind:
            raise ValueError(f"{name} must be {_KINDS[kind]}, got {value!r}")
        choices = get_args(known[name].kind) if get_origin(known[name].kind) is Literal else (value,)
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return BenchmarkConfig.of(**read)


_KINDS = {int: "a whole number", bool: "True or False"}
OPTIONS = (
    *("checkpoint", "policy", "text", "server", "recipe", "grammar", "prompt_file", *BUDGETS),
    *("device", "dtype", "video_form", "window", "max_new_tokens", "max_context"),
    *("max_concurrent_rollouts", "threads", "seed", "traces", "allow_untested_vllm"),
)
_TELLING = (
    *("checkpoint", "policy", "text", "recipe", "dtype", "video_form", "window"),
    *("max_new_tokens", "max_context", "seed"),
)


@dataclass(frozen=True)
class Played:
    """What became of a task."""

    task: Task
    trace: Trace | None  # None: it could not be played, or not to its end
    cause: str = ""  # why


class Player(Protocol):
    """Plays tasks."""

    def play(self, tasks: Sequence[Task]) -> Iterator[Played]:
        """One episode of every task, in order.

        Raises:
            EngineError: the engine of a checkpoint failed.
        """
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


def make_player(config: BenchmarkConfig, number: int = 0) -> Player:
    """The configured player.

    Args:
        config: of the run.
        number: of this process among all of the run.

    Raises:
        ValueError: recipe, grammar, device, policy or checkpoint are not there or cannot be used.
        EngineError: the server is out of reach, or of an untested version.
        OSError: a file is missing.
    """
    torch.set_num_threads(config.runtime.threads)
    if config.policy:
        return PolicyPlayer(config, load_policy(config.policy, config.seed))
    return CheckpointPlayer(config, number)


class CheckpointPlayer:
    """A checkpoint with greedy decoding, so many episodes in lockstep."""

    def __init__(self, config: BenchmarkConfig, number: int) -> None:
        self._config, self._recipe = config, config.rules
        told = config.model
        try:
            torch.empty(0, device=told.device)
        except (RuntimeError, AssertionError) as error:  # torch raises one or the other
            raise ValueError(f"device {told.device!r} cannot be used: {error}") from error
        try:
            model = make_model(config, FrameStore(open_videos=max(8, config.at_once)))
        except (OSError, ValueError) as error:
            why = " ".join(str(error).split())  # transformers says it in several lines
            raise ValueError(f"{told.checkpoint} is no model that can be loaded: {why}") from error
        self._actor = make_actor(config, model, _server(config.server, number))
        if config.server:  # it may have other weights
            self._actor.update_weights()

    def play(self, tasks: Sequence[Task]) -> Iterator[Played]:
        """See `Player.play`."""
        if not tasks:
            return
        config, model = self._config, self._actor.model
        recipe = with_model(self._recipe, model)
        inner = VideoQAEnv(list(tasks), recipe, open_videos=max(8, config.at_once))
        env = ChatEnv(
            inner,
            model.tokenizer,
            groups=config.at_once,
            group_size=1,
            form=model.chat_form(config.sampling.video_form),
            window=config.sampling.window or None,
            max_context=config.sampling.max_context,
        )
        ids = [task.task_id for task in tasks]
        for task, record in zip(
            tasks, play_tasks(env, greedy(self._actor), ids, config.at_once), strict=True
        ):
            if record.abort_reason.startswith("fault"):
                yield Played(task, None, record.abort_reason.removeprefix("fault: "))
                continue
            yield Played(task, trace_of_record(record, inner, RUN))

    def close(self) -> None:
        """Part from the server."""
        self._actor.engine.close()


def _server(servers: str, number: int) -> str:
    urls = [url for url in servers.split("+") if url]
    if urls and number >= len(urls):
        raise ValueError(f"process {number} has no server of its own: name one a process, with + between")
    return urls[number] if urls else ""


class PolicyPlayer:
    """Any callable ``policy(observation, info)`` or ``policy(observation, info, env)``."""

    def __init__(self, config: BenchmarkConfig, policy: Policy) -> None:
        self._config, self._recipe, self._policy = config, config.rules, policy

    def play(self, tasks: Sequence[Task]) -> Iterator[Played]:
        """See `Player.play`."""
        if not tasks:
            return
        inner = VideoQAEnv(list(tasks), self._recipe)
        env: gymnasium.Env[Any, Any] = TextActions(inner) if self._config.text else inner
        act = with_env(self._policy, inner)
        try:
            for task in tasks:
                yield self._play(task, env, act)
        finally:
            env.close()

    def _play(self, task: Task, env: gymnasium.Env[Any, Any], act: Policy) -> Played:
        inner: VideoQAEnv = env.unwrapped  # type: ignore[assignment]
        turns: list[TurnTrace] = []
        watch = Stopwatch()
        try:
            observation, info = env.reset(seed=self._config.seed, options={"task_id": task.task_id})
            while not inner.state.terminated:
                watch.lap("environment")
                action = act(observation, info)
                watch.lap("model")
                observation, reward, _, _, info = env.step(action)
                if info["fault"]:
                    return Played(task, None, str(info["fault"]))
                paid = {
                    name: float(value) if info["reward_present"][name] else None
                    for name, value in info["reward_terms"].items()
                }
                turns.append(TurnTrace(inner.state.turns[-1], float(reward), paid))
        except VideoError as error:
            return Played(task, None, str(error))
        correct = answered_right(inner.recipe.terms, turns[-1].terms.get("answer"), inner.state)
        watch.lap("environment")
        told = trace_of(inner.state, tuple(turns), correct=correct, run=RUN, cost=watch.cost)
        return Played(task, told)

    def close(self) -> None:
        """Nothing is held."""
