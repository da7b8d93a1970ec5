"""Terms of Video-MTR: well-formed turns, and looks that show more of the relevant frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from videogym.state import Clip, State


@dataclass(frozen=True)
class WellFormedTurn:
    """1.0 for a turn whose output obeys the grammar; with ``valid_only`` it must also be executed.

    Source: Video-MTR, per-turn format reward; its code pays nothing for an action it refuses.
    """

    valid_only: bool = False

    def __call__(self, before: State, after: State) -> float:
        """1.0 or 0.0."""
        turn = after.turns[-1]
        return float(turn.well_formed and (turn.valid or not self.valid_only))


def relevant_pool(state: State) -> frozenset[float] | None:
    """Pool frames whose timestamp lies in an evidence segment; None without annotation."""
    evidence = state.task.evidence
    if evidence is None:
        return None
    return frozenset(t for t in state.pool_s if any(segment.contains(t) for segment in evidence))


def frame_iou(clip: Clip, relevant: frozenset[float]) -> float:
    """Intersection over union of two sets of frames; 1.0 when both are empty."""
    shown = frozenset(clip.times_s)
    union = shown | relevant
    return len(shown & relevant) / len(union) if union else 1.0


def _look_ious(state: State, relevant: frozenset[float]) -> list[float]:
    """IoU of the skim and of every executed look, in order."""
    return [frame_iou(clip, relevant) for clip in state.clips]


@dataclass(frozen=True)
class FrameGain:
    """Video-MTR's frame-relevance term: did this look show more of the relevant frames?

    Pays ``bonus`` when the IoU of this turn's frames with the relevant ones rises by more than
    ``margin`` above the baseline, else ``-drop_penalty`` times the drop below it. Absent for turns
    without a look and for tasks without annotation.

    Source: Video-MTR. The paper measures against the best look so far and punishes a drop in
    proportion, without a coefficient or a rule for ties; the code measures against the previous look
    with a margin of 0.001 and punishes nothing.
    """

    bonus: float = 0.5
    baseline: Literal["best", "previous"] = "best"
    margin: float = 0.0
    drop_penalty: float = 0.5

    def __call__(self, before: State, after: State) -> float | None:
        """The payment, or None when the term is absent."""
        relevant, clips = relevant_pool(after), after.turns[-1].clips
        if relevant is None or not clips:
            return None
        earlier = _look_ious(before, relevant)
        reference = max(earlier) if self.baseline == "best" else earlier[-1]
        gain = frame_iou(clips[-1], relevant) - reference
        if gain > self.margin:
            return self.bonus
        return self.drop_penalty * min(0.0, gain)
