"""Several servers as one engine, and ranks of torchrun that share them: equal weights, and sudden ends."""

# ruff: noqa: D103

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from small_chat import ANSWER, TASKS
from test_evaluate_servers import Stub
from test_vllm_http import LAYOUT, SAMPLING, TEXT, Answer, Frames, Handler, Served

from agents import train_grpo_mllm
from agents.engines.base import Context, EngineError
from agents.engines.shared_servers import SharedServers
from agents.models.checkpoints import full_weights
from agents.training.archive import load_archive
from agents.vlm import command
from agents.vlm.policy import make_model
from agents.vlm.records import read_records
from videogym import FrameStore

ITERATIONS, GROUPS, SIZE = 4, 2, 4
TEXTS = (ANSWER, ANSWER.replace(">B<", ">A<"), "nothing of use")  # turns of which are paid differently
OPTIONS = {
    "tasks": TASKS,
    "eval-tasks": f"{TASKS}&split=val",
    "iterations": ITERATIONS,
    "groups": GROUPS,
    "group-size": SIZE,
    "mini-batch-groups": 1,
    "checkpoint-every": 1,
    "keep-checkpoints": ITERATIONS,
    "eval-every": ITERATIONS,
    "eval-episodes": 2,
    "max-new-tokens": 64,
    "max-context": 4096,
    "learning-rate": 1e-3,
    "kl-coef": 0.0,
}
AGAIN = "The same command resumes the run in"


# --- in one process ----------------------------------------------------------------------------


class Told:
    """A server that answers every context by its own first id, or not at all."""

    def __init__(self, start: Callable[[Handler], Served], root: str = "one") -> None:
        self.root, self.version, self.keys = root, "default", list[int]()
        self.hangs, self.reached = threading.Event(), threading.Event()
        self.hangs.set()  # not
        self.served = start(self)
        self.served.http.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = self.served.url

    def __call__(self, method: str, path: str, body: Any) -> Answer:
        """What vLLM would say."""
        if path == "/v1/models":
            return 200, {"data": [{"root": self.root}]}
        if path == "/finish_weight_update":
            self.version = body["weight_version"]
        if path != "/inference/v1/generate":
            return 200, {"version": "0.32.0", "is_paused": False}
        asked = body["token_ids"]
        if len(asked) > 1:
            self.reached.set()
            self.hangs.wait()
            self.keys.append(asked[0])
        content = [{"token_id": token, "logprob": 0.0} for token in (asked[0], SAMPLING.end_id)]
        ids = [SAMPLING.end_id] if len(asked) == 1 else [asked[0], SAMPLING.end_id]
        choice = {
            "token_ids": ids,
            "logprobs": {"content": content[-len(ids) :]},
            "weight_versions": [{"version": self.version, "start": 0, "end": len(ids)}],
        }
        return 200, {
            "prompt_token_ids": asked,
            "mm_placeholders": {"image": []},
            "choices": [{**choice, "finish_reason": "stop"}],
        }


@pytest.fixture
def start() -> Iterator[Callable[[Handler], Served]]:
    started: list[Served] = []

    def _start(answer: Handler) -> Served:
        started.append(Served(answer))
        return started[-1]

    yield _start
    for served in started:
        served.close()


def engine_of(servers: Sequence[Told]) -> SharedServers:
    return SharedServers([one.url for one in servers], Frames(), LAYOUT, deadline_s=600.0)


def contexts(*first: int) -> list[Context]:
    return [Context(f"group/{one}", (one, *TEXT.ids), ()) for one in first]


def test_outputs_are_in_order_and_conversations_stay(start: Callable[[Handler], Served]) -> None:
    """Five are divided into three and two, neighbours together; later turns go where the first went."""
    servers = [Told(start), Told(start)]
    engine = engine_of(servers)
    said = engine.generate(contexts(1, 2, 3, 4, 5), SAMPLING)
    assert [one.ids for one in said] == [(number, SAMPLING.end_id) for number in (1, 2, 3, 4, 5)]
    assert [sorted(one.keys) for one in servers] == [[1, 2, 3], [4, 5]]
    engine.generate(contexts(5, 1), SAMPLING)
    assert [one.keys[-1] for one in servers] == [1, 5]
    engine.reset_cache()
    engine.generate(contexts(5, 1), SAMPLING)
    assert [one.keys[-1] for one in servers] == [5, 1]
    engine.close()


def test_conversations_that_come_one_by_one_are_divided(start: Callable[[Handler], Served]) -> None:
    """As a collector asks that begins an episode where another has ended."""
    servers = [Told(start), Told(start)]
    engine = engine_of(servers)
    for number in range(6):
        engine.generate(contexts(number), SAMPLING)
    assert [one.keys for one in servers] == [[0, 2, 4], [1, 3, 5]]
    engine.close()


def test_all_servers_get_one_version(start: Callable[[Handler], Served], tmp_path: Path) -> None:
    """Under one name; outputs of both are stamped with it, and the file is gone afterwards."""
    servers = [Told(start), Told(start)]
    urls = [one.url for one in servers]
    engine = SharedServers(urls, Frames(), LAYOUT, transfer_folder=tmp_path)
    engine.update_weights(torch.nn.Linear(2, 1), 7)
    assert servers[0].version == servers[1].version and servers[0].version.endswith("-7")
    assert {one.versions for one in engine.generate(contexts(1, 2), SAMPLING)} == {(7, 7)}
    assert list(tmp_path.iterdir()) == []
    servers[1].version = "default"  # it was started again
    with pytest.raises(EngineError, match="restarted"):
        engine.generate(contexts(1, 2), SAMPLING)
    engine.close()


def test_the_death_of_one_ends_what_the_other_is_asked(start: Callable[[Handler], Served]) -> None:
    """Though the other keeps its answer, and a server may be silent for ten minutes."""
    servers = [Told(start), Told(start)]
    engine = engine_of(servers)
    engine.generate(contexts(1, 2), SAMPLING)
    servers[0].hangs.clear()
    servers[0].reached.clear()
    servers[1].served.close()
    with pytest.raises(EngineError, match=f"POST {servers[1].url}.*failed for"):
        engine.generate(contexts(1, 2), SAMPLING)
    assert servers[0].reached.is_set()
    servers[0].hangs.set()
    engine.close()


def test_servers_of_different_checkpoints_are_refused(start: Callable[[Handler], Served]) -> None:
    servers = [Told(start, "runs/sft/model"), Told(start, "Qwen/Qwen3-VL-8B-Instruct")]
    with pytest.raises(EngineError) as refused:
        engine_of(servers)
    told = f"{servers[0].url} has runs/sft/model, {servers[1].url} has Qwen/Qwen3-VL-8B-Instruct"
    assert told in str(refused.value)
    with pytest.raises(ValueError, match="a server is there twice"):
        engine_of([servers[0], servers[0]])


@pytest.mark.parametrize("what", ["learning_rate", "server", "weights"])
def test_ranks_that_disagree_are_refused(
    what: str, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the rank, the option and both values."""
    config = train_grpo_mllm.Config.of(checkpoint=str(checkpoints["qwen2_5_vl"]))
    model = make_model(config, FrameStore())
    command.require_alike(config, "", model)
    monkeypatch.setattr(command, "all_gather_object", lambda mine: [mine, mine, {**mine, what: "other"}])
    with pytest.raises(ValueError, match=f"ranks disagree about {what}: rank 0 has .*, rank 2 other"):
        command.require_alike(config, "", model)


# --- ranks of torchrun -------------------------------------------------------------------------


class Run:
    """A training command that torchrun starts as two ranks."""

    def __init__(self, out: Path, checkpoint: Path, servers: Sequence[Stub], log: Path) -> None:
        given = [text for name, value in OPTIONS.items() for text in (f"--{name}", str(value))]
        launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
        what = ["-m", "agents.train_grpo_mllm", "--checkpoint", str(checkpoint), "--out", str(out)]
        urls = ["--server", ",".join(stub.url for stub in servers)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, *launch, *what, *urls, *given], stdout=file, stderr=file, env=environment
            )

    def wait_for(self, sign: Callable[[], bool]) -> None:
        """Wait for a sign of the run."""
        while not sign():
            assert self.process.poll() is None, self.said()
            time.sleep(0.02)

    def rank(self, number: int) -> psutil.Process:
        """One of its ranks."""
        children = psutil.Process(self.process.pid).children()
        return next(one for one in children if one.environ().get("RANK") == str(number))

    def end(self, limit_s: float = 300.0) -> int:
        """Its status, when it has ended by itself."""
        return self.process.wait(limit_s)

    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text()


@pytest.fixture
def serve(checkpoints: dict[str, Path], tmp_path: Path) -> Iterator[Callable[[str], Stub]]:
    """Starts stubs that answer at once, and ends them after the test."""
    started: list[Stub] = []

    def _serve(name: str) -> Stub:
        more = ("--log-prob", "-6.5")  # as a tiny model with random weights has
        started.append(Stub(tmp_path / name, checkpoints["qwen2_5_vl"], *more, texts=TEXTS))
        started[-1].go()
        return started[-1]

    yield _serve
    for stub in started:
        stub.process.kill()
        stub.process.wait()


def weights_after(iterations: int, out: Path, checkpoint: Path) -> dict[str, torch.Tensor]:
    """A run's weights after so many iterations, under the names of a checkpoint."""
    config = train_grpo_mllm.Config.of(checkpoint=str(checkpoint))
    model = make_model(config, FrameStore())
    if iterations:
        load_archive(out / "checkpoints" / f"{iterations:06d}", {"policy": model})
    return full_weights(model.model)


@pytest.mark.slow
def test_a_run_outlives_its_servers_and_its_ranks(
    serve: Callable[[str], Stub], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """A server, a rank and the first rank are killed while all wait for answers; it goes on."""
    checkpoint, out = checkpoints["qwen2_5_vl"], tmp_path / "run"
    servers = [serve("a"), serve("b")]

    def interrupted(iteration: int, kill: Callable[[Run], None]) -> str:
        run = Run(out, checkpoint, servers, tmp_path / f"{iteration}.log")
        try:
            run.wait_for((out / "records" / f"{iteration - 1:06d}.jsonl").exists)
            for stub in servers:
                stub.hold()
            run.wait_for(lambda: all(stub.waiting for stub in servers))
            ranks = [run.rank(number) for number in range(2)]
            kill(run)
            assert run.end() != 0
            assert not any(one.is_running() for one in ranks)
        finally:
            run.process.terminate()  # by which torchrun ends its own
        for stub in servers:
            stub.go()
        assert not (out / "records" / f"{iteration:06d}.jsonl").exists()
        return run.said()

    said = interrupted(1, lambda run: servers[1].process.kill())
    assert said.count(f"{AGAIN} {out}") == 1 and said.count("Traceback") <= 1  # that of torchrun itself
    assert re.search(rf"POST {servers[1].url}/\S+ failed for \d+ s", said)
    servers[1] = serve("c")
    for number in (1, 0):
        said = interrupted(3 - number, lambda run, number=number: run.rank(number).kill())
        assert f"rank {number} has died\n{AGAIN} {out}" in said
    run = Run(out, checkpoint, servers, tmp_path / "last.log")
    assert run.end() == 0, run.said()[-3000:]

    files = sorted((out / "records").iterdir())
    assert [file.name for file in files] == [f"{number:06d}.jsonl" for number in range(ITERATIONS)]
    for iteration, file in enumerate(files):
        records = list(read_records(file))
        names = [(record.group, record.sample_index) for record in records]
        assert names == [(f"{iteration}.0.{group}", n) for group in range(GROUPS) for n in range(SIZE)]
        assert {v for one in records for turn in one.turns for v in turn.versions} == {iteration + 1}
    # Of every version all servers that were there have had the weights of the ranks.
    every = [weights_after(number, out, checkpoint) for number in range(ITERATIONS + 1)]
    moved = [
        max(float((now[name] - then[name]).abs().max()) for name in now) for then, now in pairwise(every)
    ]
    assert all(one > 1e-4 for one in moved)
    pushed: dict[str, set[int]] = {"a": set(), "b": set(), "c": set()}
    for name, versions in pushed.items():
        for file in (tmp_path / name).glob("*.safetensors"):
            version, found = int(file.stem.split("-")[1]), load_file(file)
            expected = every[version - 1]
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[key], expected[key]) for key in found)
            versions.add(version)
    everything = set(range(1, ITERATIONS + 2))
    assert pushed == {"a": everything, "b": {1, 2}, "c": everything - {1}}
