"""Proves that a language model learns the same whoever collects, and that a killed worker loses nothing.

Teaches a tiny Qwen2.5-VL by demonstrations, then takes it through GRPO with the local collector, with
threads and with two Ray workers, the same seeds for all. Plays the last Ray run a second time and kills
a worker by SIGKILL in mid-collection: records and curve must come out the same, every episode once.
Prints the curves side by side, exits 1 if a difference shows. Run by ``make prove-ray``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch
from transformers.utils.logging import disable_progress_bar

from agents import train_grpo_mllm, train_sft
from agents.collectors.rollouts import transformers_actor
from agents.training.options import quiet_libraries
from agents.vlm.records import Record, read_records
from agents.vlm.tiny import tiny_checkpoint
from videogym import get_recipe

TASKS = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=1000&split={split}"
LONGVT = get_recipe("LONGVT_TINY")
SHARED: dict[str, Any] = {
    "recipe": replace(LONGVT, name="LONGVT_TINY-16", rules=replace(LONGVT.rules, skim_frames=16)),
    "tasks": TASKS.format(split="train"),
    "eval_tasks": TASKS.format(split="val"),
    "eval_episodes": 8,
    "max_new_tokens": 48,
}
LESSON = train_sft.Config.of(
    **SHARED, iterations=120, demonstrated_tasks=128, groups=2, wrong_looks=0.3, learning_rate=1e-2
)
GRPO = train_grpo_mllm.Config.of(
    **SHARED, groups=4, group_size=8, mini_batch_groups=1, learning_rate=1e-3, kl_coef=0.0, eval_every=100
)
WORKERS = 2
NEAR = 0.15  # in mean reward over the last iterations and all seeds; one iteration has 32 episodes
LAST = 5  # iterations


def taught(folder: Path) -> Path:
    """A checkpoint that has seen demonstrations."""
    lesson = LESSON.with_options(checkpoint=str(tiny_checkpoint(folder / "tiny", LESSON)))
    actor = transformers_actor(lesson)
    train_sft.train(lesson, actor, folder / "sft")
    actor.model.save(str(folder / "model"))
    return folder / "model"


def train(config: train_grpo_mllm.Config, out: Path) -> tuple[list[float], float]:
    """Rewards of a run by iteration, and its seconds."""
    started = time.monotonic()
    train_grpo_mllm.train(config, transformers_actor(config), out)
    lines = (out / "log" / "scalars" / "reward.csv").read_text().splitlines()
    return [float(line.split(",")[1]) for line in lines], time.monotonic() - started


class Killer(threading.Thread):
    """Kills a worker that is playing, once so many iterations are done."""

    def __init__(self, out: Path, iterations: int) -> None:
        super().__init__(daemon=True)
        self.killed = 0
        self._out, self._iterations = out, iterations

    def run(self) -> None:
        """Wait for the moment."""
        while not self.killed:
            if len(list((self._out / "records").glob("*.jsonl"))) >= self._iterations:
                playing = [
                    process.pid
                    for process in psutil.Process().children(recursive=True)
                    if process.is_running() and title(process) == "ray::RolloutWorker.play"
                ]
                if playing:
                    os.kill(playing[0], signal.SIGKILL)
                    self.killed = playing[0]
            time.sleep(0.01)


def title(process: psutil.Process) -> str:
    """What a process calls itself."""
    try:
        return (process.cmdline() or [""])[0].strip()
    except psutil.Error:
        return ""


def whole(config: train_grpo_mllm.Config, records: list[Record]) -> bool:
    """Whether every episode of all iterations is there once."""
    names = {(record.group, record.sample_index) for record in records}
    return len(names) == len(records) == config.iterations * config.groups * config.group_size


def main() -> int:
    """Print the curves; a difference decides the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=15)
    arguments = parser.parse_args()
    quiet_libraries()
    disable_progress_bar()
    torch.set_num_threads(1)
    ray.init(num_cpus=WORKERS, log_to_driver=False)
    curves: dict[str, list[list[float]]] = {"local": [], "async": [], "ray": []}
    seconds = dict.fromkeys(curves, 0.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = GRPO.with_options(
            iterations=arguments.iterations, workers=WORKERS, checkpoint=str(taught(folder))
        )
        for kind in curves:
            for seed in arguments.seeds:
                config = replace(config, seed=seed, collector=kind)  # type: ignore[arg-type]
                curve, took = train(config, folder / f"{kind}-{seed}")
                curves[kind].append(curve)
                seconds[kind] += took
        killer = Killer(folder / "killed", arguments.iterations // 2)
        killer.start()
        again, _ = train(config, folder / "killed")
        found, expected = (
            list(read_records(folder / part / "records")) for part in ("killed", f"ray-{config.seed}")
        )
    ray.shutdown()
    means = {kind: np.mean(rows, axis=0) for kind, rows in curves.items()}
    ends = {kind: float(np.mean(rows[-LAST:])) for kind, rows in means.items()}
    print(f"mean reward over seeds {arguments.seeds}")
    print(f"{'iteration':9} " + " ".join(f"{kind:>6}" for kind in curves))
    for iteration in range(arguments.iterations):
        print(f"{iteration:9} " + " ".join(f"{means[kind][iteration]:6.2f}" for kind in curves))
    print(f"{f'last {LAST}':9} " + " ".join(f"{ends[kind]:6.2f}" for kind in curves))
    print(f"{'seconds':9} " + " ".join(f"{seconds[kind]:6.0f}" for kind in curves))
    same = found == expected and again == curves["ray"][-1]
    complete = whole(config, found) and killer.killed > 0
    near = max(ends.values()) - min(ends.values()) <= NEAR
    print(f"a worker killed in mid-collection, every episode there once: {complete}")
    print(f"records and curve those of the run in which none was killed: {same}")
    print(f"all collectors end within {NEAR} of each other: {near}")
    return 0 if same and complete and near else 1


if __name__ == "__main__":
    sys.exit(main())
