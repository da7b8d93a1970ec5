"""Work in forked children, as vector environments and data loaders start them.

A child has loaded what its parent has: one that is killed or given limits costs no second start of torch.
"""

import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable

import pytest

DEADLINE_S = 120.0  # of a child: a lock that another thread held at the fork is never released in it


def fork(work: Callable[[], object]) -> int:
    """Start a child; its exit status is 0 when the work raises nothing and is not False."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
        pid = os.fork()
    if pid == 0:
        try:
            failed = work() is False
        except BaseException:
            traceback.print_exc()
            failed = True
        os._exit(failed)
    return pid


def status(pid: int, within_s: float = DEADLINE_S) -> int:
    """Wait for a child; 0 when it went well, and the number of a signal with a minus.

    One that does not end is killed, and the test fails.
    """
    end = time.monotonic() + within_s
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail(f"a forked child did not end within {within_s:g} s")
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])


def in_fork(check: Callable[[], object]) -> bool:
    """Whether a check holds in a child."""
    return status(fork(check)) == 0
