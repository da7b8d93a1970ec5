"""What answers take on each of several benchmarks: LongVT's table of latency, on whatever device is here.

The paper's figures are seconds of a whole benchmark, on eight GPUs behind one server (its table of
inference latency). ``wall`` is that figure for one process; beside it stands what one question takes, and
where that goes. Of the seconds in which several episodes are answered together each has an equal share;
with ``--max-concurrent-rollouts 1`` they are what somebody waits for a single answer.

Run ``python -m agents.experiments.latency --checkpoint MODEL --recipe LONGVT/paper --tasks
video-mme:videomme.parquet lvbench:video_info.meta.jsonl --video-root videos/``, with the device and the
bounds of `agents.evaluate`; ``--episodes 50`` plays the first fifty of each.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from videogym.cost import Spread
from videogym.mistakes import in_a_line
from videogym.video.decoding_time import now_s

from ..engines.base import EngineError
from ..evaluate import OPTIONS, REFUSALS, Config, prepare
from ..training.command import interruptible, one_line, require_folder
from ..training.options import add_options, from_options, quiet_libraries
from ..training.ranks import alone
from ..training.staging import whole_file
from ..vlm.estimates import costs

_NOT = ("tasks", "trained_on", "by")  # options of an evaluation that have no place here


@dataclass(frozen=True)
class Latency:
    """What the answers of one benchmark took."""

    tasks: str  # their source
    wall_s: float  # of all episodes together, without loading the model and opening the videos
    cost: dict[str, Spread]  # by name, see `videogym.cost.quantities`; of episodes that were not cut
    cut: int
    left_out: int  # tasks that cannot be played


def measure(config: Config) -> Latency:
    """Play the tasks of a config.

    Raises:
        As `agents.evaluate.prepare`.
    """
    alone("agents.experiments.latency")
    evaluation = prepare(config)
    try:
        begun = now_s()
        records = evaluation.play(progress=True)
        wall_s = now_s() - begun
    finally:
        for actor, _ in ((evaluation.actor, evaluation.env), *evaluation.others):
            actor.engine.close()
    cut = sum(bool(record.abort_reason) for record in records)
    return Latency(config.tasks, wall_s, costs(records), cut, len(evaluation.left_out))


def table(found: Sequence[Latency]) -> list[str]:
    """A line for each benchmark: the wall time, then seconds of a question and means of the rest."""
    head = ("tasks", "questions", "wall", "mean", "median", "p95", "decoding", "model", "environment")
    rows: list[tuple[str, ...]] = [(*head, "tokens in", "tokens out", "frames", "rounds")]
    for one in found:
        if "seconds" not in one.cost:
            rows.append((one.tasks, "0", f"{one.wall_s:.1f}", *["–"] * 10))
            continue
        seconds = one.cost["seconds"]
        parts = [one.cost[name].mean for name in ("decoding_s", "model_s", "environment_s")]
        counts = [one.cost[name].mean for name in ("tokens_in", "tokens_out", "frames", "rounds")]
        cells = [f"{value:.3f}" for value in (seconds.mean, seconds.median, seconds.p95, *parts)]
        cells += [f"{value:.1f}" for value in counts]
        rows.append((one.tasks, str(seconds.count), f"{one.wall_s:.1f}", *cells))
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join((row[0].ljust(wide[0]), *map(str.rjust, row[1:], wide[1:]))).rstrip() for row in rows]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tasks", nargs="+", required=True, metavar="SOURCE", help="one or more benchmarks"
    )
    parser.add_argument("--out", type=Path, help="JSON file of the figures (default: none)")
    add_options(parser, Config, [name for name in OPTIONS if name not in _NOT])
    options = vars(parser.parse_args())
    quiet_libraries()
    with interruptible(lambda: "The same command measures anew"), one_line(parser, EngineError):
        measure_all(parser, options)


def measure_all(parser: argparse.ArgumentParser, options: dict[str, Any]) -> None:
    """Measure what the command names, write it and print it."""
    found = []
    if options["out"] is not None:
        require_folder(options["out"].parent)
    for source in options["tasks"]:
        try:
            config = from_options(Config, options | {"tasks": source})
            torch.set_num_threads(config.runtime.threads)
            found.append(measure(config))
        except REFUSALS as error:
            parser.error(f"{source}: {in_a_line(error)}")
    if options["out"] is not None:
        with whole_file(options["out"]) as file:
            file.write(f"{json.dumps([asdict(one) for one in found], indent=2)}\n".encode())
    sys.stdout.write("\n".join([*table(found), "Seconds; behind p95 all figures are means.", ""]))


if __name__ == "__main__":
    main()
