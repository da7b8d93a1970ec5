"""What experiments on the tiny language model share: tasks, stages, a result file a stage, grey frames.

A stage is one way from one model to another. Its result is a file that knows what made it: the config of
the stage and of all that it starts from. What is there is not made again, nor taken for something else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from videogym import FrameStore, Recipe, VideoQAEnv
from videogym.state import Clip
from videogym.video import FrameBatch

from .. import train_rft
from ..demonstrations.scenes import WORDS
from ..models.visuals import FrameReader
from ..training.options import RENAMED, options_of
from ..training.run import CheckpointMismatch, TrainingRun
from ..training.staging import whole_file
from ..vlm.actor import ChatActor
from ..vlm.config import ChatConfig
from ..vlm.policy import make_actor, make_model

TASKS = (
    "procedural:brief_event?level=0&duration_s=256&fps=4&size=32x32"
    "&event_s={event_s}&count={count}&split={split}"
)
SIZES: dict[str, Any] = {"vocab_size": 1200, "hidden_size": 128, "layers": 2, "words": WORDS}
EVENT_S = {"LONGVT_TINY": 3, "VIDEO_MTR_TINY": 6}
GREY = np.uint8(128)

# Of the options in the first results, which are known by their text.
FIRST_ORDER = (
    *("recipe", "video_root", "seed", "iterations", "eval_every", "checkpoint_every", "logger", "threads"),
    *("tasks", "eval_tasks", "eval_episodes", "checkpoint", "dtype", "device", "lora_rank"),
    *("freeze_vision", "video_form", "window", "temperature", "max_new_tokens", "max_context"),
    *("max_concurrent_rollouts", "share_prefixes", "gradient_checkpointing"),
    # Of supervised fine-tuning, and of the selection before it.
    *("records", "script", "glances", "demonstrated_tasks", "per_task", "wrong_looks", "refused_calls"),
    *("look_again",),
    # Of all, where a loop has them.
    *("groups", "group_size", "mini_batch_size", "mini_batch_groups", "micro_batch_size", "learning_rate"),
    *("vision_lr_mult", "warmup", "critic_learning_rate", "vf_coef", "weight_decay", "beta2"),
    *("max_grad_norm", "clip_epsilon", "value_clip", "entropy_coef", "clip_low", "clip_high", "kl_coef"),
    *("aggregation", "gate", "bonus", "gamma_turn", "gamma_token", "lmbda", "collector", "workers"),
    *("rollouts", "overlap_term", "min_overlap", "per_question"),
)


@dataclass(frozen=True)
class Stage:
    """One way from one model to another."""

    parent: str
    train: Callable[[Any, ChatActor, Path, bool], TrainingRun]
    config: ChatConfig


def shared_options(recipe: str, seed: int) -> dict[str, Any]:
    """What all stages under a recipe have in common."""
    return {
        "recipe": recipe,
        "seed": seed,
        "tasks": TASKS.format(event_s=EVENT_S[recipe], count=40_000, split="train"),
        "eval_tasks": TASKS.format(event_s=EVENT_S[recipe], count=2_000, split="val"),
        "eval_episodes": 64,
        "max_new_tokens": 176,
    }


def selection(shared: Mapping[str, Any]) -> train_rft.Config:
    """Fine-tuning on what GRPO played right, with the options that all stages share."""
    # Evidence of three seconds in looks of 27: an IoU of 0.3 is out of reach, one above 0 has seen it.
    return train_rft.Config.of(
        **shared,
        learning_rate=1e-4,
        min_overlap=0.05,
        groups=8,
        micro_batch_size=64,
        iterations=150,
        eval_every=150,
    )


def begun(stage: Stage, folder: Path, start: Path) -> tuple[ChatConfig, ChatActor]:
    """The config with which a stage is trained from a checkpoint, and the actor that is trained.

    Args:
        stage: what is trained.
        folder: of the results; what stages played is in its ``runs``.
        start: the checkpoint.
    """
    config = stage.config.with_options(checkpoint=str(start))
    if isinstance(config, train_rft.Config):
        config = replace(config, rollouts=str(folder / "runs" / stage.parent / "records"))
    return config, make_actor(config, make_model(config, FrameStore(open_videos=64)))


def described(config: ChatConfig) -> str:
    """A config in the words of the first results, so that these are still known for what they are."""
    first = {new: old for old, new in RENAMED.items()}
    options = {option.name: option for option in options_of(type(config))}
    order = [name for name in FIRST_ORDER if name in options]
    # What came later counts where it is not as it was without it.
    later = [name for name in options if name not in FIRST_ORDER]
    order += [name for name in later if options[name].of(config) != options[name].default]
    values = {name: options[name].of(config) for name in order}
    if isinstance(recipe := values["recipe"], Recipe):  # whose text has addresses of functions in it
        values["recipe"] = recipe.identity
    return f"Config({', '.join(f'{first.get(name, name)}={value!r}' for name, value in values.items())})"


def result(path: Path, made_by: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file holds, made first if it is not there.

    Raises:
        CheckpointMismatch: it was made by something else, such as another config of this stage or of one
            before.
    """
    identity = hashlib.sha256(made_by.encode()).hexdigest()[:16]
    if not path.exists():
        values = make() | {"made_by": identity}
        with whole_file(path) as file:
            file.write((json.dumps(values, indent=1) + "\n").encode())
    read = stored_result(path)
    if (made := read.get("made_by")) != identity:
        raise CheckpointMismatch(
            f"{path} was made by {made}, which is not what this program would do now "
            f"({identity}); choose another folder"
        )
    return read


def stored_result(path: Path) -> dict[str, Any]:
    """What a file of a result holds.

    Raises:
        CheckpointMismatch: it is no such file.
        OSError: it cannot be read.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointMismatch(f"{path} is no result: {error}; remove it to have it made anew") from error
    if not isinstance(read, dict):
        raise CheckpointMismatch(f"{path} is no result: it holds no object; remove it to have it made anew")
    return read


def skim(config: ChatConfig, task_id: str) -> Clip:
    """What an episode begins with."""
    env = VideoQAEnv(config.evaluation.eval_tasks, config.rules)
    env.reset(options={"task_id": task_id})
    env.close()
    return env.state.clips[0]


class Grey(FrameReader):
    """Every frame is the same grey, save those of given times.

    Args:
        store: has the others.
        shown: their times, by video.
    """

    def __init__(self, store: FrameReader, shown: Mapping[str, Collection[float]]) -> None:
        self._store, self._shown = store, shown

    def frames(
        self,
        source: str,
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None,
        region: tuple[float, float, float, float] | None,
    ) -> FrameBatch:
        """See `agents.models.visuals.FrameReader`."""
        batch = self._store.frames(source, times_s, size=size, region=region)
        seen = [time_s in self._shown.get(source, ()) for time_s in times_s]
        return replace(batch, pixels=np.where(np.array(seen)[:, None, None, None], batch.pixels, GREY))


def add_recipes_option(parser: argparse.ArgumentParser) -> None:
    """Under which recipes stages are trained."""
    parser.add_argument(
        "--recipes",
        nargs="+",
        choices=tuple(EVENT_S),
        default=list(EVENT_S),
        help="recipes to train under (default: all)",
    )
