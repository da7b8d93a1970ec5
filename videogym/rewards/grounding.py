"""Where a policy looked, and how much of the evidence its looks cover: what `DEFAULT` pays for."""

from __future__ import annotations

from collections.abc import Sequence

from videogym.geometry import WHOLE_FRAME, Region, Segment, region_iou, segment_iou
from videogym.state import State, Turn


def looked_segments(state: State) -> tuple[Segment, ...]:
    """Segments of the executed looks, as asked, cut at the end of the video."""
    return tuple(segment for turn in state.turns for segment in turn_segments(state, turn))


def turn_segments(state: State, turn: Turn) -> tuple[Segment, ...]:
    """`looked_segments` of one turn."""
    shown = (r.action.segment(state.video.duration_s) for r in turn.results if r.clip is not None)
    return tuple(segment for segment in shown if segment is not None)


def looked_regions(state: State) -> tuple[Region, ...]:
    """Regions of the executed looks, in the order of `looked_segments`."""
    duration_s = state.video.duration_s
    shown = (
        result.clip.region or WHOLE_FRAME
        for turn in state.turns
        for result in turn.results
        if result.clip is not None and result.action.segment(duration_s) is not None
    )
    return tuple(shown)


def best_coverage(
    state: State, looks: Sequence[Segment], regions: Sequence[Region] | None = None
) -> float | None:
    """Mean over the evidence segments of the best overlap that any single look has with each.

    The overlap is the IoU in time; of a task with an ``evidence_region`` it is multiplied by the IoU of
    the look's region with that one.

    Args:
        state: of the episode.
        looks: segments that were looked at.
        regions: of the looks, one each; None: they showed the whole frame.

    Returns:
        A value in [0, 1], which never falls when a look is added and stays when one is repeated; None
        without evidence.

    Source: for boxes that stand still the product is vIoU, as of VidSTG (arXiv 2001.06891).
    """
    evidence, place = state.task.evidence, state.task.evidence_region
    if not evidence:
        return None
    regions = [WHOLE_FRAME] * len(looks) if regions is None else regions
    shares = [1.0 if place is None else region_iou(region, place) for region in regions]
    weighed = list(zip(looks, shares, strict=True))
    best = [max((w * segment_iou(look, s) for look, w in weighed), default=0.0) for s in evidence]
    return sum(best) / len(best)


def coverage_gain(before: State, after: State) -> float | None:
    """By how much this turn's looks raised `best_coverage`; absent without evidence.

    The skim counts as a look at the whole video: to look at all of it again is worth nothing.
    """
    now, then = _coverage(after), _coverage(before)
    return None if now is None or then is None else now - then


def _coverage(state: State) -> float | None:
    """`best_coverage` of the skim and all looks."""
    looks = (Segment(0.0, state.video.duration_s), *looked_segments(state))
    return best_coverage(state, looks, (WHOLE_FRAME, *looked_regions(state)))
