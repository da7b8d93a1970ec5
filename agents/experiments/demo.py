"""The demonstration: train on lazily drawn videos, prove it on real files, draw what happened.

Trains the compact policy (`agents.compact.imitation`, then `agents.train_ppo`) while other processes encode
held-out videos of ten minutes to H.264, evaluates it there through the decoder beside scripted
policies, and lets a tiny Qwen2.5-VL learn where to look by GRPO (`agents.experiments.looking`).

Run ``python -m agents.experiments.demo --out runs/demo``. It exits with 1 unless the trained policy beats
the skim by `MARGIN` with every seed, and GRPO adds `LIFT` to the language model.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from videogym import DiscreteActions, VideoQAEnv, evaluate
from videogym.datasets import load_tasks, write_tasks
from videogym.evaluate import Estimate, Policy, Report, mean
from videogym.rendering import render_rgb
from videogym.testing.policies import Blind, Oracle, Random, SkimOnly
from videogym.video.synthetic import encode

from ..compact.discrete import Acting
from ..compact.imitation import ImitationConfig, teach
from ..compact.network import CompactPolicy
from ..compact.run import TASKS, make_compact, make_env
from ..train_ppo import Config, train
from ..training.bounds import Count, Seed, number
from ..training.options import quiet_libraries
from .looking import learn_to_look
from .runs import resumable, runs_at_once

HELD_OUT = TASKS.format(count="{count}", split="test")
RECIPE = "VIDEO_MTR/paper"
MARGIN = 0.30  # in accuracy
LIFT = 0.25  # the same
DRAWS = 10  # episodes a question of policies that guess, so that luck is not in the margin
PICTURES = 4  # episodes to draw
ITERATIONS = 40  # of PPO


def main() -> None:
    """Run all of it."""
    parser = command_parser()
    arguments = parser.parse_args()
    with resumable(parser, arguments.out, "Encoded videos are kept"):
        run_demo(arguments)


def run_demo(arguments: argparse.Namespace) -> None:
    """Train, prove and draw; see the top of this file."""
    quiet_libraries()
    torch.set_num_threads(1)
    started = time.monotonic()
    tasks = list(load_tasks(HELD_OUT.format(count=arguments.videos)))
    folder = arguments.out / "held_out"
    folder.mkdir(parents=True, exist_ok=True)
    # Training goes first: the encoders take what time it leaves.
    with runs_at_once(os.cpu_count() or 1, niceness=10) as pool:
        files = [pool.submit(encode_once, task.video, folder / f"{task.task_id}.mp4") for task in tasks]
        runs = {seed: trainable(seed, arguments.out / f"seed-{seed}") for seed in arguments.seeds}
        for file in tqdm(files, desc="H.264 files"):
            file.result()
    write_tasks(folder / "tasks.jsonl", [replace(task, video=f"{task.task_id}.mp4") for task in tasks])
    gains = [report_run(seed, run, folder, arguments.out / f"seed-{seed}") for seed, run in runs.items()]
    lift = None if arguments.skip_grpo else learn_to_look(arguments.out / "language_model")
    took = f"{time.monotonic() - started:.0f} s"
    sys.stdout.write(f"\nTook {took}. Pictures, curves and weights are in {arguments.out}/\n")
    if min(gain.mean for gain in gains) < MARGIN:
        sys.exit(f"the trained policy beats the skim by less than {MARGIN}")
    if lift is not None and lift.mean < LIFT:
        sys.exit(f"GRPO adds less than {LIFT} to the language model")


def command_parser() -> argparse.ArgumentParser:
    """What the command reads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo"),
        help="folder for all that is written (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        "--seeds",
        dest="seeds",
        type=number(Seed),
        nargs="+",
        default=[0],
        help="one run each (default: 0)",
    )
    parser.add_argument(
        "--videos",
        type=number(Count),
        default=64,
        help="held-out videos, one question each (default: %(default)s)",
    )
    parser.add_argument("--skip-grpo", action="store_true", help="leave the language model out")
    return parser


def encode_once(source: str, path: Path) -> None:
    """Encode a synthetic video unless an earlier run has left it."""
    if not path.exists():
        encode(source, path)


@dataclass(frozen=True)
class Trained:
    """What one run leaves."""

    imitated: CompactPolicy  # before PPO
    trained: CompactPolicy
    success: list[tuple[int, float]]  # (episodes, share of right answers), exploring
    ppo_began: int  # after so many episodes


def trainable(seed: int, out: Path) -> Trained:
    """Imitation, then PPO."""
    config = Config(seed=seed, iterations=ITERATIONS)
    policy, rounds = make_compact(config), ImitationConfig()
    envs = [make_env(config, config.tasks) for _ in range(64)]
    taught = teach(policy, envs, rounds, seed, progress=True)
    curve = [(episodes, success) for episodes, _, success in taught]
    imitated, began = copy.deepcopy(policy), curve[-1][0]
    shutil.rmtree(out / "ppo", ignore_errors=True)  # another run's checkpoint would be resumed
    train(config, policy, out / "ppo", progress=True)
    for line in (out / "ppo" / "log" / "scalars" / "success.csv").read_text(encoding="utf-8").splitlines():
        iteration, success = line.split(",")
        curve.append((began + (int(iteration) + 1) * config.episodes, float(success)))
    return Trained(imitated, policy, curve, began)


def report_run(seed: int, run: Trained, folder: Path, out: Path) -> Estimate:
    """Evaluate and draw one trained policy.

    Args:
        seed: of the run.
        run: what training left.
        folder: holds ``tasks.jsonl`` and the videos.
        out: folder for weights and pictures.

    Returns:
        By how much the trained policy beats the skim, task by task.
    """
    reports = compare(run, folder, seed)
    gain = beats(reports["trained"], reports["skim-only"])
    sys.stdout.write(
        f"\nSeed {seed}, {gain.count} questions about H.264 files of ten minutes\n{table(reports)}\n"
        f"trained beats skim-only by {gain}\n"
    )
    draw_curve(run, reports, out / "learning_curve.png")
    draw_episodes(run, folder, out / "episodes.png")
    return gain


def compare(run: Trained, folder: Path, seed: int) -> dict[str, Report]:
    """Evaluate scripted and trained policies on the held-out tasks."""
    env = VideoQAEnv(str(folder / "tasks.jsonl"), RECIPE, video_root=str(folder))
    discrete = DiscreteActions(env)
    policies: dict[str, tuple[Policy, gymnasium.Env[Any, Any], int]] = {
        "blind": (Blind(seed), env, DRAWS),
        "random": (Random(seed), env, DRAWS),
        "skim-only": (SkimOnly(seed + 1), env, DRAWS),
        "imitation": (acting(run.imitated, env), discrete, 1),
        "trained": (acting(run.trained, env), discrete, 1),
        "oracle": (Oracle(), env, 1),
    }
    reports = {}
    for name, (policy, where, draws) in tqdm(policies.items(), desc="evaluation"):
        task_ids = [task.task_id for task in env.tasks for _ in range(draws)]
        reports[name] = evaluate(policy, where, task_ids=task_ids, seed=seed)
    env.close()
    return reports


def acting(policy: CompactPolicy, env: VideoQAEnv) -> Acting:
    """A policy that reads the videos of an environment."""
    policy.reader = replace(policy.reader, store=env.store)
    return Acting(policy)


def beats(report: Report, baseline: Report) -> Estimate:
    """By how much one policy is more accurate than another, task by task."""
    shares = [accuracy_by_task(r) for r in (report, baseline)]
    return mean([shares[0][task_id] - shares[1][task_id] for task_id in shares[0]])


def accuracy_by_task(report: Report) -> dict[str, float]:
    """The share of right answers to each question."""
    answers: dict[str, list[bool]] = {}
    for episode in report.episodes:
        if episode.correct is not None:
            answers.setdefault(episode.task_id, []).append(episode.correct)
    return {task_id: sum(correct) / len(correct) for task_id, correct in answers.items()}


def table(reports: Mapping[str, Report]) -> str:
    """One line a policy; accuracy and hit rate with 95 % intervals."""
    lines = [f"{'policy':<10} {'accuracy':>22} {'hit rate':>22} {'frames':>7} {'turns':>6}"]
    for name, report in reports.items():
        shares = f"{report.accuracy!s:>22} {report.hit_rate!s:>22}"
        lines.append(f"{name:<10} {shares} {report.frames.mean:7.1f} {report.turns.mean:6.2f}")
    return "\n".join(lines)


def draw_curve(run: Trained, reports: Mapping[str, Report], path: Path) -> None:
    """Success of the policy in training, as it explores, beside its accuracy on held-out files."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    episodes, success = zip(*run.success, strict=True)
    axes.plot(episodes, success, label="in training, exploring")
    axes.axvline(run.ppo_began, color="0.7", linestyle=":", label="PPO begins")
    for name, colour in (("skim-only", "tab:red"), ("imitation", "tab:orange"), ("trained", "tab:green")):
        axes.axhline(reports[name].accuracy.mean, color=colour, linestyle="--", label=f"{name}, held out")
    axes.set(xlabel="episodes", ylabel="share of right answers", ylim=(0, 1))
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def draw_episodes(run: Trained, folder: Path, path: Path) -> None:
    """The ends of some episodes of the trained policy, with the evidence marked, one below the other."""
    env = VideoQAEnv(str(folder / "tasks.jsonl"), RECIPE, video_root=str(folder))
    discrete, policy = DiscreteActions(env), acting(run.trained, env)
    pictures = []
    for task in env.tasks[:PICTURES]:
        observation, info = discrete.reset(options={"task_id": task.task_id})
        while not env.state.terminated:
            observation, _, _, _, info = discrete.step(policy(observation, info))
        pictures.append(render_rgb(env.state, env.store, evidence=True))
    Image.fromarray(np.concatenate(pictures)).save(path)
    env.close()


if __name__ == "__main__":
    main()
