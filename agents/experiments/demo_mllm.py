"""From random weights to a policy that looks and reads: both papers' stages on a tiny Qwen2.5-VL.

Procedural videos of 256 seconds, a question about a shape that shows for three (LongVT's recipe) or six
(Video-MTR's); the skim shows which scene to look at. Video-MTR's of 16 frames never meets the shape; of
LongVT's 64 one shows it in three of four videos, where a model could do without a look. Every stage starts
from the one before:

- ``base``: random weights;
- ``sft``: `agents.train_sft` on demonstrations that say what the frames show;
- ``grpo``, then ``rft``: `agents.train_grpo_mllm` and `agents.train_rft`, under LONGVT_TINY;
- ``ppo``: `agents.train_ppo_mllm`, under VIDEO_MTR_TINY;
- ``grpo_alone``, ``ppo_alone``: the same from random weights.

Each model answers held-out questions three times: as it is, with every frame painted grey, and with all but
the skim's painted grey. What is left then is what it can know without seeing, and without looking.

Run ``python -m agents.experiments.demo_mllm --out runs/demo-mllm``. What is done is not done again, and a
stage that was stopped goes on. It exits with 1 where a seed misses a goal: after ``sft`` more right answers
by `SIGHT` than blind and than by guessing among the options, after reinforcement learning at least `GOAL`
of all, and no stage worse than the one before by more than is likely.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from contextlib import redirect_stderr
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from videogym import FrameStore
from videogym.comparison.compare import LEVEL, p_value
from videogym.comparison.paired import mcnemar
from videogym.datasets import load_tasks
from videogym.evaluate import hits as met
from videogym.evaluate import proportion

from .. import train_grpo_mllm, train_ppo_mllm, train_rft, train_sft
from ..models.visuals import FrameReader
from ..training.options import quiet_libraries
from ..vlm.config import ChatConfig
from ..vlm.evaluation import greedy, hits, rollout_metrics
from ..vlm.policy import make_actor, make_model
from ..vlm.records import Record
from ..vlm.rollouts import make_chat_env, play_tasks
from ..vlm.tiny import tiny_checkpoint
from .runs import add_run_options, resumable, runs_at_once
from .stages import (
    SIZES,
    Grey,
    Stage,
    add_recipes_option,
    begun,
    described,
    result,
    selection,
    shared_options,
    skim,
)

GOAL = 0.85  # of the oracle, which answers everything
SIGHT = 0.1  # more right answers than blind or by guessing, of a model that sees
TESTED = 200  # held-out tasks


def stages(recipe: str, seed: int) -> dict[str, Stage]:
    """What is trained under a recipe, by name, parents first."""
    shared = shared_options(recipe, seed)
    lesson: dict[str, Any] = {
        "learning_rate": 2e-3,
        "warmup": 0.05,
        "beta2": 0.98,
        "wrong_looks": 0.05,
        "script": "scenes",
    }
    lesson |= {"demonstrated_tasks": 5000, "per_task": 1, "groups": 12, "eval_every": 100}
    sft = train_sft.Config.of(**shared, **lesson, iterations=1500)
    if recipe == "VIDEO_MTR_TINY":
        # Small steps over many episodes: most of what is sampled differently decides nothing.
        rl: dict[str, Any] = {
            "learning_rate": 3e-5,
            "critic_learning_rate": 1e-2,
            "entropy_coef": 0.0,
            "eval_every": 15,
        }
        ppo = train_ppo_mllm.Config.of(
            **shared, **rl, iterations=30, groups=64, mini_batch_size=32, micro_batch_size=16
        )
        # What random weights say is five times as long and never right.
        ppo_alone = replace(ppo, groups=16, iterations=10)
        # Indices of a pool come later than seconds: after 1,500 steps two of three seeds still misread
        # an eighth of the tasks they were trained on.
        sft = sft.with_options(window=ppo.sampling.window, iterations=2500)
        return {
            "sft": Stage("base", train_sft.train, sft),
            "ppo": Stage("sft", train_ppo_mllm.train, ppo),
            "ppo_alone": Stage("base", train_ppo_mllm.train, ppo_alone),
        }
    grpo = train_grpo_mllm.Config.of(
        **shared,
        learning_rate=1e-4,
        kl_coef=0.0,
        iterations=30,
        eval_every=10,
        groups=16,
        group_size=8,
        mini_batch_groups=4,
    )
    alone = replace(grpo, groups=8, iterations=10)
    return {
        "sft": Stage("base", train_sft.train, sft),
        "grpo": Stage("sft", train_grpo_mllm.train, grpo),
        "rft": Stage("grpo", train_rft.train, selection(shared)),
        "grpo_alone": Stage("base", train_grpo_mllm.train, alone),
    }


def run_seed(recipe: str, seed: int, out: Path) -> dict[str, dict[str, Any]]:
    """All stages of a seed that have no result yet; returns the results by stage.

    Raises:
        CheckpointMismatch: a result is there that was made in another way.
    """
    folder = out / recipe / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    quiet_libraries()
    disable_progress_bar()
    torch.set_num_threads(1)
    todo = stages(recipe, seed)
    lesson = todo["sft"].config
    assert isinstance(lesson, train_sft.Config)
    tiny_checkpoint(folder / "base", lesson, train_sft.demonstrator(lesson), **SIZES)
    made_by = {"base": f"{SIZES} {TESTED} {lesson.rules.identity} {lesson.evaluation.eval_tasks}"}
    results = {}
    with (
        (folder / "log.txt").open("a", encoding="utf-8") as log,
        redirect_stderr(log),
    ):  # bars of two runs would mix
        path = folder / "base.json"
        results["base"] = result(path, made_by["base"], lambda: measure(lesson, folder / "base"))
        for name, stage in todo.items():
            made_by[name] = f"{made_by[stage.parent]} {described(stage.config)}"
            work = partial(run_stage, name, stage, folder)
            results[name] = result(folder / f"{name}.json", made_by[name], work)
    return results


def run_stage(name: str, stage: Stage, folder: Path) -> dict[str, Any]:
    """Train and measure one stage."""
    config, actor = begun(stage, folder, folder / stage.parent)
    run = stage.train(config, actor, folder / "runs" / name, True)
    actor.model.save(str(folder / name))
    return measure(config, folder / name) | {"seconds": run.seconds}


def measure(config: ChatConfig, checkpoint: Path) -> dict[str, Any]:
    """Figures of a model's likeliest outputs on held-out tasks: seeing, blind, and seeing the skim alone.

    Returns:
        See `agents.vlm.evaluation.rollout_metrics`; ``hit_rate``, the skim included; ``right``,
        ``right_blind`` and ``right_skim``, whether each task was answered right; ``changed``, the share of
        answers that are others when it sees nothing; ``skim_hit_rate``, that of the skim alone.
    """
    started = time.monotonic()
    config = config.with_options(checkpoint=str(checkpoint), eval_tasks=tested(config))
    store = FrameStore(open_videos=64)
    tasks = load_tasks(config.evaluation.eval_tasks)[:TESTED]
    skims = {task.task_id: skim(config, task.task_id) for task in tasks}
    shown = {task.video: frozenset(skims[task.task_id].times_s) for task in tasks}
    eyes: dict[str, FrameReader] = {
        "right": store,
        "right_blind": Grey(store, {}),
        "right_skim": Grey(store, shown),
    }
    played: dict[str, list[Record]] = {}
    for name, eye in eyes.items():
        actor = make_actor(config, make_model(config, eye))
        env = make_chat_env(config, actor.model, config.evaluation.eval_tasks)
        played[name] = list(play_tasks(env, greedy(actor), list(skims), at_once=100))
        env.env.close()
    said = [
        [record.turns[-1].text.partition("<answer>")[2] for record in played[name]]
        for name in ("right", "right_blind")
    ]
    return {
        **rollout_metrics(played["right"]),
        **hits(played["right"], tasks),
        "skim_hit_rate": float(np.mean([bool(met(task, [skims[task.task_id]])) for task in tasks])),
        **{name: [bool(record.success) for record in records] for name, records in played.items()},
        "changed": float(np.mean([one != other for one, other in zip(*said, strict=True)])),
        "seconds_measured": time.monotonic() - started,
    }


def tested(config: ChatConfig) -> str:
    """Source of the tasks that models are measured on, the first `TESTED`; no run evaluates on them."""
    return config.evaluation.eval_tasks.replace("split=val", "split=test")


def guessed(recipe: str) -> float:
    """Share of the tested tasks that a guess among their options gets right."""
    tasks = load_tasks(tested(stages(recipe, seed=0)["sft"].config))[:TESTED]
    return float(np.mean([1 / len(task.options) for task in tasks]))


def table(results: Sequence[dict[str, dict[str, Any]]]) -> str:
    """Markdown, a line a stage; all seeds answer the same tasks, the interval takes them as independent."""
    lines = [
        "| stage | right | by seed | blind | skim only | changed | met the event | looks | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in results[0]:
        rows = [seed[name] for seed in results]
        right = [x for row in rows for x in row["right"]]
        cells = [
            str(proportion(sum(right), len(right))),
            ", ".join(f"{np.mean(row['right']):.3f}" for row in rows),
            *(f"{np.mean([row[key] for row in rows]):.3f}" for key in ("right_blind", "right_skim")),
            *(f"{np.mean([row[key] for row in rows]):.2f}" for key in ("changed", "hit_rate", "looks")),
            f"{np.mean([row.get('seconds', 0.0) for row in rows]) / 60:.1f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def missed(recipe: str, seed: int, results: dict[str, dict[str, Any]]) -> list[str]:
    """What of a seed falls short of the goals, in words.

    A stage is worse than its parent if an exact McNemar test at 5 % says so of the tasks that one of the
    two alone got right.
    """
    short = []
    seeing, blind = (float(np.mean(results["sft"][key])) for key in ("right", "right_blind"))
    guess = guessed(recipe)
    if seeing < max(blind, guess) + SIGHT:
        instead = f"{blind:.3f} without seeing, {guess:.3f} by guessing"
        short.append(f"seed {seed}: after sft {seeing:.3f} are right, {instead}")
    best = max(float(np.mean(results[name]["right"])) for name in ("grpo", "rft", "ppo") if name in results)
    if best < GOAL:
        short.append(f"seed {seed}: after reinforcement learning {best:.3f} are right, fewer than {GOAL}")
    for name, stage in stages(recipe, seed).items():
        if name in results:
            pairs = list(zip(results[stage.parent]["right"], results[name]["right"], strict=True))
            test = mcnemar(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs))
            if test.only_a > test.only_b and test.p < LEVEL:
                short.append(
                    f"seed {seed}: {name} is worse than {stage.parent}: right in {test.only_b} that "
                    f"{stage.parent} is not, wrong in {test.only_a} that it is, {p_value(test.p)}"
                )
    return short


def main() -> None:
    """Run the stages that are missing and print the tables; exit with 1 where a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_options(parser, "runs/demo-mllm", seeds=(0, 1, 2))
    add_recipes_option(parser)
    arguments = parser.parse_args()
    with resumable(parser, arguments.out):
        run_pairs(arguments)


def run_pairs(arguments: argparse.Namespace) -> None:
    """Run what the command names, and print it."""
    pairs = list(dict.fromkeys((recipe, seed) for seed in arguments.seeds for recipe in arguments.recipes))
    cells = [
        arguments.out / recipe / f"seed-{seed}" / f"{name}.json"
        for recipe, seed in pairs
        for name in ("base", *stages(recipe, seed))
    ]
    with runs_at_once(arguments.jobs) as pool:
        runs = {pair: pool.submit(run_seed, *pair, arguments.out) for pair in pairs}
        with tqdm(total=len(cells), desc="stages") as bar:
            waiting = True
            while waiting:
                done = wait(runs.values(), timeout=2.0, return_when=FIRST_EXCEPTION)
                for run in done.done:
                    run.result()  # raises what a stage has raised
                waiting = bool(done.not_done)
                bar.update(sum(cell.exists() for cell in cells) - bar.n)
    results = {pair: run.result() for pair, run in runs.items()}
    short = []
    for recipe in arguments.recipes:
        rows = [results[recipe, seed] for seed in arguments.seeds]
        text = table(rows)
        (arguments.out / recipe / "table.md").write_text(text, encoding="utf-8")
        sys.stdout.write(f"\n{recipe}, {TESTED} held-out questions a seed\n\n{text}")
        lines = [line for seed in arguments.seeds for line in missed(recipe, seed, results[recipe, seed])]
        short += [f"{recipe}, {line}" for line in lines]
    if short:
        sys.exit("\n".join(short))


if __name__ == "__main__":
    main()
