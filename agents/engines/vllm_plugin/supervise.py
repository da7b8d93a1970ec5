"""Runs a command in a process group of its own, and ends all of the group with the command or its starter.

Called as ``python supervise.py STARTER_PID COMMAND...`` by `agents.engines.vllm_server`, in a new
session. A server that outlives a killed trainer would keep its GPU, and no handler inside the trainer
can prevent that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

POLL_S = 0.25
GRACE_S = 10.0  # between asking the group to end and ending it


def main(starter: int, command: list[str]) -> None:
    """Supervise until the command ends, the starter is gone or SIGTERM comes; then SIGKILL the group."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    child = subprocess.Popen(command)
    while child.poll() is None and os.getppid() == starter and not asked:
        time.sleep(POLL_S)
    child.terminate()
    end = time.monotonic() + GRACE_S
    while child.poll() is None and time.monotonic() < end:
        time.sleep(POLL_S)
    # Its workers may outlive it; this signal ends the supervisor too.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
