"""Files made to hang or to take all memory: a typed error in time, and the run goes on."""

# ruff: noqa: D103

import json
import os
import struct
import subprocess
import sys
import threading
from fractions import Fraction

import numpy as np
import psutil
import pytest
from clips import COUNT, X264
from forks import in_fork

from videogym import Task, VideoQAEnv
from videogym.doctor import examine
from videogym.testing.coded_clips import read_code, write_clip
from videogym.video import (
    DecodeTimeout,
    TruncatedVideo,
    UnreadableVideo,
    VideoError,
    first_opening,
    open_video,
)
from videogym.video.first_opening import CHILD, MOST_BYTES

MPEG2 = {"codec": "mpeg2video", "codec_options": {"g": "12"}}
# The real child, in which the reading of some files goes on for ever, in native code.
HANGING = """
import ctypes, runpy, sys, types
import videogym.video.scan as scan
real = scan.scan
def hanging(path):
    if "hangs" in path:
        ctypes.PyDLL(None).pause()
    return real(path)
scan.scan = hanging
sys.argv = [{child!r}, sys.argv[1]]
source = open({child!r}).read().replace("    _bare_packages()\\n", "")
exec(compile(source, {child!r}, "exec"))
"""


def film(path, **how):
    write_clip(path, COUNT, **({"codec_options": X264} | how))
    return path.read_bytes()


def task(name):
    return Task(task_id=name, video=name, question="Q?", kind="choice", options=("a", "b"), answer="A")


def patched(data, box, place, value):
    """A film with a number of 32 bits in one of its boxes changed."""
    data = bytearray(data)
    start = data.index(box) + 4 + place
    data[start : start + 4] = struct.pack(">I", value)
    return bytes(data)


def many_samples(data, count):
    """Sample tables that tell of so many frames of one byte in one chunk."""
    for box, place, value in (
        ("stsz", 4, 1),
        ("stsz", 8, count),
        ("stts", 8, count),
        ("stsc", 4, 1),
        ("stsc", 12, count),
        ("stco", 4, 1),
    ):
        data = patched(data, box.encode(), place, value)
    return data.replace(b"ctts", b"free").replace(b"stss", b"free")


# --- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mpg", "mkv", "gif", "ts"])
def test_a_file_of_holes_is_refused_at_once_and_passed_over(tmp_path, suffix):
    how = {"mpg": MPEG2}.get(suffix, {})
    film(tmp_path / "good.mp4")
    data = b"GIF89a" + bytes(100) if suffix == "gif" else film(tmp_path / f"tera.{suffix}", **how)
    (tmp_path / f"tera.{suffix}").write_bytes(data)
    os.truncate(tmp_path / f"tera.{suffix}", 1 << 40)
    with pytest.raises(TruncatedVideo, match="were never written, as in an unfinished download"):
        open_video(str(tmp_path / f"tera.{suffix}"))
    (found,) = examine(str(tmp_path / f"tera.{suffix}")).findings
    assert found.code == "truncated"
    tasks = [task(f"tera.{suffix}"), task("good.mp4")]
    with VideoQAEnv(tasks, video_root=str(tmp_path), on_bad_video="skip") as env:
        for seed in range(3):
            assert env.reset(seed=seed)[1]["task_id"] == "good.mp4"


def test_small_holes_are_no_fault(tmp_path):
    """What a copy leaves out of zeros: 100 MB after the film."""
    film(tmp_path / "film.mp4")
    os.truncate(tmp_path / "film.mp4", 100 << 20)
    with open_video(str(tmp_path / "film.mp4")) as video:
        assert video.meta.num_frames == COUNT


@pytest.fixture
def hanging_child(tmp_path, monkeypatch):
    first_opening._end_all()
    script = tmp_path / "hanging_child.py"
    script.write_text(HANGING.format(child=CHILD[-1]))
    monkeypatch.setattr(first_opening, "CHILD", (sys.executable, str(script)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    yield
    first_opening._end_all()


def test_a_first_opening_that_never_returns_is_given_up(tmp_path, hanging_child):
    film(tmp_path / "hangs.mp4")
    film(tmp_path / "good.mp4")
    with pytest.raises(DecodeTimeout, match=r"hangs\.mp4: not read within 0\.5 s"):
        open_video(str(tmp_path / "hangs.mp4"), deadline_s=0.5)
    with open_video(str(tmp_path / "good.mp4")) as video:
        assert video.meta.num_frames == COUNT
    tasks = [task("hangs.mp4"), task("good.mp4")]
    with VideoQAEnv(tasks, video_root=str(tmp_path), on_bad_video="skip", deadline_s=0.5) as env:
        assert {env.reset(seed=seed)[1]["task_id"] for seed in range(3)} == {"good.mp4"}


def test_a_child_that_dies_is_replaced_once(tmp_path):
    film(tmp_path / "a.mp4")
    film(tmp_path / "b.mp4", rate=25)
    first_opening._end_all()
    open_video(str(tmp_path / "a.mp4")).close()
    (child,) = first_opening._idle
    os.kill(child._process.pid, 9)
    with open_video(str(tmp_path / "b.mp4")) as video:
        assert video.meta.num_frames == COUNT


def test_children_that_have_all_ended_while_idle_refuse_no_file(tmp_path):
    """Two threads leave two of them, and both end when nobody asks for a minute."""
    first_opening._end_all()
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, 3)
    children = [first_opening._Child() for _ in range(2)]
    for child in children:
        child._process.kill()
        child._process.wait()
    first_opening._idle.extend(children)
    for name in ("a.mp4", "b.mp4"):
        with open_video(str(tmp_path / name)) as video:
            assert video.meta.num_frames == 3


def test_a_file_that_kills_its_reader_is_refused(tmp_path, monkeypatch):
    film(tmp_path / "kills.mp4")
    first_opening._end_all()
    script = "import sys; sys.stdout.write('{\"bytes\": 0}\\n'); sys.stdout.flush(); sys.stdin.readline()"
    monkeypatch.setattr(first_opening, "CHILD", (sys.executable, "-c", script + "; import os; os.abort()"))
    with pytest.raises(UnreadableVideo, match=r"kills\.mp4: the process that read it died \(SIGABRT\)"):
        open_video(str(tmp_path / "kills.mp4"))


def test_a_frame_that_takes_too_long_is_given_up_and_the_next_is_shown(tmp_path, monkeypatch):
    """Time stands still but for one packet, which takes a minute."""
    film(tmp_path / "film.mp4")
    with open_video(str(tmp_path / "film.mp4"), deadline_s=30.0) as video:
        now = [0.0]
        monkeypatch.setattr("videogym.video.pyav_reader.time.monotonic", lambda: now[0])
        assert read_code(video.frames_at([0.0]).pixels[0]) == 0
        decode = video._decoder._decode

        def slow(packet, is_wanted, key):
            now[0] += 60.0
            return decode(packet, is_wanted, key)

        monkeypatch.setattr(video._decoder, "_decode", slow)
        with pytest.raises(DecodeTimeout, match=r"film\.mp4: a frame was not decoded within 30\.0 s"):
            video.frames_at([2.0])
        monkeypatch.setattr(video._decoder, "_decode", decode)
        assert read_code(video.frames_at([2.0]).pixels[0]) == 60


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan"), float("inf"), 1e6])
def test_deadlines_out_of_range(tmp_path, deadline_s):
    film(tmp_path / "film.mp4")
    with pytest.raises(ValueError, match="deadline_s must be"):
        open_video(str(tmp_path / "film.mp4"), deadline_s=deadline_s)


# --- memory --------------------------------------------------------------------------------------


def opened_elsewhere(path, most_mb):
    """What a process that may have so much memory at its peak, its children too, says of a file.

    Its own peak is that since it was executed: `getrusage` would count what its parent had at that moment.
    """
    code = (
        "import json, resource, sys\n"
        "from videogym.video import *\n"
        "try: said = ['', open_video(sys.argv[1]).meta.num_frames]\n"
        "except VideoError as error: said = [type(error).__name__, str(error)]\n"
        "from videogym.video.first_opening import _end_all; _end_all()\n"
        "status = open('/proc/self/status', encoding='ascii').read()\n"
        "own = int(status.partition('VmHWM:')[2].split()[0])\n"
        "children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(json.dumps([*said, max(own, children) / 1024]))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True)
    kind, said, peak_mb = json.loads(run.stdout)
    assert peak_mb < most_mb, f"{path.name} took {peak_mb:.0f} MB"
    return kind, said


@pytest.mark.parametrize("count", [80_000_000, 89_000_000, 2**32 - 1])
def test_an_index_made_of_nothing(tmp_path, count):
    data = many_samples(film(tmp_path / "film.mp4"), count)
    (tmp_path / "bomb.mp4").write_bytes(data)
    kind, _ = opened_elsewhere(tmp_path / "bomb.mp4", (MOST_BYTES >> 20) + 200)
    assert kind in ("UnreadableVideo", "VideoTooLarge")


def vast(path, **how):
    """Two pictures of 16,384 x 4,096, which is 1.9 times 8K."""

    def black(_number, width, height):
        return np.zeros((height, width, 3), np.uint8)

    write_clip(path, 2, size=(16_384, 4_096), draw=black, codec_options={"preset": "ultrafast"}, **how)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_pictures_larger_than_8k(tmp_path, suffix):
    path = tmp_path / f"vast.{suffix}"
    vast(path)
    kind, said = opened_elsewhere(path, (MOST_BYTES >> 20) + 200)
    assert kind == "VideoTooLarge" and "pictures of 16384x4096" in said
    (found,) = examine(str(path)).findings
    assert found.code == "too_large"


def test_a_picture_that_grows_on_the_way_is_not_decoded(tmp_path):
    """A transport stream of two sizes, the second larger than 8K: only frames of the first are shown."""
    film(tmp_path / "a.ts")
    vast(tmp_path / "b.ts", pts=[1000, 1001], time_base=Fraction(1, 30))
    joined = (tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes()
    (tmp_path / "grows.ts").write_bytes(joined)
    with open_video(str(tmp_path / "grows.ts")) as video:
        assert read_code(video.frames_at([1.0]).pixels[0]) == 30
        with pytest.raises(VideoError):
            video.frames_at([video.meta.duration_s])


# --- the child -----------------------------------------------------------------------------------


def test_one_child_serves_many_files_and_ends_with_its_parent(tmp_path):
    for i in range(5):
        write_clip(tmp_path / f"{i}.mp4", 2 + i)
    code = (
        "import sys, psutil; from videogym.video import open_video\n"
        "counts = [open_video(path).meta.num_frames for path in sys.argv[1:]]\n"
        "children = psutil.Process().children()\n"
        "print(counts, len(children), children[0].pid)\n"
    )
    paths = [str(tmp_path / f"{i}.mp4") for i in range(5)]
    run = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, check=True, text=True)
    assert run.stdout.startswith("[2, 3, 4, 5, 6] 1 ") and run.stderr == ""
    assert not psutil.pid_exists(int(run.stdout.split()[-1]))


def test_what_was_read_once_needs_no_child(tmp_path):
    film(tmp_path / "film.mp4")
    open_video(str(tmp_path / "film.mp4")).close()
    first_opening._end_all()
    open_video(str(tmp_path / "film.mp4")).close()
    assert first_opening._idle == []


def test_threads_and_forks_have_children_of_their_own(tmp_path):
    for i in range(8):
        write_clip(tmp_path / f"{i}.mp4", 2 + i)
    counts = {}

    def count(i):
        counts[i] = open_video(str(tmp_path / f"{i}.mp4")).meta.num_frames

    threads = [threading.Thread(target=count, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {i: 2 + i for i in range(6)}
    assert in_fork(lambda: open_video(str(tmp_path / "6.mp4")).meta.num_frames == 8)
    count(7)
    assert counts[7] == 9


def test_the_child_loads_little():
    """It is started by every process that meets a new file."""
    source = "import runpy, sys; sys.argv = ['', str(1 << 30)]\n"
    code = source + f"runpy.run_path({CHILD[-1]!r}, run_name='__main__'); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], input=b"", capture_output=True, check=True)
    loaded = set(run.stderr.decode().split()) | set(run.stdout.decode().split())
    assert not loaded & {"gymnasium", "videogym.env", "PIL", "torch"}
    assert "videogym.video.scan" in loaded
