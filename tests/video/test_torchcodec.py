"""torchcodec: exact or refused, and pixel for pixel what PyAV shows."""

# ruff: noqa: D103

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import RATE
from forks import in_fork
from test_real_clips import NAMES, find

from videogym.testing.coded_clips import read_code
from videogym.video import TruncatedVideo, UnreadableVideo, VideoError, open_video
from videogym.video.torchcodec_reader import TorchCodecVideo

pytestmark = pytest.mark.usefixtures("torchcodec")

IDENTITY = b"\x00\x01\x00\x00" + bytes(12) + b"\x00\x01\x00\x00"  # how an MP4's display matrix begins


def at(*frames):
    return [frame / RATE for frame in frames]


@pytest.fixture
def path(clip):
    return str(clip("b_frames").path)


@pytest.fixture
def video(path):
    with open_video(path, backend="torchcodec") as opened:
        yield opened


@pytest.mark.parametrize("name", ["b_frames", "edit_list", "open_groups", "hevc", "vp9", "av1", "rotated"])
def test_native_pixels_are_those_of_pyav(name, clip):
    path = str(clip(name).path)
    with open_video(path, backend="torchcodec") as theirs, open_video(path) as ours:
        times, region = at(3, 34, 80), (0.1, 0.2, 0.9, 0.7)
        assert np.array_equal(theirs.frames_at(times).pixels, ours.frames_at(times).pixels)
        cut = theirs.frames_at(times, region=region, size=(50, 30)).pixels
        assert np.array_equal(cut, ours.frames_at(times, region=region, size=(50, 30)).pixels)
        assert theirs.cache_key != ours.cache_key, "whole frames are resized from RGB, not from YUV"


@pytest.mark.parametrize("name", NAMES)
def test_camera_material_is_that_of_pyav(name):
    """Two implementations of seeking, on material that neither was written for."""
    path, draw = str(find(name)), random.Random(name)
    with open_video(path, backend="torchcodec") as theirs, open_video(path) as ours:
        times = [draw.uniform(0, ours.meta.duration_s) for _ in range(12)]
        one, other = theirs.frames_at(times), ours.frames_at(times)
        assert one.pts_s.tolist() == other.pts_s.tolist()
        assert np.array_equal(one.pixels, other.pixels)


def test_no_mode_but_exact(path):
    with pytest.raises(ValueError, match="seek_mode must be 'exact', got 'approximate'"):
        TorchCodecVideo(path, seek_mode="approximate")


def test_another_frame_than_asked_for_is_an_error_and_not_served(video, monkeypatch):
    """What torchcodec does in gradual refresh, made to happen in the middle of a file that was fine."""
    real = video._decoder.get_frames_at
    monkeypatch.setattr(
        video._decoder, "get_frames_at", lambda ordinals: real([o + (o > 9) for o in ordinals])
    )
    assert read_code(video.frames_at(at(4)).pixels[0]) == 4
    with pytest.raises(UnreadableVideo, match=r"b\.mp4.*the frame of 0\.700 s for 0\.667 s"):
        video.frames_at(at(4, 20))


def test_a_mirrored_picture_is_refused(path, tmp_path):
    """PyAV's reader shows it mirrored; torchcodec knows turns only."""
    data = bytearray(Path(path).read_bytes())
    place = data.index(IDENTITY, data.index(b"tkhd"))
    data[place : place + 4] = b"\xff\xff\x00\x00"  # minus one: x runs the other way
    mirror = tmp_path / "mirror.mp4"
    mirror.write_bytes(data)
    with open_video(str(mirror)) as ours, open_video(path) as plain:
        expected = plain.frames_at([1.0]).pixels[:, :, ::-1]
        assert np.array_equal(ours.frames_at([1.0]).pixels, expected)
    with pytest.raises(UnreadableVideo, match=r"mirror\.mp4.*another picture"):
        open_video(str(mirror), backend="torchcodec")


def test_damage_is_an_error_and_the_rest_still_reads(clip, tmp_path):
    data = bytearray(clip("b_frames").path.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 3000] = np.random.default_rng(1).bytes(3000)
    path = tmp_path / "noisy.mp4"
    path.write_bytes(data)
    with open_video(str(path), backend="torchcodec") as video:
        with pytest.raises(TruncatedVideo, match=r"noisy\.mp4"):
            video.frames_at(video.pts_s)
        assert read_code(video.frames_at(at(159)).pixels[0]) == 159


@pytest.mark.parametrize("content", [b"", b"no video\n" * 500], ids=["empty", "text"])
def test_what_is_no_video(content, tmp_path):
    (tmp_path / "none.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"none\.mp4"):
        open_video(str(tmp_path / "none.mp4"), backend="torchcodec")


def test_a_fork_reads_on_without_disturbing_its_parent(video):
    assert read_code(video.frames_at(at(55)).pixels[0]) == 55
    assert in_fork(lambda: [read_code(video.frames_at(at(f)).pixels[0]) for f in (56, 3)] == [56, 3])
    assert read_code(video.frames_at(at(70)).pixels[0]) == 70


@pytest.mark.parametrize("package", ["torchcodec", "torch"])
def test_a_missing_package_says_how_to_get_it(package, path):
    code = f"import sys, videogym; sys.modules['{package}'] = None\n"
    code += "videogym.open_video(sys.argv[1], backend='torchcodec')"
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ") and last.endswith("pip install 'videogym[torchcodec]'")


def test_missing_libraries_are_said_in_one_line(path, tmp_path):
    """As on a system without FFmpeg: torchcodec says so in a page of tracebacks."""
    package = tmp_path / "torchcodec"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "decoders.py").write_text("raise RuntimeError('Could not load libtorchcodec.\\nA page.')")
    code = "import sys, videogym; videogym.open_video(sys.argv[1], backend='torchcodec')"
    run = subprocess.run(
        [sys.executable, "-c", code, path],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(tmp_path), "VIDEOGYM_CACHE": str(tmp_path)},
    )
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: torchcodec is installed and does not load")
    assert last.endswith("(Could not load libtorchcodec)")
