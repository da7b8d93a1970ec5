"""A pipe has no end and perhaps no writer: whatever reads a file says so at once."""

# ruff: noqa: D103

import os
import subprocess
import sys
from pathlib import Path

import pytest

TASKS = "procedural:brief_event?count=1&duration_s=60"
NOT_A_FILE = "not a regular file"
COMMANDS = [
    ("x.jsonl", ["eval", "random", "--tasks", "x.jsonl"]),
    ("x.json", ["eval", "random", "--tasks", "x.json"]),
    ("x.parquet", ["eval", "random", "--tasks", "video-mme:x.parquet"]),
    ("x.csv", ["eval", "random", "--tasks", "video-mme:x.csv"]),
    ("x.jsonl", ["eval", "random", "--tasks", TASKS, "--traces", "x.jsonl"]),
    ("x.jsonl", ["doctor", "x.jsonl", "--json"]),
    ("x.jsonl", ["report", "x.jsonl"]),
    ("x.jsonl", ["report", "."]),
    ("records/x.jsonl", ["report", "."]),
    ("log/scalars/reward.csv", ["report", "."]),
    ("x.json", ["diff", "x.json", "x.json"]),
    ("x.mp4", ["look", "x.mp4"]),
]


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=lambda value: str(value))
def test_a_command_says_that_a_pipe_is_no_file(name: str, command: list[str], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow") if name.endswith("parquet") else None
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-m", "videogym", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode != 0
    assert NOT_A_FILE in done.stdout + done.stderr or "neither traces" in done.stderr
    assert Path(name).name in done.stdout + done.stderr or "neither traces" in done.stderr
    assert "Traceback" not in done.stderr
