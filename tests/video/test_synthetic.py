"""Synthetic videos: strict names, exact events, and the same content drawn lazily and encoded."""

# ruff: noqa: D103

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from videogym.testing.video_suite import check_video
from videogym.video import VideoError, open_video
from videogym.video.synthetic import Address, InvalidAddress, encode, open_synthetic
from videogym.video.synthetic.script import EVENT_COLOURS, LEVELS, SCENE_COLOURS, Event, Scene

FAMILIES = ("brief_event", "event_order", "skim_suffices")
EASY = "synthetic:brief_event?level=0&duration_s=60&seed=7&size=128x72"


def nearest(pixel: NDArray[Any], palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(pixel - np.array(palette[name], float))))


def say(image: NDArray[np.uint8]) -> str:
    """What an easy frame shows: the colour of a corner, and of the centre, which every shape covers."""
    return " ".join(
        nearest(pixel.astype(float), SCENE_COLOURS | EVENT_COLOURS) for pixel in corner_and_centre(image)
    )


def corner_and_centre(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return image[0, 0], image[image.shape[0] // 2, image.shape[1] // 2]


def due(source: str) -> list[str]:
    """What `say` must read in each frame, from the script alone."""
    script = open_synthetic(source).script
    said = []
    for scene in script.scenes:
        for frame in range(scene.first, scene.end):
            event = scene.event
            shown = event is not None and event.first <= frame < event.end
            said.append(f"{scene.colour} {event.colour if shown and event else scene.colour}")
    return said


def test_keeps_the_contract_of_every_backend() -> None:
    check_video(lambda: open_video(EASY), due(EASY), read=say)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("family", "synthetic:weather?level=0&duration_s=60&seed=1"),
        ("family", "synthetic:?level=0&duration_s=60&seed=1"),
        ("level", "synthetic:brief_event?duration_s=60&seed=1"),
        ("level", "synthetic:brief_event?level=4&duration_s=60&seed=1"),
        ("level", "synthetic:brief_event?level=+1&duration_s=60&seed=1"),
        ("level", "synthetic:brief_event?level=0&level=1&duration_s=60&seed=1"),
        ("duration_s", "synthetic:brief_event?level=0&duration_s=59&seed=1"),
        ("duration_s", "synthetic:brief_event?level=0&duration_s=86401&seed=1"),
        ("duration_s", "synthetic:brief_event?level=0&duration_s=60.1&seed=1"),
        ("duration_s", "synthetic:brief_event?level=0&duration_s=nan&seed=1"),
        ("duration_s", "synthetic:brief_event?level=0&duration_s=1e3&seed=1"),
        (
            "duration_s",
            "synthetic:brief_event?level=0&duration_s=60&seed=1&fps=2",
        ),  # 120 frames are too few
        ("seed", "synthetic:brief_event?level=0&duration_s=60&seed=-1"),
        ("seed", "synthetic:brief_event?level=0&duration_s=60&seed=9223372036854775808"),
        ("seed", "synthetic:brief_event?level=0&duration_s=60&seed=٣"),
        ("seed", "synthetic:brief_event?level=0&duration_s=60"),
        ("fps", "synthetic:brief_event?level=0&duration_s=60&seed=1&fps=10"),
        ("size", "synthetic:brief_event?level=0&duration_s=60&seed=1&size=641x360"),
        ("size", "synthetic:brief_event?level=0&duration_s=60&seed=1&size=640"),
        ("size", "synthetic:brief_event?level=0&duration_s=60&seed=1&size=99998x32"),
        ("event_s", "synthetic:brief_event?level=0&duration_s=60&seed=1&event_s=4"),
        ("event_s", "synthetic:brief_event?level=0&duration_s=60&seed=1&event_s=0.1"),
        ("event_s", "synthetic:counting?level=0&duration_s=60&seed=1&event_s=1.25"),
        ("size", "synthetic:small_detail?level=0&duration_s=60&seed=1"),
        ("size", "synthetic:small_detail?level=0&duration_s=60&seed=1&size=1278x720"),
        ("colour", "synthetic:brief_event?level=0&duration_s=60&seed=1&colour=red"),
        ("field ''", "synthetic:brief_event?level=0&duration_s=60&seed=1&"),
        ("synthetic:", "brief_event?level=0&duration_s=60&seed=1"),
    ],
)
def test_a_bad_address_is_refused_by_field(field: str, address: str) -> None:
    with pytest.raises(InvalidAddress, match=field) as caught:
        open_synthetic(address)
    assert isinstance(caught.value, VideoError) and isinstance(caught.value, ValueError)


@given(
    st.builds(
        Address,
        family=st.sampled_from(FAMILIES),
        level=st.integers(0, 3),
        duration_s=st.integers(60 * 8, 86_400 * 8).map(lambda n: n / 8),
        seed=st.integers(0, 2**63 - 1),
        fps=st.sampled_from((8, 16, 32)),
        size=st.tuples(st.integers(16, 2048), st.integers(16, 2048)).map(lambda s: (2 * s[0], 2 * s[1])),
        event_s=st.none() | st.sampled_from((0.125, 1.0, 3.875)),
    )
)
def test_an_address_is_read_back_from_its_text(address: Address) -> None:
    assert Address.parse(str(address)) == address


def test_the_first_three_families_are_what_they_always_were() -> None:
    """An address is all there is of a video, so results stand only while it means the same."""
    digest = hashlib.sha256()
    for family in FAMILIES:
        for settings in ("duration_s=600", "duration_s=3600&event_s=3"):
            for level, seed in itertools.product(range(4), range(5)):
                script = open_synthetic(f"synthetic:{family}?level={level}&{settings}&seed={seed}").script
                for scene in script.scenes:
                    event = scene.event
                    told = event and (event.first, event.end, event.rgb, event.shape, event.box)
                    digest.update(repr((scene.first, scene.end, scene.rgb, told)).encode())
    # Taken from version 0.1.0, which had no others.
    assert digest.hexdigest() == "9f8b21a53187fc16f38b6628bc258e332faecbba51a822a1745ff082f8359f5d"


@pytest.mark.parametrize("duration_s", [60, 600])
@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_events_that_are_counted_are_apart(level: int, duration_s: int) -> None:
    counts = set()
    for seed in range(40):
        source = f"synthetic:counting?level={level}&duration_s={duration_s}&seed={seed}"
        script = open_synthetic(source).script
        scene = script.scenes[script.asked[0]]
        counts.add(len(scene.events))
        assert scene.first < scene.events[0].first and scene.events[-1].end < scene.end
        for one, other in itertools.pairwise(scene.events):
            assert other.first - one.end >= one.end - one.first == other.end - other.first, source
    assert counts == {1, 2, 3, 4}


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_whoever_saw_all_events_and_no_cue_is_no_wiser(level: int) -> None:
    """Every colour or direction is shown once, or twice, whichever is asked about."""
    for family, seed in itertools.product(("two_hops", "small_detail"), range(20)):
        size = "&size=1280x720" if family == "small_detail" else ""
        script = open_synthetic(f"synthetic:{family}?level={level}&duration_s=60&seed={seed}{size}").script
        events = [event for scene in script.scenes for event in scene.events]
        shown = Counter(e.mark or e.colour for e in events if e.colour not in SCENE_COLOURS)
        assert set(shown) == set(script.answers) and max(shown.values()) - min(shown.values()) <= 1
        clues = [event.colour for event in events if event.colour in SCENE_COLOURS]
        assert clues == ([script.scenes[script.asked[1]].colour] if family == "two_hops" else [])


def _reads(scene: Scene, number: str) -> bool:
    return scene.event is not None and scene.event.mark == number


def test_a_number_is_drawn_cell_by_cell() -> None:
    picture = [
        " #  ###",
        "##    #",
        " #    #",
        " #    #",
        "###   #",
    ]
    source = "synthetic:digits?level=0&duration_s=60&seed={}"
    scripts = (open_synthetic(source.format(seed)).script for seed in range(1000))
    script, event = next((s, scene.event) for s in scripts for scene in s.scenes if _reads(scene, "17"))
    assert event is not None
    video = open_synthetic(str(script.address))
    image = video.frames_at([event.first / 8], size=(70, 50), region=event.box).pixels[0]
    middles = image[5::10, 5::10].astype(int)  # one pixel in the middle of each of 7 by 5 cells
    drawn = np.abs(middles - event.rgb).max(axis=2) <= 1
    assert ["".join(" #"[cell] for cell in row) for row in drawn.astype(int)] == picture


def test_a_day_opens_without_any_work_that_grows_with_its_length() -> None:
    source = "synthetic:brief_event?level=0&duration_s=86400&seed=3"
    open_synthetic(source.replace("seed=3", "seed=4"))  # fills the caches that all videos share
    tracemalloc.start()
    video = open_synthetic(source)
    frame = video.frames_at([86_399.9], size=(32, 32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Anything kept for each of the 691,200 frames would take megabytes.
    assert peak < 500_000, f"opening a day took {peak} bytes"
    assert frame.pts_s.tolist() == [86_400 - 1 / 8]


def covered(event: Event, source: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels that change when an event appears."""
    video = open_synthetic(source)
    fps = video.meta.avg_fps
    before, at = video.frames_at([(event.first - 1) / fps, event.first / fps], size=size).pixels.astype(int)
    return np.abs(at - before).max(axis=2) > 30


@pytest.mark.parametrize("level", range(len(LEVELS)))
@pytest.mark.parametrize("family", FAMILIES[:2])
def test_events_are_exact_to_the_frame(family: str, level: int) -> None:
    """What counts is when pixels of the event's colour are there."""
    video = open_synthetic(f"synthetic:{family}?level={level}&duration_s=600&seed=11")
    for event in (scene.event for scene in video.script.scenes if scene.event):
        frames = (event.first - 1, event.first, event.end - 1, event.end)
        shown = []
        for image in video.frames_at([frame / 8 for frame in frames], size=(160, 90)).pixels:
            shown.append(bool((np.abs(image.astype(int) - event.rgb).max(axis=2) <= 2).sum() > 20))
        assert shown == [False, True, True, False], f"{event} is seen in {shown} of frames {frames}"


@pytest.mark.parametrize("size", [(32, 32), (56, 56)])
def test_easy_events_fill_a_quarter_of_the_frame_and_cover_its_centre(size: tuple[int, int]) -> None:
    shapes = set()
    for seed in range(20):
        source = f"synthetic:brief_event?level=0&duration_s=60&seed={seed}"
        for event in (scene.event for scene in open_synthetic(source).script.scenes if scene.event):
            seen = covered(event, source, size)
            assert seen.mean() >= 0.25, f"{event.shape} covers {seen.mean():.0%} of {size}"
            assert seen[size[1] // 2, size[0] // 2], f"the centre is not in {event}"
            shapes.add(event.shape)
    assert shapes == {"ellipse", "rectangle", "diamond", "triangle"}


def test_easy_colours_are_far_apart() -> None:
    easy = [*list(SCENE_COLOURS.values())[:8], *list(EVENT_COLOURS.values())[:4]]
    gaps = [np.linalg.norm(np.subtract(a, b)) for a, b in itertools.combinations(easy, 2)]
    # A shade moves each channel by up to 6 and the texture by up to 10: at most 28 of the distance.
    assert min(gaps) > 100


def test_harder_levels_have_smaller_events() -> None:
    shares = []
    for level in range(len(LEVELS)):
        source = f"synthetic:brief_event?level={level}&duration_s=60&seed=5"
        events = [scene.event for scene in open_synthetic(source).script.scenes if scene.event]
        shares.append(np.mean([covered(event, source, (160, 90)).mean() for event in events]))
    assert shares == sorted(shares, reverse=True) and shares[0] > 10 * shares[3]


@pytest.mark.parametrize("family", ["event_order", "digits"])
def test_a_frame_drawn_small_is_the_native_frame_reduced(family: str) -> None:
    video = open_synthetic(f"synthetic:{family}?level=1&duration_s=60&seed=2")
    times = [scene.event.first / 8 if scene.event else scene.first / 8 for scene in video.script.scenes]
    for size in ((56, 56), (224, 126), (64, 36)):
        small = video.frames_at(times, size=size).pixels
        for native, drawn in zip(video.frames_at(times).pixels, small, strict=True):
            reduced = np.asarray(Image.fromarray(native).resize(size, Image.Resampling.BOX))
            difference = np.abs(drawn.astype(int) - reduced).mean()
            assert difference < 1.0, f"{size}: differs by {difference} of 255 on average"


def test_a_region_is_the_same_place_at_any_size() -> None:
    video = open_synthetic("synthetic:brief_event?level=1&duration_s=60&seed=2")
    event = next(scene.event for scene in video.script.scenes if scene.event)
    x0, y0, x1, y1 = event.box
    middle = ((3 * x0 + x1) / 4, (y0 + y1) / 2, (x0 + 3 * x1) / 4, (y0 + 3 * y1) / 4)
    image = video.frames_at([event.first / 8], size=(20, 20), region=middle).pixels[0]
    assert np.abs(image[10, 10].astype(int) - event.rgb).max() <= 1


def test_backgrounds_move_and_differ_between_videos() -> None:
    first, other = (
        open_synthetic(f"synthetic:skim_suffices?level=0&duration_s=60&seed={s}") for s in (1, 2)
    )
    a, b = first.frames_at([0.0, 0.125], size=(56, 56)).pixels
    assert (a != b).any(), "two neighbouring frames are equal"
    assert (a != other.frames_at([0.0], size=(56, 56)).pixels[0]).any(), "two videos begin alike"


@pytest.mark.parametrize(
    "source",
    [
        EASY,
        EASY.replace("brief_event", "digits"),
        EASY.replace("brief_event", "counting"),
        "synthetic:small_detail?level=0&duration_s=60&seed=7&fps=4&size=1280x720",
    ],
)
def test_another_process_draws_the_same_pixels(source: str) -> None:
    code = (
        "import hashlib; from videogym.video.synthetic import open_synthetic;"
        f"v = open_synthetic({source!r}); pixels = v.frames_at(v.pts_s[::7].tolist()).pixels;"
        "print(hashlib.sha256(pixels.tobytes()).hexdigest(), v.meta.fingerprint)"
    )
    video = open_synthetic(source)
    here = hashlib.sha256(video.frames_at(video.pts_s[::7].tolist()).pixels.tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.split() == [here, video.meta.fingerprint]


def test_fingerprints_tell_videos_apart() -> None:
    sources = (
        EASY,
        EASY.replace("seed=7", "seed=8"),
        EASY.replace("128x72", "128x74"),
        EASY + "&event_s=1",
    )
    assert len({open_synthetic(source).meta.fingerprint for source in sources}) == 4


def test_a_closed_video_is_refused() -> None:
    with open_synthetic(EASY) as video:
        pass
    with pytest.raises(ValueError, match="closed"):
        video.frames_at([0.0])


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    source = "synthetic:brief_event?level=1&duration_s=75.125&seed=5&size=320x180"
    path = tmp_path_factory.mktemp("encoded") / "video.mp4"
    encode(source, path)
    return source, path


def test_an_encoded_video_has_equal_times_and_content(encoded: tuple[str, Path]) -> None:
    """Decoded by PyAV alone, so that no reader of ours stands between."""
    source, path = encoded
    lazy = open_synthetic(source)
    pictures, keys, worst = [], [], 0.0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.time_base is not None
        for number, frame in enumerate(container.decode(stream)):
            assert frame.pts is not None
            time_s = float(frame.pts * stream.time_base)
            assert time_s == lazy.pts_s[number], f"frame {number} is at {time_s}"
            batch = lazy.frames_at([time_s])
            assert batch.pts_s[0] == time_s
            shown = frame.to_ndarray(format="rgb24").astype(int)
            worst = max(worst, np.abs(shown - batch.pixels[0]).mean())
            pictures.append(frame.pict_type)
            keys.append(frame.key_frame)
    assert len(pictures) == lazy.meta.num_frames == 601
    assert worst < 6.0, f"a frame differs by {worst} of 255 on average"
    assert PictureType.B in pictures, "there are no B-frames"
    assert np.flatnonzero(keys)[0] == 0 and np.diff(np.flatnonzero(keys)).max() <= 250


def test_an_encoded_event_appears_and_vanishes_in_the_same_frames(encoded: tuple[str, Path]) -> None:
    source, path = encoded
    for event in (scene.event for scene in open_synthetic(source).script.scenes if scene.event):
        times = [frame / 8 for frame in (event.first - 1, event.first, event.end - 1, event.end)]
        images = open_video(str(path)).frames_at(times).pixels.astype(int)
        shown = [bool((np.abs(image - event.rgb).max(axis=2) < 40).mean() > 0.02) for image in images]
        assert shown == [False, True, True, False], f"{event} is seen in {shown}"


def test_encoding_reports_progress_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(EASY, tmp_path / "video.mp4", progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert seen == [(32, 480), (64, 480), (96, 480), (128, 480)]


def test_encoding_refuses_a_bad_address_and_a_bad_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidAddress):
        encode("synthetic:nothing", tmp_path / "video.mp4")
    with pytest.raises(OSError):
        encode(EASY, tmp_path / "missing" / "video.mp4")
