"""Whole conversations of VideoZoomer, ParaVT and EVA as a model reads them, byte by byte.

Order of blocks, newlines and stamps are those of the published codes, the words are stand-ins of ours.
Those of LongVT and Video-MTR are in ``test_chat_templates.py``.
"""

# ruff: noqa: D103

from __future__ import annotations

from dataclasses import replace

from test_chat_tags import FRAME
from test_chat_templates import QWEN_TEMPLATE, read_by_a_model, tokenizer

from agents.vlm.chat import Chat
from videogym import get_recipe
from videogym.actions import Crop
from videogym.grammars import parse_prompt
from videogym.recipes import Recipe
from videogym.state import Clip, Invalid, Result, State, Turn
from videogym.testing.grammar_suite import example_state

ASKED = "Which flag is raised?\nA. red\nB. blue\nC. green\nD. white"

# In one message: the reply, a request, and before the last turn a sentence that is glued to it. A call that
# was read and cannot be run is answered by a block that ends in a second opening tag.
VIDEO_ZOOMER_PROMPT = '''
system = """Stand-in: zoom by <video_zoom> {"segment": [start_sec, end_sec], "fps": n} </video_zoom>."""
question = "{frames}\\n{question}\\n{options}{instruction}"
instruction = ""
last_instruction = "Stand-in: no <video_zoom> now."
reply = """<tool_response>
Stand-in, the frames:
{frames}
</tool_response>
Stand-in: go on.{instruction}"""
refusal = "<tool_response>\\nError: {reason}<tool_response>Stand-in: look at the error.{instruction}"
unreadable = """<tool_response>
Stand-in, an error: {reason}.
</tool_response>
Stand-in: look at the error.{instruction}"""
'''
ZOOM = '<think>a</think><video_zoom> {"segment": [6, 8], "fps": 1} </video_zoom>'
WIDE = '<think>a</think><video_zoom> {"segment": [0, 90], "fps": 1} </video_zoom>'
TWICE = '<think>a</think><video_zoom> {"fps": 1} {"fps": 2} </video_zoom>'
EMPTY = '<think>a</think><video_zoom> {"segment": [6, 6], "fps": 1} </video_zoom>'
ZOOMED = f"<frame0_time6.00s>{FRAME}<frame1_time8.00s>{FRAME}"
VIDEO_ZOOMER_GOLDEN = (
    "<|im_start|>system\nStand-in: zoom by <video_zoom> "
    '{"segment": [start_sec, end_sec], "fps": n} </video_zoom>.<|im_end|>\n'
    f"<|im_start|>user\n<frame0_time0.00s>{FRAME}<frame1_time42.00s>{FRAME}<frame2_time84.00s>{FRAME}"
    f"<frame3_time126.00s>{FRAME}\n{ASKED}<|im_end|>\n"
    f"<|im_start|>assistant\n{ZOOM}<|im_end|>\n"
    f"<|im_start|>user\n<tool_response>\nStand-in, the frames:\n{ZOOMED}\n</tool_response>\n"
    "Stand-in: go on.<|im_end|>\n"
    f"<|im_start|>assistant\n{WIDE}<|im_end|>\n"
    "<|im_start|>user\n<tool_response>\nError: Too many.<tool_response>"
    "Stand-in: look at the error.<|im_end|>\n"
    f"<|im_start|>assistant\n{TWICE}<|im_end|>\n"
    "<|im_start|>user\n<tool_response>\nStand-in, an error: Two objects.\n</tool_response>\n"
    "Stand-in: look at the error.<|im_end|>\n"
    f"<|im_start|>assistant\n{EMPTY}<|im_end|>\n"
    "<|im_start|>user\n<tool_response>\nStand-in, the frames:\n\n</tool_response>\n"
    "Stand-in: go on.Stand-in: no <video_zoom> now.<|im_end|>\n"
    "<|im_start|>assistant\n"
)

# The system text brings the schema, frames come without stamps, and each call of a turn has a message of
# its own: the frames, then a block that tells the seconds that were asked for.
PARAVT_PROMPT = '''
system = """Stand-in: an agent.

<tools>
{tools}
</tools>

Several <tool_call> blocks in one turn are fine."""
question = "{frames}{question}\\n{options} The stand-in path is: {path}"
frame = "{image}"
reply = "{frames}<tool_response>\\n{frame_count} frames, {start:.1f}s to {end:.1f}s.\\n</tool_response>"
refusal = "<tool_response>\\n[Stand-in error: {reason}]\\n</tool_response>"
'''
PARAVT_TOOL = (
    '{"type": "function", "function": {"name": "crop_video", "description": '
    '"Analyze a cropped video segment by sampling frames from a specific time range.", "parameters": '
    '{"type": "object", "properties": {"video_path": {"type": "string", "description": '
    '"Path to the video file"}, "start_time": {"type": "number", "description": '
    '"Start time in seconds"}, "end_time": {"type": "number", "description": "End time in seconds"}}, '
    '"required": ["video_path", "start_time", "end_time"]}}}'
)
CALL = '<tool_call>\n{"name": "crop_video", "arguments": {"video_path": "example.mp4", "start_time": '
CALLS = (
    f'<think>a</think>{CALL}6, "end_time": 9.25}}}}\n</tool_call>{CALL}90, "end_time": 80}}}}\n</tool_call>'
)
PARAVT_GOLDEN = (
    f"<|im_start|>system\nStand-in: an agent.\n\n<tools>\n{PARAVT_TOOL}\n</tools>\n\n"
    "Several <tool_call> blocks in one turn are fine.<|im_end|>\n"
    f"<|im_start|>user\n{FRAME * 4}{ASKED} The stand-in path is: example.mp4<|im_end|>\n"
    f"<|im_start|>assistant\n{CALLS}<|im_end|>\n"
    f"<|im_start|>user\n{FRAME * 2}<tool_response>\n2 frames, 6.0s to 9.2s.\n</tool_response><|im_end|>\n"
    "<|im_start|>user\n<tool_response>\n[Stand-in error: It ends first.]\n</tool_response><|im_end|>\n"
    "<|im_start|>assistant\n"
)

# Length and side before the question, no frame; all frames of a turn in one block, each on a line after its
# number from 0 and its minutes and seconds, and the question once more inside the block.
EVA_PROMPT = '''
system = "Stand-in: plan, then look."
question = "Stand-in: {whole_seconds} s. Stand-in: {short_side}p. {frames}{question}\\n{options}"
reply = """<tool_response>{frames}Stand-in: ask for more.

Question: {question}
{options}</tool_response>"""
'''
SELECT = (
    'I plan.<tool_call>{"tool": "frame_select", "arguments": '
    '{"start_time": 6, "end_time": 8, "nframes": 2}}{"tool": "frame_select", "arguments": '
    '{"start_time": 70, "end_time": 80, "nframes": 1}}</tool_call>'
)
EVA_GOLDEN = (
    "<|im_start|>system\nStand-in: plan, then look.<|im_end|>\n"
    f"<|im_start|>user\nStand-in: 127 s. Stand-in: 360p. {ASKED}<|im_end|>\n"
    f"<|im_start|>assistant\n{SELECT}<|im_end|>\n"
    f"<|im_start|>user\n<tool_response>Frame 0 at [00:06]: {FRAME}\nFrame 1 at [00:07]: {FRAME}\n"
    f"Frame 2 at [01:15]: {FRAME}\nStand-in: ask for more.\n\nQuestion: {ASKED}</tool_response><|im_end|>\n"
    "<|im_start|>assistant\n"
)


def worded(name: str, words: str) -> Recipe:
    return get_recipe(name).with_prompt(parse_prompt(words))


def as_read(recipe: Recipe, state: State) -> str:
    return read_by_a_model(Chat(tokenizer(QWEN_TEMPLATE), recipe.language), state)


def turn(text: str, recipe: Recipe, *outcomes: Clip | Invalid) -> Turn:
    """An output, and what came of each call in it."""
    move = recipe.language.parse(text, example_state())
    results = [
        Result(action, clip=one) if isinstance(one, Clip) else Result(action, error=one)
        for action, one in zip(move.actions, outcomes, strict=True)
    ]
    return Turn(tuple(results), text, move.well_formed)


def test_a_conversation_of_video_zoomer_is_golden() -> None:
    recipe = worded("VIDEO_ZOOMER/code", VIDEO_ZOOMER_PROMPT)
    turns = (
        turn(ZOOM, recipe, Clip((6.0, 8.0))),
        turn(WIDE, recipe, Invalid("too_many_frames", "Too many.")),
        turn(TWICE, recipe, Invalid("not_one_object", "Two objects")),
        turn(EMPTY, recipe, Invalid("no_frames", "None.")),
    )
    state = replace(example_state(max_turns=5), turns=turns)
    assert as_read(recipe, state) == VIDEO_ZOOMER_GOLDEN


def test_a_conversation_of_paravt_is_golden() -> None:
    recipe = worded("PARAVT/code", PARAVT_PROMPT)
    both = turn(CALLS, recipe, Clip((6.0, 7.0)), Invalid("order", "It ends first."))
    assert both.results[0].action == Crop(6.0, 9.25)
    assert as_read(recipe, replace(example_state(), turns=(both,))) == PARAVT_GOLDEN


def test_a_conversation_of_eva_is_golden() -> None:
    recipe = worded("EVA/code", EVA_PROMPT)
    looked = turn(SELECT, recipe, Clip((6.0, 7.99)), Clip((75.0,)))
    state = replace(example_state(), skim=Clip(()), turns=(looked,))
    assert as_read(recipe, state) == EVA_GOLDEN


def test_the_built_in_words_have_the_published_order_too() -> None:
    """Without a prompt file: where blocks, stamps and newlines stand; sentences are left out of it."""
    recipe = get_recipe("EVA/code")
    looked = turn(SELECT, recipe, Clip((6.0, 7.99)), Clip((75.0,)))
    reply = as_read(recipe, replace(example_state(), skim=Clip(()), turns=(looked,))).split("<|im_end|>")[3]
    assert reply.startswith(
        f"\n<|im_start|>user\n<tool_response>Frame 0 at [00:06]: {FRAME}\nFrame 1 at [00:07]"
    )
    assert reply.endswith(f": {ASKED}</tool_response>")
    recipe = get_recipe("VIDEO_ZOOMER/code")
    for text, error, closing in (
        (WIDE, Invalid("too_many_frames", "Too many."), "<tool_response>See"),
        (TWICE, Invalid("not_one_object", "Two."), "\n</tool_response>\nSee"),
    ):
        state = replace(example_state(max_turns=5), turns=(turn(text, recipe, error),))
        assert f"<tool_response>\nError: {error.reason}{closing}" in as_read(recipe, state)
