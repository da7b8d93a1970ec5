"""An evaluation behind two live servers, processes of their own, of which one or both die."""

from __future__ import annotations

import functools
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_chat import TASKS
from stubs import Stub
from test_evaluate_resume import report, stored

from agents import evaluate
from agents.engines.vllm_http import HTTPEngine
from agents.vlm import policy

TEST = f"{TASKS}&split=test"
COUNT = 5


@pytest.fixture
def serve(checkpoints: dict[str, Path], tmp_path: Path) -> Iterator[Callable[..., Stub]]:
    """Starts stubs, and ends them after the test."""
    started: list[Stub] = []

    def start(name: str, *more: str) -> Stub:
        started.append(Stub(tmp_path / name, checkpoints["qwen2_5_vl"], *more))
        return started[-1]

    yield start
    for stub in started:
        stub.process.kill()
        stub.process.wait()


@pytest.fixture
def command(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The command, with little patience for servers."""
    monkeypatch.setattr(policy, "HTTPEngine", functools.partial(HTTPEngine, deadline_s=3.0))

    def call(out: Path, *servers: Stub) -> None:
        checkpoint, urls = str(checkpoints["qwen2_5_vl"]), ",".join(stub.url for stub in servers)
        places = ("--checkpoint", checkpoint, "--out", str(out), "--server", urls)
        usual = ("--recipe", "LONGVT_TINY", "--tasks", TEST, "--episodes", str(COUNT))
        few = ("--max-new-tokens", "64", "--max-concurrent-rollouts", "1")
        monkeypatch.setattr("sys.argv", ["agents.evaluate", *places, *usual, *few])
        evaluate.main()

    return call


def test_what_a_server_that_dies_was_asked_the_other_answers(
    serve: Callable[..., Stub],
    command: Callable[..., None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is killed while it answers; the report is that of one server, nothing is asked twice."""
    alone, dying, other = serve("alone"), serve("dying", "--dies-after", "0"), serve("other")
    alone.go()
    command(tmp_path / "one", alone)
    assert alone.answered == COUNT

    def let_go() -> None:
        dying.process.wait()
        other.go()

    threading.Thread(target=let_go, daemon=True).start()
    with caplog.at_level(logging.WARNING, "agents.evaluate"):
        command(tmp_path / "two", dying, other)
    assert dying.process.wait() == -signal.SIGKILL
    assert (dying.answered, other.answered) == (0, COUNT)
    (told,) = [one.getMessage() for one in caplog.records if "a server is left out" in one.getMessage()]
    assert dying.url in told
    assert report(tmp_path / "two") == report(tmp_path / "one")


def test_when_both_die_the_same_command_goes_on_with_new_ones(
    serve: Callable[..., Stub], command: Callable[..., None], tmp_path: Path
) -> None:
    """It ends with one line and not with 0; what was answered is kept, and asked of nobody again."""
    alone, third = serve("alone"), serve("third")
    both = serve("first", "--dies-after", "2"), serve("second", "--dies-after", "1")
    for stub in (alone, third, *both):
        stub.go()
    command(tmp_path / "one", alone)
    out = tmp_path / "two"
    with pytest.raises(SystemExit) as ended:
        command(out, *both)
    first, second = str(ended.value.code).splitlines()
    assert first.startswith("POST http://127.0.0.1:") and "is `vllm serve` running there" in first
    assert second == f"The same command resumes the evaluation in {out}"
    assert len(stored(out)) == len(set(stored(out))) == 3 == sum(stub.answered for stub in both)
    assert not (out / "metrics.json").exists()
    command(out, third)
    assert third.answered == COUNT - 3
    assert report(out) == report(tmp_path / "one")
