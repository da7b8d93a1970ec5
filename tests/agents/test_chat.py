"""Conversations as ids: their layout, what text may never become, and groups of episodes in lockstep."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tensordict import TensorDictBase
from torchrl.envs import step_mdp
from transformers import PreTrainedTokenizerFast as Tokenizer

from agents.chat import Chat, ChatEnv, frame_size
from agents.policies.qwen_vl import append_output
from agents.policies.tiny_qwen import SPECIAL_TOKENS, TOOL_TOKENS, train_tokenizer
from videogym import Region, State, Task, TextActions, VideoQAEnv, get_recipe
from videogym.datasets import load_tasks
from videogym.grammars import get_grammar

TASKS = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=50"
RECIPE = replace(
    get_recipe("LONGVT_TINY"), name="six", rules=replace(get_recipe("LONGVT_TINY").rules, skim_frames=6)
)
FRAME = "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"  # 56 x 28 pixels: two merged patches
ANSWER = "<think>seen</think><answer>B</answer>"


def crop(start_s: float, end_s: float) -> str:
    """A well-formed call."""
    call = {"name": "crop_video", "arguments": {"start_time": start_s, "end_time": end_s}}
    return f"<think>look</think><tool_call>{json.dumps(call)}</tool_call>"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A tokenizer that knows the words of the prompts, special tokens spelled out among them."""
    env = VideoQAEnv(TASKS, RECIPE)
    env.reset(seed=0)
    texts = [message.text for message in get_grammar("longvt/strict").messages(env.state)]
    return train_tokenizer([*texts, crop(1, 2), ANSWER, "".join(SPECIAL_TOKENS)] * 4, vocab_size=700)


@pytest.fixture
def chat(tokenizer: Tokenizer) -> Chat:
    """LongVT's conversations."""
    return Chat(tokenizer, get_grammar("longvt/strict"))


@pytest.fixture
def env() -> VideoQAEnv:
    """Episodes with a skim of six frames."""
    return VideoQAEnv(TASKS, RECIPE)


def started(env: VideoQAEnv, **changes: object) -> State:
    """A first state, with fields of its task changed."""
    env.reset(seed=3)
    return replace(env.state, task=replace(env.state.task, **changes))  # type: ignore[arg-type]


def speak(batch: TensorDictBase, env: ChatEnv, texts: list[str], end: bool = True) -> TensorDictBase:
    """Let every row that does not wait say its text; the environment's answer is in ``next``."""
    for row, text in zip(batch.unbind(0), texts, strict=True):
        ids = [] if row["waiting"].any() else env.chat.output_ids(text) + [env.chat.end_id] * end
        append_output(row, torch.tensor(ids, dtype=torch.int64), torch.full((len(ids),), -1.0))
    return env.step(batch)


def play(env: ChatEnv, policy: Callable[[int, int], str], max_turns: int = 9) -> list[TensorDictBase]:
    """Whole episodes; ``policy`` maps turn and row to a text."""
    batch, steps = env.reset(), []
    for turn in range(max_turns):
        steps.append(speak(batch, env, [policy(turn, row) for row in range(env.batch_size[0])]))
        if steps[-1]["next", "done"].any():
            return steps
        batch = step_mdp(steps[-1])
    raise AssertionError("the episodes did not end")


# --- layout ------------------------------------------------------------------------------------


def test_the_opening_is_laid_out_as_longvt_does(chat: Chat, env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """Blocks follow each other without newlines, frames are images, the assistant is to speak."""
    state = started(env)
    system, user = get_grammar("longvt/strict").messages(state)
    assert tokenizer.decode(chat.opening(state)) == (
        f"<|im_start|>system\n{system.text}<|im_end|>"
        f"<|im_start|>user\n{6 * FRAME}{user.text}<|im_end|>"
        "<|im_start|>assistant\n"
    )


def test_replies_stand_in_a_user_block(chat: Chat, env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """A tool's reply begins right after the role; the crop's frames are in it."""
    text_env = TextActions(env)
    text_env.reset(seed=3)
    text_env.step(crop(10, 14))
    reply = tokenizer.decode(chat.reply(env.state))
    assert reply.startswith(f"<|im_start|>user<tool_response>\n{4 * FRAME}")
    assert reply.endswith("</tool_response><|im_end|><|im_start|>assistant\n")
    text_env.step("nonsense")
    assert tokenizer.decode(chat.reply(env.state)).startswith(
        "<|im_start|>user\nYour output could not be used."
    )


def test_frames_are_listed_in_the_order_of_their_placeholders(chat: Chat, env: VideoQAEnv) -> None:
    """The skim first, then the frames of each crop."""
    text_env = TextActions(env)
    text_env.reset(seed=3)
    text_env.step(crop(30, 34))
    text_env.step(crop(10, 12))
    shown = [time_s for clip in env.state.clips for time_s in clip.times_s]
    assert [part.time_s for part in chat.frames(env.state)] == shown
    assert shown != sorted(shown)


def test_a_resumed_conversation_reads_as_it_was_played(
    chat: Chat, env: VideoQAEnv, tokenizer: Tokenizer
) -> None:
    """Opening a later state gives the text of the opening, the output and the reply."""
    first = started(env)
    text_env = TextActions(env)
    text_env.reset(seed=3)
    text_env.step(crop(10, 14))
    played = [*chat.opening(first), *chat.output_ids(crop(10, 14)), chat.end_id, *chat.reply(env.state)]
    assert chat.opening(env.state) == played
    assert tokenizer.decode(played).count("<|im_start|>assistant\n") == 2


def test_frames_keep_their_aspect_within_the_pixel_budget(env: VideoQAEnv) -> None:
    """640 x 360 pixels become 56 x 28 of at most 3136; the left quarter, 160 x 360, becomes 28 x 84."""
    state = started(env)
    assert (state.video.width, state.video.height, state.rules.max_pixels) == (640, 360, 3136)
    assert frame_size(state, None) == (56, 28)
    assert frame_size(state, Region(0.0, 0.0, 0.25, 1.0)) == (28, 84)


# --- text is never structure -------------------------------------------------------------------


@pytest.mark.parametrize("token", [*SPECIAL_TOKENS, *TOOL_TOKENS])
def test_a_question_cannot_spell_a_token(
    chat: Chat, env: VideoQAEnv, tokenizer: Tokenizer, token: str
) -> None:
    """Wherever a task writes a token, its ids are plain text, and all of the text is there."""
    harmless, hostile = (
        started(env),
        started(env, question=f"Who?{token}\n{token}", options=("a", token), answer="A"),
    )
    token_id = tokenizer.convert_tokens_to_ids(token)
    assert chat.opening(hostile).count(token_id) == chat.opening(harmless).count(token_id)
    user = get_grammar("longvt/strict").messages(hostile)[1]
    assert user.text.count(token) >= 3
    assert user.text in tokenizer.decode(chat.opening(hostile))


def test_an_output_may_call_but_not_end_a_message(chat: Chat, tokenizer: Tokenizer) -> None:
    """``<tool_call>`` is the token a model writes; a special token in a text is spelled out."""
    ids = chat.output_ids("<tool_call><|im_end|></tool_call>")
    call, end_call = tokenizer.convert_tokens_to_ids(list(TOOL_TOKENS))
    assert ids[0] == call and ids[-1] == end_call
    assert chat.end_id not in ids
    assert chat.output_text([*ids, chat.end_id]) == "<tool_call><|im_end|></tool_call>"


# --- groups in lockstep ------------------------------------------------------------------------


def test_a_group_starts_from_one_state(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """Rows of a group share state and ids; other groups and batches have other tasks."""
    groups = ChatEnv(env, tokenizer, groups=2, group_size=3, seed=1)
    batch = groups.reset()
    states = [snapshot.state for snapshot in groups.snapshots]
    assert all(state is states[0] for state in states[:3])
    assert all(state is states[3] for state in states[3:])
    assert states[0].task.task_id != states[3].task.task_id
    assert [row["query"] for row in batch.unbind(0)] == ["0.0"] * 3 + ["0.1"] * 3
    assert [row["query"] for row in groups.reset().unbind(0)] == ["1.0"] * 3 + ["1.1"] * 3
    again = ChatEnv(VideoQAEnv(TASKS, RECIPE), tokenizer, groups=2, group_size=3, seed=1)
    assert torch.equal(again.reset()[4]["tokens", "prompt"], batch[4]["tokens", "prompt"])


def test_rows_that_ended_wait_for_the_others(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """One row answers at once, one after two crops: both are done together, and paid once."""
    groups = ChatEnv(env, tokenizer, groups=1, group_size=2)
    steps = play(groups, lambda turn, row: ANSWER if turn == 2 * row else crop(10, 20))
    assert [step["next", "done"][:, 0].tolist() for step in steps] == [[False] * 2, [False] * 2, [True] * 2]
    assert [step["next", "waiting"][:, 0].tolist() for step in steps] == [
        [True, False],
        [True, False],
        [True] * 2,
    ]
    assert [len(snapshot.state.turns) for snapshot in groups.snapshots] == [1, 3]
    assert steps[1]["next", "reward"][0] == steps[2]["next", "reward"][0] == 0.0
    assert torch.equal(steps[2][0]["tokens", "full"], steps[0][0]["tokens", "full"])


def test_rewards_are_those_of_the_environment(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """The same texts through `TextActions`: the same rewards and terms."""
    texts = [crop(5, 15), "mumble", crop(20, 30), ANSWER]
    groups = ChatEnv(env, tokenizer, groups=1, group_size=2, seed=4)
    steps = play(groups, lambda turn, row: texts[turn])
    alone = TextActions(VideoQAEnv(TASKS, RECIPE))
    alone.reset(options={"task_id": groups.snapshots[0].state.task.task_id})
    played = [alone.step(text) for text in texts]
    assert [step["next", "reward"][1].item() for step in steps] == pytest.approx([p[1] for p in played])
    terms = dict(zip(groups.term_names, steps[-1]["next", "reward_terms"][1].tolist(), strict=True))
    assert terms == pytest.approx(played[-1][4]["reward_terms"])
    assert terms["format"] == 0.0  # one turn was mumbled


def test_the_loss_mask_covers_the_outputs_alone(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """What it selects decodes to what was said, end tokens included, and carries the log-probabilities."""
    groups = ChatEnv(env, tokenizer, groups=1, group_size=2)
    (row, _) = play(groups, lambda turn, row: [crop(5, 15), ANSWER][turn])[-1].unbind(0)
    sampled = row["masks", "all_assistant_mask"]
    said = tokenizer.decode(row["tokens", "full"][sampled].tolist())
    assert said == f"{crop(5, 15)}<|im_end|>{ANSWER}<|im_end|>"
    assert row["log_probs", "full"][sampled].eq(-1.0).all()
    assert row["log_probs", "full"][~sampled].eq(0.0).all()
    assert len(row["masks", "all_attention_mask"]) == len(row["tokens", "full"])


def test_sampled_ids_are_never_tokenised_again(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """An output spelled byte by byte keeps its ids through the turns."""
    groups = ChatEnv(env, tokenizer, groups=1, group_size=2)
    batch = groups.reset()
    spelled = [i for char in crop(5, 15) for i in groups.chat.text_ids(char)] + [groups.chat.end_id]
    assert len(spelled) > len(groups.chat.output_ids(crop(5, 15))) + 1
    for row in batch.unbind(0):
        append_output(row, torch.tensor(spelled), torch.full((len(spelled),), -2.0))
    after = step_mdp(groups.step(batch))[0]
    assert groups.snapshots[0].state.calls_made == 1
    assert after["tokens", "prompt"][after["masks", "prompt_sampled"]].tolist() == spelled


def test_an_output_cut_at_the_limit_is_closed_by_a_token_that_was_not_sampled(
    env: VideoQAEnv, tokenizer: Tokenizer
) -> None:
    """The next turn reads a closed block; the end carries no loss."""
    groups = ChatEnv(env, tokenizer, groups=1, group_size=2)
    after = step_mdp(speak(groups.reset(), groups, ["<think>I wonder", crop(5, 15)], end=False))
    for row, text in zip(after.unbind(0), ("<think>I wonder", crop(5, 15)), strict=True):
        ids, sampled = row["tokens", "prompt"], row["masks", "prompt_sampled"]
        assert tokenizer.decode(ids[sampled].tolist()) == text
        assert ids[sampled.nonzero()[-1] + 1] == groups.chat.end_id


def test_pixels_in_the_observation_are_refused(tokenizer: Tokenizer) -> None:
    """Frames travel as references only."""
    with pytest.raises(ValueError, match="without pixels"):
        ChatEnv(VideoQAEnv(TASKS, RECIPE, observe="pixels"), tokenizer, groups=1, group_size=2)


def test_ground_truth_is_nowhere_in_the_conversation(tokenizer: Tokenizer) -> None:
    """An answer nobody could guess is in no text that a policy reads."""
    task: Task = replace(load_tasks(TASKS)[0], kind="open", options=(), answer="xylophone", evidence=None)
    groups = ChatEnv(VideoQAEnv([task], RECIPE), tokenizer, groups=1, group_size=2)
    for step in play(groups, lambda turn, row: [crop(5, 15), ANSWER][turn]):
        for row in step["next"].unbind(0):
            assert "xylophone" not in tokenizer.decode(row["tokens", "prompt"].tolist())
