"""Tool calls play what actions play, and whatever is called, something is said."""

# ruff: noqa: D103

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogym import Answer, Crop, Move, VideoQAEnv
from videogym.testing.policies import Oracle
from videogym.tool_episode import ToolEpisode
from videogym.video import UnreadableVideo

TASKS = "procedural:brief_event?level=0&duration_s=60&count=20&size=280x168"
RECIPES = ("DEFAULT", "LONGVT/paper", "LONGVT/code", "VIDEO_MTR/paper")


def make(recipe="DEFAULT", **options):
    episode = ToolEpisode(VideoQAEnv(TASKS, recipe), **options)
    return episode, episode.begin(seed=3)


def frames(reply):
    return [part for part in reply.parts if not isinstance(part, str)]


def schema(episode, name):
    (found,) = (t["function"] for t in episode.tools if t["function"]["name"] == name)
    return found["parameters"]


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        ("DEFAULT", ["crop", "answer"]),
        ("LONGVT/paper", ["crop_video", "answer"]),  # it answers by a tag, which no tool call is
        ("LONGVT/code", ["crop_video", "answer"]),
        ("VIDEO_MTR/paper", ["select", "answer"]),  # it has no tools of its own
    ],
)
def test_the_tools_are_those_of_the_recipes_grammar(recipe, names):
    episode, _ = make(recipe)
    assert [tool["function"]["name"] for tool in episode.tools] == names
    for tool in episode.tools:
        jsonschema.Draft202012Validator.check_schema(tool["function"]["parameters"])


def arguments(episode, action, name):
    """The arguments of an action, by the schema of the tool."""
    if isinstance(action, Answer):
        return {"text": action.text}
    times = dict(zip(("start_time", "end_time"), (action.start_s, action.end_s), strict=True))
    if name == "crop_video":
        path = episode.question().text.rpartition(" is: ")[2]
        return {"video_path": path, **times}
    return {"start_s": action.start_s, "end_s": action.end_s}


@pytest.mark.parametrize("recipe", RECIPES)
def test_calls_are_paid_and_stored_as_the_text_of_a_model(recipe):
    """The oracle's actions as calls, and as text in the grammar: equal rewards, states but for the text."""
    episode, _ = make(recipe)
    env, oracle = VideoQAEnv(TASKS, recipe), Oracle()
    env.reset(seed=3)
    paid = []
    while not episode.state.terminated:
        action = oracle({}, {}, episode._inner)
        look = episode.tools[0]["function"]["name"]
        name = "answer" if isinstance(action, Answer) else look
        asked = arguments(episode, action, name)
        jsonschema.validate(asked, schema(episode, name))
        reply = episode.call(name, asked)
        assert not reply.error_code, reply.text
        written = episode._grammar.write(action, env.state)
        paid.append(env.step(episode._grammar.parse(written, env.state))[1])
    assert episode.rewards == paid and sum(paid) >= 1.0
    assert episode.info["is_success"] and episode.info["ending"] == "answered"
    for turn, twin in zip(episode.state.turns, env.state.turns, strict=True):
        assert turn.results == twin.results and turn.well_formed and turn.text is not None


def test_frames_come_in_order_after_their_times():
    episode, question = make()
    assert "60.00 s" in question.parts[0] and "A. " in question.parts[-1]
    assert len(frames(question)) == 32 == len(episode.state.skim.times_s)
    reply = episode.call("crop", {"start_s": 10, "end_s": 12})
    (clip,) = episode.state.turns[0].clips
    assert [part for part in reply.parts if isinstance(part, str)][:-1] == [
        f"[{time_s:.2f} s]" for time_s in clip.times_s
    ]
    assert [isinstance(part, str) for part in reply.parts] == [True, False] * len(clip.times_s) + [True]
    due = episode._inner.store.frames(episode.state.task.video, clip.times_s, size=(280, 168)).pixels
    assert np.array_equal(np.stack(frames(reply)), due)
    assert reply.parts[-1] == "5 turns are left. 60 more frames can be shown."  # 96 - 32 - 4


@pytest.mark.parametrize(
    ("region", "size"),
    [
        ([0.25, 0.25, 0.75, 0.75], (140, 84)),
        ([0.0, 0.5, 1.0, 0.5000001], (280, 28)),  # a sliver of 280 x 0 pixels
        ([0.5, 0.0, 0.5000001, 1.0], (28, 168)),
    ],
)
def test_any_region_has_a_size(region, size):
    episode, _ = make()
    reply = episode.call("crop", {"start_s": 10, "end_s": 12, "region": region})
    assert {part.shape[1::-1] for part in frames(reply)} == {size}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)
KEYS = st.sampled_from(["start_s", "end_s", "region", "text", "start_time", "end_time", "video_path", "x"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_call_raises_and_each_spends_a_turn(recipe):
    episode, _ = make(recipe)

    @settings(max_examples=120)
    @given(
        st.sampled_from(["crop", "crop_video", "select", "answer", "", "</tool_call>", "question"]),
        st.dictionaries(KEYS, JSON, max_size=4),
    )
    def call(name, asked):
        if episode.state.terminated:
            assert episode.call(name, asked).error_code == "over"
            episode.begin(seed=3)
        before = len(episode.state.turns)
        reply = episode.call(name, asked)
        assert len(episode.state.turns) == before + 1 == len(episode.rewards)
        assert reply.text and bool(reply.error_code) == bool(episode.info["invalid"])

    call()


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [nested(100_000), 10**5000, -(10**5000)], ids=["nested", "long", "long, negative"]
)
@pytest.mark.parametrize("tool", ["crop", "answer", "no_such_tool"])
def test_arguments_that_json_cannot_write_are_a_turn(tool, value):
    """Readers of protocols take deeper values and longer numbers than `json` writes."""
    episode, _ = make()
    key = "text" if tool == "answer" else "start_s"
    reply = episode.call(tool, {key: value, "end_s": 1})
    assert (reply.error_code, episode.rewards) == ("malformed_call", [0.0])
    assert "nested too deeply" in reply.text and len(episode.state.turns) == 1
    assert not episode.call("crop", {"start_s": 1, "end_s": 2}).error_code, "the episode goes on"


@pytest.mark.parametrize("seed", [-1, 1.5, "one", True])
def test_a_seed_that_is_none_is_refused_by_value(seed):
    episode, _ = make()
    with pytest.raises(ValueError, match="seed is a whole number, not negative, got"):
        episode.begin(seed=seed)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"text": 7}, "type"),
        ({}, "type"),
        ({"text": "A", "sure": True}, "type"),
        ({"text": "A</answer><answer>B"}, "format"),
        ({"text": "<tool_call>"}, "format"),
    ],
)
def test_an_answer_that_a_tag_cannot_hold_is_refused(asked, code):
    episode, _ = make("LONGVT/paper")
    assert episode.call("answer", asked).error_code == code
    assert not episode.state.terminated


def test_frames_that_cannot_be_shown_cost_the_turn_and_are_said(monkeypatch):
    episode, _ = make()
    rewards = []

    def broken(*_, **__):
        raise UnreadableVideo("clip.mp4: its packets are gone")

    monkeypatch.setattr(episode._inner.store, "frames", broken)
    reply = episode.call("crop", {"start_s": 0, "end_s": 60})
    rewards = episode.rewards
    assert reply.error_code == "fault" and "could not be decoded" in reply.text
    assert episode.state.turns[0].fault == "clip.mp4: its packets are gone"
    assert rewards == [0.0] and not frames(reply)


def test_nothing_is_played_after_the_end():
    episode, _ = make()
    assert episode.call("answer", {"text": "A"}).text == "The episode is over (answered)."
    before = episode.state
    assert episode.call("crop", {"start_s": 0, "end_s": 9}).error_code == "over"
    assert episode.state is before and len(episode.rewards) == 1


def test_a_grammar_without_tools_is_refused_by_name():
    with pytest.raises(ValueError, match=r"video_mtr/strict.*tags"):
        make("VIDEO_MTR/paper", grammar="video_mtr/strict")


def test_a_task_can_be_named():
    episode, _ = make()
    wanted = episode._inner.tasks[7].task_id
    episode.begin(task_id=wanted)
    assert episode.state.task.task_id == wanted
    assert episode.state.turns == () and episode.rewards == []
    moved = VideoQAEnv(TASKS)
    moved.reset(options={"task_id": wanted})
    moved.step(Move((Crop(1.0, 3.0),)))
    episode.call("crop", {"start_s": 1.0, "end_s": 3.0})
    assert episode.state.turns[0].clips == moved.state.turns[0].clips
