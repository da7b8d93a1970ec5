"""Terms of ParaVT: how near the answer is, the format of all outputs, and a bonus for calls.

The reward is read from what the policy wrote in all turns. All functions are pure and raise on no text.

Source: the reward of ParaVT's published code and of its README.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from videogym.actions import Crop
from videogym.grammars.blocks import THINK, bodies
from videogym.grammars.paravt import ANSWER, ParaVT, extracted_answer
from videogym.grammars.paravt_calls import TOOL_CODE, blocks
from videogym.grammars.tool_calls import TOOL_CALL, TOOL_RESPONSE
from videogym.rewards.answers import Judge, earned, judge_lenient, verdict_of
from videogym.rules import LATER
from videogym.state import State

QuestionType = Literal["mcq", "tvg", "oe"]
Mode = Literal["f1", "exact"]
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_LETTERS = (
    re.compile(r"^\s*\(?([A-D])\)?\s*$"),
    re.compile(r"^\s*\(?([A-D])[.):]"),
    re.compile(r"(?:[Aa]nswer|[Oo]ption|[Cc]hoice)\s*(?:is|:)?\s*:?\s*\(?([A-D])\b"),
    re.compile(r"\(([A-D])\)"),
    re.compile(r"\b([A-D])\b"),
)
_PAIR = re.compile(r"(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_DASH = r"\s*[-–—]\s*"
_CLOCK_RANGE = re.compile(rf"([0-5]?\d):([0-5]\d(?:\.\d+)?){_DASH}([0-5]?\d):([0-5]\d(?:\.\d+)?)")
_RANGE = re.compile(rf"(\d+(?:\.\d+)?){_DASH}(\d+(?:\.\d+)?)")
_LONE = re.compile(r"\b([A-J])\b")
_MIN_THOUGHT = 10  # characters


# --- answers -----------------------------------------------------------------------------------


def normalised(text: str) -> str:
    """Small letters without punctuation, articles and spare white space, as SQuAD has it."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def accuracy(prediction: str, truth: str, kind: QuestionType, mode: Mode = "f1") -> float:
    """How near an answer is to the truth, 0 to 1.

    Equal after `normalised` is 1.0 for any type of question. Else ``"mcq"``: the letter found is the truth;
    ``"tvg"``: IoU of the first pair "x, y" of both; ``"oe"``: F1 over sets of words with the lengths of
    lists in its denominators, or 0.0 with ``"exact"``.
    """
    if not prediction or not truth:
        return 0.0
    if normalised(prediction) == normalised(truth):
        return 1.0
    if kind == "mcq":
        return float(_letter(prediction) == truth.strip().upper())
    if kind == "tvg":
        return _pair_iou(prediction, truth)
    return _f1(normalised(prediction).split(), normalised(truth).split()) if mode == "f1" else 0.0


def _letter(text: str) -> str | None:
    found = (pattern.search(text) for pattern in _LETTERS)
    return next((match[1] for match in found if match), None)


def _pair_iou(prediction: str, truth: str) -> float:
    pairs = [_PAIR.search(text) for text in (prediction, truth)]
    if pairs[0] is None or pairs[1] is None:
        return 0.0
    (start, end), (first, last) = ((float(pair[1]), float(pair[2])) for pair in pairs if pair)
    return range_iou((start, end), (first, last))


def range_iou(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Intersection over union of two ranges; 0.0 where one of them is empty or inverted."""
    if one[1] <= one[0] or other[1] <= other[0]:
        return 0.0
    common = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return common / (one[1] - one[0] + other[1] - other[0] - common)


def _f1(given: list[str], true: list[str]) -> float:
    common = len(set(given) & set(true))
    if not common:
        return 0.0
    precision, recall = common / len(given), common / len(true)
    return 2 * precision * recall / (precision + recall)


def evaluated_letter(text: str) -> str:
    """The option that the published evaluation reads: the first lone A to J, else the first character."""
    match = _LONE.search(text)
    return match[1] if match else text.strip()[:1]


def evaluated_range(text: str) -> tuple[float, float] | None:
    """The range, in seconds, that the published evaluation reads; None where there are not two numbers.

    A range of minutes and seconds, a range of numbers, the first two numbers: the first of these that does
    not end before it starts, the last whatever it is.
    """
    clock = _CLOCK_RANGE.search(text)
    if clock is not None:
        start, end = (float(clock[i]) * 60 + float(clock[i + 1]) for i in (1, 3))
        if start < end:
            return start, end
    plain = _RANGE.search(text)
    if plain is not None and float(plain[1]) < float(plain[2]):
        return float(plain[1]), float(plain[2])
    numbers = _NUMBER.findall(text)
    return (float(numbers[0]), float(numbers[1])) if len(numbers) > 1 else None


# --- format and calls --------------------------------------------------------------------------


def first_call(text: str) -> int | None:
    """Where the first call stands that the reward takes for one; None without one.

    Any JSON object with a ``name`` is, and ``<tool_code>`` with a bracket in a line that is no comment.
    """
    return min([*_places(text, TOOL_CALL, _is_call), *_places(text, TOOL_CODE, _is_code)], default=None)


def _is_code(body: str) -> bool:
    return any("(" in line and not line.strip().startswith("#") for line in body.split("\n"))


def _places(text: str, tag: str, counts: Callable[[str], bool]) -> list[int]:
    at, found = 0, []
    for body in blocks(text, tag, unclosed=True):
        at = text.find(f"<{tag}>", at)
        if counts(body):
            found.append(at)
        at += len(tag) + 2 + len(body)
    return found


def _is_call(body: str) -> bool:
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(call, dict) and "name" in call


def format_score(text: str, answer_suffix: bool = True, anchor_weight: float = 0.5) -> float:
    """The format term, 0 to 1, of all that a policy wrote.

    Args:
        text: outputs of all turns in one.
        answer_suffix: which of the two published sets of parts counts.
        anchor_weight: of the part that pays for a closed thought and takes for one that is never closed.
    """
    thought_at = text.find(f"<{THINK}>")
    thought, closing, _ = text[thought_at + len(THINK) + 2 :].partition(f"</{THINK}>")
    thoughtful = thought_at >= 0 and len(thought.strip()) >= _MIN_THOUGHT
    answered = any(body.strip() for body in bodies(text, ANSWER))
    parts = (0.2, 0.3, 0.2) if answer_suffix else (0.3, 0.2, 0.1)
    base = parts[0] * thoughtful + (parts[1] + parts[2]) * answered
    call_at = first_call(text)
    base += 0.3 * (thoughtful and call_at is not None and thought_at < call_at)
    base += 0.1 * (base > 0 and _balanced(text))
    closed = thoughtful and bool(closing)
    anchor = 0.4 * closed + 0.3 * (closed and answered) - 0.3 * (thought_at >= 0 and not closing)
    return max(0.0, min(1.0, base + anchor_weight * anchor))


def _balanced(text: str) -> bool:
    return all(
        text.count(f"<{tag}>") == text.count(f"</{tag}>") for tag in (THINK, ANSWER, TOOL_CALL, TOOL_CODE)
    )


def tool_score(text: str, right: float) -> float:
    """0.1 for a call, 0.3 where a tool response is in the text too, 0.5 more for an answer above 0."""
    if first_call(text) is None:
        return 0.0
    return (0.3 if f"<{TOOL_RESPONSE}>" in text else 0.1) + 0.5 * (right > 0)


def is_degenerate(text: str) -> bool:
    """Whether a text is little but chat tokens: nothing of it is paid."""
    return text.count("<|im_start|>") >= 5 and len(text) < 300


def question_type(state: State) -> QuestionType:
    """The published type of a task: choices are ``"mcq"``, all else is open."""
    return "mcq" if state.task.kind == "choice" else "oe"


def written(state: State) -> str:
    """What the policy put out in all turns, each ended as a model ends it."""
    messages = ParaVT("code").messages(state)
    return "".join(f"{message.text}<|im_end|>" for message in messages if message.role == "assistant")


@dataclass(frozen=True)
class ParaVTScore:
    """One part of ParaVT's reward as its code reads it, before its weight.

    A ``judge`` takes the place of F1 of words, as a language model does in the published code. Choices are
    read as the code reads them, whoever judges.
    """

    part: Literal["answer", "format", "tool"]
    answer_suffix: bool = True
    anchor_weight: float = 0.5
    judge: Judge | None = field(default=None, metadata=LATER)  # of what is no choice; None: F1 of words

    @property
    def asks(self) -> bool:
        """Whether this part asks whether the answer is right."""
        return self.part != "format"

    def __call__(self, before: State, after: State) -> float | None:
        """A value in [0, 1], or None where the judge abstains."""
        text = written(after)
        if is_degenerate(text):
            return 0.0
        if self.part == "format":
            return format_score(text, self.answer_suffix, self.anchor_weight)
        if self.part == "tool" and first_call(text) is None:
            return 0.0  # whatever the answer is
        right = self._right(after, extracted_answer(text))
        return right if self.part == "answer" or right is None else tool_score(text, right)

    def _right(self, state: State, answer: str) -> float | None:
        if self.judge is None or state.task.kind == "choice":
            return accuracy(answer, state.task.answer, question_type(state))
        return verdict_of(self.judge, state.task, answer) if answer else 0.0


@dataclass(frozen=True)
class ExecutedCalls:
    """0.3 for an executed look, 0.1 for one that was only asked for; 0.5 more for an answer worth anything.

    Absent where the judge abstains.

    Source: ParaVT, R_tool, as it is meant; its code pays "executed" for a tool response that the policy
    wrote itself.
    """

    judge: Judge = judge_lenient

    def __call__(self, before: State, after: State) -> float | None:
        """A value in [0, 0.8], or None."""
        looks = [r.action for turn in after.turns for r in turn.results if isinstance(r.action, Crop)]
        if not looks:
            return 0.0
        right = earned(self.judge, after)
        paid = 0.3 if any(turn.looked for turn in after.turns) else 0.1
        return None if right is None else paid + 0.5 * right


def executed_calls(before: State, after: State) -> float | None:
    """`ExecutedCalls` by `judge_lenient`."""
    return ExecutedCalls()(before, after)
