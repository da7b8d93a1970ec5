"""The papers' ablations, run again from scratch: named conditions, several seeds, one result file a cell.

What is studied is the reward, not the network: before every run a compact policy imitates the oracle for
a short while, which teaches it to see and to answer. Then the scores of all looks are multiplied by a
factor, 0 unless ``--confidence`` says otherwise, so that it does not know any more where to look, and
those of the answers are raised until it answers at once in 95 % of the episodes, as the papers' base
models do. Whether it comes to look around, and where, is left to reinforcement learning under the recipe
of the condition.

Run ``python -m agents.study --out runs/study``. Cells that are done are not done again, so a study can
be stopped and gone on with at any time; ``--report`` only writes the table and the curves.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from videogym import Recipe, Term, evaluate, get_recipe
from videogym.evaluate import Estimate
from videogym.rewards import CropOverlap

from . import train_grpo, train_ppo
from .imitation import ImitationConfig, teach
from .loop import end_with_parent, quiet_libraries
from .policies.compact import CompactPolicy
from .policies.discrete import Acting
from .run import RunConfig, make_compact, make_env

ANSWERS_AT_ONCE = 0.95  # share of episodes in which the policy answers in its first turn, at the start
LESSON = ImitationConfig(rounds=30)
SCALES = (1, 4, 16)  # of windows, where a policy may choose how wide it looks
CURVES = ("eval_accuracy", "eval_turns", "trained_reward", "retrieval_rate", "success", "seconds_total")


@dataclass(frozen=True)
class Condition:
    """One line of the study."""

    question: str  # what it is there to tell
    config: RunConfig  # its class decides the algorithm


def _ppo(recipe: Recipe | str = "VIDEO_MTR/paper", **changes: Any) -> train_ppo.Config:
    values: dict[str, Any] = {"recipe": recipe, "bonus": "paper", "iterations": 40, **changes}
    return train_ppo.Config(**_MEASURED, **values)


def _grpo(recipe: Recipe | str, **changes: Any) -> train_grpo.Config:
    values: dict[str, Any] = {"recipe": recipe, "iterations": 40, "scale_by_std": False, **changes}
    return train_grpo.Config(**_MEASURED, **values)


_MEASURED: dict[str, Any] = {"eval_every": 5, "eval_episodes": 100, "checkpoint_every": 20}
_PAPER = get_recipe("VIDEO_MTR/paper")
# A skim of 64 frames would show the events of these videos.
_TINY = get_recipe("LONGVT_TINY")
_TINY = replace(
    _TINY, name="LONGVT_TINY, skim of 16", rules=replace(_TINY.rules, skim_frames=16, clip_frames=8)
)


def _with_rules(name: str, **rules: Any) -> Recipe:
    return replace(_PAPER, name=f"{_PAPER.name}, {name}", rules=replace(_PAPER.rules, **rules))


def _only(recipe: Recipe, name: str, *terms: Term) -> Recipe:
    return replace(recipe, name=f"{recipe.name}, {name}", terms=terms)


_ANSWER, _FORMAT = (next(t for t in _TINY.terms if t.name == name) for name in ("answer", "format"))
_CODE = replace(
    get_recipe("VIDEO_MTR/code"), name="VIDEO_MTR/code rewards, paper's rules", rules=_PAPER.rules
)

CONDITIONS: dict[str, Condition] = {
    "full": Condition("Video-MTR as in the paper", _ppo()),
    "trajectory_only": Condition(
        "of the recipe only the answer is paid",
        _ppo(_only(_PAPER, "answer only", *(t for t in _PAPER.terms if t.level == "trajectory"))),
    ),
    "no_gate": Condition("turn rewards are kept when the answer is wrong", _ppo(gate="none")),
    "no_bootstrapping": Condition("looking as such is never paid", _ppo(bonus="none")),
    "grpo": Condition("GRPO in place of PPO, looking as such never paid", _grpo("VIDEO_MTR/paper")),
    "single_turn": Condition(
        "all 32 frames at once, one turn; events hide from just this skim",
        _ppo(_with_rules("one turn of 32", max_turns=1, skim_frames=32)),
    ),
    "single_turn_33": Condition(
        "33 frames at once, from which events do not hide",
        _ppo(_with_rules("one turn of 33", max_turns=1, skim_frames=33, frame_budget=33)),
    ),
    "turns_1": Condition("at most 1 turn: the skim", _ppo(_with_rules("1 turn", max_turns=1))),
    "turns_2": Condition("at most 2 turns", _ppo(_with_rules("2 turns", max_turns=2))),
    "turns_5": Condition(
        "at most 5 turns, 48 frames", _ppo(_with_rules("5 turns", max_turns=5, frame_budget=48))
    ),
    "budget_16": Condition(
        "16 frames: 8 + 4 + 4", _ppo(_with_rules("16", skim_frames=8, clip_frames=4, frame_budget=16))
    ),
    "budget_64": Condition("64 frames: 32 + 16 + 16", _ppo("VIDEO_MTR/paper-64-paper")),
    "budget_80": Condition("80 frames: 40 + 20 + 20", _ppo("VIDEO_MTR/paper-80-paper")),
    "code_profile": Condition(
        "rewards, gate, bonus and discount of the published code",
        _ppo(_CODE, gate="code", bonus="code", gamma=1.0),
    ),
    "longvt_none": Condition(
        "LongVT without time reward", _grpo(_only(_TINY, "no time", _ANSWER, _FORMAT), windows=SCALES)
    ),
    "longvt_recall": Condition(
        "LongVT, recall as time reward",
        _grpo(
            _only(_TINY, "recall", _ANSWER, _FORMAT, Term("time", "trajectory", CropOverlap("recall"))),
            windows=SCALES,
        ),
    ),
    "longvt_iou": Condition("LongVT, IoU as time reward", _grpo(_TINY, windows=SCALES)),
    "default": Condition("videogym's own recipe", _ppo("DEFAULT", bonus="none", windows=SCALES)),
}


@dataclass(frozen=True)
class Cell:
    """One condition with one seed, run."""

    condition: str
    seed: int
    confidence: float  # factor on the scores of looks, at the start
    command: str  # that runs it again
    recipe: str
    accuracy: float  # on held-out tasks, likeliest actions, as are the next four
    hit_rate: float
    turns: float
    frames: float
    look_s: float  # mean length of looks, seconds; NaN without looks
    seconds: float  # the whole run, teaching included where it was done for this cell
    curves: dict[str, list[tuple[int, float]]] = field(repr=False)  # (turns played in all, value)


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
    torch.set_num_threads(config.threads)
    policy = taught(config, out / "taught", progress)
    soften_looks(policy, confidence)
    prefer_answers(policy, config, ANSWERS_AT_ONCE)
    folder = out / "runs" / f"{name}-{seed}-{confidence:g}"  # never gone on with from another start
    loop = train_grpo.train if isinstance(config, train_grpo.Config) else train_ppo.train
    loop(config, policy, folder, progress=progress)  # type: ignore[arg-type]  # each takes its own config
    cell = _measure(name, config, confidence, policy, folder, time.monotonic() - started)
    path = cell_path(out, name, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(cell.__dict__))
    part.replace(path)
    return cell


def cell_path(out: Path, name: str, seed: int) -> Path:
    """File of a cell."""
    return out / "cells" / f"{name}-{seed}.json"


def read_cell(path: Path) -> Cell:
    """A cell that was written."""
    return Cell(**json.loads(path.read_text()))


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
    path = folder / f"{name}.pt"
    if not path.exists():
        envs = [make_env(lesson, lesson.tasks) for _ in range(64)]
        teach(policy, envs, LESSON, config.seed, "oracle", progress)
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        torch.save(policy.state_dict(), part)
        part.replace(path)
    policy.load_state_dict(torch.load(path, weights_only=True))
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
    looks = sum(config.windows)
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
    tasks = config.eval_tasks.replace("split=val", "split=test").replace("count=200", "count=400")
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
        command=f"python -m agents.study --conditions {name} --seeds {config.seed} "
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
    rows = (line.split(",") for line in path.read_text().splitlines())
    return {int(step): float(value) for step, value in rows}


# --- report ------------------------------------------------------------------------------------


def report(out: Path) -> str:
    """Write ``table.md`` and ``curves.png`` from the cells that are done; returns the table."""
    cells: dict[str, list[Cell]] = {}
    for path in sorted((out / "cells").glob("*.json")):
        cell = read_cell(path)
        cells.setdefault(cell.condition, []).append(cell)
    if not cells:
        raise FileNotFoundError(f"{out / 'cells'} holds no cell yet; run the study first")
    starts = {cell.confidence for group in cells.values() for cell in group}
    if len(starts) > 1:
        raise ValueError(f"cells of different starts, confidence {sorted(starts)}, lie in {out / 'cells'}")
    text = table({name: cells[name] for name in CONDITIONS if name in cells})
    (out / "table.md").write_text(text)
    draw(cells, out / "curves.png")
    draw_algorithms(cells, out / "ppo_grpo.png")
    return text


def table(cells: Mapping[str, Sequence[Cell]]) -> str:
    """Markdown, one line a condition; means over seeds with 95 % intervals."""
    lines = [
        "| condition | accuracy | by seed | first half | turns | frames | look, s | reward, start to end "
        "| min a run |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, group in cells.items():
        shares = mean([cell.accuracy for cell in group])
        early = mean([_early(cell) for cell in group])
        by_seed = ", ".join(f"{cell.accuracy:.2f}" for cell in group)
        turns, frames, seconds = (
            fmean([getattr(cell, column) for cell in group]) for column in ("turns", "frames", "seconds")
        )
        looks = [cell.look_s for cell in group if not math.isnan(cell.look_s)]
        width = f"{fmean(looks):.0f}" if looks else "none"
        rewards = [_ends(cell, "trained_reward") for cell in group]
        first, last = (fmean([pair[i] for pair in rewards]) for i in (0, 1))
        lines.append(
            f"| `{name}`: {CONDITIONS[name].question} | {shares} | {by_seed} | {early} | {turns:.2f} "
            f"| {frames:.1f} | {width} | {first:.2f} to {last:.2f} | {seconds / 60:.1f} |"
        )
    group = next(iter(cells.values()))
    lines += [
        "",
        "A line again: `python -m agents.study --conditions NAME --seeds 0 1 2 3 4 "
        f"--confidence {group[0].confidence:g}`.",
    ]
    return "\n".join(lines) + "\n"


def _early(cell: Cell) -> float:
    """Mean held-out accuracy over the first half of training: how fast it was learnt."""
    points = [value for _, value in cell.curves["eval_accuracy"]]
    half = points[: max(1, len(points) // 2)]
    return sum(half) / len(half)


def _ends(cell: Cell, curve: str) -> tuple[float, float]:
    """Means of a curve's first and last tenth."""
    values = [value for _, value in cell.curves[curve]]
    tenth = max(1, len(values) // 10)
    return sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth


# Student's t, two-sided 95 %, by the number of seeds: with few of them a normal interval is too narrow.
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


def mean(values: Sequence[float]) -> Estimate:
    """Mean over seeds with its 95 % interval; the interval of a single value is the value.

    Raises:
        ValueError: there are more values than `T95` knows.
    """
    count = len(values)
    if count > 1 and count not in T95:
        raise ValueError(f"intervals are known for 1 to {max(T95)} seeds, got {count}")
    half = T95[count] * stdev(values) / math.sqrt(count) if count > 1 else 0.0
    centre = fmean(values)
    return Estimate(centre, centre - half, centre + half, count)


PANELS = {
    "rewards": ("full", "trajectory_only", "no_gate", "no_bootstrapping", "code_profile"),
    "turns": ("full", "single_turn", "single_turn_33", "turns_1", "turns_2", "turns_5"),
    "budgets": ("budget_16", "full", "budget_64", "budget_80"),
    "crops": ("longvt_none", "longvt_recall", "longvt_iou", "default"),
}


def draw(cells: Mapping[str, Sequence[Cell]], path: Path) -> None:
    """Held-out accuracy against turns played, mean and 95 % interval over seeds."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for name in names:
            if name in cells:
                steps, estimates = _mean_curve(cells[name])
                (line,) = axes.plot(steps, [e.mean for e in estimates], label=name)
                bounds = [e.low for e in estimates], [e.high for e in estimates]
                axes.fill_between(steps, *bounds, alpha=0.2, color=line.get_color())
        axes.set(title=title, xlabel="turns played", ylabel="held-out accuracy", ylim=(0, 1))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def draw_algorithms(cells: Mapping[str, Sequence[Cell]], path: Path) -> None:
    """PPO and GRPO on the same task from the same start, against turns played and against time."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label in (("no_bootstrapping", "PPO"), ("grpo", "GRPO")):
        for i, cell in enumerate(cells.get(name, ())):
            turns, accuracy = zip(*cell.curves["eval_accuracy"], strict=True)
            times = dict(cell.curves["seconds_total"])
            style: dict[str, Any] = {"color": "C0" if label == "PPO" else "C1", "alpha": 0.6}
            left.plot(turns, accuracy, label=label if i == 0 else None, **style)
            right.plot([times[step] for step in turns], accuracy, label=label if i == 0 else None, **style)
    left.set(xlabel="turns played", ylabel="held-out accuracy", ylim=(0, 1))
    right.set(xlabel="seconds", ylim=(0, 1))
    if left.get_legend_handles_labels()[0]:
        left.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def _mean_curve(group: Sequence[Cell]) -> tuple[list[float], list[Estimate]]:
    rows = list(zip(*(cell.curves["eval_accuracy"] for cell in group), strict=False))
    steps = [sum(step for step, _ in row) / len(row) for row in rows]
    return steps, [mean([value for _, value in row]) for row in rows]


def main() -> None:
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--confidence", type=float, default=0.0, help="in looks, at the start; 1: as taught"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cells at a time")
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
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
            raise ValueError(
                f"{path} started from confidence {found}, not {confidence}; choose another folder"
            )
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=end_with_parent) as pool:
        done = [pool.submit(run_cell, name, seed, out, confidence) for name, seed in missing]
        for future in (bar := tqdm(as_completed(done), total=len(done), desc="cells")):
            cell = future.result()
            bar.set_postfix_str(f"{cell.condition}-{cell.seed} {cell.accuracy:.3f}")


if __name__ == "__main__":
    main()
