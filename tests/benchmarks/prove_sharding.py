"""Proves that ranks train as one process does, and that a rank that is killed costs no record.

Trains a tiny Qwen2.5-VL and Qwen3-VL by SFT, GRPO and PPO with one, two and three ranks in every way that
sharding has to get right (shared and plain prefixes, several backward passes a step, layers that run again,
adapters, a frozen vision tower, packs, more ranks than groups) and again in one process on the same
records: weights must agree, those of PPO's critic too, be it a head or a model of its own. Then starts GRPO
and PPO, with either critic, by their commands with two ranks, kills one of them by SIGKILL at random
moments, and goes on by the same command: records and weights must be those of a run that nobody disturbed,
to the bit.
Exits 1 if a difference shows. No GPU is needed; a quiet machine takes some twenty minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file
from transformers.utils.logging import disable_progress_bar

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "agents"))

import sharded_run  # noqa: E402
from small_chat import build  # noqa: E402

from agents.vlm.records import read_records  # noqa: E402

CLOSE = 1e-5
# Adam divides by the gradient: where that is as small as its epsilon, rounding alone moves a single weight
# by a part of a step. A tensor with such a weight must agree to this part of the way it went.
OF_THE_WAY = 0.01
MANY_CALLS = "a call of the tower for each frame"
WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "one at a time, layers again": {"micro_batch_size": 1, "gradient_checkpointing": True},
    "all at once": {"micro_batch_size": 64},
    MANY_CALLS: {},
    "plain prefixes, a window": {"share_prefixes": False, "window": 1},
    "frozen vision": {"freeze_vision": True, "micro_batch_size": 3},
    "adapters": {"lora_rank": 4, "learning_rate": 3e-4, "gradient_checkpointing": True},
}
OF_LOOP: dict[str, dict[str, dict[str, Any]]] = {
    "sft": {"packed": {"pack_tokens": 1500}},
    "ppo": {"a critic of its own": {"critic_model": "copy"}},
}
PPO: dict[str, Any] = {"mini-batch-size": 2, "recipe": "LONGVT_TINY", "window": 0}
COMMANDS: dict[str, tuple[str, dict[str, Any]]] = {  # of the runs that are killed: their loops and options
    "grpo": ("train_grpo_mllm", {"mini-batch-groups": 2}),
    "ppo": ("train_ppo_mllm", PPO),
    "ppo, a critic of its own": ("train_ppo_mllm", {**PPO, "critic-model": "copy"}),
}
COMMON = {
    "groups": 2,
    "group-size": 2,
    "iterations": 4,
    "checkpoint-every": 1,
    "eval-every": 4,
    "eval-episodes": 2,
    "max-new-tokens": 8,
    "learning-rate": 1e-4,
}


def torchrun(ranks: int, *command: str) -> subprocess.Popen[str]:
    """Start a command as so many ranks."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def distance(one: Path, other: Path) -> float:
    """The largest difference of two runs' weights, the critic's among them."""
    left, right = (
        load_file(out / "model" / "model.safetensors") | sharded_run.critic_of(out) for out in (one, other)
    )
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def movement(out: Path, before: Path) -> float:
    """How far a run has moved the weights of a checkpoint."""
    left, right = load_file(out / "model" / "model.safetensors"), load_file(before / "model.safetensors")
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def trained_alike(one: Path, other: Path, start: Path) -> bool:
    """Whether two checkpoints went the same way from a third, tensor by tensor."""
    left, right, old = (load_file(folder / "model.safetensors") for folder in (one, other, start))
    return all(
        float((left[name] - right[name]).abs().max()) < CLOSE
        or float((left[name] - right[name]).norm()) < OF_THE_WAY * float((right[name] - old[name]).norm())
        for name in left
    )


def prove_ways(folder: Path, family: str, ranks: int) -> bool:
    """Train in all ways with ranks and in one process; print a line each."""
    checkpoint = str(build(folder / "tiny", family))
    sharded_run.write_examples(folder / "examples.jsonl", Path(checkpoint))
    shared = {"checkpoint": checkpoint, "records": str(folder / "examples.jsonl")}
    jobs: list[dict[str, Any]] = []
    for loop in sharded_run.LOOPS:
        for way, changes in (WAYS | OF_LOOP.get(loop, {})).items():
            changes = {**changes, **shared}
            if loop != "sft":
                del changes["records"]
            calls = {"patches_at_once": 1} if way == MANY_CALLS else {}
            jobs.append({"name": f"{loop}, {way}", "loop": loop, "changes": changes, **calls})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    ran = torchrun(ranks, str(HERE.parent / "agents" / "sharded_run.py"), str(folder))
    said, _ = ran.communicate()
    if ran.returncode:
        print(said[-4000:])
        return False
    fine = True
    for job in jobs:
        out, alone = folder / job["name"], folder / "alone" / job["name"]
        sharded_run.train(job, alone, None if job["loop"] == "sft" else out / "records")
        apart, moved = distance(out, alone), movement(out, folder / "tiny")
        gap = max(json.loads((out / f"facts.{rank}.json").read_text())["gap"] for rank in range(ranks))
        alike = trained_alike(out / "model", alone / "model", folder / "tiny")
        fine = fine and alike and gap < CLOSE
        print(
            f"{family}, {ranks} ranks, {job['name']}: weights apart {apart:.1e}, moved {moved:.1e}, "
            f"{'alike' if alike else 'NOT ALIKE'}; "
            f"log-probabilities apart {gap:.1e}",
            flush=True,
        )
    return fine


def options(kind: str, out: Path, checkpoint: Path) -> list[str]:
    """The command of a run that is killed."""
    loop, own = COMMANDS[kind]
    named = [text for name, value in (COMMON | own).items() for text in (f"--{name}", str(value))]
    return ["-m", f"agents.{loop}", "--out", str(out), "--checkpoint", str(checkpoint), *named]


def prove_kills(folder: Path, kind: str, kills: int, generator: random.Random) -> bool:
    """Kill a rank at some moments, go on, and compare with a run that nobody disturbed."""
    checkpoint = build(folder / "tiny", "qwen2_5_vl")
    whole = torchrun(2, *options(kind, folder / "whole", checkpoint))
    said, _ = whole.communicate()
    if whole.returncode:
        print(said[-4000:])
        return False
    fine = True
    for number in range(kills):
        out, after = folder / f"killed-{number}", generator.randrange(int(COMMON["iterations"]))
        run = torchrun(2, *options(kind, out, checkpoint))
        while len(list((out / "records").glob("*.jsonl"))) < after and run.poll() is None:
            time.sleep(0.05)
        time.sleep(generator.uniform(0, 3))
        ranks = [process for process in psutil.Process(run.pid).children() if process.is_running()]
        if run.poll() is not None or len(ranks) < 2:
            print(f"{kind}, kill {number}: the run had ended already")
            continue
        victim = generator.randrange(2)
        ranks[victim].kill()
        started = time.monotonic()
        said, _ = run.communicate()
        seconds = time.monotonic() - started
        named = f"Signal 9 (SIGKILL) received by PID {ranks[victim].pid}" in said
        played = len(list((out / "records").glob("*.jsonl")))
        again = torchrun(2, *options(kind, out, checkpoint))
        told, _ = again.communicate()
        if again.returncode:
            print(told[-4000:])
            return False
        found, expected = (list(read_records(part / "records")) for part in (out, folder / "whole"))
        same = found == expected and distance(out, folder / "whole") == 0.0
        fine = fine and run.returncode != 0 and named and seconds < 30 and same
        print(
            f"{kind}, kill {number}: rank {victim} after {played} iterations were played; all had ended in "
            f"{seconds:.1f} s with code {run.returncode}, the cause named: {named}; resumed, "
            f"{len(found)} records and all weights as without: {same}",
            flush=True,
        )
    return fine


def main() -> int:
    """Print what was seen; a difference decides the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2, 3], help="none: only kill")
    parser.add_argument("--families", nargs="+", default=["qwen2_5_vl", "qwen3_vl"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    disable_progress_bar()
    torch.set_num_threads(1)
    fine = True
    with tempfile.TemporaryDirectory() as name:
        for family in arguments.families:
            for ranks in arguments.ranks:
                folder = Path(name) / f"{family}-{ranks}"
                folder.mkdir()
                fine = prove_ways(folder, family, ranks) and fine
        if arguments.kills:
            for kind in COMMANDS:
                folder = Path(name) / f"kills-{kind}"
                folder.mkdir()
                fine = prove_kills(folder, kind, arguments.kills, random.Random(arguments.seed)) and fine
    print("as one process, and nothing lost" if fine else "a difference: see above")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
