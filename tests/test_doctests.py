"""Examples in docstrings come out as they are written there."""

# ruff: noqa: D103

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    path
    for package in ("videogym", "agents")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def test_examples_are_found():
    assert {ROOT / "videogym" / "geometry.py", ROOT / "videogym" / "datasets" / "fields.py"} <= set(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_comes_out_as_it_is_written(path):
    if path.is_relative_to(ROOT / "agents"):
        pytest.importorskip("torch")
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    done = doctest.testmod(module)
    assert done.attempted and not done.failed
