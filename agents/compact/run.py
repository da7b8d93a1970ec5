"""What the loops of compact policies share: environments, metrics, evaluation."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from tensordict import TensorDictBase

from videogym import DiscreteActions, FrameStore, VideoQAEnv, evaluate
from videogym.datasets import Tasks, load_tasks, require_unseen
from videogym.datasets.mixture import MIXTURE_PREFIX, read_parts
from videogym.evaluate import Estimate, Report

from ..training.bounds import Count, CountOrNone, OptionError
from ..training.command import interruptible, one_line, require_folder, saved_so_far
from ..training.config_file import parse_with_config
from ..training.options import EvaluationConfig, LoopConfig, add_options, quiet_libraries, read_config
from ..training.run import TrainingRun
from .discrete import Acting, DiscretePolicy, PolicyError
from .env import EpisodeEnv
from .imitation import ImitationConfig, teach
from .network import CompactPolicy, CompactReader, Vocabulary

TASKS = "procedural:brief_event?level=0&duration_s=600&fps=4&size=320x180&count={count}&split={split}"


@dataclass(frozen=True)
class LookingConfig:
    """How a policy may look beside the recipe's own way, see `videogym.DiscreteActions`."""

    look_arguments: tuple[str, ...] = ("{}",)
    """Sets of further arguments that every window can be looked at with, in JSON, such as {"fps": 8}; {}:
    none."""
    moments: CountOrNone = 0
    """Number of moments that a search for the question brings; 0: the policy cannot search."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: arguments are no objects of JSON.
        """
        _ = self.arguments

    @property
    def arguments(self) -> list[dict[str, Any]]:
        """As `videogym.DiscreteActions` takes them."""
        return [_json_object(text) for text in self.look_arguments]


def _json_object(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except ValueError as error:
        raise ValueError(f"look_arguments must be JSON, got {text!r}: {error}") from error
    if not isinstance(read, dict):
        raise ValueError(f'look_arguments must be objects such as {{"fps": 8}}, got {text!r}')
    return read


@dataclass(frozen=True)
class RunConfig(LoopConfig):
    """What the loops of compact policies need to know."""

    tasks: str = TASKS.format(count=4000, split="train")
    """Source of the training tasks: a task file, FORMAT:PATH or procedural:."""
    evaluation: EvaluationConfig = EvaluationConfig(TASKS.format(count=200, split="val"))
    """Evaluations while a run trains."""
    windows: tuple[int, ...] = (16,)
    """Numbers of windows a policy can look at, see `videogym.DiscreteActions`."""
    options: Count = 4
    """Number of answer options that the policy can choose from."""
    looking: LookingConfig = LookingConfig()
    """How a policy may look beside the recipe's own way."""
    episodes: Count = 128
    """Episodes per batch."""
    collector: Literal["single", "parallel", "async"] = "single"
    """Where episodes are played: in this process, which is repeatable, in worker processes (parallel), or
    in threads with one batching server (async)."""
    workers: Count = 2
    """Worker processes of the parallel collector."""

    @property
    def looks(self) -> int:
        """Number of actions before the answers."""
        return sum(self.windows) * len(self.looking.arguments) + (self.looking.moments > 0)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: as in `LoopConfig`, a batch is no whole groups, or weights of tasks change with the
                iteration, which collectors of several processes or threads do not know.
        """
        super().__post_init__()
        group_size: int = getattr(self, "group_size", 1)
        workers = self.workers if self.collector == "parallel" else 1
        if self.episodes % (workers * group_size):
            by = "workers x group_size" if workers > 1 else "group_size"
            told = f"{workers} x {group_size}" if workers > 1 else str(group_size)
            raise OptionError(f"episodes must be a multiple of {by}, got {self.episodes} and {told}")
        if self.collector == "single" or not self.tasks.startswith(MIXTURE_PREFIX):
            return
        if any(isinstance(part.weight, tuple) for part in read_parts(self.tasks)):
            raise ValueError(
                f"weights by iteration need collector='single', got {self.collector!r}: others do not "
                "know the iteration"
            )


C = TypeVar("C", bound=RunConfig)


def make_env(config: RunConfig, tasks: str, open_videos: int = 8) -> DiscreteActions:
    """An environment of the configured recipe."""
    env = VideoQAEnv(tasks, config.rules, video_root=config.root, open_videos=open_videos)
    looking = config.looking
    return DiscreteActions(env, config.windows, config.options, looking.arguments, looking.moments)


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
    store = FrameStore(video_root=config.root, open_videos=config.episodes)
    torch.manual_seed(config.seed)
    variants, searches = len(config.looking.arguments), config.looking.moments > 0
    reader = CompactReader(
        store, vocabulary, config.windows, config.options, variants=variants, searches=searches
    )
    return CompactPolicy(reader)


class Evaluator:
    """Evaluates a compact policy on held-out tasks by its likeliest actions.

    Args:
        config: of the run.
        policy: that is trained.

    Raises:
        TrainedOnError: held-out tasks ask about videos of the tasks that are trained on.
    """

    def __init__(self, config: RunConfig, policy: DiscretePolicy) -> None:
        self._env = make_env(config, config.evaluation.eval_tasks)
        held_out: Tasks = self._env.unwrapped.tasks  # type: ignore[attr-defined]
        require_unseen(held_out[: config.evaluation.eval_episodes], load_tasks(config.tasks, config.root))
        self._acting, self._episodes = Acting(policy), config.evaluation.eval_episodes

    def __call__(self) -> dict[str, float]:
        """Means, by the names of their curves; ``eval_cut_rate`` is of episodes that were not scored.

        Raises:
            NothingScored: these are all.
        """
        report = self.report()
        lost = len(report.bad_videos) + report.faults
        cut = (lost + report.abstained) / (lost + len(report.episodes))
        metrics: dict[str, Estimate | None] = {
            "accuracy": report.accuracy,
            "turns": report.turns,
            "reward": report.reward,
        }
        metrics |= {"hit_rate": report.hit_rate, "tiou": report.tiou}
        values = {name: metric.mean for name, metric in metrics.items() if metric is not None}
        return {f"eval_{name}": value for name, value in {**values, "cut_rate": cut}.items()}

    def report(self) -> Report:
        """Play the held-out tasks."""
        return evaluate(self._acting, self._env, episodes=self._episodes)


def sound_episodes(batch: TensorDictBase) -> TensorDictBase:
    """The rows of a (B, K) batch in which all frames could be shown.

    The others say nothing about the policy: the frames it looked for may have held the answer.
    """
    return batch[~batch["next", "fault"].flatten(1).any(1)]


def episode_metrics(batch: TensorDictBase) -> dict[str, float]:
    """Means over a batch as it was collected, before any re-levelling.

    Args:
        batch: (B, K) of `EpisodeEnv`.

    Returns:
        ``fault_rate``, the share of turns whose frames could not be shown. All else is of the episodes
        without such a turn, as in `videogym.evaluate`, and absent where there are none. By episode:
        ``reward``, every reward term over the episodes that have it, ``success``, ``turns``, ``frames``. By
        turn: ``retrieval_rate`` (turns that look) and ``invalid_rate``. By look: ``repeat_rate`` (brought
        nothing new) and ``tiou_turn_K``, the temporal IoU of looks in turn K, where there are any.
    """
    faults = {"fault_rate": int(batch["next", "fault"].sum()) / int((~batch["waiting"]).sum())}
    sound = sound_episodes(batch)
    return _figures(sound) | faults if len(sound) else faults


def _figures(batch: TensorDictBase) -> dict[str, float]:
    played, after = ~batch["waiting"], batch["next"]
    looked = after["looked"] & played
    rows, turns, looks = batch.batch_size[0], int(played.sum()), int(looked.sum())
    ends = played & ~torch.cat((played[:, 1:], torch.zeros_like(played[:, :1])), 1)
    # Over the episodes in which a term was paid at all: a missing annotation is not a zero.
    paid = {name: values for name, values in after["terms"].items() if not values.isnan().all()}
    metrics = {
        name: float(values.nansum()) / int((~values.isnan()).flatten(1).any(1).sum())
        for name, values in paid.items()
    }
    metrics |= {
        "reward": float((after["reward"] * played).sum()) / rows,
        "success": float((after["is_success"] * ends).nansum()) / rows,
        "frames": float((after["frames_shown"] * ends).nansum()) / rows,
        "turns": turns / rows,
        "retrieval_rate": looks / turns,
        "invalid_rate": int((after["invalid"] & played).sum()) / turns,
    }
    if looks:
        metrics["repeat_rate"] = float((after["repeated"] & played).sum()) / looks
    for turn in range(batch.batch_size[1]):
        overlaps = after["tiou"][:, turn][looked[:, turn]]
        if len(overlaps := overlaps[~overlaps.isnan()]):
            metrics[f"tiou_turn_{turn + 1}"] = float(overlaps.mean())
    return metrics


def mean_return(batch: TensorDictBase) -> float:
    """Mean over the episodes of a (B, K) batch of the rewards they are trained on."""
    return float((batch["next", "reward"] * ~batch["waiting"]).sum()) / batch.batch_size[0]


def env_factory(config: RunConfig, policy: DiscretePolicy) -> functools.partial[EpisodeEnv]:
    """Makes environments of a run, also in other processes."""
    return functools.partial(make_episode_env, config, policy)


def command_line(about: str, config_class: type[C], train: Callable[..., TrainingRun], out: Path) -> None:
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
    parser.add_argument(
        "--out", type=Path, default=out, help="folder; resumed if it holds a run (default: %(default)s)"
    )
    parser.add_argument(
        "--start",
        choices=("oracle", "answers", "cold"),
        default="oracle",
        help="imitate the oracle first; learn only to answer about shown frames; or start untrained "
        "(default: %(default)s)",
    )
    add_options(parser, config_class)
    arguments = parse_with_config(parser)
    config = read_config(parser, config_class, vars(arguments))
    require_playable(parser, config)
    quiet_libraries()
    torch.set_num_threads(config.runtime.threads)
    with interruptible(lambda: saved_so_far(arguments.out)), one_line(parser, PolicyError):
        require_folder(arguments.out)
        policy = make_compact(config)
        if not (arguments.out / "checkpoint").exists():
            begin(policy, config, arguments.start, arguments.out / "imitation")
        train(config, policy, arguments.out, progress=True)
        (arguments.out / "imitation").unlink(missing_ok=True)
        report = Evaluator(config, policy).report()
    sys.stdout.write(
        f"held-out accuracy {report.accuracy}, hit rate {report.hit_rate}, turns {report.turns}\n"
    )


def require_playable(parser: argparse.ArgumentParser, config: RunConfig) -> None:
    """End the program with one line and status 2 where the actions do not fit the recipe or the tasks."""
    try:
        for source in (config.tasks, config.evaluation.eval_tasks):
            make_env(config, source).close()
    except ValueError as error:
        parser.error(f"--windows, --options, --look-arguments or --moments: {error}")


def begin(policy: CompactPolicy, config: RunConfig, start: str, saved: Path) -> None:
    """Teach a policy what the run starts from: ``oracle`` or ``answers``, or nothing where it is ``cold``.

    Args:
        policy: taught in place.
        config: of the run.
        start: the lesson.
        saved: file of what was taught when it was interrupted, and what is taught on from.
    """
    if start == "cold":
        return
    envs = [make_env(config, config.tasks) for _ in range(64)]
    teach(policy, envs, ImitationConfig(), config.seed, start, progress=True, saved=saved)  # type: ignore[arg-type]


def scalars(losses: TensorDictBase) -> dict[str, Any]:
    """What a loss module reports beside its losses."""
    names = ("entropy", "clip_fraction", "kl_approx", "explained_variance", "ESS")
    return {name: float(losses[name]) for name in names if name in losses.keys()}
