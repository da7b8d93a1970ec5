"""Videos that all tests of the pipeline share, and a folder in which all of its steps were run once."""

from pathlib import Path

import pytest
from scripted_endpoint import make_videos, run_all, scripted_model


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three procedural videos as H.264 files."""
    folder = tmp_path_factory.mktemp("footage") / "videos"
    make_videos(folder)
    return folder


@pytest.fixture(scope="session")
def worked(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline that nothing disturbed, with all of its steps."""
    work = tmp_path_factory.mktemp("worked")
    with scripted_model() as model:
        assert run_all(work, footage, model.url) == 0
        assert not model.faults and max(model.seen.values()) == 1
    return work
