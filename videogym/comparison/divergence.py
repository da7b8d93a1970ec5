"""The first step at which two episodes of one task part ways.

Traces keep frames by reference: an observation is the same if the video's fingerprint, the times and
regions of its frames, the message of an error, and what another policy said of them are. Pixels of
another decoder are not seen here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

from videogym.state import Action, Turn
from videogym.traces import Trace, TurnTrace

Kind = Literal[
    "question",
    "video",
    "skim",
    "action",
    "words",
    "observation",
    "reward",
    "ending",
    "verdict",
    "nowhere",
]
DESCRIPTIONS: Mapping[Kind, str] = {
    "question": "another question under the same task id",
    "video": "another video under the same task id",
    "skim": "same video, other frames shown first",
    "action": "same observation, other action",
    "words": "same observation, same action in other words",
    "observation": "same action, other observation",
    "reward": "same action and observation, other reward",
    "ending": "same turns, another ending",
    "verdict": "same episode, judged otherwise",
    "nowhere": "the same throughout",
}
_TOLERANCE = 1e-9  # sums of the same payments in another order


@dataclass(frozen=True, slots=True)
class Divergence:
    """Tasks whose episodes part in one way."""

    kind: Kind
    tasks: tuple[tuple[str, int], ...]  # task id and number of the turn; 0: before the first


def divergence(a: Trace, b: Trace) -> tuple[Kind, int]:
    """How two episodes of one task part, and in which turn.

    Returns:
        The kind, and the number of the turn from 1, or 0 for what is there before the first.
    """
    if _asked(a) != _asked(b):
        return "question", 0
    if a.video.fingerprint != b.video.fingerprint:
        return "video", 0
    if a.skim != b.skim:
        return "skim", 0
    for number, (x, y) in enumerate(zip(a.turns, b.turns, strict=False), start=1):
        if (kind := _turn_divergence(x, y)) is not None:
            return kind, number
    played = min(len(a.turns), len(b.turns))
    if (len(a.turns), a.ending, a.cut) != (len(b.turns), b.ending, b.cut):
        return "ending", played
    return ("nowhere", 0) if a.correct == b.correct else ("verdict", played)


def _asked(trace: Trace) -> tuple[object, ...]:
    """What a policy sees of a task."""
    return trace.task.question, trace.task.kind, trace.task.options


def _turn_divergence(a: TurnTrace, b: TurnTrace) -> Kind | None:
    x, y = a.turn, b.turn
    if [_asked_for(result.action) for result in x.results] != [_asked_for(r.action) for r in y.results]:
        return "action"
    if (x.text, x.well_formed) != (y.text, y.well_formed):
        return "words"
    if _came_of(x) != _came_of(y):
        return "observation"
    return None if _same_pay(a, b) else "reward"


def _asked_for(action: Action) -> list[tuple[str, str]]:
    """What the policy chose of an action; what a search found came of it."""
    chosen = (one.name for one in fields(action) if one.compare)  # type: ignore[arg-type]  # a dataclass
    # By their texts: an action may hold NaN, which is not equal to itself.
    return [("kind", action.kind), *((name, repr(getattr(action, name))) for name in chosen)]


def _came_of(turn: Turn) -> tuple[object, ...]:
    """What a turn brought: clips, errors, and the words of policies that were asked."""
    return turn.verifier_answer, [(r.clip, r.error, r.reply) for r in turn.results]


def _same_pay(a: TurnTrace, b: TurnTrace) -> bool:
    names = a.terms.keys() | b.terms.keys()
    return _equal(a.reward, b.reward) and all(_equal(a.terms.get(n), b.terms.get(n)) for n in names)


def _equal(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) or (math.isnan(a) and math.isnan(b))


def divergences(pairs: Iterable[tuple[Trace, Trace]]) -> tuple[Divergence, ...]:
    """All ways in which episodes part, in the order of an episode."""
    found: dict[Kind, list[tuple[str, int]]] = {}
    for a, b in pairs:
        kind, number = divergence(a, b)
        found.setdefault(kind, []).append((a.task.task_id, number))
    return tuple(Divergence(kind, tuple(found[kind])) for kind in get_args(Kind) if kind in found)
