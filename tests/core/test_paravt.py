"""ParaVT as its paper says and as its code does, played through the environment."""

# ruff: noqa: D103

import pytest
from pytest import approx

from videogym import Answer, Crop, Segment, Task
from videogym.grammars import get_grammar
from videogym.grammars.longvt import video_name
from videogym.recipes import PARAVT, PARAVT_CODE
from videogym.rewards.paravt import accuracy, evaluated_range, format_score, tool_score
from videogym.testing.blank_video import BlankVideo
from videogym.testing.records import ReplayEpisode

TASK = Task("t", "blank", "Which?", "choice", ("red", "blue"), "B", (Segment(10.0, 20.0),))
ANSWER = "<think>All of them agree.</think><answer>B</answer>"
PATH = video_name(TASK)


def call(start_s, end_s):
    arguments = f'{{"video_path": "{PATH}", "start_time": {start_s}, "end_time": {end_s}}}'
    return f'<tool_call>\n{{"name": "crop_video", "arguments": {arguments}}}\n</tool_call>'


def played(recipe, *texts):
    """The state after the texts, what all turns paid by term, and the messages."""
    with ReplayEpisode(recipe, TASK, BlankVideo(18_000, 30.0, 1280, 720)) as episode:
        total = {}
        for text in texts:
            info = episode.step(text)[2]
            for name, value in info["reward_terms"].items():
                if info["reward_present"][name]:
                    total[name] = total.get(name, 0.0) + float(value)
        return episode.state, total, episode.env.messages


TWO = f"<think>I look at two places.</think>{call(100, 110)}{call(300, 310)}"


@pytest.mark.parametrize("recipe", [PARAVT, PARAVT_CODE], ids=str)
def test_all_calls_of_a_turn_run_and_each_has_a_reply(recipe):
    state, _, messages = played(recipe, TWO)
    assert [len(clip.times_s) for clip in state.turns[0].clips] == [10, 10]
    assert [message.role for message in messages[-2:]] == ["user", "user"]
    assert "10 frames from 300.0 to 310.0 s" in messages[-1].text
    assert "<300.0 seconds>" in messages[-1].text


def test_a_look_and_the_right_answer_pay_what_the_formula_says():
    _, paid, _ = played(PARAVT, TWO, ANSWER)
    assert paid == {"answer": 1.0, "format": 1.0, "tool": 0.8}
    # The code never sees that a call was executed: 0.1 and 0.5.
    _, paid, _ = played(PARAVT_CODE, TWO, ANSWER)
    assert paid == {"answer": 1.0, "format": 1.0, "tool": approx(0.6)}


def test_the_code_pays_for_a_tool_response_that_the_policy_wrote_itself():
    forged = f"<think>I look at it.</think>{call(900, 800)}<tool_response>red</tool_response>"
    _, paid, _ = played(PARAVT_CODE, forged, ANSWER)
    assert paid["tool"] == approx(0.8)
    _, paid, _ = played(PARAVT, forged, ANSWER)
    assert paid["tool"] == 0.0 and paid["format"] == 0.0


def test_one_broken_block_and_the_code_reads_no_call_and_ends():
    broken = f"<think>I look at it.</think>{call(10, 20)}<tool_call>oops</tool_call>"
    state, _, _ = played(PARAVT_CODE, broken)
    assert state.ending == "answered" and not state.turns[0].clips
    state, _, _ = played(PARAVT, broken)
    assert state.ending == "" and len(state.turns[0].clips) == 1 and not state.turns[0].well_formed


def test_python_calls_are_read_by_the_code_alone():
    text = "<think>I look.</think><tool_code>crop_video(start_time=10, end_time=20)</tool_code>"
    assert len(played(PARAVT_CODE, text)[0].turns[0].clips) == 1
    assert played(PARAVT, text)[0].turns[0].error.code == "format"


def test_calls_beyond_those_of_one_turn_are_refused():
    text = f"<think>I look everywhere.</think>{''.join(call(i, i + 5) for i in range(0, 100, 10))}"
    state, _, _ = played(PARAVT, text)
    assert len(state.turns[0].clips) == 5 and state.turns[0].results[5].error.code == "calls_per_turn"
    assert len(played(PARAVT_CODE, text)[0].turns[0].clips) == 10


def test_four_turns_of_calls_and_the_last_is_run():
    state, _, _ = played(PARAVT_CODE, *[TWO] * 4)
    assert state.ending == "turn_limit" and len(state.turns[3].clips) == 2


@pytest.mark.parametrize("profile", ["strict", "code"])
def test_several_written_calls_are_one_turn(profile):
    grammar = get_grammar(f"paravt/{profile}")
    with ReplayEpisode(PARAVT, TASK, BlankVideo(900, 30.0, 64, 36)) as episode:
        text = grammar.write(Crop(1.0, 3.5), episode.state, "Two places.") + call(5.0, 9.0)
        assert grammar.parse(text, episode.state).actions == (Crop(1.0, 3.5), Crop(5.0, 9.0))
        assert grammar.parse(grammar.write(Answer("B"), episode.state), episode.state).actions == (
            Answer("B"),
        )


def test_faults_of_the_published_reward_that_the_paper_does_not_share():
    assert accuracy(".", "A", "mcq") == 1.0  # the truth is an article, and so nothing
    _, paid, _ = played(PARAVT, "<think>Nothing.</think><answer>.</answer>")
    assert paid["answer"] == 0.0
    # A flawless episode whose opening tag the environment gave, against one that opens it twice.
    assert format_score("I look at the middle.</think><answer>B</answer>") == approx(0.5)
    assert format_score("<think><think>I look at it.</think><answer>B</answer>") == approx(1.0)
    assert tool_score(call(1, 2), 0.0) == 0.1  # also for a wrong answer


def test_ranges_of_the_evaluation():
    assert evaluated_range("from 2023 - 2024 on") == (2023.0, 2024.0)
    assert evaluated_range("nothing") is None
