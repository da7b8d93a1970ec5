"""The folder of a benchmark run: its settings, its traces, and what could not be played.

A trace is on the disk before its response is given away, and an episode that is there is not played again.
So a run that was stopped is continued by the same command, by any number of processes, and no question is
there twice. Each process writes a file of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videogym import Task
from videogym.traces import Trace, append_trace, read_traces

from ..training.staging import whole_file

_SETTINGS = "settings.json"


class OtherRun(ValueError):
    """A folder holds traces of another run. The message names the folder and what differs."""


class TraceStore:
    """Traces of one run.

    Args:
        folder: of them; made when missing.
        settings: of the run, in JSON values.
        number: of this process.

    Raises:
        OtherRun: the folder holds traces of other settings; the message names one that differs.
        TraceError: a file in it holds something else.
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], number: int) -> None:
        self.folder, self._number = folder, number
        folder.mkdir(parents=True, exist_ok=True)
        stored = folder / _SETTINGS
        if stored.exists():
            _require_same(folder, json.loads(stored.read_text(encoding="utf-8")), settings)
        else:
            with whole_file(stored) as file:  # all processes write the same
                file.write(json.dumps(dict(settings), indent=2).encode() + b"\n")
        files = any(folder.glob("*.jsonl"))
        self._traces = {trace.task.task_id: trace for trace in (read_traces(folder) if files else ())}

    def __len__(self) -> int:
        """How many episodes there are, as far as this process knows."""
        return len(self._traces)

    def get(self, task: Task) -> Trace | None:
        """The stored episode of a task, if there is one.

        Raises:
            OtherRun: it is of another question; the benchmark has changed.
        """
        trace = self._traces.get(task.task_id)
        if trace is not None and trace.task != task:
            raise OtherRun(
                f"{self.folder} holds an episode of {task.task_id} that asks something else or elsewhere: "
                "name another folder, traces=FOLDER"
            )
        return trace

    def add(self, trace: Trace) -> None:
        """Store an episode; it is on the disk when this returns.

        Raises:
            OSError: it could not be written.
        """
        append_trace(self.folder / f"process_{self._number}.jsonl", trace)
        self._traces[trace.task.task_id] = trace

    def leave_out(self, causes: Mapping[str, str]) -> None:
        """Store which tasks could not be played and why, in place of what this process stored before.

        Raises:
            OSError: it could not be written.
        """
        path = self.folder / f"left_out_{self._number}.json"
        path.unlink(missing_ok=True)
        if causes:
            with whole_file(path) as file:
                file.write(json.dumps(dict(causes), indent=2, ensure_ascii=False).encode() + b"\n")


def _require_same(folder: Path, stored: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    for name in {**stored, **settings}:
        if stored.get(name) != settings.get(name):
            raise OtherRun(
                f"{folder} holds traces of another run, {name} {stored.get(name)!r} and not "
                f"{settings.get(name)!r}: name another folder, traces=FOLDER"
            )
