"""The clips that the video tests read, each with the codes and times its frames must show.

What is due follows from how a clip was written, never from decoding it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from videogym.testing.coded_clips import copy_stream, draw_code, read_code, usual_priority, write_clip

COUNT = 160
RATE = 30
X264 = {"g": "50", "bf": "3", "preset": "veryfast", "crf": "23"}
CUT_AT = 68  # a frame between the keyframes 50 and 100, needed by frames that are decoded before it
EXACT_S = 1e-12
MILLISECOND_S = 0.6e-3  # Matroska rounds to whole milliseconds


@dataclass(frozen=True)
class Clip:
    """One file and the truth about it."""

    path: Path
    codes: Sequence[int]
    pts_s: Sequence[float]
    tolerance_s: float = EXACT_S
    turned: bool = False  # stored lying, to be shown turned by 90 degrees counter-clockwise

    def read(self, pixels: NDArray[np.uint8]) -> int:
        """The code in a shown frame."""
        return read_code(np.rot90(pixels, -1) if self.turned else pixels)


def constant(path: Path, count: int = COUNT, tolerance_s: float = EXACT_S, **how: Any) -> Clip:
    """A clip at a constant rate."""
    write_clip(path, count, rate=RATE, **how)
    return Clip(path, range(count), [i / RATE for i in range(count)], tolerance_s)


def x264(path: Path, tolerance_s: float = EXACT_S, **extra: str) -> Clip:
    """H.264 with B-frames and groups of 50, whose options `extra` changes."""
    options = X264 | {name.replace("_", "-"): value for name, value in extra.items()}
    return constant(path, tolerance_s=tolerance_s, codec_options=options)


def x265(path: Path, params: str) -> Clip:
    """HEVC with groups of 50."""
    options = {"preset": "veryfast", "x265-params": f"log-level=none:keyint=50:bframes=3:{params}"}
    return constant(path, codec="libx265", codec_options=options)


def variable_rate(folder: Path) -> Clip:
    """Frames 5 to 400 ms apart."""
    draw = random.Random(7)
    pts = [0]
    while len(pts) < COUNT:
        pts.append(pts[-1] + draw.choice((5, 33, 34, 100, 400)))
    path = folder / "variable.mp4"
    write_clip(path, COUNT, pts=pts, time_base=Fraction(1, 1000), codec_options=X264)
    return Clip(path, range(COUNT), [ms / 1000 for ms in pts])


def late(path: Path, tolerance_s: float = EXACT_S) -> Clip:
    """The first frame is at 5 s of the file's clock."""
    write_clip(path, COUNT, pts=range(150, 150 + COUNT), rate=RATE, codec_options=X264)
    return Clip(path, range(COUNT), [i / RATE for i in range(COUNT)], tolerance_s)


def edit_list(folder: Path) -> Clip:
    """Cut by stream copy: the run-up from keyframe 50 is in the file and must not show."""
    whole = x264(folder / "whole.mp4")
    path = folder / "cut.mp4"
    copy_stream(whole.path, path, start_ticks=CUT_AT * 15360 // RATE)
    return Clip(path, range(CUT_AT, COUNT), [i / RATE for i in range(COUNT - CUT_AT)])


def rotated(folder: Path) -> Clip:
    """To be turned by a player."""
    whole = x264(folder / "lying.mp4")
    path = folder / "turned.mp4"
    copy_stream(whole.path, path, rotation=90)
    return Clip(path, whole.codes, whole.pts_s, turned=True)


def fragmented(folder: Path) -> Clip:
    """MP4 without an index, as streaming sites write it."""
    return constant(
        folder / "fragmented.mp4",
        codec_options=X264,
        muxer_options={"movflags": "frag_keyframe+empty_moov"},
    )


def write_packets(
    path: Path, codec: str, options: dict[str, str], change: Callable[[list[Any]], list[Any]], count: int
) -> None:
    """Encode frames at `RATE`, and put into a file what is made of their packets."""
    with usual_priority(), av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        packets = []
        for number in range(count):
            packets += stream.encode(av.VideoFrame.from_ndarray(draw_code(number), format="rgb24"))
        container.mux(change(packets + stream.encode(None)))


def new_packet(packet: Any, data: bytes) -> Any:
    """A packet with other bytes in the place of another one."""
    made: Any = av.Packet(data)
    made.pts, made.dts, made.time_base, made.stream = (
        packet.pts,
        packet.dts,
        packet.time_base,
        packet.stream,
    )
    made.is_keyframe = packet.is_keyframe
    return made


MAKERS: dict[str, Callable[[Path], Clip]] = {
    "b_frames": lambda folder: x264(folder / "b.mp4"),
    "matroska": lambda folder: x264(folder / "b.mkv", MILLISECOND_S),
    "mpegts": lambda folder: x264(folder / "b.ts"),
    "variable_rate": variable_rate,
    "late_mp4": lambda folder: late(folder / "late.mp4"),
    "late_mkv": lambda folder: late(folder / "late.mkv", MILLISECOND_S),
    "edit_list": edit_list,
    "open_groups": lambda folder: x264(folder / "open.mp4", x264_params="open-gop=1:keyint=50"),
    "gradual_refresh": lambda folder: x264(folder / "gradual.mp4", x264_params="intra-refresh=1:keyint=50"),
    "only_keyframes": lambda folder: x264(folder / "keys.mp4", g="1", bf="0"),
    "fragmented": fragmented,
    "rotated": rotated,
    "hevc": lambda folder: x265(folder / "hevc.mp4", "open-gop=0"),
    "hevc_open_groups": lambda folder: x265(folder / "hevc_open.mp4", "open-gop=1"),
    "hevc_layers": lambda folder: x265(folder / "hevc_layers.mp4", "open-gop=0:temporal-layers=3"),
    "vp9": lambda folder: constant(
        folder / "vp9.webm",
        tolerance_s=MILLISECOND_S,
        codec="libvpx-vp9",
        codec_options={"g": "50", "cpu-used": "8", "deadline": "realtime"},
    ),
    "vp8": lambda folder: constant(
        folder / "vp8.webm",
        tolerance_s=MILLISECOND_S,
        codec="libvpx",
        codec_options={"g": "50", "auto-alt-ref": "1", "lag-in-frames": "16", "b": "400k"},
    ),
    "av1": lambda folder: constant(
        folder / "av1.mp4", codec="libsvtav1", codec_options={"preset": "12", "g": "50"}
    ),
    "mpeg4": lambda folder: constant(
        folder / "mpeg4.avi", codec="mpeg4", codec_options={"g": "25", "bf": "2", "b": "2M"}
    ),
    "mpeg2": lambda folder: constant(
        folder / "mpeg2.ts", codec="mpeg2video", codec_options={"g": "15", "bf": "2", "b": "2M"}
    ),
    "one_frame": lambda folder: constant(folder / "one.mp4", count=1, codec_options=X264),
}
