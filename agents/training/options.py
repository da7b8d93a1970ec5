"""What every training loop has to be told, and how a command reads it."""

from __future__ import annotations

import argparse
import ast
import inspect
import logging
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from videogym import Recipe, get_recipe
from videogym.datasets import load_tasks


@dataclass(frozen=True)
class LoopConfig:
    """What every training loop needs to know."""

    recipe: str | Recipe = "VIDEO_MTR/paper"
    """Recipe of all episodes, or its name, such as LONGVT/paper."""
    video_root: str = ""
    """Folder below which the videos of task files and data sets lie; empty: their paths are taken as they
    stand."""
    seed: int = 0
    """Seed of tasks, actions and minibatches."""
    iterations: int = 60
    """Number of iterations; each collects a batch and learns from it."""
    eval_every: int = 10
    """Iterations between evaluations; there is one after the last."""
    checkpoint_every: int = 10
    """Iterations between checkpoints; there is one after the last."""
    logger: Literal["csv", "tensorboard"] = "csv"
    """Where learning curves go: a CSV file, or TensorBoard."""
    threads: int = 1
    """CPU threads of torch; small models gain nothing from more."""

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


def field_docs(config: type[Any]) -> dict[str, str]:
    """The doc line under each field of a dataclass, on one line; a subclass overrides its bases.

    Raises:
        OSError: a class has no source file.
    """
    docs = {}
    for one in (base for base in reversed(config.__mro__) if is_dataclass(base)):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in pairwise(definition.body):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str() as text)),
                ):
                    docs[name] = " ".join(text.replace("`", "").split())
    return docs


def option_help(doc: str, default: Any) -> str:
    """What ``--help`` says of an option: its meaning, and its default."""
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    shown = {True: "on", False: "off"}[shown] if isinstance(shown, bool) else shown
    return f"{doc.removesuffix('.')} (default: {'none' if shown == '' else shown})".replace("%", "%%")


_METAVARS = {int: "N", float: "X", str: "TEXT"}


def add_options(
    parser: argparse.ArgumentParser, config: type[LoopConfig], names: Sequence[str] = ()
) -> None:
    """An option for every field of a config, or for those that are named, with its doc line and default."""
    hints, docs = get_type_hints(config), field_docs(config)
    for option in (option for option in fields(config) if not names or option.name in names):
        kind = str if option.name == "recipe" else hints[option.name]
        reads: dict[str, Any] = {"default": option.default}
        if get_origin(kind) is Literal:
            reads["choices"] = get_args(kind)
        elif get_origin(kind) is tuple:
            reads |= {"type": int, "nargs": "+", "metavar": "N"}
        elif kind is bool:
            reads["action"] = argparse.BooleanOptionalAction
        else:
            reads |= {"type": kind, "metavar": _METAVARS[kind]}
        added = parser.add_argument(f"--{option.name.replace('_', '-')}", **reads)
        # Set afterwards: some versions of BooleanOptionalAction add a default of their own.
        added.help = option_help(docs[option.name], option.default)


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
