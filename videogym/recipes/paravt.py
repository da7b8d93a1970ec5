"""ParaVT: several crops in one turn."""

from __future__ import annotations

from dataclasses import replace

from videogym.recipes.recipe import Recipe
from videogym.rewards import AnswerTerm, ParaVTScore, Term, executed_calls, well_formed_episode
from videogym.rules import Rules

_RULES = Rules(
    actions=("crop", "answer"),
    max_turns=4,
    skim_frames=64,
    skim_fps=1.0,
    min_skim_frames=4,
    clip_frames=16,
    crop_fps=1.0,
    max_calls_per_turn=5,
    crop_past_end="clamp",
    timestamps="seconds",
    answers="any",
)
_REPLIES = (
    "replies",
    "frames of each crop, as in the published evaluation; in training they are texts of a sub-agent",
)

PARAVT = Recipe(
    name="PARAVT/paper",
    source="ParaVT, arXiv 2605.20342, abstract and README",
    rules=_RULES,
    grammar="paravt/strict",
    terms=(
        Term("answer", "trajectory", AnswerTerm()),
        Term("format", "trajectory", well_formed_episode),
        Term("tool", "trajectory", executed_calls),
    ),
    choices=(
        _REPLIES,
        (
            "limits",
            "4 turns as in training, 5 calls a turn as in the evaluation; the full text was not had",
        ),
        ("format", "every turn obeys the grammar; the README names weights and no rule"),
        ("malformed output", "the turn is spent and the policy is told why"),
        ("judge", "exact match of letter, option or text"),
    ),
)

PARAVT_CODE = Recipe(
    name="PARAVT/code",
    source="ParaVT, published code cf55249",
    rules=replace(_RULES, max_calls_per_turn=16, crop_range="clamp"),
    grammar="paravt/code",
    terms=(
        Term("answer", "trajectory", ParaVTScore("answer")),
        Term("format", "trajectory", ParaVTScore("format")),
        Term("tool", "trajectory", ParaVTScore("tool")),
    ),
    choices=(
        _REPLIES,
        ("calls", "at most 16 of a turn are run; the code has no cap"),
        ("thought", "written by the policy; the code can give it, and then does not score it"),
        ("scale", "the reward as it is; the trainer takes 0.2 off, multiplies by 10 and clips at 20"),
        ("open answers", "F1 of words, as without a language model"),
    ),
)
