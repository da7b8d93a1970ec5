"""Benchmarks and proofs take long: `make test` sees that each can be started."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from agents import train_grpo_mllm, train_ppo_mllm
from agents.vlm.command import training_parser

BENCHMARKS = sorted(Path(__file__).parent.joinpath("benchmarks").glob("*.py"))

# One process for all, as torch takes seconds to load. Each starts with the path and modules of the first.
LOAD_EACH = """
import os, runpy, sys
import agents.vlm.policy, videogym
first, loaded = list(sys.path), set(sys.modules)
tests = os.path.dirname(os.path.dirname(sys.argv[1]))
for path in sys.argv[1:]:
    sys.path[:] = [os.path.dirname(path), *first]
    try:
        runpy.run_path(path, run_name="loaded")
    except Exception as error:
        print(path, repr(error))
    for name in set(sys.modules) - loaded:  # what one makes findable, no other shall find
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(tests):
            del sys.modules[name]
"""


def test_each_finds_what_it_imports() -> None:
    """Outside of pytest, which makes modules findable that a plain start does not."""
    assert len(BENCHMARKS) > 15
    done = subprocess.run(
        [sys.executable, "-c", LOAD_EACH, *map(str, BENCHMARKS)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("kind", "loop"),
    [
        ("grpo", train_grpo_mllm),
        ("ppo", train_ppo_mllm),
        ("ppo, a critic of its own", train_ppo_mllm),
    ],
)
def test_the_run_that_is_killed_starts_with_options_that_exist(kind: str, loop: ModuleType) -> None:
    """Its command is long, and `make prove-sharding` starts it last."""
    proof = runpy.run_path(str(Path(__file__).parent / "benchmarks" / "prove_sharding.py"))
    module, *options = proof["options"](kind, Path("out"), Path("tiny"))[1:]
    assert module == loop.__name__
    arguments = training_parser("about", loop.Config, Path("runs")).parse_args(options)
    assert (arguments.iterations, arguments.learning_rate) == (4, 1e-4)
