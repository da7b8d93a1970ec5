"""The house recipe: what the two papers leave open to exploitation pays nothing here."""

# ruff: noqa: D103

import pytest
from hand_episodes import UNREADABLE, Hand, choice
from pytest import approx

from videogym.actions import Answer, Crop, Select
from videogym.geometry import Region
from videogym.recipes import DEFAULT, LONGVT, VIDEO_MTR

RIGHT, WRONG = Answer("B"), Answer("C")
EXACT, WHOLE = Crop(100, 110), Crop(0, 600)
SKIM = 10 / 600  # IoU of the skim, a look at the whole video, with ten seconds of evidence
BEST = 0.5 * (1 - SKIM)  # what looks can be paid


def hand(evidence=((100, 110),)):
    """Ten minutes at 10 fps with ten seconds of evidence."""
    return Hand(DEFAULT, choice(evidence), num_frames=6000, fps=10.0)


def test_the_exact_look_pays_half_of_what_the_skim_has_not_covered():
    episode = hand().play(EXACT, RIGHT)
    assert episode.scores[0].terms == approx({"coverage": BEST, "answer": None, "gate": None})
    assert episode.returned == approx(1 + BEST)


def test_repeats_pay_nothing():
    assert hand().play(EXACT, EXACT, EXACT, RIGHT).returned == approx(1 + BEST)


def test_the_whole_video_pays_nothing_for_the_skim_has_shown_it():
    assert hand().play(WHOLE, RIGHT).returned == approx(1.0)
    assert hand().play(Crop(0, 599), RIGHT).total("coverage") == approx(0.5 * (10 / 599 - 10 / 600))


def test_a_better_look_pays_the_difference_only():
    # IoU 10/20 first, then 1.
    episode = hand().play(Crop(100, 120), EXACT, RIGHT)
    assert [paid.terms["coverage"] for paid in episode.scores] == approx([0.25 - 0.5 * SKIM, 0.25, 0.0])


def test_each_of_several_windows_needs_its_own_look():
    episode = hand([(100, 110), (300, 310)]).play(EXACT, Crop(300, 310), RIGHT)
    assert [paid.terms["coverage"] for paid in episode.scores] == approx([BEST / 2, BEST / 2, 0.0])


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


def test_a_one_frame_sliver_pays_nothing():
    # Two frames 0.1 s apart are the smallest crop: 0.1 of 10 seconds is less than the skim has.
    assert hand().play(Crop(104.0, 104.1), RIGHT).total("coverage") == 0.0
    assert hand().play(Crop(104.0, 104.4), RIGHT).total("coverage") == approx(0.5 * (0.04 - SKIM))


def test_a_region_does_not_change_what_is_paid_for_time():
    episode = hand().play(Crop(100, 110, (0.0, 0.0, 0.5, 0.5)), RIGHT)
    assert episode.state.turns[0].clips[0].region == Region(0.0, 0.0, 0.5, 0.5)
    assert episode.returned == approx(1 + BEST)


# A detail in a box of 0.1 by 0.2: 0.02 of the picture.
DETAIL = Region(0.4, 0.3, 0.5, 0.5)
SKIM_OF_DETAIL = 0.02 * SKIM


def detail(evidence=((100, 110),)):
    return Hand(DEFAULT, choice(evidence, evidence_region=DETAIL), num_frames=6000, fps=10.0)


@pytest.mark.parametrize(
    ("look", "coverage"),
    [
        (Crop(100, 110, (0.4, 0.3, 0.5, 0.5)), 1.0),
        (EXACT, 0.02),  # the whole picture, of which the box is 0.02
        (Crop(100, 110, (0.0, 0.0, 1.0, 1.0)), 0.02),
        (Crop(100, 110, (0.4, 0.3, 0.6, 0.5)), 0.5),  # twice as wide
        (Crop(100, 110, (0.3, 0.3, 0.45, 0.5)), 0.25),  # 0.05 of 0.2 in common
        (Crop(100, 110, (0.5, 0.3, 0.6, 0.5)), 0.0),  # beside it
        (Crop(105, 115, (0.4, 0.3, 0.6, 0.5)), 1 / 6),  # a third in time, half in place
        (Crop(110, 120, (0.4, 0.3, 0.5, 0.5)), 0.0),  # the place, at another time
    ],
)
def test_a_detail_pays_for_time_and_place(look, coverage):
    paid = 0.5 * max(0.0, coverage - SKIM_OF_DETAIL)
    assert detail().play(look, RIGHT).total("coverage") == approx(paid)


def test_a_detail_is_approached_and_paid_for_once():
    there = Crop(100, 110, (0.4, 0.3, 0.5, 0.5))
    episode = detail().play(EXACT, there, EXACT, there, RIGHT)
    skim = 0.5 * SKIM_OF_DETAIL
    assert [paid.terms["coverage"] for paid in episode.scores] == approx([0.01 - skim, 0.49, 0, 0, 0])
    assert episode.returned == approx(1.5 - skim)
    assert detail().play(EXACT, there, WRONG).returned == approx(0.0)


def test_a_refused_region_pays_nothing():
    episode = detail().play(Crop(100, 110, (0.5, 0.3, 0.4, 0.5)), RIGHT)
    assert episode.codes == ["region", ""] and episode.returned == approx(1.0)


def test_each_of_several_windows_needs_its_own_crop_of_a_detail():
    first, second = (Crop(s, s + 10, (0.4, 0.3, 0.5, 0.5)) for s in (100, 300))
    episode = detail([(100, 110), (300, 310)]).play(first, Crop(300, 310), second, RIGHT)
    skim = 0.25 * SKIM_OF_DETAIL
    expected = [0.25 - skim, 0.005 - skim, 0.245, 0.0]
    assert [paid.terms["coverage"] for paid in episode.scores] == approx(expected)


@pytest.mark.parametrize("recipe", [VIDEO_MTR, LONGVT])
def test_the_papers_know_no_place(recipe):
    """They crop in time only, and are paid for that as they always were."""
    plain = Hand(recipe, choice([(20, 30)]))
    placed = Hand(recipe, choice([(20, 30)], evidence_region=DETAIL))
    look = (Select if recipe is VIDEO_MTR else Crop)(20, 30)
    assert plain.play(look, RIGHT).scores == placed.play(look, RIGHT).scores


def test_a_place_needs_a_time_and_is_not_told():
    with pytest.raises(ValueError, match="'hand': evidence_region needs evidence"):
        choice(None, evidence_region=DETAIL)
    assert "0.4" not in repr(choice(evidence_region=DETAIL))


def test_without_evidence_the_term_is_absent():
    episode = hand(None).play(EXACT, RIGHT)
    assert episode.total("coverage") is None
    assert episode.returned == approx(1.0)


def test_an_end_past_the_video_is_cut_there():
    episode = hand([(590, 600)]).play(Crop(590, 1e9), RIGHT)
    assert episode.returned == approx(1 + BEST)
