"""Count how much recorded behaviour of published systems comes out the same here.

``python -m videogym.testing.conformance FILE.jsonl ...`` reads one record a line, replays it (see
`videogym.testing.replay`) and prints what comes out differently. Exit status 0: all rows passed, 1: some
failed, 2: some input could not be used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogym.testing.replay import UnusableRow, check_row

CheckRow = Callable[[dict[str, Any]], list[str]]


@dataclass
class RowCounts:
    """What one file came to."""

    passed: int = 0
    failed: int = 0
    unusable: int = 0


def check_file(path: Path, report: Callable[[str], None] = print, check: CheckRow = check_row) -> RowCounts:
    """Check every row of a file and report its mismatches, then ``N passed, M failed``.

    Args:
        path: JSON lines.
        report: called with each line of the report.
        check: what comes out differently from a row; raises `UnusableRow`.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: the file is no text.
    """
    counts = RowCounts()
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            mismatches = check(_read_row(line))
        except UnusableRow as error:
            counts.unusable += 1
            report(f"{path}:{number}: error: {error}")
            continue
        counts.failed += bool(mismatches)
        counts.passed += not mismatches
        for mismatch in mismatches:
            report(f"{path}:{number}: {mismatch}")
    if not (counts.passed or counts.failed or counts.unusable):
        counts.unusable = 1  # nothing was checked, which is no pass
        report(f"{path}: error: the file holds no rows")
    unusable = f", {counts.unusable} unusable" if counts.unusable else ""
    report(f"{path.name}: {counts.passed} passed, {counts.failed} failed{unusable}")
    return counts


def _read_row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UnusableRow(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise UnusableRow(f"a row is a JSON object, got {type(row).__name__}")
    return row


def main(
    arguments: Sequence[str], check: CheckRow = check_row, module: str = "videogym.testing.conformance"
) -> int:
    """The command: check files, print the report, return the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: python -m {module} FILE.jsonl ...")
        return 0 if arguments else 2
    all_counts, unusable = [], False
    for argument in arguments:
        try:
            all_counts.append(check_file(Path(argument), check=check))
        except (OSError, UnicodeDecodeError) as error:
            print(f"{argument}: error: {error}")
            unusable = True
    if any(counts.failed for counts in all_counts):
        return 1
    return 2 if unusable or any(counts.unusable for counts in all_counts) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
