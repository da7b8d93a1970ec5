"""The papers' ablations, run again from scratch: named conditions, several seeds, one result file a cell.

What is studied is the reward, not the network: before every run a compact policy imitates the oracle for
a short while, which teaches it to see and to answer. Then the scores of all looks are multiplied by a
factor, 0 unless ``--confidence`` says otherwise, so that it does not know any more where to look, and
those of the answers are raised until it answers at once in 95 % of the episodes, as the papers' base
models do. Whether it comes to look around, and where, is left to reinforcement learning under the recipe
of the condition.

Run ``python -m agents.experiments.study --out runs/study``. Cells that are done are not done again, so a
study can be stopped and resumed at any time; ``--report`` only writes the table and the curves.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from videogym import Recipe, evaluate

from .. import train_grpo, train_ppo
from ..compact.discrete import Acting
from ..compact.imitation import ImitationConfig, teach
from ..compact.network import CompactPolicy
from ..compact.run import RunConfig, make_compact, make_env
from ..training.archive import load_archive, write_archive
from ..training.bounds import Coefficient, number
from ..training.options import quiet_libraries
from ..training.run import CheckpointMismatch
from ..training.staging import whole_file
from .runs import add_run_options, resumable, runs_at_once
from .study_cells import _PAPER, _TINY, CONDITIONS, CURVES, Cell, cell_path, read_cell
from .study_report import report

ANSWERS_AT_ONCE = 0.95  # share of episodes in which the policy answers in its first turn, at the start
LESSON = ImitationConfig(rounds=30)


def run_cell(name: str, seed: int, out: Path, confidence: float = 0.0, progress: bool = False) -> Cell:
    """Run a cell and write its file.

    Args:
        name: a key of `CONDITIONS`.
        seed: of everything.
        out: folder of the study.
        confidence: factor on the scores of looks, at the start.
        progress: show progress bars.
    """
    started = time.monotonic()
    config = replace(CONDITIONS[name].config, seed=seed)
    quiet_libraries()
    torch.set_num_threads(config.runtime.threads)
    policy = taught(config, out / "taught", progress)
    soften_looks(policy, confidence)
    prefer_answers(policy, config, ANSWERS_AT_ONCE)
    folder = out / "runs" / f"{name}-{seed}-{confidence:g}"  # never resumed from another start
    loop = train_grpo.train if isinstance(config, train_grpo.Config) else train_ppo.train
    before = time.monotonic() - started
    run = loop(config, policy, folder, progress=progress)  # type: ignore[arg-type]  # each has its own config
    cell = _measure(name, config, confidence, policy, folder, before + run.seconds)
    path = cell_path(out, name, seed)
    with whole_file(path) as file:
        file.write(json.dumps(cell.__dict__).encode())
    return cell


def taught(config: RunConfig, folder: Path, progress: bool = False) -> CompactPolicy:
    """A policy that imitated the oracle for a while.

    It is taught once for all conditions of equal seed, frames and windows.
    """
    policy = make_compact(config)
    lesson = RunConfig(
        tasks=config.tasks,
        recipe=_lesson_recipe(config.rules),
        windows=config.windows,
        seed=config.seed,
    )
    name = "-".join(map(str, (lesson.rules.name.replace("/", "_"), *config.windows, config.seed)))
    path = folder / name
    if not path.exists():
        envs = [make_env(lesson, lesson.tasks) for _ in range(64)]
        teach(policy, envs, LESSON, config.seed, "oracle", progress)
        write_archive(path, {"policy": policy.state_dict()}, {})
    load_archive(path, {"policy": policy})
    return policy


def _lesson_recipe(recipe: Recipe) -> Recipe:
    """Conditions of one system are taught alike: turns, budgets and rewards are learnt later."""
    if recipe.rules.pool_frames:
        return _PAPER
    return _TINY if recipe.rules == _TINY.rules else recipe


@torch.no_grad()
def soften_looks(policy: CompactPolicy, factor: float) -> None:
    """Multiply the scores of all looks, so that a policy is less sure where to look."""
    for parameter in policy.look.parameters():
        parameter.mul_(factor)


@torch.no_grad()
def prefer_answers(policy: CompactPolicy, config: RunConfig, share: float) -> None:
    """Shift the scores of all answers until a policy answers a share of first observations at once.

    Args:
        policy: changed in place.
        config: whose tasks are observed.
        share: in (0, 1).
    """
    env = make_env(config, config.tasks)
    inputs = torch.stack([policy.read(env.reset(seed=seed)[0]) for seed in range(64)])
    logits, _ = policy(inputs)
    looks = config.looks
    low, high = -50.0, 50.0
    for _ in range(50):
        shift = (low + high) / 2
        shifted = torch.cat((logits[:, :looks], logits[:, looks:] + shift), -1)
        answered = float(shifted.softmax(-1)[:, looks:].sum(-1).mean())
        low, high = (shift, high) if answered < share else (low, shift)
    policy.answer_now.get_parameter("2.bias").add_(shift)


def _measure(
    name: str, config: RunConfig, confidence: float, policy: CompactPolicy, folder: Path, seconds: float
) -> Cell:
    held_out = config.evaluation.eval_tasks
    tasks = held_out.replace("split=val", "split=test").replace("count=200", "count=400")
    report = evaluate(Acting(policy), make_env(config, tasks))
    looks, env = [], make_env(config, tasks)
    for seed in range(50):
        observation, info = env.reset(seed=seed)
        state = env.unwrapped.state  # type: ignore[attr-defined]
        while not state.terminated:
            observation, *_, info = env.step(Acting(policy)(observation, info))
            state = env.unwrapped.state  # type: ignore[attr-defined]
        actions = [result.action for turn in state.turns for result in turn.results if result.clip]
        looks += [action.end_s - action.start_s for action in actions]
    steps = _read_curve(folder, "turns_total")
    curves = {}
    for curve in CURVES:
        points = _read_curve(folder, curve)
        curves[curve] = [(int(steps[step]), round(value, 4)) for step, value in points.items()]
    return Cell(
        condition=name,
        seed=config.seed,
        confidence=confidence,
        command=f"python -m agents.experiments.study --conditions {name} --seeds {config.seed} "
        f"--confidence {confidence:g}",
        recipe=config.rules.identity,
        accuracy=report.accuracy.mean,
        hit_rate=report.hit_rate.mean if report.hit_rate else math.nan,
        turns=report.turns.mean,
        frames=report.frames.mean,
        look_s=sum(looks) / len(looks) if looks else math.nan,
        seconds=seconds,
        curves=curves,
    )


def _read_curve(folder: Path, name: str) -> dict[int, float]:
    path = folder / "log" / "scalars" / f"{name}.csv"
    if not path.exists():
        return {}
    rows = (line.split(",") for line in path.read_text(encoding="utf-8").splitlines())
    return {int(step): float(value) for step, value in rows}


def main() -> None:
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_options(parser, "runs/study", seeds=(0, 1, 2, 3, 4))
    parser.add_argument(
        "--conditions",
        nargs="+",
        choices=CONDITIONS,
        default=list(CONDITIONS),
        help="ablations (default: all)",
    )
    parser.add_argument(
        "--confidence",
        type=number(Coefficient),
        default=0.0,
        help="confidence in looks at the start; 1: as taught (default: %(default)s)",
    )
    parser.add_argument("--report", action="store_true", help="print the report; run nothing")
    arguments = parser.parse_args()
    with resumable(parser, arguments.out):
        if not arguments.report:
            run_missing(
                arguments.conditions, arguments.seeds, arguments.out, arguments.confidence, arguments.jobs
            )
        sys.stdout.write(report(arguments.out))


def run_missing(
    names: Sequence[str], seeds: Sequence[int], out: Path, confidence: float, jobs: int
) -> None:
    """Run the cells that have no file yet, seed by seed."""
    missing = []
    for name, seed in ((name, seed) for seed in seeds for name in names):
        path = cell_path(out, name, seed)
        if not path.exists():
            missing.append((name, seed))
        elif (found := read_cell(path).confidence) != confidence:
            raise CheckpointMismatch(
                f"{path} started from confidence {found}, not {confidence}; choose another folder"
            )
    with runs_at_once(jobs) as pool:
        done = [pool.submit(run_cell, name, seed, out, confidence) for name, seed in missing]
        for future in (bar := tqdm(as_completed(done), total=len(done), desc="cells")):
            cell = future.result()
            bar.set_postfix_str(f"{cell.condition}-{cell.seed} {cell.accuracy:.3f}")


if __name__ == "__main__":
    main()
