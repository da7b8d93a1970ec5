"""Commands of many runs, interrupted: their processes save and end, and the command says how to resume."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# A command as those of `agents.experiments` are, whose runs take long and save what they have done.
COMMAND = """
import argparse, os, sys, time
from pathlib import Path
from agents.experiments.runs import add_run_options, resumable, runs_at_once

def work(seed, out):
    (out / f"begun-{seed}").write_text(str(os.getpid()))
    try:
        while True:
            time.sleep(0.05)
    except KeyboardInterrupt:
        time.sleep(0.5)  # saving takes its time
        (out / f"saved-{seed}").touch()
        raise

if __name__ == "__main__":
    parser = argparse.ArgumentParser("runs")
    add_run_options(parser, "runs", seeds=(0, 1, 2, 3, 4, 5))
    arguments = parser.parse_args()
    with resumable(parser, arguments.out), runs_at_once(arguments.jobs) as pool:
        for run in [pool.submit(work, seed, arguments.out) for seed in arguments.seeds]:
            run.result()
"""


def await_files(folder: Path, pattern: str, count: int) -> list[Path]:
    """Files that a process writes, as soon as there are so many."""
    until = time.monotonic() + 300
    while len(found := sorted(folder.glob(pattern))) < count:
        assert time.monotonic() < until, f"only {found} came"
        time.sleep(0.05)
    return found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, with a run under way, in a session of its own."""
    (tmp_path / "command.py").write_text(COMMAND, encoding="utf-8")
    command = [sys.executable, "command.py", "--out", ".", "--jobs", "1"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    await_files(tmp_path, "begun-*", 1)
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()


def alive(pid: int) -> bool:
    """Whether there is a process that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", [pytest.param("terminal", marks=pytest.mark.slow), "SIGTERM"])
def test_an_interrupted_command_saves_ends_and_says_how_to_resume(
    running: subprocess.Popen[str], tmp_path: Path, how: str
) -> None:
    """Whether Ctrl-C reaches all of a terminal, or a signal the command alone; no waiting run begins."""
    pids = [int(path.read_text()) for path in sorted(tmp_path.glob("begun-*"))]
    if how == "terminal":
        os.killpg(running.pid, signal.SIGINT)
    else:
        running.send_signal(getattr(signal, how))
    _, told = running.communicate(timeout=300)
    assert running.returncode == 130 and "Traceback" not in told
    lines = [line for line in told.splitlines() if line]
    assert lines == [
        "Interrupted: what runs is saved first. Once more ends at once.",
        "Interrupted. What is done is kept; the same command goes on in .",
    ]
    begun = [path.name for path in tmp_path.glob("begun-*")]
    assert begun == ["begun-0"]
    assert {path.name for path in tmp_path.glob("saved-*")} == {"saved-0"}
    assert not any(map(alive, pids))


@pytest.mark.slow
def test_a_second_interruption_ends_at_once(running: subprocess.Popen[str], tmp_path: Path) -> None:
    """Also where a run does not come to save."""
    pids = [int(path.read_text()) for path in sorted(tmp_path.glob("begun-*"))]
    os.kill(pids[0], signal.SIGSTOP)
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None and running.stderr.readline() == "\n"
    assert running.stderr.readline().startswith("Interrupted: what runs is saved first.")
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=300)
    assert running.returncode == 130 and not any(map(alive, pids))
