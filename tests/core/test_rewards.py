"""Judges, overlaps and gates, each against values worked by hand."""

# ruff: noqa: D103

import math
from dataclasses import replace

import numpy as np
import pytest
from hand_episodes import Hand, choice
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from videogym import VideoQAEnv, evaluate
from videogym.actions import Answer, Crop
from videogym.geometry import Segment, segment_iou
from videogym.recipes import DEFAULT, LONGVT, LONGVT_CODE
from videogym.rewards import (
    AnswerTerm,
    CropOverlap,
    RewardError,
    Term,
    TranscriptScore,
    answered_right,
    best_coverage,
    frame_iou,
    is_correct,
    judge_lenient,
    judge_letter,
    looked_segments,
)
from videogym.state import Clip
from videogym.video import VideoNotFound

CHOICE = choice(options=("a red flag", "Blue.", "x", "y"), answer="A")
NUMBER = choice(kind="numeric", options=(), answer="3.14")
WHOLE = choice(kind="numeric", options=(), answer="3")
OPEN = choice(kind="open", options=(), answer="A Red  Flag")

JUDGED = [
    # task, answer, as Video-MTR compares, however written
    (CHOICE, "A", 1, 1),
    (CHOICE, " A ", 1, 1),
    (CHOICE, "a", 0, 1),
    (CHOICE, "A.", 0, 1),
    (CHOICE, "A. a red flag", 0, 1),
    (CHOICE, "A RED FLAG.", 0, 1),
    (CHOICE, "B", 0, 0),
    (CHOICE, "A, B", 0, 0),
    (CHOICE, "", 0, 0),
    (NUMBER, "3.14", 1, 1),
    (NUMBER, "3.144", 1, 1),
    (NUMBER, "3.15", 0, 0),
    (NUMBER, "three", 0, 0),
    (NUMBER, "nan", 0, 0),
    (WHOLE, "3", 1, 1),
    (WHOLE, "3.0", 0, 1),  # numbers by their value
    (WHOLE, "3.004", 0, 0),
    (WHOLE, "3.", 0, 1),
    (replace(NUMBER, answer="0"), "0.0", 0, 1),
    (replace(NUMBER, answer="0.0"), "-0", 0, 1),
    (replace(NUMBER, answer="1000"), "1,000", 0, 1),
    (replace(NUMBER, answer="1000"), "1,00", 0, 0),
    (replace(NUMBER, answer="-1234.5"), "−1,234.50", 0, 1),
    (replace(NUMBER, answer="1"), "1e9999", 0, 0),
    (OPEN, "a red\nflag ", 1, 1),
    (OPEN, "a red flag!", 0, 0),
    (OPEN, "ａ red flag", 1, 1),
    (OPEN, "", 0, 0),
    (OPEN, "The red flag.", 0, 1),
    (OPEN, "red flag", 0, 1),
    (OPEN, "red flags", 0, 0),
    (OPEN, "a", 0, 0),
    (replace(OPEN, answer="vitamin A"), "Vitamin a.", 0, 1),
    (replace(OPEN, answer="vitamin A"), "vitamin", 0, 0),
    (replace(OPEN, answer="vitamin A deficiency"), "vitamin deficiency", 0, 0),
    (replace(OPEN, answer="the"), "the", 1, 1),
    (replace(OPEN, answer="the"), "a", 0, 0),
    (replace(OPEN, answer="3–5 men"), "3-5 men.", 0, 1),
    (replace(OPEN, answer="0"), "0.0", 0, 1),
    (replace(OPEN, answer="1,000"), "1000.", 0, 1),
    (replace(OPEN, answer="–5"), "−5", 0, 1),
    (replace(OPEN, answer="5"), "–5", 0, 0),
    (replace(OPEN, answer="..."), ".", 0, 0),
    (choice(options=("0", "1,000", "the U.S.", "x"), answer="A"), "0.0", 0, 1),
    (choice(options=("0", "1,000", "the U.S.", "x"), answer="B"), "1000", 0, 1),
    (choice(options=("0", "1,000", "the U.S.", "x"), answer="C"), "U.S", 0, 1),
    (choice(options=("0", "0.0", "y", "x"), answer="A"), "0", 0, 1),  # as it stands comes first
    (choice(options=("0.0", "0.00", "y", "x"), answer="A"), "0", 0, 0),  # two at once
    (replace(OPEN, answer="..."), "", 0, 0),
    (replace(OPEN, answer="102"), "10²", 0, 0),
    (replace(OPEN, answer="H₂O"), "H2O", 0, 0),
    (replace(NUMBER, answer="-5"), "−5", 0, 1),  # Python reads no such number, people do
    (replace(NUMBER, answer="-5"), "–5", 0, 1),
    (replace(NUMBER, answer="5"), "–5", 0, 0),
    (replace(NUMBER, answer="102"), "10²", 0, 0),
]


@pytest.mark.parametrize(("task", "answer", "letter", "lenient"), JUDGED)
def test_judges(task, answer, letter, lenient):
    assert judge_letter(task, answer) == letter
    assert judge_lenient(task, answer) == lenient


def test_frame_iou_counts_distinct_frames():
    assert frame_iou(Clip((1, 1, 2, 3)), frozenset({2, 3, 4})) == 2 / 4
    assert frame_iou(Clip((1, 2)), frozenset({3})) == 0
    assert frame_iou(Clip((1, 2)), frozenset()) == 0
    assert frame_iou(Clip(()), frozenset()) == 1


@pytest.mark.parametrize(
    ("look", "iou"),
    [((10, 20), 1), ((15, 25), 5 / 15), ((20, 30), 0), ((0, 10), 0), ((12, 18), 0.6), ((0, 100), 0.1)],
)
def test_segment_iou_and_recall_from_touching_to_equal(look, iou):
    evidence = Segment(10, 20)
    assert segment_iou(Segment(*look), evidence) == approx(iou)
    assert segment_iou(evidence, Segment(*look)) == approx(iou)
    term = Term("time", "trajectory", CropOverlap("recall"))
    hand = Hand(replace(LONGVT, terms=(term,)), choice([(10, 20)]), num_frames=6000, fps=30.0)
    common = max(0, min(look[1], 20) - max(look[0], 10))
    assert hand.play(Crop(*look), Answer("B")).returned == approx(common / 10)


def test_the_best_of_several_evidence_segments_counts_for_a_crop():
    hand = Hand(LONGVT, choice([(10, 20), (100, 110)]), num_frames=6000, fps=30.0)
    assert hand.play(Crop(100, 120), Answer("B")).total("time") == approx(0.5)


seconds = st.floats(0, 599)
segments = st.tuples(seconds, seconds).filter(lambda pair: pair[1] - pair[0] > 0.5)


@given(st.lists(segments, min_size=1, max_size=3), st.lists(segments, max_size=5))
def test_coverage_grows_with_every_look_and_stays_in_the_unit_interval(evidence, looks):
    state = Hand(DEFAULT, choice(evidence), num_frames=6000, fps=10.0).state
    chosen = [Segment(*look) for look in looks]
    values = [best_coverage(state, chosen[:k]) for k in range(len(chosen) + 1)]
    assert values == sorted(values)
    assert values[0] == 0 and 0 <= values[-1] <= 1
    assert best_coverage(state, [*chosen, *chosen]) == values[-1]
    assert best_coverage(state, [Segment(*bounds) for bounds in evidence]) == approx(1)


def test_only_executed_looks_are_looked_segments_cut_at_the_end():
    hand = Hand(DEFAULT, num_frames=6000, fps=10.0).play(Crop(9, 3), Crop(590, 700), Crop(1, 5))
    assert looked_segments(hand.state) == (Segment(590, 600), Segment(1, 5))


def with_terms(*terms):
    return Hand(replace(DEFAULT, terms=terms), choice([(100, 110)]), num_frames=6000, fps=10.0)


def paid_by_turn(before, after):
    """One for every turn."""
    return 1.0


def penalty(before, after):
    """Minus one for every turn."""
    return -1.0


LOOK, RIGHT, WRONG = Crop(1, 5), Answer("B"), Answer("C")


@pytest.mark.parametrize(("gated", "wrong"), [("no", 3.0), ("all", 0.0), ("before_last", 1.0)])
def test_a_gate_takes_back_what_it_says(gated, wrong):
    term = Term("turn", "turn", paid_by_turn, gated=gated)
    assert with_terms(term).play(LOOK, LOOK, WRONG).returned == wrong
    assert with_terms(term).play(LOOK, LOOK, RIGHT).returned == 3.0


def test_a_gate_also_returns_penalties():
    term = Term("turn", "turn", penalty, gated="all")
    assert with_terms(term).play(LOOK, WRONG).returned == 0.0


def test_weights_apply_to_payments_and_to_what_is_taken_back():
    term = Term("turn", "turn", paid_by_turn, weight=0.25, gated="all")
    hand = with_terms(term, Term("answer", "trajectory", AnswerTerm(), weight=2.0))
    hand.play(LOOK, WRONG)
    assert [paid.terms for paid in hand.scores] == [
        {"turn": 0.25, "answer": None, "gate": None},
        {"turn": 0.25, "answer": 0.0, "gate": -0.5},
    ]
    hand = with_terms(term, Term("answer", "trajectory", AnswerTerm(), weight=2.0)).play(LOOK, RIGHT)
    assert hand.returned == 2.5


def test_a_term_that_fails_stops_the_run_and_names_the_task():
    def broken(before, after):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as caught:
        with_terms(Term("own", "turn", broken)).step(LOOK)
    assert caught.value.__notes__ == ["in reward term 'own' of task 'hand'"]


def test_a_term_that_cannot_read_a_video_stops_the_run_and_makes_no_bad_video():
    def unread(before, after):
        raise VideoNotFound("beside.mp4: No such file or directory")

    recipe = replace(DEFAULT, terms=(Term("own", "turn", unread),))
    env = VideoQAEnv("procedural:brief_event?count=2&duration_s=60&event_s=3", recipe)
    with pytest.raises(RewardError, match=r"'own' of task '.*': VideoNotFound: beside\.mp4: No such file"):
        evaluate(lambda observation, info: Answer("A"), env)


NO_NUMBERS = (
    float("nan"),
    float("inf"),
    -float("inf"),
    np.float32("nan"),
    10**400,
    "1.0",
    "abc",
    b"1",
    [1.0],
    1j,
)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: f"{value!r:.12}")
@pytest.mark.parametrize("level", ["turn", "trajectory"])
def test_a_term_that_returns_no_finite_number_is_refused_with_term_and_task(value, level):
    hand = with_terms(Term("own", level, lambda before, after: value))
    with pytest.raises(RewardError, match=r"reward term 'own' of task 'hand' must be a finite number, got"):
        hand.step(RIGHT)


@pytest.mark.parametrize("value", NO_NUMBERS[:-1], ids=lambda value: f"{value!r:.12}")
def test_a_weight_that_is_no_finite_number_is_refused(value):
    with pytest.raises(RewardError, match=r"the weight of reward term 'own' must be a finite number, got"):
        Term("own", "turn", paid_by_turn, weight=value)


def test_what_overflows_is_refused_too():
    with pytest.raises(
        RewardError, match="reward term 'own' of task 'hand', weighted, must be a finite number"
    ):
        with_terms(Term("own", "turn", lambda before, after: 1e300, weight=1e300)).step(LOOK)
    huge = [Term(name, "turn", lambda before, after: 1e308) for name in ("one", "two")]
    with pytest.raises(RewardError, match="the sum of all reward terms of task 'hand' must be a finite"):
        with_terms(*huge).step(LOOK)


@pytest.mark.parametrize("verdict", [*NO_NUMBERS, -0.5, 2.0], ids=lambda value: f"{value!r:.12}")
def test_a_verdict_that_is_none_is_refused(verdict):
    code = Term("answer", "trajectory", TranscriptScore("answer", judge=lambda task, answer: verdict))
    with pytest.raises(
        RewardError, match="reward term 'answer' of task 'hand': the verdict of the judge must"
    ):
        Hand(replace(LONGVT_CODE, terms=(code,)), num_frames=6000, fps=30.0).step(RIGHT)
    with pytest.raises(
        RewardError, match="reward term 'answer' of task 'hand': the verdict of the judge must"
    ):
        gated(lambda task, answer: verdict).step(RIGHT)


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(allow_nan=False, allow_infinity=False))
def test_whatever_is_paid_is_finite(value, weight):
    hand = with_terms(Term("own", "turn", lambda before, after: value, weight=weight, gated="all"))
    try:
        hand.play(LOOK, WRONG)
    except RewardError:
        assert not math.isfinite(value) or not math.isfinite(2 * weight * value)
    else:
        assert math.isfinite(hand.returned) and hand.returned == approx(0.0)


def test_decay_is_lost_for_every_turn_before_the_answer():
    term = Term("answer", "trajectory", AnswerTerm(decay=0.1))
    assert with_terms(term).play(RIGHT).returned == 1.0
    assert with_terms(term).play(LOOK, LOOK, RIGHT).returned == approx(0.8)


# --- a judge that abstains ---------------------------------------------------------------------


def abstains(task, answer):
    """Never says anything."""
    return None


def says_half(task, answer):
    """Every answer is partly right."""
    return 0.5


def gated(judge, gate="all"):
    """A turn term of 0.25 and an answer that counts double."""
    answer = Term("answer", "trajectory", AnswerTerm(judge=judge), weight=2.0)
    return with_terms(Term("turn", "turn", paid_by_turn, weight=0.25, gated=gate), answer)


def right(hand):
    return answered_right(hand.recipe.terms, hand.scores[-1].terms.get("answer"), hand.state)


@pytest.mark.parametrize("gate", ["all", "before_last"])
@pytest.mark.parametrize("answer", [RIGHT, WRONG])
def test_where_the_judge_abstains_nothing_is_settled_or_paid(gate, answer):
    hand = gated(abstains, gate).play(LOOK, answer)
    assert hand.scores[-1].terms == {"turn": 0.25, "answer": None, "gate": None}
    assert hand.returned == 0.5  # what was paid: neither taken back nor crowned
    assert right(hand) is None


def test_without_an_answer_there_is_nothing_to_abstain_from():
    hand = gated(abstains).play(*[LOOK] * DEFAULT.rules.max_turns)
    assert hand.scores[-1].terms == {"turn": 0.25, "answer": 0.0, "gate": -1.5}
    assert right(hand) is False
    # Nor does a term of one's own that is absent then keep what was not earned.
    own = Term("answer", "trajectory", lambda before, after: None)
    hand = with_terms(Term("turn", "turn", paid_by_turn, gated="all"), own)
    hand.play(*[LOOK] * DEFAULT.rules.max_turns)
    assert hand.scores[-1].terms["gate"] == -6.0 and hand.returned == 0.0 and right(hand) is False


def test_a_partly_right_answer_keeps_what_is_gated_and_is_not_right():
    hand = gated(says_half).play(LOOK, WRONG)
    assert hand.scores[-1].terms == {"turn": 0.25, "answer": 1.0, "gate": 0.0}
    assert right(hand) is False
    # Nor is the exact one, if the judge of the reward says half: accuracy is as the reward.
    assert right(gated(says_half).play(LOOK, RIGHT)) is False


def test_right_is_what_the_judge_of_the_recipe_finds_right():
    def finds_c_right(task, answer):
        return float(answer == "C")

    assert right(gated(finds_c_right).play(WRONG)) is True
    assert right(gated(finds_c_right).play(Answer("D"))) is False
    assert right(with_terms().play(RIGHT)) is True
    assert right(with_terms().play(WRONG)) is False


def test_longvts_code_leaves_the_answer_out_where_the_judge_abstains():
    def hand(judge):
        answer = Term("answer", "trajectory", TranscriptScore("answer", judge=judge))
        recipe = replace(LONGVT_CODE, terms=(answer, *LONGVT_CODE.terms[1:]))
        return Hand(recipe, choice([(10, 20)]), num_frames=6000, fps=30.0).play(Crop(10, 20), RIGHT)

    assert hand(abstains).scores[-1].terms == {"answer": None, "format": 1.0, "time": 1.0}
    assert hand(says_half).scores[-1].terms == {"answer": 0.5, "format": 1.0, "time": 1.0}


def test_right_is_right_however_it_is_written():
    assert is_correct(with_terms().play(Answer("b")).state)
    assert not is_correct(with_terms().play(WRONG).state)
    assert not is_correct(with_terms().play(LOOK).state)
