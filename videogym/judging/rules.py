"""Judges that follow a rule: the number in an answer, the words of an answer, one judge for each kind.

Nothing here abstains, calls anyone or remembers anything. All are frozen dataclasses, so that their
settings are part of a recipe's identity.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from videogym.answers import folded, number_of, option_named, with_plain_signs
from videogym.rewards import Judge, judge_lenient
from videogym.state import Task

# A comma separates thousands where three digits follow it; "mp3", "1.2.3", "1,23" and "2x4" hold no number.
# Possessive, so that no answer takes more than linear time. The second group makes it another number.
_RAISED = "²³¹⁰ⁱ⁴-⁻₀-₋"  # superscripts and subscripts
_NUMBER = re.compile(
    r"(?<![\w.,])([-+]?(?:(?:\d{1,3}(?:,\d{3})++|\d++(?:_\d++)*+)(?:\.\d++)?+|\.\d++)(?:[eE][-+]?\d++)?+)"
    r"(?![.,]?\d|\w*\d)"
    rf"([{_RAISED}])?"
)
_FRACTION = re.compile("[¼-¾⅐-⅟↉]")  # "5½" is not 5
_IN_NUMBER = re.compile(r"(?<![^\W\d])-(?=\.?\d)|(?<=\d)[.:/](?=\d)")  # without these it is another number
_ARTICLES = {"a", "an", "the"}


@dataclass(frozen=True)
class NumericJudge:
    """1.0 if the one number in the answer is the true one, else 0.0.

    "about 1,200 people" is 1200, and any dash before a number is a minus. Words like "twelve", powers
    like "10²" and fractions like "5½" are no numbers; units and percent signs are not converted. An
    answer with several numbers is wrong: naming many must not pay.

    Args:
        absolute: largest difference that is no mistake; the default is half of the second decimal.
        relative: the same as a share of the truth; the larger allowance counts.

    Raises:
        ValueError: an allowance is negative or not finite; when called, the truth is not a number.
    """

    absolute: float = 0.005
    relative: float = 0.0

    def __post_init__(self) -> None:
        for name in ("absolute", "relative"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, got {getattr(self, name)}")

    def __call__(self, task: Task, answer: str) -> float:
        """The verdict."""
        truth, given = _only_number(task.answer), _only_number(answer)
        if truth is None:
            raise ValueError(
                f"task {task.task_id!r}: NumericJudge needs one number as true answer, got {task.answer!r}"
            )
        if given is None:
            return 0.0
        return float(math.isclose(given, truth, rel_tol=0.0, abs_tol=self._allowance(truth)))

    def _allowance(self, truth: float) -> float:
        return max(self.absolute, self.relative * abs(truth))


def _only_number(text: str) -> float | None:
    number = number_of(text)
    if number is None:
        text = with_plain_signs(text)
        found = _NUMBER.findall(text)
        if len(found) != 1 or found[0][1] or _FRACTION.search(text):
            return None
        number = number_of(found[0][0])
    return float(number) if number is not None and math.isfinite(number) else None


@dataclass(frozen=True)
class TokenF1Judge:
    """1.0, 0.5 or 0.0 by how many words an open answer shares with the true one, see `token_f1`.

    Words know no meaning: "not red" shares most of its words with "red". The bounds are videogym's own
    and no one's standard; a recipe holds them in its identity.

    Args:
        full: least F1 of a right answer.
        half: least F1 of a partly right one. Above 0, for a gate opens to any verdict above 0.

    Raises:
        ValueError: not ``0 < half <= full <= 1``.
    """

    full: float = 0.8
    half: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.half <= self.full <= 1.0:
            raise ValueError(f"bounds must be 0 < half <= full <= 1, got {self.half} and {self.full}")

    def __call__(self, task: Task, answer: str) -> float:
        """The verdict; of a choice, what names no option is compared with the right one's text."""
        truth = task.answer
        if task.kind == "choice":
            if (named := option_named(task, answer)) is not None:
                return float(named == task.answer)
            truth = task.options[task.letters.index(task.answer)]
        value = token_f1(answer, truth)
        if value >= self.full:
            return 1.0
        return 0.5 if value >= self.half else 0.0


def token_f1(answer: str, truth: str) -> float:
    """Harmonic mean of precision and recall over words, in [0, 1].

    Case, punctuation and the articles a, an, the are dropped first, unless nothing else is left. Two
    texts without any word score 1.0 if they are equal, else 0.0. A language that puts no spaces between
    words is one long word here.

    Source: SQuAD 1.1's evaluation. Differs: punctuation and forms of letters are Unicode's; what stands
    in a number stays, so that "-5" is not "5", nor "3.5" "35"; and a text of nothing but articles keeps
    them, so that the answer "A" is not empty.

    >>> token_f1("The red flag!", "a red kite")
    0.5
    """
    given, true = _words(answer), _words(truth)
    if not given or not true:
        return float(answer.strip() == truth.strip() != "")
    common = sum((Counter(given) & Counter(true)).values())
    return 2 * common / (len(given) + len(true))


def _words(text: str) -> list[str]:
    text = with_plain_signs(folded(text))
    marks = {match.start() for match in _IN_NUMBER.finditer(text)}
    kept = "".join(
        c for i, c in enumerate(text) if i in marks or not unicodedata.category(c).startswith("P")
    ).split()
    return [word for word in kept if word not in _ARTICLES] or kept


@dataclass(frozen=True)
class JudgeByKind:
    """Asks the judge of the task's kind: a language model need not be asked whether "B" is "B"."""

    choice: Judge = judge_lenient
    numeric: Judge = judge_lenient
    open: Judge = judge_lenient

    def __call__(self, task: Task, answer: str) -> float | None:
        """That judge's verdict."""
        judges = {"choice": self.choice, "numeric": self.numeric, "open": self.open}
        return judges[task.kind](task, answer)
