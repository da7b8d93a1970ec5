"""Tests against a real vLLM: their own environment, see `make test-vllm`."""

import importlib.util
import os

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip where vLLM is not installed, or fail where it is required."""
    spec = importlib.util.find_spec("vllm")
    # This very folder is found too, as a package without a file.
    if item.get_closest_marker("vllm") is None or (spec is not None and spec.origin is not None):
        return
    if os.environ.get("VIDEOGYM_REQUIRE_VLLM") == "1":
        pytest.fail("VIDEOGYM_REQUIRE_VLLM=1, but vLLM is not installed")
    pytest.skip("needs vLLM: make test-vllm")
