"""Calls in child processes: what hangs, dies or raises is told apart, and takes nothing with it."""

# ruff: noqa: D103

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from videogym.isolation import Lost, run_isolated

WORK = """
import ctypes, os, signal, sys, time
from pathlib import Path

def work(request, alive):
    what, value = request
    if what == "echo":
        return value, os.getpid()
    if what == "hang":
        ctypes.PyDLL(None).pause()  # with the interpreter's lock held
    if what == "segfault":
        ctypes.string_at(0)
    if what == "exit":
        os._exit(value)
    if what == "raise":
        raise OSError(f"no {value}")
    if what == "greed":
        return len(bytearray(value << 30))
    if what == "slow":  # longer than the deadline, but alive
        for _ in range(8):
            time.sleep(value / 8)
            alive()
        return "slow", os.getpid()
    if what == "once":  # dies the first time
        flag = Path(value)
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "second", os.getpid()
    if what == "noise":
        print("noise" * 1000)
        os.write(1, b"noise" * 1000)
        os.write(2, b"noise" * 1000)
        return "quiet", os.getpid()
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The function above, in a module that children find too."""
    (tmp_path / "isolated_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sys.modules.pop("isolated_work", None)
    import isolated_work

    return isolated_work.work


def children_now() -> set[psutil.Process]:
    """The processes that this one has."""
    return set(psutil.Process().children())


def test_each_fate_is_told_and_harms_no_other(work, tmp_path):
    requests = [
        ("echo", "first"),
        ("hang", 0),
        ("segfault", 0),
        ("echo", {"é": [1, None]}),
        ("exit", 3),
        ("raise", "way"),
        ("slow", 4.0),
        ("greed", 9),
        ("once", str(tmp_path / "flag")),
        ("echo", "last"),
    ]
    began, others = time.monotonic(), children_now()
    answers = dict(run_isolated(work, requests, children=2, deadline_s=2.0))
    assert time.monotonic() - began < 60
    assert sorted(answers) == list(range(len(requests)))
    assert answers[0][0] == "first" and answers[3][0] == {"é": [1, None]} and answers[9][0] == "last"
    assert answers[1] == Lost("hang", "no sign of life for 2 s")
    assert answers[2] == Lost("crash", "the process was ended by SIGSEGV")
    assert answers[4] == Lost("crash", "the process ended with code 3")
    raising = WORK.splitlines().index('        raise OSError(f"no {value}")') + 1
    assert answers[5] == Lost("fault", f"OSError: no way (isolated_work.py, line {raising})")
    assert answers[6][0] == "slow", "signs of life keep a call going beyond the deadline"
    assert answers[7] == Lost("crash", "MemoryError"), "a child may take all memory"
    assert answers[8][0] == "second", "a call whose process is killed once is made again"
    assert not children_now() - others, "a process was left behind"


def test_a_process_answers_many_calls_and_what_it_prints_stays_inside(work, capfd):
    answers = [answer for _, answer in run_isolated(work, [("noise", 0)] * 3)]
    assert len({pid for _, pid in answers}) == 1
    assert capfd.readouterr() == ("", "")


def test_leaving_early_ends_the_processes(work):
    others = children_now()  # of other tests in this process
    answers = run_isolated(work, [("echo", i) for i in range(9)], children=3)
    next(answers)
    assert children_now() - others
    answers.close()
    assert not children_now() - others


def test_processes_end_with_a_parent_that_is_killed_even_when_they_hang(work, tmp_path):
    program = (
        "from isolated_work import work; from videogym.isolation import run_isolated\n"
        "list(run_isolated(work, [('hang', 0)], deadline_s=1.0))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], env=os.environ)
    try:
        own = psutil.Process(parent.pid)
        while not (children := own.children()):
            time.sleep(0.01)
        # The child is at its request as soon as it has started, which takes a second or so.
        while children[0].status() != psutil.STATUS_SLEEPING or children[0].num_threads() < 2:
            time.sleep(0.05)
        os.kill(parent.pid, signal.SIGKILL)
    finally:
        parent.wait()
    gone, stuck = psutil.wait_procs(children, timeout=30)
    assert gone and not stuck, "an orphan hangs for ever"


def test_nothing_to_do_starts_nothing(work):
    assert list(run_isolated(work, [])) == []


@pytest.mark.parametrize(
    ("children", "deadline_s"), [(0, 1.0), (1, 0.0), (1, float("nan")), (1, float("inf"))]
)
def test_a_wrong_setting_is_named(work, children, deadline_s):
    with pytest.raises(ValueError, match=f"{children} and {deadline_s}"):
        list(run_isolated(work, [1], children=children, deadline_s=deadline_s))


def test_processes_that_cannot_start_are_an_error_not_a_verdict(work, monkeypatch):
    monkeypatch.setattr("videogym.isolation.sys.executable", "/bin/false")
    with pytest.raises(ChildProcessError, match="ended with code"):
        list(run_isolated(work, [("echo", 1)]))
