"""Select: frames of the pool that was drawn when the episode began."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from videogym.actions.look import Look
from videogym.state import Clip, Invalid, State
from videogym.video.sampling import linspace_floored


@dataclass(frozen=True, slots=True)
class Select(Look):
    """Show frames of the pool that lie in a segment (Video-MTR's retrieve). Seconds, unchecked."""

    kind: ClassVar[str] = "select"
    purpose: ClassVar[str] = "Show some of the candidate frames that lie between two times."

    start_s: float
    end_s: float

    def frames(self, state: State, cap: int, pts_s: NDArray[np.float64]) -> Clip | Invalid:
        """At most ``cap`` of the pool's frames in the segment, evenly spread."""
        first = bisect_left(state.pool_s, self.start_s)
        last = bisect_left(state.pool_s, self.end_s) - 1
        if last < first:
            return Invalid("no_frames", f"No pool frame lies in {self.start_s:g} to {self.end_s:g} s.")
        indices = linspace_floored(first, last, min(last - first + 1, cap))
        return Clip(tuple(state.pool_s[i] for i in indices))
