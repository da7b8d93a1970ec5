"""``agents.evaluate`` that stands still at a moment, so that a test can kill it there and nowhere else.

``python held_evaluation.py MOMENT MARKER OPTIONS...``. MOMENT is ``torn:N``, where the N-th episode is half
written; ``written:N``, where it has just been written; or ``traces``, where all is played and the report
half written. There it makes the file MARKER. Of several processes the second stands still, the others go
on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents import evaluate
from agents.vlm.played import PlayedFiles
from agents.vlm.records import Record, to_json


def hold(moment: str, marker: Path) -> None:
    """Let this process stand still at a moment."""
    name, _, count = moment.partition(":")

    def stand(*_: Any) -> None:
        marker.touch()
        while True:
            signal.pause()

    if name in ("torn", "written"):
        PlayedFiles.add = _counting(int(count), name, stand)  # type: ignore[method-assign]
    else:
        evaluate.write_traces = stand


def _counting(count: int, name: str, stand: Any) -> Any:
    add, left = PlayedFiles.add, [count]

    def counted(self: PlayedFiles, record: Record) -> None:
        left[0] -= 1
        if name == "torn" and not left[0]:
            line = to_json(record).encode()
            with self._own.open("ab") as file:
                file.write(line[: len(line) // 2])
            stand()
        add(self, record)
        if not left[0]:
            stand()

    return counted


def main(moment: str, marker: Path, options: Sequence[str]) -> None:
    """Evaluate, and stand still at a moment."""
    if os.environ.get("RANK", "1") == "1":
        hold(moment, marker)
    sys.argv = ["agents.evaluate", *options]
    evaluate.main()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
