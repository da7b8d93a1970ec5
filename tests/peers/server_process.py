"""A server in a process of its own, for tests."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Server:
    """Where it listens, and its process."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """For clients."""
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(*command: str, path: str = "/health") -> Iterator[Server]:
    """Run a module or script that answers at a path; told to end it does so, without a traceback."""
    port = free_port()
    with tempfile.TemporaryFile("w+") as told:  # a pipe that nobody reads would stop a server that logs
        process = subprocess.Popen(
            [sys.executable, *command, "--port", str(port)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=told,
        )
        try:
            _await_answer(f"http://127.0.0.1:{port}{path}", process)
            yield Server(port, process)
            process.terminate()
            process.wait(60)
        finally:
            process.kill()
            process.wait()
            told.seek(0)
            log = told.read()
        assert "Traceback" not in log, log[-5000:]


def _await_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert process.poll() is None, f"the server ended with status {process.returncode}"
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return  # somebody is there and wants something else
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"{url} did not answer")
