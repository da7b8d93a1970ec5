"""``videogym doctor``: which videos can be used, what is wrong with the others, how to mend them."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

from videogym.cli.options import add_command, add_places, add_processes
from videogym.cli.places import find_places
from videogym.cli.terminal import ProgressBar, progress_bar
from videogym.datasets import EvidenceError, check_evidence
from videogym.doctor import Examination, examine_all, finding
from videogym.mistakes import printable
from videogym.state import Task

_T = TypeVar("_T")
_NAMED = 3  # tasks that are named in a line
_WIDTH, _INDENT = 100, " " * 6


def add_doctor(commands: Any) -> None:
    """``videogym doctor``."""
    parser = add_command(
        commands,
        "doctor",
        help="find what is wrong with videos, and how to repair it",
        description="Examine videos: whether each can be used, what is wrong with it and how to mend that. "
        "Commands to mend are printed, never run. Files are read in processes that may hang or crash.",
        epilog="Exit status: 0 all can be used, 1 something is wrong, 2 the command was not understood.\n\n"
        "  videogym doctor videos/                                every video below a folder\n"
        "  videogym doctor tasks.jsonl --video-root videos/       the videos of tasks, and their evidence\n"
        "  videogym doctor cg-bench:cgbench.json --video-root v/  the same of a published data set\n"
        "  videogym doctor videos/ --decode all                   every frame, which takes its time\n"
        "  videogym doctor videos/ --json | jq -r 'select(.usable | not) | .path'",
    )
    add_places(parser)
    parser.add_argument(
        "--decode",
        choices=("none", "some", "all"),
        default="some",
        help="frames to decode: none, and only headers are read; some, up to 2000 in 20 places of a file; "
        "all (default: %(default)s)",
    )
    add_processes(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line for every file")
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    places, wrong = find_places(arguments.places, arguments.video_root)
    tell = _tell_json if arguments.json else _tell
    told = [examination for examination, _ in wrong]
    for examination, tasks in wrong:
        tell(examination, tasks)
    progress = progress_bar("files")
    answers = examine_all(
        [place.path for place in places],
        decode=arguments.decode,
        children=arguments.jobs,
        deadline_s=arguments.deadline,
    )
    for place, answer in answers_in_order(places, answers, progress):
        told.append(_with_evidence(answer, place.tasks))
        tell(told[-1], place.tasks)
    progress.clear()
    if not arguments.json:
        print(_summary(told))
    return int(not all(examination.usable for examination in told))


def answers_in_order(
    items: Sequence[_T], answers: Iterable[tuple[int, Any]], progress: ProgressBar
) -> Iterator[tuple[_T, Any]]:
    """Items with their answers, in the order of the items, while the answers come as they like."""
    early: dict[int, Any] = {}
    due = 0
    if items:
        progress(0, len(items))
    for done, (number, answer) in enumerate(answers, start=1):
        early[number] = answer
        progress.clear()
        while due in early:
            yield items[due], early.pop(due)
            due += 1
        progress(done, len(items))


def _with_evidence(examination: Examination, tasks: Sequence[Task]) -> Examination:
    """The same, with tasks whose evidence does not lie in the video among the findings."""
    if examination.facts is None:
        return examination
    outside = []
    for task in tasks:
        try:
            check_evidence(task, examination.facts.video.duration_s)
        except EvidenceError as error:
            outside.append(str(error))
    if not outside:
        return examination
    more = f"; and of {len(outside) - 1} more tasks" if len(outside) > 1 else ""
    found = finding("evidence", examination.path, outside[0] + more)
    return replace(examination, findings=(*examination.findings, found))


def _tell(examination: Examination, tasks: Sequence[Task]) -> None:
    """What was found, for a person; a file of which nothing is to be said is only counted."""
    if not examination.findings:
        return
    mark = "note" if examination.usable else "BAD "
    named = ", ".join(task.task_id for task in tasks[:_NAMED]) + (", ..." if len(tasks) > _NAMED else "")
    concerned = f"  ({len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}: {named})" if tasks else ""
    print(f"{mark}  {printable(examination.path + concerned)}")
    for found in examination.findings:
        for text in (f"{found.code}: {printable(found.message)}", found.advice):
            print(textwrap.fill(text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT))
        if found.command:
            print(f"{_INDENT}  {found.command}")  # unbroken, to be copied
    print(end="", flush=True)


def _tell_json(examination: Examination, tasks: Sequence[Task]) -> None:
    row = {
        "path": examination.path,
        "usable": examination.usable,
        "findings": [asdict(found) for found in examination.findings],
        "facts": None if examination.facts is None else asdict(examination.facts),
        "task_ids": [task.task_id for task in tasks],
    }
    print(json.dumps(row), flush=True)


def _summary(told: Sequence[Examination]) -> str:
    bad = [examination for examination in told if not examination.usable]
    noted = sum(bool(e.findings) and e.usable for e in told)
    causes = Counter(f.code for e in bad for f in e.findings if f.severity == "error")
    listed = ", ".join(f"{count} {code}" for code, count in causes.most_common())
    sound = f"{len(told) - len(bad)} of {len(told)} can be used" + (
        f" ({noted} with notes)" if noted else ""
    )
    return sound + (f", {len(bad)} cannot: {listed}" if bad else "")
