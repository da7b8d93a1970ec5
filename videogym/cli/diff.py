"""``videogym diff``: why two runs have different results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from videogym.cli.options import add_command, add_groups
from videogym.comparison import Comparison, Run, compare, read_run
from videogym.comparison.compare import p_value, signed_difference
from videogym.comparison.divergence import DESCRIPTIONS
from videogym.comparison.paired import PairGroup
from videogym.mistakes import printable

_NAMED = 3  # tasks that are named
_MOST_GROUPS = 40  # that are written
_WIDTH = 60  # characters of a value that fits beside another one


def add_diff(commands: Any) -> None:
    """``videogym diff``."""
    parser = add_command(
        commands,
        "diff",
        help="why two runs have different results",
        description="Compare two runs: their settings, which tasks both played, metrics on these with the "
        "paired difference B - A and its 95 % interval, and the first step at which episodes part.",
        epilog="A and B are traces (`videogym eval --traces`, or videogym.traces.RecordTraces), which\n"
        "hold every step, or results (`videogym eval --json`), which hold every setting.\n\n"
        "  videogym diff before.jsonl after.jsonl    where episodes part\n"
        "  videogym diff mine.json theirs.json       which settings differ",
    )
    parser.add_argument("a", metavar="A", help="traces, a folder of such, or a result")
    parser.add_argument("b", metavar="B", help="what it is compared with")
    add_groups(parser)
    parser.add_argument("--json", action="store_true", help="the comparison as one JSON object")
    parser.set_defaults(run=_diff)


def _diff(arguments: argparse.Namespace) -> int:
    found = compare(read_run(arguments.a), read_run(arguments.b), tuple(dict.fromkeys(arguments.by)))
    lines = [json.dumps(found.to_json(), indent=2)] if arguments.json else _lines(found)
    print("\n".join(lines))
    return 0


def _lines(found: Comparison) -> Iterator[str]:
    for letter, run in (("A", found.a), ("B", found.b)):
        yield from _run_lines(letter, run)
    yield from ("", "Settings")
    yield from _setting_lines(found)
    yield from ("", "Tasks")
    yield from _task_lines(found)
    yield from ("", f"Metrics on the common tasks ({len(found.common)}), 95 % intervals")
    yield from _metric_lines(found)
    for name, of_name in found.groups.items():
        yield from ("", f"Accuracy by {printable(name)}")
        yield from _group_lines(of_name)
    yield from ("", "Where episodes of one task first differ")
    yield from _divergence_lines(found)
    yield from ("", found.conclusion)


def _run_lines(letter: str, run: Run) -> Iterator[str]:
    accuracy = "none judged" if run.accuracy is None else f"accuracy {run.accuracy}"
    name, recipes = printable(run.name), printable(", ".join(run.recipes))
    yield f"{letter}  {name}: {len(run.episodes)} tasks of {recipes}, {accuracy}"
    left_out = {
        "further episodes of the same tasks": run.repeated,
        "episodes with a fault or left before their end": run.unscored,
        "tasks whose video could not be used": run.bad_videos,
        "last lines that are cut off": run.torn,
    }
    for what, count in left_out.items():
        if count:
            yield f"   without {count} {what}"


def _setting_lines(found: Comparison) -> Iterator[str]:
    settings = found.settings
    explained = any(one.name.startswith("recipe.") for one in settings.differing)
    for one in settings.differing:
        if explained and one.name == "recipe_identity":
            continue
        a, b = (_value(value) for value in (one.a, one.b))
        if len(a) + len(b) <= _WIDTH:
            yield f"  {printable(one.name)}  {a} | {b}"
        else:
            yield from (f"  {printable(one.name)}", f"    A  {a}", f"    B  {b}")
    yield (
        f"  {settings.same} settings are the same"
        if settings.same
        else "  no setting is known to be the same"
    )
    for letter, names in (("A", settings.only_a), ("B", settings.only_b)):
        if names:
            yield f"  only {letter} records: {printable(', '.join(_groups(names)))}"


def _value(value: Any) -> str:
    return printable(json.dumps(value, ensure_ascii=False))


def _groups(names: Sequence[str]) -> list[str]:
    """Names by what they belong to: ``recipe.rules.max_turns`` is of ``recipe``."""
    return list(dict.fromkeys(name.partition(".")[0] for name in names))


def _task_lines(found: Comparison) -> Iterator[str]:
    yield f"  {len(found.common)} played by both"
    for what, tasks in (
        ("by A alone", found.only_a),
        ("by B alone", found.only_b),
        ("of both with another question or truth under the same id", found.other_tasks),
        ("of both with another video under the same id", found.other_videos),
    ):
        if tasks:
            yield f"  {len(tasks)} {what}: {_ids(tasks)}"


def _ids(tasks: Sequence[str]) -> str:
    return printable(", ".join(tasks[:_NAMED])) + (", ..." if len(tasks) > _NAMED else "")


def _metric_lines(found: Comparison) -> Iterator[str]:
    rows = [("", "A", "B", "B - A")]
    for metric in (*found.metrics, *found.terms):
        name = printable(metric.name if metric in found.metrics else f"  {metric.name}")
        fewer = "" if metric.a.count == len(found.common) else f"  ({metric.a.count} tasks)"
        rows.append((name, str(metric.a), str(metric.b), signed_difference(metric) + fewer))
    yield from _columns(rows)
    for letter, names in zip("AB", found.terms_of_one, strict=True):
        if names:
            yield f"  only {letter} is paid: {printable(', '.join(names))}"
    if found.mcnemar is not None:
        test = found.mcnemar
        yield f"  right in A alone {test.only_a}, in B alone {test.only_b}: exact McNemar {p_value(test.p)}"
    if not found.same_recipe:
        yield "  rewards of different recipes are different things"


def _group_lines(of_name: Sequence[PairGroup]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("", "tasks", "A", "B", "B - A")]
    for one in of_name[:_MOST_GROUPS]:
        accuracy = next((metric for metric in one.metrics if metric.name == "accuracy"), None)
        told = (
            ("", "", "none judged")
            if accuracy is None
            else (accuracy.a, accuracy.b, signed_difference(accuracy))
        )
        rows.append((printable(one.value), str(one.tasks), *map(str, told)))
    yield from _columns(rows)
    if len(of_name) > _MOST_GROUPS:
        yield f"  and {len(of_name) - _MOST_GROUPS} more groups"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, wide, strict=False)]
        yield "  " + "  ".join([*cells, row[-1]])


def _divergence_lines(found: Comparison) -> Iterator[str]:
    if found.divergences is None:
        yield "  not known: a result holds no steps; compare two files of traces (videogym eval --traces)"
        return
    for one in found.divergences:
        named = [
            f"{task_id} (turn {turn})" if turn else task_id for task_id, turn in one.tasks[: _NAMED + 1]
        ]
        yield f"  {len(one.tasks):>5}  {DESCRIPTIONS[one.kind]}: {_ids(named)}"
