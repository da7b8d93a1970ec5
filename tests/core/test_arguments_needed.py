"""Where a rate, a scale or a search is needed, read in real pixels: with it an oracle sees all."""

# ruff: noqa: D103

from dataclasses import replace

import pytest
from needed_arguments import CHANCE, NEEDED

from videogym.datasets import load_tasks
from videogym.search import ProceduralIndex

COUNTS = {"rate": 100, "scale": 24, "search": 100}


@pytest.mark.parametrize("needed", NEEDED, ids=lambda needed: needed.name)
def test_the_argument_is_all_that_is_missing(needed):
    tasks = load_tasks(f"procedural:{needed.tasks}&count={COUNTS[needed.name]}&split=val")
    assert needed.accuracy(needed.with_it, tasks).mean == 1.0
    assert needed.accuracy(needed.without, tasks).mean <= CHANCE + 0.1


def test_a_search_of_chance_is_worth_no_more_than_a_look_of_chance():
    (needed,) = (one for one in NEEDED if one.name == "search")
    blind = replace(needed, recipe=replace(needed.recipe, search=ProceduralIndex(0.0)))
    tasks = load_tasks(f"procedural:{needed.tasks}&count=100&split=val")
    assert blind.accuracy(blind.with_it, tasks).mean <= CHANCE + 0.1
