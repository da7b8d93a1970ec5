"""Video-MTR's grammar: the published parser's behaviour case by case, and what strict refuses."""

# ruff: noqa: D103

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogym.actions import Answer, Select
from videogym.grammars import FramePart, get_grammar
from videogym.grammars.blocks import after_thought, bodies
from videogym.grammars.video_mtr import probe
from videogym.state import Clip, Invalid, Result, Turn
from videogym.testing.grammar_suite import example_state

CODE, STRICT = get_grammar("video_mtr/code"), get_grammar("video_mtr/strict")
STATE = example_state()  # 64 pool frames, 2 s apart, 128 s
PAIR = "<think>t</think>"
GOLDEN = Path(__file__).parents[1] / "golden" / "conformance"
TAG_SOUP = st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<answer>",
            "</answer>",
            "<retrieve>",
            "</retrieve>",
            "x",
            " ",
            "\n",
            "\u2003",
        ]
    ),
    max_size=12,
).map("".join)


# (body of the block, valid, format_correct, error_type), from the parser table of the published code.
RETRIEVES = [
    ("5,10", True, True, "none"),
    (" 5 ,\n10 ", True, True, "none"),
    ("5,5", True, True, "none"),
    ("005,010", True, True, "none"),
    ("0,63", True, True, "none"),
    ("٥,٧", True, True, "none"),
    ("60,64", False, True, "retrieve_range_error"),
    ("64,70", False, True, "retrieve_range_error"),
    *(
        (body, False, False, "retrieve_format_error")
        for body in (
            "10,5",
            "-1,5",
            "1.5,5",
            "5-10",
            "5",
            "5,10,15",
            "[5,10]",
            "00:10,00:20",
            "a,b",
            "",
            "+5,10",
        )
    ),
    ("9" * 5000 + "," + "9" * 5000, False, False, "retrieve_format_error"),
]


@pytest.mark.parametrize(("body", "valid", "form", "error"), RETRIEVES)
def test_code_reads_retrieves_like_the_published_parser(
    body: str, valid: bool, form: bool, error: str
) -> None:
    reading = probe(f"{PAIR}<retrieve>{body}</retrieve>", "choice", "ABCD", 63)
    assert (reading.action_type, reading.action_valid, reading.format_correct) == ("retrieve", valid, form)
    assert reading.error_type == error
    assert reading.action_content == (body if form else "")
    assert reading.error_message_empty == valid


# (kind, body, valid, whether the published message is empty)
ANSWERS = [
    *(("choice", body, True, True) for body in ("B", " B ", "b", "\u2003d\n")),
    *(("choice", body, False, True) for body in ("B.", "B. text", "A, B", "", "E", "ABCD", "AB")),
    ("open", "a" * 50, True, True),
    ("open", " " * 9 + "a" * 50, True, True),
    ("open", "", True, True),
    ("open", "a" * 51, False, False),
    *(("numeric", body, True, True) for body in ("3.14", "-1e3", " 7 ", "nan", "1_0", "٣")),
    *(("numeric", body, False, False) for body in ("three", "", "1,5", "0x10")),
]


@pytest.mark.parametrize(("kind", "body", "valid", "empty"), ANSWERS)
def test_code_reads_answers_like_the_published_parser(
    kind: str, body: str, valid: bool, empty: bool
) -> None:
    reading = probe(f"{PAIR}<answer>{body}</answer>", kind, list("ABCD"), 63)  # type: ignore[arg-type]
    assert (reading.action_type, reading.action_content) == ("answer", body)
    assert (reading.action_valid, reading.format_correct, reading.error_type) == (valid, True, "none")
    assert reading.error_message_empty == empty


# (text, action_type, action_content) of texts that are odd as a whole
WHOLE = [
    (f"{PAIR}<answer>A</answer><answer>B</answer>", "answer", "A"),
    (f"{PAIR}<answer>A</answer> so <answer>B</answer>", "answer", "A"),
    (f"{PAIR}<retrieve>1,2</retrieve> <retrieve>3,4</retrieve>", "retrieve", "1,2"),
    ("<think>a</think><think>b</think><answer>B</answer>", "answer", "B"),
    ("<think>x<answer>A</answer></think><answer>B</answer>", "answer", "B"),
    (f"{PAIR}<answer>A</answer>{PAIR}<retrieve>1,2</retrieve>", "retrieve", "1,2"),
    (f"\n {PAIR}\n\n<answer>B</answer>\n", "answer", "B"),
    *(
        (text, None, "")
        for text in (
            "",
            "B",
            PAIR,
            "<answer>B</answer>",
            f"{PAIR}<answer>B",
            f"{PAIR}<answer>B</answer> done",
            f"well {PAIR}<answer>B</answer>",
            f"{PAIR} so <answer>B</answer>",
            "<THINK>t</THINK><ANSWER>B</ANSWER>",
            f"{PAIR}<retrive>5,10</retrive>",
            f"{PAIR}<retrieve>1,2</retrieve><answer>B</answer>",
            f"{PAIR}<answer>B</answer><retrieve>1,2</retrieve>",
        )
    ),
]


@pytest.mark.parametrize(("text", "action_type", "content"), WHOLE)
def test_code_reads_whole_texts_like_the_published_parser(
    text: str, action_type: str | None, content: str
) -> None:
    reading = probe(text, "choice", list("ABCD"), 63)
    assert (reading.action_type, reading.action_content) == (action_type, content)
    assert reading.action_valid == reading.format_correct == (action_type is not None)
    assert reading.error_type == ("format_error" if action_type is None else "none")


def test_code_equals_the_recorded_parser() -> None:
    kinds = {"multiple choice": "choice", "free-form": "open", "numerical": "numeric"}
    for line in (GOLDEN / "video_mtr_parser_probe.jsonl").read_text().splitlines():
        row = json.loads(line)
        letters = [option[0] for option in row["options"] or ()]
        kind = kinds[row["problem_type"]]
        reading = probe(row["raw_response"], kind, letters, row["max_frame_idx"])  # type: ignore[arg-type]
        assert {name: getattr(reading, name) for name in row["expect"]} == row["expect"], row["name"]


@given(TAG_SOUP)
def test_linear_reading_equals_the_pattern_with_two_lazy_groups(text: str) -> None:
    for tag in ("answer", "retrieve"):
        pattern = rf"^\s*<think>(.*?)</think>\s*<{tag}>(.*?)</{tag}>\s*$"
        matches = re.match(pattern, text, re.DOTALL) is not None
        first = re.search(rf"<think>.*?</think>\s*<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert after_thought(text, tag) == (first[1] if matches and first else None)
        assert bodies(text, tag) == re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)


# --- moves -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("indices", "segment"),
    [("0,0", (0.0, 2.0)), ("5,10", (10.0, 22.0)), ("62,63", (124.0, 128.0)), ("63,63", (126.0, 128.0))],
)
def test_a_range_of_indices_runs_to_the_frame_after_its_last(
    indices: str, segment: tuple[float, float]
) -> None:
    for grammar in (CODE, STRICT):
        move = grammar.parse(f"{PAIR}<retrieve>{indices}</retrieve>", STATE)
        assert move.actions == (Select(*segment),)
        assert move.well_formed


@pytest.mark.parametrize(
    ("select", "written"),
    [
        (Select(9.0, 21.0), "5,10"),
        (Select(10.0, 20.0), "5,9"),
        (Select(10.0, 20.001), "5,10"),
        (Select(0, 128), "0,63"),
    ],
)
def test_a_select_is_written_by_the_pool_frames_in_it(select: Select, written: str) -> None:
    assert f"<retrieve>{written}</retrieve>" in STRICT.write(select, STATE)


@pytest.mark.parametrize(
    "select", [Select(10.5, 11.5), Select(-1, 5), Select(5, 500), Select(9, 3), Select(4, 4)]
)
def test_a_select_without_pool_frames_or_outside_the_video_has_no_words(select: Select) -> None:
    with pytest.raises(ValueError, match="no words"):
        CODE.write(select, STATE)


def test_every_refusal_has_a_code_and_says_whether_the_format_was_kept() -> None:
    cases = {
        "nothing": ("format_error", False),
        f"{PAIR}<retrieve>9,3</retrieve>": ("retrieve_format_error", False),
        f"{PAIR}<retrieve>9,64</retrieve>": ("retrieve_range_error", True),
        f"{PAIR}<answer>Z</answer>": ("answer_not_an_option", True),
    }
    for text, (code, well_formed) in cases.items():
        for grammar in (CODE, STRICT):
            move = grammar.parse(text, STATE)
            (action,) = move.actions
            assert isinstance(action, Invalid), text
            assert (action.code, move.well_formed) == (code, well_formed), text
            assert action.reason, text


@pytest.mark.parametrize(
    "text",
    [
        f"{PAIR}<answer>A</answer><answer>B</answer>",
        f"{PAIR}<retrieve>1,2</retrieve><retrieve>1,2</retrieve>",
        f"{PAIR}{PAIR}<answer>A</answer>",
        "<think>x<answer>A</answer></think><answer>B</answer>",
        "<think>x<retrieve></think><answer>B</answer>",
        f"{PAIR}<retrieve>٥,٧</retrieve>",
        f"{PAIR}<answer>b</answer>",
    ],
)
def test_strict_refuses_what_code_accepts(text: str) -> None:
    assert not isinstance(CODE.parse(text, STATE).actions[0], Invalid)
    assert isinstance(STRICT.parse(text, STATE).actions[0], Invalid)


@pytest.mark.parametrize("body", ["nan", "inf", "1e999", "1_0", "٣"])
def test_strict_takes_plain_finite_numbers_only(body: str) -> None:
    text, state = f"{PAIR}<answer>{body}</answer>", example_state("numeric")
    assert CODE.parse(text, state).actions == (Answer(body),)
    assert STRICT.parse(text, state).actions[0].code == "answer_not_a_number"  # type: ignore[union-attr]


# --- messages ----------------------------------------------------------------------------------


def test_observations_list_pool_indices_and_one_frame_a_line() -> None:
    system, first = CODE.messages(STATE)
    assert (system.role, first.role) == ("system", "user")
    assert "4 turns" in system.text
    assert [part.time_s for part in first.parts if isinstance(part, FramePart)] == list(STATE.skim.times_s)
    lines = first.text.split("\n")
    assert lines[0] == "Turn 1"
    assert "4 frames" in lines[1]
    assert lines[1].endswith("frame_idx_list: [ 0 21 42 63]")
    assert lines[3:8] == ["Frames:", "frame_idx:0, ", "frame_idx:21, ", "frame_idx:42, ", "frame_idx:63, "]
    assert "Options: ['A. red', 'B. blue', 'C. green', 'D. white']" in lines
    assert "from 0 to 63" in first.text


def test_bounds_in_the_prompt_are_those_of_the_parser() -> None:
    state = example_state(num_pool=44)
    assert "from 0 to 43" in STRICT.messages(state)[-1].text
    assert STRICT.parse(f"{PAIR}<retrieve>0,43</retrieve>", state).actions == (Select(0.0, 128.0),)
    assert isinstance(STRICT.parse(f"{PAIR}<retrieve>0,44</retrieve>", state).actions[0], Invalid)


def test_later_turns_show_new_frames_or_say_what_was_wrong_without_frames() -> None:
    look = Turn((Result(Select(10.0, 16.0), clip=Clip((10.0, 12.0, 14.0))),), "look", True)
    wrong = Turn((Result(Invalid("c", "Broken."), error=Invalid("c", "Broken.")),), "gibberish", False)
    talk = CODE.messages(replace(STATE, turns=(look, wrong)))
    assert [m.role for m in talk] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [talk[2].text, talk[4].text] == ["look", "gibberish"]
    assert [p.time_s for p in talk[3].parts if isinstance(p, FramePart)] == [10.0, 12.0, 14.0]
    assert "Turn 2\n" in talk[3].text
    assert "frame_idx_list: [5 6 7]" in talk[3].text
    assert not any(isinstance(p, FramePart) for p in talk[5].parts)
    assert talk[5].text.startswith("Turn 3\nYour previous response was not valid. Broken.")
    assert STATE.task.question in talk[5].text


def test_the_last_turn_asks_for_the_answer_only() -> None:
    wrong = Turn((Result(Invalid("c", "r"), error=Invalid("c", "r")),), "", False)
    text = STRICT.messages(replace(STATE, turns=(wrong,) * 3))[-1].text
    assert "must give your final answer now" in text
    assert "<retrieve>" not in text


def test_an_ended_episode_ends_on_the_output() -> None:
    turn = Turn((Result(Answer("B")),), None, True)
    talk = STRICT.messages(replace(STATE, turns=(turn,), ending="answered"))
    assert (talk[-1].role, talk[-1].text) == ("assistant", "<think></think><answer>B</answer>")


@pytest.mark.parametrize("timestamps", ["none", "seconds"])
def test_times_are_told_only_where_the_rules_say_so(timestamps: str) -> None:
    state = example_state(timestamps=timestamps)
    assert ("42.00 s" in CODE.messages(state)[1].text) == (timestamps == "seconds")


def test_an_episode_without_pool_is_a_callers_mistake() -> None:
    with pytest.raises(ValueError, match="pool_frames"):
        CODE.messages(replace(STATE, pool_s=()))
