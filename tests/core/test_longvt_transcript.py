"""LongVT's reward on whole responses: the published numbers, and nothing that a text can break."""

# ruff: noqa: D103

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from videogym.actions import Answer, Crop
from videogym.rewards import longvt_transcript as transcripts
from videogym.state import Clip, Invalid, Result, Turn
from videogym.testing.grammar_suite import example_state

GOLDEN = Path(__file__).parents[1] / "golden" / "conformance"
SEGMENT = (10.0, 20.0)
DONE = "<think>y</think><answer>red</answer>"


def look(start: Any, end: Any, response: bool = True) -> str:
    arguments = f'{{"video_path":"a.mp4","start_time":{start},"end_time":{end}}}'
    body = f'{{"name":"crop_video","arguments":{arguments}}}'
    reply = "user<tool_response>\nok</tool_response>assistant\n" if response else ""
    return f"<think>x</think><tool_call>{body}</tool_call>{reply}"


# Judge says 1, evidence is 10 to 20 s: (response, accuracy, format, IoU), worked out by hand.
HAND_WORKED = [
    (look(10, 20) + DONE, 1, 1, 1.0),
    (look(15, 25) + DONE, 1, 1, 5 / 15),
    (look(0, 100) + DONE, 1, 1, 10 / 100),
    (look(30, 40) + DONE, 1, 1, 0.0),
    (look(20, 10) + DONE, 1, 1, 0.0),
    (look(12, 12) + DONE, 1, 1, 0.0),
    (look(-5, 20) + DONE, 1, 1, 10 / 25),  # the tool refuses it, the reward pays
    (look(0, "1e999") + DONE, 1, 1, 0.0),
    (look('"10"', '"20"') + DONE, 1, 1, 1.0),
    (look("NaN", 20) + DONE, 1, 1, 0.0),
    (look(10, 20) + look("null", 20) + DONE, 1, 1, 1.0),  # not a Python literal: the earlier call counts
    (look(10, 20) + look("None", 20) + DONE, 1, 1, 0.0),  # a literal of the wrong type ends the walk
    (look(10, 20) + look(30, 40) + DONE, 1, 1, 0.0),
    (look(30, 40) + look(10, 20) + DONE, 1, 1, 1.0),
    (look(10, 20, response=False) + DONE, 1, 1, 0.0),
    (look(10, 20), 0, 0, 1.0),
    (DONE, 1, 1, 0.0),
    (f"  {DONE}\n", 1, 1, 0.0),
    ("<answer>red</answer>", 1, 0, 0.0),
    ("<think>x</think> so <answer>red</answer>", 1, 0, 0.0),
    (look(10, 20) + "<think>y</think> so <answer>red</answer>", 1, 1, 1.0),
    (look(10, 20) + "<answer>red</answer>", 1, 0, 1.0),
    ("<think>x</think><answer>a</answer><answer>b</answer>", 1, 0, 0.0),
    (look(10, 20) + "<think>y</think><answer></answer>", 0, 1, 1.0),
    (look(10, 20) + f"<think>y</think><answer>{'a' * 999}</answer>", 1, 1, 1.0),
    (look(10, 20) + f"<think>y</think><answer>{'a' * 1000}</answer>", 0, 0, 1.0),
]


@pytest.mark.parametrize(("text", "accuracy", "form", "iou"), HAND_WORKED)
def test_reward_of_hand_worked_responses(text: str, accuracy: int, form: int, iou: float) -> None:
    total = accuracy + form + iou
    assert transcripts.score(text, SEGMENT, "1", "iou") == pytest.approx(
        (total, accuracy, form, iou), abs=1e-12
    )
    bonus = float("<tool_response>" in text and accuracy == 1)
    assert transcripts.score(text, SEGMENT, "1", "tool") == (accuracy + form + bonus, accuracy, form, bonus)
    assert transcripts.score(text, SEGMENT, "1", "acc_format") == (accuracy + form, accuracy, form)
    assert transcripts.score(text, SEGMENT, "1", "default") == (0.8 * accuracy + 0.2 * form, accuracy, form)


def test_rewards_equal_the_recorded_ones() -> None:
    for line in (GOLDEN / "longvt_reward.jsonl").read_text().splitlines():
        row = json.loads(line)
        segment = row["segment"] and tuple(row["segment"])
        for variant in ("iou", "recall", "tool", "acc_format", "default"):
            parts = transcripts.score(row["text"], segment, row["verdict"], variant)  # type: ignore[arg-type]
            if row[variant] == "KeyError":
                assert parts[-1] is None, row["name"]
            else:
                assert parts == pytest.approx(tuple(row[variant]), abs=1e-9), (row["name"], variant)


def test_span_answers_equal_the_recorded_ones() -> None:
    for line in (GOLDEN / "longvt_span_answer.jsonl").read_text().splitlines():
        row = json.loads(line)
        parts = transcripts.score_span_answer(row["text"], row["truth"], row["recall"])
        assert parts == pytest.approx(tuple(row["out"]), abs=1e-9), row["text"]


def test_without_annotation_the_time_term_is_absent_not_zero() -> None:
    assert transcripts.score(look(10, 20) + DONE, None, "1", "iou") == (2.0, 1.0, 1.0, None)
    assert transcripts.score(DONE, None, "1", "recall") == (2.0, 1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("crop", "segment", "iou", "recall"),
    [
        ((10, 20), (10, 20), 1.0, 1.0),
        ((0, 40), (10, 20), 10 / 40, 1.0),
        ((12, 18), (10, 20), 6 / 10, 6 / 10),
        ((20, 30), (10, 20), 0.0, 0.0),
        ((10, 20), (15, 15), 0.0, 0.0),
        ((15, 15), (15, 15), 0.0, 0.0),
        ((0, math.inf), (10, 20), 0.0, 1.0),
        ((math.nan, 20), (10, 20), 0.0, 0.0),
        ((10, math.nan), (10, 20), 0.0, 0.0),
    ],
)
def test_overlap(crop: Any, segment: Any, iou: float, recall: float) -> None:
    assert transcripts.overlap(crop, segment) == (iou, recall)


@pytest.mark.parametrize(
    ("reply", "code", "strict"),
    [
        ("1", 1.0, 1.0),
        (" 0.5\n", 0.5, 0.5),
        ("0", 0.0, 0.0),
        ("1.0", 0.0, 1.0),
        ("0.50", 0.0, 0.5),
        (".5", 0.0, 0.5),
        ("Judgement: 1", 1.0, 1.0),
        ("Judgement: 0.5", 0.5, 0.5),
        ("Judgement: 0.1", 1.0, None),
        ("Judgement: 10", 1.0, None),
        ("Judgement: 1\nJudgement: 0", 0.0, 0.0),
        ("yes", 0.0, None),
        ("0.5.0", 0.0, None),
        ("٠", 0.0, None),
        ("", 0.0, None),
    ],
)
def test_verdicts(reply: str, code: float, strict: float | None) -> None:
    assert transcripts.parse_verdict_code(reply) == code
    assert transcripts.parse_verdict_strict(reply) == strict


def test_no_text_breaks_the_reading() -> None:
    bodies = [
        "-" * 99_000 + "1",
        "1+" * 40_000 + "1",
        "(" * 90_000,
        "[" * 150 + "]" * 150,
        "x" + "[1]" * 20_000,
    ]
    bodies += [
        "{'name': 'crop_video', 'arguments': " + value + "}"
        for value in ("None", "7", "'start_time end_time'")
    ]
    bodies += ["{[]: 1}", "\x00", "'\ud800'", r"'\d'", "9" * 90_000, "1if 1else 2", ""]
    for body in bodies:
        text = look(10, 20) + f"<think></think><tool_call>{body}</tool_call><tool_response>{DONE}"
        assert transcripts.last_crop(text) in (None, (10.0, 20.0))
        transcripts.score(text, SEGMENT, body, "iou")
        transcripts.score_span_answer(f"<think></think><answer>{body}</answer>", body)


@pytest.mark.parametrize(
    "unit", ["<tool_call>", "<think>", "</think> ", "<answer>", "<tool_call></tool_call>", " "]
)
def test_the_longest_texts_are_read(unit: str) -> None:
    for suffix in ("", "</answer>", "</tool_call>"):
        text = "<think></think><tool_response>" + unit * (100_000 // len(unit)) + suffix
        transcripts.score(text, SEGMENT, "1", "iou")
        transcripts.score_span_answer(text, "[1, 2]")


# --- transcripts of episodes -------------------------------------------------------------------

CALL = '<tool_call>{"name": "crop_video", "arguments": {"start_time": 1}}</tool_call>'
ERROR = Invalid("required", "video_path is required.")


def test_transcript_has_the_layout_of_a_decoded_response() -> None:
    turns = (
        Turn(
            (Result(Crop(1.0, 2.0), clip=Clip((1.0, 1.5))), Result(ERROR, error=ERROR)),
            f" a\n{CALL}{CALL} tail",
            True,
        ),
        Turn((Result(Answer("B")),), "<think>y</think><answer>B</answer>", True),
    )
    state = replace(example_state(), turns=turns, ending="answered")
    text = transcripts.transcript(state)
    shown, failed = "These are the frames it returned.", "Tool execution failed: video_path is required."
    head, _, rest = text.partition("<tool_response>\n")
    assert head == f"a{CALL}{CALL}user"
    assert rest == (
        f"The tool has run. {shown}</tool_response><tool_response>\n{failed}</tool_response>"
        "assistant\n<think>y</think><answer>B</answer>"
    )


def test_a_tail_behind_a_call_is_not_part_of_the_transcript() -> None:
    output = f"<think>x</think>{CALL}<answer>A</answer>"
    turns = (Turn((Result(ERROR, error=ERROR),), output, True), Turn((Result(Answer("B")),), DONE, True))
    text = transcripts.transcript(replace(example_state(), turns=turns, ending="answered"))
    assert transcripts.final_answer(text) == "red"
    assert transcripts.format_ok(text)


def test_a_call_that_was_never_run_leaves_no_tool_response() -> None:
    skipped = Invalid("last_turn", "Only an answer counts.")
    turn = Turn((Result(Crop(10.0, 20.0), error=skipped),), None, True)
    state = replace(example_state(last_turn_look="skip"), turns=(turn,), ending="turn_limit")
    text = transcripts.transcript(state)
    assert transcripts.last_crop(text) == (10.0, 20.0)
    assert not transcripts.has_tool_response(text)


def test_structured_episodes_have_a_transcript_too() -> None:
    turns = (
        Turn((Result(Crop(10.0, 20.0), clip=Clip((10.0, 12.0))),), None, True),
        Turn((Result(Answer("a red flag")),), None, True),
    )
    text = transcripts.transcript(replace(example_state("open"), turns=turns, ending="answered"))
    assert transcripts.score(text, SEGMENT, "1", "iou") == (3.0, 1.0, 1.0, 1.0)


def test_what_the_environment_says_is_never_read_as_an_action() -> None:
    malformed = Invalid("malformed_call", "Write <tool_call>{}</tool_call> and <answer>A</answer>.")
    turns = (
        Turn((Result(malformed, error=malformed),), "<tool_call>x", False),
        Turn((Result(Answer("red")),), DONE, True),
    )
    text = transcripts.transcript(replace(example_state(), turns=turns, ending="answered"))
    assert text == f"<tool_call>xassistant\n{DONE}"
