"""LongVT: limits on turns and calls, and the reward of the paper beside that of the code.

The video has 5400 frames at 30 fps, 180 seconds; the evidence is seconds 10 to 20.
"""

# ruff: noqa: D103

import json

import pytest
from hand_episodes import UNREADABLE, Hand, choice
from pytest import approx

from videogym.actions import Answer, Crop
from videogym.grammars import get_grammar
from videogym.grammars.longvt import video_name
from videogym.recipes import LONGVT, LONGVT_CODE, longvt
from videogym.state import Move

TASK = choice([(10, 20)])


def hand(recipe=LONGVT, task=TASK):
    return Hand(recipe, task, num_frames=5400, fps=30.0)


def say(episode, *outputs):
    """Play texts in the recipe's grammar."""
    grammar = get_grammar(episode.recipe.grammar)
    for output in outputs:
        episode.step(grammar.parse(output, episode.state))
    return episode


def calls(*windows, path=None):
    name = path or video_name(TASK)
    bodies = [
        json.dumps(
            {"name": "crop_video", "arguments": {"video_path": name, "start_time": s, "end_time": e}}
        )
        for s, e in windows
    ]
    return "<think>x</think>" + "".join(f"<tool_call>{body}</tool_call>" for body in bodies)


ANSWER = "<think>x</think><answer>B</answer>"


@pytest.mark.parametrize("recipe", [LONGVT, LONGVT_CODE], ids=lambda r: r.name)
def test_of_five_calls_in_five_turns_the_fifth_is_not_executed(recipe):
    episode = say(hand(recipe), *[calls((10, 20))] * 5)
    assert [len(turn.clips) for turn in episode.state.turns] == [1, 1, 1, 1, 0]
    assert episode.codes[4] == "last_turn"
    assert episode.state.ending == "turn_limit"


@pytest.mark.parametrize("recipe", [LONGVT, LONGVT_CODE], ids=lambda r: r.name)
def test_the_fifth_turn_can_still_answer(recipe):
    episode = say(hand(recipe), *[calls((10, 20))] * 4, ANSWER)
    assert episode.state.ending == "answered"
    assert episode.total("answer") == 1.0


def test_three_and_three_parallel_calls_end_after_the_second_batch():
    episode = say(hand(LONGVT_CODE), *[calls((10, 20), (30, 40), (50, 60))] * 2)
    assert [len(turn.clips) for turn in episode.state.turns] == [3, 3]
    assert episode.state.ending == "call_limit"


def test_refused_calls_count_towards_the_limit_as_in_the_published_loop():
    inverted = (20, 10)
    episode = say(hand(LONGVT_CODE), calls((10, 20), inverted, inverted), calls((10, 20), inverted))
    assert [len(turn.clips) for turn in episode.state.turns] == [1, 1]
    assert episode.state.ending == "call_limit"


def test_five_calls_in_one_turn_are_all_executed_and_end_the_episode():
    episode = say(hand(LONGVT_CODE), calls(*[(i, i + 10) for i in range(7)]))
    assert len(episode.state.turns[0].clips) == 5
    assert episode.state.ending == "call_limit"


def test_the_paper_runs_one_call_a_turn_and_says_so():
    episode = hand(LONGVT)
    episode.step(Crop(10, 20), Crop(30, 40))
    assert len(episode.state.turns[0].clips) == 1
    assert episode.codes == ["calls_per_turn"]
    assert not episode.state.terminated


def test_an_unreadable_output_ends_the_code_and_is_answered_in_the_paper():
    broken = "<think>x</think><tool_call>{'name': 'crop_video'}</tool_call>"
    assert say(hand(LONGVT_CODE), broken).state.ending == "malformed"
    episode = say(hand(LONGVT), broken)
    assert not episode.state.terminated
    assert episode.state.turns[0].error.reason
    assert say(episode, ANSWER).total("answer") == 1.0


def test_bad_values_are_answered_in_both():
    for recipe in (LONGVT, LONGVT_CODE):
        episode = say(hand(recipe), calls((20, 10)), calls((100, 900)), ANSWER)
        assert episode.codes == ["order", "end>duration", ""]
        assert episode.state.ending == "answered"


def test_a_foreign_path_is_refused_and_never_opened():
    episode = say(hand(LONGVT_CODE), calls((10, 20), path="/etc/passwd"))
    assert episode.codes == ["file"]
    assert not episode.state.terminated


# Answer, format and time of the last executed crop, worked from seconds 10 to 20.
PAPER = [
    ("right answer, right crop", [Crop(10, 20), Answer("B")], (1, 1, 1)),
    ("half beside it", [Crop(15, 25), Answer("B")], (1, 1, 5 / 15)),
    ("much too wide", [Crop(0, 100), Answer("B")], (1, 1, 0.1)),
    ("touching", [Crop(20, 30), Answer("B")], (1, 1, 0)),
    ("no crop", [Answer("B")], (1, 1, 0)),
    ("the last of two counts", [Crop(10, 20), Crop(30, 40), Answer("B")], (1, 1, 0)),
    ("a refused crop does not count", [Crop(10, 20), Crop(100, 900), Answer("B")], (1, 1, 1)),
    ("wrong answer", [Crop(10, 20), Answer("C")], (0, 1, 1)),
    ("unreadable, then right", [UNREADABLE, Crop(10, 20), Answer("B")], (1, 0, 1)),
    ("no answer", [Crop(10, 20)] * 5, (0, 0, 1)),
]


@pytest.mark.parametrize(("moves", "parts"), [row[1:] for row in PAPER], ids=[row[0] for row in PAPER])
def test_the_paper_pays_answer_format_and_overlap(moves, parts):
    episode = hand().play(*moves)
    assert episode.state.terminated
    assert tuple(map(episode.total, ("answer", "format", "time"))) == approx(parts)
    assert episode.returned == approx(sum(parts))


def test_without_annotation_the_time_term_is_absent_in_both():
    for recipe in (LONGVT, LONGVT_CODE):
        episode = say(hand(recipe, choice(None)), calls((10, 20)), ANSWER)
        assert episode.total("time") is None
        assert episode.returned == approx(2.0)


def test_the_code_scores_a_call_that_was_refused():
    # The gap that the paper's recipe closes: -5 to 20 is no legal crop, yet it overlaps 10 of 25 s.
    texts = (calls((-5, 20)), ANSWER)
    assert say(hand(LONGVT_CODE), *texts).total("time") == approx(0.4)
    assert say(hand(LONGVT), *texts).total("time") == 0.0


def test_the_code_pays_no_format_for_parallel_calls():
    episode = say(hand(LONGVT_CODE), calls((10, 20), (12, 18)), ANSWER)
    assert tuple(map(episode.total, ("answer", "format", "time"))) == approx((1, 0, 0.6))


def test_the_code_pays_nothing_for_an_answer_of_a_thousand_characters():
    long = f"<think>x</think><answer>{'B' * 1000}</answer>"
    task = choice([(10, 20)], kind="open", options=(), answer="B" * 1000)
    assert say(hand(LONGVT_CODE, task), long).total("answer") == 0.0


@pytest.mark.parametrize("cap", [64, 512, 768])
@pytest.mark.parametrize("code", [False, True])
def test_skims_are_one_frame_a_second_up_to_the_cap(cap, code):
    for num_frames in (5400, 30 * 600, 30 * 3600):
        episode = Hand(longvt(cap, code=code), TASK, num_frames=num_frames, fps=30.0)
        assert len(episode.state.skim.times_s) == min(cap, num_frames // 30)


def test_a_text_without_a_call_is_the_final_answer_of_the_code():
    episode = say(hand(LONGVT_CODE), "I think it is B.")
    assert episode.state.ending == "answered"
    assert episode.returned == 0.0


def test_a_move_keeps_its_raw_text():
    text = calls((10, 20)) + " and more"
    assert say(hand(LONGVT_CODE), text).state.turns[0].text == text
    assert hand().play(Move((Crop(10, 20),), "raw")).state.turns[0].text == "raw"
