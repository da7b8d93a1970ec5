"""What is asked about a synthetic video, with the exact answer and its evidence, one function a family.

Knows scripts and questions; how tasks are named and their options shuffled is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from videogym.geometry import Region, Segment
from videogym.state import TaskKind
from videogym.video.synthetic import Script
from videogym.video.synthetic.address import Family
from videogym.video.synthetic.script import DIRECTIONS, MAX_COUNT, Event, Scene


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the answer; options are shuffled elsewhere."""

    text: str
    right: str
    wrong: tuple[str, ...]
    evidence: tuple[Segment, ...]  # in the order in which it has to be looked at
    kind: TaskKind = "choice"
    region: Region | None = None


def _ask_brief_event(script: Script, rng: Random) -> Question:
    (scene,) = _asked(script)
    event = _event(scene)
    return Question(
        text=f"While the background is {scene.colour}, a shape appears briefly. What colour is the shape?",
        right=event.colour,
        wrong=tuple(colour for colour in script.answers if colour != event.colour),
        evidence=(_segment(script, event),),
    )


def _ask_event_order(script: Script, rng: Random) -> Question:
    scenes = _asked(script)
    first, second = (_event(scene) for scene in scenes)
    # Either may be named first: the text does not tell their order.
    one, other = rng.sample([scene.colour for scene in scenes], 2)
    right = f"{first.colour}, then {second.colour}"
    pairs = [f"{a}, then {b}" for a in script.answers for b in script.answers]
    return Question(
        text=f"A shape appears briefly while the background is {one}, and another one while it is {other}. "
        "What colours are the two shapes, in order of appearance?",
        right=right,
        wrong=tuple(pair for pair in pairs if pair != right),
        evidence=(_segment(script, first), _segment(script, second)),
    )


def _ask_skim_suffices(script: Script, rng: Random) -> Question:
    (scene,) = _asked(script)
    return Question(
        text="Which colour does the background have for the longest time?",
        right=scene.colour,
        wrong=tuple(rng.sample([other.colour for other in script.scenes if other is not scene], 3)),
        evidence=(_segment(script, scene),),
    )


def _ask_two_hops(script: Script, rng: Random) -> Question:
    scenes = _asked(script)
    clue, event = (_event(scene) for scene in scenes)
    return Question(
        text=f"While the background is {scenes[0].colour}, a shape appears briefly that has the colour of "
        "another background. What colour is the shape that appears briefly over that background?",
        right=event.colour,
        wrong=tuple(colour for colour in script.answers if colour != event.colour),
        evidence=(_segment(script, clue), _segment(script, event)),
    )


def _ask_counting(script: Script, rng: Random) -> Question:
    (scene,) = _asked(script)
    right = len(scene.events)
    return Question(
        text=f"While the background is {scene.colour}, one or more shapes appear briefly, one after the "
        "other. How many are there?",
        right=str(right),
        wrong=tuple(str(count) for count in range(1, MAX_COUNT + 1) if count != right),
        evidence=tuple(_segment(script, event) for event in scene.events),
    )


def _ask_small_detail(script: Script, rng: Random) -> Question:
    (scene,) = _asked(script)
    event = _event(scene)
    return Question(
        text=f"While the background is {scene.colour}, a small disc with fine stripes appears briefly. "
        "How do its stripes run, seen from left to right?",
        right=event.mark,
        wrong=tuple(direction for direction in DIRECTIONS if direction != event.mark),
        evidence=(_segment(script, event),),
        region=Region(*event.box),
    )


def _ask_digits(script: Script, rng: Random) -> Question:
    (scene,) = _asked(script)
    event = _event(scene)
    return Question(
        text=f"While the background is {scene.colour}, a number appears briefly. Which number is it?",
        right=event.mark,
        wrong=(),
        evidence=(_segment(script, event),),
        kind="numeric",
    )


def _asked(script: Script) -> tuple[Scene, ...]:
    return tuple(script.scenes[i] for i in script.asked)


def _event(scene: Scene) -> Event:
    if scene.event is None:
        raise ValueError(f"the {scene.colour} scene is asked about and has not one event")
    return scene.event


def _segment(script: Script, span: Scene | Event) -> Segment:
    return Segment(span.first / script.address.fps, span.end / script.address.fps)


_ASK: dict[Family, Callable[[Script, Random], Question]] = {
    "brief_event": _ask_brief_event,
    "event_order": _ask_event_order,
    "skim_suffices": _ask_skim_suffices,
    "two_hops": _ask_two_hops,
    "counting": _ask_counting,
    "small_detail": _ask_small_detail,
    "digits": _ask_digits,
}


def ask(script: Script, rng: Random) -> Question:
    """The question that the family of a script asks about it.

    Args:
        script: what happens in the video.
        rng: draws what may be named or offered one way or another.
    """
    return _ASK[script.address.family](script, rng)
