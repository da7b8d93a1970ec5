"""Judges of an answer, and the term that pays for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from videogym.answers import number_of, option_named, same_answer, same_text, with_plain_signs
from videogym.rewards.terms import RewardError, finite
from videogym.state import State, Task

Judge = Callable[[Task, str], float | None]  # verdict in [0, 1]; None: the judge abstains


def judge_letter(task: Task, answer: str) -> float:
    """1.0 for the right letter, number or text, else 0.0, compared as Video-MTR does.

    Letters are case-sensitive. Numbers are what Python reads as such, and equal after rounding to two
    decimals, if both or neither are written with a decimal mark. Open texts must be the same but for case,
    white space and the shape of letters (`videogym.answers.same_text`); an empty one is never right.
    """
    given = answer.strip()
    if task.kind == "choice":
        return float(given == task.answer)
    if task.kind == "numeric":
        return float(_same_number(given, task.answer))
    return float(same_text(given, task.answer))


def judge_lenient(task: Task, answer: str) -> float:
    """1.0 for the right answer however it is written, else 0.0.

    A choice is right if it names the right option by letter, text or both, in any case, and an existing
    letter is only that letter (`videogym.answers.option_named`). Numbers are compared by their value: 0 is
    0.0, 1,000 is 1000, any dash before a number is a minus; two with decimals are equal after rounding to
    two. Of an open answer case, articles, a full stop at the end and the like do not count
    (`videogym.answers.said`); words beside the true ones do.
    """
    if task.kind == "choice":
        return float(option_named(task, answer) == task.answer)
    if task.kind == "numeric":
        given, truth = number_of(answer), number_of(task.answer)
        if given is not None and given == truth:
            return 1.0
        texts = [
            with_plain_signs(text) if number is None else str(number)
            for text, number in ((answer, given), (task.answer, truth))
        ]
        return float(_same_number(*texts))
    return float(same_answer(answer, task.answer))


def is_correct(state: State) -> bool:
    """Whether the episode ended with the right answer, as `judge_lenient` finds."""
    return state.answer is not None and judge_lenient(state.task, state.answer) > 0


def earned(judge: Judge, state: State) -> bool | None:
    """Whether the judge gives the accepted answer anything; False without one, None where it abstains.

    Raises:
        RewardError: the verdict is neither None nor a number in [0, 1].
    """
    if state.answer is None:
        return False
    verdict = verdict_of(judge, state.task, state.answer)
    return None if verdict is None else verdict > 0


def _same_number(given: str, truth: str) -> bool:
    def marked(text: str) -> bool:
        return "." in text or "," in text

    try:
        equal = round(float(given), 2) == round(float(truth), 2)
    except ValueError:
        return False
    return equal and marked(given) == marked(truth)


def verdict_of(judge: Judge, task: Task, answer: str) -> float | None:
    """What the judge says.

    Raises:
        RewardError: it is neither None nor a number in [0, 1].
    """
    verdict = judge(task, answer)
    if verdict is None:
        return None
    value = finite(verdict, "the verdict of the judge")
    if not 0.0 <= value <= 1.0:
        raise RewardError(f"the verdict of the judge must be 0 to 1, got {value}")
    return value


@dataclass(frozen=True)
class AnswerTerm:
    """The judge's verdict on the accepted answer, 0.0 without one; absent where the judge abstains.

    ``decay`` is lost for every turn before the one that answers a choice (0.1 in Video-MTR's code,
    which leaves numeric and open answers undecayed; its scorer gives open answers 0, ``open_scored``).
    """

    judge: Judge = judge_lenient
    decay: float = 0.0
    open_scored: bool = True

    def __call__(self, before: State, after: State) -> float | None:
        """The verdict in [0, 1], less the decay; negative after more than 1 / decay turns."""
        task, answer = after.task, after.answer
        if answer is None or (task.kind == "open" and not self.open_scored):
            return 0.0
        verdict = verdict_of(self.judge, task, answer)
        return None if verdict is None else verdict * self.worth(after)

    def worth(self, after: State) -> float:
        """What a right answer pays in the turn that led here."""
        late = self.decay * (len(after.turns) - 1) if after.task.kind == "choice" else 0.0
        return 1.0 - late
