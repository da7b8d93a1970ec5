"""What several commands share: how their help reads, and options that mean the same in each."""

from __future__ import annotations

import argparse
import os
import textwrap
from typing import Any

from videogym.env import DEFAULT_TASKS

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
        help="task file, FORMAT:PATH of a published data set, or procedural: source "
        "(default: 1000 procedural questions)",
    )
    parser.add_argument(
        "--video-root", metavar="DIR", help="folder below which relative video paths lie (default: none)"
    )
    parser.add_argument(
        "--recipe", default="DEFAULT", metavar="NAME", help="recipe of the episodes (default: %(default)s)"
    )
    parser.add_argument(
        "--traces",
        metavar="FILE",
        help="JSONL file to which every episode is appended (default: episodes are not stored)",
    )


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
