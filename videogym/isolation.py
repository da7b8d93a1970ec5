"""Calls in child processes, for native code that may hang, crash, be killed or take all memory.

A call that shows no sign of life within its deadline is ended with its process, one whose process dies is
made once more in a fresh one, an error that a call raises is told with its place; none of these harms
another call. What the calls do is not known here.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Literal

# A module-level function: (request, sign of life) -> answer, which is not None. Both are pickled.
Work = Callable[[Any, Callable[[], None]], Any]

_START_S = 120.0  # a busy machine may need long to start a process
_MOST_FAILED_STARTS = 5  # in a row
_LONGEST_S = 86_400.0
_MOST_BYTES = 8 << 30  # of a child's address space: a file can ask for any amount, a decoder needs a tenth
_GRACE_S = 5.0  # a child without a parent ends itself so long after the deadline


@dataclass(frozen=True, slots=True)
class Lost:
    """A call that brought no answer."""

    cause: Literal["hang", "crash", "fault"]  # "fault": the work raised
    message: str


def run_isolated(
    work: Work, requests: Iterable[Any], *, children: int = 1, deadline_s: float = 60.0
) -> Iterator[tuple[int, Any]]:
    """Answer requests in child processes.

    Args:
        work: a module-level function, called as ``work(request, alive)`` in a child; it calls ``alive()``
            from time to time.
        requests: what it is called with, one by one.
        children: how many processes work at once, at least 1.
        deadline_s: seconds without a sign of life after which a call is given up.

    Yields:
        The place of a request and its answer, or `Lost`, in the order in which they come.

    Raises:
        ValueError: ``children`` or ``deadline_s`` is out of range.
        ChildProcessError: no child process can be started.
    """
    if children < 1 or not 0 < deadline_s <= _LONGEST_S:
        raise ValueError(
            f"it takes a child and a deadline of up to {_LONGEST_S:g} s, got {children} and {deadline_s} s"
        )
    waiting = deque(enumerate(requests))
    idle: list[_Child] = []
    busy: list[_Child] = []
    again: set[int] = set()  # places of requests whose process died once
    failed_starts = 0
    try:
        while waiting or busy:
            while waiting and len(busy) < children:
                child = idle.pop() if idle else _Child(work, deadline_s)
                child.ask(*waiting.popleft())
                busy.append(child)
            for child in _ready(busy):
                outcome = child.outcome()
                if outcome is None:
                    continue
                busy.remove(child)
                if not isinstance(outcome, Lost):
                    idle.append(child)
                    failed_starts = 0
                    yield child.place, outcome
                    continue
                child.end()
                failed_starts = 0 if child.started else failed_starts + 1
                if failed_starts > _MOST_FAILED_STARTS:
                    raise ChildProcessError(f"no process can be started to work in: {outcome.message}")
                if child.started and (outcome.cause != "crash" or child.place in again):
                    yield child.place, outcome
                    continue
                if child.started:
                    again.add(child.place)
                waiting.appendleft((child.place, child.request))
    finally:
        for child in itertools.chain(idle, busy):
            child.end()


class _Child:
    """A process, and the line to it."""

    def __init__(self, work: Work, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self.connection, theirs = Pipe()
        # By its path, which imports no more than the work needs. -P: what lies in this file's folder, or in
        # the current one, must not hide modules.
        command = [sys.executable, "-P", __file__, str(theirs.fileno()), str(deadline_s)]
        with theirs:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self.started = False
        self.due = time.monotonic() + max(_START_S, deadline_s)
        self.place, self.request = -1, None
        self._send(work)

    def ask(self, place: int, request: Any) -> None:
        """Hand over a request; it has answered the last one."""
        self.place, self.request = place, request
        if self.started:
            self.due = time.monotonic() + self._deadline_s
        self._send(request)

    def outcome(self) -> Any:
        """The answer, or `Lost`; None as long as there is neither."""
        if not self.connection.poll():
            if time.monotonic() < self.due:
                return None
            self._process.kill()
            return Lost("hang", f"no sign of life for {self._deadline_s:g} s")
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):  # dead, perhaps in the middle of a word
            return Lost("crash", _death(self._process.wait()))
        self.started = True
        self.due = time.monotonic() + self._deadline_s
        if kind in ("crash", "fault"):
            return Lost(kind, value)
        return value if kind == "answer" else None

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self.connection.close()

    def _send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError:
            pass  # it is gone; the missing answer says so


def _ready(busy: list[_Child]) -> list[_Child]:
    """Children that have said something, or should have."""
    now = time.monotonic()
    timeout = max(0.0, min(child.due for child in busy) - now)
    spoken = wait([child.connection for child in busy], timeout)
    now = time.monotonic()
    return [child for child in busy if child.connection in spoken or child.due <= now]


def _death(code: int) -> str:
    if code >= 0:
        return f"the process ended with code {code}"
    try:
        return f"the process was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the process was ended by signal {-code}"


def _serve(line: Connection, deadline_s: float) -> None:
    """Work until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    with contextlib.suppress(OSError, ValueError):  # a lower limit is set, or the system has none
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))

    def watch() -> None:
        # A parent that is dead cannot end us; this works whatever native code holds the interpreter.
        faulthandler.dump_traceback_later(deadline_s + _GRACE_S, exit=True)

    def alive() -> None:
        watch()
        _tell(line, "alive", None)

    work = line.recv()
    _tell(line, "ready", None)
    while True:
        request = line.recv()
        watch()
        try:
            answer = work(request, alive)
        except MemoryError:
            _tell(line, "crash", "MemoryError")  # a process without a limit would have been killed
        except Exception as error:  # no other request may suffer from what is wrong with this one
            _tell(line, "fault", _told(error))
        else:
            _tell(line, "answer", answer)
        faulthandler.cancel_dump_traceback_later()


def _told(error: Exception) -> str:
    """An error, and where it was raised."""
    what = f"{type(error).__name__}: {error}".removesuffix(": ")
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{what} ({os.path.basename(last.filename)}, line {last.lineno})"


def _tell(line: Connection, kind: str, value: Any) -> None:
    try:
        line.send((kind, value))
    except OSError:
        os._exit(1)  # nobody listens


if __name__ == "__main__":
    try:
        _serve(Connection(int(sys.argv[1])), float(sys.argv[2]))
    except EOFError:
        pass  # the parent is done
