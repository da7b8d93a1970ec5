"""Proves that a training run which is killed and started again ends as one that was not.

Kills small PPO and GRPO runs by SIGKILL at random moments, starts each again by the same command, and
compares what the last checkpoints hold, and the curves, byte by byte. Prints a table, exits 1 on any
difference. Run by ``make prove-resume``.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import torch

from agents import train_grpo, train_ppo
from agents.run import make_compact

MOMENTS = 5
SMALL = {
    "tasks": "procedural:brief_event?level=0&duration_s=60&count=40&split=train",
    "eval_tasks": "procedural:brief_event?level=0&duration_s=60&count=20&split=val",
    "windows": (4,),
    "episodes": 8,
    "iterations": 12,
    "minibatch": 8,
    "checkpoint_every": 1,
    "eval_every": 4,
    "eval_episodes": 4,
}
LOOPS = {
    "ppo": (train_ppo.train, train_ppo.Config(bonus="paper", **SMALL)),
    "grpo": (train_grpo.train, train_grpo.Config(group_size=4, **SMALL)),
}


def train(algorithm: str, out: Path) -> float:
    """Start a run, or go on with it; returns its seconds."""
    loop, config = LOOPS[algorithm]
    torch.set_num_threads(config.threads)
    policy = make_compact(config)
    started = time.monotonic()
    loop(config, policy, out)
    return time.monotonic() - started


def start(algorithm: str, out: Path, errors: int | None = None) -> subprocess.Popen[str]:
    """`train` in a process of its own, which has imported everything when this returns."""
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
    """All tensors of policy, optimizer and memory in the newest checkpoint."""
    with zipfile.ZipFile(out / "checkpoint") as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "manifest.json"}


def curves(out: Path) -> dict[str, list[str]]:
    """Lines of every curve, those that tell seconds without their values."""
    lines = {path.stem: path.read_text().splitlines() for path in (out / "log" / "scalars").glob("*.csv")}
    return {
        name: [row.partition(",")[0] for row in rows] if name.startswith("seconds") else rows
        for name, rows in lines.items()
    }


def difference(one: Path, other: Path) -> str:
    """What two runs differ in; empty if in nothing."""
    for what, of in (("state", states), ("curve", curves)):
        left, right = of(one), of(other)
        if left.keys() != right.keys():
            return f"{what}: only one has {sorted(left.keys() ^ right.keys())}"
        if unlike := [name for name in left if left[name] != right[name]]:
            return f"{what}: {', '.join(sorted(unlike))}"
    return ""


def main() -> int:
    """Print the table; a difference decides the exit status."""
    rng, failed = random.Random(0), 0
    with tempfile.TemporaryDirectory() as folder:
        for algorithm in LOOPS:
            whole = Path(folder) / algorithm
            seconds = train(algorithm, whole)
            for moment in range(MOMENTS):
                out, delay = Path(folder) / f"{algorithm}-{moment}", rng.uniform(0.05, 0.95) * seconds
                killed = killed_after(delay, algorithm, out)
                path = out / "log" / "scalars" / "reward.csv"
                done = len(path.read_text().splitlines()) if path.exists() else 0
                ended(algorithm, out)
                unlike = difference(whole, out)
                failed += bool(unlike) or not killed
                verdict = unlike or ("identical" if killed else "ended before it was killed")
                print(
                    f"{algorithm:5} killed after {delay:5.2f} of {seconds:.2f} s, "
                    f"{done:2} of {SMALL['iterations']} iterations: {verdict}"
                )
    return int(failed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", choices=sorted(LOOPS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.train is None:
        sys.exit(main())
    print("ready", flush=True)
    train(arguments.train, arguments.out)
