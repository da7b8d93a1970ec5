"""EVA: no frame first; a number of frames and a scale in every look, within a budget of visual tokens."""

from __future__ import annotations

from videogym.recipes.recipe import Recipe
from videogym.rewards import AnswerTerm, Term, tried_in_vain
from videogym.rules import Rules

_TOKENS = 12_000

EVA_CODE = Recipe(
    name="EVA/code",
    source="EVA, published evaluation code 758ad8d; reward as told of arXiv 2603.22918",
    rules=Rules(
        actions=("crop", "answer"),
        max_turns=6,
        skim_frames=0,
        clip_frames=256,
        max_calls_per_turn=8,
        turn_frames=512,
        malformed="end",
        timestamps="seconds",
        answers="any",
        max_pixels=_TOKENS * 28 * 28,
        crop_arguments=("frames", "scale"),
        max_scale=4.0,
        crop_sampling="nearest",
        crop_range="clamp",
        look_tokens=_TOKENS,
        over_bound="shrink",
    ),
    grammar="eva",
    terms=(
        Term("answer", "trajectory", AnswerTerm()),
        Term("format", "trajectory", tried_in_vain, weight=0.05),
    ),
    choices=(
        ("reward", "the weights are not known; 1 and 0.05, which is kept below what guessing pays"),
        (
            "completeness",
            "not asked: the source pays a choice only if a judge of the last frames is right too",
        ),
        ("open answers", "exact match; the source takes the mean of ROUGE-1, 2 and L"),
        ("frames", "at most 256 a call, 512 and 8 calls a turn; the source has no such bounds"),
        (
            "rounding",
            "where the source's rounding lands above its limit, frames are dropped until it holds",
        ),
        ("stamps", "of the frames shown; the source tells the times that were asked for"),
    ),
)
