"""Two ranks that train behind servers, killed at chosen moments and started again by the same command.

`test_shared_servers` tries three moments, ``tests/benchmarks/prove_servers.py`` many. The servers are
stand-ins that wait where they are told to, so that a moment is met and not hoped for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file
from small_chat import ANSWER, TASKS
from stubs import Stub

from agents import train_grpo_mllm
from agents.collectors.local import open_episodes
from agents.models.checkpoints import full_weights
from agents.training.archive import load_archive, read_metadata
from agents.vlm.policy import make_model
from agents.vlm.records import read_records
from agents.vlm.rollouts import make_chat_env
from videogym import FrameStore

RANKS, GROUPS, SIZE = 2, 2, 4
TEXTS = (ANSWER, ANSWER.replace(">B<", ">A<"), "nothing of use")  # turns of which are paid differently
ANSWER_S = 0.1  # that a server takes for an answer, one after the other
OPTIONS = {
    "tasks": TASKS,
    "eval-tasks": f"{TASKS}&split=val",
    "groups": GROUPS,
    "group-size": SIZE,
    "mini-batch-groups": 1,
    "checkpoint-every": 1,
    "keep-checkpoints": 100,
    "eval-every": 100,
    "eval-episodes": 2,
    "max-new-tokens": 64,
    "max-context": 4096,
    "learning-rate": 1e-3,
    "kl-coef": 0.0,
}
LATER_S = 60.0  # by which all have ended after a death, on a busy machine too


class Run:
    """A command that torchrun starts as two ranks."""

    def __init__(self, log: Path, module: str, *options: str) -> None:
        launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(RANKS), "--standalone"]
        path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path)}
        self.log, self.started = log, time.time()
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, *launch, "-m", module, *options],
                stdout=file,
                stderr=file,
                env=environment,
            )

    def wait_for(self, sign: Callable[[], bool]) -> None:
        """Wait for a sign of the run.

        Raises:
            AssertionError: it has ended without.
        """
        while not sign():
            assert self.process.poll() is None, self.said()
            time.sleep(0.01)

    def made(self, path: Path) -> bool:
        """Whether this run has made a file."""
        return path.exists() and path.stat().st_mtime >= self.started

    def ranks(self) -> dict[int, psutil.Process]:
        """Its ranks that live."""
        found = {}
        for one in psutil.Process(self.process.pid).children():
            if number := one.environ().get("RANK"):
                found[int(number)] = one
        return found

    def end(self, limit_s: float = 600.0) -> int:
        """Its status, when it has ended by itself."""
        return self.process.wait(limit_s)

    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text()


@dataclass(frozen=True)
class Moment:
    """Who is killed, and when."""

    victim: str  # "server", "rank 0" or "rank 1"
    when: str  # see `Scene.await_moment`


class Scene:
    """A run in a folder behind two stand-ins, and what it must have come to.

    Args:
        folder: of the run and of what the servers were given.
        checkpoint: that all start from.
        iterations: of the run.
    """

    def __init__(self, folder: Path, checkpoint: Path, iterations: int) -> None:
        self.folder, self.checkpoint, self.iterations = folder, checkpoint, iterations
        self.out, self.servers, self.stubs = folder / "run", list[Stub](), list[Stub]()
        self.servers = [self.serve(), self.serve()]

    def serve(self) -> Stub:
        """One server more, which answers."""
        more = ("--log-prob", "-6.5", "--seconds", str(ANSWER_S))  # a tiny model's with random weights
        stub = Stub(self.folder / f"server-{len(self.stubs)}", self.checkpoint, *more, texts=TEXTS)
        stub.go()
        self.stubs.append(stub)
        return stub

    def close(self) -> None:
        """End all servers."""
        for stub in self.stubs:
            stub.process.kill()
            stub.process.wait()

    def done(self) -> int:
        """Iterations whose work is saved."""
        path = self.out / "checkpoint"
        return int(read_metadata(path)["iteration"]) if path.exists() else 0

    def start(self, name: str) -> Run:
        """Begin the run, or resume it."""
        given = OPTIONS | {
            "checkpoint": self.checkpoint,
            "out": self.out,
            "iterations": self.iterations,
            "server": ",".join(stub.url for stub in self.servers),
        }
        words = (text for name, value in given.items() for text in (f"--{name}", str(value)))
        return Run(self.folder / f"{name}.log", "agents.train_grpo_mllm", *words)

    def await_moment(self, run: Run, when: str) -> None:
        """Wait until a run has got where it shall be.

        Args:
            run: that goes on.
            when: ``pushes``: a server has read the first weights, which nobody has heard of yet. Behind an
                iteration that is saved, ``asks``: both servers were asked and answer nothing; ``plays``:
                some of an iteration's outputs are there; ``learns``: its records are written; ``saves``:
                its weights are.
        """
        if when == "pushes":
            self.servers[1].hold_reading()
            run.wait_for(lambda: run.made(self.servers[1].folder / "read"))
            return
        saved = self.done() + 1
        run.wait_for((self.out / "checkpoints" / f"{saved:06d}").exists)
        before = sum(stub.answered for stub in self.servers)
        if when == "asks":
            for stub in self.servers:
                stub.hold()
        signs: dict[str, Callable[[], bool]] = {
            "asks": lambda: all(stub.waiting for stub in self.servers),
            "plays": lambda: sum(stub.answered for stub in self.servers) >= before + 3,
            "learns": lambda: run.made(self.out / "records" / f"{saved:06d}.jsonl"),
            "saves": lambda: run.made(self.out / "checkpoints" / f"{saved + 1:06d}"),
        }
        run.wait_for(signs[when])

    def killed(self, name: str, moment: Moment) -> str:
        """Let the run come to a moment, kill, and see that all ends soon and nothing half done is left.

        Returns:
            What the run said.

        Raises:
            AssertionError: it did not.
        """
        run = self.start(name)
        try:
            self.await_moment(run, moment.when)
            ranks = run.ranks()
            assert len(ranks) == RANKS, run.said()
            if moment.victim == "server":
                self.servers[1].process.kill()
            else:
                ranks[int(moment.victim.split()[1])].kill()
            assert run.end(LATER_S) != 0
            assert not any(one.is_running() for one in ranks.values())
        finally:
            run.process.terminate()  # by which torchrun ends its own
        for stub in self.servers:
            stub.go()
            stub.go_on_reading()
        if moment.victim == "server":
            self.servers[1] = self.serve()
        self.require_whole(self.done())
        return run.said()

    def finish(self) -> None:
        """Let the run come to its end."""
        run = self.start("last")
        assert run.end() == 0, run.said()[-3000:]
        assert self.done() == self.iterations

    def require_whole(self, iterations: int) -> None:
        """See that every record of so many iterations is there, once, from the weights of its iteration.

        Raises:
            AssertionError: one is not.
        """
        model = make_model(self.config, FrameStore())
        env = make_chat_env(self.config, model, self.config.tasks, groups=GROUPS, group_size=SIZE)
        for iteration in range(iterations):
            expected = [one.record for one in open_episodes(self.config, env, iteration)]
            records = list(read_records(self.out / "records" / f"{iteration:06d}.jsonl"))
            names = [(one.group, one.sample_index, one.task_id) for one in records]
            assert names == [(one.group, one.sample_index, one.task_id) for one in expected]
            assert names[0][0] == f"{iteration}.0.0" and len(set(names)) == GROUPS * SIZE
            versions = {v for one in records for turn in one.turns for v in turn.versions}
            assert versions == {iteration + 1}

    @property
    def config(self) -> train_grpo_mllm.Config:
        """Of the run, as far as its tasks and its model go."""
        return train_grpo_mllm.Config.of(checkpoint=str(self.checkpoint), tasks=TASKS, max_context=4096)

    def weights_after(self, iterations: int) -> dict[str, torch.Tensor]:
        """The run's weights after so many iterations, under the names of a checkpoint."""
        model = make_model(self.config, FrameStore())
        if iterations:
            load_archive(self.out / "checkpoints" / f"{iterations:06d}", {"policy": model})
        return full_weights(model.model)

    def pushed(self) -> list[set[int]]:
        """The versions that each server was given, which are the ranks' own, to the bit.

        Raises:
            AssertionError: a server has had other weights, or none have moved.
        """
        every = [self.weights_after(number) for number in range(self.iterations + 1)]
        for then, now in pairwise(every):
            assert max(float((now[name] - then[name]).abs().max()) for name in now) > 1e-4
        found = []
        for stub in self.stubs:
            files = sorted(stub.folder.glob("*-*.safetensors"), key=lambda file: file.stat().st_mtime)
            # What was done again was pushed again: the last of a version is that of the run.
            last = {int(file.stem.split("-")[1]): file for file in files}
            for version, file in last.items():
                given, expected = load_file(file), every[version - 1]
                assert given.keys() == expected.keys()
                assert all(torch.equal(given[name], expected[name]) for name in given), file
            found.append(set(last))
        return found


@contextmanager
def scene(folder: Path, checkpoint: Path, iterations: int) -> Iterator[Scene]:
    """A `Scene` whose servers end with the block."""
    made = Scene(folder, checkpoint, iterations)
    try:
        yield made
    finally:
        made.close()


def require_line(said: str, moment: Moment, url: str) -> None:
    """See that one line names who died, and one how to go on.

    Args:
        said: by all ranks.
        moment: of the death.
        url: of the server that may have died.

    Raises:
        AssertionError: it is not so.
    """
    assert "Interrupted" not in said, said
    assert said.count("Traceback") <= 1, said  # that of torchrun itself
    goes_on = ("the same command resumes the run in", "the same command begins anew")
    assert sum(said.count(one) for one in goes_on) == 1, said
    told = f"{moment.victim} has died\n" if moment.victim != "server" else f"POST {url}/"
    assert said.count(told) == 1, said
