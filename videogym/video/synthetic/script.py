"""What happens in a synthetic video, and when: scenes of one background each, brief events in them.

A script follows from its address alone, through a generator seeded with it, so one of many hours costs
no more than one of a minute. Knows frames, colours and boxes; nothing about pixels or questions.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from random import Random
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from videogym.video.sampling import linspace_floored, linspace_rounded, pool_indices
from videogym.video.synthetic.address import Address

Shape = Literal["ellipse", "rectangle", "diamond", "triangle"]
Rgb = tuple[int, int, int]

NUM_SCENES = 8
MIN_SCENE = 0.0735  # share of the video; above 9/127, so that a skim of 16 pool frames meets every scene
POOL_FRAMES = 128  # of a pool of so many, one or two show an event
HIDDEN_FROM = (16, 32, 64, 512)  # sizes of uniform skims that miss every event short enough for it

# Backgrounds and events share no colour, so that a colour tells which of the two it is. The first ones
# are furthest from each other; higher levels draw from more.
SCENE_COLOURS: dict[str, Rgb] = {
    "black": (15, 15, 15),
    "grey": (125, 125, 125),
    "green": (0, 140, 40),
    "cyan": (0, 205, 200),
    "magenta": (215, 30, 205),
    "brown": (115, 65, 20),
    "purple": (95, 20, 155),
    "pink": (255, 150, 195),
    "navy": (15, 25, 95),
    "olive": (110, 115, 20),
    "maroon": (110, 10, 35),
    "teal": (0, 95, 100),
}
EVENT_COLOURS: dict[str, Rgb] = {
    "red": (225, 25, 30),
    "yellow": (255, 225, 20),
    "blue": (30, 70, 250),
    "white": (250, 250, 250),
    "orange": (250, 130, 20),
    "lime": (150, 235, 40),
    "sky blue": (110, 190, 250),
}


@dataclass(frozen=True, slots=True)
class Level:
    """What the difficulty dial sets."""

    box: float  # sides of an event's bounding box, as a share of the frame's sides
    scene_colours: int  # how many of SCENE_COLOURS are drawn from
    event_colours: int  # how many of EVENT_COLOURS are drawn from
    distractors: int  # scenes with an event that is not asked about
    event_spacings: float  # length of an event, in spacings of the pool
    longest_share: float  # of the video, for a scene that is asked about as the longest
    shortest_cue: bool  # whether scenes with an event that is asked about last `MIN_SCENE` only


# At level 0 two looks of an eighth of the pool nearly always cover a cued scene, so that a skim tells all
# that is needed to find the event; at the others chance remains.
LEVELS = (
    Level(0.75, 8, 4, 3, 1.8, 0.36, True),
    Level(0.50, 8, 4, 5, 1.6, 0.32, False),
    Level(0.30, 10, 6, 6, 1.4, 0.29, False),
    Level(0.18, 12, 7, 6, 1.2, 0.27, False),
)


@dataclass(frozen=True, slots=True)
class Event:
    """A still shape of one colour that is on display in the frames ``[first, end)``."""

    first: int
    end: int
    colour: str
    rgb: Rgb
    shape: Shape
    box: tuple[float, float, float, float]  # (x0, y0, x1, y1), fractions of the frame


@dataclass(frozen=True, slots=True)
class Wave:
    """A cosine along one side of the frame; two of them make the moving texture of a scene."""

    cycles: float  # along the side
    phase: float  # in cycles, at time 0
    speed: float  # cycles a second


@dataclass(frozen=True, slots=True)
class Scene:
    """The frames ``[first, end)``: one background and at most one event."""

    first: int
    end: int
    colour: str  # no other scene of the video has it
    rgb: Rgb
    waves: tuple[Wave, Wave]  # along x and y
    event: Event | None


@dataclass(frozen=True, slots=True)
class Script:
    """All that happens in a video."""

    address: Address
    scenes: tuple[Scene, ...]
    asked: tuple[int, ...]  # scenes that the family's question is about, ascending
    answers: tuple[str, ...]  # the event colours that the family's answers speak of

    def scene_at(self, frame: int) -> Scene:
        """The scene on display in a frame."""
        return self.scenes[bisect_right(self.scenes, frame, key=lambda scene: scene.first) - 1]


@lru_cache(maxsize=64)
def write_script(address: Address) -> Script:
    """The script of an address; the same in every process."""
    rng = Random(str(address))
    level = LEVELS[address.level]
    asked, answers = _plot(rng, address)
    cuts = _cuts(rng, address, asked)
    colours = rng.sample(list(SCENE_COLOURS)[: level.scene_colours], NUM_SCENES)
    events = _event_colours(rng, address, asked, answers)
    scenes = tuple(
        _scene(rng, address, first, end, colours[i], events.get(i))
        for i, (first, end) in enumerate(pairwise(cuts))
    )
    return Script(address, scenes, asked, answers)


def _plot(rng: Random, address: Address) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Which scenes are asked about, and the event colours among which the answer lies."""
    colours = list(EVENT_COLOURS)[: LEVELS[address.level].event_colours]
    if address.family == "event_order":
        return tuple(sorted(rng.sample(range(NUM_SCENES), 2))), tuple(rng.sample(colours, 2))
    return (rng.randrange(NUM_SCENES),), tuple(rng.sample(colours, 4))


def _cuts(rng: Random, address: Address, asked: tuple[int, ...]) -> list[int]:
    """Frames at which scenes begin, and the end of the video."""
    spare = 1.0 - NUM_SCENES * MIN_SCENE
    is_longest = address.family == "skim_suffices"
    # Beside a longest scene the others are more alike: a skim of 16 frames shows none of them as often.
    spread = 0.2 if is_longest else 0.5
    weights = [rng.uniform(1.0 - spread, 1.0 + spread) for _ in range(NUM_SCENES)]
    if is_longest:
        share = (LEVELS[address.level].longest_share - MIN_SCENE) / spare
        weights[asked[0]] = (sum(weights) - weights[asked[0]]) * share / (1.0 - share)
    elif LEVELS[address.level].shortest_cue:
        for scene in asked:
            weights[scene] = 0.0
    lengths = [MIN_SCENE + spare * weight / sum(weights) for weight in weights]
    return [0, *(round(end * address.num_frames) for end in accumulate(lengths))]


def _event_colours(
    rng: Random, address: Address, asked: tuple[int, ...], answers: tuple[str, ...]
) -> dict[int, str]:
    """Colour of the event in each scene that has one."""
    events: dict[int, str] = {}
    if address.family != "skim_suffices":
        events = {i: rng.choice(answers) for i in asked}
    misleading = answers
    if address.family == "brief_event":
        misleading = tuple(colour for colour in answers if colour != events[asked[0]])
    others = [i for i in range(NUM_SCENES) if i not in asked]
    for i in rng.sample(others, LEVELS[address.level].distractors):
        events[i] = rng.choice(misleading)
    return events


def _scene(rng: Random, address: Address, first: int, end: int, colour: str, event: str | None) -> Scene:
    rgb, waves = _shade(rng, SCENE_COLOURS[colour]), (_wave(rng), _wave(rng))
    return Scene(first, end, colour, rgb, waves, _event(rng, address, first, end, event) if event else None)


def _wave(rng: Random) -> Wave:
    return Wave(rng.uniform(0.5, 3.0), rng.random(), rng.choice((-1, 1)) * rng.uniform(0.05, 0.2))


def _shade(rng: Random, rgb: Rgb) -> Rgb:
    """A colour that differs a little from video to video."""
    red, green, blue = (min(max(channel + rng.randint(-6, 6), 0), 255) for channel in rgb)
    return red, green, blue


def _event(rng: Random, address: Address, first: int, end: int, colour: str) -> Event:
    length = _event_frames(address)
    # A frame of plain background remains on either side.
    start = _hidden_start(rng, address, first + 1, end - 1 - length, length)
    side = LEVELS[address.level].box
    x0, y0 = rng.uniform(0.02, 0.98 - side), rng.uniform(0.02, 0.98 - side)
    shape: Shape = rng.choice(get_args(Shape))
    rgb = _shade(rng, EVENT_COLOURS[colour])
    return Event(start, start + length, colour, rgb, shape, (x0, y0, x0 + side, y0 + side))


def _event_frames(address: Address) -> int:
    """Length of every event: one or two pool frames, wherever it lies, unless the address sets it."""
    if address.event_s is not None:
        return round(address.event_s * address.fps)
    narrowest, widest = _pool_spacings(address.num_frames, address.duration_s)
    wanted = LEVELS[address.level].event_spacings * (narrowest + widest) / 2
    return round(min(max(wanted, widest), 2 * narrowest))


def _hidden_start(rng: Random, address: Address, first: int, last: int, length: int) -> int:
    """First frame, within ``[first, last]``, of an event that the skims of `HIDDEN_FROM` do not show.

    Where chance finds no such place, coarser skims count for more. Skims whose gaps leave little room
    are not considered: the few places between their frames would be the same in every video.
    """
    starts = np.array(rng.choices(range(first, last + 1), k=64))
    missed = np.zeros(len(starts), np.int64)
    missed_by_coarser = np.ones(len(starts), np.bool_)
    for frames, widest in _skims(address.num_frames, address.duration_s):
        if widest >= 2 * length:
            missed_by_coarser &= np.searchsorted(frames, starts) == np.searchsorted(frames, starts + length)
            missed += missed_by_coarser
    return int(starts[missed.argmax()])


@lru_cache(maxsize=64)
def _pool_spacings(num_frames: int, duration_s: float) -> tuple[int, int]:
    """Narrowest and widest distance of neighbouring pool frames, in frames."""
    gaps = np.diff(pool_indices(num_frames, duration_s, POOL_FRAMES))
    return int(gaps.min()), int(gaps.max())


@lru_cache(maxsize=64)
def _skims(num_frames: int, duration_s: float) -> tuple[tuple[NDArray[np.int64], int], ...]:
    """Frames of each skim of `HIDDEN_FROM`, in every way the recipes draw it, and their widest gap."""
    pool = pool_indices(num_frames, duration_s, POOL_FRAMES)
    skims = []
    for count in HIDDEN_FROM:
        drawn = [linspace_floored(0, num_frames - 1, count), linspace_rounded(0, num_frames - 1, count)]
        if count < POOL_FRAMES:
            drawn.append(pool[linspace_floored(0, len(pool) - 1, count)])
        frames = np.unique(np.concatenate(drawn))
        skims.append((frames, int(np.diff(frames).max())))
    return tuple(skims)
