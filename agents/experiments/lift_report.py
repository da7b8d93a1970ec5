"""Results of `agents.experiments.lift` as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from videogym.comparison.paired import share_difference
from videogym.evaluate import proportion

LESSONS = ("lesson", "practice", "second_lesson", "second_practice")  # what the cold start begins from


def table(results: Sequence[dict[str, dict[str, Any]]]) -> str:
    """Markdown, a line a stage: means over seeds, and differences to the cold start by seed."""
    lines = [
        "| stage | sampled | greedy | by seed, sampled | more than sft, sampled | more than sft, greedy "
        "| blind | skim only | first look met | right if met | guessed | looks | tokens | CPU minutes |",
        "|" + "---|" * 14,
    ]
    names = dict.fromkeys(name for seed in results for name in seed)
    for name in names:
        # On other tasks than those of the cold start, with it on these.
        rows = [
            (seed[name], seed[name].get("compared", seed).get("sft")) for seed in results if name in seed
        ]
        right = {way: [x for row, _ in rows for x in row[way]["right"]] for way in ("sampled", "greedy")}
        later = [(row, start) for row, start in rows if start is not None and name not in (*LESSONS, "sft")]
        gained = [
            "; ".join(
                _signed(share_difference(start[way]["right"], row[way]["right"])) for row, start in later
            )
            for way in ("sampled", "greedy")
        ]
        mean = partial(_mean, [row for row, _ in rows])
        cells = [
            *(str(proportion(sum(values), len(values))) for values in right.values()),
            ", ".join(f"{np.mean(row['sampled']['right']):.3f}" for row, _ in rows),
            *gained,
            mean("blind", "accuracy"),
            mean("skim", "accuracy"),
            *(mean("sampled", key) for key in ("first_look_met", "right_if_met", "guessed")),
            mean("sampled", "looks"),
            mean("sampled", "tokens"),
            f"{np.mean([row['cpu_seconds'] for row, _ in rows]) / 60:.1f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    told = [_compared(name, [seed[name] for seed in results if name in seed]) for name in names]
    return "\n".join([*lines, *filter(None, told)]) + "\n"


def _compared(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """What others make of the tasks of a stage, in a paragraph; "": they are those of all stages."""
    if "compared" not in rows[0]:
        return ""
    told = [
        f"{other} {_mean([row['compared'][other] for row in rows], 'sampled', 'accuracy')} sampled, "
        f"{_mean([row['compared'][other] for row in rows], 'greedy', 'accuracy')} greedy"
        for other in rows[0]["compared"]
    ]
    return f"\nOn the tasks of {name}: {'; '.join(told)}."


def _mean(rows: Sequence[dict[str, Any]], way: str, figure: str) -> str:
    found = [row[way][figure] for row in rows if way in row and row[way][figure] is not None]
    return f"{np.mean(found):.3g}" if found else "none"


def _signed(estimate: Any) -> str:
    return f"{estimate.mean:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


PANELS = {
    "what it does": ("accuracy", "searched", "first_look_met", "right_if_met"),
    "exploits": ("guessed", "looked_never", "looked_everywhere"),
}


def draw(results: Sequence[dict[str, dict[str, Any]]], path: Path) -> None:
    """Shares of rollouts by iteration, a row a stage; a thin line a seed, a thick one their mean."""
    names = list(dict.fromkeys(name for seed in results for name in seed if seed[name].get("curves")))
    figure = Figure(figsize=(11, 3.2 * len(names)), layout="constrained")
    for axes, name in zip(figure.subplots(len(names), len(PANELS), squeeze=False), names, strict=True):
        seeds = [seed[name]["curves"] for seed in results if name in seed]
        for panel, (title, shares) in zip(axes, PANELS.items(), strict=True):
            for number, share in enumerate(shares):
                # None, where no episode counts, is drawn as a gap.
                lines = [np.array(curves[share], dtype=float) for curves in seeds]
                for line in lines:
                    panel.plot(line, color=f"C{number}", alpha=0.3, linewidth=0.8)
                panel.plot(np.mean(lines, axis=0), color=f"C{number}", label=share.replace("_", " "))
            panel.set(
                title=f"{name}: {title}", xlabel="iteration", ylabel="share of rollouts", ylim=(0, 1.02)
            )
            panel.legend(fontsize="small")
    figure.savefig(path)
