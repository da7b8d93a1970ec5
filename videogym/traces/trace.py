"""What is kept of an episode: what was asked, done, shown and paid.

Frames are kept by reference, and the ground truth in the open: nothing in here is for a policy to see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from videogym.cost import Cost
from videogym.geometry import Segment
from videogym.state import Clip, Ending, State, Task, Turn
from videogym.video import VideoMeta


@dataclass(frozen=True, slots=True)
class TurnTrace:
    """One turn and what it paid."""

    turn: Turn
    reward: float  # as it came, with whatever the gate took back
    terms: Mapping[str, float | None]  # weighted, as they came; None: absent


@dataclass(frozen=True, slots=True)
class Trace:
    """One episode that was played."""

    run: str  # name of the run it belongs to
    recipe: str  # identity
    task: Task
    video: VideoMeta
    skim: Clip
    turns: tuple[TurnTrace, ...]
    ending: Ending  # why the recipe's rules ended it; "" where it was cut
    cut: str  # why it was cut from outside: "truncated", "left", "fault: ..."; "" where the rules ended it
    correct: bool | None  # whether it ended with the right answer; None: the judge of it abstained
    cost: Cost | None = field(default=None, compare=False)  # None: nobody measured it

    @property
    def answer(self) -> str | None:
        """The accepted answer, or None."""
        return self.turns[-1].turn.answer if self.turns else None

    @property
    def reward(self) -> float:
        """Sum of what the turns paid."""
        return sum(turn.reward for turn in self.turns)

    @property
    def clips(self) -> tuple[Clip, ...]:
        """All clips shown, the skim first."""
        return (self.skim, *(clip for turn in self.turns for clip in turn.turn.clips))

    @property
    def frames_shown(self) -> int:
        """Frames shown, the skim included; a frame shown twice counts twice."""
        return sum(len(clip.times_s) for clip in self.clips)

    @property
    def looks(self) -> tuple[Segment, ...]:
        """Segments of the executed looks, as asked, cut at the end of the video."""
        return tuple(look for turn in self.turns for look in looks_of(turn.turn, self.video.duration_s))


def looks_of(turn: Turn, duration_s: float) -> tuple[Segment, ...]:
    """Segments of a turn's executed looks, as asked, cut at the end of the video."""
    shown = (result.action.segment(duration_s) for result in turn.results if result.clip is not None)
    return tuple(segment for segment in shown if segment is not None)


def trace_of(
    state: State,
    turns: tuple[TurnTrace, ...],
    *,
    correct: bool | None,
    run: str,
    cut: str = "",
    cost: Cost | None = None,
) -> Trace:
    """The trace of an episode from its last state, with what its turns paid."""
    return Trace(
        run=run,
        recipe=state.recipe_id,
        task=state.task,
        video=state.video,
        skim=state.skim,
        turns=turns,
        ending=state.ending,
        cut=cut,
        correct=correct,
        cost=cost,
    )
