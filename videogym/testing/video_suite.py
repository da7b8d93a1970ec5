"""What every video backend must do, as one function: `check_video`.

Give it a way to open a video and what its frames should say; it raises `AssertionError` with a sentence
about the first promise that is broken. Knows nothing about files, so it fits any backend.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogym.testing.coded_clips import read_code
from videogym.video import FrameBatch, Video, region_box

OpenVideo = Callable[[], Video]
ReadCode = Callable[[NDArray[np.uint8]], int]


def check_video(
    open_one: OpenVideo,
    codes: Sequence[int],
    *,
    read: ReadCode = read_code,
    singles: int = 24,
    seed: int = 0,
) -> None:
    """Check a backend on one video.

    Args:
        open_one: opens it anew; called once; the video is pickled too.
        codes: what each frame says, in the order of presentation.
        read: reads a native frame.
        singles: how many single random reads are made.
        seed: of the random reads.

    Raises:
        AssertionError: a promise of `Video` is broken.
    """
    video = open_one()
    try:
        check_meta(video, len(codes))
        check_frames(video, codes, read, singles, seed)
        check_geometry(video)
        check_refusals(video)
        check_threads(video, codes, read)
        check_life(video)
    finally:
        video.close()


def check_meta(video: Video, count: int) -> None:
    """Facts and timestamps agree with each other and with the number of frames."""
    meta, pts_s = video.meta, video.pts_s
    assert isinstance(video, Video), f"{type(video).__name__} lacks a method of Video"
    assert meta.num_frames == count, f"{count} frames were written, meta says {meta.num_frames}"
    assert pts_s.shape == (count,) and pts_s.dtype == np.float64, f"pts_s is {pts_s.dtype}{pts_s.shape}"
    assert pts_s[0] == 0.0, f"the first frame is at {pts_s[0]}, not at 0.0"
    assert (np.diff(pts_s) > 0).all(), "pts_s does not ascend strictly"
    assert pts_s[-1] < meta.duration_s, f"the last frame is at {pts_s[-1]}, the end is at {meta.duration_s}"
    assert not pts_s.flags.writeable, "pts_s can be written to"
    # Containers with a clock of milliseconds round the duration, not the rate.
    assert abs(count / meta.avg_fps - meta.duration_s) < 2e-3, (
        f"avg_fps {meta.avg_fps} is not frames / duration"
    )
    assert meta.fingerprint, "the fingerprint is empty"


def check_frames(video: Video, codes: Sequence[int], read: ReadCode, singles: int, seed: int) -> None:
    """No wrong frame in any order of reading, and every timestamp is the frame's own."""
    draw = random.Random(seed)
    count = len(codes)
    ends = np.append(video.pts_s[1:], video.meta.duration_s)

    def expect(ordinals: Sequence[int], shifts: Sequence[float]) -> None:
        # A shift of 0 asks for the very instant a frame appears, of nearly 1 for just before the next.
        times = [
            float(video.pts_s[i] + s * (ends[i] - video.pts_s[i]))
            for i, s in zip(ordinals, shifts, strict=True)
        ]
        batch = video.frames_at(times)
        said = [read(pixels) for pixels in batch.pixels]
        wrong = [(t, codes[i], c) for t, i, c in zip(times, ordinals, said, strict=True) if c != codes[i]]
        assert not wrong, (
            f"{len(wrong)} wrong frames; the first: at {wrong[0][0]} s {wrong[0][1:]} (due, shown)"
        )
        assert batch.pts_s.tolist() == video.pts_s[list(ordinals)].tolist(), f"wrong timestamps for {times}"
        assert not batch.damaged.any(), "an undamaged frame is marked damaged"

    for _ in range(singles):
        expect([draw.randrange(count)], [draw.choice((0.0, 0.5, 0.99))])
    ordinals = [draw.randrange(count) for _ in range(16)]
    expect(ordinals, [0.0] * 16)
    expect([*ordinals[:4], *ordinals[:4]], [draw.random() * 0.99 for _ in range(8)])
    expect(range(count), [0.0] * count)
    expect(range(count - 1, -1, -1 - count // 40), [0.0] * len(range(count - 1, -1, -1 - count // 40)))
    edges = video.frames_at([-1.0, video.meta.duration_s, video.meta.duration_s + 1e6])
    assert [read(p) for p in edges.pixels] == [codes[0], codes[-1], codes[-1]], "times are not clamped"


def check_geometry(video: Video) -> None:
    """Shapes are as asked, and a region is cut out of the frame at full resolution."""
    meta = video.meta
    times = [0.0, meta.duration_s / 2]
    native = _checked(video.frames_at(times), 2, (meta.width, meta.height))
    _checked(video.frames_at([]), 0, (meta.width, meta.height))
    for resizer in ("area", "bilinear", "bicubic"):
        resized = _checked(video.frames_at(times, size=(56, 40), resizer=resizer), 2, (56, 40))
        again = video.frames_at(times, size=(56, 40), resizer=resizer)
        assert np.array_equal(resized.pixels, again.pixels), (
            f"{resizer}: the same request gives other pixels"
        )
    for region in ((0.5, 0.5, 1.0, 1.0), (0.1, 0.0, 0.35, 0.9), (0.0, 0.0, 1e-9, 1e-9)):
        left, top, right, bottom = region_box(meta.width, meta.height, region)
        cut = _checked(video.frames_at(times, region=region), 2, (right - left, bottom - top))
        assert np.array_equal(cut.pixels, native.pixels[:, top:bottom, left:right]), (
            f"wrong cut for {region}"
        )
        _checked(video.frames_at(times, region=region, size=(32, 24)), 2, (32, 24))


def check_refusals(video: Video) -> None:
    """Requests without meaning are a `ValueError`."""
    nan, inf = float("nan"), float("inf")
    for times in ([nan], [0.0, inf]):
        _refuses(video, times)
    for size in ((0, 10), (10, -1), (10, 100_000)):
        _refuses(video, [0.0], size=size)
    for region in ((0.5, 0.0, 0.5, 1.0), (-0.1, 0.0, 1.0, 1.0), (0.0, 0.0, nan, 1.0)):
        _refuses(video, [0.0], region=region)
    _refuses(video, [0.0], size=(8, 8), resizer="lanczos")


def check_threads(video: Video, codes: Sequence[int], read: ReadCode) -> None:
    """Threads that share a video all get their own frames."""
    times = video.pts_s

    def reads(seed: int) -> int:
        draw = random.Random(seed)
        ordinals = [draw.randrange(len(codes)) for _ in range(6)]
        said = [read(video.frames_at([float(times[i])]).pixels[0]) for i in ordinals]
        return sum(c != codes[i] for c, i in zip(said, ordinals, strict=True))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(reads, range(4))) == 0, "wrong frames when threads share a video"


def check_life(video: Video) -> None:
    """A video pickles as an address, and closes twice."""
    stored = pickle.dumps(video)
    assert len(stored) < 4096, f"a pickled video has {len(stored)} bytes; it should be an address"
    copy = pickle.loads(stored)
    assert copy.meta == video.meta, "a pickled video comes back with other facts"
    assert np.array_equal(copy.frames_at([0.0]).pixels, video.frames_at([0.0]).pixels), (
        "and with other pixels"
    )
    copy.close()
    copy.close()


def _checked(batch: FrameBatch, count: int, size: tuple[int, int]) -> FrameBatch:
    shape = (count, size[1], size[0], 3)
    assert batch.pixels.shape == shape, f"pixels are {batch.pixels.shape}, {shape} were asked for"
    assert batch.pixels.dtype == np.uint8, f"pixels are {batch.pixels.dtype}"
    assert batch.pts_s.shape == batch.damaged.shape == (count,), "pts_s or damaged has another length"
    assert len(batch) == count, "the batch has another length"
    return batch


def _refuses(video: Video, times: Sequence[float], **request: Any) -> None:
    try:
        video.frames_at(times, **request)
    except ValueError:
        return
    raise AssertionError(f"times {times} with {request} were accepted")
