"""What every training loop has to be told, and how a command reads it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from videogym import Recipe, get_recipe
from videogym.datasets import load_tasks


@dataclass(frozen=True)
class LoopConfig:
    """What every training loop needs to know."""

    recipe: str | Recipe = "VIDEO_MTR/paper"
    """Recipe of all episodes, or its name."""
    video_root: str = ""
    """Folder below which the videos of task files and data sets lie, see `videogym.datasets.load_tasks`;
    empty: their paths are taken as they stand."""
    seed: int = 0
    """Of tasks, actions and minibatches."""
    iterations: int = 60
    """Batches to collect and learn from."""
    eval_every: int = 10
    """Iterations between evaluations; there is one after the last."""
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

    @property
    def root(self) -> str | None:
        """Folder of the videos; None: there is none."""
        return self.video_root or None


L = TypeVar("L", bound=LoopConfig)


def quiet_libraries() -> None:
    """Keep notes of libraries from breaking progress bars; warnings still show."""
    logging.getLogger("torchrl").setLevel(logging.WARNING)


def add_options(
    parser: argparse.ArgumentParser, config: type[LoopConfig], names: Sequence[str] = ()
) -> None:
    """An option for every field of a config, or for those that are named, with its default."""
    hints = get_type_hints(config)
    for option in (option for option in fields(config) if not names or option.name in names):
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


def from_options(config: type[L], options: Mapping[str, Any]) -> L:
    """A config from what `add_options` read; other fields have their defaults."""
    read = {option.name: options[option.name] for option in fields(config) if option.name in options}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in read.items()
    }
    return config(**values)


def read_config(parser: argparse.ArgumentParser, config: type[L], options: Mapping[str, Any]) -> L:
    """A config from what `add_options` read, whose recipe and tasks are there.

    Ends the program with one line and status 2 where they are not, before anything is made.
    """
    try:
        read = from_options(config, options)
        get_recipe(options["recipe"])
        usual = {option.name: option.default for option in fields(config)}
        for name in ("tasks", "eval_tasks"):
            load_tasks(getattr(read, name), read.root)
        if options["tasks"] != usual["tasks"] and options["eval_tasks"] == usual["eval_tasks"]:
            raise ValueError("--tasks needs --eval-tasks: held-out tasks of the same kind, of other videos")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return read
