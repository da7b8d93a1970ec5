"""Work in forked children, as vector environments and data loaders start them.

A child has loaded what its parent has: one that is killed or given limits costs no second start of torch.
"""

import os
import traceback
import warnings
from collections.abc import Callable


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


def status(pid: int) -> int:
    """Wait for a child; 0 when it went well, and the number of a signal with a minus."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_fork(check: Callable[[], object]) -> bool:
    """Whether a check holds in a child."""
    return status(fork(check)) == 0
