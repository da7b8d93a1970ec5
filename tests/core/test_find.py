"""Searching a video by text: what is found, what is refused, and that nobody needs the index afterwards."""

# ruff: noqa: D101, D102, D103

import json
import math
import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogym import Answer, Crop, Find, TextActions, VideoError, VideoQAEnv
from videogym.actions import begin, play
from videogym.actions.find import MAX_QUERY_CHARS
from videogym.actions.structured import action_space, as_move
from videogym.datasets import load_tasks
from videogym.grammars import get_grammar
from videogym.recipes import DEFAULT, FIND
from videogym.search import Hits, ProceduralIndex, SearchError, WrongIndex, best_moments
from videogym.state import Invalid, Move, Task
from videogym.testing.blank_video import BlankVideo
from videogym.testing.coded_clips import write_clip
from videogym.testing.grammar_suite import check_grammar, example_state
from videogym.tool_episode import ToolEpisode
from videogym.traces import RecordTraces, from_line, read_traces, to_line
from videogym.video import open_video

TASKS = "procedural:brief_event?duration_s=600&count=200&split=test&size=64x36"
TASK = Task("t", "blank", "What?", "choice", ("a", "b"), "A")
VIDEO = BlankVideo(3000, 30.0, 1280, 720)  # 100 s


@dataclass(frozen=True)
class Given:
    """Finds the same moments whatever is asked."""

    times_s: tuple[float, ...]
    scores: tuple[float, ...]

    def check(self, video):
        pass

    def search(self, video, query):
        return Hits(np.array(self.times_s), np.array(self.scores))


def started(**rules):
    rules = replace(FIND.rules, **rules)
    return begin(TASK, VIDEO.meta, VIDEO.pts_s, rules, "TEST@0")


def found(*finds, times_s=(80.01, 10.0, 40.0, 20.0, 60.0), **rules):
    """Results of one turn, by a search whose first moment is at 80.01 s, and so on."""
    state = started(**rules)
    return play(state, Move(finds), VIDEO.pts_s, lambda query, most: times_s[:most]).turns[-1].results


def code(find, **rules):
    (result,) = found(find, **rules)
    return result.error and result.error.code


# --- what is shown ------------------------------------------------------------------------------


def test_the_best_moments_are_shown_in_order_of_time_by_frames_of_the_video():
    (result,) = found(Find("a flag", 3))
    # 80.01 s is within the frame of 80.0 s, at 30 frames a second.
    assert result.clip.times_s == (10.0, 40.0, 80.0) and result.clip.region is None
    assert result.action.found_s == (80.01, 10.0, 40.0, 20.0, 60.0)
    (default,) = found(Find("a flag"))
    assert len(default.clip.times_s) == 4
    (few,) = found(Find("a flag", 4), times_s=(5.0,))
    assert few.clip.times_s == (5.0,)
    assert found(Find("a flag", 4), times_s=())[0].error.code == "no_frames"


def test_moments_nearer_than_two_seconds_are_one_and_of_equal_scores_the_earlier_comes_first():
    hits = Hits(np.array([9.0, 1.0, 2.5, 3.5, 5.0]), np.array([0.5, 0.5, 0.9, 0.8, 0.5]))
    assert best_moments(hits, 9) == (2.5, 5.0, 9.0)  # 1.0 and 3.5 are 1.5 s and 1 s away from 2.5
    assert best_moments(hits, 2) == (2.5, 5.0)
    assert best_moments(hits, 9, gap_s=0.0) == (2.5, 3.5, 1.0, 5.0, 9.0)


def test_bounds_of_the_rules_hold_for_moments_as_for_frames():
    assert code(Find("a", 17), over_bound="refuse") == "too_many_frames"
    (cut,) = found(Find("a", 5), clip_frames=2, tell_bound=True)
    assert len(cut.clip.times_s) == 2 and cut.clip.note.endswith("2 of 5 frames.")
    shrunk = found(Find("a", 5), look_tokens=20, over_bound="shrink", max_scaled_pixels=1280 * 720)[0].clip
    assert 1 <= len(shrunk.times_s) < 5 and shrunk.scale < 1
    state = started(frame_budget=DEFAULT.rules.skim_frames)
    after = play(state, Move((Find("a"),)), VIDEO.pts_s, lambda query, most: (1.0,))
    assert after.turns[-1].error.code == "budget"


# --- what is refused ----------------------------------------------------------------------------

REFUSED = [
    (Find(""), "query"),
    (Find(" \n\t\u2003"), "query"),
    (Find("x" * 257), "query_length"),
    (Find("x" * 100_000), "query_length"),
    (Find("half \ud800"), "type"),
    (Find(7), "type"),
    (Find(None), "type"),
    (Find("a", math.nan), "type"),
    (Find("a", math.inf), "type"),
    (Find("a", 10**400), "type"),
    (Find("a", 2.5), "type"),
    (Find("a", "3"), "type"),
    (Find("a", [3]), "type"),
    (Find("a", 0), "k"),
    (Find("a", -1), "k"),
]


@pytest.mark.parametrize(("find", "expected"), REFUSED, ids=lambda value: repr(value)[:50])
def test_a_bad_query_spends_the_turn_with_a_reason_and_nobody_searches(find, expected):
    def search(query, most):
        raise AssertionError("searched for what is refused")

    state = started()
    after = play(state, Move((find,)), VIDEO.pts_s, search)
    error = after.turns[-1].error
    assert error.code == expected and error.reason and "\n" not in error.reason
    assert after.turns_left == state.turns_left - 1 and after.frames_shown == state.frames_shown
    assert isinstance(find.label(), str) and len(find.label()) < 120


def test_a_huge_k_is_cut_and_rules_that_clamp_bring_a_small_one_into_its_range():
    assert len(found(Find("a", 10**9))[0].clip.times_s) == 5
    assert len(found(Find("a", 0), crop_range="clamp")[0].clip.times_s) == 1
    assert code(Find("a", math.nan), crop_range="clamp") == "type"


def test_rules_without_find_refuse_it_and_offer_it_nowhere():
    assert code(Find("a"), actions=("crop", "answer")) == "unknown_action"
    assert "query" not in action_space(DEFAULT.rules).spaces
    assert {"query", "k"} <= set(action_space(FIND.rules).spaces)
    names = [tool["function"]["name"] for tool in get_grammar("native").tools(FIND.rules)]
    assert names == ["find", "crop", "answer"]


# --- who finds it -------------------------------------------------------------------------------


def first_moments(quality):
    """Whether the first moment found by the question is one of the evidence, for 200 tasks."""
    index = ProceduralIndex(quality)
    for task in load_tasks(TASKS):
        with open_video(task.video) as video:
            (time_s, *_) = best_moments(index.search(video, task.question), 16)
        yield task.evidence[0].contains(time_s)


def test_the_quality_of_the_procedural_index_is_a_dial_from_chance_to_certainty():
    assert all(first_moments(1.0))
    # An event lasts some 8 s of 600, as one pool frame: a random moment falls into it once in seventy.
    assert sum(first_moments(0.0)) <= 0.06 * 200
    # Four standard deviations of 200 draws at one half are 28.
    assert 100 - 28 <= sum(first_moments(0.5)) <= 100 + 4 + 28


@pytest.mark.parametrize("quality", [-0.1, 1.1, math.nan, math.inf])
def test_a_quality_beyond_its_range_is_refused(quality):
    with pytest.raises(ValueError, match="quality must be from 0 to 1"):
        ProceduralIndex(quality)


def test_a_background_and_a_shape_of_one_colour_are_told_apart():
    # The clue of two hops has the colour of the scene where the answer is.
    for task in load_tasks("procedural:two_hops?duration_s=600&count=40&size=64x36"):
        clue, target = task.evidence
        with open_video(task.video) as video:
            scene = next(s for s in video.script.scenes if s.first / 8 <= target.start_s < s.end / 8)
            (over,) = best_moments(
                ProceduralIndex().search(video, f"a shape, {scene.colour} background"), 1
            )
            shaped = best_moments(ProceduralIndex().search(video, f"a {scene.colour} shape"), 2)
        assert target.contains(over)
        assert any(clue.contains(time_s) for time_s in shaped)


def test_what_is_read_in_a_shape_cannot_be_searched_for():
    (task,) = load_tasks("procedural:digits?duration_s=600&count=1&size=64x36")
    index = ProceduralIndex()
    with open_video(task.video) as video:
        plain = index.search(video, "a number")
        for query in (f"the number {task.answer}", f"a number {task.answer}"):
            hits = index.search(video, query)
            assert np.array_equal(hits.scores, plain.scores) and np.array_equal(hits.times_s, plain.times_s)


def test_an_index_sees_the_video_and_the_query_alone_and_a_query_is_asked_once():
    seen = []

    @dataclass(frozen=True)
    class Watched(Given):
        def search(self, video, query):
            seen.append((video, query))
            return super().search(video, query)

    env = VideoQAEnv(TASKS, replace(FIND, search=Watched((3.0,), (1.0,))))
    env.reset(seed=0)
    env.step([Find("a shape"), Find("not run: one look a turn")])
    (call,) = seen
    assert call == (env.store.open(env.state.task.video), "a shape")


def test_an_index_of_other_videos_is_refused_when_the_episode_begins(tmp_path):
    clip = tmp_path / "clip.mp4"
    write_clip(clip, count=60)
    env = VideoQAEnv([replace(TASK, video=str(clip))], FIND, on_bad_video="skip")
    with pytest.raises(WrongIndex, match=r"synthetic: videos alone.*EmbeddingIndex"):
        env.reset(seed=0)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (Given((1.0, 2.0), (1.0,)), "shape"),
        (Given((1.0,), (math.nan,)), "not finite"),
        (Given((1e9,), (1.0,)), "gave the time 1e"),
        (Given((-1.0,), (1.0,)), "gave the time -1 s"),
        (Given((math.nan,), (1.0,)), "gave the time nan"),
    ],
)
def test_an_index_that_gives_what_cannot_be_stops_the_run(index, said):
    env = VideoQAEnv(TASKS, replace(FIND, search=index))
    env.reset(seed=0)
    with pytest.raises(SearchError, match=said):
        env.step(Find("a shape"))


@dataclass(frozen=True)
class Damaged(Given):
    def search(self, video, query):
        raise VideoError("a frame is damaged")


def test_frames_that_an_index_cannot_decode_are_a_fault_of_the_turn():
    env = VideoQAEnv(TASKS, replace(FIND, search=Damaged((), ())))
    env.reset(seed=0)
    *_, info = env.step(Find("a shape"))
    assert info["error_code"] == "fault" and info["fault"] == "a frame is damaged"


def test_a_recipe_that_can_find_needs_an_index_which_is_part_of_its_identity():
    with pytest.raises(ValueError, match="find needs a search index"):
        replace(FIND, search=None)
    identities = {replace(FIND, search=ProceduralIndex(q)).identity for q in (1.0, 0.5, 0.0)}
    assert len(identities) == 3 and FIND.identity in identities
    assert replace(DEFAULT, search=None).identity == DEFAULT.identity
    assert json.loads(json.dumps(FIND.describe()))["search"] == {
        "videogym.search.procedural:ProceduralIndex": {"quality": 1.0}
    }
    assert pickle.loads(pickle.dumps(FIND)) == FIND


def test_a_find_that_nobody_searches_for_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="was not searched for"):
        play(started(), Move((Find("a"),)), VIDEO.pts_s)


def test_what_a_caller_claims_was_found_is_not_believed():
    (result,) = found(Find("a", 1, found_s=(99.0,)))
    assert result.clip.times_s == (80.0,)


def test_a_find_earns_and_costs_nothing_beside_its_turn():
    env = VideoQAEnv(TASKS, FIND)
    env.reset(seed=0)
    for k in (1, 16):
        _, reward, *_ = env.step(Find(env.state.task.question, k))
        assert reward == 0.0 and env.state.turns[-1].clips
    _, reward, *_ = env.step(Answer(env.state.task.answer))
    assert reward == 1.0


# --- in all that shows and stores episodes --------------------------------------------------------


def test_grammar_space_trace_and_replay_know_a_find(tmp_path):
    env = RecordTraces(TextActions(VideoQAEnv(TASKS, FIND)), tmp_path / "t.jsonl")
    env.reset(seed=0)
    first = env.unwrapped.state
    env.step(env.get_wrapper_attr("grammar").write(Find("a “red” shape", 2), first))
    assert env.unwrapped.state.turns[-1].results[0].clip
    searched = env.unwrapped.state
    env.step('<tool_call>{"name": "answer", "arguments": {"text": "A"}}</tool_call>')
    (trace,) = read_traces(tmp_path / "t.jsonl").episodes
    (result,) = trace.turns[0].turn.results
    assert result == searched.turns[-1].results[0] and result.action.found_s
    assert from_line(to_line(trace)) == trace
    assert trace.looks == ()  # it names no segment
    # Played again from what is stored, without an index, it shows the same.
    video = env.unwrapped.store.open(first.task.video)
    again = play(first, Move((result.action,), trace.turns[0].turn.text), video.pts_s)
    assert again == searched


def test_the_native_grammar_reads_and_writes_finds():
    native = get_grammar("native")
    state = example_state(actions=("find", "crop", "answer"))
    finds = [Find("a red flag"), Find('"\\ </tool_call> <think> 🙂', 3), Crop(1.0, 2.0), Answer("B")]
    check_grammar(native, state, [finds[0], *finds[2:]], tags=native.tags)
    assert isinstance(
        native.parse(native.write(finds[0], state).replace('"a red flag"', "7"), state).actions[0], Invalid
    )
    long = native.parse(native.write(finds[0], state).replace("a red flag", "x" * 100_000), state)
    assert long.actions == (Find("x" * 100_000),)  # which is refused when it is played


@given(query=st.text(max_size=MAX_QUERY_CHARS + 3), k=st.none() | st.integers(-3, 40))
def test_whatever_text_is_asked_for_it_is_shown_or_refused_and_comes_back_from_a_trace(query, k):
    (result,) = found(Find(query, k))
    assert (result.clip is None) != (result.error is None)
    structured = {"kind": 0, "query": query, "k": k or 0, "segment": np.zeros(2), "option": 0, "answer": ""}
    (action,) = as_move(structured, started()).actions
    assert action == Find(query, k or None)


def test_tools_offer_it():
    episode = ToolEpisode(VideoQAEnv(TASKS, FIND))
    episode.begin(seed=0)
    reply = episode.call("find", {"query": "a shape", "k": 2})
    assert not reply.error_code and sum(isinstance(part, np.ndarray) for part in reply.parts) == 2
    assert episode.call("find", {"query": ""}).error_code == "query"
    assert episode.call("find", {"k": 2}).error_code == "required"
