"""On a full disk a writer ends with an error that names its file, and what was there is as it was."""

# ruff: noqa: D103

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from videogym.cli import main

ONE = "procedural:brief_event?count=1&duration_s=60"
MANY = "procedural:brief_event?count=40&duration_s=60"
ADDRESS = "synthetic:brief_event?duration_s=60&level=0&seed=1"
# What writes which file, as the end of a program; a limit on the size of files stands for the disk.
TASKS = """
from videogym.datasets import load_tasks, write_tasks
write_tasks('tasks.jsonl', load_tasks('procedural:brief_event?count=40&duration_s=60'))
"""
JUDGEMENTS = """
from videogym.judging.log import Judgement, JudgementLog
for i in range(40):
    judgement = Judgement(str(i), 'q' * 90, 'r', 'a', {'n': i}, None, 'x: y', 'p', None, 't')
    JudgementLog('log.jsonl').add(judgement)
"""
WRITERS = {
    "traces": (
        "t.jsonl",
        f"sys.exit(main(['eval', 'oracle', '--tasks', {MANY!r}, '--traces', 't.jsonl']))",
    ),
    "report": ("r.html", "sys.exit(main(['report', 'one.jsonl', '--out', 'r.html']))"),
    "look": ("l.jpg", f"sys.exit(main(['look', {ADDRESS!r}, '--out', 'l.jpg']))"),
    "tasks": ("tasks.jsonl", TASKS),
    "judgements": ("log.jsonl", JUDGEMENTS),
}
LIMIT = """
import resource, sys
from videogym.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
"""


def run(writer: str, folder: Path) -> tuple[Path, str]:
    """The file of a writer that fails, and the last thing that it said."""
    name, call = WRITERS[writer]
    done = subprocess.run(
        [sys.executable, "-c", LIMIT + call], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    return folder / name, done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def one_trace(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("traces") / "one.jsonl"
    assert main(["eval", "oracle", "--tasks", ONE, "--traces", str(path)]) == 0
    return path.read_bytes()


@pytest.mark.parametrize("writer", WRITERS)
def test_the_error_names_the_file_and_leaves_nothing(writer: str, one_trace: bytes, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_bytes(one_trace)
    path, said = run(writer, tmp_path)
    assert path.name in said and ("File too large" in said or "No space left" in said)
    left = [entry for entry in tmp_path.rglob("*") if entry.name != "one.jsonl"]
    if writer in ("traces", "judgements"):  # files that grow: the lines that fitted are there, whole
        assert left == [path] and path.read_bytes().endswith(b"\n")
    else:
        assert not left


@pytest.mark.parametrize("writer", ["report", "look", "tasks"])
def test_an_earlier_file_is_as_it_was(writer: str, one_trace: bytes, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_bytes(one_trace)
    (tmp_path / WRITERS[writer][0]).write_bytes(b"earlier")
    path, _ = run(writer, tmp_path)
    assert path.read_bytes() == b"earlier"


def test_temporary_files_are_where_the_machine_says() -> None:
    root = Path(__file__).parents[1]
    for path in [*root.glob("videogym/**/*.py"), *root.glob("agents/**/*.py")]:
        assert "/tmp" not in path.read_text(encoding="utf-8"), f"{path} takes no heed of TMPDIR"
