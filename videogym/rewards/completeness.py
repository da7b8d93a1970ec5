"""Whether what was retrieved tells the answer: the question put again, to whom saw nothing else.

Source: EVA (arXiv 2603.22918), where a choice pays only if a judge of the same base, shown the last
retrieved frames, is right too; TimeSearch-R (arXiv 2511.05489, its code), the accuracy times that of the
same policy from the retrieved frames alone, each counted 1 above 0.5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from videogym.rewards.answers import Judge, judge_lenient, verdict_of
from videogym.state import State

_ENOUGH = 0.5
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class Completeness:
    """1.0 if the answer and the verifier's (`Recipe.verifier`) are both right, else 0.0.

    Absent, not 0.0, where nobody answered again or the judge abstains; a second answer in ``<answer>``
    tags is what stands between them.

    Args:
        judge: of both answers; right is above 0.5.
    """

    judge: Judge = judge_lenient

    def __call__(self, before: State, after: State) -> float | None:
        """The verdict on both."""
        verified, answer = after.turns[-1].verifier_answer, after.answer
        if verified is None or answer is None:
            return None
        tagged = _TAGGED.search(verified)
        answers = (answer, tagged[1] if tagged else verified)
        verdicts = [verdict_of(self.judge, after.task, text.strip()) for text in answers]
        if any(verdict is None for verdict in verdicts):
            return None
        return float(all(verdict is not None and verdict > _ENOUGH for verdict in verdicts))
