"""The documentation as a site: it builds without a warning, leaves no page out, and asks no network.

What needs MkDocs is skipped without it; `VIDEOGYM_REQUIRE_SITE=1` makes its absence a failure.
"""
# ruff: noqa: D103

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import itertools
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from videogym.cli.command import COMMANDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(r"^ *```(.*)$", re.MULTILINE)


def names(page: Path) -> str:
    return str(page.relative_to(DOCS))


@pytest.fixture(scope="module")
def mkdocs() -> None:
    if all(map(importlib.util.find_spec, ("mkdocs", "material"))):
        return
    if os.environ.get("VIDEOGYM_REQUIRE_SITE") == "1":
        pytest.fail("VIDEOGYM_REQUIRE_SITE=1, but there is no MkDocs with Material")
    pytest.skip('needs MkDocs (pip install -e ".[docs]")')


def build(config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(out)],
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=1800,  # of a build that hangs: one takes seconds, on a busy machine minutes
    )


@pytest.fixture(scope="module")
def site(mkdocs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return out


def test_every_page_is_built(site: Path) -> None:
    missing = [names(page) for page in PAGES if not (site / names(page)).with_suffix(".html").exists()]
    assert not missing


def test_a_lost_link_anchor_or_page_is_an_error(mkdocs: None, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("[a](gone.md) [b](#nowhere) [c](../outside.py) [d](/absolute.md)\n")
    (docs / "forgotten.md").write_text("# No menu leads here\n")
    settings = {"INHERIT": ROOT / "mkdocs.yml", "docs_dir": docs, "hooks": "[]", "extra_css": "[]"}
    config = tmp_path / "mkdocs.yml"
    config.write_text("".join(f"{key}: {value}\n" for key, value in settings.items()) + "nav: [index.md]\n")
    done = build(config, tmp_path / "out")
    assert done.returncode != 0
    for lost in ("gone.md", "#nowhere", "outside.py", "/absolute.md", "forgotten.md"):
        assert re.search(
            f"WARNING .*{re.escape(lost)}|^ +- {re.escape(lost)}", done.stderr, re.MULTILINE
        ), f"{lost} went by without a warning:\n{done.stderr}"


def test_every_page_has_one_place_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    places = re.findall(r"([\w./-]+\.md)$", menu, re.MULTILINE)
    assert sorted(places) == sorted(map(names, PAGES))


def test_every_code_block_names_its_language() -> None:
    bare = [names(page) for page in PAGES if not all(FENCE.findall(page.read_text())[::2])]
    assert not bare, f"these pages have blocks that begin with ``` alone: {bare}"


class Page(HTMLParser):
    """What a built page loads, and how many blocks of Python it shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.blocks = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what is fetched without a click."""
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "link"):
            self.loads += [value for key in ("src", "href") if (value := given.get(key))]
        self.blocks += (given.get("class") or "").startswith("language-python")


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loads = {load for page in site.rglob("*.html") for load in Page(page.read_text()).loads}
    assert any(load.endswith(".css") for load in loads)
    assert not [load for load in loads if re.match(r"(\w+:)?//", load)]


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text()], ids=names)
def test_programs_are_shown_as_programs(page: Path, site: Path) -> None:
    written = sum(opening.startswith("python") for opening in FENCE.findall(page.read_text()))
    assert Page((site / names(page)).with_suffix(".html").read_text()).blocks == written


# --- what pages say of the repository ----------------------------------------------------------

SAID = {page: page.read_text() for page in (*PAGES, ROOT / "README.md")}


def test_named_files_exist() -> None:
    # Ids of environments and keys of MCP begin with videogym/ too, and have no ending.
    named = re.compile(
        r"(?<![\w./-])((?:agents|tests|examples)/[\w./*-]*[\w*/]|videogym/[\w./-]*(?:\.\w+|/))"
    )
    said = {(page.name, path) for page, text in SAID.items() for path in named.findall(text)}
    assert ("training.md", "examples/own_policy.py") in said
    lost = [f"{page}: {path}" for page, path in said if not any(ROOT.glob(path.rstrip("/")))]
    assert not lost


def test_named_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    said = re.compile(r"(?:`|^)make ([a-z][\w-]*)", re.MULTILINE)
    named = {(page.name, target) for page, text in SAID.items() for target in said.findall(text)}
    assert ("README.md", "demo") in named
    assert not [f"{page}: make {target}" for page, target in named if target not in targets]


def test_named_modules_exist() -> None:
    said = re.compile(r"python -m ((?:videogym|agents)(?:\.\w+)*)")
    # In the wheel the training code is videogym.agents, see test_wheel.py.
    named = {
        module.removeprefix("videogym.") if module.startswith("videogym.agents") else module
        for text in SAID.values()
        for module in said.findall(text)
    }
    assert "agents.train_ppo" in named
    assert not [module for module in named if importlib.util.find_spec(module) is None]


def arguments(line: str) -> list[str]:
    """The words of a line of shell, up to where its output goes."""
    words = shlex.split(line, comments=True)
    return list(itertools.takewhile(lambda word: word not in (">", ">>", "|", "&&"), words))


BASH = [
    pytest.param(arguments(line), id=f"{page.name}-{line[:60]}")
    for page, text in SAID.items()
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]


@pytest.mark.parametrize("words", [param for param in BASH if param.values[0][:1] == ["videogym"]])
def test_a_shown_command_is_understood(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    for add in COMMANDS:
        add(commands)
    parser.parse_args(words[1:])


OF_A_RUN = {"recipe": "DEFAULT", "tasks": "procedural:brief_event"}
LOOPS = re.compile(r"agents\.(train_|evaluate)")


@pytest.mark.parametrize("words", [param for param in BASH if LOOPS.search(" ".join(param.values[0]))])
def test_a_shown_training_command_is_understood(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from agents.training.options import add_options, from_options
    from agents.vlm.command import training_parser
    from agents.vlm.config import ChatConfig

    if words[0] == "torchrun":
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    words = words[words.index("-m") :]
    if "--prompt-file" in words:
        monkeypatch.chdir(tmp_path)
        shown = re.search(r"```toml\n(.*?)```", (DOCS / "prompts.md").read_text("utf-8"), re.DOTALL)
        assert shown
        Path(words[words.index("--prompt-file") + 1]).write_text(shown[1], "utf-8")
    module = importlib.import_module(words[1])
    config = module.Config
    if issubclass(config, ChatConfig) and config.trains:
        parser = training_parser("", config, Path("out"))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--out")
        add_options(parser, config, getattr(module, "OPTIONS", ()))
    told = vars(parser.parse_args([word for word in words[2:] if word not in ("...", "--help")]))
    if words[1] == "agents.evaluate":  # a checkpoint of a run has them
        told |= {name: told.get(name) or known for name, known in OF_A_RUN.items()}
    from_options(config, told)


def test_the_shown_server_command_is_understood() -> None:
    pytest.importorskip("torch")
    from agents.engines.vllm_server import command_parser

    shown = [param.values[0] for param in BASH if "agents.engines.vllm_server" in param.values[0]]
    assert shown
    for words in shown:
        command_parser().parse_args(words[words.index("agents.engines.vllm_server") + 1 :])


# --- the trees of the layout ---------------------------------------------------------------------


def tree(page: Path) -> dict[str, str]:
    """The lines of a page's layout, by the package that they are in."""
    text = page.read_text(encoding="utf-8")
    lines = text[text.index("\nvideogym/ ") :].partition("```")[0].splitlines()[1:]
    packages, here = {}, ""
    for line in lines:
        if not line.startswith(" "):
            here = line.split("/")[0]
        elif here in ("videogym", "agents"):
            packages[here] = packages.get(here, "") + line + "\n"
    return packages


@pytest.mark.parametrize("page", ["README.md", "docs/design.md"])
def test_what_a_layout_names_is_there(page: str) -> None:
    for package, text in tree(ROOT / page).items():
        names = [name for line in text.splitlines() for name in re.findall(r"^ {4}(\S.*?)(?:   *|$)", line)]
        entries = [
            entry for name in names for entry in re.split(r"[ ,]+", name) if re.search(r"[./]", entry)
        ]
        assert len(entries) > 8
        missing = [entry for entry in entries if not list((ROOT / package).glob(entry.rstrip("/")))]
        assert not missing, f"{page} names {missing} in {package}/"


def test_the_design_names_all_rooms() -> None:
    for package, text in tree(DOCS / "design.md").items():
        rooms = [path for path in (ROOT / package).iterdir() if not path.name.startswith("_")]
        names = [path.name for path in rooms if path.suffix == ".py" or (path / "__init__.py").exists()]
        absent = [name for name in names if name not in text and not name.startswith("train_")]
        assert not absent, f"docs/design.md leaves {absent} out of {package}/"


# --- in a browser ------------------------------------------------------------------------------


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.browser
def test_a_reader_finds_a_page_by_a_word(site: Path, served: str, browser: Any) -> None:
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("request", lambda asked: asked.url.startswith(served) or complaints.append(asked.url))
    page.goto(f"{served}/index.html")
    page.locator("[data-md-component=search-query]").click()
    # The index is fetched and built in a worker; what is typed before may be lost.
    page.locator(".md-search-result__meta", has_text="Type to start searching").wait_for(state="attached")
    page.keyboard.type("abstain")  # by keys: a text that is filled in is not searched for
    page.locator(".md-search-result__link", has_text="Judging answers").first.click()
    assert page.locator("h1").inner_text().startswith("Judging answers")
    assert not complaints
    page.close()


@pytest.mark.browser
def test_pages_open_from_the_disk(site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"{site.as_uri()}/index.html")
    page.locator("nav").get_by_role("link", name="Why are my numbers different?").first.click()
    assert page.locator("h1").inner_text().startswith("Why are my numbers different?")
    page.close()
