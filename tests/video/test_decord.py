"""decord in its process: deadlines, deaths and the package that only pretends to be it."""

# ruff: noqa: D103

import importlib.metadata
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest
from clips import RATE
from forks import in_fork

from videogym.testing.coded_clips import read_code, write_clip
from videogym.video import DecodeTimeout, TruncatedVideo, UnreadableVideo, decord_reader, open_video

pytest.importorskip("decord")

# The real child, with one function that holds the interpreter's lock and does not return.
HANGING = """
import ctypes, decord, runpy, sys
real = decord.VideoReader.get_batch
def get_batch(reader, ordinals):
    if {frame} in ordinals:
        ctypes.PyDLL(None).pause()
    return real(reader, ordinals)
decord.VideoReader.get_batch = get_batch
runpy.run_path({child!r}, run_name="__main__")
"""


def at(*frames):
    return [frame / RATE for frame in frames]


def hang_on(frame, tmp_path, monkeypatch):
    """Make children hang when a frame is read."""
    script = tmp_path / "hanging_child.py"
    script.write_text(HANGING.format(frame=frame, child=decord_reader.DECORD_CHILD[-1]))
    monkeypatch.setattr(decord_reader, "DECORD_CHILD", (sys.executable, "-P", str(script)))


@pytest.fixture
def path(clip):
    return str(clip("b_frames").path)


def test_a_read_that_never_returns_is_given_up_and_its_process_replaced(path, tmp_path, monkeypatch):
    hang_on(99, tmp_path, monkeypatch)
    with open_video(path, backend="decord") as video:
        assert read_code(video.frames_at(at(5)).pixels[0]) == 5
        stuck = video.child_pid
        video._child._deadline_s = 1.0  # from here on: a busy machine may need longer to start a process
        with pytest.raises(DecodeTimeout, match=r"b\.mp4.*1\.0 s"):
            video.frames_at(at(99))
        assert not psutil.pid_exists(stuck), "the hanging process was left behind"
        assert read_code(video.frames_at(at(6)).pixels[0]) == 6
        assert video.child_pid not in (None, stuck)


def test_a_process_that_dies_is_an_error_and_replaced(path):
    with open_video(path, backend="decord") as video:
        os.kill(video.child_pid, 9)
        with pytest.raises(UnreadableVideo, match="died"):
            video.frames_at(at(5))
        assert read_code(video.frames_at(at(5)).pixels[0]) == 5


def test_closing_ends_the_process(path):
    video = open_video(path, backend="decord")
    pid = video.child_pid
    assert psutil.pid_exists(pid)
    video.close()
    assert not psutil.pid_exists(pid)
    other = open_video(path, backend="decord")
    pid = other.child_pid
    del other
    assert not psutil.pid_exists(pid), "a forgotten video keeps its process"


def test_a_fork_starts_its_own_process_and_leaves_its_parents_alone(path):
    with open_video(path, backend="decord") as video:
        parents = video.child_pid

        def child():
            right = read_code(video.frames_at(at(8)).pixels[0]) == 8
            own = video.child_pid
            video.close()
            return right and own != parents

        assert in_fork(child)
        assert video.child_pid == parents and psutil.pid_exists(parents)
        assert read_code(video.frames_at(at(9)).pixels[0]) == 9


def test_decord_runs_outside_this_process(path):
    code = (
        "import sys; from videogym.video import open_video\n"
        "open_video(sys.argv[1], backend='decord').frames_at([1.0])\n"
        "sys.exit('decord' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, timeout=60)
    assert run.returncode == 0, "decord was imported here, where nobody can stop it"
    assert run.stdout + run.stderr == b""


def test_native_pixels_are_those_of_pyav(path):
    with open_video(path, backend="decord") as theirs, open_video(path) as ours:
        times, region = at(3, 64, 150), (0.1, 0.2, 0.9, 0.7)
        assert np.array_equal(theirs.frames_at(times).pixels, ours.frames_at(times).pixels)
        cut = theirs.frames_at(times, region=region, size=(50, 30)).pixels
        assert np.array_equal(cut, ours.frames_at(times, region=region, size=(50, 30)).pixels)
        assert theirs.cache_key != ours.cache_key, "whole frames are resized from RGB, not from YUV"


def test_damage_is_an_error(clip, tmp_path):
    data = bytearray(clip("b_frames").path.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 3000] = np.random.default_rng(1).bytes(3000)
    path = tmp_path / "noisy.mp4"
    path.write_bytes(data)
    with pytest.raises(TruncatedVideo, match=r"noisy\.mp4"):
        with open_video(str(path), backend="decord") as video:
            video.frames_at(video.pts_s)


def installed(monkeypatch, *names):
    def version(name):
        if name in names:
            return "3.4.0"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_decord2_is_refused_by_name(path, monkeypatch):
    installed(monkeypatch, "decord", "decord2")
    with pytest.raises(ImportError, match=r"wrong frames.*pip uninstall decord2"):
        open_video(path, backend="decord")


def test_decord2_is_recognised_without_its_metadata(path, tmp_path, monkeypatch):
    script = tmp_path / "child.py"
    script.write_text(
        f"import decord, runpy; decord.__version__ = '3.4.0'; "
        f"runpy.run_path({decord_reader.DECORD_CHILD[-1]!r}, run_name='__main__')"
    )
    monkeypatch.setattr(decord_reader, "DECORD_CHILD", (sys.executable, "-P", str(script)))
    with pytest.raises(ImportError, match="decord2"):
        open_video(path, backend="decord")


def test_a_missing_decord_says_how_to_get_it(path, monkeypatch):
    installed(monkeypatch)
    with pytest.raises(ImportError, match=r"pip install 'videogym\[decord\]'"):
        open_video(path, backend="decord")


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("ticks", [90_000, 10**9])
def test_what_it_shows_wrongly_after_a_keyframe_is_refused(tmp_path, ticks, b_frames):
    """With B-frames and 10**9 ticks a second decord shows 1 for 0 and 9 for 50; keyframes are right."""
    path = tmp_path / "fine.mp4"
    write_clip(
        path,
        60,
        rate=10,
        codec_options={"g": "12", "bf": str(b_frames), "preset": "ultrafast"},
        muxer_options={"video_track_timescale": str(ticks)},
    )
    wrong = b_frames > 0 and ticks == 10**9
    try:
        with open_video(str(path), backend="decord") as video:
            order = np.random.default_rng(0).permutation(60)
            shown = [read_code(video.frames_at([i / 10]).pixels[0]) for i in order]
            assert not wrong and shown == order.tolist()
    except UnreadableVideo as error:
        assert wrong, error
        assert "shows another picture at" in str(error)
