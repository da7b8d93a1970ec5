"""EVA's episode as its evaluation code plays it: no frame first, counts, scales, a shrinking budget."""

# ruff: noqa: D103

import json

import pytest
from pytest import approx

from videogym import Answer, Crop, Segment, Task
from videogym.grammars import get_grammar
from videogym.recipes import get_recipe
from videogym.sizes import clip_tokens
from videogym.testing.blank_video import BlankVideo
from videogym.testing.records import ReplayEpisode

TASK = Task("t", "blank", "Which?", "choice", ("red", "blue"), "B", (Segment(10.0, 20.0),))
RECIPE = get_recipe("EVA/code")


def select(start_s, end_s, count, **more):
    arguments = {"start_time": start_s, "end_time": end_s, "nframes": count, **more}
    return json.dumps({"tool": "frame_select", "arguments": arguments})


def block(*objects):
    return f"I plan.<tool_call>{' '.join(objects)}</tool_call>"


def played(*texts):
    with ReplayEpisode(RECIPE, TASK, BlankVideo(18_000, 30.0, 1280, 720)) as episode:
        total = {}
        for text in texts:
            info = episode.step(text)[2]
            for name, value in info["reward_terms"].items():
                if info["reward_present"][name]:
                    total[name] = total.get(name, 0.0) + float(value)
        return episode.state, total, episode.env.messages


def test_an_episode_begins_without_a_frame_and_tells_length_and_side():
    state, _, messages = played()
    assert state.frames_shown == 0 and "599 s and has 720p" in messages[1].text


def test_all_objects_of_the_first_block_run_and_bad_ones_are_left_out():
    text = block(select(0, 60, 4, resize=0.5), '{"tool": "other"}', select(100, 110, 1)) + block(
        select(0, 9, 9)
    )
    state, _, messages = played(text)
    assert [len(clip.times_s) for clip in state.turns[0].clips] == [4, 1]
    assert state.turns[0].clips[1].times_s == (105.0,)
    assert messages[-1].role == "tool" and "Frame 4 at [01:45]: " in messages[-1].text


def test_above_the_budget_count_and_sides_shrink_together_and_nobody_is_told():
    state, _, messages = played(block(select(0, 600, 64, resize=1)))
    (clip,) = state.turns[0].clips
    # 46 x 26 tokens a frame: 76,544 in all; the cube root of 12,000 / 76,544 is 0.539.
    share = (12_000 / (64 * 46 * 26)) ** (1 / 3)
    assert len(clip.times_s) == int(64 * share) == 34 and clip.scale == approx(share)
    assert clip_tokens(clip, state.video, state.rules) <= 12_000
    assert "More than" not in messages[-1].text


def test_what_is_left_of_nothing_is_the_whole_video():
    state, _, _ = played(block(select(900, 950, 2)))
    assert state.turns[0].clips[0].times_s[0] == 0.0 and state.turns[0].clips[0].times_s[1] > 599


@pytest.mark.parametrize(
    "text", ["I plan.", "<tool_call>{}</tool_call>", "<tool_call>" + select(0, 9, 2), block("[")]
)
def test_nothing_readable_ends_the_episode(text):
    state, paid, _ = played(text)
    assert state.ending == "malformed" and paid["answer"] == 0.0


def test_an_answer_comes_first_and_the_rewards_are_what_is_known():
    state, paid, _ = played(block(select(0, 60, 2)) + "<answer>B</answer>")
    assert (
        state.ending == "answered" and not state.turns[0].clips and paid == {"answer": 1.0, "format": 0.0}
    )
    _, paid, _ = played(block(select(0, 60, 2)), "Answer: A")
    assert paid == {"answer": 0.0, "format": 0.05}
    _, paid, _ = played("<answer>A</answer>")
    assert paid["format"] == 0.0


def test_written_is_read():
    grammar = get_grammar("eva")
    with ReplayEpisode(RECIPE, TASK, BlankVideo(900, 30.0, 64, 36)) as episode:
        for action in (Crop(1.0, 9.5, frames=3), Crop(0.0, 2.0, frames=1, scale=0.25), Answer("B")):
            assert grammar.parse(grammar.write(action, episode.state, "Look."), episode.state).actions == (
                action,
            )
        with pytest.raises(ValueError, match="no words"):
            grammar.write(Crop(1.0, 2.0), episode.state)
