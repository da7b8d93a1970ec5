"""The native grammar offers and accepts exactly the actions of the rules."""

# ruff: noqa: D103

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from videogym.actions import Answer, Crop, Select
from videogym.geometry import Region
from videogym.grammars import FramePart, get_grammar
from videogym.state import Clip, Invalid, Move, Result, Turn
from videogym.testing.grammar_suite import example_state

NATIVE = get_grammar("native")
STATE = example_state(regions=True)


def call(name: str = "crop", thought: str = "", **arguments: Any) -> str:
    return f"{thought}<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.mark.parametrize(
    ("text", "action"),
    [
        (call(start_s=1, end_s=2.5), Crop(1.0, 2.5)),
        (call(start_s=1, end_s=2, region=[0, 0, 1, 0.5]), Crop(1.0, 2.0, (0.0, 0.0, 1.0, 0.5))),
        (call("select", start_s=-1, end_s=-2), Select(-1.0, -2.0)),
        (call("answer", text="B"), Answer("B")),
        (call("answer", text="</tool_call><tool_call>"), Answer("</tool_call><tool_call>")),
        (call("answer", "<think>a <tool_call>{} b</think>\n", text=""), Answer("")),
        (f"\n {call('answer', text='B')} \n", Answer("B")),
    ],
)
def test_one_call_a_turn_is_read(text: str, action: object) -> None:
    assert NATIVE.parse(text, STATE) == Move((action,), text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "format"),
        ("B", "format"),
        ("<think>x", "format"),
        ("<think>x</think>", "format"),
        ("I think " + call("answer", text="B"), "format"),
        (call("answer", text="B") + "done", "format"),
        (call("answer", text="B") * 2, "malformed_call"),
        ("<tool_call></tool_call>", "malformed_call"),
        ('<tool_call>["answer"]</tool_call>', "malformed_call"),
        ("<tool_call>{'name': 'answer'}</tool_call>", "malformed_call"),
        ('<tool_call>{"name": ["crop"], "arguments": {}}</tool_call>', "malformed_call"),
        (
            '<tool_call>{"name": "crop", "arguments": {"start_s": NaN, "end_s": 1}}</tool_call>',
            "malformed_call",
        ),
        ('<tool_call>{"name": "crop", "arguments": {"start_s": 0, "end_s": 1e999}}</tool_call>', "type"),
        (call("zoom", start_s=1, end_s=2), "unknown_tool"),
        (call(start_s=1), "required"),
        (call("answer"), "required"),
        (call(start_s=1, end_s=2, fps=4), "unknown_argument"),
        (call("select", start_s=1, end_s=2, region=[0, 0, 1, 1]), "unknown_argument"),
        (call(start_s="1", end_s=2), "type"),
        (call(start_s=True, end_s=2), "type"),
        (call(start_s=10**400, end_s=2), "type"),
        (call(start_s=1, end_s=2, region=[0, 0, 1]), "type"),
        (call(start_s=1, end_s=2, region=None), "type"),
        (call("answer", text=5), "type"),
    ],
)
def test_everything_else_is_refused_with_a_code(text: str, code: str) -> None:
    move = NATIVE.parse(text, STATE)
    (action,) = move.actions
    assert isinstance(action, Invalid)
    assert (action.code, move.well_formed) == (code, False)


def test_only_the_actions_of_the_rules_are_offered_and_accepted() -> None:
    rules = replace(STATE.rules, actions=("crop", "answer"), regions=False)
    state = replace(STATE, rules=rules)
    assert [tool["function"]["name"] for tool in NATIVE.tools(rules)] == ["crop", "answer"]
    assert "region" not in NATIVE.messages(state)[0].text
    refused = {
        call("select", start_s=1, end_s=2): "crop or answer",
        call(start_s=1, end_s=2, region=[0, 0, 1, 1]): "start_s",
    }
    for text, hint in refused.items():
        (action,) = NATIVE.parse(text, state).actions
        assert isinstance(action, Invalid)
        assert hint in action.reason
    for unwritable in (Select(1.0, 2.0), Crop(1.0, 2.0, (0.0, 0.0, 1.0, 1.0))):
        with pytest.raises(ValueError, match="no words"):
            NATIVE.write(unwritable, state)


def test_what_is_written_fits_the_schema_it_was_announced_with() -> None:
    schemas = {
        tool["function"]["name"]: tool["function"]["parameters"] for tool in NATIVE.tools(STATE.rules)
    }
    for action in (Crop(1.0, 2.0), Crop(1.0, 2.0, (0.0, 0.0, 0.5, 0.5)), Select(0.0, 9.0), Answer("B")):
        written = json.loads(
            NATIVE.write(action, STATE).removeprefix("<tool_call>").removesuffix("</tool_call>")
        )
        jsonschema.validate(written["arguments"], schemas[written["name"]])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"start_s": 1, "end_s": 2, "fps": 3}, schemas["crop"])


def test_replies_tell_times_and_what_is_left() -> None:
    region = Region(0.0, 0.0, 0.5, 0.5)
    look = Turn((Result(Crop(10.0, 12.0), clip=Clip((10.0, 11.04), region)),), "one", True)
    wrong = Turn((Result(Invalid("c", "Broken."), error=Invalid("c", "Broken.")),), "two", False)
    state = replace(example_state(frame_budget=20), turns=(look, wrong, wrong))
    talk = NATIVE.messages(state)
    assert [m.role for m in talk] == ["system", "user", *("assistant", "tool") * 3]
    assert "lasts 128.00 s" in talk[1].text
    assert "[42.00 s]" in talk[1].text
    assert talk[1].text.endswith("4 turns are left. 16 more frames can be shown.")
    assert [p for p in talk[3].parts if isinstance(p, FramePart)] == [
        FramePart(10.0, region),
        FramePart(11.04, region),
    ]
    assert "[11.04 s]" in talk[3].text
    assert "3 turns are left. 14 more frames can be shown." in talk[3].text
    assert "Refused. Broken. 2 turns are left." in talk[5].text
    assert "This is your last turn: call answer." in talk[7].text


def test_structured_turns_are_put_into_words_and_unspeakable_ones_left_empty() -> None:
    turns = (
        Turn((Result(Crop(1.0, 2.0), clip=Clip((1.0,))),), None, True),
        Turn((Result(Invalid("a", "b")),), None, True),
    )
    talk = NATIVE.messages(replace(STATE, turns=turns))
    assert NATIVE.parse(talk[2].text, STATE).actions == (Crop(1.0, 2.0),)
    assert talk[4].text == ""
