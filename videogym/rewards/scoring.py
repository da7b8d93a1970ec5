"""Pays one turn, and at the end of an episode settles the gate of the recipe."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from videogym.rewards.answers import AnswerTerm, is_correct
from videogym.rewards.terms import RewardError, Score, Term, finite
from videogym.state import State
from videogym.video.types import VideoError


class AbsentTerm(np.float64):
    """The NaN of a reward term that does not apply; unlike other NaNs it equals itself.

    So two runs of one episode have equal infos, which Gymnasium's checker compares with ``==``.
    """

    def __new__(cls) -> AbsentTerm:
        """There is one value."""
        return super().__new__(cls, np.nan)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AbsentTerm)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = np.float64.__hash__

    def __reduce__(self) -> tuple[type[AbsentTerm], tuple[()]]:
        return AbsentTerm, ()


def score(terms: Sequence[Term], before: State, after: State) -> Score:
    """Pay one turn.

    Args:
        terms: the recipe's terms.
        before: state before the turn.
        after: state after it; a terminated state also pays trajectory terms and settles the gate.

    Returns:
        Payments by name and their sum. ``gate`` is what is taken back, never positive unless a gated
        term was a penalty; it is absent before the end, and where the judge of the answer abstained.

    Raises:
        RewardError: a term that is present, or the sum, is not a finite number, or a term could not read a
            video; names term and task.
        Exception: what else a term raises, with a note that names term and task.
    """
    values = {term.name: _value(term, before, after) for term in terms}
    if any(term.gated != "no" for term in terms):
        values["gate"] = _settlement(terms, values.get("answer"), after) if after.terminated else None
    total = sum(v for v in values.values() if v is not None)
    return Score(finite(total, f"the sum of all reward terms of task {after.task.task_id!r}"), values)


def _value(term: Term, before: State, after: State) -> float | None:
    if term.level == "trajectory" and not after.terminated:
        return None
    if term.level == "turn" and after.turns[-1].fault:
        return None
    what = f"reward term {term.name!r} of task {after.task.task_id!r}"
    try:
        value = term.function(before, after)
    except RewardError as error:
        raise RewardError(f"{what}: {error}") from error
    except VideoError as error:  # of a term that reads videos: no bad video of the task, to be passed over
        raise RewardError(f"{what}: {type(error).__name__}: {error}") from error
    except Exception as error:  # a user's function may raise anything; it stops the run as it is
        error.add_note(f"in reward term {term.name!r} of task {after.task.task_id!r}")
        raise
    if value is None:
        return None
    return finite(term.weight * finite(value, what), f"{what}, weighted,")


def _settlement(terms: Sequence[Term], answer: float | None, final: State) -> float | None:
    """Minus the gated payments of the whole episode, or 0.0 when the answer was right.

    Right is what the recipe's own ``answer`` term pays for; a recipe in which none pays asks `is_correct`.
    Where the judge abstained nothing is settled: to take back would call the answer wrong, to settle
    with 0.0 would call it right. The gate is absent like the answer, and tells that what was paid is
    not earned yet: such an episode is nothing to learn from.
    """
    if _abstained(terms, answer, final):
        return None
    judged = any(pays_for_answers(term) for term in terms)
    if (answer is not None and answer > 0) if judged else is_correct(final):
        return 0.0
    owed = 0.0
    states = history(final)
    for before, after in itertools.pairwise(states):
        for term in terms:
            last = after is states[-1]
            if term.gated == "all" or (term.gated == "before_last" and not last):
                owed += _value(term, before, after) or 0.0
    return 0.0 - owed  # never -0.0


def _abstained(terms: Sequence[Term], answer: float | None, final: State) -> bool:
    judged = any(term.name == "answer" for term in terms)
    return judged and answer is None and final.answer is not None


def pays_for_answers(term: Term) -> bool:
    """Whether this is the term that tells right answers from wrong ones by what it pays."""
    return term.name == "answer" and term.weight > 0


def answered_right(terms: Sequence[Term], answer: float | None, final: State) -> bool | None:
    """Whether an episode ended with the right answer, as far as anyone has judged.

    The judge of the reward is the judge of this: an episode is right where the ``answer`` term paid in
    full, less the decay of a late answer. So no accuracy says otherwise than the reward.

    Args:
        terms: the recipe's terms.
        answer: what the ``answer`` term paid at the last turn, None where it was absent.
        final: the last state.

    Returns:
        False for a partly right answer, which keeps what is gated, and where the decay has left nothing
        to pay. None where the judge abstained. A recipe without an ``answer`` term, or where its weight
        is not positive, asks `is_correct`.
    """
    if _abstained(terms, answer, final):
        return None
    paying = next((term for term in terms if pays_for_answers(term)), None)
    if paying is None:
        return is_correct(final)
    return answer is not None and answer >= _full_payment(paying, final) > 0


def _full_payment(term: Term, final: State) -> float:
    """What the term pays for a right answer in this turn."""
    worth = term.function.worth(final) if isinstance(term.function, AnswerTerm) else 1.0
    return term.weight * worth


def history(state: State) -> list[State]:
    """All states of the episode so far, the first observation's first and ``state`` itself last."""
    earlier = [replace(state, turns=state.turns[:k], ending="") for k in range(len(state.turns))]
    return [*earlier, state]
