"""The command that checks records of the published trainer, and that it would notice a difference."""

# ruff: noqa: D103

import copy
import json
import runpy
import sys
from pathlib import Path

import pytest

from agents.tools.conformance import check_row
from videogym.testing.conformance import check_file, main

GOLDEN = Path(__file__).parents[1] / "golden" / "training"
FILES = [GOLDEN / "video_mtr_gae_probe.jsonl", GOLDEN / "video_mtr_shaping_probe.jsonl"]
GAE, SHAPING = ([json.loads(line) for line in path.read_text().splitlines()] for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_golden_row_passes(path):
    report = []
    tally = check_file(path, report.append, check_row)
    assert report == [f"{path.name}: {tally.passed} passed, 0 failed"]
    assert tally.passed == len(path.read_text().splitlines()) > 0


def corrupt(row, name, *where, by):
    """A copy of a row in which one number is another."""
    other = copy.deepcopy(row)
    inner = other[name]
    for index in where[:-1]:
        inner = inner[index]
    inner[where[-1]] += by
    return other


@pytest.mark.parametrize(
    ("row", "name", "where"),
    [
        (GAE[0], "raw_advantages", (0, 2)),
        (GAE[0], "raw_advantages", (0, 0)),
        (GAE[1], "returns", (0, 5)),
        (GAE[2], "whitened_advantages", (0, 1)),
        (GAE[2], "whitened_advantages", (0, 0)),
        (SHAPING[8], "after_answer_gate", (3, 0)),
        (SHAPING[8], "after_bootstrapping", (3, 0)),
    ],
)
def test_a_corrupted_number_is_reported(row, name, where):
    assert check_row(corrupt(row, name, *where, by=5e-6)) == []
    mismatches = check_row(corrupt(row, name, *where, by=2e-5 * (1 + abs(row[name][where[0]][where[1]]))))
    assert len(mismatches) == 1
    assert mismatches[0].startswith(f"{name}: row {where[0]}: expected")


def test_failures_of_the_code_under_test_are_mismatches():
    assert check_row({**GAE[0], "gamma": 1.5}) == [
        "raised ValueError: gamma_token must be in [0, 1], got 1.5"
    ]
    shorter = {**SHAPING[0], "after_answer_gate": [[0.6]]}
    assert check_row(shorter) == ["after_answer_gate: expected rows of [1], got [2]"]


def run(tmp_path, *lines):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return main([str(path)], check_row, "agents.tools.conformance")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"kind": "parser_probe"}, "unknown kind 'parser_probe'; known: gae_probe, shaping_probe"),
        ({}, "the row has no field 'kind'"),
        ({"kind": "shaping_probe"}, "the row has no field 'turn_rewards_in'"),
        ({**SHAPING[0], "turn_rewards_in": [0.1]}, "turn_rewards_in must be a list of lists"),
        ({**GAE[0], "values": [["much"]]}, "values must hold numbers, got 'much'"),
    ],
)
def test_unusable_rows_are_named_and_never_skipped(tmp_path, capsys, row, message):
    assert run(tmp_path, json.dumps(GAE[0]), json.dumps(row)) == 2
    out = capsys.readouterr().out
    assert f"rows.jsonl:2: error: {message}" in out
    assert "rows.jsonl: 1 passed, 0 failed, 1 unusable" in out


def test_the_exit_status_of_a_failure(tmp_path, capsys):
    bad = corrupt(GAE[0], "returns", 0, 2, by=1.0)
    assert run(tmp_path, json.dumps(GAE[0]), json.dumps(bad), "{broken") == 1
    assert "rows.jsonl: 1 passed, 1 failed, 1 unusable" in capsys.readouterr().out
    assert main(["--help"], check_row, "agents.tools.conformance") == 0
    assert capsys.readouterr().out == "usage: python -m agents.tools.conformance FILE.jsonl ...\n"


def test_the_command(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["conformance", *map(str, FILES)])
    monkeypatch.delitem(sys.modules, "agents.tools.conformance")  # it is run, not found again
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("agents.tools.conformance", run_name="__main__")
    assert (ended.value.code, capsys.readouterr().out) == (
        0,
        "video_mtr_gae_probe.jsonl: 3 passed, 0 failed\n"
        "video_mtr_shaping_probe.jsonl: 10 passed, 0 failed\n",
    )
