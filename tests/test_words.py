"""Words of the field: names and phrases that videogym once had for itself do not come back.

What replaced them stands beside each. Identifiers are read with `ast` in code and tests of both packages,
phrases in docstrings, messages and pages. `CHANGELOG.md` names the old options and is not read.
"""

# ruff: noqa: D103

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from agents.training.options import RENAMED

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    path for folder in ("videogym", "agents", "examples", "tests") for path in (ROOT / folder).rglob("*.py")
)
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent.name != "results"),
]
# Identifiers, and what they are called.
NAMES = {
    "parting": "divergence",
    "partings": "divergences",
    "read_side": "read_run",
    "side_of_result": "run_from_result",
    "side_of_traces": "run_from_traces",
    "at_the_door": "check_path",
    "first_bytes": "sniffing",
    "what_it_seems": "sniff",
    "figures": "metrics",
    "beginnings": "prefixes, or signatures",
    "begins_as": "has_signature",
    "Shelf": "EpisodeFiles",
    "Said": "ScriptedTurn",
    "Portion": "plan_micro_batches",
    "everyones": "all_gather_object",
    "from_first": "broadcast_from_rank0",
    "divided": "map_across_ranks",
    "Assembled": "full_tensor",
    "first_policy": "reference_policy",
    "rollouts_at_once": "max_concurrent_rollouts",
    "minibatch_groups": "mini_batch_groups",
    "vision_lr": "vision_lr_mult",
}
OPTIONS = {f"--{old}".replace("_", "-"): f"--{new}".replace("_", "-") for old, new in RENAMED.items()}
PHRASES = {
    r"\bgo(es|ing|ne)? on with\b": "resume",
    r"\bnothing twice\b": "caching",
    r"\bin memory together\b": "memory budget, micro-batch",
    r"\b(shared|common) beginnings?\b": "prefix",
    r"\bpaid twice\b": "two-level rewards",
    r"\bfirst policy\b": "reference policy",
    r"\bfigures of (a|the|both|two) runs?\b": "metrics",
    r"\bdecides? what fits\b": "memory budget",
}
# Public names that still are two things: each with the word of its own code or paper.
TWICE = frozenset({"ANSWER", "Reading", "score"})


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def identifiers(path: Path) -> Iterator[str]:
    yield path.stem
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.alias(name=name):
                yield from name.split(".")
            case ast.keyword(arg=str() as name):
                yield name


@cache
def texts(path: Path) -> tuple[str, ...]:
    """Texts for people: a page, or the strings of a module; line breaks are spaces."""
    if path.suffix == ".md":
        return (" ".join(path.read_text(encoding="utf-8").split()),)
    constants = (node.value for node in ast.walk(parsed(path)) if isinstance(node, ast.Constant))
    return tuple(" ".join(value.split()) for value in constants if isinstance(value, str))


def test_names_are_the_fields() -> None:
    found = {
        f"{path.relative_to(ROOT).as_posix()}: {name} is {NAMES[name]}"
        for path in MODULES
        for name in NAMES.keys() & set(identifiers(path))
    }
    assert not found


@pytest.mark.parametrize(("phrase", "word"), PHRASES.items())
def test_texts_are_in_the_fields_words(phrase: str, word: str) -> None:
    found = {
        f"{path.relative_to(ROOT).as_posix()}: {match.group()!r} is {word}"
        for path in (*PAGES, *MODULES)
        if path != Path(__file__)
        for text in texts(path)
        for match in re.finditer(phrase, text, re.IGNORECASE)
    }
    assert not found


@pytest.mark.parametrize(("old", "new"), OPTIONS.items())
def test_old_options_are_named_nowhere(old: str, new: str) -> None:
    pattern = rf"(?<![\w-]){re.escape(old)}(?![\w-])"
    found = [
        f"{path.relative_to(ROOT).as_posix()}: {old} is {new}"
        for path in (*PAGES, *MODULES)
        if path != Path(__file__) and any(re.search(pattern, text) for text in texts(path))
    ]
    assert not found


def test_a_public_name_is_one_thing() -> None:
    """What two modules of the environment define under one name is told apart; commands are `main`."""
    places = defaultdict(set)
    for path in (ROOT / "videogym").rglob("*.py"):
        for node in parsed(path).body:
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    defined = [name]
                case ast.AnnAssign(target=ast.Name(id=name)):
                    defined = [name]
                case ast.Assign(targets=targets):
                    defined = [target.id for target in targets if isinstance(target, ast.Name)]
                case _:
                    defined = []
            for name in defined:
                if not name.startswith("_"):
                    places[name].add(path.relative_to(ROOT).as_posix())
    twice = {name for name, found in places.items() if len(found) > 1}
    assert twice - {"main"} <= TWICE
