"""Which source frames a pool, a skim or a clip shows, and at what size.

Frame indices live here and nowhere above: callers turn them into seconds with ``pts_s[index]``.
The rules are frame-exact to the published code: qwen-vl-utils 0.0.11 (LongVT) and the patched
utilities of Video-MTR. Both draw positions with a float32 ``linspace``, which differs from a
float64 one by a frame in most long videos; `linspace_rounded` reproduces it without torch.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def linspace_rounded(first: int, last: int, count: int) -> NDArray[np.int64]:
    """``torch.linspace(first, last, count).round()``, both ends included.

    torch rounds the step to float32 and fuses multiplication and addition, which is a product and sum
    in float64 rounded once to float32; ``round`` is half to even.
    """
    if count == 1:
        return np.array([first], dtype=np.int64)
    step = np.float64(np.float32((last - first) / (count - 1)))
    i = np.arange(count)
    # torch fills the first half from `first` and the rest backwards from `last`.
    values = np.where(i < count // 2, first + step * i, last - step * (count - 1 - i))
    return np.round(values.astype(np.float32)).astype(np.int64)


def linspace_floored(first: int, last: int, count: int) -> NDArray[np.int64]:
    """``trunc(linspace(first, last, count))`` in double precision, both ends included.

    Source: initial and retrieved indices of Video-MTR's environment.

    >>> linspace_floored(20, 28, 8).tolist()
    [20, 21, 22, 23, 24, 25, 26, 28]
    """
    return np.linspace(first, last, count).astype(np.int64)


def pool_indices(
    num_frames: int, duration_s: float, max_frames: int, fps: float = 1.0
) -> NDArray[np.int64]:
    """Source frames of Video-MTR's candidate pool.

    ``duration_s * fps`` frames, at least 4, at most ``max_frames`` and ``num_frames``, floored to an
    even number, spread over the whole video with both ends.

    Raises:
        ValueError: the video has fewer than two frames.
    """
    if num_frames < 2:
        raise ValueError(f"a pool needs a video of at least 2 frames, got {num_frames}")
    count = math.floor(min(max(duration_s * fps, 4), max_frames, num_frames))
    return linspace_rounded(0, num_frames - 1, count // 2 * 2)


def window_indices(
    num_frames: int,
    avg_fps: float,
    max_frames: int,
    fps: float = 1.0,
    start_s: float | None = None,
    end_s: float | None = None,
    min_frames: int = 2,
) -> NDArray[np.int64]:
    """Source frames of a skim (no window) or of a crop (a window in seconds), as LongVT draws them.

    The count is ``fps`` times the window's length, at least ``min_frames``, at most ``max_frames`` and the
    frames there are, floored to an even number; positions include both ends. A window is clamped to the
    video: the last frame begins before the end, so a window in the last of it can hold one frame alone.
    Hours into a video of 1 fps and less a frame can come twice, as in the source: positions are float32.

    Raises:
        ValueError: fewer than two source frames lie in the window.

    Source: ``calculate_video_frame_range`` and ``smart_nframes`` of qwen-vl-utils 0.0.11.

    >>> window_indices(5400, 30.0, 128, start_s=12.3, end_s=17.9).tolist()
    [369, 425, 481, 537]
    """
    first, last = window_bounds(num_frames, avg_fps, start_s, end_s)
    span = last - first + 1
    count = math.floor(min(max(span / avg_fps * fps, min_frames), max_frames, span)) // 2 * 2
    if count < 2:
        raise ValueError(f"a window needs room for 2 frames, got max_frames {max_frames}")
    return linspace_rounded(first, last, count)


def window_bounds(
    num_frames: int, avg_fps: float, start_s: float | None = None, end_s: float | None = None
) -> tuple[int, int]:
    """First and last source frame of a window in seconds, clamped to the video.

    Raises:
        ValueError: fewer than two source frames lie in the window.
    """
    duration_s = num_frames / avg_fps
    first, last = 0, num_frames - 1
    # The order of min and max matters: a NaN start becomes 0, a NaN end an empty window, as in the source.
    if start_s is not None:
        first = math.ceil(max(0.0, min(start_s, duration_s)) * avg_fps)
    if end_s is not None:
        last = min(math.floor(max(0.0, min(end_s, duration_s)) * avg_fps), num_frames - 1)
    if first >= last:
        raise ValueError(f"fewer than two frames between {start_s} s and {end_s} s")
    return first, last


def window_indices_by_time(
    pts_s: NDArray[np.float64],
    max_frames: int,
    fps: float = 1.0,
    start_s: float | None = None,
    end_s: float | None = None,
    min_frames: int = 2,
) -> NDArray[np.int64]:
    """`window_indices` for a variable frame rate: evenly spaced in time instead of in frame number.

    The published code multiplies seconds by the average rate, which lands seconds away from the asked
    window when the rate varies. Here every frame lies inside the window.

    Args:
        pts_s: (num_frames,) presentation times, ascending.
        max_frames: cap, as in `window_indices`.
        fps: frames a second of window.
        start_s: start of the window, seconds; None for the start of the video.
        end_s: end of the window, seconds; None for the end of the video.
        min_frames: least count, as far as the window holds so many.

    Raises:
        ValueError: fewer than two source frames lie in the window.
    """
    first = 0 if start_s is None else int(np.searchsorted(pts_s, start_s, side="left"))
    last = len(pts_s) - 1 if end_s is None else int(np.searchsorted(pts_s, end_s, side="right")) - 1
    if first >= last:
        raise ValueError(f"fewer than two frames between {start_s} s and {end_s} s")
    length_s = float(pts_s[last] - pts_s[first])
    count = math.floor(min(max(length_s * fps, min_frames), max_frames, last - first + 1)) // 2 * 2
    if count < 2:
        raise ValueError(f"a window needs room for 2 frames, got max_frames {max_frames}")
    times = np.linspace(pts_s[first], pts_s[last], count)
    return np.clip(np.searchsorted(pts_s, times, side="right") - 1, first, last).astype(np.int64)


def even_indices_by_time(pts_s: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Frames shown at ``count`` instants that are evenly spread from the first frame to the last.

    For a variable frame rate, where frames evenly spread by number crowd where there are many. A frame
    that stands through several instants comes as often.

    Args:
        pts_s: (num_frames,) presentation times, ascending.
        count: at least 1.

    >>> even_indices_by_time(np.array([0.0, 0.1, 0.2, 0.3, 10.0, 20.0]), 3).tolist()
    [0, 4, 5]
    """
    times = np.linspace(pts_s[0], pts_s[-1], count)
    return np.searchsorted(pts_s, times, side="right").astype(np.int64) - 1


def counted_indices(num_frames: int, count: int) -> NDArray[np.int64]:
    """``count`` source frames, rounded to an even number, over the whole video with both ends.

    Raises:
        ValueError: that is fewer than two, or more than there are.

    Source: ``nframes`` of ``smart_nframes`` in qwen-vl-utils 0.0.14, as ParaVT asks for its overview.
    """
    even = round(count / 2) * 2
    if not 2 <= even <= num_frames:
        raise ValueError(f"{even} frames cannot be drawn from a video of {num_frames}")
    return linspace_rounded(0, num_frames - 1, even)


def strided_indices(num_frames: int, avg_fps: float, fps: float, max_frames: int = 0) -> NDArray[np.int64]:
    """Every n-th source frame, n the frames between two of ``fps``; above ``max_frames`` evenly spread.

    Args:
        num_frames: of the video.
        avg_fps: of the video.
        fps: frames a second that are wanted.
        max_frames: more of them are replaced by so many from the first frame to the last; 0: no cap.

    Source: first frames of VideoZoomer. The last frame of a short video is seldom among them.
    """
    indices = np.arange(0, num_frames, max(1, round(avg_fps / fps)), dtype=np.int64)
    if max_frames and len(indices) > max_frames:
        return linspace_floored(0, num_frames - 1, max_frames)
    return indices


def truncated_indices(
    num_frames: int, avg_fps: float, start_s: float, end_s: float, count: int
) -> NDArray[np.int64]:
    """``count`` source frames from the one at the start to the one at the end, both clamped to the video.

    A frame comes several times where there are not so many; past the end all are the last one.

    Source: frames of a call in VideoZoomer.
    """
    last_frame = num_frames - 1
    first = min(max(_frame_at(start_s, avg_fps), 0), last_frame)
    return linspace_floored(first, min(max(_frame_at(end_s, avg_fps), first), last_frame), count)


def _frame_at(time_s: float, avg_fps: float) -> int:
    place = time_s * avg_fps
    return int(place) if math.isfinite(place) else int(math.copysign(2**62, place))


def nearest_indices(pts_s: NDArray[np.float64], times_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """The source frame whose presentation time is nearest to each instant; of two the earlier."""
    after = np.clip(np.searchsorted(pts_s, times_s, side="left"), 0, len(pts_s) - 1)
    before = np.maximum(after - 1, 0)
    earlier = times_s - pts_s[before] <= pts_s[after] - times_s
    return np.where(earlier, before, after).astype(np.int64)


def shrink_truncated(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """``(width, height)`` of at most so many pixels: both sides by one factor, each cut to whole pixels.

    Never enlarged; a side is at least 1.

    Source: frames of VideoZoomer, before the processor of its model rounds them once more.
    """
    if width * height <= max_pixels:
        return width, height
    factor = math.sqrt(max_pixels / (width * height))
    return max(1, int(width * factor)), max(1, int(height * factor))


MAX_ASPECT = 200  # of a frame that `smart_resize` takes


def smart_resize(
    height: float, width: float, min_pixels: int, max_pixels: int, factor: int = 28
) -> tuple[int, int]:
    """``(height, width)`` within a pixel budget, aspect kept, sides multiples of ``factor``.

    A side of an extremely wide or tall frame can come out as 0, as it does in the source; readers
    refuse such a size.

    Raises:
        ValueError: a side is below 1 or one side is more than 200 times the other.

    Source: ``smart_resize`` of qwen-vl-utils 0.0.11.

    >>> smart_resize(360, 640, 784, 50176)
    (168, 280)
    """
    if min(height, width) < 1 or max(height, width) / min(height, width) > MAX_ASPECT:
        raise ValueError(f"cannot resize {width}x{height}: sides must be >= 1 and within {MAX_ASPECT}:1")
    h = max(factor, round(height / factor) * factor)
    w = max(factor, round(width / factor) * factor)
    if h * w > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        h = math.floor(height / shrink / factor) * factor
        w = math.floor(width / shrink / factor) * factor
    elif h * w < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        h = math.ceil(height * grow / factor) * factor
        w = math.ceil(width * grow / factor) * factor
    return h, w
