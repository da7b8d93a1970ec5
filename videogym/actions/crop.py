"""Crop: a segment resampled from the source, and how closely: rate or count, scale, region."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from videogym.actions.arguments import (
    as_box,
    as_number,
    count_argument,
    judge_count,
    judge_number,
    number_argument,
    read_numbers,
)
from videogym.actions.bounds import LookRequest, bounded, note_of
from videogym.actions.look import Look, read_times, structured_times
from videogym.actions.samplers import SAMPLERS
from videogym.geometry import WHOLE_FRAME, Region
from videogym.rules import LATER
from videogym.state import Action, Clip, Invalid, Rules, State, Turn

STRUCTURED_FPS = 60.0  # the highest rate of structured actions, which say shares of it
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
    """Resample a segment from the source, optionally inside a region.

    ``fps`` or ``frames``, not both, say how many frames; without them it is the recipe's ``crop_fps``.
    ``scale`` multiplies each side of the frame or region. Each is open where ``Rules.crop_arguments`` has
    it, the region where ``Rules.regions`` is set. Bounds and what happens above them are the rules'.

    Without further arguments this is LongVT's ``crop_video``, with ``fps`` VideoZoomer's ``video_zoom``,
    with ``frames`` and ``scale`` EVA's ``frame_select``. Seconds and fractions, unchecked; what is no
    number is NaN, which is refused. A `Region` or an array is taken too and kept as its coordinates.
    """

    kind: ClassVar[str] = "crop"
    purpose: ClassVar[str] = "Show new frames of the video between two times."
    optional: ClassVar[frozenset[str]] = frozenset({"region", "fps", "frames", "scale"})

    start_s: float
    end_s: float
    region: Sequence[float] | Region | None = None  # x0, y0, x1, y1
    fps: float | None = field(default=None, metadata=LATER)  # frames a second of the segment
    # A crop says all in `clip`, so the method of this name, by which other looks say it, is not needed.
    frames: float | None = field(default=None, metadata=LATER)  # type: ignore[assignment]  # how many
    scale: float | None = field(
        default=None, metadata=LATER
    )  # of each side of the frame's or region's own pixels

    def __post_init__(self) -> None:
        Look.__post_init__(self)
        if self.region is not None:
            object.__setattr__(self, "region", as_box(self.region))
        for name in ("fps", "frames", "scale"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_number(value))

    def judge_times(self, state: State) -> Invalid | None:
        """See `Look.judge_times`; where ranges are clamped some ways of drawing frames take any times."""
        rules = state.rules
        if rules.crop_range == "clamp" and SAMPLERS[rules.crop_sampling].judges_times:
            finite = math.isfinite(self.start_s) and math.isfinite(self.end_s)
            if finite or rules.crop_sampling == "truncated":
                return None
        return super(Crop, self).judge_times(state)

    def clip(self, state: State, turn: Turn, pts_s: NDArray[np.float64]) -> Clip | Invalid:
        """See `Action.clip`: at the rate, count and scale asked for, or less as the rules say."""
        read = self._read(state.rules)
        if isinstance(read, Invalid):
            return read
        region, scale, rate = read
        count = self._count(state, pts_s, rate)
        if isinstance(count, Invalid):
            return count
        chosen = not self.fps == self.frames == self.scale == None  # noqa: E711
        asked = LookRequest(count, scale, chosen)
        shown = bounded(asked, region, state, turn)
        if isinstance(shown, Invalid):
            return shown
        sampler = SAMPLERS[state.rules.crop_sampling]
        segment = float(self.start_s), float(self.end_s)
        times = sampler.times(state.video, pts_s, *segment, shown.count, self.frames is None)
        if isinstance(times, Invalid):
            return times
        return Clip(times, region, shown.scale, note_of(asked, shown) if chosen else "")

    def judge_arguments(self, rules: Rules) -> Invalid | None:
        """What is wrong with all but the times, whatever the video; None: nothing."""
        read = self._read(rules)
        if isinstance(read, Invalid):
            return read
        # Where a rate is judged with the times, there are none at which this one is executed.
        return None if math.isfinite(read[2]) else judge_number("fps", read[2], rules.max_fps, rules)

    def _read(self, rules: Rules) -> tuple[Region | None, float | None, float] | Invalid:
        """Region, scale, and how many frames or how many a second."""
        region, scale, rate = self._read_region(rules), self._read_scale(rules), self._read_rate(rules)
        if isinstance(region, Invalid):
            return region
        if isinstance(scale, Invalid):
            return scale
        return rate if isinstance(rate, Invalid) else (region, scale, rate)

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

    def _read_scale(self, rules: Rules) -> float | Invalid | None:
        if self.scale is None:
            return None
        refused = _closed("scale", rules) or judge_number("scale", self.scale, rules.max_scale, rules)
        return refused or min(float(self.scale), rules.max_scale)

    def _read_rate(self, rules: Rules) -> float | Invalid:
        """Frames that are asked for, before any bound; without a number of them, frames a second."""
        if self.fps is not None and self.frames is not None:
            return Invalid("both", "Give fps or frames, not both.")
        if self.frames is not None:
            return _closed("frames", rules) or judge_count("frames", self.frames, rules)
        if self.fps is None:
            return rules.crop_fps
        signed = SAMPLERS[rules.crop_sampling].signed_rate and rules.crop_range == "clamp"
        refused = _closed("fps", rules)
        refused = refused or (None if signed else judge_number("fps", self.fps, rules.max_fps, rules))
        return refused or (float(self.fps) if signed else min(float(self.fps), rules.max_fps))

    def _count(self, state: State, pts_s: NDArray[np.float64], rate: float) -> int | Invalid:
        """Frames that are asked for, before any bound."""
        if self.frames is not None:
            return int(rate)
        sampler = SAMPLERS[state.rules.crop_sampling]
        return sampler.count(state.video, pts_s, float(self.start_s), float(self.end_s), rate)

    def label(self) -> str:
        """Times and whatever else was asked for."""
        words = Look.label(self)
        if self.fps is not None:
            words += f" at {self.fps:g} fps"
        if self.frames is not None:
            words += f", {self.frames} frames"
        if self.scale is not None:
            words += f" at scale {self.scale:.3g}"
        return words if self.region is None else f"{words} in {', '.join(f'{v:.3g}' for v in self.region)}"

    def arguments(self) -> dict[str, Any]:
        """See `Action.arguments`."""
        given: dict[str, Any] = {}
        if self.region is not None:
            given["region"] = [float(side) for side in self.region]
        for name in ("fps", "frames", "scale"):
            if getattr(self, name) is not None:
                given[name] = getattr(self, name)
        return Look.arguments(self) | given

    @classmethod
    def parameters(cls, rules: Rules) -> dict[str, Any]:
        """Times, and what else the rules open."""
        region = {"region": _REGION} if rules.regions else {}
        return super(Crop, cls).parameters(rules) | region | _schemas(rules)

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any], rules: Rules) -> Action:
        """See `Action.from_arguments`."""
        times = read_times(arguments)
        if isinstance(times, Invalid):
            return times
        values: dict[str, Any] = {}
        if "region" in arguments:
            values["region"] = _region_argument(arguments["region"])
        for name in ("fps", "scale"):
            if name in arguments:
                values[name] = number_argument(name, arguments[name])
        if "frames" in arguments:
            values["frames"] = count_argument("frames", arguments["frames"])
        wrong = next((value for value in values.values() if isinstance(value, Invalid)), None)
        return wrong or cls(*times, **values)

    @classmethod
    def spaces(cls, rules: Rules) -> dict[str, gymnasium.Space[Any]]:
        """``segment``; where open ``region``, ``fps`` and ``scale`` as shares, ``frames``; 0: left out."""
        spaces = super(Crop, cls).spaces(rules)
        if rules.regions:
            spaces["region"] = Box(0.0, 1.0, (4,), np.float32)
        if "fps" in rules.crop_arguments:
            spaces["fps"] = Box(0.0, 1.0, (1,), np.float64)
        if "frames" in rules.crop_arguments:
            spaces["frames"] = Discrete(rules.clip_frames + 1)
        if "scale" in rules.crop_arguments:
            spaces["scale"] = Box(0.0, 1.0, (1,), np.float64)
        return spaces

    @classmethod
    def from_structured(cls, values: Mapping[str, Any], state: State) -> Action:
        """See `Action.from_structured`; beside a count above 0 a rate is ignored."""
        rules, times, given = state.rules, structured_times(values, state), dict[str, Any]()
        if rules.regions:
            x0, y0, x1, y1 = (float(value) for value in values["region"])
            given["region"] = (x0, y0, x1, y1)
        if "frames" in rules.crop_arguments and int(values["frames"]):
            given["frames"] = int(values["frames"])
        most = {"fps": min(rules.max_fps, STRUCTURED_FPS), "scale": rules.max_scale}
        for name in most:
            if name in rules.crop_arguments and (share := _share(values[name])):
                given[name] = share * most[name]
        if "frames" in given:
            given.pop("fps", None)
        return cls(*times, **given)


def _closed(name: str, rules: Rules) -> Invalid | None:
    if name in rules.crop_arguments:
        return None
    return Invalid(name, f"In this episode a crop has no {name}: leave it out.")


def _schemas(rules: Rules) -> dict[str, Any]:
    """Rate, count and scale as JSON schemas, as far as the rules open them."""
    most = rules.clip_frames
    schemas = {
        "fps": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": f"Frames a second, at most {most} frames in all. Left out: {rules.crop_fps:g}",
        },
        "frames": {
            "type": "integer",
            "minimum": 1,
            "description": f"How many frames, evenly spread, at most {most}. "
            f"Left out: {rules.crop_fps:g} a second",
        },
        "scale": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": rules.max_scale,
            "description": "Factor of each side of the picture: below 1 coarser and cheaper",
        },
    }
    return {name: schemas[name] for name in rules.crop_arguments}


def _region_argument(value: Any) -> tuple[float, ...] | Invalid:
    region = read_numbers(value)
    if region is None or len(region) != 4:
        return Invalid("type", "region must be a list of four numbers from 0 to 1: [x0, y0, x1, y1].")
    return tuple(region)


def _share(value: Any) -> float:
    return float(np.asarray(value).reshape(-1)[0])
