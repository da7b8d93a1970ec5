"""Metrics by what is told of the tasks, on the page of a report."""

# ruff: noqa: D103

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from videogym import VideoQAEnv, evaluate
from videogym.cli import main
from videogym.datasets import load_tasks
from videogym.testing.policies import Oracle
from videogym.traces import RecordTraces

SOURCE = "procedural:brief_event?count=5&duration_s=60"
TOLD: list[dict[str, Any]] = [
    {"length": "short", "type": ["OCR", "count"]},
    {"length": "short", "type": ["OCR"]},
    {"length": "<b>long", "type": ["count"]},
    {"length": "<b>long"},
    {},
]


class Tables(HTMLParser):
    """The cells of every table of a page, row by row, by the label of its region."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self._label = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the region, rows and cells."""
        if tag == "div":
            self._label = dict(attrs).get("aria-label") or ""
        elif tag == "tr" and self._label:
            self.tables.setdefault(self._label, []).append([])
        elif tag in ("td", "th") and self._label:
            self.tables[self._label][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """Leave a region."""
        if tag == "div":
            self._label = ""

    def handle_data(self, data: str) -> None:
        """Words of a cell."""
        if self._label and self.tables.get(self._label) and self.tables[self._label][-1]:
            self.tables[self._label][-1][-1] += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("groups") / "run.jsonl"
    tasks = [replace(task, metadata=told) for task, told in zip(load_tasks(SOURCE), TOLD, strict=True)]
    env = RecordTraces(VideoQAEnv(tasks), path)
    evaluate(Oracle(), env)
    env.close()
    return path


def test_groups_are_those_of_evaluate(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    command = ["report", str(run), "--out", str(out), "--thumbnails", "0", "--by", "length", "--by", "type"]
    assert main(command) == 0
    tables = Tables(out).tables
    _, *lengths = tables["metrics by length"]
    assert [row[:3] for row in lengths] == [
        ["<b>long", "2", "2"],
        ["short", "2", "2"],
        ["(none)", "1", "1"],
    ]
    _, *types = tables["metrics by type"]
    assert [row[:2] for row in types] == [["OCR", "2"], ["count", "2"], ["(none)", "2"]]
    # Wilson's interval of 2 right of 2: from 1 / (1 + 1.96**2 / 2).
    assert re.sub(r"\s+", " ", lengths[0][3]).strip() == "100.0 % 34.2–100.0"


def test_each_run_has_its_groups(run: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "r.html", tmp_path / "other.jsonl"
    other.write_bytes(run.read_bytes().replace(b'"run": "run"', b'"run": "other"'))
    command = ["report", str(run), "--compare", str(other), "--out", str(out), "--thumbnails", "0"]
    assert main([*command, "--by", "length"]) == 0
    _, *rows = Tables(out).tables["metrics by length"]
    assert [row[:2] for row in rows] == [
        [value, name] for name in ("run", "other") for value in ("<b>long", "short", "(none)")
    ]


def test_a_field_that_no_task_has_is_refused_and_leaves_no_page(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.html"
    assert main(["report", str(run), "--out", str(out), "--thumbnails", "0", "--by", "lengths"]) == 2
    assert "no task has metadata 'lengths'; there is: length, type" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
