"""Proves that a training run which is killed and started again ends as one that was not.

Kills small runs of all loops, of compact policies and of language models, by SIGKILL at random moments,
starts each again by the same command, and compares byte by byte what the last checkpoints hold (weights,
moments of the optimizer, critic, memory), the curves and the files of records. Prints a table, exits 1 on
any difference, or where a temporary name of a killed writer is left. Run by ``make prove-resume``.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

sys.path.insert(0, str(Path(__file__).parents[1] / "agents"))

import small_chat

from agents import train_grpo, train_grpo_mllm, train_ppo, train_ppo_mllm, train_sft
from agents.compact.run import RunConfig, make_compact
from agents.vlm.config import ChatConfig
from agents.vlm.policy import make_actor, make_model
from agents.vlm.records import read_records
from agents.vlm.tiny import tiny_checkpoint
from videogym import FrameStore

ITERATIONS = 12
SMALL: dict[str, Any] = {
    "tasks": "procedural:brief_event?level=0&duration_s=60&count=40&split=train",
    "eval_tasks": "procedural:brief_event?level=0&duration_s=60&count=20&split=val",
    "windows": (4,),
    "episodes": 8,
    "iterations": ITERATIONS,
    "mini_batch_size": 8,
    "checkpoint_every": 1,
    "eval_every": 4,
    "eval_episodes": 4,
}
CHAT: dict[str, Any] = {
    "recipe": small_chat.ODD,
    "tasks": small_chat.TASKS,
    "eval_tasks": f"{small_chat.TASKS}&split=val",
    "max_new_tokens": 12,
    "iterations": ITERATIONS,
    "groups": 2,
    "micro_batch_size": 2,
    "learning_rate": 1e-3,
    "checkpoint_every": 2,  # every other iteration can have to be done again, its records too
    "eval_every": 4,
    "eval_episodes": 2,
}


@dataclass(frozen=True)
class Loop:
    """A training loop and what it is tried with."""

    train: Callable[..., Any]
    config: Any
    make: Callable[[Any, Path], tuple[Any, Any]]  # of config and a folder that all its runs share


def compact(config: RunConfig, shared: Path) -> tuple[RunConfig, Any]:
    """The config and an untrained compact policy."""
    return config, make_compact(config)


def chat(config: ChatConfig, shared: Path) -> tuple[ChatConfig, Any]:
    """The config and a tiny language model with random weights, those of the folder."""
    config = config.with_options(checkpoint=str(tiny_checkpoint(shared / "tiny", config)))
    return config, make_actor(config, make_model(config, FrameStore()))


LOOPS = {
    "ppo": Loop(train_ppo.train, train_ppo.Config.of(bonus="paper", **SMALL), compact),
    "grpo": Loop(train_grpo.train, train_grpo.Config.of(group_size=4, **SMALL), compact),
    "sft_mllm": Loop(train_sft.train, train_sft.Config.of(demonstrated_tasks=3, per_task=2, **CHAT), chat),
    "grpo_mllm": Loop(
        train_grpo_mllm.train, train_grpo_mllm.Config.of(group_size=3, mini_batch_groups=1, **CHAT), chat
    ),
    "ppo_mllm": Loop(
        train_ppo_mllm.train,
        train_ppo_mllm.Config.of(group_size=3, mini_batch_size=4, critic_learning_rate=1e-2, **CHAT),
        chat,
    ),
}


def train(algorithm: str, out: Path, ready: Callable[[], None] = lambda: None) -> float:
    """Start or resume a run; returns its seconds after it was ready, its policy made."""
    loop = LOOPS[algorithm]
    disable_progress_bar()
    torch.set_num_threads(loop.config.runtime.threads)
    config, policy = loop.make(loop.config, out.parent)
    ready()
    started = time.monotonic()
    loop.train(config, policy, out)
    return time.monotonic() - started


def start(algorithm: str, out: Path, errors: int | None = None) -> subprocess.Popen[str]:
    """`train` in a process of its own, which is ready when this returns."""
    command = [sys.executable, __file__, "--train", algorithm, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def killed_after(seconds: float, algorithm: str, out: Path) -> bool:
    """Start a run and kill it after a while, unless it has ended by then."""
    # What a killed process has left is complained about there.
    with start(algorithm, out, subprocess.DEVNULL) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.returncode == -signal.SIGKILL


def ended(algorithm: str, out: Path) -> None:
    """Start a run and let it end."""
    with start(algorithm, out) as process:
        process.wait()
    if process.returncode:
        raise RuntimeError(f"{algorithm} in {out} ended with {process.returncode}")


def states(out: Path) -> dict[str, bytes]:
    """All tensors of policy, optimizer and memory in the newest checkpoint; a critic is in the memory."""
    with zipfile.ZipFile(out / "checkpoint") as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "manifest.json"}


def curves(out: Path) -> dict[str, list[str]]:
    """Lines of every curve, those that tell seconds without their values."""
    lines = {path.stem: path.read_text().splitlines() for path in (out / "log" / "scalars").glob("*.csv")}
    return {
        name: [row.partition(",")[0] for row in rows] if name.startswith("seconds") else rows
        for name, rows in lines.items()
    }


def records(out: Path) -> dict[str, bytes]:
    """All files of records, whatever they are called; none of a loop that writes none."""
    return {path.name: path.read_bytes() for path in (out / "records").glob("*")}


def difference(one: Path, other: Path) -> str:
    """What two runs differ in; empty if in nothing."""
    for what, of in (("state", states), ("curve", curves), ("records", records)):
        left, right = of(one), of(other)
        if left.keys() != right.keys():
            return f"{what}: only one has {sorted(left.keys() ^ right.keys())}"
        if unlike := [name for name in left if left[name] != right[name]]:
            return f"{what}: {', '.join(sorted(unlike))}"
    return ""


def miscounted(algorithm: str, out: Path) -> str:
    """What of a run's points and episodes is missing or there twice; empty if nothing is."""
    steps = [int(row) for row in curves(out)["seconds_total"]]
    if steps != list(range(ITERATIONS)):
        return f"points of iterations {steps}"
    if not records(out):
        return ""
    config = LOOPS[algorithm].config
    episodes = [(record.group, record.sample_index) for record in read_records(out / "records")]
    expected = ITERATIONS * config.groups * config.group_size
    if len(records(out)) != ITERATIONS or not len(episodes) == len(set(episodes)) == expected:
        return f"{len(set(episodes))} of {expected} episodes, {len(episodes)} lines"
    return ""


def leftovers(out: Path) -> str:
    """What killed writers left under temporary names in a run that has ended; empty if nothing is."""
    left = [str(path.relative_to(out)) for path in out.rglob("*") if path.name.startswith(".")]
    return f"left: {', '.join(sorted(left))}" if left else ""


def prove(algorithm: str, kills: int, rng: random.Random, folder: Path) -> int:
    """Print a line for a run that is not disturbed and for each that is killed; returns the failures."""
    whole = folder / "whole"
    seconds, failed = train(algorithm, whole), 0
    told: dict[str, Callable[[Path], Sized]] = {
        "tensors of": states,
        "curves": curves,
        "files of records": records,
    }
    counts = ", ".join(f"{len(of(whole))} {what}" for what, of in told.items())
    parts = {name.split("/")[1].partition("-")[2] for name in states(whole)}
    counts = counts.replace("tensors of", f"files of {', '.join(sorted(parts))}")
    print(f"{algorithm:9} {ITERATIONS} iterations in {seconds:.2f} s: {counts}", flush=True)
    for number in range(kills):
        out, delay = folder / f"killed-{number}", rng.uniform(0.05, 0.95) * seconds
        while not killed_after(delay, algorithm, out):
            # The machine has become faster: what took so long takes less now.
            shutil.rmtree(out)
            seconds, delay = delay, rng.uniform(0.05, 0.95) * delay
        path = out / "log" / "scalars" / "seconds_total.csv"
        done = len(path.read_text().splitlines()) if path.exists() else 0
        ended(algorithm, out)
        unlike = difference(whole, out) or miscounted(algorithm, out) or leftovers(out)
        failed += bool(unlike)
        verdict = unlike or "identical"
        print(f"{algorithm:9} killed after {delay:5.2f} s, {done:2} iterations: {verdict}", flush=True)
    return failed


def main(loops: list[str], kills: int, seed: int) -> int:
    """Print the table; a difference decides the exit status."""
    rng, failed = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as name:
        for algorithm in loops:
            folder = Path(name) / algorithm
            folder.mkdir()
            failed += prove(algorithm, kills, rng, folder)
    print(f"{len(loops) * kills - failed} of {len(loops) * kills} identical to the bit")
    return int(failed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loops", nargs="+", choices=tuple(LOOPS), default=list(LOOPS))
    parser.add_argument("--kills", type=int, default=3, help="of each loop")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--train", choices=tuple(LOOPS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train is None:
        sys.exit(main(arguments.loops, arguments.kills, arguments.seed))
    train(arguments.train, arguments.out, lambda: print("ready", flush=True))
