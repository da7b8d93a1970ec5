"""Reward terms: pure functions of the state before and after a turn, returned by name.

A term sees states only, never pixels. It returns None when it does not apply: no annotation, not
that kind of turn, or a turn whose frames could not be shown. A term that fails raises. `score` adds
what a turn pays and, at the end of an episode, settles the gate of the recipe.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from videogym.answers import option_named, same_text, with_plain_signs
from videogym.geometry import WHOLE_FRAME, Region, Segment, region_iou, segment_iou
from videogym.grammars import longvt_transcript
from videogym.state import Clip, State, Task, Turn

TermFunction = Callable[[State, State], float | None]
Judge = Callable[[Task, str], float | None]  # verdict in [0, 1]; None: the judge abstains


class RewardError(ValueError):
    """A reward is no finite number. The message names term and task; nothing can be learned from it."""


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
        RewardError: a term that is present, or the sum, is not a finite number; names term and task.
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
    except Exception as error:
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


# --- answers -----------------------------------------------------------------------------------


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
    letter is only that letter (`videogym.answers.option_named`). Any dash before a number is a minus.
    """
    if task.kind == "choice":
        return float(option_named(task, answer) == task.answer)
    if task.kind == "numeric":
        return float(_same_number(with_plain_signs(answer), with_plain_signs(task.answer)))
    return judge_letter(task, answer)


def is_correct(state: State) -> bool:
    """Whether the episode ended with the right answer, as `judge_lenient` finds."""
    return state.answer is not None and judge_lenient(state.task, state.answer) > 0


def _same_number(given: str, truth: str) -> bool:
    def marked(text: str) -> bool:
        return "." in text or "," in text

    try:
        equal = round(float(given), 2) == round(float(truth), 2)
    except ValueError:
        return False
    return equal and marked(given) == marked(truth)


def _verdict(judge: Judge, task: Task, answer: str) -> float | None:
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
        verdict = _verdict(self.judge, task, answer)
        return None if verdict is None else verdict * self.worth(after)

    def worth(self, after: State) -> float:
        """What a right answer pays in the turn that led here."""
        late = self.decay * (len(after.turns) - 1) if after.task.kind == "choice" else 0.0
        return 1.0 - late


# --- format ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WellFormedTurn:
    """1.0 for a turn whose output obeys the grammar; with ``valid_only`` it must also be executed.

    Source: Video-MTR, per-turn format reward; its code pays nothing for an action it refuses.
    """

    valid_only: bool = False

    def __call__(self, before: State, after: State) -> float:
        """1.0 or 0.0."""
        turn = after.turns[-1]
        return float(turn.well_formed and (turn.valid or not self.valid_only))


def well_formed_episode(before: State, after: State) -> float:
    """1.0 if every turn obeyed the grammar and the episode ended with an answer, else 0.0."""
    return float(after.answer is not None and all(turn.well_formed for turn in after.turns))


# --- frame relevance (Video-MTR) ---------------------------------------------------------------


def relevant_pool(state: State) -> frozenset[float] | None:
    """Pool frames whose timestamp lies in an evidence segment; None without annotation."""
    evidence = state.task.evidence
    if evidence is None:
        return None
    return frozenset(t for t in state.pool_s if any(segment.contains(t) for segment in evidence))


def frame_iou(clip: Clip, relevant: frozenset[float]) -> float:
    """Intersection over union of two sets of frames; 1.0 when both are empty."""
    shown = frozenset(clip.times_s)
    union = shown | relevant
    return len(shown & relevant) / len(union) if union else 1.0


def _look_ious(state: State, relevant: frozenset[float]) -> list[float]:
    """IoU of the skim and of every executed look, in order."""
    return [frame_iou(clip, relevant) for clip in state.clips]


@dataclass(frozen=True)
class FrameGain:
    """Video-MTR's frame-relevance term: did this look show more of the relevant frames?

    Pays ``bonus`` when the IoU of this turn's frames with the relevant ones rises by more than
    ``margin`` above the baseline, else ``-drop_penalty`` times the drop below it. Absent for turns
    without a look and for tasks without annotation.

    Source: Video-MTR. The paper measures against the best look so far and punishes a drop in
    proportion, without a coefficient or a rule for ties; the code measures against the previous look
    with a margin of 0.001 and punishes nothing.
    """

    bonus: float = 0.5
    baseline: Literal["best", "previous"] = "best"
    margin: float = 0.0
    drop_penalty: float = 0.5

    def __call__(self, before: State, after: State) -> float | None:
        """The payment, or None when the term is absent."""
        relevant, clips = relevant_pool(after), after.turns[-1].clips
        if relevant is None or not clips:
            return None
        earlier = _look_ious(before, relevant)
        reference = max(earlier) if self.baseline == "best" else earlier[-1]
        gain = frame_iou(clips[-1], relevant) - reference
        if gain > self.margin:
            return self.bonus
        return self.drop_penalty * min(0.0, gain)


# --- temporal overlap (LongVT, DEFAULT) --------------------------------------------------------


def looked_segments(state: State) -> tuple[Segment, ...]:
    """Segments of the executed looks, as asked, cut at the end of the video."""
    return tuple(segment for turn in state.turns for segment in turn_segments(state, turn))


def turn_segments(state: State, turn: Turn) -> tuple[Segment, ...]:
    """`looked_segments` of one turn."""
    shown = (r.action.segment(state.video.duration_s) for r in turn.results if r.clip is not None)
    return tuple(segment for segment in shown if segment is not None)


def looked_regions(state: State) -> tuple[Region, ...]:
    """Regions of the executed looks, in the order of `looked_segments`."""
    clips = (clip for turn in state.turns for clip in turn.clips)
    return tuple(clip.region or WHOLE_FRAME for clip in clips)


def best_coverage(
    state: State, looks: Sequence[Segment], regions: Sequence[Region] | None = None
) -> float | None:
    """Mean over the evidence segments of the best overlap that any single look has with each.

    The overlap is the IoU in time; of a task with an ``evidence_region`` it is multiplied by the IoU of
    the look's region with that one.

    Args:
        state: of the episode.
        looks: segments that were looked at.
        regions: of the looks, one each; None: they showed the whole frame.

    Returns:
        A value in [0, 1], which never falls when a look is added and stays when one is repeated; None
        without evidence.

    Source: for boxes that stand still the product is vIoU, as of VidSTG (arXiv 2001.06891).
    """
    evidence, place = state.task.evidence, state.task.evidence_region
    if not evidence:
        return None
    regions = [WHOLE_FRAME] * len(looks) if regions is None else regions
    shares = [1.0 if place is None else region_iou(region, place) for region in regions]
    weighed = list(zip(looks, shares, strict=True))
    best = [max((w * segment_iou(look, s) for look, w in weighed), default=0.0) for s in evidence]
    return sum(best) / len(best)


def coverage_gain(before: State, after: State) -> float | None:
    """By how much this turn's looks raised `best_coverage`; absent without evidence.

    The skim counts as a look at the whole video: to look at all of it again is worth nothing.
    """
    now, then = _coverage(after), _coverage(before)
    return None if now is None or then is None else now - then


def _coverage(state: State) -> float | None:
    """`best_coverage` of the skim and all looks."""
    looks = (Segment(0.0, state.video.duration_s), *looked_segments(state))
    return best_coverage(state, looks, (WHOLE_FRAME, *looked_regions(state)))


@dataclass(frozen=True)
class CropOverlap:
    """LongVT's time reward on the last executed crop.

    ``iou`` divides the seconds in common by the hull of both segments, which is the union when they
    overlap; ``recall`` by the length of the evidence. With several evidence segments the best
    counts (the source knows one). Absent without evidence; 0.0 without a crop.

    Source: LongVT, R_time. Which of several crops counts is open in the paper; its code takes the
    last one written, executed or not (see `TranscriptScore`).
    """

    measure: Literal["iou", "recall"] = "iou"

    def __call__(self, before: State, after: State) -> float | None:
        """The overlap in [0, 1]."""
        evidence, looks = after.task.evidence, looked_segments(after)
        if not evidence:
            return None
        if not looks:
            return 0.0
        return max(self._overlap(looks[-1], segment) for segment in evidence)

    def _overlap(self, look: Segment, segment: Segment) -> float:
        if self.measure == "iou":
            return segment_iou(look, segment)
        inter = min(look.end_s, segment.end_s) - max(look.start_s, segment.start_s)
        return max(0.0, inter) / segment.length_s


@dataclass(frozen=True)
class TranscriptScore:
    """One part of LongVT's reward, read from the episode's whole text as its code reads it.

    Source: ``custom_rewards/vl_agent.py`` of LongVT. ``part`` is ``"answer"``, ``"format"`` or
    ``"time"``; ``variant`` is the flag its training script sets.
    """

    part: Literal["answer", "format", "time"]
    variant: Literal["iou", "recall"] = "iou"
    judge: Judge = judge_lenient

    def __call__(self, before: State, after: State) -> float | None:
        """The part in [0, 1]; ``time`` is None without annotation, ``answer`` where the judge abstains."""
        text = longvt_transcript.transcript(after)
        if self.part == "format":
            return float(longvt_transcript.format_ok(text))
        if self.part == "answer":
            answer = longvt_transcript.final_answer(text) or ""
            short = len(answer) < longvt_transcript.MAX_ANSWER_CHARS
            return _verdict(self.judge, after.task, answer) if answer and short else 0.0
        evidence = after.task.evidence
        if not evidence:
            return None
        crop = longvt_transcript.last_crop(text)
        if crop is None or not longvt_transcript.has_tool_response(text):
            return 0.0
        window = (evidence[0].start_s, evidence[0].end_s)
        iou, recall = longvt_transcript.overlap(crop, window)
        return iou if self.variant == "iou" else recall
