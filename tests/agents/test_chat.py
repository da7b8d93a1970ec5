"""Conversations as ids: their layout, what text may never become, and groups of episodes in lockstep."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from small_chat import ANSWER, RECIPE, TASKS, crop
from tensordict import NonTensorData, TensorDictBase
from torchrl.envs import step_mdp
from transformers import PreTrainedTokenizerFast as Tokenizer

from agents.models.tiny_qwen import SPECIAL_TOKENS, TOOL_TOKENS, train_tokenizer
from agents.models.visuals import WHOLE_FRAME, ChatForm, Visual
from agents.tools.traces import trace_of_record
from agents.vlm.chat import Chat, frame_size
from agents.vlm.env import ChatEnv, NoRoom
from agents.vlm.evaluation import rollout_metrics
from agents.vlm.records import Record, fingerprint
from videogym import Region, RewardError, State, Task, TextActions, VideoQAEnv, get_recipe
from videogym.datasets import load_tasks
from videogym.grammars import get_grammar
from videogym.grammars.longvt import LongVT
from videogym.rewards import AnswerTerm
from videogym.video import Video, VideoError

FRAME = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"


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


def opening_ids(chat: Chat, state: State) -> tuple[int, ...]:
    """All ids up to where the assistant writes first."""
    head, turn = chat.opening(state)
    return (*head, *turn.observation)


def speak(batch: TensorDictBase, env: ChatEnv, texts: list[str], end: bool = True) -> TensorDictBase:
    """Let every row that does not wait say its text; the environment's answer is in ``next``."""
    for row, text in zip(batch.unbind(0), texts, strict=True):
        if not row["record"].done:
            ids = env.chat.output_ids(text) + [env.chat.end_id] * end
            said = row["record"].answered(ids, [-1.0] * len(ids), [5] * len(ids))
            row["record"] = NonTensorData(said)
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


def records(step: TensorDictBase) -> list[Record]:
    """Those after a step."""
    return [row["next", "record"] for row in step.unbind(0)]


def asked(batch: TensorDictBase) -> list[Record]:
    """Those that a policy reads."""
    return [row["record"] for row in batch.unbind(0)]


# --- layout ------------------------------------------------------------------------------------


def test_the_opening_is_laid_out_as_longvt_does(chat: Chat, env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """Blocks follow each other without newlines, frames are images, the assistant is to speak."""
    state = started(env)
    system, user = get_grammar("longvt/strict").messages(state)
    head, turn = chat.opening(state)
    assert tokenizer.decode(head) == f"<|im_start|>system\n{system.text}<|im_end|>"
    assert tokenizer.decode(turn.observation) == (
        f"<|im_start|>user\n{6 * FRAME}{user.text}<|im_end|><|im_start|>assistant\n"
    )
    assert turn.output == () and len(turn.visuals) == 6


def test_other_grammars_have_qwens_own_layout(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """A newline after every end, and before a tool's reply."""
    state = started(env)
    head, turn = Chat(tokenizer, get_grammar("native")).opening(state)
    assert tokenizer.decode(head).endswith("<|im_end|>\n")
    assert tokenizer.decode(turn.observation).endswith("<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("block_end", ["\n", ""])
def test_a_grammar_says_what_ends_a_block(env: VideoQAEnv, tokenizer: Tokenizer, block_end: str) -> None:
    """Whatever its name is: LongVT's, under another one, has LongVT's layout or Qwen's."""

    class Mine(LongVT):
        name = "mine"

    Mine.block_end = block_end
    env.reset(seed=0)
    head, _ = Chat(tokenizer, Mine("strict")).opening(env.state)
    assert tokenizer.decode(list(head)).endswith(f"<|im_end|>{block_end}")


def test_replies_stand_in_a_user_block(chat: Chat, env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """A tool's reply begins right after the role; the crop's frames are in it."""
    text_env = TextActions(env)
    text_env.reset(seed=3)
    text_env.step(crop(10, 14))
    reply = chat.reply(env.state, closed=True)
    text = tokenizer.decode(reply.observation)
    assert text.startswith(f"<|im_start|>user<tool_response>\n{4 * FRAME}")
    assert text.endswith("</tool_response><|im_end|><|im_start|>assistant\n")
    assert [visual.times_s for visual in reply.visuals] == [(t,) for t in env.state.clips[-1].times_s]
    assert tokenizer.decode(chat.reply(env.state, closed=False).observation) == f"<|im_end|>{text}"
    text_env.step("nonsense")
    reply = chat.reply(env.state, closed=True)
    assert tokenizer.decode(reply.observation).startswith(
        "<|im_start|>user\nYour output could not be used."
    )
    assert reply.visuals == ()


def test_a_conversation_opens_once(chat: Chat, env: VideoQAEnv) -> None:
    """What a policy sampled is not in the state, so a later state has no opening."""
    text_env = TextActions(env)
    text_env.reset(seed=3)
    text_env.step(crop(10, 14))
    with pytest.raises(ValueError, match="opens before the first turn, not after 1"):
        chat.opening(env.state)


def test_neighbouring_frames_are_one_video(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """In the form of a video the skim is one visual, with its times in order."""
    state = started(env)
    _, turn = Chat(tokenizer, get_grammar("longvt/strict"), ChatForm(28, 2, "video")).opening(state)
    text = tokenizer.decode(turn.observation)
    assert text.count(VIDEO) == 1 and FRAME not in text
    assert turn.visuals == (Visual(state.task.video, state.skim.times_s, WHOLE_FRAME, (56, 28)),)


def test_a_stamped_video_is_pairs_after_their_mean_times(tokenizer: Tokenizer) -> None:
    """As Qwen3-VL's processor writes it; of an odd number the last frame is shown twice."""
    usual = get_recipe("DEFAULT")
    rules = replace(usual.rules, skim_frames=5, timestamps=RECIPE.rules.timestamps)
    five = replace(usual, name="five", rules=rules)
    state = started(VideoQAEnv(TASKS, five))
    form = ChatForm(32, 2, "stamped_video")
    _, turn = Chat(tokenizer, get_grammar("longvt/strict"), form).opening(state)
    a, b, c, d, e = state.skim.times_s
    stamps = [(a + b) / 2, (c + d) / 2, e]
    text = tokenizer.decode(turn.observation)
    assert "".join(f"<{time_s:.1f} seconds>{VIDEO}" for time_s in stamps) in text
    assert [visual.times_s for visual in turn.visuals] == [(a, b), (c, d), (e, e)]
    assert {visual.size for visual in turn.visuals} == {frame_size(state, None, 32)}


def test_frames_keep_their_aspect_within_the_pixel_budget(env: VideoQAEnv) -> None:
    """640 x 360 pixels become 56 x 28 of at most 3136; the left quarter, 160 x 360, becomes 28 x 84."""
    state = started(env)
    assert (state.video.width, state.video.height, state.rules.max_pixels) == (640, 360, 3136)
    assert frame_size(state, None, 28) == (56, 28)
    assert frame_size(state, Region(0.0, 0.0, 0.25, 1.0), 28) == (28, 84)
    width, height = frame_size(state, None, 32)
    assert width % 32 == height % 32 == 0 and width * height <= 3136


@pytest.mark.parametrize("factor", [28, 32])
@pytest.mark.parametrize(
    "box",
    [(0.0, 0.5, 1.0, 0.5001), (0.3, 0.0, 0.30001, 1.0), (0.0, 0.0, 0.001, 0.001), (0.0, 0.0, 1.0, 0.02)],
)
def test_a_sliver_that_a_policy_asks_for_is_shown_too(
    env: VideoQAEnv, box: tuple[float, float, float, float], factor: int
) -> None:
    """What a model writes must not end a run: every region has a size within the budget."""
    width, height = frame_size(started(env), Region(*box), factor)
    assert width >= factor and height >= factor and width * height <= 3136
    assert width % factor == height % factor == 0


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
    ids = opening_ids(chat, hostile)
    assert ids.count(token_id) == opening_ids(chat, harmless).count(token_id)
    user = get_grammar("longvt/strict").messages(hostile)[1]
    assert user.text.count(token) >= 3
    assert user.text in tokenizer.decode(ids)


def test_an_output_may_call_but_not_end_a_message(chat: Chat, tokenizer: Tokenizer) -> None:
    """``<tool_call>`` is the token a model writes; a special token in a text is spelled out."""
    ids = chat.output_ids("<tool_call><|im_end|></tool_call>")
    call, end_call = tokenizer.convert_tokens_to_ids(list(TOOL_TOKENS))
    assert ids[0] == call and ids[-1] == end_call
    assert chat.end_id not in ids
    assert chat.output_text([*ids, chat.end_id]) == "<tool_call><|im_end|></tool_call>"


# --- groups in lockstep ------------------------------------------------------------------------


def test_a_group_starts_from_one_state(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """Rows of a group share state and ids; other groups and batches have other tasks and names."""
    groups = ChatEnv(env, tokenizer, groups=2, group_size=3, seed=1)
    batch = groups.reset()
    states = [snapshot.state for snapshot in groups.snapshots]
    assert all(state is states[0] for state in states[:3])
    assert all(state is states[3] for state in states[3:])
    assert states[0].task.task_id != states[3].task.task_id
    first = [row["record"] for row in batch.unbind(0)]
    assert [one.task_id for one in first] == [state.task.task_id for state in states]
    assert [one.sample_index for one in first] == [0, 1, 2] * 2
    assert all((one.head, one.turns) == (first[0].head, first[0].turns) for one in first[:3])
    assert {one.recipe for one in first} == {RECIPE.identity}
    assert {one.tokenizer for one in first} == {fingerprint(tokenizer)}
    names = [row["query"] for row in batch.unbind(0)]
    assert names == [one.group for one in first] == [names[0]] * 3 + [names[3]] * 3
    other = [row["query"] for row in groups.reset().unbind(0)]
    assert len({*names, *other}) == 4
    again = ChatEnv(VideoQAEnv(TASKS, RECIPE), tokenizer, groups=2, group_size=3, seed=1)
    assert again.reset()[4]["record"] == first[4]
    groups.set_seed(1)
    assert [row["record"] for row in groups.reset().unbind(0)] == first


def test_rows_that_ended_wait_for_the_others(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """One row answers at once, one after two crops: both are done together, and paid once."""
    groups = ChatEnv(env, tokenizer, groups=1, group_size=2)
    steps = play(groups, lambda turn, row: ANSWER if turn == 2 * row else crop(10, 20))
    assert [step["next", "done"][:, 0].tolist() for step in steps] == [[False] * 2, [False] * 2, [True] * 2]
    waiting = [step["next", "waiting"][:, 0].tolist() for step in steps]
    assert waiting == [[True, False], [True, False], [True] * 2]
    assert [len(snapshot.state.turns) for snapshot in groups.snapshots] == [1, 3]
    assert steps[1]["next", "reward"][0] == steps[2]["next", "reward"][0] == 0.0
    assert records(steps[2])[0] == records(steps[0])[0]
    assert [one.ending for one in records(steps[2])] == ["answered"] * 2
    assert [snapshot.state.answer for snapshot in groups.snapshots] == ["B", "B"]


def test_rewards_are_those_of_the_environment(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """The same texts through `TextActions`: the same rewards, terms, looks, errors and success."""
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
    one = records(steps[-1])[1]
    assert [turn.reward for turn in one.turns] == pytest.approx([p[1] for p in played])
    assert [turn.text for turn in one.turns] == texts
    assert [turn.looked for turn in one.turns] == [True, False, True, False]
    assert [turn.error for turn in one.turns] == [p[4]["error_code"] for p in played]
    assert one.success is bool(played[-1][4]["is_success"])
    assert one.total_reward == pytest.approx(sum(p[1] for p in played))
    early = dict(zip(groups.term_names, steps[0]["next", "reward_terms"][1].tolist(), strict=True))
    assert early["answer"] != early["answer"], "NaN while there is nothing"


class Endless(VideoQAEnv):
    """An environment of one's own that pays without end."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As the plain one, paid otherwise."""
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float("inf"), terminated, truncated, info


def test_a_reward_that_is_infinite_is_refused_before_a_record_holds_it(tokenizer: Tokenizer) -> None:
    """Whoever scored it."""
    groups = ChatEnv(Endless(TASKS, RECIPE), tokenizer, groups=1, group_size=2, seed=4)
    with pytest.raises(RewardError, match=r"the reward of task .* must be a finite number, got inf"):
        play(groups, lambda turn, row: ANSWER)


def test_sampled_ids_are_never_tokenised_again(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """An output spelled byte by byte keeps its ids through the turns."""
    groups = ChatEnv(env, tokenizer, groups=1, group_size=2)
    batch = groups.reset()
    spelled = [i for char in crop(5, 15) for i in groups.chat.text_ids(char)] + [groups.chat.end_id]
    assert len(spelled) > len(groups.chat.output_ids(crop(5, 15))) + 1
    for row in batch.unbind(0):
        said = row["record"].answered(spelled, [-2.0] * len(spelled), [1] * len(spelled))
        row["record"] = NonTensorData(said)
    after = step_mdp(groups.step(batch))[0]["record"]
    assert groups.snapshots[0].state.calls_made == 1
    assert after.turns[0].output == tuple(spelled)
    assert after.turns[0].log_probs == (-2.0,) * len(spelled)
    ids, _ = after.context(1)
    assert ids == (*after.head, *after.turns[0].observation, *spelled, *after.turns[1].observation)


def test_an_output_cut_at_the_limit_is_closed_by_a_token_that_was_not_sampled(
    env: VideoQAEnv, tokenizer: Tokenizer
) -> None:
    """The next turn reads a closed block; the end is part of the observation."""
    groups = ChatEnv(env, tokenizer, groups=1, group_size=2)
    texts = ["<think>I wonder", crop(5, 15)]
    after = step_mdp(speak(groups.reset(), groups, texts, end=False))
    for row, text in zip(after.unbind(0), texts, strict=True):
        first, second = row["record"].turns
        assert tokenizer.decode(list(first.output)) == first.text == text
        assert tokenizer.decode(list(second.observation)).startswith("<|im_end|><|im_start|>user")


def test_a_context_that_is_full_takes_the_observation_back(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """A crop that does not fit is nowhere in the record, which is cut; the other row goes on."""
    free = ChatEnv(env, tokenizer, groups=1, group_size=2)
    before, after = (step[1]["record"] for step in _two(free, [ANSWER, crop(5, 15)]))
    frames = sum(len(turn.visuals) for turn in after.turns)
    ids, visuals = after.context(1)
    full = len(ids) + len(visuals)  # each frame has two placeholders, one of which is there
    assert frames == len(visuals) == 16
    tight = ChatEnv(env, tokenizer, groups=1, group_size=2, max_context=full)
    _, batch = _two(tight, [crop(5, 6), crop(5, 15)])
    fits, cut = (row["record"] for row in batch.unbind(0))
    assert (cut.abort_reason, cut.ending, cut.success, cut.done) == ("context", "", None, True)
    assert len(cut.turns) == 1 and cut.turns[0].output and cut.turns[0].visuals == before.turns[0].visuals
    assert (fits.abort_reason, len(fits.turns)) == ("", 2)
    roomy = ChatEnv(env, tokenizer, groups=1, group_size=2, max_context=full + 1)
    _, batch = _two(roomy, [ANSWER, crop(5, 15)])
    assert batch[1]["record"] == replace(after, group=batch[1]["record"].group)
    with pytest.raises(ValueError, match=r"takes \d+ tokens .* no room in max_context=100"):
        ChatEnv(env, tokenizer, groups=1, group_size=2, max_context=100).reset()


def _two(env: ChatEnv, texts: list[str]) -> tuple[TensorDictBase, TensorDictBase]:
    """The batch before and after each of two rows said its text."""
    before = env.reset()
    kept = before.clone()
    return kept, step_mdp(speak(before, env, texts))


def test_a_window_leaves_the_record_whole(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """All turns are in the record; the context holds the last so many."""
    groups = ChatEnv(env, tokenizer, groups=1, group_size=2, window=1)
    last = records(play(groups, lambda turn, row: crop(5 + turn, 9) if turn < 3 else ANSWER)[-1])[0]
    assert len(last.turns) == 4 and last.window == 1
    ids, visuals = last.context(3)
    assert visuals == (*last.turns[2].visuals, *last.turns[3].visuals)
    assert ids == (
        *last.head,
        *last.turns[2].observation,
        *last.turns[2].output,
        *last.turns[3].observation,
    )


def test_pixels_in_the_observation_are_refused(tokenizer: Tokenizer) -> None:
    """Frames travel as references only."""
    with pytest.raises(ValueError, match="without pixels"):
        ChatEnv(VideoQAEnv(TASKS, RECIPE, observe="pixels"), tokenizer, groups=1, group_size=2)


def test_ground_truth_is_nowhere_in_the_conversation(tokenizer: Tokenizer) -> None:
    """An answer nobody could guess is in no text that a policy reads."""
    task: Task = replace(load_tasks(TASKS)[0], kind="open", options=(), answer="xylophone", evidence=None)
    groups = ChatEnv(VideoQAEnv([task], RECIPE), tokenizer, groups=1, group_size=2)
    for step in play(groups, lambda turn, row: [crop(5, 15), ANSWER][turn]):
        for one in records(step):
            assert "xylophone" not in tokenizer.decode(list(one.context(len(one.turns) - 1)[0]))


def test_an_episode_whose_answer_was_not_judged_is_cut(tokenizer: Tokenizer) -> None:
    """It keeps what was paid and the answer, and is nothing to learn from; the other row is judged."""

    def judge(task: Task, answer: str) -> float | None:
        return None if answer == "B" else 1.0

    terms = tuple(
        replace(term, function=AnswerTerm(judge=judge)) if term.name == "answer" else term
        for term in RECIPE.terms
    )
    env = VideoQAEnv(TASKS, replace(RECIPE, name="JUDGED", terms=terms))
    groups = ChatEnv(env, tokenizer, groups=1, group_size=2)
    (step,) = play(groups, lambda turn, row: [ANSWER, ANSWER.replace(">B<", ">C<")][row])
    cut, judged = records(step)
    assert (cut.abort_reason, cut.success, cut.done) == ("judge: it abstained from the answer", None, True)
    assert cut.total("answer") is None and cut.turns[-1].text == ANSWER
    assert (judged.abort_reason, judged.success, judged.total("answer")) == ("", True, 1.0)


@pytest.mark.parametrize("restored", [True, False])
def test_a_video_that_fails_in_a_turn_cuts_its_row(
    restored: bool, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment meets a video error: the row is cut with the cause, the other goes on.

    Where even the state cannot be restored, the output was not played, and is left out.
    """
    env = VideoQAEnv(TASKS, RECIPE)
    groups = ChatEnv(env, tokenizer, groups=2, group_size=1)
    batch = groups.reset()
    (gone, _) = [row["record"].task_id for row in batch.unbind(0)]
    opened, broken, calls = env.store.open, groups.snapshots[0].state.task.video, []

    def failing(source: str) -> Video:
        calls.append(source)
        if calls.count(broken) > restored and source == broken:  # the first restores the state
            raise VideoError(f"{calls.count(source)}: its packets are gone")
        return opened(source)

    monkeypatch.setattr(env.store, "open", failing)
    cut, fine = records(speak(batch, groups, [crop(5, 15)] * 2))
    assert cut.task_id == gone
    assert cut.abort_reason == f"fault: {1 + restored}: its packets are gone" and cut.success is None
    assert cut.done and len(cut.played) == restored
    monkeypatch.undo()
    assert len(trace_of_record(cut, VideoQAEnv(TASKS, RECIPE), "run").turns) == restored
    assert (fine.abort_reason, len(fine.turns)) == ("", 2)


def test_words_stay_tokens_of_their_own_but_not_inside_others() -> None:
    """A word is one token beside anything that is no letter; "required" is not cut into requi and red."""
    texts = ["B. red is required", "C. red no (A) red required"] * 20
    tokenizer = train_tokenizer(texts, 400, words=("red", "no"))
    assert tokenizer.tokenize("B. red no") == [*tokenizer.tokenize("B."), "Ġred", "Ġno"]
    assert "red" not in tokenizer.tokenize(" required")
    assert tokenizer.tokenize(" required") == ["Ġrequired"]  # merged whole, as it is in every text


# --- tasks that cannot be played ---------------------------------------------------------------


def test_an_output_without_room_to_end_is_cut_and_no_wrong_answer(
    env: VideoQAEnv, tokenizer: Tokenizer
) -> None:
    """Not ended, and the context is full with it: nothing is played. Otherwise it is."""
    groups = ChatEnv(env, tokenizer, groups=1, group_size=2)
    record = asked(groups.reset())[0]
    ids, end = groups.chat.output_ids(ANSWER), groups.chat.end_id

    def answered(output: list[int], room: int) -> Record:
        groups.env.set_state(groups.snapshots[0])
        groups.max_context = groups.chat.length(record) + room
        return groups.advance(record.answered(output, [0.0] * len(output), [0] * len(output)))

    cut = answered(ids, len(ids))
    assert (cut.abort_reason, cut.ending, cut.success) == ("context", "", None)
    for output, room in ((ids, len(ids) + 1), ([*ids, end], len(ids) + 1)):
        assert (answered(output, room).abort_reason, answered(output, room).ending) == ("", "answered")


def test_a_video_that_cannot_be_opened_is_passed_over(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another task is drawn, the same each time; where none can be played the last cause is told."""
    env = VideoQAEnv(TASKS, RECIPE)
    sound = [one.task_id for one in asked(ChatEnv(env, tokenizer, groups=3, group_size=1).reset())]
    (gone,) = [task.video for task in env.tasks if task.task_id == sound[1]]
    opened = env.store.open

    def failing(source: str) -> Video:
        if source == gone:
            raise VideoError("its packets are gone")
        return opened(source)

    monkeypatch.setattr(env.store, "open", failing)
    groups = ChatEnv(env, tokenizer, groups=3, group_size=1)
    drawn = [one.task_id for one in asked(groups.reset())]
    assert drawn[0] == sound[0] and drawn[1] == sound[2] and sound[1] not in drawn
    assert "passed over" in caplog.text and "its packets are gone" in caplog.text
    groups.set_seed(0)
    assert [one.task_id for one in asked(groups.reset())] == drawn
    closed = groups.open_task(sound[1])
    assert closed.abort_reason.startswith("fault: ") and closed.done and not closed.turns
    groups.max_context = 10
    with pytest.raises(NoRoom, match=r"^100 tasks in a row could not be played, the last: the question"):
        groups.reset()


def test_figures_count_a_full_context_as_no_right_answer(env: VideoQAEnv, tokenizer: Tokenizer) -> None:
    """One right, one whose context was full, one with a fault: 1 of 2, and two of three are cut."""
    groups = ChatEnv(env, tokenizer, groups=1, group_size=2)
    record = asked(groups.reset())[0]
    ids = [*groups.chat.output_ids(ANSWER), groups.chat.end_id]
    right = replace(groups.advance(record.answered(ids, [0.0] * len(ids), [0] * len(ids))), success=True)
    some = [
        right,
        replace(right, abort_reason="context", success=None),
        replace(right, abort_reason="fault: x", success=None),
    ]
    found = rollout_metrics(some)
    assert found["accuracy"] == 0.5 and found["cut_rate"] == pytest.approx(2 / 3)
    assert rollout_metrics(some[1:])["accuracy"] == 0.0 and "accuracy" not in rollout_metrics(some[2:])
