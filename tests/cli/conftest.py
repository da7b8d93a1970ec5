"""A cache of each test's own, and a shell that has ffmpeg."""

from __future__ import annotations

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


@pytest.fixture
def ffmpeg() -> str:
    """Path of ffmpeg: ``$FFMPEG``, the one on the path, or that of imageio-ffmpeg."""
    found = os.environ.get("FFMPEG") or shutil.which("ffmpeg")
    if found is None and importlib.util.find_spec("imageio_ffmpeg"):
        from imageio_ffmpeg import get_ffmpeg_exe

        found = get_ffmpeg_exe()
    if found is None:
        pytest.skip("needs ffmpeg (apt-get install ffmpeg, or set FFMPEG to its path)")
    return str(found)
