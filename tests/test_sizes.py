"""Modules and functions stay as short as a reader can hold."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parents[1]
MODULES = [path for package in ("videogym", "agents") for path in (ROOT / package).rglob("*.py")]


def test_a_module_has_at_most_450_lines() -> None:
    """Above that a second subject has moved in."""
    lengths = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8").count("\n") for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > 450} == {}


def test_half_of_the_functions_have_at_most_10_lines_and_most_at_most_40() -> None:
    """Signature and docstring included; of the rest, some are one honest sequence."""
    functions = [
        node
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lines = [node.end_lineno - node.lineno + 1 for node in functions if node.end_lineno]
    assert median(lines) <= 10
    assert quantiles(lines, n=20)[-1] <= 40  # the 95th percentile
