"""Tests against real packages of other projects: skipped where one is missing, or failed where required."""

import importlib.util
import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marker means where the project does not."""
    config.addinivalue_line("markers", "peers(module, ...): needs these packages of other projects")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for the packages a test asks for, without importing them."""
    marker = item.get_closest_marker("peers")
    missing = [name for name in marker.args if importlib.util.find_spec(name) is None] if marker else []
    if missing and os.environ.get("VIDEOGYM_REQUIRE_PEERS") == "1":
        pytest.fail(f"VIDEOGYM_REQUIRE_PEERS=1, but {', '.join(missing)} is not installed")
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: make test-peers")
