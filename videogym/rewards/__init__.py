"""Reward terms: pure functions of the state before and after a turn, returned by name.

`terms` says what a term is and `scoring` pays a turn and settles the gate; `answers` and `grounding` are
shared, `video_mtr` and `longvt` hold what those systems pay for. A term of your own is a function
``(before, after) -> float | None`` in any file.
"""

from videogym.rewards.answers import AnswerTerm, Judge, is_correct, judge_lenient, judge_letter
from videogym.rewards.completeness import Completeness
from videogym.rewards.eva import TriedInVain, tried_in_vain
from videogym.rewards.grounding import (
    best_coverage,
    coverage_gain,
    looked_regions,
    looked_segments,
    turn_segments,
)
from videogym.rewards.longvt import CropOverlap, TranscriptScore, well_formed_episode
from videogym.rewards.paravt import ExecutedCalls, ParaVTScore, executed_calls
from videogym.rewards.scoring import AbsentTerm, answered_right, history, pays_for_answers, score
from videogym.rewards.terms import RewardError, Score, Term, TermFunction, finite, term_names
from videogym.rewards.video_mtr import FrameGain, WellFormedTurn, frame_iou, relevant_pool
from videogym.rewards.video_zoomer import ZoomedRightly, ZoomScore, ZoomSettings, zoomed_rightly

__all__ = [
    "AbsentTerm",
    "AnswerTerm",
    "Completeness",
    "CropOverlap",
    "ExecutedCalls",
    "FrameGain",
    "Judge",
    "ParaVTScore",
    "RewardError",
    "Score",
    "Term",
    "TermFunction",
    "TranscriptScore",
    "TriedInVain",
    "WellFormedTurn",
    "ZoomScore",
    "ZoomSettings",
    "ZoomedRightly",
    "answered_right",
    "best_coverage",
    "coverage_gain",
    "executed_calls",
    "finite",
    "frame_iou",
    "history",
    "is_correct",
    "judge_lenient",
    "judge_letter",
    "looked_regions",
    "looked_segments",
    "pays_for_answers",
    "relevant_pool",
    "score",
    "term_names",
    "tried_in_vain",
    "turn_segments",
    "well_formed_episode",
    "zoomed_rightly",
]
