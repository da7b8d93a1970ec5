"""Questions about synthetic videos, with exact answers and evidence, made when they are asked for.

Seven families. ``brief_event``: the colour of a shape that appears briefly in a cued scene.
``event_order``: the colours of two such shapes, in order. ``two_hops``: a shape in the cued scene has
the colour of the background where the answer is. ``counting``: how many shapes appear in a scene.
``small_detail``: which way stripes run that only a crop of their region shows. ``digits``: a number to
be read and written. ``skim_suffices``: the colour that the background has longest. Task i follows from
the family, its settings, the split, the seed and i alone. Options and letters are balanced, so that
text never tells the answer, and events hide from uniform skims, so that a skim does not either, save in
``skim_suffices``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, cast

from videogym.datasets.made_tasks import MOST_MADE, MadeTasks, task_of_question
from videogym.datasets.questions import ask
from videogym.state import Task
from videogym.video.synthetic import Address, InvalidAddress, write_script
from videogym.video.synthetic.address import (
    Family,
    format_seconds,
    read_fields,
    read_frame_size,
    read_seconds,
    read_whole_number,
)

PROCEDURAL_PREFIX = "procedural:"
SPLITS = ("train", "val", "test")
SIZE, DETAIL_SIZE = (640, 360), (1280, 720)  # native (width, height), the latter for small details


@dataclass(frozen=True)
class ProceduralTasks(MadeTasks):
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
    size: tuple[int, int] | None = None  # native (width, height), pixels; None: as the family needs
    event_s: float | None = None  # length of every event; None: one or two frames of a pool of 128

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise InvalidAddress(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")
        if not 1 <= self.num_tasks <= MOST_MADE:
            raise InvalidAddress(f"count must be 1 to {MOST_MADE}, got {self.num_tasks}")
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
        if not source.startswith(PROCEDURAL_PREFIX):
            raise InvalidAddress(f"a procedural source starts with {PROCEDURAL_PREFIX!r}, got {source!r}")
        family, values = read_fields(source.removeprefix(PROCEDURAL_PREFIX), _READERS)
        num_tasks = values.pop("count", cls.num_tasks)
        return cls(cast(Family, family), num_tasks=num_tasks, **values)

    @property
    def name(self) -> str:
        """What all ids begin with, e.g. ``"brief_event-L0-600s-train-s0"``."""
        parts = [self.family, f"L{self.level}", f"{format_seconds(self.duration_s)}s"]
        if self.fps != 8:
            parts.append(f"{self.fps}fps")
        if self._native_size != SIZE:
            parts.append("{}x{}".format(*self._native_size))
        if self.event_s is not None:
            parts.append(f"e{format_seconds(self.event_s)}s")
        return "-".join([*parts, self.split, f"s{self.seed}"])

    @property
    def _native_size(self) -> tuple[int, int]:
        return self.size or (DETAIL_SIZE if self.family == "small_detail" else SIZE)

    def _address(self, position: int) -> Address:
        digest = hashlib.sha256(self._task_id(position).encode()).digest()
        # 60 bits of hash, and the split as the remainder of the seed.
        seed = (int.from_bytes(digest[:8]) >> 4) * len(SPLITS) + SPLITS.index(self.split)
        settings = (self.fps, self._native_size, self.event_s)
        return Address(self.family, self.level, self.duration_s, seed, *settings)

    def _task(self, position: int) -> Task:
        address = self._address(position)
        question = ask(write_script(address), Random(f"question {address}"))
        return task_of_question(
            question,
            shuffled_by=str(address),
            task_id=self._task_id(position),
            video=str(address),
            source=f"{PROCEDURAL_PREFIX}{self.family}",
        )


_READERS: dict[str, Callable[[str], Any]] = {
    "level": read_whole_number,
    "duration_s": read_seconds,
    "count": read_whole_number,
    "split": str,
    "seed": read_whole_number,
    "fps": read_whole_number,
    "size": read_frame_size,
    "event_s": read_seconds,
}
