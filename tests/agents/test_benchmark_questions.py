"""Questions of a harness as tasks, responses to it, and the folder that a run continues from."""

# ruff: noqa: D103

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.benchmarks.players import BenchmarkConfig, config_from, make_player
from agents.benchmarks.questions import (
    NO_ANSWER,
    AsAsked,
    lettered_options,
    make_task,
    response,
    true_answer,
)
from agents.benchmarks.store import OtherRun, TraceStore
from videogym import Answer, Crop, VideoQAEnv, get_recipe
from videogym.grammars import get_grammar
from videogym.state import Move
from videogym.testing.coded_clips import write_clip
from videogym.traces import Trace, TurnTrace, read_traces, trace_of

PROMPT = "Select one.\nWhich colour?\nA. red.\nB. blue.\nC. green.\nD. white.\nAnswer with the letter."
COLOURS = ("red.", "blue.", "green.", "white.")


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        (PROMPT, COLOURS),
        ("Q?\n(A) one\n(B) two\nOnly give the best option.\nBest option: (", ("one", "two")),
        ("Q?\nA: one\nB) two", ("one", "two")),
        ("Q?\n\nA. one\nwhich goes on\nB. two", ("one", "two")),  # an option of two lines
        ("A. Lincoln said what?\nA. yes\nB. no", ("yes", "no")),  # the last list counts
        ("Q?\nA. one\nB. two\nC. three\nD. four\nA. is right?", ()),  # one option is no list
        ("Q?\nA. one", ()),
        ("Q?\nB. one\nC. two", ()),
        ("Is (A) or (B) on the left?", ()),
        ("Q?\na. one\nb. two", ()),
        ("", ()),
    ],
)
def test_options_are_found_in_prompts(prompt: str, options: tuple[str, ...]) -> None:
    assert lettered_options(prompt) == options


@given(st.lists(st.from_regex(r"\A[a-z]{1,8}\Z"), min_size=2, max_size=26), st.text(alphabet="xyz ?\n"))
def test_listed_options_are_read_back(options: list[str], question: str) -> None:
    lines = [f"{chr(ord('A') + i)}. {text}" for i, text in enumerate(options)]
    assert lettered_options("\n".join([question, *lines, "answer"])) == tuple(options)


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("B", "B"),  # Video-MME, MLVU, LVBench
        ("b", "B"),
        ("2", "C"),  # EgoSchema: an index in digits
        (2, "C"),  # LongVideoBench: an index
        (0, "A"),
        ("blue.", "B"),
        ("blue", "B"),
        (4, None),
        (-1, None),
        ("4", None),
        ("purple", None),
        (None, None),
        (True, None),
        (["B"], None),
    ],
)
def test_what_a_target_says_of_a_choice(target: object, answer: str | None) -> None:
    assert true_answer(target, COLOURS) == answer


def test_a_digit_that_is_an_option_is_that_option() -> None:
    assert true_answer("2", ("1", "2", "3")) == "B"
    assert true_answer(2, ("1", "2", "3")) == "C"  # a number is an index, as in LongVideoBench


def test_a_question_whose_right_option_is_unknown_is_open() -> None:
    task = make_task("t/0", "a.mp4", PROMPT, None, {}, "t")
    assert (task.kind, task.options, task.answer) == ("open", (), "")
    task = make_task("t/0", "a.mp4", "How many?", 12, {}, "t")
    assert (task.kind, task.answer) == ("open", "12")


def test_metadata_is_what_json_can_say() -> None:
    row = {"duration": "long", "type": ["a", "b"], "answer": "B", "question": "Q", "picture": object()}
    task = make_task("t/0", "a.mp4", PROMPT, "B", row | {"bad": float("nan"), "text": "x" * 999}, "t")
    assert dict(task.metadata) == {"duration": "long", "type": ("a", "b")}
    assert (task.question, task.options, task.answer) == (PROMPT, COLOURS, "B")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve seconds of real H.264."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_clip(path, 48, rate=4)
    return str(path)


@pytest.mark.parametrize("name", ["longvt/strict", "longvt/code", "native", "video_mtr/strict"])
def test_a_prompt_is_shown_whole_and_once(film: str, name: str) -> None:
    recipe = "VIDEO_MTR_TINY" if name.startswith("video") else "LONGVT_TINY"
    env = VideoQAEnv([make_task("t/0", film, PROMPT, "B", {}, "t")], recipe)
    env.reset(options={"task_id": "t/0"})
    plain, asked = get_grammar(name), AsAsked(get_grammar(name))
    shown = "".join(message.text for message in asked.messages(env.state))
    assert shown.count(PROMPT) == 1 and shown.count("white") == 1
    usual = "".join(message.text for message in plain.messages(env.state))
    assert usual.count("white") == 2  # without it the options stand there twice
    assert asked.name == plain.name and asked.tools(env.recipe.rules) == plain.tools(env.recipe.rules)


def test_a_prompt_file_words_what_stands_around_the_prompt(film: str, tmp_path: Path) -> None:
    file = tmp_path / "prompt.toml"
    file.write_text(
        'system = "Watch."\n'
        'question = "{frames}{question}{options} It is {path}. {instruction}"\n'
        'instruction = "Think, then answer."\n'
    )
    usual = {"recipe": "LONGVT_TINY", "grammar": "longvt/code"}
    config = config_from(BASE | usual | {"prompt_file": str(file)})
    env = VideoQAEnv([make_task("t/0", film, PROMPT, "B", {}, "t")], config.rules)
    env.reset(options={"task_id": "t/0"})
    system, asked = config.rules.language.messages(env.state)
    assert system.text.startswith("Watch.")
    assert asked.text == f"{PROMPT} It is film.mp4. Think, then answer."
    assert config_from(BASE | usual).settings()["recipe"] != config.settings()["recipe"]


def test_the_wrapped_grammar_is_another_recipe() -> None:
    base = get_recipe("LONGVT_TINY")
    assert replace(base, grammar=AsAsked(get_grammar(base.grammar))).identity != base.identity


def trace_with(film: str, text: str | None, answer: str | None, prompt: str = PROMPT) -> Trace:
    recipe = replace(get_recipe("LONGVT_TINY"), grammar=AsAsked(get_grammar("longvt/strict")))
    env = VideoQAEnv([make_task("t/0", film, prompt, "B", {}, "t")], recipe)
    env.reset(options={"task_id": "t/0"})
    action = Answer(answer) if answer is not None else Crop(0.0, 4.0)
    env.step(Move((action,), text))
    turns = (TurnTrace(env.state.turns[-1], 0.0, {}),)
    return trace_of(env.state, turns, correct=None, run="t")


TAGGED = "Answer in <answer> tags.\nWhich colour?"
IN_TAGS = "<think>t</think><answer>Paris</answer>"
BASE = {"recipe": "DEFAULT", "policy": "blind"}


@pytest.mark.parametrize(
    ("text", "answer", "prompt", "sent"),
    [
        ("<think>A</think><answer>B</answer>", "B", PROMPT, "B"),
        ("<think>A</think><answer>B. blue.</answer>", "B. blue.", PROMPT, "B"),
        ("<think>A</think><answer>Blue</answer>", "Blue", PROMPT, "B"),
        ("x", "purple", PROMPT, "purple"),  # no option: the harness may make of it what it likes
        ("x", "12.5 V", "How many volts?", "12.5 V"),
        (
            "<think>t</think><answer>Paris</answer>",
            "Paris",
            TAGGED,
            "<think>t</think><answer>Paris</answer>",
        ),
        (None, "Paris", TAGGED, "<answer>Paris</answer>"),
        ("<think>A</think>", None, PROMPT, NO_ANSWER),
        ("<think>A</think>", "  ", PROMPT, NO_ANSWER),
    ],
)
def test_what_is_sent(film: str, text: str | None, answer: str | None, prompt: str, sent: str) -> None:
    assert response(trace_with(film, text, answer, prompt)) == sent


# --- the folder ----------------------------------------------------------------------------------


def test_a_folder_is_continued_by_its_own_run_only(film: str, tmp_path: Path) -> None:
    trace = trace_with(film, "x", "B")
    TraceStore(tmp_path, {"recipe": "a", "seed": 0}, 1).add(trace)
    store = TraceStore(tmp_path, {"recipe": "a", "seed": 0}, 0)
    assert store.get(trace.task) == trace and len(store) == 1
    assert store.get(replace(trace.task, task_id="t/1")) is None
    with pytest.raises(OtherRun, match=r"t/0 that asks something else"):
        store.get(replace(trace.task, question="Another?\nA. red.\nB. blue.\nC. green.\nD. white."))
    with pytest.raises(OtherRun, match=r"another run, recipe 'a' and not 'b'"):
        TraceStore(tmp_path, {"recipe": "b", "seed": 0}, 0)


def test_a_torn_trace_is_played_again(film: str, tmp_path: Path) -> None:
    trace = trace_with(film, "x", "B")
    TraceStore(tmp_path, {}, 0).add(trace)
    file = tmp_path / "process_0.jsonl"
    file.write_bytes(file.read_bytes()[:-40])
    store = TraceStore(tmp_path, {}, 0)
    assert store.get(trace.task) is None
    store.add(trace)
    assert [one.task.task_id for one in read_traces(tmp_path)] == ["t/0"]


def test_what_is_left_out_is_listed_anew(tmp_path: Path) -> None:
    store = TraceStore(tmp_path, {}, 2)
    store.leave_out({"t/3": "no such file"})
    assert json.loads((tmp_path / "left_out_2.json").read_text()) == {"t/3": "no such file"}
    store.leave_out({})
    assert not (tmp_path / "left_out_2.json").exists()


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "name the recipe"),
        ({"recipe": "DEFAULT"}, "either a checkpoint or a policy"),
        (BASE | {"checkpoint": "x"}, "either a checkpoint or a policy"),
        (BASE | {"server": "http://x"}, "name it"),
        (
            BASE | {"max_frames": 3},
            "unknown argument 'max_frames'; known: ",
        ),
        (
            BASE | {"learning_rate": 0.1},
            "unknown argument 'learning_rate'",
        ),
        (BASE | {"max_turns": -1}, "max_turns must be at least 0, got -1"),
        (
            BASE | {"max_turns": 2.5},
            "max_turns must be a whole number, got",
        ),
        (BASE | {"text": 1}, "text must be True or False, got 1"),
    ],
)
def test_arguments_that_cannot_be_meant(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from(arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "LONGVT/papers"}, "unknown recipe 'LONGVT/papers'; known: "),
        ({"grammar": "longvt/lax"}, "longvt/lax"),
        ({"prompt_file": __file__}, "not TOML"),
        ({"skim_frames": 40, "frame_budget": 20}, "frame_budget 20 is below the skim's 40 frames"),
        ({"policy": "clever"}, "a policy is one of"),
        ({"policy": "", "checkpoint": "nowhere/at/all"}, "nowhere/at/all is no model that can be loaded"),
        ({"policy": "", "checkpoint": "x", "device": "tpu:9"}, "device 'tpu:9' cannot be used"),
        ({"dtype": "float8"}, "dtype must be one of float32, bfloat16, got 'float8'"),
    ],
)
def test_names_that_are_not_there(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config = config_from(BASE | changes)
        config.settings()
        make_player(config)


def test_budgets_and_grammar_change_the_recipe() -> None:
    usual = BenchmarkConfig(recipe="LONGVT/paper", policy="blind")
    config = config_from(
        {
            "recipe": "LONGVT/paper",
            "policy": "blind",
            "skim_frames": 64,
            "max_turns": 3,
            "grammar": "longvt/code",
        }
    )
    assert (config.rules.rules.skim_frames, config.rules.rules.max_turns) == (64, 3)
    assert config.rules.rules.clip_frames == usual.rules.rules.clip_frames == 128
    assert get_grammar(config.rules.grammar).name == "longvt/code"
    assert config.settings()["recipe"] != usual.settings()["recipe"]
    assert config_from(BASE | {"traces": 7}).traces == "7"


def test_traces_of_other_weights_at_the_same_path_are_of_another_run(tmp_path: Path) -> None:
    """Training goes on and writes its model again; the path of the checkpoint says nothing of it."""
    model, traces = tmp_path / "model", tmp_path / "traces"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"first")
    config = config_from(BASE | {"policy": "", "checkpoint": str(model)})
    for _ in range(2):  # the same weights: the run goes on
        TraceStore(traces, config.settings(), 0)
    (model / "model.safetensors").write_bytes(b"second")
    with pytest.raises(OtherRun, match=r"another run, weights '[0-9a-f]{12}' and not '[0-9a-f]{12}'"):
        TraceStore(traces, config.settings(), 0)


def test_runs_without_a_folder_of_weights_are_told_apart_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy, and a checkpoint by its name on a hub, whatever lies in the working directory."""
    monkeypatch.chdir(tmp_path)
    for who in ({}, {"policy": "", "checkpoint": "an/organisation"}):
        config = config_from(BASE | who)
        before = config.settings()
        (tmp_path / f"new{len(who)}").write_text("x")
        assert config.settings() == before and "weights" not in before


# --- players -------------------------------------------------------------------------------------


def test_a_policy_plays_what_can_be_played(film: str) -> None:
    tasks = [
        make_task("t/0", film, PROMPT, "B", {}, "t"),
        make_task("t/1", f"{film}.gone", PROMPT, "B", {}, "t"),
        make_task("t/2", film, "Where?", "Paris", {}, "t"),
    ]
    player = make_player(config_from({"recipe": "DEFAULT", "policy": "oracle"}))
    first, gone, third = player.play(tasks)
    assert first.trace is not None and (first.trace.correct, first.trace.answer) == (True, "B")
    assert gone.trace is None and "film.mp4.gone" in gone.cause
    assert third.trace is not None and response(third.trace) == "Paris"
