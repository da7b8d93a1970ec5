"""Shared by all tests: caches in a folder of their own, and what becomes of tests that need a GPU."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A shared machine can stall any single example; the whole run has its own limit.
settings.register_profile("videogym", deadline=None)
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


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint of every family of language models, made once."""
    from small_chat import FAMILIES, build  # beside the tests that ask for it; others need no torch

    return {family: build(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked ``gpu`` without an accelerator, or fail it where one is required."""
    if item.get_closest_marker("gpu") is None:
        return
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        if os.environ.get("VIDEOGYM_REQUIRE_GPU") == "1":
            pytest.fail("VIDEOGYM_REQUIRE_GPU=1, but there is no accelerator")
        pytest.skip("needs an accelerator")
