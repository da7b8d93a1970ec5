"""The needle: an event on at most 2 of 128 pool frames, found under Video-MTR's recipe or not at all.

A policy that sees a quarter of the pool in one turn is right in at most 62 % of these questions: it meets
the event in at most half of the videos and guesses among four options in the others. With 16 frames
first and two looks of 8 frames, nearly all can be answered. For every seed this measures

- ``imitation``: the compact policy, taught by the oracle;
- ``warm``: the same, trained on by PPO;
- ``one_turn``: the same network and lesson with all 32 frames in one turn. Events of these videos hide
  from just this skim, so it never meets one;
- ``one_turn_33``: the warm policy, which can see, made to answer at once about 33 frames. These lie
  elsewhere and meet more than half of the events, so that at most 68 % can be right;
- ``cold``: PPO from random weights, its frozen encoder's included, as far as it gets.

Run ``python -m agents.experiments.needle --out runs/needle``. What is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from videogym import evaluate, get_recipe
from videogym.evaluate import Policy
from videogym.testing.policies import Oracle

from ..compact.discrete import Acting
from ..compact.imitation import ImitationConfig, teach
from ..compact.network import CompactPolicy
from ..compact.run import TASKS, RunConfig, make_compact, make_env
from ..train_ppo import Config, train
from ..training.archive import load_archive, write_archive
from ..training.bounds import Count, Seed, number
from ..training.options import quiet_libraries
from ..training.staging import whole_file
from .runs import resumable
from .stages import stored_result

TEST_TASKS = TASKS.format(count=400, split="test")
PAPER = get_recipe("VIDEO_MTR/paper")
ONE_TURN = replace(
    PAPER, name="VIDEO_MTR/paper, one turn of 32", rules=replace(PAPER.rules, max_turns=1, skim_frames=32)
)
ONE_TURN_33 = replace(
    PAPER,
    name="VIDEO_MTR/paper, one turn of 33",
    rules=replace(PAPER.rules, max_turns=1, skim_frames=33, frame_budget=33),
)
ARMS = ("imitation", "warm", "one_turn", "one_turn_33", "cold")
WARM, COLD = Config(iterations=40), Config(iterations=100)


def run_seed(
    seed: int, out: Path, progress: bool = False, lesson: ImitationConfig | None = None
) -> dict[str, Any]:
    """All arms of a seed that have no result yet; returns accuracies, hit rates and seconds by name."""
    lesson = lesson or ImitationConfig()
    path = out / f"seed-{seed}.json"
    row: dict[str, Any] = stored_result(path) if path.exists() else {"seed": seed}

    def done(**metrics: Any) -> None:
        """Keep an arm; it is on the disk when the next one begins."""
        row.update(metrics)
        with whole_file(path) as file:
            file.write(json.dumps(row).encode())

    warm, cold, taught = replace(WARM, seed=seed), replace(COLD, seed=seed), out / f"imitation-{seed}"
    if "oracle" not in row:
        done(oracle=evaluate(Oracle(), make_env(WARM, TEST_TASKS).unwrapped).accuracy.mean)
    if "imitation" not in row:
        policy, seconds = _imitate(warm, lesson, progress)
        write_archive(taught, {"policy": policy.state_dict()}, {})
        done(imitation=_figures(Acting(policy), WARM, seconds))
    if "warm" not in row:
        policy = make_compact(warm)
        load_archive(taught, {"policy": policy})
        metrics = _ppo(policy, warm, out / f"warm-{seed}", progress)
        done(warm=metrics | {"seconds": metrics["seconds"] + row["imitation"]["seconds"]})
    if "one_turn_33" not in row:
        policy = make_compact(WARM)
        load_archive(out / f"warm-{seed}" / "checkpoint", {"policy": policy})
        done(one_turn_33=_figures(AnswerOnly(policy), RunConfig(recipe=ONE_TURN_33), 0.0))
    if "one_turn" not in row:
        config = RunConfig(recipe=ONE_TURN, seed=seed)
        policy, seconds = _imitate(config, lesson, progress)
        done(one_turn=_figures(Acting(policy), config, seconds))
    if "cold" not in row:
        metrics = _ppo(make_compact(cold), cold, out / f"cold-{seed}", progress)
        done(cold=metrics, cold_curve=_curve(out / f"cold-{seed}"))
    return row


def _ppo(policy: CompactPolicy, config: Config, folder: Path, progress: bool) -> dict[str, float]:
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped: it is timed as a whole
    started = time.monotonic()
    train(config, policy, folder, progress)
    return _figures(Acting(policy), config, time.monotonic() - started)


def _curve(folder: Path) -> list[list[float]]:
    lines = (folder / "log" / "scalars" / "eval_accuracy.csv").read_text(encoding="utf-8").splitlines()
    return [[float(value) for value in line.split(",")] for line in lines]


def _imitate(config: RunConfig, lesson: ImitationConfig, progress: bool) -> tuple[CompactPolicy, float]:
    """A policy taught by the oracle, and how many seconds that took."""
    started = time.monotonic()
    policy = make_compact(config)
    envs = [make_env(config, config.tasks) for _ in range(64)]
    teach(policy, envs, lesson, config.seed, progress=progress)
    return policy, time.monotonic() - started


class AnswerOnly:
    """The likeliest answer of a policy, whatever it thinks of looking."""

    def __init__(self, policy: CompactPolicy) -> None:
        self.policy, self.looks = policy, policy.reader.looks

    @torch.no_grad()
    def __call__(self, observation: Mapping[str, Any], info: Mapping[str, Any]) -> int:
        """An action of the environment."""
        logits, _ = self.policy(self.policy.read(observation).unsqueeze(0))
        return self.looks + int(logits[0, self.looks :].argmax())


def _figures(acting: Policy, config: RunConfig, seconds: float) -> dict[str, float]:
    report = evaluate(acting, make_env(config, TEST_TASKS))
    hits = report.hit_rate.mean if report.hit_rate else float("nan")
    return {"accuracy": report.accuracy.mean, "hit_rate": hits, "seconds": seconds}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: accuracy on 400 held-out videos by seed, and seconds."""
    lines = [
        "| seed | oracle | imitation | warm PPO | one turn of 32 | one turn of 33 | cold PPO | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        accuracies = " | ".join(f"{row[name]['accuracy']:.3f}" for name in ARMS)
        seconds = ", ".join(f"{row[name]['seconds']:.0f}" for name in ARMS)
        lines.append(f"| {row['seed']} | {row['oracle']:.3f} | {accuracies} | {seconds} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the seeds that are missing and print the table; exit with 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/needle"), help="folder of all runs (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=number(Seed),
        default=[0, 1, 2, 3, 4],
        help="one run each (default: 0 to 4)",
    )
    parser.add_argument(
        "--rounds", type=number(Count), default=75, help="rounds of imitation (default: %(default)s)"
    )
    arguments = parser.parse_args()
    with resumable(parser, arguments.out, "Seeds that are done are kept"):
        run_seeds(arguments)


def run_seeds(arguments: argparse.Namespace) -> None:
    """Run what the command names, print it, and judge it."""
    quiet_libraries()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    lesson = ImitationConfig(rounds=arguments.rounds)
    rows = [run_seed(seed, arguments.out, progress=True, lesson=lesson) for seed in arguments.seeds]
    sys.stdout.write(table(rows))
    for row in rows:
        oracle, warm = row["oracle"], row["warm"]["accuracy"]
        if row["imitation"]["accuracy"] < 0.95 * oracle or warm < 0.9 * oracle:
            sys.exit(f"seed {row['seed']}: imitation below 95 % or warm PPO below 90 % of the oracle")
        if warm - max(row[name]["accuracy"] for name in ("one_turn", "one_turn_33")) < 0.25:
            sys.exit(f"seed {row['seed']}: one turn is less than 25 points below")


if __name__ == "__main__":
    main()
