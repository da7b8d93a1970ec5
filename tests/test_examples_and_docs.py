"""Every example and every Python block of the documentation runs as it stands."""
# ruff: noqa: D103

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

import videogym

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


def run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_and_shows_something(example: Path, tmp_path: Path) -> None:
    assert run([str(example)], tmp_path).strip()


@pytest.mark.parametrize("block", BLOCKS)
def test_a_documented_block_runs(block: str, tmp_path: Path) -> None:
    run(["-c", block], tmp_path)


def test_the_tutorial_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    cells = re.findall(r"```python tutorial\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert len(cells) == page.count("```python")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code, shown in cells:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "tutorial", "exec"), names)
        assert printed.getvalue() == shown


def test_the_reference_names_all_that_is_public() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: videogym\.(\w+)$", page, re.MULTILINE)) == sorted(videogym.__all__)


def test_the_moving_picture_of_the_readme_is_small() -> None:
    assert (ROOT / "docs" / "pictures" / "episode.gif").stat().st_size <= 1_000_000
    assert "docs/pictures/episode.gif" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_the_environment_pages_are_up_to_date() -> None:
    assert "none" in run([str(ROOT / "docs" / "make_env_pages.py"), "--check"], ROOT)


def test_the_environment_pages_are_read_by_people() -> None:
    for page in (ROOT / "docs" / "environments").glob("*-v*.md"):
        text = page.read_text(encoding="utf-8")
        assert "videogym.rewards:" not in text and "{'" not in text, f"{page.name} shows how it is stored"
        assert not re.search(r"^ {4}\S", text, re.MULTILINE), f"{page.name} shows prose as code"
