"""What is known of EVA's reward beside the answer: a little for having looked in vain."""

from __future__ import annotations

from videogym.rewards.answers import is_correct
from videogym.state import State


def tried_in_vain(before: State, after: State) -> float:
    """1.0 if a look was executed and the answer is not right, else 0.0.

    Source: the format reward of EVA as third parties tell it, 0.05 for a tool used with a wrong answer.
    """
    return float(any(turn.looked for turn in after.turns) and not is_correct(after))
