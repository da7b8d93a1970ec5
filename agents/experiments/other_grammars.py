"""One policy, trained in one output language, on the same tasks in all others.

Each recipe plays the tasks by its own rules, behind its own words, and reads what the policy writes in its
own grammar. So a line says what is left of what was learnt: calls that this grammar reads too, answers
without a look, or nothing that it can read. A checkpoint of ours knows its recipe, which is the first line;
by default there is one more for every other grammar, of the first recipe that speaks it.

Run ``python -m agents.experiments.other_grammars --checkpoint runs/sft/model --tasks SOURCE --out
runs/other_grammars``. Episodes of every recipe are in a folder of its name, as `agents.evaluate` writes
them; the same command resumes what was stopped.
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

from videogym import get_recipe
from videogym.grammars import grammar_names
from videogym.intervals import Estimate
from videogym.mistakes import in_a_line
from videogym.recipes import recipe_names

from .. import evaluate
from ..engines.base import EngineError
from ..evaluate import OPTIONS, REFUSALS, Config
from ..policies import of_checkpoint
from ..training.command import interruptible, one_line, require_folder
from ..training.config_file import parse_with_config
from ..training.options import add_options, from_options, quiet_libraries
from ..training.ranks import alone
from ..training.staging import whole_file
from ..vlm.estimates import estimates
from ..vlm.played import PlayedFiles

_NOT = ("by",)  # options of an evaluation that have no place here
_METRICS = ("accuracy", "hit_rate", "turns", "looks", "invalid_rate", "cut_rate")


@dataclass(frozen=True)
class Line:
    """What the policy came to under one recipe."""

    recipe: str
    grammar: str
    episodes: int
    metrics: dict[str, Estimate]  # of `_METRICS`, those that there are
    left_out: int  # tasks that cannot be played


def one_for_each_grammar(first: str) -> list[str]:
    """A recipe, and for every grammar that it does not speak the first named one that does."""
    speakers = {get_recipe(name).grammar: name for name in reversed(recipe_names())}
    own = get_recipe(first).grammar
    return [first, *(speakers[name] for name in grammar_names() if name != own and name in speakers)]


def measure(config: Config, out: Path) -> Line:
    """Play the tasks of a config, and write the episodes to a folder.

    Raises:
        As `agents.evaluate.prepare`.
    """
    evaluation = evaluate.prepare(config)
    try:
        files = PlayedFiles(out / "played", evaluate.settings(evaluation))
        records = evaluation.play(progress=True, files=files)
    finally:
        for actor, _ in ((evaluation.actor, evaluation.env), *evaluation.others):
            actor.engine.close()
    evaluate.write(out, records, config)
    evaluate.write_metrics(out / "metrics.json", records, evaluation)
    files.finish()
    found = estimates(records, evaluation.tasks)
    metrics = {name: found[name] for name in _METRICS if name in found}
    grammar = str(config.rules.grammar)
    return Line(config.rules.name, grammar, len(records), metrics, len(evaluation.left_out))


def table(lines: Sequence[Line]) -> list[str]:
    """The lines as Markdown, shares with their 95 % intervals."""
    names = ("accuracy", "hit rate", "turns", "looks", "turns refused", "cut")
    head = ("recipe", "grammar", "questions", *names)
    rows = [head, ("---",) * len(head)]
    for one in lines:
        cells = [_cell(name, one.metrics.get(name)) for name in _METRICS]
        rows.append((f"`{one.recipe}`", f"`{one.grammar}`", str(one.episodes), *cells))
    return [f"| {' | '.join(row)} |" for row in rows]


def _cell(name: str, metric: Estimate | None) -> str:
    if metric is None:
        return "–"
    if name in ("accuracy", "hit_rate"):
        return f"{metric.mean:.2f} [{metric.low:.2f}, {metric.high:.2f}]"
    return f"{metric.mean:.2f}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    about = "recipes in this order (default: the checkpoint's own, and one for every other grammar)"
    parser.add_argument("--recipes", nargs="+", metavar="RECIPE", help=about)
    parser.add_argument("--out", type=Path, help="folder of the episodes and of lines.json")
    add_options(parser, Config, [name for name in OPTIONS if name not in _NOT])
    options = vars(parse_with_config(parser, beneath=of_checkpoint))
    quiet_libraries()
    with (
        interruptible(lambda: f"The same command resumes what was stopped in {options['out']}"),
        one_line(parser, EngineError),
    ):
        measure_all(parser, options)


def measure_all(parser: argparse.ArgumentParser, options: dict[str, Any]) -> None:
    """Play under every recipe that the command names, write it and print it."""
    try:
        alone("agents.experiments.other_grammars")
        if options["out"] is None or not (options["recipes"] or options["recipe"]):
            raise ValueError("name the folder of what is played, --out, and --recipe or --recipes")
        require_folder(options["out"])
        recipes = options["recipes"] or one_for_each_grammar(options["recipe"])
        configs = [from_options(Config, options | {"recipe": name}) for name in recipes]
        _ = [config.rules for config in configs]  # all names are known before anything is played
        torch.set_num_threads(configs[0].runtime.threads)
        lines = [measure(config, options["out"] / config.rules.name) for config in configs]
    except REFUSALS as error:
        parser.error(in_a_line(error))
    with whole_file(options["out"] / "lines.json") as file:
        file.write(f"{json.dumps([asdict(one) for one in lines], indent=2)}\n".encode())
    sys.stdout.write("\n".join([*table(lines), "Of turns and looks, means of an episode.", ""]))


if __name__ == "__main__":
    main()
