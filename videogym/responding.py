"""What another policy is asked about frames: to describe a look, or to answer from what was retrieved.

Sources: ParaVT's sub-agents, which see a crop and its times, and neither the question nor what else was
shown; EVA and TimeSearch-R, whose rewards ask whether the retrieved frames alone tell the answer. Which
policy is asked, and how, is not known here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from videogym.sizes import clip_size
from videogym.state import Clip, Describe, State
from videogym.video.store import FrameStore
from videogym.video.types import VideoError

_log = logging.getLogger(__name__)
Corners = tuple[float, float, float, float]  # x0, y0, x1, y1 in [0, 1]
MAX_REPLY_CHARS = 4096
_FORMS = {
    "choice": "Answer with the letter of one option.",
    "numeric": "Answer with a number.",
    "open": "Answer in a few words.",
}
TRUNCATED = " [truncated]"  # stands after a text that was cut, as in ParaVT


@dataclass(frozen=True, slots=True, eq=False)
class MultimodalPrompt:
    """Frames and a text that asks about them: what a model of images and text is given."""

    pixels: tuple[NDArray[np.uint8], ...]  # N of (H, W, 3) RGB, at the recipe's sizes
    times_s: tuple[float, ...]  # (N,) true presentation times, seconds
    regions: tuple[Corners | None, ...]  # (N,) of each frame; None: the whole frame
    video: str  # address, for those who resolve references themselves
    request: str  # what is asked for, in words


class NoDescription(Exception):
    """Nobody could say anything: out of reach, too slow. A look becomes a fault, not the policy's."""


class ResponderError(RuntimeError):
    """A responder failed in a way that no later look can mend. The message names it."""


class Responder(Protocol):
    """Says something about frames. A recipe holds one and counts it in its identity.

    So it is a frozen dataclass, whose fields say all that decides what it says. It never sees a task.
    """

    deadline_s: float  # seconds after which nobody waits for it any longer

    def __call__(self, prompt: MultimodalPrompt) -> str:
        """A text; whatever tags it holds are characters to the policy that reads it.

        Raises:
            NoDescription: it has nothing to say this time.
        """
        ...


def described(responder: Responder, prompt: MultimodalPrompt) -> str:
    """What a responder says of a look, at most `MAX_REPLY_CHARS` characters and a mark where it is cut.

    Raises:
        NoDescription: it said so, or nothing by its deadline. Python cannot end a thread: one that hangs is
            left behind.
        ResponderError: it raised anything else, or gave no text.
    """
    future: Future[str] = Future()

    def ask() -> None:
        try:
            future.set_result(responder(prompt))
        except BaseException as error:  # SystemExit too: nobody would hear of it before the deadline
            future.set_exception(error)

    threading.Thread(target=ask, daemon=True, name="responder").start()
    try:
        error = future.exception(responder.deadline_s)
    except FutureTimeout:
        raise NoDescription(f"{responder} said nothing within {responder.deadline_s:g} s") from None
    if isinstance(error, NoDescription):
        raise error
    if error is not None:
        raise ResponderError(f"{responder} failed: {type(error).__name__}: {error}") from error
    text = future.result()
    if not isinstance(text, str):
        raise ResponderError(f"{responder} must give a text, got {type(text).__name__}")
    sound = text.encode("utf-8", "replace").decode("utf-8")
    return sound if len(sound) <= MAX_REPLY_CHARS else sound[:MAX_REPLY_CHARS] + TRUNCATED


def describing(responder: Responder, store: FrameStore, state: State) -> Describe:
    """Who says what a clip of this state's video shows.

    Args:
        responder: says it.
        store: has the frames.
        state: before the turn.
    """

    def describe(clip: Clip) -> str:
        return described(responder, prompt_of((clip,), store, state, _summary(clip.times_s)))

    return describe


def prompt_of(clips: Sequence[Clip], store: FrameStore, state: State, request: str) -> MultimodalPrompt:
    """Frames of clips, in order, as the policy would see them.

    Raises:
        VideoError: a frame cannot be decoded.
    """
    pixels: list[NDArray[np.uint8]] = []
    regions: list[Corners | None] = []
    for clip in clips:
        box = clip.region.as_tuple() if clip.region else None
        size = clip_size(clip, state.video, state.rules)
        pixels.extend(store.frames(state.task.video, clip.times_s, size=size, region=box).pixels)
        regions += [box] * len(clip.times_s)
    times_s = tuple(time_s for clip in clips for time_s in clip.times_s)
    return MultimodalPrompt(tuple(pixels), times_s, tuple(regions), state.task.video, request)


def _summary(times_s: Sequence[float]) -> str:
    """A request for a summary, with the times and without the question, as ParaVT asks."""
    first, last = (f"{int(t // 60):02}:{int(t % 60):02}" for t in (times_s[0], times_s[-1]))
    return (
        f"These are {len(times_s)} frames of a video, from {first} to {last}. Say in a few sentences what "
        "is to be seen: actions, objects, and in which order."
    )


@dataclass(frozen=True)
class CompletenessVerifier:
    """Verifies that the retrieved frames are enough: answers the question again from them alone.

    The first frames are not among them. What it says is kept in the last turn, where a term reads it, such
    as `videogym.rewards.Completeness`. TimeSearch-R calls this completeness self-verification.

    Args:
        responder: answers.
        frames: of all looks, as TimeSearch-R asks, or of the last turn that looked, as EVA does.

    Raises:
        ValueError: ``frames`` is neither.
    """

    responder: Responder
    frames: Literal["all", "last"] = "all"

    def __post_init__(self) -> None:
        if self.frames not in ("all", "last"):
            raise ValueError(f"frames must be 'all' or 'last', got {self.frames!r}")

    def of(self, store: FrameStore, state: State) -> str | None:
        """Its answer; None where no look was executed, or nobody can be asked.

        Args:
            store: has the frames.
            state: of an episode that ended with an answer.

        Raises:
            ResponderError: the responder failed.
        """
        looks = [[r.clip for r in turn.results if r.clip] for turn in state.turns if turn.looked]
        if not looks:
            return None
        clips = looks[-1] if self.frames == "last" else [clip for some in looks for clip in some]
        task = state.task
        question = "\n".join((task.question, *task.labelled_options, _FORMS[task.kind]))
        try:
            return described(self.responder, prompt_of(clips, store, state, question))
        except (NoDescription, VideoError) as failure:
            _log.warning("task %s: nobody answered again: %s", task.task_id, failure)
            return None
