"""VideoZoomer: zoom into a segment at a frame rate of the policy's own."""

from __future__ import annotations

import sys
from dataclasses import replace

from videogym.recipes.recipe import Recipe
from videogym.rewards import AnswerTerm, Term, ZoomScore, well_formed_episode, zoomed_rightly
from videogym.rules import Rules

_RULES = Rules(
    actions=("crop", "answer"),
    max_turns=5,
    skim_frames=64,
    clip_frames=16,
    frame_budget=128,
    last_turn_look="skip",
    timestamps="seconds",
    max_pixels=100_352,
    crop_arguments=("fps",),
    max_fps=16.0,
    crop_sampling="truncated",
    over_bound="refuse",
)

VIDEO_ZOOMER = Recipe(
    name="VIDEO_ZOOMER/paper",
    source="VideoZoomer, arXiv 2512.22315",
    rules=_RULES,
    grammar="video_zoomer/strict",
    terms=(
        Term("answer", "trajectory", AnswerTerm(), weight=0.9),
        Term("format", "trajectory", well_formed_episode, weight=0.1),
        Term("tool", "trajectory", zoomed_rightly, weight=0.5),
    ),
    choices=(
        ("out of range", "times beyond the video and rates above 16 are refused; the paper gives no rule"),
        ("tool", "paid for an executed call; the paper does not say whether a failed one counts"),
        ("malformed output", "the turn is spent and the policy is told why; the paper gives no rule"),
        ("judge", "exact match of letter, option or text; the paper has a language model for open answers"),
    ),
)

VIDEO_ZOOMER_CODE = Recipe(
    name="VIDEO_ZOOMER/code",
    source="VideoZoomer, published code 5638153",
    rules=replace(
        _RULES,
        skim_fps=0.5,
        skim_sampling="strided",
        answers="any",
        max_fps=sys.float_info.max,
        crop_range="clamp",
        budget_reached="end",
        frame_resize="truncated",
    ),
    grammar="video_zoomer/code",
    terms=(
        Term("answer", "trajectory", ZoomScore("answer"), weight=0.9),
        Term("format", "trajectory", ZoomScore("format"), weight=0.1),
        Term("tool", "trajectory", ZoomScore("tool"), weight=0.0),
    ),
    choices=(
        (
            "tool",
            "weight 0, as the published script leaves it; the paper's 0.5 is `replace(term, weight=0.5)`",
        ),
        (
            "judge",
            "exact match in place of a language model for open answers; choices as the code reads them",
        ),
    ),
)
