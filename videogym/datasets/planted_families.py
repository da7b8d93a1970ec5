"""What is planted and what is asked about it, one function a family.

``what``: the colour of a shape that appears briefly. ``word``, ``number``: a text in letters of a colour.
``order``: of three words. ``count``: how often a shape of a colour appears. ``when``: at which time.
``scene``: the colour of the shape that appears while a bar at the side has a colour. ``detail``: which way
stripes run that only a crop of their region shows. ``inset``: in which corner another video runs.
``picture``: which picture is shown. The same kind of thing appears at other times too, in other colours.
Knows frames, boxes and questions; files and ids are not known here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from random import Random
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from videogym.datasets.questions import Question
from videogym.geometry import Region, Segment
from videogym.video import VideoMeta
from videogym.video.planted import Insertion
from videogym.video.planted.hiding import Span, hide, skims_of
from videogym.video.planted.insertion import InsertionKind
from videogym.video.synthetic import InvalidAddress
from videogym.video.synthetic.hiding import pool_spacings
from videogym.video.synthetic.script import DIRECTIONS, EVENT_COLOURS, MAX_COUNT, MIN_SCENE, SCENE_COLOURS
from videogym.video.synthetic.script import LEVELS as DISC_LEVELS

Box = tuple[float, float, float, float]  # (x0, y0, x1, y1), fractions of the frame
PlantedFamily = Literal[
    "what", "word", "number", "order", "count", "when", "scene", "detail", "inset", "picture"
]

MIN_DURATION_S = 120.0  # below it an insertion that a pool of 128 meets does not hide from a skim of 32
MAX_PLANTED_SHARE = 1 / 40  # of the video, so that all insertions of a task find room
PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SHAPES: dict[str, InsertionKind] = {
    "circle": "ellipse",
    "square": "rectangle",
    "diamond": "diamond",
    "triangle": "triangle",
}
COLOURS = tuple(EVENT_COLOURS)[:6]
# The colours of bars are none of a shape's; black and grey are those of borders that footage can have.
BAR_COLOURS = tuple(colour for colour in SCENE_COLOURS if colour not in ("black", "grey"))
BAR_WIDTH = 0.10  # of the frame's width
NUM_BARS = 8
INSET_CORNERS = {"top left": (0, 0), "top right": (1, 0), "bottom left": (0, 1), "bottom right": (1, 1)}
WORDS = (
    *("anchor", "apple", "barrel", "basket", "beaver", "bottle", "bridge", "candle", "canyon", "castle"),
    *("cherry", "circus", "copper", "cotton", "dragon", "falcon", "feather", "forest", "garden", "ginger"),
    *("hammer", "harbor", "helmet", "island", "jacket", "kettle", "ladder", "lemon", "magnet", "marble"),
    *("meadow", "mirror", "needle", "orange", "oyster", "parrot", "pencil", "pepper", "pillow", "planet"),
    *("pocket", "rabbit", "ribbon", "rocket", "saddle", "salmon", "shadow", "silver", "spider", "summer"),
    *("tailor", "temple", "thunder", "ticket", "turtle", "valley", "velvet", "violin", "walnut", "window"),
)


@dataclass(frozen=True, slots=True)
class PlantedLevel:
    """What the difficulty dial sets."""

    side: float  # of an insertion, as a share of the frame's shorter side
    opacity: float
    spacings: float  # length of an insertion, in spacings of the pool
    distractors: int  # insertions that are not asked about
    digits: int  # of a number


PLANTED_LEVELS = (
    PlantedLevel(0.45, 1.0, 1.8, 2, 2),
    PlantedLevel(0.32, 1.0, 1.6, 3, 3),
    PlantedLevel(0.22, 0.85, 1.4, 3, 3),
    PlantedLevel(0.16, 0.7, 1.2, 3, 4),
)


@dataclass(frozen=True, slots=True)
class Size:
    """How large insertions are and where they lie, where a user chooses.

    Raises:
        InvalidAddress: it is larger than the frame, or so small that nothing is seen.
    """

    side: float | None = None  # share of the frame's shorter side
    place: tuple[float, float] | None = None  # middle, fractions of the frame

    def __post_init__(self) -> None:
        if self.side is not None and not 0.02 <= self.side <= 1.0:
            raise InvalidAddress(f"planted tasks: side must be 0.02 to 1 of the frame, got {self.side!r}")
        if self.place is not None and not all(0.0 <= at <= 1.0 for at in self.place):
            raise InvalidAddress(f"planted tasks: place must lie in the frame, got {self.place!r}")


class Sheet:
    """One video and what is planted into it so far.

    Args:
        rng: draws everything.
        meta: facts about the video.
        pts_s: (num_frames,) its presentation times.
        level: 0 to 3.
        event_s: seconds that an insertion lasts; None: set by the level.
        size: chosen by the user.
        words: to be shown; None: `WORDS`.
        font: path and fingerprint; None: the font that Pillow brings.
        pictures: paths and fingerprints.
        other: another video, to be shown inside this one.
    """

    def __init__(
        self,
        rng: Random,
        meta: VideoMeta,
        pts_s: NDArray[np.float64],
        *,
        level: int,
        event_s: float | None,
        size: Size,
        words: tuple[str, ...] | None,
        font: tuple[str, str] | None,
        pictures: tuple[tuple[str, str], ...],
        other: tuple[str, VideoMeta],
    ) -> None:
        self.rng, self.meta, self.level = rng, meta, PLANTED_LEVELS[level]
        self.words, self.font = words or WORDS, font
        self.pictures, self.other = pictures, other
        self.disc = DISC_LEVELS[level].disc * math.sqrt(meta.width * meta.height)  # native pixels
        self._pts_s, self._size = pts_s, size
        self._skims = skims_of(pts_s, meta.duration_s, meta.is_vfr)
        self.length = self._length(event_s)
        self._insertions: list[Insertion] = []
        self._taken: list[Span] = []

    @property
    def insertions(self) -> tuple[Insertion, ...]:
        """All that was planted, in the order of its first frames."""
        return tuple(sorted(self._insertions, key=lambda one: (one.first, one.end)))

    def _length(self, event_s: float | None) -> int:
        """Frames that an insertion lasts."""
        count = self.meta.num_frames
        if event_s is not None:
            return max(1, round(event_s * count / self.meta.duration_s))
        narrowest, widest = pool_spacings(count, self.meta.duration_s)
        wanted = self.level.spacings * (narrowest + widest) / 2
        return round(min(max(wanted, widest), 2 * narrowest))

    def plant(
        self, kind: InsertionKind, colour: str = "white", within: Span | None = None, **how: Any
    ) -> Insertion:
        """Plant something where no skim shows it.

        Args:
            kind: of the insertion.
            colour: one of `EVENT_COLOURS`.
            within: frames; None for all.
            how: other fields of the insertion; a box may be given.

        Raises:
            InvalidAddress: there is no room left.
        """
        span = hide(self.rng, self._skims, self.length, within or (0, self.meta.num_frames), self._taken)
        if span is None:
            raise InvalidAddress(
                f"planted tasks: {self.length} frames do not fit into {within or 'the video'}"
            )
        self._taken.append(span)
        fields: dict[str, Any] = {"box": self.box(kind), "rgb": EVENT_COLOURS[colour]}
        fields |= {"opacity": self.level.opacity} | how
        if kind == "text" and self.font is not None:
            fields |= {"file": self.font[0], "fingerprint": self.font[1]}
        return self.put(Insertion(*span, kind=kind, **fields))

    def put(self, insertion: Insertion) -> Insertion:
        """Plant something in frames that are known."""
        self._insertions.append(insertion)
        return insertion

    def segment(self, insertion: Insertion) -> Segment:
        """The seconds that show an insertion."""
        ends = insertion.end == self.meta.num_frames
        end_s = self.meta.duration_s if ends else float(self._pts_s[insertion.end])
        return Segment(float(self._pts_s[insertion.first]), end_s)

    def evidence(self, insertions: Sequence[Insertion]) -> tuple[Segment, ...]:
        """Their seconds, in the order of time."""
        return tuple(sorted(map(self.segment, insertions), key=lambda segment: segment.start_s))

    def box(self, kind: InsertionKind) -> Box:
        """A place for something."""
        if kind == "stripes":
            wide, high = self.disc / self.meta.width, self.disc / self.meta.height
            return _placed(self.rng, wide, high, self._size.place)
        return box_of(self.rng, self.level, self._size, self.meta, kind)


def box_of(rng: Random, level: PlantedLevel, size: Size, meta: VideoMeta, kind: InsertionKind) -> Box:
    """As large as asked, anywhere or where asked, clear of the bar at the left.

    Raises:
        InvalidAddress: it would leave the frame.
    """
    shorter = (size.side or level.side) * min(meta.width, meta.height)
    wide, high = (1.6 * shorter, 0.6 * shorter) if kind == "text" else (shorter, shorter)
    return _placed(rng, min(wide / meta.width, 0.98), min(high / meta.height, 0.98), size.place)


def _placed(rng: Random, wide: float, high: float, place: tuple[float, float] | None) -> Box:
    x0 = _start(rng, wide, BAR_WIDTH if wide < 0.86 else 0.0, None if place is None else place[0])
    y0 = _start(rng, high, 0.0, None if place is None else place[1])
    return x0, y0, x0 + wide, y0 + high


def _start(rng: Random, length: float, lowest: float, middle: float | None) -> float:
    if middle is None:
        return rng.uniform(lowest + 0.01, max(0.99 - length, lowest + 0.01))
    start = middle - length / 2
    if not 0.0 <= start <= 1.0 - length:
        raise InvalidAddress(
            f"planted tasks: around {middle} insertions of {length:.2f} of the frame leave it; choose a "
            "smaller side or another place"
        )
    return start


def _what(sheet: Sheet) -> Question:
    rng = sheet.rng
    colours, shapes = rng.sample(COLOURS, 4), rng.sample(list(SHAPES), 4)
    target = sheet.plant(SHAPES[shapes[0]], colours[0])
    for colour, shape in list(zip(colours, shapes, strict=True))[1 : 1 + sheet.level.distractors]:
        sheet.plant(SHAPES[shape], colour)
    return Question(
        text=f"A {shapes[0]} appears briefly in the video. What colour is it?",
        right=colours[0],
        wrong=tuple(colours[1:]),
        evidence=(sheet.segment(target),),
    )


def _word(sheet: Sheet) -> Question:
    words, colours = sheet.rng.sample(sheet.words, 4), sheet.rng.sample(COLOURS, 4)
    shown = [sheet.plant("text", colours[i], content=words[i]) for i in range(1 + sheet.level.distractors)]
    return Question(
        text=f"Words appear briefly in the video. Which word is written in {colours[0]} letters?",
        right=words[0],
        wrong=tuple(words[1:]),
        evidence=(sheet.segment(shown[0]),),
    )


def _number(sheet: Sheet) -> Question:
    digits, colours = sheet.level.digits, sheet.rng.sample(COLOURS, 4)
    numbers = [str(n) for n in sheet.rng.sample(range(10 ** (digits - 1), 10**digits), 4)]
    shown = [
        sheet.plant("text", colours[i], content=numbers[i]) for i in range(1 + sheet.level.distractors)
    ]
    return Question(
        text=f"Numbers appear briefly in the video. Which number is written in {colours[0]} digits?",
        right=numbers[0],
        wrong=(),
        evidence=(sheet.segment(shown[0]),),
        kind="numeric",
    )


def _order(sheet: Sheet) -> Question:
    words, colour = sheet.rng.sample(sheet.words, 3), sheet.rng.choice(COLOURS)
    shown = [sheet.plant("text", colour, content=word) for word in words]
    seen = [one.content for one in sorted(shown, key=lambda one: one.first)]
    orders = [", ".join(order) for order in itertools.permutations(words)]
    right = ", ".join(seen)
    return Question(
        text="Three words appear briefly in the video, one after another. In which order?",
        right=right,
        wrong=tuple(sheet.rng.sample([order for order in orders if order != right], 3)),
        evidence=sheet.evidence(shown),
    )


def _count(sheet: Sheet) -> Question:
    rng, right = sheet.rng, sheet.rng.randint(1, MAX_COUNT)
    colours, shapes = rng.sample(COLOURS, 3), rng.sample(list(SHAPES), 2)
    shown = [sheet.plant(SHAPES[shapes[0]], colours[0]) for _ in range(right)]
    misleading = [(shapes[0], colours[1]), (shapes[1], colours[0]), (shapes[0], colours[2])]
    for shape, colour in misleading[: sheet.level.distractors]:
        sheet.plant(SHAPES[shape], colour)
    return Question(
        text=f"How many times does a {colours[0]} {shapes[0]} appear briefly in the video?",
        right=str(right),
        wrong=tuple(str(n) for n in range(1, MAX_COUNT + 1) if n != right),
        evidence=sheet.evidence(shown),
    )


def _when(sheet: Sheet) -> Question:
    """The times of the other colours are the wrong answers."""
    shape, colours = sheet.rng.choice(list(SHAPES)), sheet.rng.sample(COLOURS, 4)
    shown = [sheet.plant(SHAPES[shape], colour) for colour in colours]
    times = [f"at {(s.start_s + s.end_s) / 2:.1f} seconds" for s in map(sheet.segment, shown)]
    return Question(
        text=f"A {colours[0]} {shape} appears briefly in the video. When?",
        right=times[0],
        wrong=tuple(times[1:]),
        evidence=(sheet.segment(shown[0]),),
    )


def _scene(sheet: Sheet) -> Question:
    """Bars tell what part of the video is meant; a skim shows them, and none of the shapes."""
    rng, shape = sheet.rng, sheet.rng.choice(list(SHAPES))
    colours, asked = rng.sample(COLOURS[:4], 4), rng.randrange(NUM_BARS)
    bars = rng.sample(BAR_COLOURS[:8] if sheet.level is PLANTED_LEVELS[0] else BAR_COLOURS, NUM_BARS)
    scenes = _scenes(sheet, asked)
    for span, bar in zip(scenes, bars, strict=True):
        sheet.put(Insertion(*span, (0.0, 0.0, BAR_WIDTH, 1.0), "rectangle", rgb=SCENE_COLOURS[bar]))
    target = sheet.plant(SHAPES[shape], colours[0], scenes[asked])
    others = rng.sample([i for i in range(NUM_BARS) if i != asked], 1 + sheet.level.distractors)
    for i in others:
        sheet.plant(SHAPES[shape], rng.choice(colours[1:]), scenes[i])
    return Question(
        text=f"While the bar at the left is {bars[asked]}, a {shape} appears briefly. What colour is the "
        f"{shape}?",
        right=colours[0],
        wrong=tuple(colours[1:]),
        evidence=(sheet.segment(target),),
    )


def _scenes(sheet: Sheet, asked: int) -> list[Span]:
    """Frames of the parts; at level 0 the one that is asked about is as short as can be."""
    weights = [sheet.rng.uniform(0.5, 1.5) for _ in range(NUM_BARS)]
    if sheet.level is PLANTED_LEVELS[0]:
        weights[asked] = 0.0
    spare = 1.0 - NUM_BARS * MIN_SCENE
    shares = [MIN_SCENE + spare * weight / sum(weights) for weight in weights]
    ends = [round(end * sheet.meta.num_frames) for end in itertools.accumulate(shares)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _detail(sheet: Sheet) -> Question:
    rng, directions = sheet.rng, sheet.rng.sample(DIRECTIONS, 4)
    target = sheet.plant("stripes", "white", content=directions[0], opacity=1.0)
    return Question(
        text="A small disc with fine stripes appears briefly in the video. How do its stripes run, seen "
        "from left to right?",
        right=directions[0],
        wrong=tuple(rng.sample(directions[1:], 3)),
        evidence=(sheet.segment(target),),
        region=Region(*target.box),
    )


def _inset(sheet: Sheet) -> Question:
    rng, (path, meta), corner = sheet.rng, sheet.other, sheet.rng.choice(list(INSET_CORNERS))
    seconds = sheet.length * sheet.meta.duration_s / sheet.meta.num_frames
    start_s = round(rng.uniform(0.0, max(meta.duration_s - seconds, 0.0)), 3)
    how: dict[str, Any] = {
        "file": path,
        "fingerprint": meta.fingerprint,
        "start_s": start_s,
        "opacity": 1.0,
    }
    target = sheet.plant("video", box=_corner_box(sheet, corner), **how)
    for colour in rng.sample(COLOURS, sheet.level.distractors):
        place = _corner_box(sheet, rng.choice(list(INSET_CORNERS)))
        sheet.plant(rng.choice(list(SHAPES.values())), colour, box=place)
    return Question(
        text="For a moment another video runs in a corner of the picture. In which corner?",
        right=corner,
        wrong=tuple(other for other in INSET_CORNERS if other != corner),
        evidence=(sheet.segment(target),),
    )


def _corner_box(sheet: Sheet, corner: str) -> Box:
    side = min(sheet.level.side, 0.45)
    x0, y0 = (0.02 + at * (0.96 - side) for at in INSET_CORNERS[corner])
    return x0, y0, x0 + side, y0 + side


def _picture(sheet: Sheet) -> Question:
    shown = sheet.rng.sample(sheet.pictures, min(4, len(sheet.pictures)))
    names = [PurePosixPath(path).stem for path, _ in shown]
    target = sheet.plant("image", file=shown[0][0], fingerprint=shown[0][1], opacity=1.0)
    return Question(
        text="A picture is shown briefly inside the video. Which one?",
        right=names[0],
        wrong=tuple(names[1:]),
        evidence=(sheet.segment(target),),
    )


_PLANT: dict[PlantedFamily, Callable[[Sheet], Question]] = {
    "what": _what,
    "word": _word,
    "number": _number,
    "order": _order,
    "count": _count,
    "when": _when,
    "scene": _scene,
    "detail": _detail,
    "inset": _inset,
    "picture": _picture,
}


def plant(family: PlantedFamily, sheet: Sheet) -> Question:
    """Plant what a family asks about, and ask.

    Raises:
        InvalidAddress: the video has no room for it.
    """
    return _PLANT[family](sheet)
