"""What all conversations share: how frames and questions are shown, and which turns get a reply.

Knows messages and states; the words and tags of an output language belong to its grammar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from videogym.grammars.base import FramePart, Message, Part, TextPart
from videogym.state import Clip, State, Task
from videogym.subtitles import covering
from videogym.video.types import VideoMeta


def frame_parts(clip: Clip, *, stamped: bool) -> tuple[Part, ...]:
    """The frames of a clip in order, each after its time in seconds if ``stamped``."""
    frames = [FramePart(time_s, clip.region, clip.scale) for time_s in clip.times_s]
    if not stamped:
        return tuple(frames)
    return tuple(part for frame in frames for part in (TextPart(f"[{frame.time_s:.2f} s] "), frame))


def with_subtitles(messages: Sequence[Message], task: Task) -> tuple[Message, ...]:
    """The messages, and behind the last frame of each the subtitles that cover its frames.

    Where a task has none, as they are. Lines stand below each other, without their times, as benchmarks
    that are asked with subtitles show them.
    """
    if not task.subtitles:
        return tuple(messages)
    return tuple(_subtitled(message, task) for message in messages)


def _subtitled(message: Message, task: Task) -> Message:
    frames = {i: part.time_s for i, part in enumerate(message.parts) if isinstance(part, FramePart)}
    lines = covering(task.subtitles, frames.values())
    if not lines:
        return message
    said = "\n".join(line.text for line in lines)
    words = (TextPart("\nSubtitles of these frames:\n"), TextPart(said, given=True), TextPart("\n"))
    after = max(frames) + 1
    return replace(message, parts=(*message.parts[:after], *words, *message.parts[after:]))


def question_text(task: Task) -> str:
    """The question and, for a choice, its labelled options, one a line; in a message it is given text."""
    return "\n".join((task.question, *task.labelled_options))


def told_length(video: VideoMeta) -> int:
    """A video's length in whole seconds: of half a second less, and at least 1.

    Source: EVA's evaluation code tells lengths so.
    """
    return max(1, int(video.duration_s - 0.5))


def minutes_and_seconds(time_s: float) -> str:
    """A time in whole minutes and seconds; minutes go on above 59.

    >>> minutes_and_seconds(9.99), minutes_and_seconds(3725)
    ('00:09', '62:05')
    """
    minutes, seconds = divmod(int(time_s), 60)
    return f"{minutes:02d}:{seconds:02d}"


def is_replied(state: State, turn: int) -> bool:
    """Whether the environment answered a turn: every one but the turn that ended the episode."""
    return not state.terminated or turn < len(state.turns) - 1
