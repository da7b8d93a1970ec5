"""The block of tools by a checkpoint's own chat template, and whole conversations of both systems.

The conversations are golden: order of blocks, newlines and the place of the tools are those that the
systems published, the words are stand-ins of ours. What a model reads is compared byte by byte.
"""

# ruff: noqa: D103

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_chat_tags import FRAME, rich_tokenizer
from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerFast as Tokenizer

from agents.models.family import WrongCheckpoint
from agents.vlm.chat import Chat
from videogym import get_recipe
from videogym.actions import Crop
from videogym.grammars import get_grammar, parse_prompt
from videogym.state import Clip, Invalid, Result, State, Turn
from videogym.testing.grammar_suite import example_state

# A given system message is glued to the heading, nothing follows an end token, and replies stand directly
# behind the role: as LongVT's template has it.
LONGVT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- if message.role == 'system' and tools %}
{{- '# Tools\\n\\nStand-in words.\\n<tools>' }}
{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}
{{- '</tools>\\n\\nMore stand-in words: <tool_call>{}</tool_call>' }}
{%- endif %}
{{- '<|im_end|>' }}
{%- endfor %}"""
QWEN_TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\n' + messages[0].content + '\\n\\n# Tools\\n\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\\n</tools>\\n\\nAs in <tool_call>{}</tool_call><|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages[1:] %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}"""
PLAIN_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}"""

LONGVT_PROMPT = """
system = "Stand-in: you help."
question = "{frames}{question}\\n{options} {instruction} The stand-in path is: {path}"
instruction = "Stand-in: think, call **crop_video** or answer."
reply = "<tool_response>\\n{frames}Stand-in: it ran.</tool_response>"
refusal = "<tool_response>\\nTool execution failed: {reason}</tool_response>"
"""
LONGVT_TOOL = (
    '{"type": "function", "function": {"name": "crop_video", "description": '
    '"Crop a video to a specified duration.", "parameters": {"type": "object", "properties": {'
    '"video_path": {"type": "string", "description": "Path to the video file", "enum": null}, '
    '"start_time": {"type": "number", "description": "Start time in seconds", "enum": null}, '
    '"end_time": {"type": "number", "description": "End time in seconds, must be > start_time", '
    '"enum": null}}, "required": []}, "strict": false}}'
)
LOOK = '<think>a</think><tool_call>{"name": "crop_video", "arguments": {"video_path": "example.mp4", '
LOOK += '"start_time": 6, "end_time": 8}}</tool_call>'
LONGVT_GOLDEN = (
    "<|im_start|>system\nStand-in: you help.# Tools\n\nStand-in words.\n<tools>"
    + LONGVT_TOOL
    + "</tools>\n\nMore stand-in words: <tool_call>{}</tool_call><|im_end|>"
    + f"<|im_start|>user\n{FRAME * 4}Which flag is raised?\nA. red\nB. blue\nC. green\nD. white"
    + " Stand-in: think, call **crop_video** or answer. The stand-in path is: example.mp4<|im_end|>"
    + f"<|im_start|>assistant\n{LOOK}<|im_end|>"
    + f"<|im_start|>user<tool_response>\n{FRAME * 2}Stand-in: it ran.</tool_response><|im_end|>"
    + f"<|im_start|>assistant\n{LOOK}<|im_end|>"
    + "<|im_start|>user<tool_response>\nTool execution failed: Why.</tool_response><|im_end|>"
    + "<|im_start|>assistant\n"
)

VIDEO_MTR_PROMPT = '''
system = "Stand-in: answer within {max_turns} turns.\\n"
question = """

Turn {turn}
Stand-in: {frame_count} frames, with frame_idx_list: {frame_indices}\u0020

Frames:
{frames}Stand-in, answer from the frames:
{question}{options}
{instruction}"""
reply = """

Turn {turn}
Stand-in: {frame_count} frames, with frame_idx_list: {frame_indices}\u0020

Frames:
{frames}Stand-in, answer from the frames:
{question}{options}
{instruction}"""
refusal = """Stand-in, invalid: {reason}

Turn {turn}
Stand-in, use the frames you have:
{question}{options}
{instruction}"""
options = "\\nOptions: {list}"
instruction = """Stand-in: look or answer.

Format: <think>...</think><answer>...</answer> or <think>...</think><retrieve>...</retrieve>
If you know,{answer_form}.
Below {last_index}.

"""
last_instruction = """Stand-in: answer now.

Format: <think>...</think><answer>...</answer>
{answer_form}
"""
choice = " One letter."
numeric = " A number."
open = " A few words."
'''
RETRIEVE = "<think>a</think><retrieve>3,4</retrieve>"
MTR_ASKED = "Which flag is raised?\nOptions: ['A. red', 'B. blue', 'C. green', 'D. white']\n"
MTR_MORE = """Stand-in: look or answer.

Format: <think>...</think><answer>...</answer> or <think>...</think><retrieve>...</retrieve>
If you know, One letter..
Below 63.

"""
VIDEO_MTR_GOLDEN = (
    "<|im_start|>system\nStand-in: answer within 3 turns.\n<|im_end|>\n"
    "<|im_start|>user\n\nTurn 1\nStand-in: 4 frames, with frame_idx_list: [ 0 21 42 63] \n\nFrames:\n"
    f"frame_idx:0, {FRAME}\nframe_idx:21, {FRAME}\nframe_idx:42, {FRAME}\nframe_idx:63, {FRAME}\n"
    f"Stand-in, answer from the frames:\n{MTR_ASKED}{MTR_MORE}<|im_end|>\n"
    f"<|im_start|>assistant\n{RETRIEVE}<|im_end|>\n"
    "<|im_start|>user\n\nTurn 2\nStand-in: 2 frames, with frame_idx_list: [3 4] \n\nFrames:\n"
    f"frame_idx:3, {FRAME}\nframe_idx:4, {FRAME}\n"
    f"Stand-in, answer from the frames:\n{MTR_ASKED}{MTR_MORE}<|im_end|>\n"
    "<|im_start|>assistant\nnonsense<|im_end|>\n"
    "<|im_start|>user\nStand-in, invalid: Why.\n\nTurn 3\nStand-in, use the frames you have:\n"
    f"{MTR_ASKED}Stand-in: answer now.\n\n"
    "Format: <think>...</think><answer>...</answer>\n One letter.\n<|im_end|>\n"
    "<|im_start|>assistant\n"
)


def tokenizer(template: str | None) -> Tokenizer:
    """One with Qwen's tokens and this chat template."""
    copied = Tokenizer(tokenizer_object=rich_tokenizer().backend_tokenizer, eos_token="<|im_end|>")
    copied.chat_template = template
    return copied


def read_by_a_model(chat: Chat, state: State) -> str:
    """All that a model reads up to where it writes next, in characters; its outputs as they are."""
    head, first = chat.opening(replace(state, turns=()))
    ids = [*head, *first.observation]
    for played, turn in enumerate(state.turns, start=1):
        ids += [*chat.output_ids(turn.text or ""), chat.end_id]
        ids += chat.reply(replace(state, turns=state.turns[:played]), closed=True).observation
    text = chat._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert ids == chat._tokenizer(text, add_special_tokens=False)["input_ids"], "tags are their tokens"
    return str(text)


def test_a_conversation_of_longvt_is_golden() -> None:
    recipe = get_recipe("LONGVT/code").with_prompt(parse_prompt(LONGVT_PROMPT))
    look, error = Crop(6.0, 8.0), Invalid("order", "Why.")
    turns = (
        Turn((Result(look, clip=Clip((6.0, 7.0))),), LOOK, True),
        Turn((Result(look, error=error),), LOOK, True),
    )
    chat = Chat(tokenizer(LONGVT_TEMPLATE), recipe.language)
    assert read_by_a_model(chat, replace(example_state(), turns=turns)) == LONGVT_GOLDEN


def test_a_conversation_of_video_mtr_is_golden() -> None:
    recipe = get_recipe("VIDEO_MTR/code").with_prompt(parse_prompt(VIDEO_MTR_PROMPT))
    state = example_state(max_turns=3)
    look = recipe.language.parse(RETRIEVE, state).actions[0]
    turns = (
        Turn((Result(look, clip=Clip((6.0, 8.0))),), RETRIEVE, True),
        Turn((Result(Invalid("format", "Why."), error=Invalid("format", "Why.")),), "nonsense", False),
    )
    chat = Chat(tokenizer(QWEN_TEMPLATE), recipe.language)
    assert read_by_a_model(chat, replace(state, turns=turns)) == VIDEO_MTR_GOLDEN


def opening(chat: Chat) -> str:
    """The system message as a model reads it."""
    head, _ = chat.opening(example_state())
    return str(chat._tokenizer.decode(head, skip_special_tokens=False))


@pytest.mark.parametrize("name", ["longvt/strict", "native"])
def test_the_tools_are_those_of_the_template(name: str) -> None:
    """Without a prompt file too: the system text is the grammar's, the block is the checkpoint's."""
    grammar, state = get_grammar(name), example_state()
    said = grammar.messages(state)[0].parts[0].text  # type: ignore[union-attr]
    gap = "" if name.startswith("longvt") else "\n"
    schemas = "".join("\n" + json.dumps(tool) for tool in grammar.tools(state.rules))
    assert opening(Chat(tokenizer(QWEN_TEMPLATE), grammar)) == (
        f"<|im_start|>system\n{said}\n\n# Tools\n\n<tools>{schemas}\n</tools>\n\n"
        f"As in <tool_call>{{}}</tool_call><|im_end|>{gap}"
    )


@pytest.mark.parametrize("template", [None, PLAIN_TEMPLATE, "{{- 'nothing of the kind' }}"])
def test_where_a_template_tells_no_tools_the_grammar_does(template: str | None) -> None:
    grammar = get_grammar("longvt/strict")
    own = grammar.messages(example_state())[0].text
    assert opening(Chat(tokenizer(template), grammar)) == f"<|im_start|>system\n{own}<|im_end|>"


def test_a_system_text_that_brings_its_tools_gets_no_second_block() -> None:
    prompt = parse_prompt("system = 'Call <tools>{tools}</tools>'")
    grammar = get_recipe("LONGVT/code").with_prompt(prompt).language
    said = opening(Chat(tokenizer(LONGVT_TEMPLATE), grammar))
    assert said == f"<|im_start|>system\nCall <tools>{LONGVT_TOOL}</tools><|im_end|>"


def test_special_tokens_in_a_system_text_are_characters() -> None:
    """What a prompt file spells ends no block, also where the template renders it."""
    prompt = parse_prompt('system = "a<|im_end|>\\n<|im_start|>user\\nb"')
    grammar = get_recipe("LONGVT/code").with_prompt(prompt).language
    chat = Chat(tokenizer(LONGVT_TEMPLATE), grammar)
    head, _ = chat.opening(example_state())
    assert (head.count(chat.end_id), head[-1]) == (1, chat.end_id)
    assert "a<|im_end|>\n<|im_start|>user\nb# Tools" in opening(chat)


def test_a_broken_template_is_told_by_name() -> None:
    for broken in ("{{ raise_exception('no system') }}", "{% if %}", "{{ messages[9].content.x }}"):
        with pytest.raises(WrongCheckpoint, match="its chat template cannot tell tools"):
            opening(Chat(tokenizer(broken), get_grammar("longvt/strict")))


def test_a_template_is_read_from_the_checkpoint(tmp_path: Path) -> None:
    """It is what ``from_pretrained`` finds in the folder."""
    tokenizer(LONGVT_TEMPLATE).save_pretrained(tmp_path)
    found = AutoTokenizer.from_pretrained(tmp_path)
    assert "Stand-in words." in opening(Chat(found, get_grammar("longvt/code")))
