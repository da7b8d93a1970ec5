"""The frame store: what it opens, what it keeps, and that nobody can tell where a frame came from."""

# ruff: noqa: D103

import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from clips import RATE
from forks import fork, status

from videogym.testing.coded_clips import read_code, write_clip
from videogym.video import FrameStore, VideoChanged, VideoNotFound, open_video

FRAME_BYTES = 80 * 48 * 3


def at(*frames):
    return [frame / RATE for frame in frames]


@pytest.fixture
def path(clip):
    return str(clip("b_frames").path)


def test_a_second_request_decodes_nothing(path):
    with FrameStore() as store:
        first = store.frames(path, at(3, 70, 3), size=(80, 48))
        stats = store.open(path).stats
        assert stats.rendered == 2
        again = store.frames(path, at(3, 70, 3), size=(80, 48))
        assert stats.rendered == 2
    assert np.array_equal(first.pixels, again.pixels)
    assert again.pts_s.tolist() == at(3, 70, 3)


def test_frames_equal_those_of_the_video_itself(path):
    with FrameStore() as store, open_video(path) as video:
        for request in (
            {"size": None},
            {"size": (56, 40), "resizer": "area"},
            {"size": (56, 40), "region": (0.5, 0.25, 1.0, 1.0)},
        ):
            for times in (at(20, 5, 130), at(5, 90), []):
                served, due = store.frames(path, times, **request), video.frames_at(times, **request)
                assert np.array_equal(served.pixels, due.pixels)
                assert served.pts_s.tolist() == due.pts_s.tolist()


def test_a_path_object_is_the_path(path):
    with FrameStore() as store, open_video(Path(path)) as video:
        assert store.open(Path(path)) is store.open(path)
        served = store.frames(Path(path), at(7), size=None)
        assert np.array_equal(served.pixels, video.frames_at(at(7)).pixels)
    with pytest.raises(TypeError, match="PathLike"):
        open_video(None)


def test_times_between_frames_share_an_entry(path):
    with FrameStore() as store:
        store.frames(path, [1.001], size=(80, 48))
        store.frames(path, [1.02], size=(80, 48))
        assert store.open(path).stats.rendered == 1


def test_a_caller_may_write_into_what_it_got(path):
    with FrameStore() as store:
        first = store.frames(path, at(9), size=(80, 48)).pixels
        before = first.copy()
        first[:] = 0
        assert np.array_equal(store.frames(path, at(9), size=(80, 48)).pixels, before)


def test_the_least_recently_used_frame_goes_first(path):
    with FrameStore(lru_bytes=2 * FRAME_BYTES) as store:
        rendered = lambda: store.open(path).stats.rendered  # noqa: E731
        for frame in (10, 20, 10, 30, 10):  # 30 pushes 20 out, not 10
            store.frames(path, at(frame), size=(80, 48))
        assert rendered() == 3
        store.frames(path, at(20), size=(80, 48))
        assert rendered() == 4


def test_no_memory_no_cache(path):
    with FrameStore(lru_bytes=0) as store:
        for _ in range(2):
            store.frames(path, at(10), size=(80, 48))
        assert store.open(path).stats.rendered == 2


def test_eight_videos_stay_open_and_a_ninth_closes_the_oldest(tmp_path):
    write_clip(tmp_path / "0.mp4", 10)
    for i in range(1, 9):
        shutil.copy(tmp_path / "0.mp4", tmp_path / f"{i}.mp4")
    with FrameStore(video_root=tmp_path) as store:
        held = [store.open(f"{i}.mp4") for i in range(9)]
        assert store.open("8.mp4") is held[8]
        assert store.open("1.mp4") is held[1]
        assert store.open("0.mp4") is not held[0]
        assert read_code(held[0].frames_at(at(7)).pixels[0]) == 7, "a video in use was closed"


def test_sources_lie_below_the_root(path, tmp_path):
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    shutil.copy(path, root / "inner" / "clip.mp4")
    shutil.copy(path, tmp_path / "secret.mp4")
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "out").symlink_to(tmp_path)
    with FrameStore(video_root=root) as store:
        for inside in ("inner/clip.mp4", "inner/../inner/clip.mp4", str(root / "inner" / "clip.mp4")):
            assert store.open(inside).meta.num_frames == 160
        outside = ("../secret.mp4", "inner/../../secret.mp4", str(tmp_path / "secret.mp4"))
        for escape in (*outside, "link.mp4", "out/secret.mp4"):
            with pytest.raises(VideoNotFound, match="outside video_root"):
                store.open(escape)
        with pytest.raises(VideoNotFound, match=r"gone\.mp4"):
            store.open("gone.mp4")


def test_a_changed_file_fails_once_and_is_then_read_afresh(tmp_path):
    path = tmp_path / "clip.mp4"
    write_clip(path, 20)
    with FrameStore() as store:
        assert read_code(store.frames(str(path), at(5), size=None).pixels[0]) == 5
        write_clip(tmp_path / "new.mp4", 20, first=300)
        os.replace(tmp_path / "new.mp4", path)
        with pytest.raises(VideoChanged, match=r"clip\.mp4"):
            store.frames(str(path), at(5), size=None)  # it holds the old frame, and must not serve it
        assert read_code(store.frames(str(path), at(5), size=None).pixels[0]) == 305


def test_a_store_pickles_as_its_options(path, tmp_path):
    store = FrameStore(tmp_path / "own", lru_bytes=123_456, video_root=os.path.dirname(path))
    store.frames(os.path.basename(path), at(1), size=(80, 48))
    stored = pickle.dumps(store)
    assert len(stored) < 1000
    copy = pickle.loads(stored)
    assert read_code(copy.frames(os.path.basename(path), at(44), size=None).pixels[0]) == 44
    assert (tmp_path / "own" / "tables").is_dir()
    store.close()
    copy.close()


def test_a_closed_store_can_be_used_again(path):
    store = FrameStore()
    video = store.open(path)
    store.close()
    store.close()
    with pytest.raises(ValueError, match="closed"):
        video.frames_at([0.0])
    assert read_code(store.frames(path, at(2), size=None).pixels[0]) == 2
    store.close()


def test_threads_share_a_store(path):
    with FrameStore(lru_bytes=4 * FRAME_BYTES) as store, ThreadPoolExecutor(4) as pool:
        frames = [(7 * i) % 160 for i in range(40)]
        said = pool.map(lambda f: read_code(store.frames(path, at(f), size=None).pixels[0]), frames)
        assert list(said) == frames


def test_bad_requests_are_refused(path):
    with FrameStore() as store:
        for times, request in (
            ([float("nan")], {"size": (8, 8)}),
            ([0.0], {"size": (0, 8)}),
            ([0.0], {"size": (8, 8), "region": (0.0, 0.0, 0.0, 1.0)}),
            ([0.0], {"size": (8, 8), "resizer": "nearest"}),
        ):
            with pytest.raises(ValueError):
                store.frames(path, times, **request)


def test_those_who_are_lent_a_store_take_turns_behind_a_fork_too(path):
    """They share its open videos and frames. A child's lock is a new one, and one for all."""
    with FrameStore() as store:
        early = store.lent()

        def share():
            stores = (early, store, store.lent(), store.lent())
            return len({id(one._lock.owned()) for one in stores}) == 1

        assert share() and status(fork(share)) == 0
