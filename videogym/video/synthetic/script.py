"""What happens in a synthetic video, and when: scenes of one background each, brief events in them.

A script follows from its address alone, through a generator seeded with it, so one of many hours costs
no more than one of a minute. Knows frames, colours and boxes; nothing about pixels or questions.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from random import Random
from typing import Literal, NamedTuple

from videogym.video.synthetic.address import Address
from videogym.video.synthetic.hiding import event_frames, hidden_starts

Shape = Literal["ellipse", "rectangle", "diamond", "triangle", "stripes", "digits"]
Rgb = tuple[int, int, int]

PLAIN_SHAPES: tuple[Shape, ...] = ("ellipse", "rectangle", "diamond", "triangle")
DIRECTIONS = ("horizontal", "vertical", "rising", "falling")  # of stripes, seen from left to right
NUM_SCENES = 8
MIN_SCENE = 0.0735  # share of the video; above 9/127, so that a skim of 16 pool frames meets every scene
COUNTED_SCENE = 0.16  # share of the video for a scene whose events are counted
MAX_COUNT = 4
# Events that are counted are short: so many more fit between the frames of a skim of 32.
COUNTED_SPACINGS = 1.3

# Backgrounds and events share no colour, so that a colour tells which of the two it is; only the clue of
# two hops has the colour of a background. The first ones are furthest from each other; higher levels draw
# from more.
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
    disc: float  # diameter of a striped disc, as a share of the frame's mean side
    digits: int  # how many a number has


# At level 0 two looks of an eighth of the pool nearly always cover a cued scene, so that a skim tells all
# that is needed to find the event; at the others chance remains.
LEVELS = (
    Level(0.75, 8, 4, 3, 1.8, 0.36, True, 0.055, 2),
    Level(0.50, 8, 4, 5, 1.6, 0.32, False, 0.050, 3),
    Level(0.30, 10, 6, 6, 1.4, 0.29, False, 0.047, 3),
    Level(0.18, 12, 7, 6, 1.2, 0.27, False, 0.044, 4),
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
    mark: str = ""  # what is read in the shape: the direction of stripes, or digits


@dataclass(frozen=True, slots=True)
class Wave:
    """A cosine along one side of the frame; two of them make the moving texture of a scene."""

    cycles: float  # along the side
    phase: float  # in cycles, at time 0
    speed: float  # cycles a second


@dataclass(frozen=True, slots=True)
class Scene:
    """The frames ``[first, end)``: one background and the events in it."""

    first: int
    end: int
    colour: str  # no other scene of the video has it
    rgb: Rgb
    waves: tuple[Wave, Wave]  # along x and y
    events: tuple[Event, ...]  # in order, with frames of plain background around each

    @property
    def event(self) -> Event | None:
        """The scene's only event; None where there is none, or several."""
        return self.events[0] if len(self.events) == 1 else None

    def event_at(self, frame: int) -> Event | None:
        """The event on display in a frame."""
        return next((event for event in self.events if event.first <= frame < event.end), None)


@dataclass(frozen=True, slots=True)
class Script:
    """All that happens in a video."""

    address: Address
    scenes: tuple[Scene, ...]
    # Scenes that the family's question is about, ascending; a clue's is before the one it leads to.
    asked: tuple[int, ...]
    answers: tuple[str, ...]  # event colours, or directions, that the family's answers speak of

    def scene_at(self, frame: int) -> Scene:
        """The scene on display in a frame."""
        return self.scenes[bisect_right(self.scenes, frame, key=lambda scene: scene.first) - 1]


class _EventPlan(NamedTuple):
    """What an event shows, before its time and place are drawn."""

    colour: str
    shape: Shape | None = None  # None: one of PLAIN_SHAPES
    mark: str = ""


@lru_cache(maxsize=64)
def write_script(address: Address) -> Script:
    """The script of an address; the same in every process."""
    rng = Random(str(address))
    level = LEVELS[address.level]
    asked, answers = _plot(rng, address)
    cuts = _cuts(rng, address, asked)
    colours = rng.sample(list(SCENE_COLOURS)[: level.scene_colours], NUM_SCENES)
    plans = _event_plans(rng, address, asked, answers, colours)
    scenes = tuple(
        _scene(rng, address, first, end, colours[i], plans.get(i, ()))
        for i, (first, end) in enumerate(pairwise(cuts))
    )
    return Script(address, scenes, asked, answers)


def _plot(rng: Random, address: Address) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Which scenes are asked about, and what the family's answers speak of."""
    colours = list(EVENT_COLOURS)[: LEVELS[address.level].event_colours]
    if address.family == "event_order":
        return tuple(sorted(rng.sample(range(NUM_SCENES), 2))), tuple(rng.sample(colours, 2))
    if address.family == "two_hops":
        return tuple(rng.sample(range(NUM_SCENES), 2)), tuple(rng.sample(colours, 4))
    if address.family == "small_detail":
        return (rng.randrange(NUM_SCENES),), tuple(rng.sample(DIRECTIONS, 4))
    return (rng.randrange(NUM_SCENES),), tuple(rng.sample(colours, 4))


def _cuts(rng: Random, address: Address, asked: tuple[int, ...]) -> list[int]:
    """Frames at which scenes begin, and the end of the video."""
    level, spare = LEVELS[address.level], 1.0 - NUM_SCENES * MIN_SCENE
    fixed = {"skim_suffices": level.longest_share, "counting": COUNTED_SCENE}.get(address.family)
    # Beside a longest scene the others are more alike: a skim of 16 frames shows none of them as often.
    spread = 0.2 if address.family == "skim_suffices" else 0.5
    weights = [rng.uniform(1.0 - spread, 1.0 + spread) for _ in range(NUM_SCENES)]
    if fixed is not None:
        share = (fixed - MIN_SCENE) / spare
        weights[asked[0]] = (sum(weights) - weights[asked[0]]) * share / (1.0 - share)
    elif level.shortest_cue:
        for scene in asked:
            weights[scene] = 0.0
    lengths = [MIN_SCENE + spare * weight / sum(weights) for weight in weights]
    return [0, *(round(end * address.num_frames) for end in accumulate(lengths))]


def _event_plans(
    rng: Random, address: Address, asked: tuple[int, ...], answers: tuple[str, ...], colours: list[str]
) -> dict[int, tuple[_EventPlan, ...]]:
    """What the events of each scene show, those that are asked about and those that mislead."""
    others = [i for i in range(NUM_SCENES) if i not in asked]
    distractors = LEVELS[address.level].distractors
    if address.family in ("brief_event", "event_order", "skim_suffices"):
        events = _event_colours(rng, address, asked, answers)
        return {i: (_EventPlan(colour),) for i, colour in events.items()}
    if address.family == "counting":
        counts = dict.fromkeys(rng.sample(others, distractors), 1)
        counts[asked[0]] = rng.randint(1, MAX_COUNT)
        return {i: tuple(_EventPlan(rng.choice(answers)) for _ in range(n)) for i, n in counts.items()}
    places = [asked[-1], *rng.sample(others, distractors)]
    # Every answer is shown about equally often: whoever saw all events and no cue would be no wiser.
    shown = rng.sample((answers * 2)[: len(places)], len(places))
    plans = {i: _event_plan(rng, address, answer) for i, answer in zip(places, shown, strict=True)}
    if address.family == "two_hops":
        clue, target = asked
        plans[clue] = _EventPlan(colours[target])
    return {i: (plan,) for i, plan in plans.items()}


def _event_plan(rng: Random, address: Address, answer: str) -> _EventPlan:
    if address.family == "small_detail":
        return _EventPlan("white", "stripes", answer)
    if address.family == "digits":
        digits = LEVELS[address.level].digits
        return _EventPlan(answer, "digits", str(rng.randrange(10 ** (digits - 1), 10**digits)))
    return _EventPlan(answer)


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


def _scene(
    rng: Random, address: Address, first: int, end: int, colour: str, plans: tuple[_EventPlan, ...]
) -> Scene:
    rgb, waves = _shade(rng, SCENE_COLOURS[colour]), (_wave(rng), _wave(rng))
    return Scene(first, end, colour, rgb, waves, _events(rng, address, first, end, plans))


def _wave(rng: Random) -> Wave:
    return Wave(rng.uniform(0.5, 3.0), rng.random(), rng.choice((-1, 1)) * rng.uniform(0.05, 0.2))


def _shade(rng: Random, rgb: Rgb) -> Rgb:
    """A colour that differs a little from video to video."""
    red, green, blue = (min(max(channel + rng.randint(-6, 6), 0), 255) for channel in rgb)
    return red, green, blue


def _events(
    rng: Random, address: Address, first: int, end: int, plans: tuple[_EventPlan, ...]
) -> tuple[Event, ...]:
    if not plans:
        return ()
    length = _event_length(address)
    # A frame of plain background remains on either side.
    starts = hidden_starts(rng, address, first + 1, end - 1 - length, length, len(plans))
    return tuple(
        _event(rng, address, start, start + length, plan) for start, plan in zip(starts, plans, strict=True)
    )


def _event_length(address: Address) -> int:
    spacings = LEVELS[address.level].event_spacings
    if address.family != "counting":
        return event_frames(address, spacings)
    # As many as may be counted fit into the scene, as far apart as they are long.
    fitting = (round(COUNTED_SCENE * address.num_frames) - 3) // (2 * MAX_COUNT - 1)
    return min(event_frames(address, min(spacings, COUNTED_SPACINGS)), fitting)


def _event(rng: Random, address: Address, first: int, end: int, plan: _EventPlan) -> Event:
    wide, high = _sides(address, plan)
    x0, y0 = rng.uniform(0.02, 0.98 - wide), rng.uniform(0.02, 0.98 - high)
    shape = rng.choice(PLAIN_SHAPES) if plan.shape is None else plan.shape
    rgb = _shade(rng, (EVENT_COLOURS | SCENE_COLOURS)[plan.colour])
    return Event(first, end, plan.colour, rgb, shape, (x0, y0, x0 + wide, y0 + high), plan.mark)


def _sides(address: Address, plan: _EventPlan) -> tuple[float, float]:
    """Width and height of a plan's box, as shares of the frame's."""
    level = LEVELS[address.level]
    if plan.shape != "stripes":
        return level.box, level.box
    width, height = address.size
    diameter = level.disc * math.sqrt(width * height)
    return diameter / width, diameter / height
