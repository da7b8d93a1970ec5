"""The name of a synthetic video, which is all there is of it on disk.

An address is read strictly: what is missing, unknown, repeated or out of range is refused by name.
Knows nothing about what the video shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from videogym.video.addresses import SYNTHETIC_PREFIX
from videogym.video.types import VideoError

Family = Literal[
    "brief_event", "event_order", "skim_suffices", "two_hops", "counting", "small_detail", "digits"
]

NUM_LEVELS = 4
# Powers of two: then n / fps is exact in floating point and equals what a container gives back.
FRAME_RATES = (1, 2, 4, 8, 16, 32)
MIN_FRAMES = 240
MAX_EVENT_SHARE = 0.065  # of the video, so that every event fits into the shortest scene
MAX_COUNTED_SHARE = 0.02  # the same where several events share a scene
MIN_DETAIL_PIXELS = 1280 * 720  # of a frame whose finest detail a frame of the recipes does not show


class InvalidAddress(VideoError, ValueError):
    """An address cannot be read. The message names the field and what is allowed."""


@dataclass(frozen=True, slots=True)
class Address:
    """A synthetic video, named by everything that determines it.

    Written ``synthetic:brief_event?level=0&duration_s=600&seed=7``; ``fps``, ``size`` and ``event_s``
    may be added. Equal addresses have equal texts.

    Raises:
        InvalidAddress: a field is out of range.
    """

    family: Family
    level: int  # 0 (easy) to 3
    duration_s: float  # 60 to 86400, a whole number of frames
    seed: int  # 0 to 2**63 - 1
    fps: int = 8  # one of FRAME_RATES
    size: tuple[int, int] = (640, 360)  # native (width, height), pixels; small_detail: at least 1280x720
    event_s: float | None = None  # length of every event; None: set by the level for a pool of 128 frames

    def __post_init__(self) -> None:
        share = MAX_COUNTED_SHARE if self.family == "counting" else MAX_EVENT_SHARE
        frames, longest_s = self.duration_s * self.fps, self.duration_s * share
        self._require("family", self.family in get_args(Family), f"one of {', '.join(get_args(Family))}")
        self._require("level", 0 <= self.level < NUM_LEVELS, f"0 to {NUM_LEVELS - 1}")
        self._require("seed", 0 <= self.seed < 2**63, "0 to 2**63 - 1")
        self._require("fps", self.fps in FRAME_RATES, f"one of {FRAME_RATES}")
        self._require("duration_s", 60 <= self.duration_s <= 86_400, "60 to 86400 seconds")
        self._require("duration_s", frames % 1 == 0, f"a whole number of frames at {self.fps} fps")
        self._require("duration_s", frames >= MIN_FRAMES, f"at least {MIN_FRAMES} frames at {self.fps} fps")
        sides = all(32 <= side <= 4096 and side % 2 == 0 for side in self.size)
        self._require("size", sides, "two even numbers from 32 to 4096, as in 640x360")
        if self.family == "small_detail":
            enough = self.size[0] * self.size[1] >= MIN_DETAIL_PIXELS
            self._require("size", enough, f"at least {MIN_DETAIL_PIXELS} pixels, as in 1280x720")
        event_fits = self.event_s is None or 1 / self.fps <= self.event_s <= longest_s
        self._require("event_s", event_fits, f"from one frame to {share} of the video, {longest_s:g} s")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise InvalidAddress(f"synthetic video: {name} must be {allowed}, got {getattr(self, name)!r}")

    @property
    def num_frames(self) -> int:
        """Frames of the whole video."""
        return int(self.duration_s * self.fps)

    def __str__(self) -> str:
        texts = {
            "level": str(self.level),
            "duration_s": format_seconds(self.duration_s),
            "seed": str(self.seed),
        }
        if self.fps != 8:
            texts["fps"] = str(self.fps)
        if self.size != (640, 360):
            texts["size"] = f"{self.size[0]}x{self.size[1]}"
        if self.event_s is not None:
            texts["event_s"] = format_seconds(self.event_s)
        return f"{SYNTHETIC_PREFIX}{self.family}?" + "&".join(
            f"{name}={text}" for name, text in texts.items()
        )

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises:
            InvalidAddress: a field is missing, unknown, repeated or out of range; the message names it.
        """
        if not text.startswith(SYNTHETIC_PREFIX):
            raise InvalidAddress(f"a synthetic address starts with {SYNTHETIC_PREFIX!r}, got {text!r}")
        family, values = read_fields(text.removeprefix(SYNTHETIC_PREFIX), _READERS)
        if missing := [name for name in ("level", "duration_s", "seed") if name not in values]:
            raise InvalidAddress(f"{text!r}: field {missing[0]!r} is missing")
        return cls(family, **values)  # type: ignore[arg-type]  # the family is checked in __post_init__


def read_fields(text: str, readers: Mapping[str, Callable[[str], Any]]) -> tuple[str, dict[str, Any]]:
    """Split ``head?name=value&name=value`` and read the values.

    Returns:
        The head, and the values of the fields that are there.

    Raises:
        InvalidAddress: a field is unknown, repeated or unreadable.
    """
    head, _, query = text.partition("?")
    values: dict[str, Any] = {}
    for item in query.split("&") if query else []:
        name, _, value = item.partition("=")
        if name not in readers:
            raise InvalidAddress(f"{text!r}: field {name!r} is unknown; known: {', '.join(readers)}")
        if name in values:
            raise InvalidAddress(f"{text!r}: field {name!r} is repeated")
        try:
            values[name] = readers[name](value)
        except ValueError as error:
            raise InvalidAddress(f"{text!r}: field {name!r} must be {error}, got {value!r}") from None
    return head, values


def read_whole_number(text: str) -> int:
    """Read digits; the signs, spaces and underscores that ``int`` takes are refused."""
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise ValueError("a whole number")
    return int(text)


def read_seconds(text: str) -> float:
    """Read a plain decimal number."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ValueError("a number of seconds")
    return float(text)


def format_seconds(value: float) -> str:
    """The shortest text that `read_seconds` reads back as the same number.

    >>> format_seconds(600.0), format_seconds(2.125)
    ('600', '2.125')
    """
    return str(int(value)) if value == int(value) else f"{value:.9f}".rstrip("0")


def read_frame_size(text: str) -> tuple[int, int]:
    """Read ``WIDTHxHEIGHT``."""
    if not re.fullmatch(r"[0-9]{1,5}x[0-9]{1,5}", text):
        raise ValueError("WIDTHxHEIGHT")
    width, _, height = text.partition("x")
    return int(width), int(height)


_READERS: dict[str, Callable[[str], Any]] = {
    "level": read_whole_number,
    "duration_s": read_seconds,
    "seed": read_whole_number,
    "fps": read_whole_number,
    "size": read_frame_size,
    "event_s": read_seconds,
}
