"""The house recipe: what the two papers leave open to exploitation pays nothing here."""

# ruff: noqa: D103

import pytest
from hand_episodes import UNREADABLE, Hand, choice
from pytest import approx

from videogym.recipes import DEFAULT
from videogym.state import Answer, Crop, Region

RIGHT, WRONG = Answer("B"), Answer("C")
EXACT, WHOLE = Crop(100, 110), Crop(0, 600)


def hand(evidence=((100, 110),)):
    """Ten minutes at 10 fps with ten seconds of evidence."""
    return Hand(DEFAULT, choice(evidence), num_frames=6000, fps=10.0)


def test_the_exact_look_and_the_right_answer_pay_one_and_a_half():
    episode = hand().play(EXACT, RIGHT)
    assert episode.scores[0].terms == approx({"coverage": 0.5, "answer": None, "gate": None})
    assert episode.returned == approx(1.5)


def test_repeats_pay_nothing():
    assert hand().play(EXACT, EXACT, EXACT, RIGHT).returned == approx(1.5)


def test_the_whole_video_pays_its_share_of_evidence():
    # 10 of 600 seconds.
    assert hand().play(WHOLE, RIGHT).returned == approx(1 + 0.5 * 10 / 600)


def test_a_better_look_pays_the_difference_only():
    # IoU 10/20 first, then 1.
    episode = hand().play(Crop(100, 120), EXACT, RIGHT)
    assert [paid.terms["coverage"] for paid in episode.scores] == approx([0.25, 0.25, 0.0])


def test_each_of_several_windows_needs_its_own_look():
    episode = hand([(100, 110), (300, 310)]).play(EXACT, Crop(300, 310), RIGHT)
    assert [paid.terms["coverage"] for paid in episode.scores] == approx([0.25, 0.25, 0.0])


@pytest.mark.parametrize(
    "moves",
    [[EXACT, WRONG], [EXACT] * 6, [UNREADABLE] * 6, [WRONG], [EXACT, *[UNREADABLE] * 5]],
    ids=["wrong", "never answers", "never readable", "only wrong", "looks, then noise"],
)
def test_without_the_right_answer_the_return_is_zero(moves):
    episode = hand().play(*moves)
    assert episode.state.terminated
    assert episode.returned == approx(0.0, abs=1e-12)


def test_a_refused_look_pays_nothing():
    episode = hand().play(Crop(110, 100), RIGHT)
    assert episode.codes == ["order", ""]
    assert episode.returned == approx(1.0)


def test_a_one_frame_sliver_pays_its_sliver():
    # Two frames 0.1 s apart are the smallest crop: 0.1 of 10 seconds.
    assert hand().play(Crop(104.0, 104.1), RIGHT).total("coverage") == approx(0.5 * 0.01)


def test_a_region_does_not_change_what_is_paid_for_time():
    episode = hand().play(Crop(100, 110, (0.0, 0.0, 0.5, 0.5)), RIGHT)
    assert episode.state.turns[0].clips[0].region == Region(0.0, 0.0, 0.5, 0.5)
    assert episode.returned == approx(1.5)


def test_without_evidence_the_term_is_absent():
    episode = hand(None).play(EXACT, RIGHT)
    assert episode.total("coverage") is None
    assert episode.returned == approx(1.0)


def test_an_end_past_the_video_is_cut_there():
    episode = hand([(590, 600)]).play(Crop(590, 1e9), RIGHT)
    assert episode.returned == approx(1.5)
