"""What is drawn into a video, where and in which frames. Knows nothing about pixels and files."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal, get_args

from videogym.video.synthetic.address import InvalidAddress
from videogym.video.synthetic.script import DIRECTIONS
from videogym.video.types import VideoMeta

InsertionKind = Literal["ellipse", "rectangle", "diamond", "triangle", "stripes", "text", "image", "video"]

MAX_TEXT = 64  # characters
MIN_OPACITY = 0.1
_DIGEST = re.compile(r"[0-9a-z-]{1,64}")
# Letters of these directions are joined and ordered by rules that plain drawing does not know.
_SHAPED = ("R", "AL", "AN")


@dataclass(frozen=True, slots=True)
class Insertion:
    """Something that the frames ``[first, end)`` show in a box.

    A text stands on a plate; a shape has an edge that sets it off from any footage.

    Raises:
        InvalidAddress: a field is out of range, the box leaves the frame, or a text cannot be drawn letter
            by letter. A `ValueError` too.
    """

    first: int  # ordinal of the first frame that shows it
    end: int  # of the first frame that no longer does
    box: tuple[float, float, float, float]  # (x0, y0, x1, y1), fractions of the frame
    kind: InsertionKind
    content: str = ""  # the text, or the direction of stripes; otherwise empty
    rgb: tuple[int, int, int] = (255, 255, 255)  # of a shape or of letters, 0 to 255
    opacity: float = 1.0  # MIN_OPACITY to 1
    file: str = ""  # path of a picture or video, or of a text's font; "": the font that Pillow brings
    fingerprint: str = ""  # of the file's content
    start_s: float = 0.0  # time of the inserted video that the first frame shows, seconds

    def __post_init__(self) -> None:
        kinds, (x0, y0, x1, y1) = get_args(InsertionKind), self.box
        self._require("kind", self.kind in kinds, f"one of {', '.join(kinds)}")
        self._require("first", self.first >= 0, "at least 0")
        self._require("end", self.end > self.first, f"above its first frame, {self.first}")
        inside = 0.0 <= x0 < x1 <= 1.0 and 0.0 <= y0 < y1 <= 1.0
        self._require("box", inside, "within the frame, 0 <= x0 < x1 <= 1 and the same of y")
        self._require("rgb", all(0 <= value <= 255 for value in self.rgb), "three numbers from 0 to 255")
        self._require("opacity", MIN_OPACITY <= self.opacity <= 1.0, f"{MIN_OPACITY} to 1")
        self._require("start_s", math.isfinite(self.start_s) and self.start_s >= 0, "at least 0 seconds")
        self._require_content()
        if self.kind in ("image", "video") or self.file:
            self._require("file", bool(self.file) and self.kind in ("image", "video", "text"), "a path")
            self._require("fingerprint", bool(_DIGEST.fullmatch(self.fingerprint)), "that of the file")

    def _require_content(self) -> None:
        if self.kind == "stripes":
            self._require("content", self.content in DIRECTIONS, f"one of {', '.join(DIRECTIONS)}")
        elif self.kind == "text":
            self._require("content", is_drawable(self.content), f"1 to {MAX_TEXT} characters on a line")
            directions = {unicodedata.bidirectional(character) for character in self.content}
            plain = directions.isdisjoint(_SHAPED)
            self._require("content", plain, "written from left to right in letters that are not joined")
        else:
            self._require("content", not self.content, "empty")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise InvalidAddress(f"insertion: {name} must be {allowed}, got {getattr(self, name)!r:.120}")

    def require_fits(self, meta: VideoMeta) -> None:
        """Check that a video has the frames.

        Raises:
            InvalidAddress: it ends before.
        """
        if self.end > meta.num_frames:
            raise InvalidAddress(
                f"insertion: frames [{self.first}, {self.end}) are not all in a video of {meta.num_frames}"
            )

    def to_json(self) -> list[Any]:
        """The fields in order, without those at the end that have their default."""
        fields = [getattr(self, name) for name in self.__slots__]
        while fields and len(fields) > _REQUIRED and fields[-1] == _DEFAULTS[len(fields) - 1]:
            fields.pop()
        return [list(value) if isinstance(value, tuple) else value for value in fields]

    @classmethod
    def from_json(cls, fields: Any) -> Insertion:
        """Read what `to_json` gave.

        Raises:
            InvalidAddress: it is something else.
        """
        if not isinstance(fields, list) or not _REQUIRED <= len(fields) <= len(_TYPES):
            raise InvalidAddress(
                f"insertion: a list of {_REQUIRED} to {len(_TYPES)} fields, got {fields!r:.120}"
            )
        values = []
        for name, kind, value in zip(cls.__slots__, _TYPES, fields, strict=False):
            values.append(_read(name, kind, value))
        return cls(*values)


def is_drawable(text: str) -> bool:
    """Whether a text is one line of at most `MAX_TEXT` characters that are all printed."""
    return 0 < len(text) <= MAX_TEXT and text.strip() == text and text.isprintable()


_REQUIRED = 4  # fields without a default
_DEFAULTS = (None,) * _REQUIRED + ("", (255, 255, 255), 1.0, "", "", 0.0)
_TYPES: tuple[Any, ...] = (int, int, (float, 4), str, str, (int, 3), float, str, str, float)


def _read(name: str, kind: Any, value: Any) -> Any:
    """A JSON value as a field of that type."""
    if isinstance(kind, tuple):
        each, count = kind
        if isinstance(value, list) and len(value) == count:
            return tuple(_read(name, each, item) for item in value)
    elif kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    elif type(value) is kind:
        return value
    raise InvalidAddress(f"insertion: {name} cannot be {value!r:.120}")
