"""Planted videos: the source's frames bit for bit, and insertions exactly where and when they are due."""

# ruff: noqa: D103

from __future__ import annotations

import math
import pickle
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import MAKERS
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from videogym.testing.coded_clips import draw_code, write_clip
from videogym.testing.video_suite import check_video
from videogym.video import FrameStore, VideoChanged, VideoError, VideoNotFound, open_video
from videogym.video.identity import fingerprint
from videogym.video.planted import Insertion, PlantedAddress, PlantedVideo, write_video
from videogym.video.synthetic import InvalidAddress

LOW = (0.3, 0.5, 0.8, 0.95)  # a box below the bars that a clip's frames carry
RED = (225, 25, 30)


def content(path: Path) -> str:
    return fingerprint(str(path), path.stat().st_size)


def planted(path: Path, *insertions: Insertion) -> str:
    return str(PlantedAddress(str(path), content(path), insertions))


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("coded") / "ein Vidéo & mehr?.mp4"
    write_clip(path, 80, codec_options={"g": "20", "bf": "3", "preset": "veryfast"})
    return path


def outside(shape: tuple[int, ...], box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """(H, W) true for pixels that no part of a box covers."""
    mask = np.ones(shape[:2], bool)
    height, width = shape[:2]
    rows = slice(math.floor(box[1] * height), math.ceil(box[3] * height))
    mask[rows, math.floor(box[0] * width) : math.ceil(box[2] * width)] = False
    return mask


@pytest.mark.parametrize("name", MAKERS)
def test_every_kind_of_file_can_be_planted(name, clip):
    """Times, seeks, variable rates, rotation, B-frames: what holds for a file holds for what is planted."""
    asked = clip(name)
    box = (0.05, 0.3, 0.8, 0.7) if asked.turned else LOW  # beside the code, wherever it lies
    with open_video(str(asked.path)) as plain:
        count = plain.meta.num_frames
        first, end = (31, min(77, count)) if count > 40 else (0, count)
    source = planted(asked.path, Insertion(first, end, box, "ellipse", rgb=RED))
    if not asked.turned:
        check_video(lambda: open_video(source), asked.codes, read=asked.read)
    middle = box[0] / 2 + box[2] / 2, box[1] / 2 + box[3] / 2
    with open_video(source) as video, open_video(str(asked.path)) as plain:
        assert video.pts_s.tolist() == plain.pts_s.tolist()
        edges = [max(first - 1, 0), first, (first + end) // 2, end - 1, min(end, count - 1)]
        random.Random(name).shuffle(edges)  # seeks back and forth
        for number in edges:
            (image,), (bare,) = (v.frames_at([float(v.pts_s[number])]).pixels for v in (video, plain))
            pixel = image[int(middle[1] * image.shape[0]), int(middle[0] * image.shape[1])]
            due = first <= number < end
            assert (pixel.tolist() == list(RED)) == due, f"frame {number} of {name}"
            free = outside(image.shape, box) if due else np.ones(image.shape[:2], bool)
            assert np.array_equal(image[free], bare[free]), f"{name}: footage changed in frame {number}"


KINDS: list[dict[str, Any]] = [
    {"kind": "ellipse"},
    {"kind": "rectangle", "opacity": 0.6},
    {"kind": "diamond"},
    {"kind": "triangle"},
    {"kind": "stripes", "content": "rising"},
    {"kind": "text", "content": "Walnut 17"},
    {"kind": "image"},
    {"kind": "video"},
]


def with_file(how: dict[str, Any], coded: Path, folder: Path) -> dict[str, Any]:
    """The insertion's file, where its kind needs one."""
    if how["kind"] == "video":
        return how | {"file": str(coded), "fingerprint": content(coded)}
    if how["kind"] == "image":
        path = folder / "picture.png"
        Image.fromarray(draw_code(3)).save(path)
        return how | {"file": str(path), "fingerprint": content(path)}
    return how


@pytest.mark.parametrize("how", KINDS, ids=lambda how: how["kind"])
@pytest.mark.parametrize("size", [None, (64, 40), (224, 224), (33, 57)])
@pytest.mark.parametrize("region", [None, (0.25, 0.375, 0.75, 1.0), (0.0, 0.0, 0.5, 0.625)])
def test_only_the_box_changes_at_any_size_and_in_any_region(how, size, region, coded, tmp_path):
    insertion = Insertion(10, 20, LOW, **with_file(how, coded, tmp_path))
    with open_video(planted(coded, insertion)) as video, open_video(str(coded)) as plain:
        times = plain.pts_s[[9, 10, 15, 19, 20]].tolist()
        for resizer in ("area", "bicubic"):
            ours, bare = (
                v.frames_at(times, size=size, region=region, resizer=resizer) for v in (video, plain)
            )
            assert np.array_equal(ours.pixels[[0, 4]], bare.pixels[[0, 4]]), "changed before or after"
            x0, y0, x1, y1 = region or (0.0, 0.0, 1.0, 1.0)
            box = tuple(
                min(max((at - low) / (high - low), 0.0), 1.0)
                for at, low, high in zip(LOW, (x0, y0) * 2, (x1, y1) * 2, strict=True)
            )
            # Texts and pictures fill whole native pixels: by less than one of them they can leave the box.
            scale = ours.pixels.shape[2] / plain.meta.width / (x1 - x0)
            down = ours.pixels.shape[1] / plain.meta.height / (y1 - y0)
            if how["kind"] in ("text", "image", "video"):
                wide, high = scale / ours.pixels.shape[2], down / ours.pixels.shape[1]
                box = (
                    max(box[0] - wide, 0),
                    max(box[1] - high, 0),
                    min(box[2] + wide, 1),
                    min(box[3] + high, 1),
                )
            free = outside(ours.pixels.shape[1:], box)
            assert np.array_equal(ours.pixels[1:4, free], bare.pixels[1:4, free]), "footage changed"
            assert all((a != b).any() for a, b in zip(ours.pixels[1:4], bare.pixels[1:4], strict=True))


# Stripes are left out: what is finer than two drawn pixels is not drawn, see the tests of synthetic videos.
@pytest.mark.parametrize(
    "how", [how for how in KINDS if how["kind"] != "stripes"], ids=lambda how: how["kind"]
)
def test_a_small_frame_looks_like_the_native_one_reduced(how, coded, tmp_path):
    insertion = Insertion(10, 20, (0.1, 0.2, 0.9, 0.9), **with_file(how, coded, tmp_path))
    with open_video(planted(coded, insertion)) as video:
        native, small = (video.frames_at([0.5], size=size).pixels[0] for size in (None, (40, 24)))
        reduced = np.asarray(Image.fromarray(native).resize((40, 24), Image.Resampling.BOX), float)
        assert np.abs(small - reduced).mean() < 6


def test_an_inserted_video_runs_with_the_footage(coded):
    """Frame 30 + i shows frame 12 + i of the inserted one, inside its light border."""
    box = (0.0, 0.0, 1.0, 1.0)  # of the whole frame: then it can be compared pixel for pixel
    how = {"file": str(coded), "fingerprint": content(coded), "start_s": 12 / 30}
    with (
        open_video(planted(coded, Insertion(30, 60, box, "video", **how))) as video,
        open_video(str(coded)) as plain,
    ):
        for i in (0, 1, 17, 29):
            (shown,), (due,) = (
                v.frames_at([float(v.pts_s[n])]).pixels for v, n in ((video, 30 + i), (plain, 12 + i))
            )
            assert np.array_equal(shown[5:-5, 5:-5], due[5:-5, 5:-5])
            assert (shown[0] == 255).all()


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("name", ["b_frames", "variable_rate", "rotated"])
def test_a_planted_video_can_be_written_as_a_file_of_the_same_content(name, lossless, clip, tmp_path):
    asked = clip(name)
    text = Insertion(3, 20, (0.3, 0.4, 0.9, 0.9), "text", "plum")
    with open_video(planted(asked.path, text)) as video:
        write_video(video, tmp_path / "written.mp4", lossless=lossless)
        with open_video(str(tmp_path / "written.mp4")) as written:
            assert written.pts_s.tolist() == video.pts_s.tolist()
            assert written.meta.duration_s == pytest.approx(video.meta.duration_s, abs=1e-9)
            ours, theirs = (v.frames_at(video.pts_s.tolist()).pixels for v in (video, written))
    if lossless:
        assert np.array_equal(ours, theirs)
    else:
        assert np.abs(ours.astype(float) - theirs).mean() < 4
    assert [path.name for path in tmp_path.glob("*.mp4")] == ["written.mp4"]


def test_fingerprints_know_the_insertions_and_not_the_names_of_files(coded, tmp_path):
    copy = tmp_path / "other name.mp4"
    shutil.copy(coded, copy)
    one = Insertion(10, 20, LOW, "ellipse", rgb=RED)
    sources = [
        str(coded),
        planted(coded),
        planted(coded, one),
        planted(coded, replace(one, end=21)),
        planted(coded, replace(one, rgb=(225, 25, 31))),
        planted(coded, one, replace(one, first=30, end=40)),
    ]
    found = []
    for source in sources:
        with open_video(source) as video:
            found.append((video.meta.fingerprint, video.cache_key))
    assert len(set(found)) == len(sources) == len({key for _, key in found})
    with open_video(planted(copy, one)) as video:
        assert video.meta.fingerprint == found[2][0]


def test_a_store_shares_frames_of_the_file_and_never_those_of_another_planting(coded):
    red = planted(coded, Insertion(10, 20, LOW, "ellipse", rgb=RED))
    blue = planted(coded, Insertion(15, 25, LOW, "rectangle", rgb=(30, 70, 250)))
    times = [0.0, 12 / 30, 17 / 30, 22 / 30]
    with FrameStore() as store:
        for size in (None, (48, 32)):
            for source in (red, blue, str(coded), blue, red):
                with open_video(source) as alone:
                    due = alone.frames_at(times, size=size).pixels
                assert np.array_equal(store.frames(source, times, size=size).pixels, due)
        file = store.open(str(coded))
        assert file.stats.rendered == 2 * len(times)  # once a size, whoever asks


def test_a_grid_of_a_planted_video_serves_it_alone(coded, tmp_path):
    red = planted(coded, Insertion(0, 80, LOW, "ellipse", rgb=RED))
    times = [0.1 * i for i in range(20)]
    with FrameStore(cache_dir=tmp_path) as store:
        store.build_grid(red, size=(48, 32), times_s=times)
        store.build_grid(str(coded), size=(48, 32), times_s=times)
    with FrameStore(cache_dir=tmp_path) as fresh:
        for source in (red, str(coded)):
            with open_video(source) as alone:
                due = alone.frames_at(times, size=(48, 32)).pixels
            assert np.array_equal(fresh.frames(source, times, size=(48, 32)).pixels, due)
        assert fresh.open(str(coded)).stats.decoded == 0


def test_nothing_outside_the_root_is_opened_for_an_address(coded, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(coded, root / "in.mp4")
    shutil.copy(coded, tmp_path / "out.mp4")
    Image.fromarray(draw_code(3)).save(tmp_path / "out.png")
    picture = Insertion(1, 9, LOW, "image", file="../out.png", fingerprint=content(tmp_path / "out.png"))
    inset = Insertion(1, 9, LOW, "video", file="../out.mp4", fingerprint=content(coded))
    with FrameStore(video_root=root) as store:
        assert store.frames(str(PlantedAddress("in.mp4", content(coded), ())), [0.0], size=None)
        for address in (
            PlantedAddress("../out.mp4", content(coded), ()),
            PlantedAddress("in.mp4", content(coded), (picture,)),
            PlantedAddress("in.mp4", content(coded), (inset,)),
        ):
            with pytest.raises(VideoNotFound, match="outside video_root"):
                store.open(str(address))


@pytest.mark.parametrize("kind", ["source", "image", "video"])
def test_a_file_that_changed_is_refused(kind, coded, tmp_path):
    """Before it is opened, and while it is open."""
    source, inset = tmp_path / "source.mp4", tmp_path / "inset.mp4"
    shutil.copy(coded, source)
    write_clip(inset, 30)
    how = with_file({"kind": kind if kind == "image" else "video"}, inset, tmp_path)
    address = planted(source, Insertion(1, 9, LOW, **how))
    changed = {"source": source, "image": tmp_path / "picture.png", "video": inset}[kind]
    with FrameStore() as store:
        before = store.frames(address, [0.1], size=None).pixels
        if kind == "image":
            Image.fromarray(draw_code(4)).save(changed)
        else:
            write_clip(changed, 40, first=7)
        for _ in range(3):
            with pytest.raises(VideoChanged, match=changed.name):
                store.frames(address, [0.1], size=None)
    with pytest.raises(VideoChanged, match=f"{changed.name}: its fingerprint"):
        open_video(address)
    assert before.any()


def test_a_planted_video_is_pickled_without_pixels(coded):
    with open_video(planted(coded, Insertion(10, 20, LOW, "text", "plum"))) as video:
        stored = pickle.dumps(video)
        assert len(stored) < 4096
        with pickle.loads(stored) as copy:
            assert copy.meta == video.meta
            assert np.array_equal(copy.frames_at([0.5]).pixels, video.frames_at([0.5]).pixels)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"box": (0.5, 0.5, 1.01, 0.9)}, "box must be within the frame"),
        ({"box": (0.5, 0.5, 0.5, 0.9)}, "box must be within the frame"),
        ({"box": (float("nan"), 0.5, 0.6, 0.9)}, "box must be within the frame"),
        ({"first": -1}, "first must be at least 0"),
        ({"end": 10}, "end must be above its first frame, 10"),
        ({"kind": "star"}, "kind must be one of ellipse"),
        ({"kind": "stripes", "content": "curly"}, "content must be one of horizontal"),
        ({"kind": "text", "content": ""}, "1 to 64 characters"),
        ({"kind": "text", "content": "two\nlines"}, "1 to 64 characters"),
        ({"kind": "text", "content": "x" * 65}, "1 to 64 characters"),
        ({"kind": "text", "content": "שלום"}, "from left to right"),
        ({"content": "round"}, "content must be empty"),
        ({"kind": "image"}, "file must be a path"),
        ({"kind": "image", "file": "a.png"}, "fingerprint must be"),
        ({"file": "a.ttf", "fingerprint": "0"}, "file must be a path"),
        ({"opacity": 0.05}, "opacity must be"),
        ({"rgb": (0, 0, 256)}, "rgb must be"),
        ({"start_s": -1.0}, "start_s must be"),
    ],
)
def test_what_cannot_be_inserted_is_refused_by_name(how, says):
    fields: dict[str, Any] = {"first": 10, "end": 20, "box": LOW, "kind": "ellipse"}
    with pytest.raises(InvalidAddress, match=says):
        Insertion(**fields | how)


def test_an_insertion_beyond_the_end_is_refused(coded):
    with pytest.raises(InvalidAddress, match=r"frames \[70, 81\) are not all in a video of 80"):
        open_video(planted(coded, Insertion(70, 81, LOW, "ellipse")))
    with open_video(planted(coded, Insertion(79, 80, LOW, "ellipse", rgb=RED))) as video:
        assert video.frames_at([1e9]).pixels[0, 70, 88].tolist() == list(RED)


def test_words_that_the_font_lacks_are_refused_and_drawn_with_one_that_has_them(coded):
    matplotlib = pytest.importorskip("matplotlib")
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for word, letter in (("Nüsse", "ü"), ("ёлка", "ё"), ("漢字", "漢")):
        with pytest.raises(InvalidAddress, match=f"no letter '{letter}' of '{word}'"):
            open_video(planted(coded, Insertion(1, 9, LOW, "text", word)))
    how = {"file": str(font), "fingerprint": content(font)}
    with pytest.raises(InvalidAddress, match=r"DejaVuSans.ttf has no letter '漢'"):
        open_video(planted(coded, Insertion(1, 9, LOW, "text", "漢字", **how)))
    drawn = []
    for word in ("Nüsse", "Nusse", "ёлка"):
        with open_video(planted(coded, Insertion(1, 9, LOW, "text", word, **how))) as video:
            drawn.append(video.frames_at([0.1]).pixels)
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[1], drawn[2])


def test_a_text_too_long_for_its_box_and_files_that_are_no_pictures_are_refused(coded):
    small = (0.5, 0.5, 0.53, 0.53)
    with pytest.raises(InvalidAddress, match="does not fit into"):
        open_video(planted(coded, Insertion(1, 9, small, "text", "far too long")))
    how = {"file": str(coded), "fingerprint": content(coded)}
    with pytest.raises(VideoError, match="not a picture"):
        open_video(planted(coded, Insertion(1, 9, LOW, "image", **how)))
    with pytest.raises(InvalidAddress, match="is no font"):
        open_video(planted(coded, Insertion(1, 9, LOW, "text", "plum", **how)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("planted-video:a.mp4", "field 'content' is missing"),
        ("planted-video:a.mp4?content=1", "field 'insertions' is missing"),
        ("planted-video:a.mp4?content=1&insertions=W10&seed=1", "field 'seed' is unknown"),
        ("planted-video:a.mp4?content=1&content=1&insertions=W10", "field 'content' is repeated"),
        ("planted-video:?content=1&insertions=W10", "must not be empty"),
        ("planted-video:a.mp4?content=1&insertions=%%%", "insertions' must be a list"),
        ("planted-video:a.mp4?content=1&insertions=e30", "insertions' must be a list"),  # {}
        ("planted-video:a.mp4?content=1&insertions=WzFd", "a list of 4 to 10 fields, got 1"),  # [1]
        ("planted-video:a.mp4?content=1&insertions=WzEsXQ", "insertions' must be a list"),  # [1,]
        ("planted-video:planted-video%3Aa.mp4?content=1&insertions=W10", "must not be planted itself"),
        ("synthetic:a", "starts with 'planted-video:'"),
    ],
)
def test_addresses_are_read_strictly(text, says):
    with pytest.raises(InvalidAddress, match=says):
        PlantedAddress.parse(text)


sides = st.floats(0, 1).flatmap(lambda a: st.floats(0, 1).map(lambda b: (min(a, b), max(a, b))))
boxes = st.tuples(sides, sides).filter(lambda s: s[0][0] < s[0][1] and s[1][0] < s[1][1])
insertions = st.builds(
    lambda first, length, xy, rgb, opacity: Insertion(
        first, first + length, (xy[0][0], xy[1][0], xy[0][1], xy[1][1]), "diamond", "", rgb, opacity
    ),
    st.integers(0, 10**6),
    st.integers(1, 10**6),
    boxes,
    st.tuples(*[st.integers(0, 255)] * 3),
    st.floats(0.1, 1.0),
)


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.lists(insertions, max_size=4))
def test_every_address_is_read_back(path, chosen):
    if path.startswith("planted-video:"):
        return
    address = PlantedAddress(path, "0af3", tuple(chosen))
    assert PlantedAddress.parse(str(address)) == address
    assert str(PlantedAddress.parse(str(address))) == str(address)


@given(st.text(max_size=60))
def test_no_text_raises_anything_else(text):
    try:
        PlantedAddress.parse("planted-video:" + text)
    except InvalidAddress:
        pass


def test_any_video_can_be_planted_not_only_files(coded):
    with open_video("synthetic:brief_event?level=0&duration_s=60&seed=7&size=128x72") as source:
        video = PlantedVideo(source, [Insertion(3, 9, LOW, "ellipse", rgb=RED)], owned=False)
        times = source.pts_s[[2, 3, 8, 9]].tolist()
        ours, bare = video.frames_at(times).pixels, source.frames_at(times).pixels
        assert (ours != bare).any(axis=(1, 2, 3)).tolist() == [False, True, True, False]
        video.close()
        assert len(source.frames_at([0.0])) == 1  # not its own
