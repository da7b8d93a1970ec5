"""Looks that are answered by a text: what another policy says of the frames stands in place of them.

Source: ParaVT's sub-agents, which see a crop and its times, and neither the question nor what else was
shown. Which policy that is, and how it is asked, is not known here.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from videogym.sizes import clip_size
from videogym.state import Clip, Describe, State
from videogym.video.store import FrameStore

MAX_REPLY_CHARS = 4096
CUT = " [truncated]"  # stands after a text that was cut, as in ParaVT


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What a look shows to whoever describes it."""

    pixels: NDArray[np.uint8]  # (N, H, W, 3) RGB, at the recipe's size
    times_s: tuple[float, ...]  # (N,) true presentation times, seconds
    video: str  # address, for those who resolve references themselves
    region: tuple[float, float, float, float] | None  # of the frames; None: whole frames

    @property
    def request(self) -> str:
        """What it is asked for: a summary, with the times and without the question, as ParaVT asks."""
        first, last = (f"{int(t // 60):02}:{int(t % 60):02}" for t in (self.times_s[0], self.times_s[-1]))
        return (
            f"These are {len(self.times_s)} frames of a video, from {first} to {last}. Say in a few "
            "sentences what is to be seen: actions, objects, and in which order."
        )


class NoDescription(Exception):
    """Nobody could say what a look shows: out of reach, too slow. The turn is a fault, not the policy's."""


class ResponderError(RuntimeError):
    """A responder failed in a way that no later look can mend. The message names it."""


class Responder(Protocol):
    """Says what frames show. A recipe holds one and counts it in its identity.

    So it is a frozen dataclass, whose fields say all that decides what it says. It never sees a task.
    """

    deadline_s: float  # seconds after which nobody waits for it any longer

    def __call__(self, sight: Sight) -> str:
        """A text; whatever tags it holds are characters to the policy that reads it.

        Raises:
            NoDescription: it has nothing to say this time.
        """
        ...


def described(responder: Responder, sight: Sight) -> str:
    """What a responder says of a look, at most `MAX_REPLY_CHARS` characters and a mark where it is cut.

    Raises:
        NoDescription: it said so, or nothing by its deadline. Python cannot end a thread: one that hangs is
            left behind.
        ResponderError: it raised anything else, or gave no text.
    """
    future: Future[str] = Future()

    def ask() -> None:
        try:
            future.set_result(responder(sight))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=ask, daemon=True, name="responder").start()
    try:
        text = future.result(responder.deadline_s)
    except NoDescription:
        raise
    except FutureTimeout as error:
        if future.done():  # its own, not ours
            raise ResponderError(f"{responder} failed: {type(error).__name__}: {error}") from error
        raise NoDescription(f"{responder} said nothing within {responder.deadline_s:g} s") from None
    except Exception as error:
        raise ResponderError(f"{responder} failed: {type(error).__name__}: {error}") from error
    if not isinstance(text, str):
        raise ResponderError(f"{responder} must give a text, got {type(text).__name__}")
    sound = text.encode("utf-8", "replace").decode("utf-8")
    return sound if len(sound) <= MAX_REPLY_CHARS else sound[:MAX_REPLY_CHARS] + CUT


def describing(responder: Responder, store: FrameStore, state: State) -> Describe:
    """Who says what a clip of this state's video shows.

    Args:
        responder: says it.
        store: has the frames.
        state: before the turn.
    """

    def describe(clip: Clip) -> str:
        box = clip.region.as_tuple() if clip.region else None
        size = clip_size(clip, state.video, state.rules)
        pixels = store.frames(state.task.video, clip.times_s, size=size, region=box).pixels
        return described(responder, Sight(pixels, clip.times_s, state.task.video, box))

    return describe
