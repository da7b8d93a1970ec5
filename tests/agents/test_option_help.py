"""``--help`` of every training command says what each option means, and its default."""

# ruff: noqa: D103

import argparse
import runpy
import warnings
from dataclasses import dataclass

import pytest

from agents.training.options import LoopConfig, add_options, field_docs

COMMANDS = (
    *("train_sft", "train_grpo_mllm", "train_rft", "train_ppo_mllm", "train_ppo", "train_grpo"),
    *("evaluate", "tools.export", "tools.traces", "engines.vllm_server"),
    *(
        "experiments.demo",
        "experiments.demo_mllm",
        "experiments.demo_planted",
        "experiments.needle",
        "experiments.study",
    ),
    *("experiments.lift", "experiments.latency", "experiments.other_grammars"),
)


class Parsed(Exception):
    """A command came to read its arguments."""


def parser_of(name: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise Parsed(parser)

    monkeypatch.setattr("sys.argv", [name])
    for method in ("parse_args", "parse_known_args"):
        monkeypatch.setattr(argparse.ArgumentParser, method, stop)
    with warnings.catch_warnings(), pytest.raises(Parsed) as caught:
        warnings.simplefilter("ignore")  # that another test has imported the module
        runpy.run_module(f"agents.{name}", run_name="__main__", alter_sys=True)
    return caught.value.args[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = parser_of(name, monkeypatch)
    # Of earlier names nothing is said; see `test_options`.
    for action in (action for action in parser._actions if action.help != argparse.SUPPRESS):
        label = f"agents.{name} {'/'.join(action.option_strings) or action.dest}"
        assert action.help and len(action.help.split()) > 1, f"{label} is not explained"
        if action.option_strings and action.nargs != 0 and not action.required:
            assert "default" in action.help, f"{label} does not say its default"
    monkeypatch.undo()
    assert "(default:" in parser.format_help(), "which fails where a per cent sign is not escaped"


def test_doc_lines_and_defaults_are_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True)
    class Own(LoopConfig):
        seed: int = 7
        """Seed of this, 100 % of it."""
        sizes: tuple[int, ...] = (2, 3)
        """Sizes on
        two lines."""
        fast: bool = False
        """Whether it is `fast`."""

    assert field_docs(Own)["sizes"] == "Sizes on two lines."
    assert field_docs(Own)["iterations"] == field_docs(LoopConfig)["iterations"]
    parser = argparse.ArgumentParser()
    add_options(parser, Own, ("seed", "sizes", "fast", "video_root"))
    told = " ".join(parser.format_help().split())
    for line in (
        "--seed N Seed of this, 100 % of it (default: 7)",
        "Sizes on two lines (default: 2 3)",
        "--fast, --no-fast Whether it is fast (default: off)",
        "taken as they stand (default: none)",
    ):
        assert line in told
    assert told.count("default: off") == told.count("--no-fast") - 1
