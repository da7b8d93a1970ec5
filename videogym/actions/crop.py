"""Crop: a segment resampled from the source, optionally inside a region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from videogym.actions.look import Look, read_numbers, read_times, structured_times, window_times
from videogym.geometry import WHOLE_FRAME, Region
from videogym.state import Action, Clip, Invalid, Rules, State

_REGION = {
    "type": "array",
    "items": {"type": "number"},
    "minItems": 4,
    "maxItems": 4,
    "description": "Part of the picture to enlarge: [x0, y0, x1, y1] in fractions of its width and height, "
    "origin at the top left. Left out: the whole picture.",
}


@dataclass(frozen=True, slots=True)
class Crop(Look):
    """Resample a segment from the source at the recipe's ``crop_fps``, optionally inside a region.

    Without a region this is LongVT's ``crop_video``. Seconds and fractions, unchecked. A `Region` is taken
    too and kept as its four coordinates.
    """

    kind: ClassVar[str] = "crop"
    purpose: ClassVar[str] = "Show new frames of the video between two times."
    optional: ClassVar[frozenset[str]] = frozenset({"region"})

    start_s: float
    end_s: float
    region: Sequence[float] | Region | None = None  # x0, y0, x1, y1

    def __post_init__(self) -> None:
        if isinstance(self.region, Region):
            object.__setattr__(self, "region", self.region.as_tuple())

    def frames(self, state: State, cap: int, pts_s: NDArray[np.float64]) -> Clip | Invalid:
        """At most ``cap`` frames at the recipe's rate, at least two."""
        region = self._read_region(state.rules)
        if isinstance(region, Invalid):
            return region
        if cap < 2:
            return Invalid("budget", "Fewer than the two frames of the smallest crop are left; answer now.")
        start_s, end_s = self.start_s, min(self.end_s, state.video.duration_s)
        try:
            times = window_times(state.video, pts_s, cap, state.rules.crop_fps, start_s, end_s)
        except ValueError:
            return Invalid("no two frames", f"Fewer than two frames lie in {start_s:g} to {end_s:g} s.")
        return Clip(times, region)

    def _read_region(self, rules: Rules) -> Region | Invalid | None:
        if self.region is None:
            return None
        if not rules.regions:
            return Invalid("region", "This episode crops in time only: leave the region out.")
        try:
            region = Region(*self.region)
        except (TypeError, ValueError) as error:
            return Invalid("region", f"{error}.")
        return None if region == WHOLE_FRAME else region

    def label(self) -> str:
        """Times and region."""
        words = Look.label(self)
        return words if self.region is None else f"{words} in {', '.join(f'{v:.3g}' for v in self.region)}"

    def arguments(self) -> dict[str, Any]:
        """See `Action.arguments`."""
        region = {} if self.region is None else {"region": [float(side) for side in self.region]}
        return Look.arguments(self) | region

    @classmethod
    def parameters(cls, rules: Rules) -> dict[str, Any]:
        """Times, and the region where the rules allow one."""
        times = super(Crop, cls).parameters(rules)
        return times | {"region": _REGION} if rules.regions else times

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any], rules: Rules) -> Action:
        """See `Action.from_arguments`."""
        times = read_times(arguments)
        if isinstance(times, Invalid):
            return times
        if "region" not in arguments:
            return cls(*times)
        region = read_numbers(arguments["region"])
        if region is None or len(region) != 4:
            return Invalid("type", "region must be a list of four numbers from 0 to 1: [x0, y0, x1, y1].")
        return cls(*times, (region[0], region[1], region[2], region[3]))

    @classmethod
    def spaces(cls, rules: Rules) -> dict[str, gymnasium.Space[Any]]:
        """``segment``, and ``region`` where the rules allow one."""
        region = {"region": Box(0.0, 1.0, (4,), np.float32)} if rules.regions else {}
        return super(Crop, cls).spaces(rules) | region

    @classmethod
    def from_structured(cls, values: Mapping[str, Any], state: State) -> Action:
        """See `Action.from_structured`."""
        times = structured_times(values, state)
        if not state.rules.regions:
            return cls(*times)
        x0, y0, x1, y1 = (float(value) for value in values["region"])
        return cls(*times, (x0, y0, x1, y1))
