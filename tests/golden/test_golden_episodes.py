"""Three episodes come out word for word as they were written down."""

# ruff: noqa: D103

import pytest
from write_episodes import EPISODES, FOLDER, transcript


@pytest.mark.parametrize("name", EPISODES)
def test_the_episode_is_as_written(name):
    written = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert transcript(name) == written, "if the change is meant, run tests/golden/write_episodes.py"
