"""Judges by rule and readers of verdicts: hand-worked tables, and what holds of any text."""

# ruff: noqa: D103

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogym import Answer, Crop, Select, Task, TextActions, VideoQAEnv, get_recipe
from videogym.answers import number_of
from videogym.judging import (
    Judge,
    JudgeByKind,
    NumericJudge,
    TokenF1Judge,
    judge_lenient,
    judge_letter,
    parse_verdict_code,
    parse_verdict_strict,
    token_f1,
    with_judge,
)
from videogym.recipes import recipe_names
from videogym.rewards import AnswerTerm, Completeness, Term, TranscriptScore, ZoomScore
from videogym.state import SIGNS, State, is_number


def task(answer: str, kind: str = "numeric", **changes: object) -> Task:
    made = Task("t", "v.mp4", "Which?", "open", answer=answer)
    return replace(made, kind=kind, **changes)  # type: ignore[arg-type]


FILM = "synthetic:brief_event?level=0&duration_s=60&seed=1&size=64x36"
DASHES = "-‐‑‒–—―−﹘﹣－"  # U+002D, U+2010 to U+2015, U+2212, small and full-width ones


# --- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "answer", "verdict"),
    [
        ("12", "12", 1),
        ("12", "There are about 12 people.", 1),
        ("12", "12.0", 1),
        ("12", "12.004", 1),
        ("12", "12.006", 0),
        ("12", "+12", 1),
        ("12", "twelve", 0),
        ("12", "", 0),
        ("12", "11 or 12", 0),  # naming many must not pay
        ("12", "12, 13", 0),
        ("1200", "1,200 m", 1),
        ("1200", "1,20", 0),
        ("1234567", "1,234,567", 1),
        ("1", "1,2345", 0),
        ("-5", "−5 °C", 1),
        ("-5", "-5", 1),
        ("5", "-5", 0),
        ("3", "3-5", 0),
        ("10", "10:30", 0),
        ("2024", "2024-05-01", 0),
        ("3", "mp3", 0),
        ("2", "2x4", 0),
        ("12", "12cm", 1),
        ("1.2", "1.2.3", 0),
        ("1500", "1.5e3", 1),
        ("0.5", "50%", 0),
        ("50", "50%", 1),
        ("1", "1e999", 0),
        ("3", "nan", 0),
        # Every dash before a number is a minus, and between two numbers none is.
        *((truth, f"{dash}5", verdict) for dash in DASHES for truth, verdict in (("5", 0), ("-5", 1))),
        *(
            (truth, f"about {dash}5 °C", verdict)
            for dash in DASHES
            for truth, verdict in (("5", 0), ("-5", 1))
        ),
        *((truth, f"3{dash}5", 0) for dash in DASHES for truth in ("3", "5", "-5", "35", "-2")),
        ("–5", "-5", 1),
        ("0.05", "5e–2", 1),
        ("10", "10²", 0),
        ("102", "10²", 0),
        ("102", "10₂", 0),
        ("1.5", "1.5×10³", 0),
        ("5", "5½", 0),
        ("5", "5 ½", 0),
        ("12", "12 m²", 1),
        ("5", "５", 1),
        ("0.5", ".5", 1),
        ("0.5", "about .5 of it", 1),
        ("-0.5", "it is −.5.", 1),
        ("0.5", "-.5", 0),
        (".5", "0.5", 1),
        ("-.5", "-0.5 m", 1),
        (".5", "0.6", 0),
        ("1_000", "1000", 1),
        ("1000", "about 1_000 people", 1),
        ("1_000", "1", 0),
        (" 5.e1 ", "50", 1),
        ("1_0.2_5e1_0", "102500000000", 1),
        ("1e-99999", "0", 1),
        ("٣", "3", 1),
        ("5", "v.5", 0),
        ("5", "...5", 0),
        ("0.5", "1.2.5", 0),
        ("0.5", ".5.5", 0),
        ("0.5", ".5 or .6", 0),
    ],
)
def test_one_number_is_compared_and_many_are_wrong(truth: str, answer: str, verdict: float) -> None:
    assert NumericJudge()(task(truth), answer) == verdict


def test_the_larger_allowance_counts() -> None:
    judge = NumericJudge(absolute=1.0, relative=0.1)
    assert [judge(task("100"), text) for text in ("90", "110", "89.9", "110.1")] == [1, 1, 0, 0]
    assert [judge(task("2"), text) for text in ("1", "3", "3.1")] == [1, 1, 0]
    assert NumericJudge(absolute=0.0)(task("2"), "2") == 1.0


def test_what_no_numeric_judge_can_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"task 't': NumericJudge needs one number.*got 'two or 3, 4'"):
        NumericJudge()(task("two or 3, 4", "open"), "3")
    with pytest.raises(ValueError, match="absolute must be finite and at least 0, got -1"):
        NumericJudge(absolute=-1)
    with pytest.raises(ValueError, match="relative must be finite and at least 0, got nan"):
        NumericJudge(relative=math.nan)


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{}", "{:,}", "about {}.", "({} apples)", "{}.00"]))
def test_an_integer_is_read_however_it_is_written(number: int, form: str) -> None:
    text = form.format(number)
    assert NumericJudge()(task(str(number)), text) == 1.0
    assert NumericJudge()(task(str(number + 1)), text) == 0.0


@given(st.text("0123456789.,_eE+-–− ٣ ", max_size=9))
def test_all_readers_of_numbers_agree(text: str) -> None:
    """What a task may have as its answer every judge can read, by the value that Python gives it."""
    number = number_of(text)
    if is_number(text):
        value = float(text.translate(SIGNS))
        assert number is not None and math.isclose(number, value)
        assert NumericJudge()(task(text), repr(value)) == NumericJudge()(task(text), text) == 1.0
        assert judge_lenient(task(text), text) == 1.0
    if number is not None and math.isfinite(float(number)):
        assert NumericJudge(relative=1e-9)(task(repr(float(number))), text) == 1.0


@pytest.mark.parametrize("unit", ["9", "9,999", "1.", "-", "1e", "9 ", "x9", "9_", ".9"])
def test_long_answers_take_no_time(unit: str) -> None:
    begun = time.perf_counter()
    for tail in ("", "x", "x9"):
        NumericJudge()(task("1"), unit * (100_000 // len(unit)) + tail)
    assert time.perf_counter() - begun < 2.0


# --- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "truth", "f1"),
    [
        ("a red flag", "red flag", 1.0),
        ("The RED-flag!", "redflag", 1.0),  # as SQuAD does: punctuation vanishes
        ("red", "red flag", 2 / 3),  # precision 1, recall 1/2
        ("red flag on a pole", "red flag", 2 * (2 / 4) * 1 / (2 / 4 + 1)),
        ("red red red", "red flag", 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)),  # counted once
        ("blue", "red flag", 0.0),
        ("", "red flag", 0.0),
        ("!?", "red flag", 0.0),
        ("A", "a", 1.0),
        ("the", "a", 0.0),
        ("?", "?", 1.0),
        ("?", "!", 0.0),
        ("ﬂag", "flag", 1.0),
        ("“flag”", "flag", 1.0),
        # Marks that make another number or word are no punctuation.
        ("102", "10²", 0.0),
        ("H2O", "H₂O", 0.0),
        ("-5", "5", 0.0),
        ("–5", "-5", 1.0),
        ("3.5", "35", 0.0),
        ("3–5", "35", 0.0),
        ("10:30", "1030", 0.0),
    ],
)
def test_token_f1_by_hand(answer: str, truth: str, f1: float) -> None:
    assert token_f1(answer, truth) == pytest.approx(f1)


words = st.lists(st.sampled_from(["red", "blue", "flag", "kite"]), min_size=1, max_size=8)


@given(words, words)
def test_token_f1_is_symmetric_blind_to_order_and_one_only_for_the_same_words(
    left: list[str], right: list[str]
) -> None:
    value = token_f1(" ".join(left), " ".join(right))
    assert value == token_f1(" ".join(right), " ".join(reversed(left)))
    assert 0.0 <= value <= 1.0
    assert (value == 1.0) == (Counter(left) == Counter(right))


@given(st.text(), st.text())
def test_token_f1_takes_any_text(left: str, right: str) -> None:
    assert 0.0 <= token_f1(left, right) <= 1.0


def test_bounds_make_verdicts() -> None:
    judge, truth = TokenF1Judge(full=0.8, half=0.5), task("red flag", "open")
    # F1 of 1, 2/3, 4/5 (two of three words), and of one word in three: 2/5.
    answers = ["red flag", "red", "red flag there", "red kite there"]
    assert [judge(truth, answer) for answer in answers] == [1.0, 0.5, 1.0, 0.0]
    choice = task("B", "choice", options=("a kite", "a red flag"))
    assert [judge(choice, answer) for answer in ("red flag", "B", "A", "a kite")] == [1.0, 1.0, 0.0, 0.0]
    # Words in common with the right option do not make another option right.
    sides = task("B", "choice", options=("not a red flag", "a red flag"))
    assert judge(sides, "Not a red flag.") == 0.0
    letters = task("A", "choice", options=("B", "C", "A", "D"))
    assert [judge(letters, answer) for answer in "ABCD"] == [1.0, 0.0, 0.0, 0.0]
    for full, half in ((0.5, 0.8), (0.8, 0.0), (1.1, 0.5)):
        with pytest.raises(ValueError, match="0 < half <= full <= 1"):
            TokenF1Judge(full, half)


# --- one judge for each kind -------------------------------------------------------------------


def test_every_kind_has_its_judge() -> None:
    judge = JudgeByKind(choice=judge_letter, numeric=NumericJudge(), open=TokenF1Judge())
    choice = task("B", "choice", options=("a kite", "a red flag"))
    assert (judge(choice, "B"), judge(choice, "b")) == (1.0, 0.0)
    assert judge(task("12"), "12 people") == 1.0
    assert judge(task("red flag", "open"), "the red flag") == 1.0
    assert JudgeByKind()(choice, "b") == judge_lenient(choice, "b") == 1.0


def test_settings_of_a_judge_are_part_of_the_identity() -> None:
    def identity(judge: Judge) -> str:
        return with_judge(get_recipe("DEFAULT"), judge).identity

    judges: list[Judge] = [NumericJudge(), NumericJudge(0.1), TokenF1Judge(), TokenF1Judge(0.9)]
    judges += [judge_letter, JudgeByKind(), JudgeByKind(numeric=NumericJudge())]
    assert len({identity(judge) for judge in judges}) == len(judges)
    assert identity(NumericJudge(0.1)) == identity(NumericJudge(0.1))


@pytest.mark.parametrize("name", ["DEFAULT", "VIDEO_MTR/code", "LONGVT/paper", "LONGVT/code"])
def test_another_judge_takes_the_place_of_the_recipes_own_and_of_nothing_else(name: str) -> None:
    recipe = get_recipe(name)
    changed = with_judge(recipe, NumericJudge())
    assert [term.function for term in changed.terms if term.name != "answer"] == [
        term.function for term in recipe.terms if term.name != "answer"
    ]
    (answer,) = (term.function for term in changed.terms if term.name == "answer")
    assert isinstance(answer, AnswerTerm | TranscriptScore) and answer.judge == NumericJudge()
    assert "judge" not in dict(changed.choices) and changed.rules == recipe.rules
    with pytest.raises(ValueError, match=f"recipe '{name}' has no term that asks a judge"):
        with_judge(replace(recipe, terms=recipe.terms[:1] if name == "DEFAULT" else ()), NumericJudge())


def says(verdict: float | None) -> Judge:
    def judge(task: Task, answer: str) -> float | None:
        return verdict

    return judge


TRUE = Task("t", FILM, "What is waved?", "open", answer="red")
ASKED = [name for name in recipe_names() if name != "VIDEO_MTR/code" and "VIDEO_MTR/code-" not in name]


@pytest.mark.parametrize("answer", ["red", "blue"])  # right and wrong by the default judge
@pytest.mark.parametrize("name", ASKED)
def test_one_judge_decides_the_accuracy_and_every_term_that_asks(name: str, answer: str) -> None:
    """Played with a judge that contradicts the default one, and with one that abstains."""

    def ended(verdict: float | None) -> dict[str, Any]:
        env = TextActions(VideoQAEnv([TRUE], with_judge(get_recipe(name), says(verdict))))
        env.reset(seed=0)
        rules = env.unwrapped.state.rules
        given = {"fps": 0.5} if "fps" in rules.crop_arguments else {}
        given |= {"frames": 4, "scale": 1.0} if "frames" in rules.crop_arguments else {}
        look = Select(0, 30) if "select" in rules.actions else Crop(0, 30, **given)
        for action in (look, Answer(answer)):
            *_, info = env.step(env.grammar.write(action, env.unwrapped.state))
        paid = {
            term: float(value)
            for term, value in info["reward_terms"].items()
            if info["reward_present"][term]
        }
        env.close()
        return {"success": info["is_success"], **paid}

    right, wrong, silent = ended(1.0), ended(0.0), ended(None)
    assert right["success"] and not wrong["success"]
    assert right["answer"] > 0 == wrong["answer"] and "answer" not in silent
    if name == "EVA/code":
        assert (right["format"], wrong["format"], "format" in silent) == (0.0, 0.05, False)
    if name == "VIDEO_ZOOMER/paper":
        assert (right["tool"], wrong["tool"], "tool" in silent) == (0.5, 0.0, False)
    if name == "PARAVT/paper":
        assert (right["tool"], wrong["tool"], "tool" in silent) == (0.8, 0.3, False)
    if name == "PARAVT/code":
        assert right["tool"] - wrong["tool"] == 0.5 and "tool" not in silent


def test_the_tool_term_of_videozoomers_code_asks_the_same_judge() -> None:
    recipe = get_recipe("VIDEO_ZOOMER/code")
    changed = {term.name: term.function for term in with_judge(recipe, NumericJudge()).terms}
    assert changed["answer"] == ZoomScore("answer", NumericJudge())
    assert changed["tool"] == ZoomScore("tool", NumericJudge())
    assert changed["format"] == ZoomScore("format")


def test_a_term_of_ones_own_with_a_judge_asks_the_chosen_one() -> None:
    @dataclass(frozen=True)
    class Brief:
        judge: Judge = judge_lenient

        def __call__(self, before: State, after: State) -> float:
            return 1.0

    own = replace(get_recipe("DEFAULT"), terms=(Term("brief", "turn", Brief()),))
    assert with_judge(own, NumericJudge()).terms[0].function == Brief(NumericJudge())
    second = replace(own, terms=(Term("answer", "trajectory", Completeness()),))
    assert with_judge(second, NumericJudge()).terms[0].function == Completeness(NumericJudge())


# --- verdicts of a language model --------------------------------------------------------------

# What LongVT's code does, written from its description: strip; exactly 1, 0.5 or 0; or what follows the
# last "Judgement:" is searched for "1", then "0.5".


@given(st.text(alphabet="Judgement: 01.5\n", max_size=40) | st.text(max_size=40))
def test_the_published_parser_finds_a_verdict_in_any_text(text: str) -> None:
    verdict = parse_verdict_code(text)
    assert verdict in (0.0, 0.5, 1.0)
    tail = text.strip()
    if "Judgement:" in tail:
        tail = tail[tail.rindex("Judgement:") + len("Judgement:") :]
        expected = 1.0 if "1" in tail else 0.5 if "0.5" in tail else 0.0
    else:
        expected = 1.0 if tail == "1" else 0.5 if tail == "0.5" else 0.0
    assert verdict == expected


@given(st.text(alphabet="Judgement: 01.5\n", max_size=40) | st.text(max_size=40))
def test_the_strict_parser_reads_numbers_equal_to_a_verdict_and_nothing_else(text: str) -> None:
    verdict = parse_verdict_strict(text)
    tail = text.rpartition("Judgement:")[2].strip()
    if verdict is None:
        assert tail not in ("0", "0.5", "1", "0.0", "1.0", ".5")
    else:
        assert float(tail) == verdict in (0.0, 0.5, 1.0)
        assert set(tail) <= set("01.5")  # not "1e0", "+1" or digits of another script


@given(st.sampled_from(["1", "0.5", "0"]), st.text(), st.sampled_from(["", " ", "\n"]))
def test_both_parsers_read_what_the_prompt_asks_for(verdict: str, thought: str, space: str) -> None:
    reply = f"{thought}\nJudgement: {verdict}{space}"
    assert parse_verdict_strict(reply) == parse_verdict_code(reply) == float(verdict)
