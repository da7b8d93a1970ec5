"""What a search index is: times of a video and how well each fits a query; and the moments among them.

Which action asks, and for how many, is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from videogym.video.types import Video

GAP_S = 2.0  # seconds: nearer times are one moment


class SearchError(ValueError):
    """An index gave what cannot be. The message names the index and the value."""


class WrongIndex(SearchError):
    """An index does not serve this video: it is of another one or of another model, or cannot see it."""


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """How well moments of a video fit a query."""

    times_s: NDArray[np.float64]  # (N,) seconds, in any order, within the video
    scores: NDArray[np.float64]  # (N,) finite, the higher the better; comparable within one query alone


class FrameIndex(Protocol):
    """Finds moments of a video by a text. A recipe holds one and counts it in its identity.

    So it is a frozen dataclass whose fields say all that decides what is found. It is handed the video and
    the query, never the task: it cannot know more of an answer than the frames show.
    """

    def check(self, video: Video) -> None:
        """Refuse a video that it cannot serve; asked once, when an episode begins.

        Raises:
            WrongIndex: it is no index of this video.
        """
        ...

    def search(self, video: Video, query: str) -> Hits:
        """Score moments of a video; the same video and query give the same hits.

        Args:
            video: open; its ``meta.fingerprint`` names its content.
            query: one to 256 characters that can be encoded, not all of them blank.

        Raises:
            WrongIndex: it is no index of this video.
            VideoError: frames cannot be decoded.
        """
        ...


def search_video(index: FrameIndex, video: Video, query: str, most: int) -> tuple[float, ...]:
    """Times of up to ``most`` moments, seconds, the best first.

    Raises:
        SearchError: the index gave scores that are not finite, or times outside the video.
        VideoError: frames cannot be decoded.
    """
    hits = index.search(video, query)
    times_s, scores = np.asarray(hits.times_s, np.float64), np.asarray(hits.scores, np.float64)
    if times_s.ndim != 1 or times_s.shape != scores.shape:
        raise SearchError(f"{index} gave times of shape {times_s.shape} and scores of {scores.shape}")
    if not np.isfinite(scores).all():
        raise SearchError(f"{index} gave a score that is not finite for the query {query!r:.80}")
    outside = times_s[~((times_s >= 0) & (times_s < video.meta.duration_s))]
    if len(outside):
        raise SearchError(
            f"{index} gave the time {outside[0]:g} s, the video lasts {video.meta.duration_s:g} s"
        )
    return best_moments(Hits(times_s, scores), most)


def best_moments(hits: Hits, most: int, gap_s: float = GAP_S) -> tuple[float, ...]:
    """Times of the best hits, none nearer than ``gap_s`` to a better one; of equal scores the earlier.

    >>> best_moments(Hits(np.array([1.0, 2.0, 9.0]), np.array([0.8, 0.9, 0.1])), 2)
    (2.0, 9.0)
    """
    order = np.lexsort((hits.times_s, -hits.scores))
    times_s, found = hits.times_s[order], list[float]()
    while len(times_s) and len(found) < most:
        best = float(times_s[0])
        found.append(best)
        times_s = times_s[np.abs(times_s - best) >= gap_s]
        if gap_s <= 0:
            times_s = times_s[1:]
    return tuple(found)
