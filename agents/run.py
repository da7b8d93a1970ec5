"""What surrounds the updates of a training run: environments, evaluation, log, checkpoints, resuming.

`agents.train_ppo` and `agents.train_grpo` share it. An iteration follows from the seed, its number and
the weights alone, so that a run which was killed and resumed from a checkpoint ends with the same
weights, to the bit, as one that was not (on one machine, with the ``"single"`` collector).
"""

from __future__ import annotations

import argparse
import copy
import functools
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import nn
from torchrl.checkpoint import Checkpoint
from torchrl.modules import ProbabilisticActor
from torchrl.record import CSVLogger, TensorboardLogger

from videogym import DiscreteActions, FrameStore, Recipe, VideoQAEnv, evaluate, get_recipe
from videogym.evaluate import Estimate, Report

from .collect import EpisodeCollector, EpisodeEnv
from .imitation import ImitationConfig, teach
from .policies.compact import CompactPolicy, CompactReader, Vocabulary
from .policies.discrete import Acting, DiscretePolicy

VERSION = 1  # of what a checkpoint holds
MAY_CHANGE = (  # from one part of a run to the next
    *("recipe", "iterations", "collector", "workers", "eval_every", "eval_episodes", "eval_tasks"),
    *("checkpoint_every", "logger", "threads"),
)
TASKS = "procedural:brief_event?level=0&duration_s=600&fps=4&size=320x180&count={count}&split={split}"


@dataclass(frozen=True)
class RunConfig:
    """What every training loop needs to know."""

    tasks: str = TASKS.format(count=4000, split="train")
    """Source of the tasks that are trained on."""
    eval_tasks: str = TASKS.format(count=200, split="val")
    """Source of held-out tasks."""
    recipe: str | Recipe = "VIDEO_MTR/paper"
    """Recipe of all episodes, or its name."""
    windows: tuple[int, ...] = (16,)
    """Numbers of windows a policy can look at, see `videogym.DiscreteActions`."""
    options: int = 4
    """Options it can answer."""
    seed: int = 0
    """Of tasks, actions and minibatches."""
    iterations: int = 60
    """Batches to collect and learn from."""
    episodes: int = 128
    """Episodes of a batch."""
    collector: Literal["single", "parallel", "async"] = "single"
    """See `agents.collect.EpisodeCollector`."""
    workers: int = 2
    """Processes of the parallel collector."""
    eval_every: int = 10
    """Iterations between evaluations; there is one after the last."""
    eval_episodes: int = 100
    """Held-out tasks of an evaluation, always the same."""
    checkpoint_every: int = 10
    """Iterations between checkpoints; there is one after the last."""
    logger: Literal["csv", "tensorboard"] = "csv"
    """Where curves go."""
    threads: int = 1
    """CPU threads of torch; small tensors gain nothing from more."""

    @property
    def rules(self) -> Recipe:
        """The recipe itself."""
        return self.recipe if isinstance(self.recipe, Recipe) else get_recipe(self.recipe)


C = TypeVar("C", bound=RunConfig)


class CheckpointMismatch(ValueError):
    """A checkpoint was written by another kind of run."""


class RunDiverged(RuntimeError):
    """A loss or gradient is not finite; nothing was updated with it."""


def make_env(config: RunConfig, tasks: str, open_videos: int = 8) -> DiscreteActions:
    """An environment of the configured recipe."""
    env = VideoQAEnv(tasks, config.rules, open_videos=open_videos)
    return DiscreteActions(env, config.windows, config.options)


def make_episode_env(
    config: RunConfig, policy: DiscretePolicy, *, rows: int, group_size: int = 1, seed: int = 0
) -> EpisodeEnv:
    """Episodes to train on."""
    env = make_env(config, config.tasks, open_videos=rows)
    return EpisodeEnv(env, policy, rows=rows, group_size=group_size, seed=seed)


def make_compact(config: RunConfig) -> CompactPolicy:
    """An untrained compact policy that knows the words of the first tasks."""
    tasks = make_env(config, config.tasks).unwrapped.tasks[:256]  # type: ignore[attr-defined]
    vocabulary = Vocabulary.of(text for task in tasks for text in (task.question, *task.options))
    store = FrameStore(open_videos=config.episodes)
    torch.manual_seed(config.seed)
    return CompactPolicy(CompactReader(store, vocabulary, config.windows, config.options))


class Run:
    """One training run in a folder.

    The folder holds ``log/`` (curves), ``checkpoint`` (the newest) and nothing else. A folder with a
    checkpoint is gone on with.

    Args:
        config: of the run.
        out: its folder.
        policy: what is trained.
        optimizer: of its weights.
        memory: modules whose state lasts from batch to batch, such as an exploration bonus.

    Raises:
        CheckpointMismatch: the folder's checkpoint is of another recipe, algorithm, version or config.
    """

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        policy: DiscretePolicy,
        optimizer: torch.optim.Optimizer,
        memory: nn.Module,
    ) -> None:
        self.config, self.out, self.policy = config, out, policy
        # An archive is one file, which another can replace in one step; folders take two.
        self._checkpoint = Checkpoint(format="archive", policy=policy, optimizer=optimizer, memory=memory)
        self._identity = {
            "recipe": config.rules.identity,
            "algorithm": type(config).__module__.rpartition(".")[2],
            "version": VERSION,
            "config": {
                option.name: str(getattr(config, option.name))
                for option in fields(config)
                if option.name not in MAY_CHANGE
            },
        }
        self._spans: dict[str, float] = {}
        self._eval_env = make_env(config, config.eval_tasks)
        self._acting = Acting(policy)
        out.mkdir(parents=True, exist_ok=True)
        self.first_iteration, self.turns, self.seconds = self._resume()
        _forget_after(out / "log" / "scalars", self.first_iteration)
        logger = {"csv": CSVLogger, "tensorboard": TensorboardLogger}[config.logger]
        self._logger = logger("log", str(out))
        self._started = time.monotonic() - self.seconds

    def _resume(self) -> tuple[int, int, float]:
        path = self.out / "checkpoint"
        for unfinished in self.out.glob(".checkpoint.*"):
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
        if not path.exists():
            return 0, 0, 0.0
        found = self._checkpoint.manifest(path)["metadata"]
        theirs = {key: found.get(key) for key in self._identity}
        if theirs != self._identity:
            differing = [key for key in self._identity if theirs[key] != self._identity[key]]
            raise CheckpointMismatch(
                f"{path} differs in {', '.join(differing)}: it is of {theirs}, this run is "
                f"{self._identity}; choose another folder"
            )
        self._checkpoint.load(path)
        return found["iteration"], found["turns"], found["seconds"]

    def iterations(self) -> Iterator[int]:
        """Numbers of the iterations still to do; before each, all generators are seeded by it."""
        for iteration in range(self.first_iteration, self.config.iterations):
            self._spans = {}
            self._begun = time.monotonic()
            state = np.random.SeedSequence((self.config.seed, iteration)).generate_state(1)
            torch.manual_seed(int(state[0]))
            yield iteration

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time a part of an iteration; logged as ``seconds_NAME``."""
        started = time.monotonic()
        yield
        self._spans[name] = self._spans.get(name, 0.0) + time.monotonic() - started

    def is_due(self, iteration: int, every: int) -> bool:
        """Whether something done every so many iterations is due after this one."""
        return (iteration + 1) % every == 0 or iteration + 1 == self.config.iterations

    def end_iteration(self, iteration: int, turns: int, values: Mapping[str, float]) -> None:
        """Evaluate and checkpoint where due, and log an iteration."""
        self.turns += turns
        if self.is_due(iteration, self.config.eval_every):
            with self.span("evaluate"):
                values = {**values, **self.evaluate()}
        seconds = time.monotonic() - self._begun
        spans = {f"seconds_{name}": value for name, value in self._spans.items()}
        spans["seconds_other"] = seconds - sum(self._spans.values())
        self.seconds = time.monotonic() - self._started
        total = {"turns_total": self.turns, "seconds_total": self.seconds, "seconds_iteration": seconds}
        self.log(iteration, {**values, **spans, **total})
        if self.is_due(iteration, self.config.checkpoint_every):
            self.save(iteration + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one point to every named curve."""
        for name, value in values.items():
            self._logger.log_scalar(name, float(value), step=step)

    def evaluate(self) -> dict[str, float]:
        """Figures of the likeliest actions on the held-out tasks."""
        report = self.report()
        figures: dict[str, Estimate | None] = {
            "accuracy": report.accuracy,
            "turns": report.turns,
            "reward": report.reward,
        }
        figures |= {"hit_rate": report.hit_rate, "tiou": report.tiou}
        return {f"eval_{name}": figure.mean for name, figure in figures.items() if figure is not None}

    def report(self) -> Report:
        """Play the held-out tasks."""
        return evaluate(self._acting, self._eval_env, episodes=self.config.eval_episodes)

    def save(self, iteration: int) -> None:
        """Write the checkpoint; it replaces the earlier one when it is whole.

        Args:
            iteration: the next one to do.

        Raises:
            OSError: it cannot be written; the earlier one is still there.
        """
        progress = {"iteration": iteration, "turns": self.turns, "seconds": self.seconds}
        whole = self._checkpoint.save(self.out / ".checkpoint.new", metadata={**self._identity, **progress})
        os.replace(whole, self.out / "checkpoint")


def _forget_after(scalars: Path, iteration: int) -> None:
    """Drop points of iterations that will be done again; a new run starts with empty curves."""
    for path in scalars.glob("*.csv"):
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and int(line.split(",")[0]) < iteration]
        # Killed here, a run still has its curves.
        whole = path.with_suffix(".new")
        whole.write_text("".join(kept))
        os.replace(whole, path)


def episode_figures(batch: TensorDictBase) -> dict[str, float]:
    """Means over a batch as it was collected, before any re-levelling.

    Args:
        batch: (B, K) of `EpisodeEnv`.

    Returns:
        By episode: ``reward``, every reward term, ``success``, ``turns``, ``frames``. By turn:
        ``fault_rate`` (frames could not be shown), and of the others ``retrieval_rate`` (turns that look)
        and ``invalid_rate``. By look: ``repeat_rate`` (brought nothing new) and ``tiou_turn_K``, the
        temporal IoU of looks in turn K, where there are any.
    """
    played, after = ~batch["waiting"], batch["next"]
    sound = played & ~after["fault"]
    looked = after["looked"] & played
    rows, turns, looks = batch.batch_size[0], int(played.sum()), int(looked.sum())
    ends = played & ~torch.cat((played[:, 1:], torch.zeros_like(played[:, :1])), 1)
    figures = {name: float(values.nansum()) / rows for name, values in after["terms"].items()}
    figures |= {
        "reward": float((after["reward"] * played).sum()) / rows,
        "success": float((after["is_success"] * ends).nansum()) / rows,
        "frames": float((after["frames_shown"] * ends).nansum()) / rows,
        "turns": turns / rows,
        "fault_rate": 1.0 - int(sound.sum()) / turns,
    }
    if sound.any():
        figures["retrieval_rate"] = looks / int(sound.sum())
        # To a policy a fault is a refused look, but it says nothing about the policy.
        figures["invalid_rate"] = int((after["invalid"] & sound).sum()) / int(sound.sum())
    if looks:
        figures["repeat_rate"] = float((after["repeated"] & played).sum()) / looks
    for turn in range(batch.batch_size[1]):
        overlaps = after["tiou"][:, turn][looked[:, turn]]
        if len(overlaps := overlaps[~overlaps.isnan()]):
            figures[f"tiou_turn_{turn + 1}"] = float(overlaps.mean())
    return figures


def mean_return(batch: TensorDictBase) -> float:
    """Mean over the episodes of a (B, K) batch of the rewards they are trained on."""
    return float((batch["next", "reward"] * ~batch["waiting"]).sum()) / batch.batch_size[0]


def gradient_step(
    loss: torch.Tensor,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    max_norm: float,
) -> None:
    """One step down a loss.

    Raises:
        RunDiverged: the loss or its gradient is not finite; weights are as before.
    """
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise RunDiverged(f"the loss is {loss.item()} and its gradient's norm {norm.item()}")
    optimizer.step()


def env_factory(config: RunConfig, policy: DiscretePolicy) -> functools.partial[EpisodeEnv]:
    """Makes environments of a run, also in other processes."""
    return functools.partial(make_episode_env, config, policy)


def make_collector(
    config: RunConfig, policy: DiscretePolicy, actor: ProbabilisticActor, group_size: int = 1
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
    )


def command_line(about: str, config_class: type[C], train: Callable[..., Run], out: Path) -> None:
    """The command of a training loop: the compact policy, taught first, trained once.

    Args:
        about: what ``--help`` says.
        config_class: every field of it is an option.
        train: called with config, policy and folder.
        out: the folder by default.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=out, help="folder; gone on with if it holds a run")
    parser.add_argument(
        "--start",
        choices=("oracle", "answers", "cold"),
        default="oracle",
        help="imitate the oracle first; learn only to answer about shown frames; or start untrained",
    )
    _add_options(parser, config_class)
    arguments = parser.parse_args()
    config = _from_options(config_class, vars(arguments))
    quiet_libraries()
    torch.set_num_threads(config.threads)
    policy = make_compact(config)
    if arguments.start != "cold" and not (arguments.out / "checkpoint").exists():
        envs = [make_env(config, config.tasks) for _ in range(64)]
        teach(policy, envs, ImitationConfig(), config.seed, arguments.start, progress=True)
    report = train(config, policy, arguments.out, progress=True).report()
    sys.stdout.write(
        f"held-out accuracy {report.accuracy}, hit rate {report.hit_rate}, turns {report.turns}\n"
    )


def quiet_libraries() -> None:
    """Keep notes of libraries from breaking progress bars; warnings still show."""
    logging.getLogger("torchrl").setLevel(logging.WARNING)


def _add_options(parser: argparse.ArgumentParser, config: type[RunConfig]) -> None:
    """An option for every field of a config, with its default."""
    hints = get_type_hints(config)
    for option in fields(config):
        kind = hints[option.name]
        reads: dict[str, Any] = {"default": option.default}
        if get_origin(kind) is Literal:
            reads["choices"] = get_args(kind)
        elif get_origin(kind) is tuple:
            reads |= {"type": int, "nargs": "+"}
        elif kind is bool:
            reads["action"] = argparse.BooleanOptionalAction
        else:
            reads["type"] = str if option.name == "recipe" else kind
        parser.add_argument(f"--{option.name.replace('_', '-')}", **reads)


def _from_options(config: type[C], options: Mapping[str, Any]) -> C:
    """A config from what `_add_options` read."""
    values = {option.name: options[option.name] for option in fields(config)}
    return config(**{**values, "windows": tuple(values["windows"])})


def mean_rows(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means by name over rows that need not have the same names."""
    names = {name for row in rows for name in row}
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in sorted(names)}


def scalars(losses: TensorDictBase) -> dict[str, Any]:
    """What a loss module reports beside its losses."""
    names = ("entropy", "clip_fraction", "kl_approx", "explained_variance", "ESS")
    return {name: float(losses[name]) for name in names if name in losses.keys()}
