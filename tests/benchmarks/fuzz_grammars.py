"""Throw random and mutated texts at every grammar: no exception, no hang, an action or a coded reason.

``python tests/benchmarks/fuzz_grammars.py --count 200000`` reads that many texts with each grammar, in
turn for a choice, an open and a numeric task, under rules that open all actions and all arguments of looks.
Exit status 0 if all were read.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from videogym.actions import Answer, Crop, Find, Select
from videogym.grammars import Grammar, get_grammar, grammar_names
from videogym.state import Action, Invalid, State, TaskKind
from videogym.testing.grammar_suite import check_parsing, example_state, fuzz_texts

KINDS: tuple[TaskKind, ...] = ("choice", "open", "numeric")
ACTIONS: tuple[Action, ...] = (
    *(Answer(text) for text in ("B", "3.14")),
    *(Select(6.0, 20.0), Crop(1.5, 20.25), Crop(1.0, 2.0, (0.0, 0.0, 0.5, 1.0))),
    Crop(1.5, 20.25, fps=2),
    Crop(1.5, 20.25, frames=4, scale=0.5),
    *(Find("a red flag"), Find("a red flag", 3)),
)
OPEN: dict[str, Any] = {
    "actions": ("select", "crop", "find", "answer"),
    "regions": True,
    "crop_arguments": ("fps", "frames", "scale"),
    "max_calls_per_turn": 3,
}
TAGS = ("think", "answer", "retrieve", "tool_call", "tool_response", "tools", "video_zoom", "tool_code")
HANG_S = 10  # a text of this size is read in milliseconds


def main() -> None:
    """Read the arguments and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200_000, help="texts for each grammar")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in grammar_names():
        start = time.perf_counter()
        outcomes: Counter[str] = Counter()
        for i, kind in enumerate(KINDS):
            share = options.count // len(KINDS) + (i < options.count % len(KINDS))
            state = example_state(kind, **OPEN)
            outcomes += fuzz(get_grammar(name), state, share, options.seed + i)
        total, seconds = sum(outcomes.values()), time.perf_counter() - start
        print(f"{name}: {total} texts in {seconds:.0f} s, all read; {dict(outcomes.most_common())}")


def fuzz(grammar: Grammar, state: State, count: int, seed: int) -> Counter[str]:
    """Outcomes of that many texts, by code of the refusal or class of the action.

    Raises:
        AssertionError: a text was read as something that is neither an action nor a coded reason.
        TimeoutError: reading a text took longer than any text may.
    """
    outcomes: Counter[str] = Counter()
    texts = fuzz_texts(seeds_of(grammar, state), TAGS, count, seed)
    for text in watched(texts):
        check_parsing(grammar, state, [text])
        action = grammar.parse(text, state).actions[0]
        outcomes[action.code if isinstance(action, Invalid) else type(action).__name__] += 1
    return outcomes


def seeds_of(grammar: Grammar, state: State) -> list[str]:
    """Well-formed texts of all actions that the grammar has words for."""
    seeds = []
    for action in ACTIONS:
        try:
            seeds.append(grammar.write(action, state, "so"))
        except ValueError:
            continue  # not an action of this grammar
    return seeds


def watched(texts: Iterable[str]) -> Iterator[str]:
    """The texts, with an alarm set while each is worked on."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"reading one text took more than {HANG_S} s")

    signal.signal(signal.SIGALRM, ring)
    for text in texts:
        signal.alarm(HANG_S)
        yield text
    signal.alarm(0)


if __name__ == "__main__":
    main()
