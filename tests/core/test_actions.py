"""What actions do: every number a policy can put out, shared budgets, faults, and the record of it all."""

# ruff: noqa: D103

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hand_episodes import UNREADABLE, Hand, choice
from hypothesis import given
from hypothesis import strategies as st

from videogym.actions import Answer, Crop, Select, begin, play
from videogym.geometry import Region, Segment, intersection_s, merge, region_iou, segment_iou, union_iou
from videogym.grammars import get_grammar
from videogym.recipes import DEFAULT, LONGVT, VIDEO_MTR, get_recipe
from videogym.state import Invalid, Move
from videogym.video.sampling import even_indices_by_time, pool_indices
from videogym.video.types import VideoMeta


def ten_minutes(recipe=DEFAULT, **task):
    """600 s at 10 fps, evidence 100 to 110 s."""
    return Hand(recipe, choice([(100, 110)], **task), num_frames=6000, fps=10.0)


BAD_SEGMENTS = [
    (math.nan, 10, "type"),
    (10, math.nan, "type"),
    (math.inf, 10, "type"),
    (10, math.inf, "type"),
    (-math.inf, 10, "type"),
    (-1, 10, "negative"),
    (-1e-12, 10, "negative"),
    (20, 10, "order"),
    (10, 10, "order"),
    (0, 0, "order"),
    (0.0, -0.0, "order"),
    (600, 601, "start>=duration"),
    (1e300, 1.1e300, "start>=duration"),
    (10.01, 10.09, "no two frames"),
    (599.95, 600, "no two frames"),
]


@pytest.mark.parametrize(("start_s", "end_s", "code"), BAD_SEGMENTS)
def test_a_bad_segment_spends_the_turn_and_says_why(start_s, end_s, code):
    hand = ten_minutes()
    before = hand.state
    hand.step(Crop(start_s, end_s))
    assert hand.codes == [code]
    assert hand.state.turns[0].error.reason.endswith(".")
    assert hand.state.frames_shown == before.frames_shown
    assert hand.state.turns_left == before.turns_left - 1


def test_an_end_past_the_video_is_refused_or_cut_as_the_rules_say():
    refusing = ten_minutes(LONGVT).play(Crop(590, 600.001))
    assert refusing.codes == ["end>duration"]
    cutting = ten_minutes().play(Crop(590, 600.001))
    assert cutting.codes == [""]
    assert max(cutting.state.turns[0].clips[0].times_s) <= 600


def test_the_whole_video_up_to_its_very_end_is_a_legal_crop():
    assert ten_minutes(LONGVT).play(Crop(0, 600)).codes == [""]


def test_a_select_shows_pool_frames_from_start_up_to_but_not_including_end():
    hand = Hand(VIDEO_MTR).play(Select(20, 23))
    assert hand.state.turns[0].clips[0].times_s == (20, 21, 22)
    hand.step(Select(20.5, 20.9))
    assert hand.codes == ["", "no_frames"]


def test_the_last_pool_frame_is_selected_up_to_the_end_of_the_video():
    hand = Hand(VIDEO_MTR).play(Select(127, 128))
    assert hand.state.turns[0].clips[0].times_s == (127,)


BAD_REGIONS = [
    (math.nan, 0, 1, 1),
    (0, 0, math.inf, 1),
    (-0.1, 0, 1, 1),
    (0, 0, 1.1, 1),
    (0.5, 0, 0.5, 1),
    (0.6, 0, 0.4, 1),
    (0, 1, 1, 0),
    (0, 0, 1),
    (0, 0, 1, 1, 1),
    ("a", 0, 1, 1),
]


@pytest.mark.parametrize("region", BAD_REGIONS, ids=str)
def test_a_bad_region_spends_the_turn_and_says_why(region):
    hand = ten_minutes().play(Crop(10, 20, region))
    assert hand.codes == ["region"]
    assert hand.state.turns[0].clips == ()


def test_the_whole_frame_is_no_region():
    assert ten_minutes().play(Crop(10, 20, (0, 0, 1, 1))).state.turns[0].clips[0].region is None


def test_a_region_is_refused_where_the_rules_know_none():
    assert ten_minutes(LONGVT).play(Crop(10, 20, (0, 0, 0.5, 0.5))).codes == ["region"]


def test_a_crop_is_denser_than_the_skim_and_brings_new_frames():
    hand = ten_minutes().play(Crop(100, 105))
    clip = hand.state.turns[0].clips[0]
    assert len(clip.times_s) == 10
    assert not set(clip.times_s) & set(hand.state.skim.times_s)


def test_looks_of_the_wrong_kind_are_refused():
    assert ten_minutes().play(Select(10, 20)).codes == ["unknown_action"]
    assert Hand(VIDEO_MTR).play(Crop(10, 20)).codes == ["unknown_action"]


def parallel(frame_budget, calls):
    rules = replace(DEFAULT.rules, frame_budget=frame_budget, max_calls_per_turn=calls)
    return ten_minutes(replace(DEFAULT, rules=rules))


def test_parallel_calls_share_the_budget_in_their_order():
    # 32 frames of skim, then 20 left: 16, then 4, then nothing.
    hand = parallel(52, 3)
    hand.step(Crop(10, 60), Crop(100, 160), Crop(200, 260))
    results = hand.state.turns[0].results
    assert [len(r.clip.times_s) if r.clip else r.error.code for r in results] == [16, 4, "budget"]
    assert hand.state.frames_left == 0


def test_a_single_frame_left_is_too_few_for_a_crop_and_enough_for_a_select():
    hand = parallel(33, 1)
    hand.step(Crop(10, 60))
    assert hand.codes == ["budget"]
    rules = replace(VIDEO_MTR.rules, frame_budget=17)
    selecting = Hand(replace(VIDEO_MTR, rules=rules)).play(Select(20, 28))
    assert selecting.state.turns[0].clips[0].times_s == (20,)


def test_a_failed_call_does_not_hinder_the_ones_beside_it():
    hand = parallel(None, 3)
    hand.step(Crop(20, 10), Crop(10, 20), Crop(30, 40))
    assert [r.error.code if r.error else "" for r in hand.state.turns[0].results] == ["order", "", ""]
    assert hand.state.turns[0].valid
    assert hand.state.turns[0].error.code == "order"


def test_nothing_is_executed_after_an_answer():
    hand = parallel(None, 3)
    hand.step(Crop(10, 20), Answer("B"), Crop(30, 40))
    assert [r.error.code if r.error else "" for r in hand.state.turns[0].results] == [
        "",
        "",
        "after_answer",
    ]
    assert hand.state.answer == "B"


ANSWERS = [
    ("choice", "B", ""),
    ("choice", " b ", ""),
    ("choice", "E", "unknown_option"),
    ("choice", "", "unknown_option"),
    ("choice", "B. x", "unknown_option"),
    ("numeric", "3.5", ""),
    ("numeric", "-1e3", ""),
    ("numeric", "three", "not_a_number"),
    ("numeric", "", "not_a_number"),
    ("open", "anything <answer>at</answer> all \ud800", ""),
    ("open", "x" * 999, ""),
    ("open", "x" * 1000, "answer_length"),
]


@pytest.mark.parametrize(("kind", "text", "code"), ANSWERS, ids=lambda value: ascii(value)[:20])
def test_answers_are_judged_by_the_kind_of_the_task(kind, text, code):
    options = ("w", "x", "y", "z") if kind == "choice" else ()
    hand = ten_minutes(kind=kind, options=options, answer="B" if options else "1").play(Answer(text))
    assert hand.codes == [code]
    assert hand.state.ending == ("" if code else "answered")


def test_an_empty_answer_is_never_right():
    hand = ten_minutes(kind="open", options=(), answer="").play(Answer(" "))
    assert hand.returned == 0.0


def test_every_crop_frame_of_a_variable_rate_lies_in_the_asked_window():
    # 100 frames a second in the first 10 s, one a second after them.
    pts_s = [i / 100 for i in range(1000)] + [10.0 + i for i in range(100)]
    hand = Hand(DEFAULT, choice([(50, 60)]), fps=1.0, pts_s=pts_s).play(Crop(50, 60), Crop(2, 3))
    late, early = (turn.clips[0].times_s for turn in hand.state.turns)
    assert all(50 <= t <= 60 for t in late) and len(late) == 10
    assert all(2 <= t <= 3 for t in early) and len(early) == 2


def test_a_step_after_the_end_raises():
    hand = ten_minutes().play(Answer("B"))
    with pytest.raises(ValueError, match="ended with 'answered'"):
        hand.step(Answer("B"))


def test_a_move_without_an_action_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="at least one action"):
        Move(())


# --- faults ------------------------------------------------------------------------------------


def test_a_fault_shows_and_pays_nothing_and_spends_the_turn():
    hand = ten_minutes()
    paid = hand.step(Crop(100, 110), fault="clip.mp4: damaged")
    turn = hand.state.turns[0]
    assert (turn.fault, turn.error.code, turn.clips) == ("clip.mp4: damaged", "fault", ())
    assert "clip.mp4" not in turn.error.reason
    assert (paid.reward, paid.terms["coverage"]) == (0, None)
    assert hand.state.turns_left == 5


def test_an_answer_needs_no_frames_and_has_no_fault():
    hand = ten_minutes()
    hand.step(Answer("B"), fault="gone")
    assert (hand.state.ending, hand.state.turns[0].fault) == ("answered", "")


def test_a_refused_look_is_refused_whether_or_not_there_are_frames():
    hand = ten_minutes()
    hand.step(Crop(20, 10), fault="gone")
    assert (hand.codes, hand.state.turns[0].fault) == (["order"], "")


def test_a_fault_in_the_last_turn_ends_the_episode_unanswered():
    hand = ten_minutes().play(*[UNREADABLE] * 5)
    hand.step(Crop(10, 20), fault="gone")
    assert hand.state.ending == "turn_limit"


# --- records -----------------------------------------------------------------------------------


def test_states_are_values():
    hand = ten_minutes()
    first = hand.state
    hand.play(Crop(10, 20), Answer("B"))
    assert first.turns == ()
    assert pickle.loads(pickle.dumps(hand.state)) == hand.state
    again = ten_minutes().play(Crop(10, 20), Answer("B"))
    assert again.state == hand.state


def test_the_truth_is_not_in_the_repr():
    hand = ten_minutes(kind="open", options=(), answer="unguessable").play(Crop(10, 20))
    assert "unguessable" not in repr(hand.state)
    assert "110" not in repr(hand.state.task)


def test_a_video_that_outlasts_the_rules_is_refused():
    video = VideoMeta("x", 90_000.0, 900_000, 10.0, 64, 36, "none")
    with pytest.raises(ValueError, match="at most 86400 s"):
        begin(choice(), video, [], DEFAULT.rules, "")


BAD_TASKS = [
    ({"task_id": ""}, "must not be empty"),
    ({"question": ""}, "must not be empty"),
    ({"options": ("a",)}, "2 to 26 options"),
    ({"options": tuple("abcdefghijklmnopqrstuvwxyz1")}, "2 to 26 options"),
    ({"answer": "E"}, "one of A, B, C, D"),
    ({"kind": "open"}, "only for kind 'choice'"),
    ({"kind": "essay"}, "got 'essay'"),
]


@pytest.mark.parametrize(("change", "message"), BAD_TASKS, ids=str)
def test_a_task_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        choice(**change)


@pytest.mark.parametrize("bounds", [(1, 1), (2, 1), (-1, 1), (math.nan, 1), (0, math.inf)])
def test_a_segment_needs_a_length_inside_time(bounds):
    with pytest.raises(ValueError, match="segment"):
        Segment(*bounds)


def test_regions_and_rules_check_themselves():
    with pytest.raises(ValueError, match="x0 < x1"):
        Region(0.5, 0, 0.5, 1)
    with pytest.raises(ValueError, match="below the skim"):
        replace(DEFAULT.rules, frame_budget=31)
    with pytest.raises(ValueError, match="answer action"):
        replace(DEFAULT.rules, actions=("crop",))
    with pytest.raises(ValueError, match="pool"):
        replace(DEFAULT.rules, actions=("select", "answer"))
    with pytest.raises(ValueError, match="at least 1"):
        replace(DEFAULT.rules, max_turns=0)


def test_unions_count_every_second_once():
    # [0, 10) with [5, 15) and [15, 20): one union of 20 s; against [8, 16): 8 s in common.
    looks = [Segment(5, 15), Segment(0, 10), Segment(15, 20)]
    assert merge(looks) == (Segment(0, 20),)
    assert intersection_s(looks, [Segment(8, 12), Segment(10, 16)]) == 8
    assert intersection_s([], [Segment(0, 1)]) == 0
    assert intersection_s([Segment(0, 1)], [Segment(1, 2)]) == 0


def test_lists_that_are_disjoint_have_nothing_in_common_whatever_is_rounded():
    evidence = [Segment(0.4, 1.0), Segment(5.7, 6.0)]
    answer = [Segment(9.3, 10.3), Segment(13.6, 18.5)]
    assert intersection_s(evidence, answer) == union_iou(evidence, answer) == 0.0


def within(most):
    """Lists of segments up to an end, in seconds, with bounds of every size."""
    bounds = st.tuples(*(2 * [st.floats(0, most)])).filter(lambda pair: pair[0] != pair[1])
    return st.lists(bounds.map(lambda pair: Segment(min(pair), max(pair))), max_size=12)


@given(within(20.0), within(20.0))
def test_an_iou_lies_between_nothing_and_all_and_knows_no_order(a, b):
    assert 0.0 <= union_iou(a, b) <= 1.0 and union_iou(a, b) == union_iou(b, a) == union_iou(a[::-1], b)
    assert union_iou(a, a) == (1.0 if a else 0.0)
    shared = any(one.start_s < two.end_s and two.start_s < one.end_s for one in a for two in b)
    assert (intersection_s(a, b) > 0) == shared
    assert all(0.0 <= segment_iou(one, two) <= 1.0 for one in a for two in b)


def test_parts_that_nearly_touch_are_not_more_than_the_whole():
    # Each part is rounded on its own, the whole once: 68.80000000000001 s of 68.8.
    parts = [Segment(9.9, math.nextafter(27.3, 0)), Segment(27.3, 78.7)]
    whole = [Segment(9.9, 78.7)]
    assert intersection_s(parts, whole) > whole[0].length_s
    assert union_iou(parts, whole) == union_iou(whole, parts) == 1.0


sides = st.tuples(*(2 * [st.floats(0, 1)])).map(sorted).filter(lambda pair: pair[0] < pair[1])
boxes = st.builds(lambda x, y: Region(x[0], y[0], x[1], y[1]), sides, sides)


@given(boxes, boxes)
def test_an_iou_of_regions_lies_between_nothing_and_all(a, b):
    assert 0.0 <= region_iou(a, b) <= 1.0 and region_iou(a, b) == region_iou(b, a)
    assert region_iou(a, a) == 1.0


def test_regions_too_small_for_an_area_are_compared_all_the_same():
    dot = Region(0.0, 0.0, 5e-324, 5e-324)
    assert region_iou(dot, dot) == 1.0 and region_iou(dot, Region(0.0, 0.0, 1e-320, 5e-324)) == 0.0


numbers = st.floats(allow_nan=True, allow_infinity=True)
looks = st.builds(Crop, numbers, numbers, st.none() | st.tuples(numbers, numbers, numbers, numbers))
anything = st.one_of(
    looks,
    st.builds(Select, numbers, numbers),
    st.builds(Answer, st.text()),
    st.just(Invalid("format", "x")),
)


@given(st.sampled_from([DEFAULT, LONGVT, VIDEO_MTR]), st.lists(anything, min_size=1, max_size=4))
def test_any_action_is_executed_or_refused_with_a_code(recipe, actions):
    hand = Hand(recipe, num_frames=600, fps=10.0)
    after = play(hand.state, Move(tuple(actions)), hand.pts_s)
    for result in after.turns[0].results:
        if result.error is None:
            assert (result.clip is None) == isinstance(result.action, Answer)
        else:
            assert result.clip is None
            assert result.error.code and result.error.reason


def test_a_crop_takes_a_region():
    box = (0.25, 0.0, 0.75, 0.5)
    assert (
        Crop(1.0, 2.0, Region(*box)) == Crop(1.0, 2.0, box) and Crop(1.0, 2.0, Region(*box)).region == box
    )
    assert tuple(Region(*box)) == box
    hand = Hand(get_recipe("DEFAULT"), num_frames=600, fps=10.0).play(Crop(1.0, 2.0, Region(*box)))
    assert hand.codes == [""] and hand.state.clips[-1].region == Region(*box)
    grammar = get_grammar("native")
    written = grammar.write(Crop(1.0, 2.0, Region(*box)), hand.state)
    assert grammar.parse(written, hand.state).actions == (Crop(1.0, 2.0, box),)
    whole = hand.play(Crop(3.0, 4.0, Region(0.0, 0.0, 1.0, 1.0)))
    assert whole.codes == ["", ""] and whole.state.clips[-1].region is None


@pytest.mark.parametrize(
    "region", [np.array(0.5), np.float32(0.5), 0.5, object()], ids=lambda one: type(one).__name__
)
def test_what_is_no_row_of_numbers_is_a_region_that_is_refused(region):
    """An array without a dimension says that it can be gone through, and cannot."""
    assert ten_minutes().play(Crop(1.0, 2.0, region)).codes == ["region"]


def burst(first, pause):
    """30 frames a second for half a minute, then one every ``pause`` seconds up to 600 s."""
    return [i / 30 for i in range(int(first * 30))] + [float(s) for s in range(first, 600, pause)]


@pytest.mark.parametrize(("first", "pause"), [(30, 1), (30, 5), (10, 2)])
def test_the_skim_of_a_variable_rate_is_even_in_time(first, pause):
    pts_s = burst(first, pause)
    skim = Hand(get_recipe("DEFAULT"), pts_s=pts_s).state.skim.times_s
    assert len(skim) == 32 and skim[0] == 0.0 and skim[-1] == pts_s[-1] and set(skim) <= set(pts_s)
    even = pts_s[-1] / 31
    for i, time_s in enumerate(skim):  # the frame that stands at that instant
        assert i * even - pause <= time_s <= i * even + 1e-9
    assert sum(time_s < 0.05 * 600 for time_s in skim) == 2
    # The published pool goes by number: most of it lies in the burst.
    pool = Hand(get_recipe("VIDEO_MTR/paper"), pts_s=pts_s).state.pool_s
    assert pool == tuple(pts_s[i] for i in pool_indices(len(pts_s), pts_s[-1] + 1.0, 128))


@given(st.integers(2, 4000), st.sampled_from([24.0, 25.0, 30.0, 30000 / 1001]))
def test_the_skim_of_a_constant_rate_goes_by_number_as_before(count, fps):
    skim = Hand(get_recipe("DEFAULT"), num_frames=count, fps=fps).state.skim.times_s
    assert skim == tuple(int(i) / fps for i in np.linspace(0, count - 1, 32).astype(int))


@given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=60), st.integers(1, 64))
def test_frames_even_in_time_are_those_that_stand_at_the_instants(steps, count):
    pts_s = np.concatenate([[0.0], np.cumsum(steps)])
    chosen = even_indices_by_time(pts_s, count)
    for place, instant in zip(chosen, np.linspace(0.0, pts_s[-1], count), strict=True):
        assert place == max(i for i in range(len(pts_s)) if pts_s[i] <= instant)
