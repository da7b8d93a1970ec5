"""``--help`` of every command says what each option means, and its default."""

# ruff: noqa: D103

import argparse
from collections.abc import Iterator

import pytest

from videogym.cli import command

_STEPS = ("scenes", "caption", "questions", "filter", "traces", "export", "prompt")
STEPS = {f"data {step}" for step in _STEPS}


def parsers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    found = []
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda parser, *_: found.append(parser))
    with pytest.raises(AttributeError):
        command.main([])
    yield "", found[0]
    for action in found[0]._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, parser in action.choices.items():
                yield name, parser
                for steps in parser._actions:
                    if isinstance(steps, argparse._SubParsersAction):
                        yield from ((f"{name} {step}", parser) for step, parser in steps.choices.items())


def unexplained(parser: argparse.ArgumentParser) -> list[str]:
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [command.dest for command in action._choices_actions if not command.help]
            continue
        takes_value = bool(action.option_strings) and action.nargs != 0 and not action.required
        repeats = isinstance(action, argparse._AppendAction)
        if not action.help or (takes_value and not repeats and "default" not in action.help):
            found.append("/".join(action.option_strings) or action.dest)
    return found


def test_every_option_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = dict(parsers(monkeypatch))
    assert (
        set(commands) == {"", "doctor", "look", "index", "eval", "diff", "report", "play", "data"} | STEPS
    )
    assert {name: unexplained(parser) for name, parser in commands.items()} == {
        name: [] for name in commands
    }
