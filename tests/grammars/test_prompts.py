"""Prompt files: what is read, what is refused, and the messages that come of them."""

# ruff: noqa: D103

from __future__ import annotations

import os
import pickle
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogym import Answer, Crop, TextActions, VideoQAEnv, get_recipe
from videogym.grammars import (
    FramePart,
    Prompt,
    PromptError,
    TextPart,
    compared,
    get_grammar,
    load_prompt,
    parse_prompt,
    prompted,
)
from videogym.grammars.published import PUBLISHED, sha256
from videogym.recipes import Recipe, recipe_names
from videogym.state import Clip, Invalid, Result, State, Turn
from videogym.testing.grammar_suite import check_grammar, example_state
from videogym.tool_episode import ToolEpisode

ASK = "{frames}{question}\n{options}\nIt lasts {duration:.0f} s. {instruction}At {path}."
LONGVT = Prompt(system="Be brief.", question=ASK, instruction="Think, then answer. ")
VIDEO_MTR = Prompt(
    system="Watch. You have {max_turns} turns.\n",
    question="T{turn}\n{frame_count} frames: {frame_indices}\n{frames}{question}{options}\n{instruction}",
    reply="T{turn}, {turns_left} left\n{frames}{question}{options}\n{instruction}",
    refusal="No: {reason} T{turn}\n{question}{options}\n{instruction}",
    instruction="Look (0 to {last_index}) or answer.{answer_form}",
    last_instruction="Answer.{answer_form}",
    options="\nOptions: {list}",
    choice=" A letter.",
    numeric=" A number.",
    open=" A word.",
)
TASKS = "procedural:brief_event?duration_s=256&count=2"


def text_of(message: object) -> str:
    """Frames are written as [time]."""
    parts = message.parts  # type: ignore[attr-defined]
    return "".join(part.text if isinstance(part, TextPart) else f"[{part.time_s:g}]" for part in parts)


def mtr_state(**changes: object) -> State:
    """Of Video-MTR: three turns, a pool of 64, a skim of the frames 0, 21, 42 and 63."""
    return replace(example_state(max_turns=3), **changes)  # type: ignore[arg-type]


# --- messages ------------------------------------------------------------------------------------


def test_the_first_message_holds_frames_question_options_path_and_duration() -> None:
    state = example_state()
    system, question = prompted(get_grammar("longvt/strict"), LONGVT).messages(state)
    assert text_of(question) == (
        "[0][42][84][126]Which flag is raised?\nA. red\nB. blue\nC. green\nD. white\n"
        "It lasts 128 s. Think, then answer. At example.mp4."
    )
    assert system.parts[0] == TextPart("Be brief.")
    own = get_grammar("longvt/strict").messages(state)[0]
    assert system.parts[1:] == own.parts[1:], "the block of tools follows as it was"


def test_every_turn_of_video_mtr_is_worded() -> None:
    """A look, then an output that cannot be read: counted turns, the instruction of the last one."""
    grammar = prompted(get_grammar("video_mtr/strict"), VIDEO_MTR)
    look = grammar.parse("<think>t</think><retrieve>3,4</retrieve>", mtr_state())
    shown = Turn((Result(look.actions[0], clip=Clip((6.0, 8.0))),), look.text, True)
    wrong = Turn((Result(Invalid("c", "r"), error=Invalid("c", "Why.")),), "nonsense", False)
    options = "\nOptions: ['A. red', 'B. blue', 'C. green', 'D. white']\n"
    asked = f"Which flag is raised?{options}"
    more = "Look (0 to 63) or answer. A letter."
    line = "frame_idx:{}, [{}]\n".format
    first = "".join(line(i, 2 * i) for i in (0, 21, 42, 63))
    talk = grammar.messages(mtr_state(turns=(shown, wrong)))
    assert [message.role for message in talk] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert [text_of(message) for message in talk] == [
        "Watch. You have 3 turns.\n",
        f"T1\n4 frames: [ 0 21 42 63]\n{first}{asked}{more}",
        look.text,
        f"T2, 2 left\n{line(3, 6)}{line(4, 8)}{asked}{more}",
        "nonsense",
        f"No: Why. T3\n{asked}Answer. A letter.",
    ]


def test_replies_to_parallel_calls_are_worded_one_by_one() -> None:
    prompt = replace(LONGVT, reply="<tool_response>\n{frames}ran</tool_response>", refusal="no: {reason}")
    results = (
        Result(Crop(1, 2), clip=Clip((1.0, 2.0))),
        Result(Crop(3, 2), error=Invalid("order", "It ends before it starts.")),
    )
    state = replace(example_state(), turns=(Turn(results, "two calls", True),))
    *_, one, two = prompted(get_grammar("longvt/code"), prompt).messages(state)
    assert (one.role, text_of(one)) == ("tool", "<tool_response>\n[1][2]ran</tool_response>")
    assert (two.role, text_of(two)) == ("tool", "no: It ends before it starts.")


def test_an_unreadable_output_has_words_of_its_own_where_they_are_given() -> None:
    state = mtr_state(turns=(Turn((Result(Invalid("c", "r"), error=Invalid("c", "Why.")),), "x", False),))
    grammar = get_grammar("video_mtr/strict")
    talk = prompted(grammar, replace(VIDEO_MTR, unreadable="Unread: {reason}")).messages(state)
    assert text_of(talk[-1]) == "Unread: Why."
    assert text_of(prompted(grammar, VIDEO_MTR).messages(state)[-1]).startswith("No: Why. T2")


def test_what_a_prompt_leaves_out_stays_the_grammars() -> None:
    state = example_state()
    own = get_grammar("native").messages(state)
    talk = prompted(get_grammar("native"), Prompt(system="Only this.")).messages(state)
    assert (talk[0].text, talk[1:]) == ("Only this." + own[0].parts[1].text, own[1:])  # type: ignore[union-attr]


def test_tools_can_be_put_into_the_system_text() -> None:
    grammar, state = get_grammar("longvt/strict"), example_state()
    (placed, _) = prompted(grammar, Prompt(system="<<{tools}>>")).messages(state)
    assert placed.text.startswith('<<{"type": "function", "function": {"name": "crop_video"')
    assert len(placed.text.splitlines()) == 1, "no other block of tools follows"
    (brought, _) = prompted(grammar, Prompt(system="Call <tools>[]</tools>")).messages(state)
    assert brought.text == "Call <tools>[]</tools>"


def test_a_frame_is_written_as_asked() -> None:
    prompt = replace(LONGVT, frame="<frame{number}_time{time:.1f}s>{image}")
    question = prompted(get_grammar("longvt/strict"), prompt).messages(example_state())[1]
    assert text_of(question).startswith("<frame0_time0.0s>[0]<frame1_time42.0s>[42]")
    stamped = prompted(get_grammar("longvt/strict"), LONGVT).messages(example_state(timestamps="seconds"))
    assert text_of(stamped[1]).startswith("[0.00 s] [0][42.00 s] [42]")


def test_a_reply_tells_the_seconds_that_were_asked_for() -> None:
    """Not those of the frames; of several looks in one message those of the first that has frames."""
    prompt = Prompt(reply="{start:.1f} to {end}: {frames}", frame="{clock} {image} ")
    looks = (
        Result(Crop(9, 8, frames=1), error=Invalid("order", "It ends first.")),
        Result(Crop(60, 70.25, frames=1), clip=Clip((65.0,))),
        Result(Crop(3600, 3700, frames=1), clip=Clip((3661.5,))),
    )
    state = replace(example_state(), turns=(Turn(looks, "three calls", True),))
    reply = prompted(get_grammar("eva"), prompt).messages(state)[-1]
    assert text_of(reply) == "60.0 to 70.25: 01:05 [65] 61:01 [3661.5] "


@pytest.mark.parametrize("name", ["longvt/strict", "longvt/code", "native", "video_mtr/strict"])
def test_a_worded_grammar_keeps_the_contract(name: str) -> None:
    """No truth leaks, given text stays given and inert, a pickled copy says the same."""
    prompt = (
        VIDEO_MTR if name.startswith("video_mtr") else replace(LONGVT, reply="{frames}", refusal="{reason}")
    )
    grammar = prompted(get_grammar(name), prompt)
    actions = [Answer("B")]
    tags = get_grammar(name).tags  # type: ignore[attr-defined]
    check_grammar(grammar, example_state(), actions, tags, count=100)


def test_no_text_of_a_task_has_places_of_its_own() -> None:
    """A question that spells a place is shown as it is."""
    state = example_state()
    task = replace(state.task, question="{reason} {{path}} {0} %s {frames}", options=("{x}",) * 4)
    question = prompted(get_grammar("longvt/strict"), LONGVT).messages(replace(state, task=task))[1]
    assert "{reason} {{path}} {0} %s {frames}\nA. {x}\n" in text_of(question)


# --- files ---------------------------------------------------------------------------------------


def test_a_file_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "prompt.toml"
    path.write_text('system = """\nYou see {max_turns}.\n"""\n', encoding="utf-8")
    assert load_prompt(path) == Prompt(system="You see {max_turns}.\n")
    path.write_text(VIDEO_MTR.file_text(), encoding="utf-8")
    assert load_prompt(path) == VIDEO_MTR


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1))
def test_any_text_goes_through_a_file(text: str) -> None:
    """Quotes, controls, emoji; braces that would be places are spelt twice."""
    plain = text.replace("{", "(").replace("\r", "")
    assert parse_prompt(Prompt(system=plain).file_text()) == Prompt(system=plain)


@given(st.text("{}ab_:.2f \n"))
def test_any_braces_are_places_or_characters(text: str) -> None:
    """It is a prompt that renders, or one line says why not."""
    try:
        prompt = Prompt(system=text)
    except PromptError as error:
        assert "\n" not in str(error)
    else:
        assert prompted(get_grammar("longvt/strict"), prompt).messages(example_state())


def test_json_and_latex_are_characters() -> None:
    text = '{"segment": [1, 2]} \\boxed{} {0} {A} {{duration}}'
    system = prompted(get_grammar("native"), Prompt(system=text)).messages(example_state())[0]
    assert system.text.startswith('{"segment": [1, 2]} \\boxed{} {0} {A} {duration}')


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"# only a remark\n", "at least one of system, question"),
        (b"system = 'caf\xe9'", "not UTF-8: byte 13 is 0xe9"),
        (b"You are a helpful assistant.", "not TOML"),
        (b"systemm = 'x'", "unknown field 'systemm'; did you mean system?"),
        (b"colour = 'x'", "unknown field 'colour'; known are system, question"),
        (b"system = 3", "system must be a text, got 3"),
        (b"system = '{max_turn}'", "unknown place {max_turn}; did you mean {max_turns}?"),
        (b"system = '{question}'", "system has the unknown place {question}"),
        (b"system = '{path:.2f}'", "{path} takes no precision, only {duration}, {time}, {start}, {end} do"),
        (b"question = '{frames}{question}'", "question misses the place {options}"),
        (b"question = '{question}{options}'", "question misses the place {frames}"),
        (b"question = '{frames}{frames}{question}{options}'", "{frames} 2 times"),
        (b"reply = 'Here.'", "reply misses the place {frames}"),
        (b"refusal = 'No.'", "refusal misses the place {reason}"),
        (b"frame = 'F'", "frame misses the place {image}"),
        (b"options = 'None.'", "options misses {lines} or {list}"),
        (b"instruction = 'Think.'", "question misses {instruction}"),
        (b"last_instruction = 'Answer.'", "last_instruction stands instead of an instruction"),
        (b"question = '{frames}{question}{options}{instruction}'", "there is no instruction"),
        (
            b"question = '{frames}{question}{options}{answer_form}'\nopen = 'x'",
            "choice and numeric is missing",
        ),
        (b"choice = 'A letter.'", "which has no place"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "prompt.toml"
    path.write_bytes(content)
    with pytest.raises(PromptError) as caught:
        load_prompt(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "prompt.toml"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 100 * 2**20)
    with pytest.raises(PromptError, match="more than 32,768 bytes"):
        load_prompt(path)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        load_prompt(tmp_path)
    with pytest.raises(OSError):
        load_prompt(tmp_path / "none.toml")


# --- recipes -------------------------------------------------------------------------------------


def test_a_recipes_identity_covers_every_word() -> None:
    recipe = get_recipe("LONGVT/paper")
    worded = recipe.with_prompt(LONGVT)
    other = recipe.with_prompt(replace(LONGVT, system="Be brief!"))
    assert len({recipe.identity, worded.identity, other.identity}) == 3
    assert worded.with_prompt(None) == recipe
    assert worded.describe()["prompt"]["system"] == "Be brief."
    assert "prompt" not in recipe.describe()
    assert pickle.loads(pickle.dumps(worded)).identity == worded.identity


def test_a_prompt_has_to_fit_the_recipe() -> None:
    with pytest.raises(PromptError, match=r"misses the place {path}: calls of longvt/strict"):
        get_recipe("LONGVT/paper").with_prompt(Prompt(question="{frames}{question}{options}"))
    get_recipe("LONGVT/paper").with_prompt(Prompt(question="{frames}{question}{options}", system="{path}"))
    with pytest.raises(PromptError, match=r"\{last_index\} needs a pool"):
        get_recipe("DEFAULT").with_prompt(
            Prompt(question="{frames}{question}{options}{instruction}", instruction="To {last_index}.")
        )


def worded(name: str, prompt: Prompt) -> Recipe:
    """A named recipe in the words of a prompt."""
    return get_recipe(name).with_prompt(prompt)


def test_text_actions_and_tool_episodes_speak_the_prompt() -> None:
    env = TextActions(VideoQAEnv(TASKS, worded("LONGVT_TINY", LONGVT)))
    observation, _ = env.reset(seed=0)
    question = env.unwrapped.state.task.question  # type: ignore[attr-defined]
    assert observation["prompt"].startswith(f"{question}\nA. ")
    assert "Think, then answer. At video-" in observation["prompt"]
    reply = ToolEpisode(VideoQAEnv(TASKS, worded("LONGVT_TINY", LONGVT))).begin(seed=0)
    system, *frames, asked = reply.parts
    assert (system, asked) == ("Be brief.", observation["prompt"])
    assert len(frames) == len(env.unwrapped.state.skim.times_s)  # type: ignore[attr-defined]
    assert all(not isinstance(frame, str) for frame in frames)


def test_tools_under_a_prompt_that_speaks_of_tags_are_refused() -> None:
    recipe = worded("VIDEO_MTR/paper", VIDEO_MTR)
    with pytest.raises(ValueError, match="it writes tags, and the recipe's prompt speaks of them"):
        ToolEpisode(VideoQAEnv("procedural:brief_event?duration_s=600&count=1", recipe))


# --- published texts -----------------------------------------------------------------------------


def test_a_published_text_is_recognised_by_its_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """The known ones are 256-bit numbers of fields; a stand-in is found, a changed letter is not."""
    for digest, (field, _) in PUBLISHED.items():
        assert len(digest) == 64 and int(digest, 16) and hasattr(Prompt, field)
    monkeypatch.setitem(PUBLISHED, sha256("Be brief."), ("system", "Ours"))
    lines = compared(LONGVT)
    assert lines[0] == f"system: Ours published text, SHA-256 {sha256('Be brief.')}"
    assert "question: no published text known here" in lines[1]
    assert "no published text" in compared(replace(LONGVT, system="Be brief!"))[0]
    stock = compared(Prompt(system="You are a helpful assistant."))
    assert stock[0].startswith("system: LongVT's published text")


def test_the_named_recipes_have_no_prompt() -> None:
    assert all(get_recipe(name).prompt is None for name in recipe_names())


def test_toml_that_is_written_is_toml() -> None:
    assert tomllib.loads(Prompt(system='"\x7f\u2028\\').file_text()) == {"system": '"\x7f\u2028\\'}


def test_frames_are_frames() -> None:
    """They stay references, not words."""
    question = prompted(get_grammar("longvt/strict"), LONGVT).messages(example_state())[1]
    assert [part for part in question.parts if isinstance(part, FramePart)] == [
        FramePart(time_s) for time_s in (0.0, 42.0, 84.0, 126.0)
    ]
