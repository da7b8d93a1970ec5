"""Runs of lmms-eval, in this process or in one of their own, and what they print."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

TASKS = (
    *("videomme", "mlvu_dev", "mlvu_test", "egoschema_subset", "lvbench", "video_mmmu"),
    *("longvideobench_val_v", "longvt_non_think", "longvt_reasoning", "longvt"),
)
_ROW = re.compile(r"^\|\s*(?:-\s*)?(\w+)\s*\|\w+\s*\|\s*\d\|(\w+)\s*\|\S*\s*\|\s*([\d.]+)\|")


@dataclass(frozen=True)
class Run:
    """A run that has ended."""

    status: int
    said: str  # all of its output
    folder: Path  # of its results and its traces

    @property
    def table(self) -> dict[tuple[str, str], float]:
        """What the last table says: a value for each task and metric."""
        rows = [match for line in self.said.splitlines() if (match := _ROW.match(line))]
        return {(row[1], row[2]): float(row[3]) for row in rows}

    @property
    def samples(self) -> dict[str, dict[str, Any]]:
        """What lmms-eval logged of each document, by task and number."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(self.folder.rglob("*_samples_*.jsonl")):
            task = path.stem.partition("_samples_")[2]
            for line in path.read_text().splitlines():
                row = json.loads(line)
                found[f"{task}/{row['doc_id']}"] = row
        return found


def arguments(folder: Path, tasks: Sequence[str], model: Mapping[str, Any], *more: str) -> list[str]:
    """The options of lmms-eval."""
    told = ",".join(f"{name}={value}" for name, value in {"traces": folder / "traces", **model}.items())
    place = ("--output_path", str(folder / "results"), "--log_samples")
    # LongVT's score of the format wants the thoughts, which lmms-eval cuts off by default.
    usual = ("--tasks", ",".join(tasks), *place, "--reasoning_tags", "none", "--process_docs_parallel", "1")
    return ["--model", "videogym", "--model_args", told, *usual, *more]


def run(folder: Path, tasks: Sequence[str], model: Mapping[str, Any], *more: str) -> Run:
    """A run in this process."""
    from lmms_eval.__main__ import cli_evaluate

    said, status = io.StringIO(), 0
    options = arguments(folder, tasks, model, *more)
    with mock.patch.object(sys, "argv", ["lmms-eval", *options]), contextlib.redirect_stdout(said):
        try:
            cli_evaluate()
        except SystemExit as error:
            status = 1
            said.write(str(error))
    return Run(status, said.getvalue(), folder)


def run_apart(
    folder: Path,
    tasks: Sequence[str],
    model: Mapping[str, Any],
    *more: str,
    processes: int = 1,
) -> Run:
    """A run in a process of its own, or in several as ``accelerate launch`` starts them."""
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes), "-m"]
    command = [sys.executable, "-m", *(launch if processes > 1 else []), "lmms_eval"]
    done = subprocess.run(
        [*command, *arguments(folder, tasks, model, *more)],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},  # `--cpu` starts one process, whatever is said
    )
    return Run(done.returncode, done.stdout + done.stderr, folder)
