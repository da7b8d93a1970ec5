"""The conditions of the study, and the files of its cells."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from videogym import Recipe, Term, get_recipe
from videogym.rewards import CropOverlap

from .. import train_grpo, train_ppo
from ..compact.run import RunConfig
from ..training.run import CheckpointMismatch

SCALES = (1, 4, 16)  # of windows, where a policy may choose how wide it looks
CURVES = ("eval_accuracy", "eval_turns", "trained_reward", "retrieval_rate", "success", "seconds_total")


@dataclass(frozen=True)
class Condition:
    """One line of the study."""

    question: str  # what it is there to tell
    config: RunConfig  # its class decides the algorithm


def _ppo(recipe: Recipe | str = "VIDEO_MTR/paper", **changes: Any) -> train_ppo.Config:
    values: dict[str, Any] = {"recipe": recipe, "bonus": "paper", "iterations": 40, **changes}
    return train_ppo.Config.of(**_MEASURED, **values)


def _grpo(recipe: Recipe | str, **changes: Any) -> train_grpo.Config:
    values: dict[str, Any] = {"recipe": recipe, "iterations": 40, "scale_by_std": False, **changes}
    return train_grpo.Config.of(**_MEASURED, **values)


_MEASURED: dict[str, Any] = {"eval_every": 5, "eval_episodes": 100, "checkpoint_every": 20}
_PAPER = get_recipe("VIDEO_MTR/paper")
# A skim of 64 frames would show the events of these videos.
_TINY = get_recipe("LONGVT_TINY")
_TINY = replace(
    _TINY, name="LONGVT_TINY, skim of 16", rules=replace(_TINY.rules, skim_frames=16, clip_frames=8)
)


def _with_rules(name: str, **rules: Any) -> Recipe:
    return replace(_PAPER, name=f"{_PAPER.name}, {name}", rules=replace(_PAPER.rules, **rules))


def _only(recipe: Recipe, name: str, *terms: Term) -> Recipe:
    return replace(recipe, name=f"{recipe.name}, {name}", terms=terms)


_ANSWER, _FORMAT = (next(t for t in _TINY.terms if t.name == name) for name in ("answer", "format"))
_CODE = replace(
    get_recipe("VIDEO_MTR/code"), name="VIDEO_MTR/code rewards, paper's rules", rules=_PAPER.rules
)

CONDITIONS: dict[str, Condition] = {
    "full": Condition("Video-MTR as in the paper", _ppo()),
    "trajectory_only": Condition(
        "only the answer is rewarded",
        _ppo(_only(_PAPER, "answer only", *(t for t in _PAPER.terms if t.level == "trajectory"))),
    ),
    "no_gate": Condition("turn rewards are kept if the answer is wrong", _ppo(gate="none")),
    "no_bootstrapping": Condition("no bonus for looking", _ppo(bonus="none")),
    "grpo": Condition("GRPO instead of PPO, no bonus for looking", _grpo("VIDEO_MTR/paper")),
    "single_turn": Condition(
        "all 32 frames at once, one turn; events fall between these frames",
        _ppo(_with_rules("one turn of 32", max_turns=1, skim_frames=32)),
    ),
    "single_turn_33": Condition(
        "33 frames at once, which do show events",
        _ppo(_with_rules("one turn of 33", max_turns=1, skim_frames=33, frame_budget=33)),
    ),
    "turns_1": Condition("at most 1 turn: the skim", _ppo(_with_rules("1 turn", max_turns=1))),
    "turns_2": Condition("at most 2 turns", _ppo(_with_rules("2 turns", max_turns=2))),
    "turns_5": Condition(
        "at most 5 turns, 48 frames", _ppo(_with_rules("5 turns", max_turns=5, frame_budget=48))
    ),
    "budget_16": Condition(
        "16 frames: 8 + 4 + 4", _ppo(_with_rules("16", skim_frames=8, clip_frames=4, frame_budget=16))
    ),
    "budget_64": Condition("64 frames: 32 + 16 + 16", _ppo("VIDEO_MTR/paper-64-paper")),
    "budget_80": Condition("80 frames: 40 + 20 + 20", _ppo("VIDEO_MTR/paper-80-paper")),
    "code_profile": Condition(
        "rewards, gate, bonus and discount of the published code",
        _ppo(_CODE, gate="code", bonus="code", gamma=1.0),
    ),
    "longvt_none": Condition(
        "LongVT without time reward", _grpo(_only(_TINY, "no time", _ANSWER, _FORMAT), windows=SCALES)
    ),
    "longvt_recall": Condition(
        "LongVT, recall as time reward",
        _grpo(
            _only(_TINY, "recall", _ANSWER, _FORMAT, Term("time", "trajectory", CropOverlap("recall"))),
            windows=SCALES,
        ),
    ),
    "longvt_iou": Condition("LongVT, IoU as time reward", _grpo(_TINY, windows=SCALES)),
    "default": Condition("videogym's own recipe", _ppo("DEFAULT", bonus="none", windows=SCALES)),
}


@dataclass(frozen=True)
class Cell:
    """One condition with one seed, run."""

    condition: str
    seed: int
    confidence: float  # factor on the scores of looks, at the start
    command: str  # that runs it again
    recipe: str
    accuracy: float  # on held-out tasks, likeliest actions, as are the next four
    hit_rate: float
    turns: float
    frames: float
    look_s: float  # mean length of looks, seconds; NaN without looks
    seconds: float  # the whole run, teaching included where it was done for this cell
    curves: dict[str, list[tuple[int, float]]] = field(repr=False)  # (turns played in all, value)


def cell_path(out: Path, name: str, seed: int) -> Path:
    """File of a cell."""
    return out / "cells" / f"{name}-{seed}.json"


def read_cell(path: Path) -> Cell:
    """A cell that was written.

    Raises:
        CheckpointMismatch: the file is no cell.
        OSError: it cannot be read.
    """
    try:
        return Cell(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointMismatch(f"{path} is no cell: {error}; remove it to have it made anew") from error
