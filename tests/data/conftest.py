"""Videos that all tests of the pipeline share, encoded once."""

from pathlib import Path

import pytest
from scripted_endpoint import make_videos


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three procedural videos as H.264 files."""
    folder = tmp_path_factory.mktemp("footage") / "videos"
    make_videos(folder)
    return folder
