"""Questions about synthetic videos, with exact answers and evidence, made when they are asked for.

Three families. ``brief_event``: the colour of a shape that appears briefly in a cued scene.
``event_order``: the colours of two such shapes, in order. ``skim_suffices``: the colour that the
background has longest. Task i follows from the family, its settings, the split, the seed and i alone.
Options and letters are balanced, so that text never tells the answer, and events hide from uniform
skims, so that a skim does not either, save in ``skim_suffices``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, cast

from videogym.datasets.tasks import Tasks
from videogym.state import Segment, Task
from videogym.video.synthetic import Address, InvalidAddress, Script, write_script
from videogym.video.synthetic.address import (
    Family,
    format_seconds,
    frame_size,
    read_fields,
    seconds,
    whole_number,
)
from videogym.video.synthetic.script import Event, Scene

PREFIX = "procedural:"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ProceduralTasks(Tasks):
    """Tasks of one family, made one by one.

    Videos of different splits never coincide: the split is the remainder of a video's seed. Nothing of
    an answer can be read in a task's id or address.

    Raises:
        InvalidAddress: a setting is out of range.
    """

    family: Family
    level: int = 0  # 0 (easy) to 3
    duration_s: float = 600.0  # 60 to 86400
    num_tasks: int = 1000
    split: str = "train"  # one of SPLITS
    seed: int = 0
    fps: int = 8  # a power of two up to 32
    size: tuple[int, int] = (640, 360)  # native (width, height), pixels
    event_s: float | None = None  # length of every event; None: one or two frames of a pool of 128

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise InvalidAddress(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")
        if self.num_tasks < 1:
            raise InvalidAddress(f"count must be at least 1, got {self.num_tasks}")
        if self.seed < 0:
            raise InvalidAddress(f"seed must be at least 0, got {self.seed}")
        self._address(0)  # checks the rest

    @classmethod
    def parse(cls, source: str) -> ProceduralTasks:
        """Read ``procedural:brief_event?level=0&duration_s=600&count=1000&split=train&seed=0``.

        Every field but the family may be left out; ``fps``, ``size=640x360`` and ``event_s`` may be added.

        Raises:
            InvalidAddress: a field is unknown, repeated or out of range; the message names it.
        """
        if not source.startswith(PREFIX):
            raise InvalidAddress(f"a procedural source starts with {PREFIX!r}, got {source!r}")
        family, values = read_fields(source.removeprefix(PREFIX), _READERS)
        num_tasks = values.pop("count", cls.num_tasks)
        return cls(cast(Family, family), num_tasks=num_tasks, **values)

    def __len__(self) -> int:
        return self.num_tasks

    @property
    def name(self) -> str:
        """What all ids begin with, e.g. ``"brief_event-L0-600s-train-s0"``."""
        parts = [self.family, f"L{self.level}", f"{format_seconds(self.duration_s)}s"]
        if self.fps != 8:
            parts.append(f"{self.fps}fps")
        if self.size != (640, 360):
            parts.append(f"{self.size[0]}x{self.size[1]}")
        if self.event_s is not None:
            parts.append(f"e{format_seconds(self.event_s)}s")
        return "-".join([*parts, self.split, f"s{self.seed}"])

    def by_id(self, task_id: str) -> Task:
        """The task of that id.

        Raises:
            ValueError: there is none.
        """
        number = task_id.rpartition("-")[2]
        if re.fullmatch(r"[0-9]{6,18}", number):
            position = int(number)
            if position < self.num_tasks and task_id == self._task_id(position):
                return self._task(position)
        raise ValueError(
            f"no task {task_id!r}; ids are {self._task_id(0)} to {self._task_id(self.num_tasks - 1)}"
        )

    def _task_id(self, position: int) -> str:
        return f"{self.name}-{position:06d}"

    def _address(self, position: int) -> Address:
        digest = hashlib.sha256(self._task_id(position).encode()).digest()
        # 60 bits of hash, and the split as the remainder of the seed.
        seed = (int.from_bytes(digest[:8]) >> 4) * len(SPLITS) + SPLITS.index(self.split)
        return Address(self.family, self.level, self.duration_s, seed, self.fps, self.size, self.event_s)

    def _task(self, position: int) -> Task:
        address = self._address(position)
        question = _ASK[self.family](write_script(address), Random(f"question {address}"))
        options = sorted({question.right, *question.wrong})
        # A generator of its own: the letter depends on nothing that is asked or shown.
        Random(f"options {address}").shuffle(options)
        return Task(
            task_id=self._task_id(position),
            video=str(address),
            question=question.text,
            kind="choice",
            options=tuple(options),
            answer="ABCD"[options.index(question.right)],
            evidence=question.evidence,
            source=f"{PREFIX}{self.family}",
        )


_READERS: dict[str, Callable[[str], Any]] = {
    "level": whole_number,
    "duration_s": seconds,
    "count": whole_number,
    "split": str,
    "seed": whole_number,
    "fps": whole_number,
    "size": frame_size,
    "event_s": seconds,
}


@dataclass(frozen=True, slots=True)
class _Question:
    text: str
    right: str
    wrong: tuple[str, ...]
    evidence: tuple[Segment, ...]


def _ask_brief_event(script: Script, rng: Random) -> _Question:
    (scene,) = _asked(script)
    event = _event(scene)
    return _Question(
        text=f"While the background is {scene.colour}, a shape appears briefly. What colour is the shape?",
        right=event.colour,
        wrong=tuple(colour for colour in script.answers if colour != event.colour),
        evidence=(_segment(script, event),),
    )


def _ask_event_order(script: Script, rng: Random) -> _Question:
    scenes = _asked(script)
    first, second = (_event(scene) for scene in scenes)
    # Either may be named first: the text does not tell their order.
    one, other = rng.sample([scene.colour for scene in scenes], 2)
    right = f"{first.colour}, then {second.colour}"
    pairs = [f"{a}, then {b}" for a in script.answers for b in script.answers]
    return _Question(
        text=f"A shape appears briefly while the background is {one}, and another one while it is {other}. "
        "What colours are the two shapes, in order of appearance?",
        right=right,
        wrong=tuple(pair for pair in pairs if pair != right),
        evidence=(_segment(script, first), _segment(script, second)),
    )


def _ask_skim_suffices(script: Script, rng: Random) -> _Question:
    (scene,) = _asked(script)
    return _Question(
        text="Which colour does the background have for the longest time?",
        right=scene.colour,
        wrong=tuple(rng.sample([other.colour for other in script.scenes if other is not scene], 3)),
        evidence=(_segment(script, scene),),
    )


_ASK: dict[Family, Callable[[Script, Random], _Question]] = {
    "brief_event": _ask_brief_event,
    "event_order": _ask_event_order,
    "skim_suffices": _ask_skim_suffices,
}


def _asked(script: Script) -> tuple[Scene, ...]:
    return tuple(script.scenes[i] for i in script.asked)


def _event(scene: Scene) -> Event:
    if scene.event is None:
        raise ValueError(f"the {scene.colour} scene is asked about and has no event")
    return scene.event


def _segment(script: Script, span: Scene | Event) -> Segment:
    return Segment(span.first / script.address.fps, span.end / script.address.fps)
