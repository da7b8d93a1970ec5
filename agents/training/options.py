"""What every training loop has to be told, and how a command reads it."""

from __future__ import annotations

import argparse
import ast
import inspect
import logging
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from videogym import Recipe, get_recipe
from videogym.datasets import load_tasks
from videogym.datasets.mixture import MIXTURE_PREFIX, written_out
from videogym.extras import require
from videogym.judging import Judge, judge_named, with_judge
from videogym.judging.named import CACHE, DEADLINE_S, REPLAY, RULES

from .bounds import Bounds, Count, OptionError, Positive, Seed, Threads, bounds_of
from .loggers import LoggerKind, require_logger

RENAMED = {  # options under earlier names: the command, checkpoints and results may still have them
    "lr": "learning_rate",
    "critic_lr": "critic_learning_rate",
    "kl": "kl_coef",
    "critic": "vf_coef",
    "at_once": "micro_batch_size",
    "minibatch": "mini_batch_size",
    "minibatch_groups": "mini_batch_groups",
    "entropy": "entropy_coef",
    "vision_lr": "vision_lr_mult",
    "rollouts_at_once": "max_concurrent_rollouts",
}


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluations while a run trains."""

    eval_tasks: str = ""
    """Source of the held-out tasks."""
    eval_episodes: Count = 100
    """Number of held-out tasks in an evaluation, always the same ones."""
    eval_every: Count = 10
    """Iterations between evaluations; there is one after the last."""


@dataclass(frozen=True)
class RuntimeConfig:
    """Where a run reads and writes; no result depends on it."""

    video_root: str = ""
    """Folder below which the videos of task files and data sets lie; empty: their paths are taken as they
    stand."""
    checkpoint_every: Count = 10
    """Iterations between checkpoints; there is one after the last."""
    keep_checkpoints: Count = 1
    """Number of newest checkpoints that are kept; beside ``checkpoint`` they are in ``checkpoints``."""
    keep_best: bool = False
    """Keep also the checkpoint of the best evaluation, by accuracy, or by reward where there is none."""
    logger: LoggerKind = "csv"
    """Where learning curves go beside CSV files: nowhere else (csv), to TensorBoard, or to W&B (wandb),
    offline where it is out of reach."""
    run_name: str = ""
    """Name of the run in W&B; empty: that of its folder."""
    threads: Threads = 1
    """CPU threads of torch; small models gain nothing from more."""


@dataclass(frozen=True)
class JudgeConfig:
    """Who judges answers; the recipe's identity covers it."""

    judge: str = ""
    """Judge of the answers: rules (numbers and shared words), lenient (the same but for case, articles and
    the like), letter (as Video-MTR compares), the URL of an endpoint of OpenAI's chat completions up to
    /v1, or cache, what such a judge has said before; empty: the recipe's own."""
    judge_model: str = ""
    """Name by which the endpoint knows its model."""
    judge_cache: str = CACHE
    """JSONL file of judgements that are kept and looked up."""
    judge_deadline_s: Positive = DEADLINE_S
    """Seconds after which a judgement is given up; the judge then abstains, and the episode is left out."""

    def make(self, *, asks: bool = True) -> Judge | None:
        """The judge, None for the recipe's own.

        Args:
            asks: whether an endpoint may be asked; else what it has said is looked up.

        Raises:
            ValueError: there is none of this name, or what it needs is missing or has no place.
            OSError: the cache cannot be made.
            ImportError: an endpoint, and httpx2 is not installed.
        """
        if not self.judge:
            return None
        name = self.judge if asks or self.judge in RULES else REPLAY
        return judge_named(
            name, model=self.judge_model, cache=self.judge_cache, deadline_s=self.judge_deadline_s
        )

    def replayed(self) -> dict[str, str]:
        """What `judge_named` makes the judge of that asks nobody; {} for the recipe's own."""
        if not self.judge or self.judge in RULES:
            return {"name": self.judge} if self.judge else {}
        return {
            "name": REPLAY,
            "model": self.judge_model,
            "cache": os.path.abspath(self.judge_cache),
        }


@dataclass(frozen=True)
class LoopConfig:
    """What every training loop needs to know.

    A field is an option, or a group of options: a frozen dataclass of its own. An option has one name in
    all groups together, which is that of the command and of stored runs; `of` and `with_options` take
    options by that name.
    """

    engine_version: ClassVar[int] = 1  # of what a seed samples, where outputs of a model are sampled

    recipe: str | Recipe = "VIDEO_MTR/paper"
    """Recipe of all episodes, or its name, such as LONGVT/paper."""
    tasks: str = ""
    """Source of the training tasks: a task file, FORMAT:PATH or procedural:."""
    seed: Seed = 0
    """Seed of tasks, actions and mini-batches."""
    iterations: Count = 60
    """Number of iterations; each collects a batch and learns from it."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluations while a run trains."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Where a run reads and writes."""
    judging: JudgeConfig = JudgeConfig()
    """Who judges answers."""

    def __post_init__(self) -> None:
        """Refuse numbers that an option cannot have.

        Raises:
            OptionError: one is out of the bounds of its field, see `agents.training.bounds`.
        """
        for option in options_of(type(self)):
            if option.bounds and (refusal := option.bounds.refusal(option.of(self))):
                raise OptionError(f"{option.name} {refusal}, got {option.of(self)}")

    @classmethod
    def of(cls, **options: Any) -> Self:
        """A config from options by name, whatever group they are in.

        Raises:
            TypeError: there is no such option.

        >>> LoopConfig.of(seed=3, eval_every=5).evaluation.eval_every
        5
        """
        return cls(**_by_field(cls, options))

    def with_options(self, **options: Any) -> Self:
        """This config with other values for some options; see `of`."""
        return replace(self, **_by_field(self, options))

    @property
    def ignored(self) -> dict[str, str]:
        """Options that nothing here depends on, by name: what each would need, in words."""
        return {}

    def _refuse_ignored(self) -> None:
        """Refuse such options where they were given.

        Raises:
            ValueError: one is not what it is by default.
        """
        for option in options_of(type(self)):
            value = option.of(self)
            if option.name in self.ignored and value != option.default:
                raise ValueError(f"{option.name}={value} {self.ignored[option.name]}")

    @cached_property
    def rules(self) -> Recipe:
        """The recipe itself, with the configured judge."""
        recipe = self.recipe if isinstance(self.recipe, Recipe) else get_recipe(self.recipe)
        judge = self.judging.make()
        return recipe if judge is None else with_judge(recipe, judge)

    @property
    def root(self) -> str | None:
        """Folder of the videos; None: there is none."""
        return self.runtime.video_root or None


@dataclass(frozen=True)
class Option:
    """One option of a config."""

    name: str  # without a group: of the command, and in stored runs
    field: str  # of the config: the group, or the option itself
    kind: Any  # its type
    default: Any
    bounds: Bounds | None = None  # of numbers

    def of(self, config: LoopConfig) -> Any:
        """Its value in a config."""
        value = getattr(config, self.field)
        return value if self.field == self.name else getattr(value, self.name)


def options_of(config: type[LoopConfig]) -> list[Option]:
    """All options, those of groups among them, in the order of the fields."""
    hints, found = get_type_hints(config, include_extras=True), []
    for own in fields(config):
        if own.name in (groups := groups_of(config)):
            kinds = get_type_hints(groups[own.name], include_extras=True)
            for one in fields(groups[own.name]):
                kind, bounds = bounds_of(kinds[one.name])
                found.append(Option(one.name, own.name, kind, getattr(own.default, one.name), bounds))
        else:
            kind, bounds = bounds_of(hints[own.name])
            found.append(Option(own.name, own.name, kind, own.default, bounds))
    return found


def groups_of(config: type[LoopConfig]) -> dict[str, type[Any]]:
    """The groups of a config by their fields."""
    grouped = [own for own in fields(config) if is_dataclass(own.default)]
    return {own.name: type(own.default) for own in grouped if not isinstance(own.default, Recipe)}


def _by_field(config: type[L] | L, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as arguments of the fields they are in; a group's other options are as in a config.

    Raises:
        TypeError: there is no such option.
    """
    known = {
        option.name: option for option in options_of(config if isinstance(config, type) else type(config))
    }
    arguments: dict[str, Any] = {}
    grouped: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        if name not in known:
            raise TypeError(f"no option {name!r}; there are {', '.join(sorted(known))}")
        field = known[name].field
        if field == name:
            arguments[name] = value
        else:
            grouped.setdefault(field, {})[name] = value
    return arguments | {field: replace(getattr(config, field), **some) for field, some in grouped.items()}


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
    """Every option of a config, or those that are named, with its doc line and default, by groups."""
    docs = field_docs(config)
    parts: dict[str, Any] = {}
    for option in (option for option in options_of(config) if not names or option.name in names):
        if option.field != option.name and option.field not in parts:
            group = groups_of(config)[option.field]
            docs |= field_docs(group)
            parts[option.field] = parser.add_argument_group(option.field, inspect.getdoc(group))
        _add_option(parts.get(option.field, parser), option, docs[option.name])


def _add_option(parser: Any, option: Option, doc: str) -> None:
    kind = str if option.name == "recipe" else option.kind
    reads: dict[str, Any] = {"default": option.default}
    if get_origin(kind) is Literal:
        reads["choices"] = get_args(kind)
    elif get_origin(kind) is tuple:
        of = get_args(kind)[0]
        reads |= {"type": of, "nargs": "+", "metavar": _METAVARS[of]}
    elif kind is bool:
        reads["action"] = argparse.BooleanOptionalAction
    else:
        reads |= {"type": kind, "metavar": _METAVARS[kind]}
    added = parser.add_argument(f"--{option.name.replace('_', '-')}", **reads)
    # Set afterwards: some versions of BooleanOptionalAction add a default of their own.
    added.help = option_help(doc, option.default)
    for old in (old for old, new in RENAMED.items() if new == option.name):
        # A default of its own would overwrite what is read under the new name.
        earlier = {**reads, "dest": option.name, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        parser.add_argument(f"--{old.replace('_', '-')}", **earlier)


def from_options(config: type[L], options: Mapping[str, Any]) -> L:
    """A config from what `add_options` read; other options have their defaults."""
    read = {option.name: options[option.name] for option in options_of(config) if option.name in options}
    return config.of(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in read.items()}
    )


def _without_files(config: L) -> L:
    """A config whose mixtures name no file, so that a run knows what it was begun with."""
    values = {option.name: option.of(config) for option in options_of(type(config))}
    mixed = {
        name: written_out(value)
        for name, value in values.items()
        if isinstance(value, str) and value.startswith(MIXTURE_PREFIX)
    }
    return config.with_options(**mixed) if mixed else config


def read_config(parser: argparse.ArgumentParser, config: type[L], options: Mapping[str, Any]) -> L:
    """A config from what `add_options` read, whose recipe and tasks are there.

    Ends the program with one line and status 2 where they are not, before anything is made.
    """
    try:
        read = from_options(config, options)
        read = _without_files(read)
        _ = read.rules  # whose recipe and judge are there
        require_logger(read.runtime.logger)
        if getattr(read, "collector", "local") == "ray":
            require("ray", "the collector 'ray'")
        for source in (read.tasks, read.evaluation.eval_tasks):
            load_tasks(source, read.root)
        usual = {option.name: option.default for option in options_of(config)}
        if options["tasks"] != usual["tasks"] and options["eval_tasks"] == usual["eval_tasks"]:
            raise ValueError("--tasks needs --eval-tasks: held-out tasks of the same kind, of other videos")
    except (OSError, ValueError, ImportError) as error:
        file = options.get("config")  # of which most of it came
        parser.error(f"{file}: {error}" if file else str(error))
    return read
