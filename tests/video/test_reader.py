"""The PyAV reader: what it spends, and what happens to an open video around it."""

# ruff: noqa: D103

import os
import pickle
import shutil

import numpy as np
import pytest
from clips import RATE, x264
from forks import in_fork

from videogym.testing.coded_clips import read_code, write_clip
from videogym.video import VideoChanged, VideoNotFound, open_video

GROUP = 50  # frames; keyframes are 0, 50, 100, 150


def seconds(*frames):
    return [frame / RATE for frame in frames]


@pytest.fixture
def video(clip):
    with open_video(str(clip("b_frames").path)) as opened:
        yield opened


def test_opening_decodes_nothing_more_than_once(clip):
    with open_video(str(clip("b_frames").path)) as first:
        assert first.meta.num_frames == 160
    with open_video(str(clip("b_frames").path)) as second:
        assert second.pts_s.tolist() == first.pts_s.tolist()
        assert second.stats.opens == 0, "a video whose table is known needs no decoder for its facts"


def test_facts_of_a_clip_that_was_written_with_them(video):
    meta = video.meta
    assert (meta.width, meta.height, meta.codec, meta.rotation) == (160, 96, "h264", 0)
    assert meta.duration_s == pytest.approx(160 / 30, abs=1e-9)  # the end of the last frame
    assert meta.avg_fps == pytest.approx(30, abs=1e-6)


def test_one_seek_for_each_group_of_pictures(video):
    video.frames_at(seconds(10, 20, 40, 60, 90, 120))  # groups 0, 1 and 2
    assert video.stats.seeks == 3


def test_reading_on_in_the_same_group_needs_no_seek(video):
    video.frames_at(seconds(55))
    video.frames_at(seconds(75))
    assert video.stats.seeks == 1
    video.frames_at(seconds(60))  # behind us
    assert video.stats.seeks == 2


def test_frames_nobody_refers_to_are_not_decoded(video):
    """Frame 45 needs what comes before it and the next reference, less the B-frames on the way."""
    video.frames_at(seconds(45))
    stats = video.stats
    assert 46 <= stats.packets <= 55
    assert stats.decoded <= 30, f"{stats.decoded} frames decoded of {stats.packets}"
    assert stats.rendered == 1


def test_only_distinct_frames_are_decoded_and_rendered(video):
    batch = video.frames_at(seconds(7, 3, 7, 3, 7))
    assert [read_code(p) for p in batch.pixels] == [7, 3, 7, 3, 7]
    assert video.stats.rendered == 2


def test_skipping_changes_no_pixel(clip):
    """Frames read sparsely, with B-frames skipped on the way, equal those of a full decode."""
    for name in ("b_frames", "hevc", "hevc_layers"):
        with open_video(str(clip(name).path)) as video:
            every = video.frames_at(video.pts_s)
            for frames in ([49, 99], [13, 31, 77, 158], [111]):
                assert np.array_equal(video.frames_at(video.pts_s[frames]).pixels, every.pixels[frames])


def test_a_false_keyframe_is_not_an_entry_point(clip):
    """Gradual refresh marks recovery points as keyframes; pictures decoded from there are smeared."""
    with open_video(str(clip("gradual_refresh").path)) as video:
        assert read_code(video.frames_at(seconds(104)).pixels[0]) == 104


def test_a_request_leaves_the_next_one_exact(video):
    for frame in (3, 4, 2, 98, 99, 100, 101, 159, 0, 159, 158, 50, 49):
        assert read_code(video.frames_at(seconds(frame)).pixels[0]) == frame


def test_pixels_are_handed_over(video):
    first = video.frames_at(seconds(5)).pixels
    before = first.copy()
    first[:] = 0
    assert np.array_equal(video.frames_at(seconds(5)).pixels, before)


def test_a_closed_video_refuses_to_read(clip):
    video = open_video(str(clip("b_frames").path))
    video.close()
    video.close()
    with pytest.raises(ValueError, match="closed"):
        video.frames_at([0.0])


def test_a_relative_path_survives_a_change_of_directory(clip, monkeypatch, tmp_path):
    path = clip("b_frames").path
    monkeypatch.chdir(path.parent)
    stored = pickle.dumps(open_video(path.name))
    monkeypatch.chdir(tmp_path)
    with pickle.loads(stored) as video:
        assert read_code(video.frames_at(seconds(12)).pixels[0]) == 12


def test_a_fork_reads_on_without_disturbing_its_parent(video):
    video.frames_at(seconds(55))

    def child():
        return [read_code(video.frames_at(seconds(f)).pixels[0]) for f in (56, 140, 3)] == [56, 140, 3]

    assert in_fork(child), "wrong frames after a fork"
    assert read_code(video.frames_at(seconds(70)).pixels[0]) == 70
    assert video.stats.opens == 1


def replace(path, folder):
    other = folder / "other.mp4"
    write_clip(other, 20)
    os.replace(other, path)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(replace, id="replaced"),
        pytest.param(lambda path, _: path.unlink(), id="removed"),
        pytest.param(lambda path, _: os.utime(path, ns=(1, 1)), id="touched"),
    ],
)
def test_a_file_that_changes_while_open_is_an_error(clip, tmp_path, change):
    path = tmp_path / "clip.mp4"
    shutil.copy(clip("b_frames").path, path)
    with open_video(str(path)) as video:
        video.frames_at([0.0])
        change(path, tmp_path)
        with pytest.raises(VideoChanged, match=r"clip\.mp4"):
            video.frames_at([0.0])


def test_the_fingerprint_follows_content_and_not_name_or_date(clip, tmp_path):
    source = clip("b_frames").path
    shutil.copyfile(source, tmp_path / "copy.mp4")
    with open_video(str(source)) as one, open_video(str(tmp_path / "copy.mp4")) as two:
        assert one.meta == two.meta
        assert one.cache_key != two.cache_key  # the dates differ
    data = bytearray(source.read_bytes())
    data[-1] ^= 1
    (tmp_path / "changed.mp4").write_bytes(data)
    with open_video(str(tmp_path / "changed.mp4")) as three:
        assert three.meta.fingerprint != one.meta.fingerprint


def test_a_second_clip_at_the_same_place_is_read_afresh(tmp_path):
    for first in (0, 500):
        write_clip(tmp_path / "clip.mp4", 20, first=first)
        with open_video(str(tmp_path / "clip.mp4")) as video:
            assert read_code(video.frames_at([0.0]).pixels[0]) == first


def test_an_unknown_backend_is_refused(clip):
    with pytest.raises(ValueError, match="pyav"):
        open_video(str(clip("b_frames").path), backend="opencv")


def test_missing_file(tmp_path):
    with pytest.raises(VideoNotFound, match="nowhere"):
        open_video(str(tmp_path / "nowhere.mp4"))


def test_long_groups_are_read_in_one_pass(tmp_path):
    asked = x264(tmp_path / "long.mp4", g="1000")
    with open_video(str(asked.path)) as video:
        batch = video.frames_at(seconds(*range(0, 160, 5)))
        assert [read_code(p) for p in batch.pixels] == list(range(0, 160, 5))
        assert video.stats.seeks == 1
