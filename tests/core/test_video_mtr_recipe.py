"""Video-MTR's reward: the paper's formula worked by hand, and the properties it is meant to have.

R(tau) = 1{R_acc > 0} * sum over k < K of (R_fm^k + R_format^k) + R_acc + R_format^K, K the last turn.
The video has 128 frames at 1 fps, so that the pool is frames 0 to 127 and frame i lies at i seconds.
The skim is trunc(i * 127 / 15): 0 8 16 25 33 42 50 59 67 76 84 93 101 110 118 127.
"""

# ruff: noqa: D103

from dataclasses import replace

import pytest
from hand_episodes import UNREADABLE, Hand, choice
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from videogym.actions import Answer, Select
from videogym.recipes import VIDEO_MTR, VIDEO_MTR_CODE, video_mtr

GOOD = Select(20, 28)  # frames 20 to 27 of the relevant 20 to 29: IoU 8/10
RIGHT, WRONG = Answer("B"), Answer("C")


def test_the_skim_is_the_published_one():
    assert Hand(VIDEO_MTR).state.skim.times_s == (
        0, 8, 16, 25, 33, 42, 50, 59, 67, 76, 84, 93, 101, 110, 118, 127,
    )  # fmt: skip


def test_one_look_then_the_right_answer_pays_every_part():
    # Skim IoU 1/25, look 8/10: a gain. (0.5 + 0.1) + 1 + 0.1.
    hand = Hand(VIDEO_MTR).play(GOOD, RIGHT)
    assert [paid.reward for paid in hand.scores] == approx([0.6, 1.1])
    assert hand.returned == approx(1.7)
    assert hand.scores[1].terms == {"format": 0.1, "frame_gain": None, "answer": 1.0, "gate": 0.0}


def test_a_wrong_answer_leaves_only_the_last_format_reward():
    hand = Hand(VIDEO_MTR).play(GOOD, WRONG)
    assert hand.scores[1].terms == approx({"format": 0.1, "frame_gain": None, "answer": 0.0, "gate": -0.6})
    assert hand.returned == approx(0.1)


def test_the_answer_alone_is_one_turn_with_nothing_before_it():
    assert Hand(VIDEO_MTR).play(RIGHT).returned == approx(1.1)
    assert Hand(VIDEO_MTR).play(WRONG).returned == approx(0.1)


def test_no_answer_because_the_last_turn_looks():
    # 16 + 8 + 8 frames are shown: the third look is refused but well-formed, and ends the episode.
    hand = Hand(VIDEO_MTR).play(GOOD, Select(40, 48), Select(60, 68))
    assert hand.codes == ["", "", "budget"]
    assert hand.state.ending == "turn_limit"
    # 0.5 + 0.1, then -0.5 * 0.8 + 0.1 for the drop to IoU 0, then 0.1; the gate takes the first two turns.
    assert [paid.reward for paid in hand.scores] == approx([0.6, -0.3, 0.1 - 0.3])
    assert hand.returned == approx(0.1)


def test_no_answer_because_the_last_output_is_unreadable():
    hand = Hand(VIDEO_MTR).play(GOOD, UNREADABLE, UNREADABLE)
    assert hand.state.ending == "turn_limit"
    assert hand.scores[2].terms == approx({"format": 0.0, "frame_gain": None, "answer": 0.0, "gate": -0.6})
    assert hand.returned == approx(0.0)


def test_no_answer_although_the_last_look_gains():
    # R_fm of the last turn is in neither sum of the formula when nothing is answered.
    hand = Hand(VIDEO_MTR).play(Select(40, 42), UNREADABLE, GOOD)
    assert hand.scores[2].terms["frame_gain"] == 0.5
    assert hand.returned == approx(0.1)


def test_an_answer_on_the_last_turn_counts_in_full():
    hand = Hand(VIDEO_MTR).play(UNREADABLE, UNREADABLE, RIGHT)
    assert hand.state.ending == "answered"
    assert hand.returned == approx(0.0 + 0.0 + 1.1)


def test_the_used_up_budget_refuses_looks_and_takes_the_answer():
    hand = Hand(VIDEO_MTR).play(GOOD, Select(40, 48))
    assert (hand.state.frames_shown, hand.state.frames_left) == (32, 0)
    hand.step(RIGHT)
    assert hand.state.answer == "B"
    assert hand.state.frames_shown == 32


def test_several_windows_are_one_set_of_relevant_frames():
    # Relevant: 10-13 and 50-53. Skim: only 50, IoU 1/23. Each look shows 4 of the 8: IoU 1/2, then a tie.
    task = choice([(10, 14), (50, 54)])
    hand = Hand(VIDEO_MTR, task).play(Select(10, 14), Select(50, 54), RIGHT)
    assert [paid.terms["frame_gain"] for paid in hand.scores] == [0.5, 0.0, None]
    assert hand.returned == approx(0.6 + 0.1 + 1.1)


def test_a_look_across_both_windows_is_judged_by_the_frames_it_shows():
    # 10 to 53 in 8 frames: 10 16 22 28 34 40 46 53, two of them relevant: IoU 2/14, above 1/23.
    hand = Hand(VIDEO_MTR, choice([(10, 14), (50, 54)])).play(Select(10, 54))
    assert hand.state.turns[0].clips[0].times_s == (10, 16, 22, 28, 34, 40, 46, 53)
    assert hand.scores[0].terms["frame_gain"] == 0.5


def test_a_repeated_look_gains_once():
    hand = Hand(VIDEO_MTR).play(GOOD, GOOD, RIGHT)
    assert [paid.terms["frame_gain"] for paid in hand.scores] == [0.5, 0.0, None]
    assert hand.returned == approx(0.6 + 0.1 + 1.1)


def test_a_drop_is_punished_in_proportion_and_measured_against_the_best():
    # 26 to 33 shows 4 of 10 relevant frames: IoU 4/14. The drop from 8/10 costs half of it.
    hand = Hand(VIDEO_MTR).play(GOOD, Select(26, 34), RIGHT)
    assert hand.scores[1].terms["frame_gain"] == approx(-0.5 * (8 / 10 - 4 / 14))
    assert hand.returned == approx(0.6 - 0.5 * (8 / 10 - 4 / 14) + 0.1 + 1.1)


def test_recovering_to_the_best_so_far_pays_nothing_in_the_paper_and_half_in_the_code():
    recipe = replace(VIDEO_MTR, rules=replace(VIDEO_MTR.rules, max_turns=9, frame_budget=None))
    moves = (GOOD, Select(40, 48), GOOD, RIGHT)
    assert Hand(recipe).play(*moves).scores[2].terms["frame_gain"] == 0.0
    code = replace(VIDEO_MTR_CODE, rules=recipe.rules)
    assert Hand(code).play(*moves).scores[2].terms["frame_gain"] == 0.5


def test_without_annotation_the_term_is_absent_and_not_zero():
    hand = Hand(VIDEO_MTR, choice(None)).play(GOOD, RIGHT)
    assert hand.scores[0].terms["frame_gain"] is None
    assert hand.returned == approx(0.1 + 1.1)


def test_an_empty_annotation_is_an_iou_of_zero():
    hand = Hand(VIDEO_MTR, choice(())).play(GOOD, RIGHT)
    assert hand.scores[0].terms["frame_gain"] == 0.0
    assert hand.returned == approx(0.1 + 1.1)


def test_the_gate_follows_the_recipes_own_verdict():
    # "b" names the right option but the paper's exact match pays it nothing: the gate must agree.
    hand = Hand(VIDEO_MTR).play(GOOD, Answer("b"))
    assert hand.total("answer") == 0.0
    assert hand.returned == approx(0.1)


def test_a_turn_whose_frames_could_not_be_shown_pays_nothing_and_owes_nothing():
    hand = Hand(VIDEO_MTR)
    assert hand.step(GOOD, fault="damaged").terms == {
        "format": None,
        "frame_gain": None,
        "answer": None,
        "gate": None,
    }
    assert hand.play(WRONG).returned == approx(0.1)


@pytest.mark.parametrize(
    ("recipe", "splits"),
    [
        (video_mtr(32), (16, 8)),
        (video_mtr(64), (32, 16)),
        (video_mtr(80), (40, 20)),
        (video_mtr(80, split="code"), (48, 16)),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_every_budget_is_used_up_by_the_skim_and_two_full_looks(recipe, splits):
    hand = Hand(recipe, choice(evidence=None), num_frames=256).play(Select(0, 128), Select(10, 100), WRONG)
    assert [len(clip.times_s) for clip in hand.state.clips] == [splits[0], splits[1], splits[1]]
    assert hand.state.frames_left == 0


def test_an_unknown_budget_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"\(80, 'code'\).*got \(48, 'paper'\)"):
        video_mtr(48)


frames = st.integers(0, 126)
looks = st.lists(st.tuples(frames, frames).filter(lambda pair: pair[0] < pair[1]), min_size=1, max_size=6)


@given(looks, st.sets(st.integers(0, 127), max_size=30))
def test_positive_frame_gains_never_exceed_half_the_improvements(pairs, relevant):
    rules = replace(VIDEO_MTR.rules, max_turns=len(pairs) + 1, frame_budget=None)
    hand = Hand(replace(VIDEO_MTR, rules=rules), choice([(i, i + 1) for i in sorted(relevant)]))
    hand.play(*(Select(float(first), float(last)) for first, last in pairs))
    gained = sum(max(0.0, paid.terms["frame_gain"] or 0.0) for paid in hand.scores)
    assert gained <= 0.5 * _strict_improvements(pairs, relevant) + 1e-9


def _strict_improvements(pairs, relevant):
    """How often a look's IoU beats all before it, counted with sets of whole numbers."""
    shown = [{i * 127 // 15 for i in range(16)}]
    for first, last in pairs:
        count = min(last - first, 8)  # the segment ends before frame `last`
        steps = (
            [first] if count == 1 else [first + i * (last - 1 - first) // (count - 1) for i in range(count)]
        )
        shown.append(set(steps))
    ious = [len(s & relevant) / len(s | relevant) for s in shown]
    return sum(iou > max(ious[:k]) for k, iou in enumerate(ious) if k)


@given(looks, st.sampled_from(["wrong", "none", "unreadable"]))
def test_without_the_right_answer_nothing_is_earned_by_looking(pairs, end):
    rules = replace(VIDEO_MTR.rules, max_turns=len(pairs) + (end != "none"), frame_budget=None)
    hand = Hand(replace(VIDEO_MTR, rules=rules))
    hand.play(*(Select(float(first), float(last)) for first, last in pairs))
    if end != "none":
        hand.step(WRONG if end == "wrong" else UNREADABLE)
    assert hand.state.terminated
    assert hand.returned == approx(0.0 if end == "unreadable" else 0.1)


def test_the_code_recipe_decays_late_right_answers_and_keeps_formats_of_wrong_ones():
    assert Hand(VIDEO_MTR_CODE).play(GOOD, RIGHT).returned == approx(0.6 + 0.1 + 0.9)
    assert Hand(VIDEO_MTR_CODE).play(GOOD, WRONG).returned == approx(0.6 + 0.1)
    assert Hand(VIDEO_MTR_CODE).play(UNREADABLE, Answer("E"), RIGHT).returned == approx(0.1 + 0.8)
