"""The blocks of docs/peers.md that need another project's package run as they stand."""

# ruff: noqa: D103

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "peers.md"
# Blocks without packages of their own are run with those of all other pages.
BLOCKS = [
    pytest.param(block, marks=pytest.mark.peers(*packages.split(",")), id=packages)
    for packages, block in re.findall(r"```python peers=(\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_documented_block_runs_and_shows_something(block, tmp_path, request):
    if request.node.callspec.id == "torchcodec":
        request.getfixturevalue("torchcodec")
    run = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MINARI_DATASETS_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() or any((tmp_path / "videos").iterdir())


@pytest.fixture
def torchcodec():
    """It can be installed and not load, for want of FFmpeg."""
    code = "from videogym.video.torchcodec_reader import import_decoder; import_decoder()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    if run.returncode and os.environ.get("VIDEOGYM_REQUIRE_PEERS") != "1":
        pytest.skip(run.stderr.strip().splitlines()[-1])


def test_every_project_of_the_page_has_a_test():
    named = {"stable_baselines3", "minari", "mcp", "moviepy", "torchcodec", "openenv"}
    assert named <= {package for param in BLOCKS for package in param.id.split(",")}
