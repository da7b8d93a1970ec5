"""The study's cells as a table and as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib.figure import Figure

from videogym.evaluate import Estimate

from ..training.run import CheckpointMismatch
from .study_cells import CONDITIONS, Cell, read_cell


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
        raise CheckpointMismatch(
            f"cells of different starts, confidence {sorted(starts)}, lie in {out / 'cells'}"
        )
    text = table({name: cells[name] for name in CONDITIONS if name in cells})
    (out / "table.md").write_text(text, encoding="utf-8")
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
        "A line again: `python -m agents.experiments.study --conditions NAME --seeds 0 1 2 3 4 "
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
