"""Which annotated rows are worth training on: the filter that Video-MTR publishes.

A row is kept if its evidence is a small part of a video that is not too short, so that looking pays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from videogym.geometry import Segment, merge

Keep = Callable[[Sequence[Segment], float], bool]  # (evidence, duration_s) -> whether to read the row


def evidence_share(evidence: Sequence[Segment], duration_s: float) -> float:
    """Seconds in the union of the segments as a share of the video's length.

    >>> evidence_share([Segment(0, 10), Segment(5, 15)], 60)
    0.25
    """
    return sum(segment.length_s for segment in merge(evidence)) / duration_s


def video_mtr_keeps(
    evidence: Sequence[Segment], duration_s: float, *, min_duration_s: float = 30.0, strict: bool = False
) -> bool:
    """Whether Video-MTR's filter keeps a row: evidence below half of a video of at least 30 seconds.

    Of NExT-GQA's 8,911 annotated questions (validation and test) it keeps 4,918, the paper's "4.9K". The
    paper prints "longer than 30 seconds", which is ``strict`` and keeps 4,705.

    Args:
        evidence: of one row; without evidence it is not kept.
        duration_s: length of the video, seconds.
        min_duration_s: shortest video.
        strict: the video must be longer than that.

    Source: Video-MTR, arXiv 2508.20478v2; the counts are of the published annotation files.
    """
    long_enough = duration_s > min_duration_s if strict else duration_s >= min_duration_s
    return bool(evidence) and long_enough and evidence_share(evidence, duration_s) < 0.5
