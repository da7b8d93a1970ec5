"""Format rewards at tokens of structure: which these are, and what they and the others learn."""

# ruff: noqa: D103

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rounding import rounded
from small_chat import ANSWER, FAMILIES, RECIPE, TASKS, crop, load, make_actor, make_env, play, record

from agents.train_grpo_mllm import Config, compared
from agents.vlm.actor import ChatActor
from agents.vlm.batch import turn_payments
from agents.vlm.records import Record, TurnRecord
from agents.vlm.structure import structural_places, structural_tokens
from videogym import Term
from videogym.grammars import get_grammar, grammar_names

TAGS = ("think", "tool_call", "answer", "video_zoom")


def structure(text: str, tags: tuple[str, ...] = TAGS) -> str:
    return "".join(text[first:last] for first, last in structural_places(text, tags))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>look {1}</think>\n<answer>B</answer>", "<think></think><answer></answer>"),
        (
            crop(1, 2.5),
            '<think></think><tool_call>{"name":"","arguments":{"start_time":,"end_time":}}</tool_call>',
        ),
        (
            '<video_zoom>{"fps": 2, "segment": [1.5, 3]}</video_zoom>',
            '<video_zoom>{"fps":,"segment":[,]}</video_zoom>',
        ),
        ("no tags at all {}", ""),
        ("<b>B</b><answer>B", "<answer>"),  # a tag that the grammar has not, and one never closed
        ("<answer>{1: 2}</answer>", "<answer></answer>"),  # braces of an answer are its words
        ('<tool_call>{"a": "b', '<tool_call>{"a":"'),  # a string that never ends
        ('<tool_call>{"a": "b\\"', '<tool_call>{"a":"'),  # nor does this one: its quote is escaped
        ('<tool_call>{"a": "\\\\"}', '<tool_call>{"a":""}'),
        ('<tool_call>{"a\\"b" : true}', '<tool_call>{"a\\"b":}'),
        ('<tool_call>[{"x": null}, {}]', '<tool_call>[{"x":},{}]'),
        ("<tool_call><tool_call>{}</tool_call>{}", "<tool_call><tool_call>{}</tool_call>"),
        ('<tool_call>{"a": "<think>"}</tool_call>', '<tool_call>{"a":"<think></tool_call>'),
    ],
)
def test_tags_and_the_skeleton_of_calls_are_structure(text: str, expected: str) -> None:
    assert structure(text) == expected


strings = st.text(st.characters(codec="utf-8", exclude_characters='"\\<'), max_size=6)
values = st.one_of(
    strings.map(lambda word: [('"', True), (word, False), ('"', True)]),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: [(repr(number), False)]),
    st.sampled_from(("true", "null")).map(lambda word: [(word, False)]),
)
spaces = st.text(" \n\t", max_size=3).map(lambda text: (text, False))


@given(st.lists(st.tuples(strings, spaces, values, spaces), max_size=5), strings)
def test_values_are_no_structure_whatever_they_are(members: list[Any], thought: str) -> None:
    """A call put together of pieces that are structure and pieces that are none."""
    pieces = [("<think>", True), (thought, False), ("</think>", True), ("<tool_call>", True), ("{", True)]
    for number, (key, gap, value, end) in enumerate(members):
        comma = [(",", True)] if number else []
        pieces += [*comma, gap, (f'"{key}"', True), gap, (":", True), end, *value, end]
    pieces += [("}", True), ("</tool_call>", True)]
    text = "".join(piece for piece, _ in pieces)
    assert structure(text) == "".join(piece for piece, counts in pieces if counts)


@given(st.lists(st.sampled_from([*'{}[]",:\\ a1', "<think>", "</answer>", "<tool_call>", "</tool_call>"])))
def test_ranges_are_in_order_and_hold_every_tag(parts: list[str]) -> None:
    text = "".join(parts)
    places = list(structural_places(text, TAGS))
    borders = [border for place in places for border in place]
    assert borders == sorted(borders) and all(first < last for first, last in places)
    assert borders == [] or (borders[0] >= 0 and borders[-1] <= len(text))
    for tag in ("<think>", "</answer>", "<tool_call>", "</tool_call>"):
        assert structure(text).count(tag) >= text.count(tag)


@pytest.mark.parametrize("piece", ["<tool_call>", '"', '"\\', '" ', "{", "</think"])
def test_long_hostile_outputs_are_read(piece: str) -> None:
    """In time that is quadratic in their length these would take hours."""
    assert structure("<tool_call>" + piece * 300_000).startswith("<tool_call>")


@pytest.mark.parametrize("name", grammar_names())
def test_every_grammar_tells_its_tags(name: str) -> None:
    assert "think" in get_grammar(name).tags  # type: ignore[attr-defined]


# --- tokens ------------------------------------------------------------------------------------


@pytest.fixture
def make(checkpoints: dict[str, Path]) -> Callable[[], ChatActor]:
    """Makes actors with the same weights."""
    return lambda: make_actor(load(checkpoints["qwen2_5_vl"]))


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_with_structure_in_them_and_the_end_are_structural(
    checkpoints: dict[str, Path], family: str
) -> None:
    """Tags, keys and brackets are among them; a thought is not, whatever it holds."""
    model = load(checkpoints[family])
    chat = make_env(model).chat
    text = '<think>Größe 中 {"a": 1} </think>\n<tool_call>{"name": "crop", "end": 25}</tool_call>'
    ids = [*chat.output_ids(text), chat.end_id]
    places = structural_tokens(ids, model.tokenizer, chat.end_id, TAGS)
    assert places.dtype == torch.bool and places.shape == (len(ids),) and bool(places[-1])
    kept = [token for token, part in zip(ids[:-1], places.tolist(), strict=False) if part]
    content = [token for token, part in zip(ids[:-1], places.tolist(), strict=False) if not part]
    told = model.tokenizer.decode(kept)
    for piece in ("<think>", "</think>", "<tool_call>", "</tool_call>", "name", "end", "{", "}"):
        assert piece in told
    thought = text[len("<think>") : text.index(" </think>")]
    assert thought in model.tokenizer.decode(content), "the thought is content from end to end"


def test_an_output_without_structure_has_none_but_its_end(make: Callable[[], ChatActor]) -> None:
    model = make().model
    chat = make_env(model).chat
    ids = chat.output_ids("I cannot say.")
    assert not structural_tokens(ids, model.tokenizer, chat.end_id, TAGS).any()
    assert structural_tokens([*ids, chat.end_id], model.tokenizer, chat.end_id, TAGS).sum() == 1
    assert structural_tokens([], model.tokenizer, chat.end_id, TAGS).shape == (0,)


# --- what is learned ---------------------------------------------------------------------------

THIRD = 1 / math.sqrt(3)


def paid(one: Record, answer: float, form: float) -> Record:
    """The record, its last turn paid by these two terms and absent others."""
    terms = {name: None for name in one.turns[-1].terms} | {"answer": answer, "format": form}
    early = [replace(turn, reward=0.0, terms=dict.fromkeys(terms)) for turn in one.turns[:-1]]
    last = replace(one.turns[-1], reward=answer + form, terms=terms)
    return replace(one, turns=(*early, last), success=answer > 0)


@pytest.mark.parametrize("credit", ["trajectory", "turn"])
def test_content_learns_from_the_answer_and_structure_from_the_format_too(
    make: Callable[[], ChatActor], credit: str
) -> None:
    """Answers 1, 1, 0 and formats 1, 0, 1.

    Of 1, 1, 0 the mean is 2/3 and the deviation 1/sqrt(3), so content gets 1/sqrt(3) twice and -2/sqrt(3);
    of the sums 2, 1, 1 the mean is 4/3 and the deviation the same: 2/sqrt(3) and -1/sqrt(3) twice.
    """
    actor = make()
    env = make_env(actor.model, groups=1)
    records = play(env, actor, lambda turn, row: ANSWER)
    records = [paid(*one) for one in zip(records, (1.0, 1.0, 0.0), (1.0, 0.0, 1.0), strict=True)]
    config = Config.of(recipe=RECIPE, tasks=TASKS, group_size=3, credit=credit)
    usual = compared(config, records, actor)
    batch = compared(replace(config, format_credit="structure"), records, actor)
    structure = batch.structure(config.tags, actor.model)
    for row, content, whole in zip(range(3), (1, 1, -2), (2, -1, -1), strict=True):
        assert 0 < structure[row].sum() < len(structure[row])
        advantage = batch.get("advantage")[row]
        assert advantage[~structure[row]].tolist() == rounded(
            [content * THIRD] * int((~structure[row]).sum())
        )
        assert advantage[structure[row]].tolist() == rounded([whole * THIRD] * int(structure[row].sum()))
        assert usual.get("advantage")[row].tolist() == rounded([whole * THIRD] * len(advantage))


def test_where_only_the_format_differs_content_learns_nothing(make: Callable[[], ChatActor]) -> None:
    """Three answers that are paid alike, of which one is well formed."""
    actor = make()
    records = play(make_env(actor.model, groups=1), actor, lambda turn, row: ANSWER)
    records = [paid(one, 1.3, form) for one, form in zip(records, (0.0, 0.0, 1.0), strict=True)]
    config = Config.of(recipe=RECIPE, tasks=TASKS, group_size=3, format_credit="structure")
    batch = compared(config, records, actor)
    for advantage, places in zip(
        batch.get("advantage"), batch.structure(config.tags, actor.model), strict=True
    ):
        assert not advantage[~places].any() and advantage[places].all()
    assert len(batch.with_contrast(3)) == 3


def pays(before: Any, after: Any) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("gated", "answer", "whole", "rest"),
    [
        ("no", 0.0, [0.1, 0.3], [0.0, 0.2]),
        ("before_last", 0.0, [0.0, 0.3], [0.0, 0.2]),  # a wrong answer keeps the format of its own turn
        ("all", 0.0, [0.0, 0.2], [0.0, 0.2]),
        ("all", 1.0, [0.1, 1.3], [0.0, 1.2]),
    ],
)
def test_a_term_left_out_takes_its_gate_along(
    gated: Any, answer: float, whole: list[float], rest: list[float]
) -> None:
    """Two turns with 0.1 for the format each; the last also pays 0.2 for time, and the answer."""
    terms = (
        Term("format", "turn", pays, 0.1, gated),
        Term("answer", "trajectory", pays),
        Term("time", "turn", pays),
    )
    turns = [{"format": 0.1, "answer": None, "time": None}, {"format": 0.1, "answer": answer, "time": 0.2}]
    one = record(*(TurnRecord((), (), output=(1,), terms=paid) for paid in turns), success=answer > 0)
    one = replace(one, ending="answered")
    for without, expected in (("", whole), ("format", rest)):
        found, played = turn_payments(terms, [one], without)
        assert found.dtype == torch.float64 and played.all()
        assert found[0].tolist() == rounded(expected)


def test_payments_of_one_sum_stay_equal_in_any_order() -> None:
    """0.1 + 0.2 + 0.3 and its reverse differ by 6e-8 in float32, and by 1e-16 here."""
    terms = (Term("a", "turn", pays),)
    records = [
        record(
            *(TurnRecord((), (), output=(1,), terms={"a": p}) for p in order), success=True, ending="over"
        )
        for order in ((0.1, 0.2, 0.3), (0.3, 0.2, 0.1))
    ]
    found = turn_payments(terms, records)[0].sum(1)
    assert abs(float(found[0] - found[1])) < 1e-12


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("DEFAULT", "needs a recipe with a term 'format'; DEFAULT has coverage, answer"),
        (replace(RECIPE, name="OWN", grammar="native", terms=RECIPE.terms[:1]), "OWN has answer"),
    ],
)
def test_recipes_that_pay_no_format_are_refused(recipe: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.of(recipe=recipe, tasks=TASKS, format_credit="structure")
