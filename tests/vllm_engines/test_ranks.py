"""Two ranks of torchrun learn behind a real vLLM server, whoever is killed, and whenever."""

import contextlib
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from agents import train_grpo_mllm, train_sft
from agents.engines.vllm_server import Server, serve
from agents.training.archive import load_archive, read_metadata
from agents.vlm.policy import make_actor, make_model
from agents.vlm.records import Record, read_records
from agents.vlm.tiny import tiny_checkpoint
from videogym import FrameStore, get_recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "agents"))

from served_run import LATER_S, RANKS, Run

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
TASKS = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=1000&split={split}"
SHARED: dict[str, Any] = {
    "tasks": TASKS.format(split="train"),
    "eval_tasks": TASKS.format(split="val"),
    "eval_episodes": 2,
    "max_new_tokens": 48,
}
LONGVT = get_recipe("LONGVT_TINY")
FIRST_FRAMES = 16  # shorter prompts than the recipe's 64 make
ITERATIONS, GROUPS, SIZE = 30, 4, 8
VICTIMS = ("server", "rank 1", "rank 0")
DEATHS = 10
EVERY = 2  # iterations from one death to the next
ITERATION_S = 4.0  # about; a death falls anywhere in it


@contextlib.contextmanager
def served(checkpoint: Path, log: Path, port: int = 0) -> Iterator[Server]:
    """A real server."""
    with serve(
        checkpoint,
        max_model_len=4096,
        max_images=128,
        max_frame_pixels=56 * 56,
        log_path=log,
        port=port,
        device="cpu",
        dtype="float32",
        deadline_s=900.0,
    ) as server:
        yield server


def taught(folder: Path) -> Path:
    """A tiny model that speaks, and looks in the wrong places."""
    torch.manual_seed(0)
    rules = replace(LONGVT.rules, skim_frames=FIRST_FRAMES)
    lesson = train_sft.Config.of(
        **SHARED,
        recipe=replace(LONGVT, name=f"{LONGVT.name}-{FIRST_FRAMES}", rules=rules),
        iterations=60,
        demonstrated_tasks=64,
        groups=2,
        wrong_looks=0.3,
        learning_rate=1e-2,
    )
    lesson = lesson.with_options(checkpoint=str(tiny_checkpoint(folder / "tiny", lesson)))
    pupil = make_actor(lesson, make_model(lesson, FrameStore()))
    train_sft.train(lesson, pupil, folder / "sft")
    pupil.model.save(str(folder / "model"))
    return folder / "model"


def begun(log: Path, checkpoint: Path, out: Path, url: str) -> Run:
    """The command, which is the same at every start."""
    options = SHARED | {
        "recipe": LONGVT.name,
        "first-frames": FIRST_FRAMES,
        "max-context": 4096,
        "checkpoint": checkpoint,
        "out": out,
        "server": url,
        "iterations": ITERATIONS,
        "groups": GROUPS,
        "group-size": SIZE,
        "mini-batch-groups": 1,
        "learning-rate": 1e-3,
        "kl-coef": 0.0,
        "checkpoint-every": 1,
        "keep-checkpoints": ITERATIONS,
        "eval-every": 1000,
    }
    words = (
        text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))
    )
    return Run(log, "agents.train_grpo_mllm", *words)


def kill(victim: str, run: Run, server: Server) -> None:
    """By SIGKILL, as a machine does that is out of memory."""
    if victim == "server":
        children = psutil.Process(server.process.pid).children(recursive=True)
        next(one for one in children if "serve" in one.cmdline()).send_signal(signal.SIGKILL)
    else:
        run.ranks()[int(victim.split()[1])].kill()


def done(out: Path) -> int:
    """Iterations whose work is saved."""
    path = out / "checkpoint"
    return int(read_metadata(path)["iteration"]) if path.exists() else 0


def records_of(out: Path, iteration: int) -> list[Record]:
    """What was played, each record once, by the weights of its iteration."""
    records = list(read_records(out / "records" / f"{iteration:06d}.jsonl"))
    names = [(one.group, one.sample_index) for one in records]
    assert names == [
        (f"{iteration}.0.{group}", number) for group in range(GROUPS) for number in range(SIZE)
    ]
    assert {v for one in records for turn in one.turns for v in turn.versions} == {iteration + 1}
    return records


def require_parity(checkpoint: Path, out: Path, iteration: int) -> None:
    """What the server sampled is what the run's weights give: it had the same ones."""
    config = train_grpo_mllm.Config.of(
        checkpoint=str(checkpoint), recipe=LONGVT.name, tasks=SHARED["tasks"], max_context=4096
    )
    actor, records = make_actor(config, make_model(config, FrameStore())), records_of(out, iteration)
    if iteration:
        load_archive(out / "checkpoints" / f"{iteration:06d}", {"policy": actor.model})
    sampled = torch.tensor([value for one in records for turn in one.turns for value in turn.log_probs])
    with torch.no_grad():
        scored = actor.scorer(records).log_probs
    assert (scored - sampled).abs().max() < 2e-5 * max(1.0, float(scored.abs().max()))


def test_two_ranks_learn_though_each_is_killed_again_and_again(tmp_path: Path) -> None:
    """Ten deaths of server and ranks; all end soon; no record is lost or double; the reward rises."""
    checkpoint, out, draw = taught(tmp_path), tmp_path / "grpo", random.Random(0)
    with contextlib.ExitStack() as servers:
        server = servers.enter_context(served(checkpoint, tmp_path / "vllm.log"))
        port = int(server.url.rsplit(":", 1)[1])
        for number in range(DEATHS):
            victim, before = VICTIMS[number % len(VICTIMS)], done(out)
            run = begun(tmp_path / f"{number}.log", checkpoint, out, server.url)
            try:
                run.wait_for((out / "records" / f"{before + EVERY - 1:06d}.jsonl").exists)
                time.sleep(draw.uniform(0.0, ITERATION_S))
                ranks = run.ranks()
                assert len(ranks) == RANKS
                kill(victim, run, server)
                assert run.end(LATER_S) != 0
                assert not any(one.is_running() for one in ranks.values())
            finally:
                run.process.terminate()
            said = run.said()
            assert re.search("the same command (resumes the run in|begins anew)", said), said[-3000:]
            assert (server.url if victim == "server" else f"{victim} has died") in said, said[-3000:]
            assert done(out) >= before + EVERY - 1, "nothing that was saved is lost"
            if victim == "server":
                servers.close()
                server = servers.enter_context(served(checkpoint, tmp_path / f"vllm-{number}.log", port))
        run = begun(tmp_path / "last.log", checkpoint, out, server.url)
        assert run.end() == 0, run.said()[-3000:]
    assert sorted(file.stem for file in (out / "records").glob("*.jsonl")) == [
        f"{number:06d}" for number in range(ITERATIONS)
    ]
    for iteration in range(ITERATIONS):
        require_parity(checkpoint, out, iteration)
    lines = (out / "log" / "scalars" / "reward.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in lines] == list(range(ITERATIONS))
    rewards = [float(line.split(",")[1]) for line in lines]
    assert np.mean(rewards[-8:]) > np.mean(rewards[:8]) + 0.15, rewards
