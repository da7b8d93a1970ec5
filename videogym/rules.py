"""Rules: what governs transitions and observations of an episode. Rewards are not in here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

CropArgument = Literal["fps", "frames", "scale"]
CROP_ARGUMENTS: tuple[CropArgument, ...] = ("fps", "frames", "scale")

# Of fields that recipes were named without: at its default such a field is no part of a recipe's identity.
LATER: Mapping[str, Any] = MappingProxyType({"later": True})


@dataclass(frozen=True)
class Rules:
    """What governs transitions and observations of an episode; rewards are not in here.

    A `Recipe` holds one. All counts are frames, turns or calls; rates are frames a second. A visual token
    is a square of ``size_factor`` by ``size_factor`` pixels of one frame, see `videogym.sizes`.

    Raises:
        ValueError: two fields contradict each other, or a value is out of its range.
    """

    actions: tuple[str, ...]  # kinds of action, see `Action.kind`
    max_turns: int
    skim_frames: int  # frames shown first; with skim_fps a cap, without it the exact number; 0: none
    clip_frames: int  # at most so many frames for one select or crop
    pool_frames: int = 0  # size of the candidate pool; 0: there is none
    pool_fps: float = 1.0  # rate at which the pool is drawn before its cap
    skim_fps: float = 0.0  # 0: skim_frames spread over the whole video or pool
    crop_fps: float = 1.0  # rate at which a crop is resampled from the source unless it asks for another
    frame_budget: int | None = None  # frames an episode may show, the skim included
    max_calls: int | None = None  # looks asked for in one episode; reached: the episode ends
    max_calls_per_turn: int = 1  # looks executed in one turn; further ones are refused
    max_duration_s: float = 86_400.0  # upper bound of the observation and action spaces
    crop_past_end: Literal["refuse", "clamp"] = "refuse"  # a crop whose end is after the video's
    malformed: Literal["feedback", "end"] = "feedback"  # an output that cannot be read
    last_turn_look: Literal["execute", "skip"] = "execute"  # a look in the last turn
    regions: bool = False  # whether a crop may name a region
    min_pixels: int = 28 * 28  # per frame, for policies that resolve references
    max_pixels: int = 224 * 224
    size_factor: int = 28  # both sides of a resolved frame are multiples of this
    timestamps: Literal["none", "seconds"] = "none"  # whether rendered text tells frame times
    answers: Literal["checked", "any"] = "checked"  # checked: a letter or a number where one is due
    max_answer_chars: int = 999  # a longer checked answer is refused
    max_text_chars: int = 100_000  # bound of text spaces
    # --- what a crop may ask for beside its times and its region ---
    crop_arguments: tuple[CropArgument, ...] = field(default=(), metadata=LATER)
    max_fps: float = field(default=30.0, metadata=LATER)  # highest rate that a crop may ask for
    max_scale: float = field(default=1.0, metadata=LATER)  # largest factor of each side of its frames
    max_scaled_pixels: int = field(
        default=0, metadata=LATER
    )  # of a frame whose scale it chose; 0: max_pixels
    # "window": as LongVT draws it; "truncated": as VideoZoomer; "nearest": as EVA, see `actions.samplers`
    crop_sampling: Literal["window", "truncated", "nearest"] = field(default="window", metadata=LATER)
    crop_range: Literal["refuse", "clamp"] = field(
        default="refuse", metadata=LATER
    )  # times, rate, count, scale
    # --- bounds of what is shown, beside clip_frames and frame_budget, and what happens above them ---
    turn_frames: int | None = field(default=None, metadata=LATER)
    look_tokens: int | None = field(default=None, metadata=LATER)
    turn_tokens: int | None = field(default=None, metadata=LATER)
    token_budget: int | None = field(default=None, metadata=LATER)  # of an episode, the skim included
    over_bound: Literal["refuse", "shrink", "clamp"] = field(default="clamp", metadata=LATER)
    tell_bound: bool = field(default=False, metadata=LATER)  # whether the policy is told what a bound took
    # "end": as VideoZoomer, a turn after the frame budget was reached ends the episode; the look that
    # reaches it is shown whole, also beyond it
    budget_reached: Literal["refuse", "end"] = field(default="refuse", metadata=LATER)
    # --- the skim and the size of frames ---
    min_skim_frames: int = field(default=2, metadata=LATER)  # with skim_fps, as far as there are so many
    # "even": as above; "strided": every n-th frame, as VideoZoomer; "counted": skim_frames as qwen-vl-utils
    skim_sampling: Literal["even", "strided", "counted"] = field(default="even", metadata=LATER)
    frame_resize: Literal["smart", "truncated"] = field(default="smart", metadata=LATER)

    def __post_init__(self) -> None:
        if "answer" not in self.actions:
            raise ValueError(f"rules need the answer action, got {self.actions}")
        if "select" in self.actions and self.pool_frames < 1:
            raise ValueError("select needs a pool: set pool_frames")
        if self.max_turns < 1 or self.clip_frames < 1 or self.skim_frames < 0:
            raise ValueError("max_turns and clip_frames must be at least 1, skim_frames at least 0")
        if self.frame_budget is not None and self.frame_budget < self.skim_frames:
            raise ValueError(
                f"frame_budget {self.frame_budget} is below the skim's {self.skim_frames} frames"
            )
        unknown = [name for name in self.crop_arguments if name not in CROP_ARGUMENTS]
        if unknown:
            raise ValueError(
                f"crop_arguments must be among {', '.join(CROP_ARGUMENTS)}, got {unknown[0]!r}; "
                "regions are opened by `regions`"
            )
        self._check_ranges()

    def _check_ranges(self) -> None:
        for name in ("max_fps", "max_scale"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be a finite number above 0, got {getattr(self, name)!r}")
        for name in ("turn_frames", "look_tokens", "turn_tokens", "token_budget"):
            bound = getattr(self, name)
            if bound is not None and bound < 1:
                raise ValueError(f"{name} must be at least 1, or None for no bound, got {bound!r}")
        if self.min_skim_frames < 1 or self.max_scaled_pixels < 0:
            raise ValueError("min_skim_frames must be at least 1 and max_scaled_pixels at least 0")
        if self.skim_in_pairs and self.skim_frames == 1:
            raise ValueError("skim_frames must be 0 or at least 2 with skim_fps or 'counted', got 1")
        if self.budget_reached == "end" and self.frame_budget is None:
            raise ValueError("budget_reached 'end' needs a frame_budget")

    def skimming(self, skim_frames: int | None) -> Rules:
        """The rules with fewer first frames; None: these rules.

        Raises:
            ValueError: it is no whole number from 0 to these rules' number, or odd where `skim_in_pairs`.
        """
        if skim_frames is None:
            return self
        most, kind = self.skim_frames, "an even" if self.skim_in_pairs else "a whole"
        whole = isinstance(skim_frames, int | np.integer) and not isinstance(skim_frames, bool)
        if not (whole and 0 <= skim_frames <= most) or (self.skim_in_pairs and skim_frames % 2):
            raise ValueError(f"skim_frames must be {kind} number from 0 to {most}, got {skim_frames!r}")
        return replace(self, skim_frames=int(skim_frames))

    @property
    def skim_in_pairs(self) -> bool:
        """Whether first frames are drawn in even numbers alone, as qwen-vl-utils draws them."""
        return self.skim_sampling == "counted" or (self.skim_fps > 0 and self.skim_sampling == "even")

    @property
    def max_turn_frames(self) -> int:
        """Most frames that the looks of one turn can show."""
        most = self.clip_frames * self.max_calls_per_turn
        return most if self.turn_frames is None else min(most, self.turn_frames)

    @property
    def max_clip_frames(self) -> int:
        """Most frames one observation can bring: the skim, or a turn's clips."""
        return max(self.skim_frames, self.max_turn_frames)

    @property
    def max_shown_frames(self) -> int:
        """Most frames an episode can show."""
        looks = self.max_turns * self.max_calls_per_turn
        if self.max_calls is not None:
            # The turn that reaches the limit still runs all its calls.
            looks = min(looks, self.max_calls - 1 + self.max_calls_per_turn)
        most = self.skim_frames + min(looks * self.clip_frames, self.max_turns * self.max_turn_frames)
        if self.frame_budget is None:
            return most
        # Of the turn that reaches it all is shown where the budget is no limit but an end.
        beyond = self.max_turn_frames - 1 if self.budget_reached == "end" else 0
        return min(most, self.frame_budget + beyond)
