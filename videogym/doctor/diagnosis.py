"""Why a file is refused: the way to it, its container, and every packet, looked at on their own evidence.

The reader stops at the first fault and says so in a sentence; here faults are counted and told apart.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

from videogym.doctor.causes import Finding, finding
from videogym.doctor.sniffing import sniff
from videogym.video import (
    DecodeTimeout,
    NoVideoStream,
    TruncatedVideo,
    UnreadableVideo,
    VideoChanged,
    VideoError,
    VideoTooLarge,
)
from videogym.video.orientation import orientation_of
from videogym.video.scan import open_container, packets_of, video_stream


def check_path(path: str) -> Finding | None:
    """Why a file cannot even be opened; None if it can."""
    try:
        status = os.stat(path)
    except PermissionError as error:
        return finding("permission", _closed_folder(path), f"the way to it is closed ({error.strerror})")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if "\0" not in path and os.path.islink(path):
            return finding("dangling_link", path, f"a link to {os.readlink(path)!r} ({reason})")
        return finding("missing", path, f"it is not there ({reason})")
    if stat.S_ISDIR(status.st_mode):
        return finding("folder", path, "a folder in place of a file")
    if not stat.S_ISREG(status.st_mode):
        return finding("special", path, "not a regular file")
    if status.st_size == 0:
        return finding("empty", path, "it has no bytes")
    try:
        with open(path, "rb") as file:
            file.read(1)
    except PermissionError as error:
        return finding("permission", path, f"it may not be read ({error.strerror})")
    except OSError as error:
        return finding("unreadable", path, f"the disk does not give it ({error.strerror})")
    return None


def _closed_folder(path: str) -> str:
    """The first folder on the way to a file that may not be entered; the path where a link hides it."""
    parents = reversed(Path(path).parents)
    return next((str(folder) for folder in parents if not os.access(folder, os.X_OK)), path)


def diagnose(path: str, error: VideoError) -> Finding:
    """The cause of the reader's refusal."""
    said = str(error).removeprefix(f"{os.path.abspath(path)}: ")
    for kind, code in (
        (VideoChanged, "changing"),
        (NoVideoStream, "no_video_stream"),
        (TruncatedVideo, "truncated"),
        (DecodeTimeout, "hang"),
        (VideoTooLarge, "too_large"),
    ):
        if isinstance(error, kind):
            return finding(code, path, said)
    try:
        code, message = _diagnose_container(path)
    except OSError as gone:
        return finding("changing", path, f"it can be read no more ({gone.strerror})")
    return finding(code, path, message or said)


def _diagnose_container(path: str) -> tuple[str, str]:
    """A code, and what was seen; "" where the reader's words are all there is."""
    try:
        container = open_container(path)
    except UnreadableVideo:
        return sniff(path)
    with container:
        return _diagnose_packets(container, path)


def _diagnose_packets(container: Any, path: str) -> tuple[str, str]:
    try:
        stream = video_stream(container, path)
    except NoVideoStream:
        return "no_video_stream", ""
    except UnreadableVideo:
        return "codec", "there is no decoder here for its video stream"
    tally = _tally(container, stream)
    if not tally.packets:
        return "no_frames", "its video stream holds no packet"
    if tally.untimed:
        return "no_timestamps", f"{tally.untimed} of its {tally.packets} packets have no time"
    if not tally.keys:
        return "no_keyframe", f"none of its {tally.packets} packets is a keyframe"
    equal = len(tally.pts) - len(set(tally.pts))
    if equal > tally.packets / 2:
        return "zero_duration", f"{equal + 1} of its {tally.packets} packets stand at the same time"
    if tally.jump is not None:
        before, after = (float(ticks * stream.time_base) for ticks in tally.jump)
        return "clock_jumps", f"its clock goes back from {before:.2f} s to {after:.2f} s"
    if equal:
        return "equal_timestamps", f"{equal} of its {tally.packets} packets have the time of another"
    return _diagnose_first_frame(container, stream, path)


def _diagnose_first_frame(container: Any, stream: Any, path: str) -> tuple[str, str]:
    container.seek(0)
    try:
        frame = next(container.decode(stream))
    except (av.FFmpegError, StopIteration):
        return "undecodable", "it has keyframes, and none of them can be decoded"
    try:
        orientation_of(frame, path)
    except UnreadableVideo:
        return "tilted", "it asks to be turned by another angle than quarter turns"
    if container.format.name == "avi":
        return "avi_order", "its frames come out in another order than their times say"
    return "unreadable", ""


@dataclass
class _Tally:
    """Counts over the packets of a video stream, in the order of the file."""

    packets: int = 0
    untimed: int = 0
    keys: int = 0
    pts: list[int] = field(default_factory=list)
    jump: tuple[int, int] | None = None  # times of the first two keyframes that run backwards


def _tally(container: Any, stream: Any) -> _Tally:
    tally, last_key = _Tally(), None
    try:
        for packet in packets_of(container, stream):
            if not packet.size:
                continue
            tally.packets += 1
            tally.keys += packet.is_keyframe
            if packet.pts is None:
                tally.untimed += 1
                continue
            tally.pts.append(packet.pts)
            if packet.is_keyframe and last_key is not None and packet.pts < last_key:
                tally.jump = tally.jump or (last_key, packet.pts)
            last_key = packet.pts if packet.is_keyframe else last_key
    except av.FFmpegError:
        pass  # what was counted up to there has to do
    return tally
