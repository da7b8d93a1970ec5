"""A cache of each test's own, and the ffmpeg programs that there are."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packet tables and grids of one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VIDEOGYM_CACHE", str(folder))
    return folder


def ffmpegs() -> dict[str, str]:
    """Paths of ffmpeg to be tried: ``$FFMPEG`` alone, or the machine's and that of imageio-ffmpeg."""
    if named := os.environ.get("FFMPEG"):
        return {"named": named}
    found: dict[str, str | None] = {"machine": shutil.which("ffmpeg")}
    if importlib.util.find_spec("imageio_ffmpeg"):
        from imageio_ffmpeg import get_ffmpeg_exe

        with contextlib.suppress(RuntimeError):  # there is a wheel without a program, for other systems
            found["package"] = get_ffmpeg_exe()
    return {name: path for name, path in found.items() if path} or {"none": ""}


@pytest.fixture(scope="session", params=ffmpegs().items(), ids=lambda item: item[0])
def ffmpeg(request: pytest.FixtureRequest) -> str:
    """Each of them in turn; one comes with the dev extra, so it is only without that that there is none."""
    _, path = request.param
    if not path and os.environ.get("VIDEOGYM_REQUIRE_FFMPEG") == "1":
        pytest.fail("VIDEOGYM_REQUIRE_FFMPEG=1, but there is no ffmpeg")
    if not path:
        pytest.skip("needs ffmpeg (pip install imageio-ffmpeg, or set FFMPEG to its path)")
    return str(path)
