"""What is known of EVA's reward beside the answer: a little for having looked in vain."""

from __future__ import annotations

from dataclasses import dataclass

from videogym.rewards.answers import Judge, earned, judge_lenient
from videogym.state import State


@dataclass(frozen=True)
class TriedInVain:
    """1.0 if a look was executed and the answer is worth nothing, else 0.0.

    Absent where the judge abstains.

    Source: the format reward of EVA as third parties tell it, 0.05 for a tool used with a wrong answer.
    """

    judge: Judge = judge_lenient

    def __call__(self, before: State, after: State) -> float | None:
        """1.0 or 0.0, or None."""
        if not any(turn.looked for turn in after.turns):
            return 0.0
        right = earned(self.judge, after)
        return None if right is None else float(not right)


def tried_in_vain(before: State, after: State) -> float | None:
    """`TriedInVain` by `judge_lenient`."""
    return TriedInVain()(before, after)
