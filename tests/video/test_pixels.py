"""Geometry: regions, letterboxes and turned pictures, against values worked out by hand."""

# ruff: noqa: D103

import struct
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogym.testing.coded_clips import CORNERS, draw_code, read_code, write_clip
from videogym.video import UnreadableVideo, fit_within, letterbox, open_video, region_box
from videogym.video.orientation import Orientation, orientation_of
from videogym.video.times import ordinals_at

UNIT = st.floats(0, 1, allow_nan=False)


@pytest.mark.parametrize(
    ("region", "box"),
    [
        ((0.0, 0.0, 1.0, 1.0), (0, 0, 640, 360)),
        ((0.25, 0.5, 0.75, 1.0), (160, 180, 480, 360)),
        ((0.1, 0.1, 0.7, 0.7), (64, 36, 448, 252)),  # 0.7 * 640 is 448 less a rounding error
        ((0.0, 0.0, 1e-9, 1e-9), (0, 0, 1, 1)),  # never empty
        ((0.9999999, 0.9999999, 1.0, 1.0), (639, 359, 640, 360)),
        ((0.001, 0.0, 0.0012, 1.0), (1, 0, 2, 360)),
    ],
)
def test_region_boxes(region, box):
    assert region_box(640, 360, region) == box


@settings(deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.tuples(UNIT, UNIT, UNIT, UNIT))
def test_a_region_is_never_empty_and_never_outside(width, height, corners):
    x0, y0, x1, y1 = corners
    if x0 < x1 and y0 < y1:
        left, top, right, bottom = region_box(width, height, corners)
        assert 0 <= left < right <= width and 0 <= top < bottom <= height


@pytest.mark.parametrize(
    ("frame", "box", "fitted"),
    [
        ((640, 360), (224, 224), (224, 126)),
        ((360, 640), (224, 224), (126, 224)),
        ((160, 96), (320, 320), (320, 192)),  # grows too
        ((4000, 2), (100, 100), (100, 1)),  # never vanishes
        ((224, 224), (224, 224), (224, 224)),
    ],
)
def test_fitting_keeps_the_aspect(frame, box, fitted):
    assert fit_within(*frame, box) == fitted


@pytest.mark.parametrize("size", [None, (48, 27), (224, 126)])
@pytest.mark.parametrize("resizer", ["area", "bilinear", "bicubic"])
def test_the_region_of_the_whole_frame_changes_no_pixel(tmp_path, size, resizer):
    """A file, whose colour and size change in one pass without a region, and a synthetic video."""
    write_clip(tmp_path / "a.mp4", count=4, size=(160, 96))
    for source in (
        str(tmp_path / "a.mp4"),
        "synthetic:brief_event?level=0&duration_s=60&seed=1&size=64x36",
    ):
        with open_video(source) as video:
            plain, whole, *cut = (
                video.frames_at([0.0, 0.06], size=size, region=region, resizer=resizer).pixels
                for region in (None, (0, 0, 1, 1), (0.0, 0.0, np.float32(1), 1.0), (0.0, 0.0, 1.0, 0.9))
            )
            assert np.array_equal(plain, whole) and np.array_equal(plain, cut[0])
            assert plain.shape != cut[1].shape or not np.array_equal(plain, cut[1]), "a region does cut"


def test_a_letterbox_is_black_and_centred():
    boxed = letterbox(np.full((2, 3, 4, 3), 9, dtype=np.uint8), (7, 6))
    assert boxed.shape == (2, 6, 7, 3) and boxed.dtype == np.uint8
    assert (boxed[:, 1:4, 1:5] == 9).all()
    assert boxed.sum() == 2 * 3 * 4 * 3 * 9  # and nothing else


def test_a_letterbox_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="4x3 do not fit into 3x3"):
        letterbox(np.zeros((1, 3, 4, 3), dtype=np.uint8), (3, 3))


@pytest.mark.parametrize(
    ("orientation", "turned", "degrees"),
    [
        (Orientation(), lambda a: a, 0),
        (Orientation(False, True, True), lambda a: np.rot90(a, 2), 180),
        (Orientation(True, True, False), lambda a: np.rot90(a, -1), 90),  # clockwise
        (Orientation(True, False, True), lambda a: np.rot90(a, 1), 270),
        (Orientation(False, True, False), lambda a: a[:, ::-1], 0),  # a mirror
        (Orientation(True, False, False), lambda a: a.swapaxes(0, 1), 0),
    ],
)
def test_orientations(orientation, turned, degrees):
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(orientation.apply(image), turned(image))
    assert orientation.degrees == degrees
    width, height = orientation.shown_size(3, 2)
    assert orientation.apply(image).shape == (height, width, 3)


ONE = 1 << 16  # of a display matrix
TILTED_5 = (round(ONE * 0.99619), round(ONE * 0.08716))  # cos and sin of 5 degrees


def oriented(a, b, c, d):
    """What a matrix (a, b, c, d), without its three other columns, asks for."""
    matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], dtype=np.int32)
    frame = types.SimpleNamespace(side_data={"DISPLAYMATRIX": matrix.tobytes()})
    return orientation_of(frame, "clip.mp4")


@pytest.mark.parametrize(
    "matrix",
    [
        (0, 0, 0, 0),
        (0, 1, -1, 0),  # zeros with noise
        (ONE, 0, 0, 0),  # all that is left is a line
        (ONE, 0, 3, 1),
        (ONE, ONE, ONE, ONE),
        (0, 0, ONE, 0),
        (65526, 1144, -1144, 65526),  # one degree
    ],
)
def test_a_display_matrix_that_means_nothing_turns_nothing(matrix):
    assert oriented(*matrix) == Orientation()


TURNS = {
    (ONE, 0, 0, ONE): Orientation(),
    (-ONE, 0, 0, ONE): Orientation(False, True, False),
    (ONE, 0, 0, -ONE): Orientation(False, False, True),
    (-ONE, 0, 0, -ONE): Orientation(False, True, True),
    (0, ONE, -ONE, 0): Orientation(True, True, False),
    (0, -ONE, ONE, 0): Orientation(True, False, True),
    (0, ONE, ONE, 0): Orientation(True, False, False),
    (0, -ONE, -ONE, 0): Orientation(True, True, True),
}


@given(st.sampled_from(list(TURNS)), st.tuples(*[st.integers(-3000, 3000)] * 4))
def test_noise_in_a_display_matrix_changes_no_turn(turn, noise):
    """3000 of 65536 is an axis that leans by 2.6 degrees."""
    assert oriented(*(round(t * 0.97) + n for t, n in zip(turn, noise, strict=True))) == TURNS[turn]


@pytest.mark.parametrize("matrix", [(46341, 46341, -46341, 46341), (ONE, 0, ONE, ONE)])
def test_a_picture_that_truly_leans_is_refused(matrix):
    with pytest.raises(UnreadableVideo, match="quarter turns"):
        oriented(*matrix)
    cos, sin = TILTED_5
    with pytest.raises(UnreadableVideo, match="quarter turns"):
        oriented(cos, sin, -sin, cos)


def test_a_file_with_a_display_matrix_of_zeros_or_noise_plays(tmp_path):
    write_clip(tmp_path / "a.mp4", 5)
    data = (tmp_path / "a.mp4").read_bytes()
    upright = struct.pack(">9i", ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    place = data.index(upright, data.index(b"tkhd"))
    for name, matrix in {"zeros": [0] * 9, "noise": [ONE, 1, 0, -1, ONE, 2, 0, 0, 1 << 30]}.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(data[:place] + struct.pack(">9i", *matrix) + data[place + len(upright) :])
        with open_video(str(path)) as video:
            assert video.meta.rotation == 0
            assert [read_code(pixels) for pixels in video.frames_at(video.pts_s).pixels] == list(range(5))


@pytest.mark.parametrize("number", [0, 1, 12_345, 65_535])
def test_a_code_can_be_read_back(number):
    for size in ((128, 48), (160, 96), (330, 187)):
        assert read_code(draw_code(number, *size)) == number


def test_a_frame_without_a_code_is_told():
    with pytest.raises(ValueError, match="no readable code"):
        read_code(np.zeros((96, 160, 3), dtype=np.uint8))


def test_a_region_shows_its_corner(clip):
    """The corners of every clip have known colours; a wrong box would show a neighbour's."""
    regions = {
        "red": (0.02, 0.2, 0.2, 0.4),
        "green": (0.8, 0.2, 0.98, 0.4),
        "blue": (0.8, 0.77, 0.98, 0.98),
        "grey": (0.02, 0.77, 0.2, 0.98),
    }
    with open_video(str(clip("b_frames").path)) as video:
        for colour, region in regions.items():
            cut = video.frames_at([2.0], region=region, size=(16, 16)).pixels[0]
            assert np.abs(cut.mean((0, 1)) - CORNERS[colour]).max() < 12, colour


@settings(deadline=None)
@given(st.lists(st.floats(-10, 110), max_size=20), st.integers(0, 2**31))
def test_the_frame_on_display_is_the_last_one_that_began(times, seed):
    pts_s = np.cumsum(np.random.default_rng(seed).uniform(0.01, 3, 40)) - 1e-3
    pts_s -= pts_s[0]
    for time_s, ordinal in zip(times, ordinals_at(pts_s, times), strict=True):
        begun = [i for i, t in enumerate(pts_s) if t <= time_s]
        assert ordinal == (begun[-1] if begun else 0)
