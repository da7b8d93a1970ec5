"""VideoZoomer as its paper says and as its code does, played through the environment."""

# ruff: noqa: D103

from dataclasses import replace

import pytest
from pytest import approx

from videogym import Answer, Crop, Segment, Task
from videogym.grammars import get_grammar
from videogym.recipes import VIDEO_ZOOMER, VIDEO_ZOOMER_CODE
from videogym.rewards.video_zoomer import ZoomSettings, choice_right, extra, read_outputs
from videogym.sizes import frame_size
from videogym.testing.blank_video import BlankVideo
from videogym.testing.records import ReplayEpisode

TASK = Task("t", "blank", "Which?", "choice", ("red", "blue"), "A", (Segment(10.0, 20.0),))
ANSWER = "<think>Seen.</think><answer>A</answer>"


def zoom(start_s, end_s, fps):
    return f'<think>Look.</think><video_zoom>{{"segment": [{start_s}, {end_s}], "fps": {fps}}}</video_zoom>'


def played(recipe, *texts, video=None):
    """The state after the texts, and what all turns paid by term."""
    with ReplayEpisode(recipe, TASK, video or BlankVideo(18_000, 30.0, 1280, 720)) as episode:
        paid = [episode.step(text)[2] for text in texts]
        total = {}
        for info in paid:
            for name, value in info["reward_terms"].items():
                if info["reward_present"][name]:
                    total[name] = total.get(name, 0.0) + float(value)
        return episode.state, total, episode.env.messages


def test_a_look_and_the_right_answer_pay_what_the_paper_says():
    state, paid, _ = played(VIDEO_ZOOMER, zoom(100, 104, 2), ANSWER)
    assert paid == {"answer": 0.9, "format": 0.1, "tool": 0.5}
    assert state.turns[0].clips[0].times_s == approx([100 + i * 4 / 7 for i in range(8)], abs=1 / 30)
    _, paid, _ = played(VIDEO_ZOOMER, ANSWER)
    assert paid == {"answer": 0.9, "format": 0.1, "tool": 0.0}


def test_the_paper_pays_no_bonus_for_a_call_that_failed_and_the_code_would():
    too_many = zoom(0, 600, 8)
    _, paid, _ = played(VIDEO_ZOOMER, too_many, ANSWER)
    assert paid["tool"] == 0.0
    bonus = replace(VIDEO_ZOOMER_CODE.terms[2], weight=0.5)
    recipe = replace(VIDEO_ZOOMER_CODE, terms=(*VIDEO_ZOOMER_CODE.terms[:2], bonus))
    _, paid, _ = played(recipe, too_many, ANSWER)
    assert paid == {"answer": 0.9, "format": 0.0, "tool": 0.5}
    assert VIDEO_ZOOMER_CODE.terms[2].weight == 0.0  # as the published script leaves it


def test_over_the_limit_is_an_error_reply_never_fewer_frames():
    for recipe in (VIDEO_ZOOMER, VIDEO_ZOOMER_CODE):
        state, _, messages = played(recipe, zoom(10, 27, 1))
        assert state.turns[0].error.code == "too_many_frames" and not state.turns[0].clips
        assert "Error:" in messages[-1].text
        state, _, _ = played(recipe, zoom(10, 26.9, 1))
        assert len(state.turns[0].clips[0].times_s) == 16  # the product is cut to a whole number


def test_out_of_range_is_refused_by_the_paper_and_copies_of_one_frame_by_the_code():
    state, _, _ = played(VIDEO_ZOOMER, zoom(700, 708, 2))
    assert state.turns[0].error.code == "start>=duration"
    state, _, _ = played(VIDEO_ZOOMER_CODE, zoom(700, 708, 2))
    assert state.turns[0].clips[0].times_s == (17_999 / 30.0,) * 16
    state, _, _ = played(VIDEO_ZOOMER_CODE, zoom(6, 4, -2))  # two negatives make a positive
    assert state.turns[0].clips[0].times_s == (6.0,) * 4
    state, _, messages = played(VIDEO_ZOOMER_CODE, zoom(4, 4, 2))  # a reply without frames
    assert not state.turns[0].clips and "Error" not in messages[-1].text


def test_the_last_turn_runs_no_call_and_the_one_before_it_says_so():
    state, paid, messages = played(VIDEO_ZOOMER_CODE, *[zoom(10, 14, 4)] * 4)
    assert "<video_zoom>" in messages[-1].text and state.frames_shown == 128
    state, paid, _ = played(VIDEO_ZOOMER_CODE, *[zoom(10, 14, 4)] * 5)
    assert state.ending and not state.turns[-1].clips and paid["answer"] == 0.0


def test_first_frames_and_their_size():
    state, _, _ = played(VIDEO_ZOOMER_CODE, ANSWER, video=BlankVideo(1200, 30.0, 1280, 720))
    assert state.skim.times_s == tuple(2.0 * i for i in range(20))  # never the last one
    # 422 x 237 by the published resizing, which the model's processor rounds to squares of 28.
    assert frame_size(state.video, state.rules) == (420, 224)
    # 365 x 274 are 13 x 10 squares of 28; cut down at once they would be 13 x 9.
    assert frame_size(BlankVideo(9, 1.0, 640, 480).meta, state.rules) == (364, 280)


@pytest.mark.parametrize("profile", ["strict", "code"])
def test_what_is_written_is_what_the_scorer_wants(profile):
    grammar = get_grammar(f"video_zoomer/{profile}")
    with ReplayEpisode(VIDEO_ZOOMER_CODE, TASK, BlankVideo(900, 30.0, 64, 36)) as episode:
        look = grammar.write(Crop(1.0, 3.0, fps=2.5), episode.state, "There.")
        answer = grammar.write(Answer("A"), episode.state)
    assert read_outputs([look, answer], 16) == (True, 1, 5)
    assert choice_right(f"{look} {answer}", "A.") == 1.0


STRICT = [
    ('{"segment": [1, 2], "fps": 2, "more": 1}', "invalid_input"),
    ('{"segment": [1], "fps": 2}', "invalid_input"),
    ('{"segment": ["1", 2], "fps": 2}', "invalid_input"),
    ('{"segment": [1, 2], "fps": true}', "invalid_input"),
    ('{"segment": [1, 2], "fps": 1e999}', "invalid_input"),
    ('{"segment": [1, 2], "fps": NaN}', "invalid_input"),
    ("{'segment': [1, 2], 'fps': 2}", "json"),
    ("", "json"),
]


@pytest.mark.parametrize(("body", "code"), STRICT)
def test_the_strict_grammar_takes_a_segment_and_a_rate_as_json_numbers(body, code):
    state, _, _ = played(VIDEO_ZOOMER, f"<think>x</think><video_zoom>{body}</video_zoom>")
    assert state.turns[0].error.code == code and not state.turns[0].well_formed


def test_a_rate_of_zero_or_below_is_refused_by_the_paper():
    for fps in ("0", "-1", "17"):
        state, _, _ = played(VIDEO_ZOOMER, zoom(1, 2, fps))
        assert state.turns[0].error.code == "fps"


def test_knobs_of_the_published_reward():
    written = read_outputs([zoom(4, 6, 2), ANSWER], 16)
    assert extra(ZoomSettings(tool_penalty=-0.5), True, written) == 0.5
    assert extra(ZoomSettings(tool_penalty=-0.5), False, written) == 0.0
    assert extra(ZoomSettings(tool_penalty=-0.5, target_rate=0.3), True, written, 0.4) == 0.0
    assert extra(ZoomSettings(per_call=0.05), True, written) == approx(-0.05)
    assert extra(ZoomSettings(tool_penalty=0.2, penalize_wrong=True), False, written) == approx(-0.2)
