"""The packet table: when each frame of a file is shown and where decoding can start.

A table is read once from a file's packet headers and kept as a plain ``.npz``, about 1 MB for an hour.
All times in it are ticks of the stream; seconds are made in one place, `PacketTable.pts_s`. Knows
nothing about files of video: `videogym.video.scan` reads them.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from videogym.video.orientation import Orientation
from videogym.video.types import VideoMeta

TABLE_FORMAT = 3  # part of a sidecar's name; raise it when a field changes its meaning
_OF_FRAMES = {"pts": np.int64, "key_of": np.int32, "lost": np.bool_, "doubtful": np.bool_}
_OF_KEYS = {"keys": np.int64, "key_dts": np.int64}
_ARRAYS: dict[str, Any] = {**_OF_FRAMES, **_OF_KEYS, "parts": np.int64}
_FACTS = ("end", "tick", "width", "height", "codec", "container", "open_groups")
_RATE_TOLERANCE_S = 1e-3


@dataclass(frozen=True)
class PacketTable:
    """Presentation times and decoding entry points of one video stream."""

    pts: NDArray[np.int64]  # (num_frames,) ticks of shown frames, strictly ascending
    key_of: NDArray[np.int32]  # (num_frames,) ordinal of the keyframe from which decoding reaches a frame
    lost: NDArray[np.bool_]  # (num_frames,) what it refers to was lost: it cannot be shown as it was
    doubtful: NDArray[np.bool_]  # (num_frames,) this may be so, and its codec cannot tell
    keys: NDArray[
        np.int64
    ]  # (num_keys,) ticks of keyframes as they stand in the file, hidden ones included
    key_dts: NDArray[np.int64]  # (num_keys,) decoding times of the same, ticks
    parts: NDArray[np.int64]  # ordinals of keyframes at which time runs anew, in a cut without encoding
    end: int  # ticks, end of the last frame
    tick: tuple[int, int]  # seconds in one tick, as a fraction
    width: int  # pixels as stored, before orientation
    height: int
    orientation: Orientation
    codec: str
    container: str  # libav's name of the format, e.g. "mpegts"
    open_groups: bool  # some frames are shown before the keyframe that they follow in the file

    @cached_property
    def pts_s(self) -> NDArray[np.float64]:
        """(num_frames,) seconds from the first shown frame; each the float nearest to the true ratio."""
        seconds = self._seconds(self.pts)
        seconds.flags.writeable = False
        return seconds

    @property
    def duration_s(self) -> float:
        """Seconds from the first shown frame to the end of the last."""
        return float(self._seconds(np.array([self.end]))[0])

    @property
    def avg_fps(self) -> float:
        """Frames a second: a usual rate where the container's clock is too coarse to tell it.

        Windows multiply seconds by it, so that 30.0000001 instead of 30 shows every frame one late.
        """
        count = len(self.pts)
        # Integers, divided once: N / duration_s is off by a rounding for every fourth N at 30 fps.
        measured = count * self.tick[1] / (int(self.end - self.pts[0]) * self.tick[0])
        usual = (max(round(measured), 1), max(round(measured * 1.001), 1) * 1000 / 1001)
        nearest = min(usual, key=lambda rate: abs(count / rate - self.duration_s))
        # The end and the start are each rounded to a tick.
        coarse = abs(count / nearest - self.duration_s) <= 1.5 * self.tick[0] / self.tick[1]
        return float(nearest) if coarse and not self.is_vfr else measured

    @property
    def is_vfr(self) -> bool:
        """Whether some frame lies more than a tick, or a millisecond, off a constant rate."""
        ideal = np.linspace(0.0, self.pts_s[-1], len(self.pts))
        tolerance = max(_RATE_TOLERANCE_S, self.tick[0] / self.tick[1]) * 1.000001
        return bool(np.abs(self.pts_s - ideal).max() > tolerance)

    def first_of_part(self, key: int) -> int:
        """Ordinal of the first keyframe from which decoding may reach frames of a keyframe."""
        return int(self.parts[np.searchsorted(self.parts, key, side="right") - 1])

    def meta(self, fingerprint: str) -> VideoMeta:
        """The public facts."""
        width, height = self.orientation.shown_size(self.width, self.height)
        return VideoMeta(
            fingerprint=fingerprint,
            duration_s=self.duration_s,
            num_frames=len(self.pts),
            avg_fps=self.avg_fps,
            width=width,
            height=height,
            codec=self.codec,
            is_vfr=self.is_vfr,
            rotation=self.orientation.degrees,
        )

    def _seconds(self, ticks: NDArray[np.int64]) -> NDArray[np.float64]:
        # Products of integers below 2**53 divide to the nearest float, so frame i of a 30 fps file
        # lies exactly at i / 30 and a time computed by a caller finds its frame.
        return ((ticks - self.pts[0]) * self.tick[0]) / np.float64(self.tick[1])


def save_table(file: BinaryIO, table: PacketTable) -> None:
    """Write a table as ``.npz``."""
    facts = {name: getattr(table, name) for name in _FACTS}
    facts |= {name: getattr(table, name) for name in _ARRAYS}
    np.savez(file, **facts, orientation=astuple(table.orientation))


def load_table(sidecar: Path) -> PacketTable | None:
    """The stored table; None when there is none or it is damaged."""
    try:
        # Opened here, because numpy forgets to close a file that is no archive.
        with open(sidecar, "rb") as file, np.load(file, allow_pickle=False) as stored:
            facts = {name: stored[name].tolist() for name in _FACTS}
            turned = Orientation(*map(bool, stored["orientation"]))
            facts["tick"] = tuple(facts["tick"])
            table = PacketTable(**facts, **{name: stored[name] for name in _ARRAYS}, orientation=turned)
            return table if _is_sound(table) else None
    except Exception:  # zipfile and numpy raise a dozen types at damaged files, RuntimeError among them
        return None


def _is_sound(table: PacketTable) -> bool:
    """Whether a stored table can be one: what is not, another program wrote or a bit has changed."""
    numbers = (table.end, *table.tick, table.width, table.height)
    arrays = {name: getattr(table, name) for name in _ARRAYS}
    if not all(array.dtype == _ARRAYS[name] and array.ndim == 1 for name, array in arrays.items()):
        return False
    sizes = {len(arrays[name]) for name in _OF_FRAMES}, {len(arrays[name]) for name in _OF_KEYS}
    return (
        all(type(number) is int and abs(number) < 1 << 62 for number in numbers)
        and len(table.tick) == 2
        and min(table.tick) > 0
        and min(table.width, table.height) > 0
        and all(len(size) == 1 and 0 not in size for size in sizes)
        and bool((np.diff(table.pts) > 0).all() and (np.diff(table.parts) > 0).all())
        and 0 <= table.key_of.min() <= table.key_of.max() < len(table.keys)
        and len(table.parts) > 0
        and 0 == table.parts[0] <= table.parts[-1] < len(table.keys)
        and table.end > int(table.pts[-1])
        and all(type(name) is str for name in (table.codec, table.container))
        and type(table.open_groups) is bool
    )


def pack_table(table: PacketTable) -> tuple[dict[str, Any], bytes]:
    """A table for another process: what JSON can say, and the arrays one after the other."""
    arrays = [getattr(table, name) for name in _ARRAYS]
    facts = {name: getattr(table, name) for name in _FACTS} | {"orientation": astuple(table.orientation)}
    kinds = [[array.dtype.str, array.nbytes] for array in arrays]
    return facts | {"arrays": kinds}, b"".join(array.tobytes() for array in arrays)


def unpack_table(facts: dict[str, Any], body: bytes) -> PacketTable:
    """The table that `pack_table` packed."""
    told: dict[str, Any] = {name: facts[name] for name in _FACTS}
    start = 0
    for name, (kind, size) in zip(_ARRAYS, facts["arrays"], strict=True):
        told[name] = np.frombuffer(body[start : start + size], np.dtype(kind)).copy()
        start += size
    told |= {"tick": tuple(facts["tick"]), "orientation": Orientation(*facts["orientation"])}
    return PacketTable(**told)
