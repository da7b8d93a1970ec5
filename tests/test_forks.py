"""A forked child that hangs fails its test, and is gone."""

# ruff: noqa: D103

import os
import time

import pytest
from forks import fork, status


def test_a_child_that_does_not_end_is_killed_and_fails_the_test():
    pid = fork(lambda: time.sleep(600))
    with pytest.raises(pytest.fail.Exception, match=r"did not end within 0\.5 s"):
        status(pid, within_s=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_ends_as_its_work_does():
    def raises():
        raise SystemExit(7)

    assert [status(fork(work)) for work in (lambda: True, lambda: False)] == [0, 1]
    assert status(fork(raises)) == 1
