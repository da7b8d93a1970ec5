"""What one pass over the packets of a stream brings, and what follows from it for every frame.

Frames are put in the order in which they are shown, each with the keyframe that leads to it. A cut without
encoding is several parts, each with run-up and run-over that are not shown. Frames that refer to lost
packets are found here, by what the stream itself says, so that they are the same for every reader and from
every place where reading starts.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from videogym.video.bitstream import AHEAD, ANCHOR, BLIND, EMPTY, HIDDEN, LOST, RESET, SMEARED, Sense

_TORN = 128  # beside what is seen in a packet: the container says that a part of it is missing
_HOLE = 1.5  # times the usual distance of frames
_REGULAR = 0.9  # share of distances that are the usual one, in a stream whose holes mean something
_ROUNDING = 0.25  # of the usual distance: clocks of milliseconds
_NEAR = 8  # frames; more than any encoder changes in order


class Jumps(Exception):
    """Frames of a later part are shown before those of an earlier one."""


class Doubled(Exception):
    """Two frames are shown at the same time."""


@dataclass
class Headers:
    """Packets of a stream, one after the other; ticks in decoding order."""

    sense: Sense
    pts: array[int] = field(default_factory=lambda: array("q"))  # packets that show a frame
    durations: array[int] = field(default_factory=lambda: array("q"))  # 0: not told
    group: array[int] = field(default_factory=lambda: array("l"))  # which keyframe each follows
    seen: bytearray = field(default_factory=bytearray)  # what is seen in each
    keys: array[int] = field(default_factory=lambda: array("q"))
    key_dts: array[int] = field(default_factory=lambda: array("q"))
    key_seen: bytearray = field(default_factory=bytearray)
    parts: list[int] = field(default_factory=lambda: [0])  # keyframes at which time runs anew
    first: Any = None  # the first frame that the decoder gives
    opening: list[int] = field(default_factory=list)  # ticks of the first frames, as they came out
    open_groups: bool = False  # a frame follows a later keyframe than the first and is shown before it
    untimed: int = 0  # packets and first frames without a timestamp
    cut: bool = False  # the last video packet is incomplete
    ends: dict[int, int] = field(default_factory=dict)  # largest end of a packet, by stream
    _carried: int = 0  # what was seen in hidden packets since the last shown one
    _is_torn: bool = False  # a packet was, since the last keyframe
    _newest_dts: int | None = None
    _anchor: int | None = None  # ticks of the newest picture that refers to earlier ones alone

    def add(self, packet: Any) -> None:
        """Note a packet of the video stream."""
        seen = self.sense(memoryview(packet))
        self.cut = packet.is_corrupt
        if self.cut:
            seen |= _TORN
            self._is_torn = True
        if seen & EMPTY:
            self._carried |= seen & _TORN
            return
        if packet.pts is None:
            # With a part of its packet a frame may lose its time.
            self._carried |= LOST if self._is_torn else 0
            self.untimed += not seen & HIDDEN and not self._is_torn
            return
        if packet.is_keyframe:
            self._add_key(packet, seen)
        if packet.dts is not None and (self._newest_dts is None or packet.dts > self._newest_dts):
            self._newest_dts = packet.dts
        if seen & AHEAD and self._anchor is not None and packet.pts > self._anchor:
            seen |= LOST
        if not seen & AHEAD:
            self._anchor = packet.pts
        if seen & HIDDEN or packet.is_discard or not self.keys:
            # Nothing before the first keyframe can be decoded.
            self._carried |= seen & (LOST | RESET | _TORN)
            return
        self.open_groups |= len(self.keys) > 1 and packet.pts < self.keys[-1]
        self.pts.append(packet.pts)
        self.durations.append(packet.duration or 0)
        self.group.append(len(self.keys) - 1)
        self.seen.append(seen | self._carried)
        self._carried = 0

    def _add_key(self, packet: Any, seen: int) -> None:
        dts = packet.pts if packet.dts is None else packet.dts
        runs_back = bool(self.keys) and packet.pts <= self.keys[-1]
        if runs_back or (self._newest_dts is not None and dts < self._newest_dts):
            if self.keys:
                self.parts.append(len(self.keys))
            self._newest_dts = self._anchor = None
        self.keys.append(packet.pts)
        self.key_dts.append(dts)
        self.key_seen.append(seen | self._carried)
        self._carried, self._is_torn = 0, bool(seen & _TORN)


@dataclass(frozen=True)
class Arranged:
    """Frames in the order in which they are shown."""

    pts: NDArray[np.int64]  # (num_frames,) ticks, strictly ascending
    key_of: NDArray[np.int32]  # (num_frames,) the keyframe in the file from which decoding reaches each
    lost: NDArray[np.bool_]  # (num_frames,) refers to lost packets
    doubtful: NDArray[np.bool_]  # (num_frames,) may do so: frames are missing and the codec cannot tell
    last_duration: int  # ticks; 0: not told


def arrange(headers: Headers, codec: str) -> Arranged:
    """What follows from the packets of a stream.

    Args:
        headers: of the whole stream.
        codec: libav's name of its codec.

    Raises:
        Jumps: its clock jumps back.
        Doubled: two frames share their time.
    """
    pts = np.frombuffer(headers.pts, dtype=np.int64)
    keys = np.frombuffer(headers.keys, dtype=np.int64)
    group = np.frombuffer(headers.group, dtype=f"i{headers.group.itemsize}").astype(np.int32)
    # What lies before the first decoded frame refers to pictures that were cut away. That it refers to the
    # keyframe after it does not make it the first one.
    is_first = headers.first.pict_type != PictureType.B
    order = np.argsort(pts, kind="stable")
    order = order[pts[order] >= (headers.first.pts if is_first else min(headers.first.pts, keys[0]))]
    order = _without_covered(order, pts, np.searchsorted(headers.parts, group, side="right"))
    key_of = _entries(pts, keys, group, np.array(headers.parts))
    shown, holes = pts[order], _holes(pts[order])
    lost = _lost(headers, codec, pts, group, _near_hole(pts, shown, holes))[order]
    doubtful = np.zeros(len(shown), dtype=np.bool_)
    if codec in BLIND and len(shown) > 1 and _is_regular(shown):
        doubtful = _after(holes, key_of[order])
    return Arranged(shown, key_of[order], lost, doubtful, int(headers.durations[order[-1]]))


def _without_covered(
    order: NDArray[np.intp], pts: NDArray[np.int64], part: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Without frames that would be shown for no time, because the next part begins with another."""
    part, same = part[order], np.diff(pts[order]) == 0
    if (np.diff(part) < 0).any():
        raise Jumps
    if (same & (np.diff(part) == 0)).any():
        raise Doubled
    return np.delete(order, np.flatnonzero(same))


def _entries(
    pts: NDArray[np.int64], keys: NDArray[np.int64], group: NDArray[np.int32], parts: NDArray[np.intp]
) -> NDArray[np.int32]:
    """The last keyframe that a frame follows in the file and is not shown before."""
    entry, first = group.copy(), parts[np.searchsorted(parts, group, side="right") - 1]
    while True:
        leads = (pts < keys[entry]) & (entry > first)
        if not leads.any():
            return entry
        entry[leads] -= 1


# --- holes in time ---------------------------------------------------------------------------------


def _holes(shown: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(num_frames,) whether more time than usual has passed since the frame before."""
    steps = np.diff(shown, prepend=shown[0])
    usual = np.median(steps[1:]) if len(shown) > 1 else 0
    return np.asarray(steps > _HOLE * usual)


def _is_regular(shown: NDArray[np.int64]) -> bool:
    """Whether nearly all frames are equally far apart, so that one that is not lacks a neighbour."""
    steps = np.diff(shown)
    usual = float(np.median(steps))
    return float(np.mean(np.abs(steps - usual) <= max(1.0, _ROUNDING * usual))) >= _REGULAR


def _after(holes: NDArray[np.bool_], key_of: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Frames after a hole, up to the next keyframe."""
    inside = holes & (np.diff(key_of, prepend=-1) == 0)
    count = np.cumsum(inside)
    return np.asarray(count > count[np.searchsorted(key_of, key_of, side="left")])


def _near_hole(
    pts: NDArray[np.int64], shown: NDArray[np.int64], holes: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """(num_packets,) whether frames are missing around a packet."""
    count = np.concatenate([[0], np.cumsum(holes)])
    place = np.searchsorted(shown, pts)
    before, behind = np.maximum(place - _NEAR, 0), np.minimum(place + _NEAR, len(shown))
    return np.asarray(count[behind] > count[before])


# --- lost packets ----------------------------------------------------------------------------------


def _lost(
    headers: Headers,
    codec: str,
    pts: NDArray[np.int64],
    group: NDArray[np.int32],
    near_hole: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """(num_packets,) frames that refer to a lost packet: from there to the next whole keyframe.

    What follows that keyframe and is shown before it may still refer to what lies before it.
    """
    lost = np.zeros(len(pts), dtype=np.bool_)
    seen = np.frombuffer(headers.seen, dtype=np.uint8)
    suspect = LOST | RESET | _TORN
    if not (seen & suspect).any() and not any(s & suspect for s in headers.key_seen):
        return lost
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    is_bad = False
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(pts)], strict=True):
        key = int(group[start])
        leads_badly = is_bad
        if _is_loss(headers.key_seen[key] & ~_TORN, bool(near_hole[start])):
            lost[_begin(seen, start) : start] = True
            leads_badly = True
        is_bad &= bool(headers.key_seen[key] & SMEARED)
        for i in range(start, end):
            is_key = pts[i] == headers.keys[key]
            # Where files were joined, one of the last two packets before a keyframe looks torn, and nothing
            # is missing. These decoders tell if it truly is.
            is_joint = not is_key and i + 2 >= end and not near_hole[i] and codec in ("h264", "hevc")
            if _is_loss(int(seen[i]) & (_TORN if is_key else ~(_TORN * is_joint)), bool(near_hole[i])):
                lost[max(_begin(seen, i), start + 1) : i] = True
                is_bad = True
            lost[i] = is_bad or (leads_badly and pts[i] < headers.keys[key])
    return lost


def _is_loss(seen: int, is_near_hole: bool) -> bool:
    return bool(seen & (LOST | _TORN) or (seen & RESET and is_near_hole))


def _begin(seen: NDArray[np.uint8], i: int) -> int:
    """Where a loss that is seen at a packet began: at the anchor before it, where anchors are told."""
    return next((j for j in range(i - 1, max(i - 2 * _NEAR, -1), -1) if seen[j] & ANCHOR), i)
