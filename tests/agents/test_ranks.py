"""Ranks of torchrun that hear of each other: alarms, a death, data that differ."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from forks import fork, status

from agents.training import ranks
from videogym.datasets import load_tasks, write_tasks

HERE = Path(__file__).parent


def ended(number: int, *job: str, raised: int = 0) -> list[str]:
    """What torchrun with so many ranks has said when it has failed, and so many of them by a traceback."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    ran = subprocess.run(
        [sys.executable, *launch, str(HERE / "ranks_that_end.py"), *job],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])},
        timeout=300,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr.count("Traceback") <= 1 + raised, ran.stderr  # that of torchrun itself
    return ran.stderr.splitlines()


def test_one_rank_tells_that_another_has_died() -> None:
    """And nobody that all will be saved, though torchrun's signal is that of an interruption."""
    said = ended(4, "die")
    told = [line for line in said if "has died" in line or "saved" in line or "nterrupted" in line]
    assert told == ["rank 0 has died", "Seven iterations are saved."], said


@pytest.mark.slow
def test_an_error_of_the_rank_that_writes_at_the_end_is_told() -> None:
    """The other waits for it: one that had ended would be taken for dead, and the error for its death."""
    said = ended(2, "write", raised=1)
    assert any(line.endswith("RuntimeError: the model cannot be written") for line in said), said
    assert not any("rank 1 has died" in line for line in said), said


def test_alarms_are_heard_until_they_are_over_and_other_tasks_are_refused(tmp_path: Path) -> None:
    """A failure does not end what comes after it; ranks with other tasks of one name end by a line."""
    tasks = load_tasks("procedural:brief_event?level=0&duration_s=60&count=6")[:6]
    write_tasks(tmp_path / "0.jsonl", tasks)
    other = next(letter for letter in tasks[4].letters if letter != tasks[4].answer)
    changed = [replace(task, answer=other) if task is tasks[4] else task for task in tasks]
    write_tasks(tmp_path / "1.jsonl", changed)
    said = ended(2, "agree", str(tmp_path))
    (line,) = (line for line in said if "disagree" in line)
    assert line.startswith("ranks disagree about tasks: rank 0 has 6 tasks of digest ")
    assert ", rank 1 6 tasks of digest " in line
    assert any("exitcode  : 2" in line for line in said), said
    assert not any("has died" in line for line in said), said


def test_a_rank_ends_with_the_torchrun_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is killed, so that it ends no rank, while one waits for another that never comes."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    ours, theirs = os.pipe()

    def meet(*_: object, **__: object) -> None:
        os.write(theirs, b"waits")
        time.sleep(600)

    monkeypatch.setattr(ranks.dist, "init_process_group", meet)
    torchrun = fork(lambda: fork(lambda: ranks.init_distributed("cpu")) and time.sleep(600))
    os.close(theirs)
    assert os.read(ours, 5) == b"waits"
    os.kill(torchrun, signal.SIGKILL)
    assert status(torchrun) == -signal.SIGKILL
    readable, _, _ = select.select([ours], [], [], 60)
    assert readable and os.read(ours, 5) == b"", "the rank has the other end as long as it lives"
    os.close(ours)
