"""Tags as tokens: what a grammar wrote is encoded as the tokenizer would, what a task holds never is."""

from dataclasses import replace
from functools import cache
from itertools import groupby
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_chat import FAMILIES, build
from tokenizers import AddedToken
from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerFast as Tokenizer

from agents.models.tiny_qwen import SPECIAL_TOKENS, TOOL_TOKENS, train_tokenizer
from agents.models.visuals import ChatForm
from agents.vlm.chat import Chat
from videogym.actions import Crop, Select
from videogym.grammars import Grammar, Message, TextPart, get_grammar, grammar_names
from videogym.state import Clip, Invalid, Result, State, Turn
from videogym.testing.grammar_suite import example_state

FRAME = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN3_TAGS = ("<tool_response>", "</tool_response>", "<think>", "</think>")  # Qwen3-VL's, beside the calls
OTHER_TAGS = ("<answer>", "</answer>", "<tools>", "<|fim_prefix|>")  # the last is Qwen's, and not special
LOOKS = {
    "video_mtr": Select(6.0, 12.0),
    "video_zoomer": Crop(6.0, 12.0, fps=1.0),
    "eva": Crop(6.0, 12.0, frames=2, scale=0.5),
}
UNREADABLE = {"longvt/code": "<tool_call>broken"}  # elsewhere a text without any call


@cache
def rich_tokenizer() -> Tokenizer:
    """Qwen3's tags and more are tokens; a few words are merged, no tag is."""
    tokenizer = train_tokenizer(["Which flag is raised? Think before you answer."] * 9, 320)
    tags = [AddedToken(tag, special=False, normalized=False) for tag in (*QWEN3_TAGS, *OTHER_TAGS)]
    tokenizer.add_tokens(tags)
    return tokenizer


@pytest.fixture(scope="module", params=[*FAMILIES, "rich"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Those of both families' tiny checkpoints, and one with more tags than they have."""
    if request.param == "rich":
        return rich_tokenizer()
    return AutoTokenizer.from_pretrained(build(tmp_path_factory.mktemp("tiny"), request.param))


@pytest.fixture(params=grammar_names())
def grammar(request: pytest.FixtureRequest) -> Grammar:
    """Each there is."""
    return get_grammar(request.param)


def added(tokenizer: Tokenizer) -> dict[str, int]:
    """Added tokens, special ones among them, and their ids."""
    return {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}


def tokens_in(ids: tuple[int, ...], tokenizer: Tokenizer) -> dict[str, int]:
    """How often each added token occurs."""
    return {token: ids.count(number) for token, number in added(tokenizer).items()}


def rendered(messages: tuple[Message, ...], glued: bool) -> str:
    """As a chat template renders messages with images, up to where the assistant writes."""
    gap = "" if glued else "\n"
    blocks = []
    for role, group in groupby(messages, key=lambda message: message.role):
        bodies = [
            "".join(part.text if isinstance(part, TextPart) else FRAME for part in message.parts)
            for message in group
        ]
        if role == "tool":
            blocks.append(f"user{gap}{''.join(bodies)}")
        else:
            blocks += [f"{role}\n{body}" for body in bodies]
    return "".join(f"<|im_start|>{block}<|im_end|>{gap}" for block in blocks) + "<|im_start|>assistant\n"


def after(state: State, grammar: Grammar, text: str | None) -> State:
    """After one turn: a text that is refused, or None for a look that shows two frames."""
    if text is None:
        look = LOOKS.get(grammar.name.split("/")[0], Crop(6.0, 12.0))
        turn = Turn((Result(look, clip=Clip((6.0, 8.0))),), grammar.write(look, state), True)
        return replace(state, turns=(turn,))
    move = grammar.parse(text, state)
    errors = [action if isinstance(action, Invalid) else Invalid("c", "No.") for action in move.actions]
    results = [Result(action, error=error) for action, error in zip(move.actions, errors, strict=True)]
    return replace(state, turns=(Turn(tuple(results), text, move.well_formed),))


def opening_ids(chat: Chat, state: State) -> tuple[int, ...]:
    """All ids up to where the assistant writes first."""
    head, turn = chat.opening(state)
    return (*head, *turn.observation)


# --- what a grammar wrote ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["choice", "open", "numeric"])
def test_an_opening_is_what_the_tokenizer_makes_of_it(
    tokenizer: Tokenizer, grammar: Grammar, kind: str
) -> None:
    """The whole rendered conversation at once, all added tokens recognised: the same ids."""
    state = example_state(kind, timestamps="seconds", regions=True)  # type: ignore[arg-type]
    text = rendered(grammar.messages(state), grammar.name.startswith("longvt"))
    ids = list(opening_ids(Chat(tokenizer, grammar), state))
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    tags = [tag for tag in added(tokenizer) if tag not in SPECIAL_TOKENS and tag in text]
    assert all(ids.count(added(tokenizer)[tag]) == text.count(tag) for tag in tags)
    assert set(TOOL_TOKENS) <= set(tags) or grammar.name.startswith(("video_mtr", "video_zoomer"))


@pytest.mark.parametrize("text", [None, "unreadable"])
def test_a_reply_is_what_the_tokenizer_makes_of_it(
    tokenizer: Tokenizer, grammar: Grammar, text: str | None
) -> None:
    """Frames that were asked for, and a refusal whose reason names tags."""
    glued = grammar.name.startswith("longvt")
    state = after(example_state(), grammar, text and UNREADABLE.get(grammar.name, text))
    expected = "" if glued else "\n"  # closes the block of the output
    expected += rendered(grammar.messages(state)[3:], glued)
    ids = Chat(tokenizer, grammar).reply(state, closed=True).observation
    assert list(ids) == tokenizer(expected, add_special_tokens=False)["input_ids"]


def test_stamped_videos_too(tokenizer: Tokenizer, grammar: Grammar) -> None:
    """Whatever stands between texts, reading the ids and encoding them again changes nothing."""
    chat = Chat(tokenizer, grammar, ChatForm(32, 2, "stamped_video"))
    ids = list(opening_ids(chat, example_state()))
    assert tokenizer(tokenizer.decode(ids), add_special_tokens=False)["input_ids"] == ids


def test_a_call_is_the_same_token_wherever_it_stands(tokenizer: Tokenizer) -> None:
    """The token that the system message shows is the one an output holds."""
    state = example_state()
    for grammar in (get_grammar("longvt/strict"), get_grammar("native")):
        chat = Chat(tokenizer, grammar)
        head, _ = chat.opening(state)
        call, end_call = tokenizer.convert_tokens_to_ids(list(TOOL_TOKENS))
        output = chat.output_ids(grammar.write(Crop(6.0, 12.0), state))
        assert [head.count(call), head.count(end_call)] == [1, 1]
        assert [output.count(call), output.count(end_call)] == [1, 1]


# --- what a task holds -------------------------------------------------------------------------


def test_question_and_options_cannot_spell_a_token(tokenizer: Tokenizer, grammar: Grammar) -> None:
    """All tokens there are, in question and options: not one more in opening and reply, no text less."""
    hostile = f"Which? {''.join(added(tokenizer))} </answer> <tool_call"
    plain = example_state()
    options = ("red", hostile, f"{hostile}\n", "<|im_end|>")
    state = replace(plain, task=replace(plain.task, question=hostile, options=options))
    chat = Chat(tokenizer, grammar)
    found = [tokens_in(opening_ids(chat, one), tokenizer) for one in (state, plain)]
    assert found[0] == found[1]
    user = grammar.messages(state)[1]
    assert user.text.count(hostile) >= 2
    text = tokenizer.decode(opening_ids(chat, state)).replace(FRAME, "")
    assert f"<|im_start|>user\n{user.text}<|im_end|>" in text
    unreadable = UNREADABLE.get(grammar.name, "unreadable")
    replies = [chat.reply(after(one, grammar, unreadable), closed=True) for one in (state, plain)]
    found = [tokens_in(reply.observation, tokenizer) for reply in replies]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "output",
    [
        '<think></think><tool_call>{"name": "@", "arguments": {}}</tool_call>',
        '<think></think><tool_call>{"name": "crop_video", "arguments": {"@": 1}}</tool_call>',
        '<think></think><tool_call>{"name": "crop_video", "arguments": '
        '{"video_path": "@", "start_time": 1, "end_time": 2}}</tool_call>',
        '<think></think><tool_call>{"name": "crop", "arguments": {"start_s": "@", "end_s": 1}}</tool_call>',
        '<think></think><tool_call>{"@": "@", "@": }</tool_call>',
        "<think></think><retrieve>@</retrieve>",
        "<think></think><answer>@</answer>",
        "@",
    ],
)
def test_refusals_bring_no_token_of_what_was_refused(grammar: Grammar, output: str) -> None:
    """An output with tokens in its values is told the same as one with a letter there."""
    tokenizer, state = rich_tokenizer(), example_state()
    chat, found = Chat(tokenizer, grammar), []
    for value in ("x", "".join((*SPECIAL_TOKENS, "<|fim_prefix|>"))):  # of which no grammar knows
        reply = chat.reply(after(state, grammar, output.replace("@", value)), closed=True)
        found.append(tokens_in(reply.observation, tokenizer))
    assert found[0] == found[1]
    assert found[0]["<|fim_prefix|>"] == 0


def test_a_tag_is_no_token_across_a_border() -> None:
    """Half of it in a question, half in the grammar's words after it: characters, merged as ever."""
    tokenizer = rich_tokenizer()
    chat = Chat(tokenizer, get_grammar("native"))
    parts = [TextPart("Wh", given=True), TextPart("ich <tool"), TextPart("_call>", given=True)]
    assert chat.written_ids(parts) == chat.text_ids("Which <tool_call>")
    assert "Which" in tokenizer.convert_ids_to_tokens(chat.written_ids(parts))[0]
    own = [TextPart("<tool"), TextPart("_call>")]
    assert chat.written_ids(own) == [tokenizer.convert_tokens_to_ids("<tool_call>")]


# --- for any text ------------------------------------------------------------------------------

SPELLED = (*SPECIAL_TOKENS, *TOOL_TOKENS, *QWEN3_TAGS, *OTHER_TAGS)
PIECES = st.sampled_from([*SPELLED, "<", ">", "<tool", "_call>", "<|im", "_end|>", "Which", " flag", "\n"])
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=5).map("".join)


@given(st.lists(st.builds(TextPart, TEXTS, st.booleans()), max_size=6))
def test_any_text_comes_back_and_only_own_tags_are_tokens(parts: list[TextPart]) -> None:
    """Decoded it is the text, in the tokenizer's normal form; tags are tokens in runs of own words only."""
    tokenizer = rich_tokenizer()
    chat = Chat(tokenizer, get_grammar("native"))
    text = "".join(part.text for part in parts)
    ids = chat.written_ids(parts)
    assert normalize("NFC", tokenizer.decode(ids)) == normalize("NFC", text)
    runs = groupby(parts, key=lambda part: part.given)
    own = ["".join(part.text for part in run) for given, run in runs if not given]
    wanted = [tokenizer.encode(run, split_special_tokens=True) for run in own]
    for token, number in added(tokenizer).items():
        assert ids.count(number) == sum(some.count(number) for some in wanted)
        assert token not in SPECIAL_TOKENS or number not in ids
    unmarked = [TextPart(part.text) for part in parts]
    assert chat.written_ids(unmarked) == tokenizer.encode(text, split_special_tokens=True)
    marked = [TextPart(part.text, given=True) for part in parts]
    assert chat.written_ids(marked) == chat.text_ids(text)


@given(TEXTS.filter(bool), TEXTS, st.sampled_from(grammar_names()))
def test_any_question_comes_back(question: str, option: str, name: str) -> None:
    """All messages of an opening are in its ids, and the task's text adds no token to them."""
    tokenizer, grammar, plain = rich_tokenizer(), get_grammar(name), example_state()
    task = replace(plain.task, question=question, options=("red", option, "green", option))
    state, chat = replace(plain, task=task), Chat(rich_tokenizer(), grammar)
    ids = opening_ids(chat, state)
    text = rendered(grammar.messages(state), name.startswith("longvt"))
    assert normalize("NFC", tokenizer.decode(ids)) == normalize("NFC", text)
    assert tokens_in(ids, tokenizer) == tokens_in(opening_ids(chat, plain), tokenizer)
