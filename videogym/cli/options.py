"""What several commands share: how their help reads, and options that mean the same in each."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from typing import Any

from videogym.env import DEFAULT_TASKS
from videogym.grammars import compared
from videogym.judging import judge_named, with_judge
from videogym.judging.named import ABOUT, CACHE, DEADLINE_S
from videogym.recipes import Recipe, get_recipe

_WIDTH = 90
_MOST_JOBS = 4


def add_command(
    commands: Any, name: str, *, help: str, description: str, epilog: str
) -> argparse.ArgumentParser:
    """A subcommand whose epilog, with its examples, stays as it was written."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=textwrap.fill(description, _WIDTH),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_places(parser: argparse.ArgumentParser) -> None:
    """Which videos are meant; see `videogym.cli.places`."""
    parser.add_argument(
        "places",
        nargs="+",
        metavar="PATH",
        help="a video, a folder with all below it, a task file, or FORMAT:PATH, a published data set",
    )
    parser.add_argument(
        "--video-root",
        metavar="DIR",
        help="folder in which the videos of tasks are looked up (default: none)",
    )


def add_processes(parser: argparse.ArgumentParser) -> None:
    """How work is spread over child processes; see `videogym.isolation`."""
    jobs = min(_MOST_JOBS, os.cpu_count() or 1)
    parser.add_argument(
        "--jobs", type=int, default=jobs, metavar="N", help="parallel processes (default: %(default)s)"
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="give up a file after so long without progress (default: %(default)g)",
    )


def add_episodes(parser: argparse.ArgumentParser) -> None:
    """Which episodes are played, and where they are kept."""
    parser.add_argument(
        "--tasks",
        default=DEFAULT_TASKS,
        help="task file, FORMAT:PATH of a published data set, or procedural: or planted: source "
        "(default: 1000 procedural questions)",
    )
    parser.add_argument(
        "--video-root", metavar="DIR", help="folder below which relative video paths lie (default: none)"
    )
    parser.add_argument(
        "--recipe", default="DEFAULT", metavar="NAME", help="recipe of the episodes (default: %(default)s)"
    )
    add_prompt(parser)
    parser.add_argument(
        "--traces",
        metavar="FILE",
        help="JSONL file to which every episode is appended (default: episodes are not stored)",
    )


def add_prompt(parser: argparse.ArgumentParser) -> None:
    """In whose words episodes are asked; see `read_recipe`."""
    parser.add_argument(
        "--prompt-file",
        metavar="FILE",
        help="prompt file with the words of the conversation (default: the grammar's own)",
    )


def add_judge(parser: argparse.ArgumentParser) -> None:
    """Who judges answers; see `videogym.judging.judge_named`."""
    parser.add_argument("--judge", metavar="JUDGE", help=f"{ABOUT} (default: the recipe's own)")
    parser.add_argument(
        "--judge-model", metavar="NAME", default="", help="model of the endpoint (default: none)"
    )
    parser.add_argument(
        "--judge-cache",
        metavar="FILE",
        default=CACHE,
        help="JSONL file of judgements that are kept and looked up (default: %(default)s)",
    )
    parser.add_argument(
        "--judge-deadline-s",
        metavar="SECONDS",
        type=float,
        default=DEADLINE_S,
        help="give up a judgement after so long, and abstain (default: %(default)g)",
    )


def judged(recipe: Recipe, arguments: argparse.Namespace) -> Recipe:
    """The recipe with the judge that is named, if one is.

    Raises:
        ValueError: there is no such judge, or no term of the recipe asks one.
        OSError: the cache cannot be made.
    """
    if arguments.judge is None:
        return recipe
    told = (arguments.judge_model, arguments.judge_cache, arguments.judge_deadline_s)
    model, cache, deadline_s = told
    return with_judge(recipe, judge_named(arguments.judge, model=model, cache=cache, deadline_s=deadline_s))


def read_recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe that is named, in the words of the prompt file; says on standard error whose they are.

    Raises:
        ValueError: there is no such recipe, or the prompt cannot be used.
        OSError: the prompt file cannot be read.
    """
    recipe = get_recipe(arguments.recipe)
    if arguments.prompt_file is None:
        return recipe
    recipe = recipe.with_prompt(arguments.prompt_file)
    assert recipe.prompt is not None
    told = "\n".join(f"  {line}" for line in compared(recipe.prompt))
    print(f"prompt of {arguments.prompt_file}\n{told}", file=sys.stderr)
    return recipe


def add_groups(parser: argparse.ArgumentParser) -> None:
    """By what metrics are grouped; see `videogym.grouping`."""
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="NAME",
        help="also report metrics by this field of the tasks' metadata, e.g. duration; may be repeated "
        "(default: no field)",
    )
