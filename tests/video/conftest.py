"""Clips made once a session, and a cache of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from clips import MAKERS, Clip

from videogym.video import torchcodec_reader

os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder would talk


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packet tables and grids of one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VIDEOGYM_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Clip]:
    """A clip by its name in `MAKERS`; do not change its file."""
    made: dict[str, Clip] = {}

    def get(name: str) -> Clip:
        if name not in made:
            made[name] = MAKERS[name](tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.fixture(scope="session")
def torchcodec() -> None:
    """Skips where torchcodec does not load, or fails where it is required."""
    try:
        torchcodec_reader.import_decoder()
    except ImportError as error:
        if os.environ.get("VIDEOGYM_REQUIRE_PEERS") == "1":
            pytest.fail(f"VIDEOGYM_REQUIRE_PEERS=1, but {error}")
        pytest.skip(str(error))
