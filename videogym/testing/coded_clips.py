"""Clips whose frames say who they are: a bar code of the frame's number, readable after any codec.

The number and its complement are drawn as 32 black or white bars along the top; the four corners below
them have known colours, for tests of regions and rotation. Written with PyAV in any container, codec
and timing that it offers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

BITS = 16
CORNERS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (120, 120, 120)}


def draw_code(number: int, width: int = 160, height: int = 96) -> NDArray[np.uint8]:
    """A frame that carries a number.

    Args:
        number: 0 to 65535.
        width: pixels, at least 128; more than a multiple of 32 leaves a margin.
        height: pixels, at least 48; the bars take the upper sixth.

    Returns:
        ``(height, width, 3)`` uint8 RGB. Below the bars the corners are `CORNERS`, clockwise from the
        upper left, and the middle moves.
    """
    top = height // 6
    frame = np.zeros((height, width, 3), dtype=np.uint8)
    row, column = np.mgrid[top:height, 0:width]
    frame[top:] = (64 + (row + column + 4 * number) % 128)[..., None]
    box_h, box_w = (height - top) // 3, width // 4
    red, green, blue, grey = CORNERS.values()
    frame[top : top + box_h, :box_w] = red
    frame[top : top + box_h, -box_w:] = green
    frame[-box_h:, -box_w:] = blue
    frame[-box_h:, :box_w] = grey
    stamp_code(frame, number)
    return frame


def stamp_code(frame: NDArray[np.uint8], number: int) -> None:
    """Draw the bars of a number over the upper sixth of an ``(H, W, 3)`` frame."""
    bar, top = frame.shape[1] // (2 * BITS), frame.shape[0] // 6
    bits = (number >> np.arange(BITS)) & 1
    frame[:top] = 0
    frame[:top, : bar * 2 * BITS] = np.repeat(np.concatenate([bits, 1 - bits]) * 255, bar)[None, :, None]


def read_code(frame: NDArray[np.uint8]) -> int:
    """The number in a frame of the size it was drawn in.

    Raises:
        ValueError: the code and its complement contradict each other.
    """
    bar, top = frame.shape[1] // (2 * BITS), frame.shape[0] // 6
    rows = frame[top // 4 : top - top // 4, : bar * 2 * BITS].mean(axis=(0, 2))
    bits = rows.reshape(2 * BITS, bar)[:, bar // 4 : bar - bar // 4].mean(axis=1) > 127
    if (bits[:BITS] == bits[BITS:]).any():
        raise ValueError("the frame carries no readable code")
    return int((bits[:BITS] << np.arange(BITS)).sum())


@contextlib.contextmanager
def usual_priority() -> Iterator[None]:
    """Give this thread back the priority that it had.

    libsvtav1 makes the thread that opens it a real-time one where it may, as with root. Threads that are
    made later inherit it, and those of libvpx wait for each other in loops: two such processes on two
    cores hardly move.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    policy, param = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, param)


def write_clip(
    path: str | Path,
    count: int,
    *,
    codec: str = "libx264",
    codec_options: Mapping[str, str] | None = None,
    muxer_options: Mapping[str, str] | None = None,
    size: tuple[int, int] = (160, 96),
    rate: int = 30,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    first: int = 0,
    draw: Callable[[int, int, int], NDArray[np.uint8]] = draw_code,
) -> None:
    """Encode frames that carry ``first``, ``first + 1``, and so on.

    Args:
        path: the file; its ending chooses the container.
        count: number of frames.
        codec: name of an encoder in PyAV.
        codec_options: options of the encoder.
        muxer_options: options of the container.
        size: ``(width, height)``, pixels.
        rate: frames a second.
        pts: time of each frame in ``time_base``; None is a constant rate from 0.
        time_base: seconds in one tick of ``pts``; None is ``1 / rate``.
        first: number of the first frame.
        draw: makes a frame from its number, width and height.
    """
    with usual_priority(), av.open(str(path), "w", options=dict(muxer_options or {})) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=dict(codec_options or {}))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        tick = time_base or Fraction(1, rate)
        stream.codec_context.time_base = tick
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(draw(first + i, *size), format="rgb24")
            frame.pts, frame.time_base = i if pts is None else pts[i], tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def copy_stream(
    source: str | Path,
    target: str | Path,
    *,
    start_ticks: int = 0,
    rotation: int = 0,
    muxer_options: Mapping[str, str] | None = None,
) -> None:
    """Put the video stream of a file into another container without encoding it again.

    Args:
        source: a file with one video stream.
        target: the new file; its ending chooses the container.
        start_ticks: cut at this time, in ticks of the source: packets from the keyframe before it are
            copied with the cut as time 0, so that MP4 hides the run-up with an edit list.
        rotation: counter-clockwise degrees to be turned by a player.
        muxer_options: options of the container.
    """
    options = dict(muxer_options or {})
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream: Any = new.add_stream_from_template(old.streams.video[0])
        if rotation:
            stream.set_display_rotation(rotation)
        old.seek(start_ticks, stream=old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size and packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = packet.pts - start_ticks, packet.dts - start_ticks
                packet.stream = stream
                new.mux(packet)
