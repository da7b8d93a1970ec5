"""A kind of action from a user's own file: grammars, spaces, traces and commands know it."""
# ruff: noqa: D101, D102, D103

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from videogym import Crop, TextActions, VideoQAEnv
from videogym.actions import Look
from videogym.grammars import get_grammar
from videogym.grammars.native import Native
from videogym.recipes import DEFAULT, Recipe
from videogym.state import Action, Clip, Invalid, State, action_kinds
from videogym.testing.grammar_suite import example_state

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def program() -> str:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "class Glance(Look)" in block]
    return block


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "videogym", *arguments]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_documented_kind_is_reported_once_its_module_is_imported(tmp_path: Path) -> None:
    (tmp_path / "glances.py").write_text(program(), encoding="utf-8")
    subprocess.run([sys.executable, "glances.py"], cwd=tmp_path, check=True, timeout=120)
    refused = command(tmp_path, "report", "glances.jsonl")
    assert refused.returncode == 2 and "'glance'" in refused.stderr and "--import" in refused.stderr
    (tmp_path / "kinds.py").write_text(program().partition("rules = replace")[0], encoding="utf-8")
    done = command(tmp_path, "--import", "kinds", "report", "glances.jsonl", "--out", "page.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "turn 1: glance 11.5 to 13.5 s" in page


def test_a_kind_has_one_class() -> None:
    with pytest.raises(ValueError, match=r"'crop' is taken by videogym\.actions\.crop\.Crop"):

        @dataclass(frozen=True)
        class Cut(Action):
            kind: ClassVar[str] = "crop"

    assert action_kinds()["crop"] is Crop


def test_a_look_with_two_times_needs_its_frames_only() -> None:
    @dataclass(frozen=True, slots=True)
    class Skip(Look):
        kind: ClassVar[str] = "skip_over"
        purpose: ClassVar[str] = "Show nothing of it."

        start_s: float
        end_s: float

        def frames(self, state: State, cap: int, pts_s: NDArray[np.float64]) -> Clip | Invalid:
            return Invalid("skipped", "Nothing is shown.")

    state = example_state(actions=("skip_over", "answer"))
    text = get_grammar("native").write(Skip(1.0, 2.5), state)
    assert get_grammar("native").parse(text, state).actions == (Skip(1.0, 2.5),)
    (schema, _) = get_grammar("native").tools(state.rules)
    assert schema["function"]["name"] == "skip_over"
    assert schema["function"]["parameters"]["required"] == ["start_s", "end_s"]


def test_a_look_without_frames_is_refused_when_it_is_made() -> None:
    @dataclass(frozen=True)
    class Nothing(Look):
        kind: ClassVar[str] = "nothing"

        start_s: float
        end_s: float

    with pytest.raises(TypeError, match="frames"):
        Nothing(1.0, 2.0)  # type: ignore[abstract]


def test_a_recipe_refuses_a_kind_that_nobody_defined() -> None:
    rules = replace(DEFAULT.rules, actions=("teleport", "answer"))
    with pytest.raises(ValueError, match=r"unknown kind of action 'teleport'; known: .*crop.*import"):
        replace(DEFAULT, rules=rules)


@dataclass(frozen=True)
class Polite(Native):
    """The native grammar under another name, with a field."""

    please: str = "please"

    @property
    def name(self) -> str:
        return "polite"


class Unequal(Native):
    pass


def test_a_recipe_holds_a_grammar_and_it_counts_in_its_identity() -> None:
    recipes = [
        replace(DEFAULT, grammar=grammar) for grammar in ("native", Polite(), Polite("now"), Unequal())
    ]
    assert len({recipe.identity for recipe in recipes}) == 4
    assert replace(DEFAULT, grammar=Polite()).identity == recipes[1].identity
    env = TextActions(VideoQAEnv("procedural:brief_event?duration_s=60&count=2", recipes[1]))
    assert env.grammar == Polite()
    assert TextActions(env.env, Polite("now")).grammar == Polite("now")


@pytest.mark.parametrize("grammar", [3, object(), None])
def test_what_is_no_grammar_is_refused(grammar: object) -> None:
    with pytest.raises(ValueError, match="a grammar is a name or has"):
        Recipe("r", "here", DEFAULT.rules, grammar, DEFAULT.terms)  # type: ignore[arg-type]
