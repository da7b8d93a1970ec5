"""The command ``videogym``: its subcommands, and what becomes of their errors.

A subcommand is a function that adds its parser, in a module of its own, and a place in `COMMANDS`. What it
runs returns the exit status; what it raises for a user's mistake becomes one line on the standard error and
status 2.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import io
import os
import sys
from collections.abc import Sequence

from videogym.cli.data import add_data
from videogym.cli.diff import add_diff
from videogym.cli.doctor import add_doctor
from videogym.cli.evaluation import add_eval
from videogym.cli.index import add_index
from videogym.cli.look import add_look
from videogym.cli.play import add_play
from videogym.cli.report import add_report
from videogym.mistakes import MENDABLE, STATUS, in_a_line

COMMANDS = (add_doctor, add_look, add_index, add_eval, add_diff, add_report, add_play, add_data)
_EPILOG = """\
from your own videos to a report:

  videogym doctor videos/                        which files can be used, and how to mend the others
  videogym look videos/a.mp4 --out a.jpg         what is in one of them
  videogym eval random --tasks tasks.jsonl --video-root videos/ --traces random.jsonl
  videogym diff random.jsonl other.jsonl         why two runs have different results
  videogym report random.jsonl                   every episode of it, to be read in a browser
  videogym play --tasks tasks.jsonl --video-root videos/ --traces mine.jsonl
  videogym data scenes videos/ --work work/      first of the steps that make questions of them

`videogym COMMAND --help` says more. Nothing leaves this machine, but for what an endpoint is asked."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status.

    Args:
        arguments: without the program's name; None: those of this process.
    """
    parser = argparse.ArgumentParser(
        prog="videogym",
        description="Gymnasium environments for long videos, on the command line.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = importlib.metadata.version("videogym")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version}")
    about_import = "import this module first: it defines kinds of action of your own; may be repeated"
    parser.add_argument("--import", dest="modules", metavar="MODULE", action="append", help=about_import)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that it cannot spell ends no command
    try:
        try:
            return _run(parser, arguments)
        finally:
            print(end="", flush=True)  # here, since Python itself would fail at it with a traceback
    except BrokenPipeError:  # the reader of our output has left, like `head`
        _close_output()
        return 1
    except OSError as error:  # a full disk
        _close_output()
        print(f"videogym: error: {in_a_line(error)}", file=sys.stderr)
        return STATUS


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    chosen = parser.parse_args(arguments)
    try:
        import_modules(chosen.modules or ())
        return int(chosen.run(chosen))
    except BrokenPipeError:
        raise
    except MENDABLE as error:
        print(f"videogym {chosen.command}: error: {in_a_line(error)}", file=sys.stderr)
        return STATUS
    except KeyboardInterrupt:
        return 130  # as shells do for an interrupted command


def import_modules(names: Sequence[str]) -> None:
    """Import modules of a user's, which may lie in the working directory."""
    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        importlib.import_module(name)


def _close_output() -> None:
    """Have the end of Python write what is left to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
