"""No wrong frame and no wrong time, on every kind of file and in every order of reading."""

# ruff: noqa: D103

import numpy as np
import pytest
from clips import CUT_AT, MAKERS

from videogym.testing.video_suite import check_video
from videogym.video import UnreadableVideo, open_video

# On these decord 0.6.0 returns wrong frames, cannot open the file, or has no times at all.
DECORD_REFUSES = (
    "mpegts",
    "edit_list",
    "open_groups",
    "gradual_refresh",
    "hevc_open_groups",
    "av1",
    "mpeg4",
    "mpeg2",
)

# On these torchcodec 0.13 lands on other frames than those asked for.
TORCHCODEC_REFUSES = ("mpegts", "gradual_refresh", "mpeg4", "mpeg2")


@pytest.mark.parametrize("name", MAKERS)
def test_pyav_keeps_every_promise_of_video(name, clip):
    asked = clip(name)
    check_video(lambda: open_video(str(asked.path)), asked.codes, read=asked.read)


@pytest.mark.parametrize("name", MAKERS)
def test_times_are_those_the_clip_was_written_with(name, clip):
    asked = clip(name)
    with open_video(str(asked.path)) as video:
        np.testing.assert_allclose(video.pts_s, asked.pts_s, rtol=0, atol=asked.tolerance_s)
        assert video.meta.is_vfr == (name == "variable_rate")


def test_a_time_computed_as_frame_over_rate_finds_its_frame(clip):
    """I / 30 in floating point must not fall short of frame i; a naive pts * (1 / 15360) does."""
    asked = clip("b_frames")
    with open_video(str(asked.path)) as video:
        assert video.pts_s.tolist() == [i / 30 for i in range(len(asked.codes))]


def test_an_edit_list_hides_the_run_up(clip):
    with open_video(str(clip("edit_list").path)) as video:
        batch = video.frames_at([-1.0, 0.0, 1 / 30])
        assert [clip("edit_list").read(p) for p in batch.pixels] == [CUT_AT, CUT_AT, CUT_AT + 1]


def test_a_rotated_clip_is_shown_turned(clip):
    """Its pixels are those of the very stream it was copied from, turned."""
    turned = clip("rotated")
    lying = turned.path.with_name("lying.mp4")
    with open_video(str(lying)) as flat, open_video(str(turned.path)) as upright:
        assert (upright.meta.width, upright.meta.height) == (96, 160)
        assert upright.meta.rotation == 270  # 90 degrees counter-clockwise
        expected = np.rot90(flat.frames_at([1.0]).pixels[0])
        np.testing.assert_array_equal(upright.frames_at([1.0]).pixels[0], expected)
        expected = np.rot90(flat.frames_at([1.0], size=(80, 48)).pixels[0])
        np.testing.assert_array_equal(upright.frames_at([1.0], size=(48, 80)).pixels[0], expected)


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in DECORD_REFUSES])
def test_decord_keeps_every_promise_of_video(name, clip):
    pytest.importorskip("decord")
    asked = clip(name)
    check_video(
        lambda: open_video(str(asked.path), backend="decord"), asked.codes, read=asked.read, singles=8
    )


@pytest.mark.parametrize("name", DECORD_REFUSES)
def test_decord_refuses_what_it_would_get_wrong(name, clip):
    pytest.importorskip("decord")
    with pytest.raises(UnreadableVideo, match="decord"):
        open_video(str(clip(name).path), backend="decord")


@pytest.mark.usefixtures("torchcodec")
@pytest.mark.parametrize("name", [name for name in MAKERS if name not in TORCHCODEC_REFUSES])
def test_torchcodec_keeps_every_promise_of_video(name, clip):
    asked = clip(name)
    check_video(
        lambda: open_video(str(asked.path), backend="torchcodec"), asked.codes, read=asked.read, singles=8
    )


@pytest.mark.usefixtures("torchcodec")
@pytest.mark.parametrize("name", TORCHCODEC_REFUSES)
def test_torchcodec_refuses_what_it_would_get_wrong(name, clip):
    with pytest.raises(UnreadableVideo, match="torchcodec"):
        open_video(str(clip(name).path), backend="torchcodec")
