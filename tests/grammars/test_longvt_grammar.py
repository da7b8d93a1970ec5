"""LongVT's grammar: the published rollout and tool server case by case, and what strict refuses."""

# ruff: noqa: D103

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from videogym.actions import Answer, Crop
from videogym.grammars import FramePart, Message, TextPart, get_grammar
from videogym.grammars.longvt import video_name
from videogym.grammars.longvt_calls import read_turn
from videogym.state import Clip, Ending, Invalid, Move, Result, State, Turn
from videogym.testing.grammar_suite import example_state

CODE, STRICT = get_grammar("longvt/code"), get_grammar("longvt/strict")
STATE = example_state()
GOLDEN = Path(__file__).parents[1] / "golden" / "conformance"
GOOD = '{"name": "crop_video", "arguments": {"video_path": "example.mp4", "start_time": 1, "end_time": 2}}'
CROP = Crop(1.0, 2.0)


def call(*bodies: str) -> str:
    return "<think>x</think>" + "".join(f"<tool_call>{body}</tool_call>" for body in bodies)


def with_arguments(**arguments: Any) -> str:
    named = {"video_path": "example.mp4", "start_time": 1, "end_time": 2} | arguments
    given = {key: value for key, value in named.items() if value != "absent"}
    return call(json.dumps({"name": "crop_video", "arguments": given}))


def code_of(move: Move) -> str:
    action = move.actions[0]
    return action.code if isinstance(action, Invalid) else ""


# --- reading calls as the rollout does ---------------------------------------------------------

BROKEN = [
    call("x"),
    call(""),
    call("5"),
    call('"text"'),
    call("null"),
    call("[]"),
    call("[1]"),
    call(GOOD.replace('"', "'")),
    call(GOOD)[: -len("</tool_call>")],
    call(GOOD, "{"),
    call(GOOD, "7"),
    call(f"[{GOOD}, null]"),
    call(GOOD.replace("crop_video", "zoom")),
    call('{"arguments": {"start_time": 1}}'),
    call('{"name": "crop_video", "arguments": [1, 2]}'),
    call('{"name": "crop_video", "arguments": "{}"}'),
    call('{"name": "crop_video", "arguments": null}'),
    call('{"name": ["crop_video"], "arguments": {}}'),
    call('{"name": {"a": 1}, "arguments": {}}', GOOD),
    call('{"name": "crop_video", "arguments": {"start_time": 1}, "name": "zoom"}'),
    call("[" * 100_000),
    call('{"name": "crop_video", "arguments": {"start_time": ' + "1" * 5000 + "}}"),
    "<think>I could <tool_call>x</tool_call> here</think><answer>B</answer>",
]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_call_loses_the_turn(text: str) -> None:
    assert read_turn(text) == ("stop_bad_call", text, ())
    move = CODE.parse(text, STATE)
    assert (code_of(move), len(move.actions), move.well_formed) == ("malformed_call", 1, False)


@pytest.mark.parametrize(
    "text",
    [
        call(GOOD),
        call(f"\n {GOOD}\n"),
        call(f"[{GOOD}]"),
        call(GOOD) + "prose <answer>A</answer>",
        call(GOOD, GOOD.replace("crop_video", "zoom")),
        call(GOOD) + "<tool_call>" + GOOD,
        call(GOOD.replace("arguments", "parameters")),
        call(GOOD[:-1] + ', "parameters": {}}'),
        call('{"name": [], "arguments": {}}', GOOD),
        "<tool_call>" + GOOD + "</tool_call>",
    ],
)
def test_a_readable_call_is_taken_whatever_stands_around_it(text: str) -> None:
    assert CODE.parse(text, STATE) == Move((CROP,), text)


def test_parameters_win_over_arguments() -> None:
    text = call('{"name": "crop_video", "parameters": {"start_time": 1}, "arguments": {"start_time": 9}}')
    assert read_turn(text).calls == (("crop_video", {"start_time": 1}),)


def test_calls_keep_only_the_text_before_them() -> None:
    assert read_turn(f" a \n{call(GOOD)}tail").kept_text == "a \n<think>x</think>"


def test_parallel_calls_are_one_move_of_at_most_five() -> None:
    bodies = [GOOD.replace('"end_time": 2', f'"end_time": {2 + i}') for i in range(7)]
    assert len(read_turn(call(*bodies)).calls) == 7
    assert CODE.parse(call(*bodies), STATE).actions == tuple(Crop(1.0, 2.0 + i) for i in range(5))
    mixed = CODE.parse(call(GOOD, '{"name": "crop_video"}', GOOD), STATE)
    assert [type(action) for action in mixed.actions] == [Crop, Invalid, Crop]
    assert mixed.well_formed


@pytest.mark.parametrize(
    ("text", "answer", "well_formed"),
    [
        ("<think>x</think><answer>B</answer>", "B", True),
        ("<answer>A</answer><answer> B \n</answer>", " B \n", True),
        ("</answer><answer>B", "B", True),
        ("<TOOL_CALL>x</TOOL_CALL>", "", False),
        ("</tool_call><answer>B", "", False),
        ("", "", False),
    ],
)
def test_a_text_without_a_call_is_the_final_answer(text: str, answer: str, well_formed: bool) -> None:
    assert CODE.parse(text, STATE) == Move((Answer(answer),), text, well_formed)


def test_code_equals_the_recorded_rollout() -> None:
    for line in (GOLDEN / "longvt_parse.jsonl").read_text().splitlines():
        row = json.loads(line)
        reading = read_turn(row["text"])
        calls = [
            {"name": name, "arguments": {k: _plain(v) for k, v in a.items()}} for name, a in reading.calls
        ]
        expected = (row["outcome"], row["kept_text"], row["calls"])
        assert (reading.outcome, reading.kept_text, calls) == expected


def _plain(value: Any) -> Any:
    return f"<{value}>" if isinstance(value, float) and not math.isfinite(value) else value


# --- arguments ---------------------------------------------------------------------------------

# (changed arguments, code of the refusal), checks in the tool server's order: the first that fails.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"start_time": None}, "type"),
    ({"start_time": [1]}, "type"),
    ({"start_time": {}}, "type"),
    ({"start_time": "soon"}, "type"),
    ({"start_time": ""}, "type"),
    ({"start_time": "٣"}, "type"),
    ({"start_time": float("nan")}, "type"),
    ({"end_time": float("inf")}, "type"),
    ({"end_time": "inf"}, "type"),
    ({"end_time": 10**400}, "type"),
    ({"video_path": 5}, "type"),
    ({"video_path": None}, "type"),
    ({"video_path": "absent", "start_time": None}, "type"),
    ({"video_path": "absent"}, "required"),
    ({"start_time": "absent"}, "required"),
    ({"video_path": " ", "end_time": "absent"}, "required"),
    ({"video_path": ""}, "path"),
    ({"video_path": " \n", "start_time": -1}, "path"),
    ({"video_path": "/etc/passwd", "start_time": -1, "end_time": -2}, "negative"),
    ({"video_path": "/etc/passwd", "start_time": 2, "end_time": 2}, "order"),
    ({"video_path": "/etc/passwd"}, "file"),
    ({"video_path": "example.mp4 "}, "file"),
    ({"video_path": "clips/example.mp4"}, "file"),
]


@pytest.mark.parametrize(("arguments", "code"), REFUSED)
def test_arguments_are_refused_by_the_first_check_they_fail(arguments: dict[str, Any], code: str) -> None:
    move = CODE.parse(with_arguments(**arguments), STATE)
    assert code_of(move) == code
    assert move.well_formed  # the episode goes on with a tool error


@pytest.mark.parametrize(
    ("arguments", "crop"),
    [
        ({"start_time": True}, Crop(1.0, 2.0)),
        ({"start_time": "0.5", "end_time": " 1e1 "}, Crop(0.5, 10.0)),
        ({"flag": True, "fps": None}, Crop(1.0, 2.0)),
        # What depends on the video is judged when the crop is played.
        ({"start_time": -1}, Crop(-1.0, 2.0)),
        ({"start_time": 2}, Crop(2.0, 2.0)),
        ({"start_time": 500, "end_time": 900}, Crop(500.0, 900.0)),
    ],
)
def test_arguments_that_the_tool_server_converts(arguments: dict[str, Any], crop: Crop) -> None:
    assert CODE.parse(with_arguments(**arguments), STATE).actions == (crop,)


@pytest.mark.parametrize("video", ["clip-1.mp4", "/data/a b/clip-1.mp4", "../clip-1.mp4"])
def test_a_file_is_called_by_its_name(video: str) -> None:
    assert video_name(replace(STATE.task, video=video)) == "clip-1.mp4"


@pytest.mark.parametrize(
    "video",
    [
        "synthetic:event?seed=4",
        "planted-video:a.mp4?content=1&insertions=W10",
        "x/</tool_call>.mp4",
        "a\n.mp4",
        "<|im_end|>",
        " ",
    ],
)
def test_an_address_or_an_odd_file_name_gets_an_opaque_name(video: str) -> None:
    state = replace(STATE, task=replace(STATE.task, video=video))
    name = video_name(state.task)
    assert re.fullmatch(r"video-[0-9a-f]{8}\.mp4", name)
    assert f"video is: {name}" in CODE.messages(state)[1].text
    assert CODE.parse(CODE.write(CROP, state), state).actions == (CROP,)
    assert isinstance(CODE.parse(with_arguments(video_path=video), state).actions[0], Invalid)


# --- strict ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<answer>B</answer>", "format"),
        ("<think>x</think>", "format"),
        ("<think>x</think>B", "format"),
        ("<think>x</think> so <answer>B</answer>", "format"),
        ("<think>x</think><answer>B</answer> done", "format"),
        ("<think>x</think><answer>B", "format"),
        ("<think>x</think><answer>A</answer><answer>B</answer>", "format"),
        ("<think>x</think><think>y</think><answer>B</answer>", "format"),
        ("<think>a <tool_call> b</think><answer>B</answer>", "format"),
        ("<think>a <tool_response>ok</tool_response></think><answer>B</answer>", "format"),
        (call(GOOD, GOOD), "format"),
        (call(GOOD) + "<answer>B</answer>", "format"),
        (call(f"[{GOOD}]"), "malformed_call"),
        (call("{"), "malformed_call"),
        (call("[" * 90_000), "malformed_call"),
        (call(GOOD.replace("crop_video", "zoom")), "malformed_call"),
        (call('{"name": "crop_video"}'), "malformed_call"),
        (call(GOOD.replace("arguments", "parameters")), "malformed_call"),
        (call(GOOD[:-1] + ', "id": 1}'), "malformed_call"),
        (call(GOOD[:-1] + ', "name": "crop_video"}'), "malformed_call"),
        (with_arguments(start_time=float("nan")), "malformed_call"),
        (with_arguments(end_time=float("inf")), "malformed_call"),
        (with_arguments(fps=2), "unknown_argument"),
        (with_arguments(start_time=True), "type"),
        (with_arguments(start_time="1"), "type"),
        (with_arguments(start_time=None), "type"),
        (call(GOOD.replace('"end_time": 2', '"end_time": 1e999')), "type"),
        (with_arguments(end_time="absent"), "required"),
        (with_arguments(video_path=""), "path"),
        (with_arguments(video_path="other.mp4"), "file"),
    ],
)
def test_strict_refuses_with_a_reason(text: str, code: str) -> None:
    move = STRICT.parse(text, STATE)
    assert code_of(move) == code
    assert move.well_formed == (code in ("path", "file"))


def test_strict_lets_the_path_be_left_out() -> None:
    assert STRICT.parse(with_arguments(video_path="absent"), STATE).actions == (CROP,)


# --- schema and messages -----------------------------------------------------------------------


def test_the_schema_is_the_published_one() -> None:
    def parameter(kind: str, description: str) -> dict[str, Any]:
        return {"type": kind, "description": description, "enum": None}

    published = {
        "type": "function",
        "function": {
            "name": "crop_video",
            "description": "Crop a video to a specified duration.",
            "parameters": {
                "type": "object",
                "properties": {
                    "video_path": parameter("string", "Path to the video file"),
                    "start_time": parameter("number", "Start time in seconds"),
                    "end_time": parameter("number", "End time in seconds, must be > start_time"),
                },
                "required": [],
            },
            "strict": False,
        },
    }
    assert CODE.tools(STATE.rules) == [published]
    (strict,) = STRICT.tools(STATE.rules)
    assert strict["function"]["parameters"]["required"] == ["video_path", "start_time", "end_time"]
    assert CODE.tools(replace(STATE.rules, actions=("answer",))) == []


def played(*results: Result, text: str = "out", ending: Ending = "", **rules: Any) -> tuple[Message, ...]:
    state = replace(example_state(**rules), turns=(Turn(results, text, True),), ending=ending)
    return CODE.messages(state)[2:]


def test_the_question_follows_the_skim_and_ends_with_the_path() -> None:
    system, user = CODE.messages(STATE)
    assert [part.text.split("\n")[0] for part in system.parts] == ["You are a helpful assistant.", ""]  # type: ignore[union-attr]
    assert json.dumps(CODE.tools(STATE.rules)[0]) in system.text
    assert [part.time_s for part in user.parts[:-1] if isinstance(part, FramePart)] == [
        0.0,
        42.0,
        84.0,
        126.0,
    ]
    lines = user.text.split("\n")
    assert lines[:5] == ["Which flag is raised?", "A. red", "B. blue", "C. green", "D. white"]
    assert lines[-1] == "The path of this video is: example.mp4"


def test_the_name_of_the_video_is_given_text() -> None:
    arguments = '{"video_path": "a", "start_time": 1, "end_time": 2}'
    call = f'<tool_call>{{"name": "crop_video", "arguments": {arguments}}}</tool_call>'
    (wrong,) = CODE.parse(call, STATE).actions
    assert isinstance(wrong, Invalid) and wrong.code == "file"
    turn = Turn((Result(wrong, error=wrong),), "out", True)
    for message in CODE.messages(replace(STATE, turns=(turn,)))[1::2]:  # the question, the refusal
        named = [
            part for part in message.parts if isinstance(part, TextPart) and "example.mp4" in part.text
        ]
        assert len(named) == 1 and named[0].given


def test_one_tool_message_a_call_with_frames_before_text() -> None:
    good = Result(CROP, clip=Clip((1.0, 1.5)))
    bad = Result(Crop(2.0, 1.0), error=Invalid("order", "The end must be after the start."))
    output, shown, failed = played(good, bad)
    assert (output.role, output.text) == ("assistant", "out")
    assert shown.role == failed.role == "tool"
    opening, first, second, closing = shown.parts
    assert (opening.text, first, second) == ("<tool_response>\n", FramePart(1.0), FramePart(1.5))  # type: ignore[union-attr]
    assert closing.text.endswith(".</tool_response>")  # type: ignore[union-attr]
    expected = "<tool_response>\nTool execution failed: The end must be after the start.</tool_response>"
    assert failed.text == expected


def test_what_is_no_call_is_answered_without_tool_response() -> None:
    malformed = Invalid("malformed_call", "Not JSON.")
    refused = Invalid("answer_length", "Too long.")
    for result in (Result(malformed, error=malformed), Result(Answer("x" * 2000), error=refused)):
        _, reply = played(result)
        assert reply.role == "user"
        assert "tool_response" not in reply.text


def test_the_conversation_ends_as_the_rollout_does() -> None:
    look = Result(CROP, clip=Clip((1.0, 1.5)))
    bad = Result(CROP, error=Invalid("order", "No."))
    assert len(played(look, ending="call_limit")) == 2  # the fifth call is run and shown
    assert len(played(look, ending="turn_limit", last_turn_look="execute")) == 2
    assert len(played(bad, ending="turn_limit", last_turn_look="skip")) == 1  # written, not run
    assert len(played(Result(Answer("B")), ending="answered")) == 1
    assert len(played(bad, ending="malformed")) == 1


def test_no_time_is_told_unless_the_rules_say_so() -> None:
    def user_text(state: State) -> str:
        return CODE.messages(state)[1].text

    task = replace(STATE.task, kind="open", options=(), video="v.mp")
    assert not any(letter.isdigit() for letter in user_text(replace(STATE, task=task)))
    assert "[42.00 s]" in user_text(example_state(timestamps="seconds"))


def test_structured_turns_are_put_into_words() -> None:
    turns = (
        Turn((Result(CROP, clip=Clip((1.0, 1.5))), Result(Crop(3.0, 4.0), clip=Clip((3.0,)))), None, True),
        Turn((Result(Answer("B")),), None, True),
    )
    state = replace(STATE, turns=turns, ending="answered")
    outputs = [message.text for message in CODE.messages(state) if message.role == "assistant"]
    assert CODE.parse(outputs[0], state).actions == (CROP, Crop(3.0, 4.0))
    assert outputs[1] == "<think></think><answer>B</answer>"
