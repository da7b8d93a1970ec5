"""Shared by all tests: caches in a folder of their own, a browser, and tests whose needs are not met.

A test marked ``browser`` drives a real Chromium by Playwright; without either it is skipped.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples in every run, on every machine; `make fuzz` looks for others, by a seed that it prints.
# A shared machine can stall any single example; the whole run has its own limit.
settings.register_profile("videogym", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=3000, database=None, print_blob=True)
settings.load_profile("videogym")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["VIDEOGYM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _same_start() -> None:
    """Where torch is used, every test starts from the same random state, on one thread."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.fixture
def hub_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub is asked for a model's name; without a network each question would wait for half a minute."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint of every family of language models, made once."""
    from small_chat import FAMILIES, build  # beside the tests that ask for it; others need no torch

    return {family: build(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """Path of the browser."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for path in map(shutil.which, CHROMIUMS) if path), None)


# Playwright gives up after 30 seconds, in which a busy machine may not have opened a page. Where all goes
# well nothing waits that long.
PATIENCE_MS = 600_000


def patient(make: Callable[..., Any]) -> Callable[..., Any]:
    """What makes pages or contexts, which then wait for as long as anything may take."""

    def waiting(*arguments: Any, **options: Any) -> Any:
        made = make(*arguments, **options)
        made.set_default_timeout(PATIENCE_MS)
        return made

    return waiting


@pytest.fixture(scope="module")  # an event loop runs as long as it does, and others want their own
def browser() -> Iterator[Any]:
    """A running Chromium without a window."""
    from playwright.sync_api import sync_playwright

    # Its sandbox does not work for root, as in a container.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium(), args=arguments, timeout=PATIENCE_MS
        )
        running.new_page, running.new_context = map(patient, (running.new_page, running.new_context))
        yield running
        running.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names that differ from process to process: workers would not agree on what there is to run."""
    if named := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"the name of a test holds the address of an object: {named[0]}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose mark asks for what is not here, or fail it where that is required."""
    if item.get_closest_marker("gpu") is not None:
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            _do_without("an accelerator", "VIDEOGYM_REQUIRE_GPU")
    if item.get_closest_marker("browser") is not None:
        if importlib.util.find_spec("playwright") is None:
            _do_without("Playwright (pip install playwright)", "VIDEOGYM_REQUIRE_BROWSER")
        if chromium() is None:
            what = "Chromium (apt-get install chromium, or set CHROMIUM to its path)"
            _do_without(what, "VIDEOGYM_REQUIRE_BROWSER")


def _do_without(what: str, required: str) -> None:
    if os.environ.get(required) == "1":
        pytest.fail(f"{required}=1, but there is no {what.removeprefix('an ')}")
    pytest.skip(f"needs {what}")
