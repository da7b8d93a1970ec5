"""What a reward is made of: named terms, and what one turn paid.

A term sees states only, never pixels. It returns None when it does not apply: no annotation, not
that kind of turn, or a turn whose frames could not be shown. A term that fails raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from videogym.state import State

TermFunction = Callable[[State, State], float | None]


class RewardError(ValueError):
    """A reward is no finite number, or could not read a video: nothing can be learned from it.

    The message names term and task.
    """


def finite(value: object, what: str) -> float:
    """A number as a float.

    Args:
        value: anything; a text is no number, whatever it says.
        what: whose value it is, for the message.

    Raises:
        RewardError: it is not a finite number.
    """
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RewardError(f"{what} must be a finite number, got {value!r:.80}")
    return number


@dataclass(frozen=True)
class Term:
    """One named reward.

    A ``turn`` term is asked after every turn, a ``trajectory`` term once, when the rules have ended
    the episode. ``gated`` payments are taken back at the end unless the answer was right; those of
    the last turn too, unless ``gated`` is ``"before_last"``.

    Raises:
        RewardError: the weight is not a finite number.
    """

    name: str
    level: Literal["turn", "trajectory"]
    function: TermFunction  # (before, after) -> value, or None when the term is absent
    weight: float = 1.0
    gated: Literal["no", "all", "before_last"] = "no"

    def __post_init__(self) -> None:
        finite(self.weight, f"the weight of reward term {self.name!r}")


@dataclass(frozen=True)
class Score:
    """What one turn paid."""

    reward: float
    terms: dict[str, float | None]  # weighted; None: absent


def term_names(terms: Sequence[Term]) -> tuple[str, ...]:
    """Names of all payments a recipe can make, the settlement of the gate last."""
    gate = ("gate",) if any(term.gated != "no" for term in terms) else ()
    return tuple(term.name for term in terms) + gate
