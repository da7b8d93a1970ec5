"""What all conversations share: how frames and questions are shown, and which turns get a reply.

Knows messages and states; the words and tags of an output language belong to its grammar.
"""

from __future__ import annotations

from videogym.grammars.base import FramePart, Part, TextPart
from videogym.state import Clip, State, Task


def frame_parts(clip: Clip, *, stamped: bool) -> tuple[Part, ...]:
    """The frames of a clip in order, each after its time in seconds if ``stamped``."""
    frames = [FramePart(time_s, clip.region, clip.scale) for time_s in clip.times_s]
    if not stamped:
        return tuple(frames)
    return tuple(part for frame in frames for part in (TextPart(f"[{frame.time_s:.2f} s] "), frame))


def question_text(task: Task) -> str:
    """The question and, for a choice, its labelled options, one a line; in a message it is given text."""
    return "\n".join((task.question, *task.labelled_options))


def is_replied(state: State, turn: int) -> bool:
    """Whether the environment answered a turn: every one but the turn that ended the episode."""
    return not state.terminated or turn < len(state.turns) - 1
