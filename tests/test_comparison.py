"""Comparing two runs: arithmetic against scipy and against itself, settings, tasks, and where they part."""

# ruff: noqa: D103

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from gymnasium.wrappers import TimeLimit
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from videogym import (
    Answer,
    Crop,
    Invalid,
    Move,
    Region,
    Segment,
    Task,
    TextActions,
    VideoQAEnv,
    evaluate,
    get_recipe,
)
from videogym.actions import Find
from videogym.comparison import (
    ComparisonError,
    compare,
    differences,
    divergence,
    mcnemar,
    mean_difference,
    read_run,
    run_from_result,
    run_from_traces,
    share_difference,
)
from videogym.evaluate import Episode, task_digest
from videogym.results import EvaluationResult, ResultError, describe_run, read_result, result_text
from videogym.state import Clip
from videogym.testing.policies import Oracle, Random
from videogym.traces import RecordTraces, Trace, TraceError, Traces, read_traces
from videogym.traces.episodes import episode_from_trace

ADDRESS = "synthetic:brief_event?level=0&duration_s=60&seed={}&size=64x36"
BASE = Episode("t", True, True, "answered", 1.0, {}, 1, 32, 0, 0, None, None, "film", "asked")


def task(number: int) -> Task:
    evidence = (Segment(20, 25),)
    return Task(f"t{number}", ADDRESS.format(number), "Which?", "choice", ("w", "x"), "B", evidence)


def play(path: Path, policy, count: int = 4, recipe="DEFAULT") -> Traces:
    env = RecordTraces(VideoQAEnv([task(i) for i in range(count)], recipe), path)
    evaluate(policy, env)
    env.close()
    return read_traces(path)


def episode(*actions, recipe="DEFAULT", tmp_path: Path, number: int = 0) -> Trace:
    path = tmp_path / "one.jsonl"
    path.unlink(missing_ok=True)
    env = RecordTraces(VideoQAEnv([task(number)], recipe), path)
    env.reset(seed=0)
    for action in actions:
        env.step(action)
    env.close()
    return read_traces(path).episodes[0]


def side(name: str, *episodes: Episode, **run):
    return run_from_result(EvaluationResult(run, "R@1", episodes, {}, 0), name)


# --- arithmetic --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [  # scipy.stats.binomtest(only_a, only_a + only_b).pvalue
        (0, 0, 1.0),
        (6, 6, 1.0),
        (0, 5, 0.0625),
        (1, 7, 0.0703125),
        (3, 9, 0.14599609375),
        (120, 171, 0.0033087986331269033),
    ],
)
def test_mcnemars_exact_test_is_scipys_binomial_test(only_a, only_b, p):
    assert mcnemar(only_a, only_b).p == approx(p, rel=1e-12)
    assert mcnemar(only_b, only_a).p == mcnemar(only_a, only_b).p


def test_mcnemars_test_survives_many_tasks():
    # 10,000 coins, deviation 50: z = (100 - 0.5) / 50 = 1.99, and 2 * (1 - Phi(1.99)) = 0.0466.
    assert mcnemar(4900, 5100).p == approx(0.0466, abs=1e-4)
    assert 0 <= mcnemar(0, 20_000).p < 1e-300


def test_the_interval_of_a_paired_difference_by_hand():
    # 10 pairs, only B right in 3, only A in 1. One pair is added to each, two to all: 4/12 and 2/12.
    # Centre 2/12 = 0.166667; variance (6/12 - (2/12)^2) / 12 = 0.0393519; 1.959964 times its root 0.388807.
    a = [True] * 4 + [False] * 6
    b = [True] * 3 + [False] * 4 + [True] * 3
    found = share_difference(a, b)
    assert found.mean == approx(0.2)
    assert (found.low, found.high) == (approx(0.166667 - 0.388807, abs=1e-5), approx(0.555474, abs=1e-5))


def test_pairs_that_all_agree_leave_room_for_doubt():
    # 8 pairs: 1/10 and 1/10, centre 0, variance 0.2 / 10: 1.959964 * sqrt(0.02) = 0.277181.
    found = share_difference([True] * 8, [True] * 8)
    assert (found.mean, found.low, found.high) == (
        0,
        approx(-0.277181, abs=1e-6),
        approx(0.277181, abs=1e-6),
    )


def test_pairs_of_one_video_are_worth_less():
    a, b = [False] * 8 + [True] * 8, [True] * 8 + [False] * 8
    plain = share_difference(a, b)
    # Two videos, in either of which all differ alike: worth two pairs, a design effect of 15 (16 at most).
    wide = share_difference(a, b, [0] * 8 + [1] * 8)
    assert (plain.mean, wide.mean) == (0, 0)
    assert wide.high == approx(min(1, 15**0.5 * plain.high))
    assert share_difference(a, b, range(16)) == plain
    # 1, 1, 3, 3 in two videos: sums of what is off are -2 and 2, so the variance of the mean is 2 * 8 / 16.
    assert mean_difference([0, 0, 0, 0], [1, 1, 3, 3], "aabb").high == approx(
        2 + 1.959964 * (3**0.5 / 3**0.5)
    )


def test_a_difference_of_means_is_paired():
    # Differences 1, 1, 1: no spread, though either run's values spread.
    found = mean_difference([0, 10, 20], [1, 11, 21])
    assert (found.mean, found.low, found.high) == (1, 1, 1)


pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
numbers = st.floats(-1e6, 1e6)


@given(pairs)
def test_sides_of_shares_are_mirror_images(truths):
    a, b = zip(*truths, strict=True)
    there, back = share_difference(a, b), share_difference(b, a)
    assert (there.mean, there.low, there.high) == (
        approx(-back.mean),
        approx(-back.high),
        approx(-back.low),
    )
    assert -1 <= there.low <= there.mean <= there.high <= 1
    same = share_difference(a, a)
    assert same.mean == 0 and same.low == -same.high < 0


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40))
def test_sides_of_means_are_mirror_images(values):
    a, b = zip(*values, strict=True)
    there, back = mean_difference(a, b), mean_difference(b, a)
    assert (there.mean, there.low, there.high) == (-back.mean, approx(-back.high), approx(-back.low))
    assert there.low <= there.mean <= there.high
    same = mean_difference(a, a)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


outcomes = st.lists(
    st.builds(
        lambda number, **changes: replace(BASE, task_id=f"t{number}", **changes),
        st.integers(0, 12),
        correct=st.sampled_from([True, False, None]),
        reward=st.floats(-2, 2),
        terms=st.dictionaries(st.sampled_from(["answer", "coverage"]), st.floats(-1, 1)),
        tiou=st.none() | st.floats(0, 1),
        hit=st.sampled_from([True, False, None]),
        turns=st.integers(1, 6),
    ),
    min_size=1,
    max_size=15,
)


@given(outcomes, outcomes)
def test_a_run_differs_from_itself_in_nothing_and_swapped_sides_negate(one, other):
    a, b = side("a", *one), side("b", *other)
    itself = compare(a, a)
    assert all(metric.difference.mean == 0 for metric in (*itself.metrics, *itself.terms))
    assert itself.mcnemar is None or (itself.mcnemar.only_a, itself.mcnemar.p) == (0, 1)
    if not a.episodes.keys() & b.episodes.keys():
        with pytest.raises(ComparisonError, match="no task was played by both"):
            compare(a, b)
        return
    there, back = compare(a, b), compare(b, a)
    assert set(there.common) == set(back.common) and there.only_a == back.only_b
    mirrored = {metric.name: metric.difference for metric in (*back.metrics, *back.terms)}
    for metric in (*there.metrics, *there.terms):
        assert metric.difference.mean == approx(-mirrored[metric.name].mean, abs=1e-12)
        assert metric.difference.mean == approx(metric.b.mean - metric.a.mean, abs=1e-12)
    assert len(there.common) + len(there.only_a) == len(a.episodes)


# --- settings ----------------------------------------------------------------------------------


def test_settings_are_compared_by_name():
    paper, code = get_recipe("LONGVT/paper").describe(), get_recipe("LONGVT/code").describe()
    found = differences({"recipe": paper, "seed": 0}, {"recipe": code, "policy": "mine"})
    told = {one.name: (one.a, one.b) for one in found.differing}
    # As written in the two recipes: an ill-formed call ends an episode of the code, which runs five a turn.
    assert told["recipe.rules.malformed"] == ("feedback", "end")
    assert told["recipe.rules.max_calls_per_turn"] == (1, 5)
    assert told["recipe.grammar"] == ("longvt/strict", "longvt/code")
    assert told["recipe.terms.answer.function"] == (
        "videogym.rewards:AnswerTerm", "videogym.rewards:TranscriptScore",
    )  # fmt: skip
    assert "recipe.terms" not in told and "recipe.rules.skim_frames" not in told
    assert (found.only_a, found.only_b) == (("seed",), ("policy",)), (
        "what another function has explains itself"
    )
    assert found.differing[0].name.startswith("recipe.rules."), "what decides most comes first"


def test_a_weight_and_one_more_term_are_one_difference_each():
    recipe = get_recipe("DEFAULT")
    coverage, answer = recipe.terms
    heavier = replace(recipe, terms=(replace(coverage, weight=0.75), answer))
    (found,) = differences({"r": recipe.describe()}, {"r": heavier.describe()}).differing
    assert (found.name, found.a, found.b) == ("r.terms.coverage.weight", 0.5, 0.75)
    alone = differences({"r": recipe.describe()}, {"r": replace(recipe, terms=(answer,)).describe()})
    assert [(one.name, one.a, one.b) for one in alone.differing] == [
        ("r.terms", ["coverage", "answer"], ["answer"])
    ]
    assert alone.only_a == ()


def test_equal_settings_do_not_differ():
    described = get_recipe("VIDEO_MTR/code").describe()
    found = differences({"recipe": described}, json.loads(json.dumps({"recipe": described})))
    assert not found.differing and not found.only_a and not found.only_b and found.same > 30


def test_recipes_of_traces_are_known_by_name_or_by_what_was_shown(tmp_path):
    named = run_from_traces(play(tmp_path / "a.jsonl", Oracle(), 1), "a")
    assert named.settings["recipe"]["rules"]["max_turns"] == 6
    recipe = get_recipe("DEFAULT")
    own = replace(recipe, rules=replace(recipe.rules, skim_frames=8), terms=recipe.terms[1:])
    hashed = run_from_traces(play(tmp_path / "b.jsonl", Oracle(), 1, own), "b")
    assert "recipe" not in hashed.settings
    assert hashed.settings["shown"] == {"skim_frames": [8, 8], "reward_terms": ["answer"]}
    found = compare(named, hashed)
    assert not found.same_recipe and "their recipes" in found.conclusion


# --- results and traces ------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["DEFAULT", "VIDEO_MTR/code", "LONGVT_TINY"])
@pytest.mark.parametrize("family", ["event_order", "small_detail"])
def test_a_trace_comes_to_what_evaluate_says(recipe, family, tmp_path):
    env = RecordTraces(
        VideoQAEnv(f"procedural:{family}?duration_s=60&count=5", recipe), tmp_path / "t.jsonl"
    )
    for policy in (Random(0), Oracle()):
        (tmp_path / "t.jsonl").write_bytes(b"")
        report = evaluate(policy, env)
        assert tuple(map(episode_from_trace, read_traces(tmp_path / "t.jsonl").episodes)) == report.episodes
    env.close()


def test_a_result_is_read_back_as_it_was(tmp_path):
    env = VideoQAEnv([task(i) for i in range(3)])
    report = evaluate(Random(0), env)
    run = describe_run(env, policy="random", seed=0)
    (tmp_path / "r.json").write_text(result_text(report, run))
    read = read_result(tmp_path / "r.json")
    assert read.episodes == report.episodes and read.recipe == report.recipe
    assert read.run["recipe"] == json.loads(json.dumps(get_recipe("DEFAULT").describe()))
    assert read.run["policy"] == "random" and {"numpy", "av", "videogym"} <= set(read.run["versions"])


def test_what_an_evaluation_left_out_is_told(tmp_path):
    env = VideoQAEnv([task(0), replace(task(1), video=str(tmp_path / "gone.mp4"))])
    (tmp_path / "r.json").write_text(result_text(evaluate(Oracle(), env), describe_run(env)))
    found = read_run(tmp_path / "r.json")
    assert (list(found.episodes), found.bad_videos, found.unscored) == (["t0"], 1, 0)


def test_wrappers_that_can_change_an_episode_are_told(tmp_path):
    inner = VideoQAEnv([task(0)], "LONGVT_TINY")
    wrapped = RecordTraces(TimeLimit(TextActions(inner), 2), tmp_path / "t.jsonl")
    assert describe_run(inner)["wrappers"] == []
    assert describe_run(wrapped)["wrappers"] == ["TimeLimit", "TextActions"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row.update(videogym_eval=2), "'videogym_eval' must be 1, got 2"),
        (lambda row: row.pop("run"), "'run' is missing"),
        (lambda row: row.update(played={}), "'played' must be list"),
        (lambda row: row["played"].append(7), r"'played\[1\]' must be an object, got 7"),
        (lambda row: row["played"][0].update(turns="3"), r"'played\[0\].turns' must be int, got '3'"),
        (lambda row: row["played"][0].update(turns=True), r"'played\[0\].turns' must be int, got True"),
        (lambda row: row["played"][0].update(correct=1), r"'played\[0\].correct' must be bool or null"),
        (
            lambda row: row["played"][0].update(terms={"a": "b"}),
            r"'played\[0\].terms.a' must be int or float",
        ),
    ],
)
def test_a_broken_result_is_named_by_its_field(change, said, tmp_path):
    env = VideoQAEnv([task(0)])
    row = json.loads(result_text(evaluate(Oracle(), env), describe_run(env)))
    change(row)
    (tmp_path / "r.json").write_text(json.dumps(row))
    with pytest.raises(ResultError, match=f"r.json: field {said}"):
        read_run(tmp_path / "r.json")


def test_a_digest_is_of_what_is_asked_and_not_of_where():
    one = task(0)
    floats = replace(one, evidence=(Segment(20.0, 25.0),), task_id="other", video="b.mp4", source="s")
    assert task_digest(one) == task_digest(floats)
    changed = {
        "question": "Who?", "options": ("w", "y"), "answer": "A", "evidence": (Segment(20, 26),),
        "evidence_region": Region(0, 0, 0.5, 0.5),
    }  # fmt: skip
    digests = {task_digest(replace(one, **{name: value})) for name, value in changed.items()}
    assert len(digests | {task_digest(one)}) == 1 + len(changed)


def test_what_cannot_be_read_is_said(tmp_path):
    traces = play(tmp_path / "t.jsonl", Oracle(), 1)
    line = (tmp_path / "t.jsonl").read_bytes()
    files = {
        "page.json": b"<html>",
        "tasks.jsonl": b'{"task_id": "a"}\n',
        "film.mp4": bytes(range(256)),
        "list.json": b"[1, 2]",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ComparisonError, match=f"{name}: neither a file of traces nor a result"):
            read_run(tmp_path / name)
    with pytest.raises(ComparisonError, match=r"gone\.jsonl: cannot be read: No such file"):
        read_run(tmp_path / "gone.jsonl")
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(ComparisonError, match=r"no episode in it that can be scored$"):
        read_run(tmp_path / "empty.jsonl")
    (tmp_path / "torn.jsonl").write_bytes(line[:-50])
    with pytest.raises(ComparisonError, match="no episode in it that can be scored: 1 cut off"):
        read_run(tmp_path / "torn.jsonl")
    (tmp_path / "r.json").write_text('{\n  "videogym_eval": 1,')
    with pytest.raises(ResultError, match=r"r\.json: cut off, or not JSON"):
        read_run(tmp_path / "r.json")
    (tmp_path / "bad.jsonl").write_bytes(line + line.replace(b'"turns"', b'"turnz"'))
    with pytest.raises(TraceError, match=r"bad\.jsonl: line 2: field 'turns' is missing"):
        read_run(tmp_path / "bad.jsonl")
    assert len(traces.episodes) == 1


def test_a_torn_line_and_what_cannot_be_scored_are_counted_and_left_out(tmp_path):
    whole = play(tmp_path / "t.jsonl", Oracle(), 3).episodes
    lines = (tmp_path / "t.jsonl").read_bytes()
    (tmp_path / "t.jsonl").write_bytes(lines + lines[:200])
    read = read_run(tmp_path / "t.jsonl")
    assert (read.torn, read.repeated, read.unscored, list(read.episodes)) == (1, 0, 0, ["t0", "t1", "t2"])
    left = replace(whole[0], cut="left")
    again = replace(whole[0], correct=False)
    found = run_from_traces(Traces((left, *whole, again), 0), "t")
    assert (found.unscored, found.repeated) == (1, 1)
    assert found.episodes["t0"].correct is True, "the first that can be scored counts"
    assert found.traces["t0"] == whole[0]


# --- comparing ---------------------------------------------------------------------------------


def test_metrics_are_of_the_common_tasks_alone():
    a = side("a", *(replace(BASE, task_id=f"t{i}", correct=i < 2, reward=i) for i in range(4)))
    b = side("b", *(replace(BASE, task_id=f"t{i}", correct=True, reward=2 * i) for i in range(2, 9)))
    found = compare(a, b)
    assert (found.common, found.only_a, len(found.only_b)) == (("t2", "t3"), ("t0", "t1"), 5)
    accuracy, reward = ({f.name: f for f in found.metrics}[name] for name in ("accuracy", "reward"))
    assert (accuracy.a.mean, accuracy.b.mean, accuracy.difference.mean) == (0, 1, 1)
    assert (reward.a.mean, reward.b.mean, reward.difference.mean) == (2.5, 5, 2.5)
    assert found.mcnemar is not None and (found.mcnemar.only_a, found.mcnemar.only_b) == (0, 2)
    assert found.mcnemar.p == 0.5, "two tasks of two prove nothing"
    assert "do not show which run is right more often" in found.conclusion and found.divergences is None


def test_answers_that_were_not_judged_and_absent_terms_are_in_no_pair():
    a = side("a", replace(BASE, correct=None), replace(BASE, task_id="u", terms={"time": 0.5}))
    b = side("b", replace(BASE, terms={"time": 1.0}), replace(BASE, task_id="u", terms={"time": 0.75}))
    found = compare(a, b)
    metrics = {metric.name: metric.a.count for metric in found.metrics}
    assert metrics["accuracy"] == metrics["reward"] == 1 and metrics["turns"] == 2
    assert [(f.name, f.a.count, f.difference.mean) for f in found.terms] == [("time", 1, 0.25)]
    only = compare(side("a", replace(BASE, correct=None)), side("b", replace(BASE, correct=None)))
    assert only.mcnemar is None and "no answer of both was judged" in only.conclusion


def test_a_task_that_changed_under_its_id_is_told():
    a = side("a", BASE, replace(BASE, task_id="u"), replace(BASE, task_id="v"))
    b = side("b", BASE, replace(BASE, task_id="u", task="x"), replace(BASE, task_id="v", video="y"))
    found = compare(a, b)
    assert (found.other_tasks, found.other_videos) == (("u",), ("v",))
    assert "what 2 of these tasks are" in found.conclusion


def test_the_conclusion_says_no_more_than_p_allows():
    def run(name, right):
        return side(name, *(replace(BASE, task_id=f"t{i}", correct=i in right) for i in range(20)))

    # Five of twenty: p = 0.0625. Six: 2 / 64 = 0.03125.
    assert "do not show which run" in compare(run("a", ()), run("b", range(5))).conclusion
    told = compare(run("a", ()), run("b", range(6))).conclusion
    assert (
        "B was right more often than A, by more than is likely (B - A = +0.300" in told
        and "p = 0.031" in told
    )
    assert "A was right more often than B" in compare(run("a", range(6)), run("b", ())).conclusion
    assert "both were right on the same ones" in compare(run("a", (1,)), run("b", (1,))).conclusion
    same = compare(run("a", (1,)), run("b", (1,))).conclusion
    assert "No setting that both record differs." in same and "\n" not in same


# --- where episodes part -----------------------------------------------------------------------


def test_episodes_part_where_they_first_differ(tmp_path):
    def one(*actions, **how):
        return episode(*actions, tmp_path=tmp_path, **how)

    def said(text):
        return Move((Crop(10, 20),), text)

    base = one(Crop(10, 20), Answer("B"))
    assert divergence(base, base) == ("nowhere", 0)
    assert divergence(base, one(Crop(10, 20), Answer("B"))) == ("nowhere", 0)
    assert divergence(base, one(Crop(10, 21), Answer("B"))) == ("action", 1)
    assert divergence(base, one(Crop(10, 20), Answer("A"))) == ("action", 2)
    assert divergence(base, one(Crop(10, 20, (0, 0, 0.5, 0.5)), Answer("B"))) == ("action", 1)
    assert divergence(one(said("a"), Answer("B")), one(said("b"), Answer("B"))) == ("words", 1)
    assert divergence(base, one(Crop(10, 20), Answer("B"), number=1)) == ("video", 0)
    assert divergence(base, one(Crop(10, 20), Answer("B"), recipe="LONGVT_TINY")) == ("skim", 0)
    assert divergence(base, replace(base, turns=base.turns[:1], ending="", cut="left")) == ("ending", 1)
    assert divergence(base, replace(base, correct=False)) == ("verdict", 2)
    assert divergence(base, replace(base, task=replace(base.task, question="Who?"))) == ("question", 0)
    assert divergence(base, replace(base, task=replace(base.task, answer="A"))) == ("nowhere", 0)
    nan = one(Crop(float("nan"), float("inf")), Answer("B"))
    assert divergence(nan, nan) == ("nowhere", 0), "NaN is the same action"


def test_the_same_action_may_show_other_frames_or_pay_otherwise(tmp_path):
    recipe = get_recipe("DEFAULT")
    coverage, answer = recipe.terms
    denser = replace(recipe, rules=replace(recipe.rules, crop_fps=1.0))
    richer = replace(recipe, terms=(replace(coverage, weight=1.0), answer))
    actions = (Answer("?"), Crop(20, 25), Answer("B"))  # the first is refused
    base, thinner, paid = (episode(*actions, recipe=r, tmp_path=tmp_path) for r in (recipe, denser, richer))
    assert base.turns[0].turn.error is not None
    assert divergence(base, thinner) == ("observation", 2)
    assert divergence(base, paid) == ("reward", 2)
    first, *rest = base.turns
    results = (replace(first.turn.results[0], error=Invalid("answer", "Try again.")),)
    reworded = replace(base, turns=(replace(first, turn=replace(first.turn, results=results)), *rest))
    assert divergence(base, reworded) == ("observation", 1), "a policy reads the message"
    nearly = replace(base, turns=(replace(first, reward=first.reward + 1e-12), *rest))
    assert divergence(base, nearly) == ("nowhere", 0)


def test_words_of_other_policies_and_what_a_search_found_are_what_came_of_an_action(tmp_path):
    base = episode(Crop(20, 25), Answer("B"), tmp_path=tmp_path)

    def changed(number, result=None, **turn):
        turns = list(base.turns)
        played = turns[number].turn
        (old,) = played.results
        new = replace(played, results=(replace(old, **(result or {})),), **turn)
        turns[number] = replace(turns[number], turn=new)
        return replace(base, turns=tuple(turns))

    red, blue = changed(0, {"reply": "A red flag."}), changed(0, {"reply": "A blue one."})
    assert divergence(red, blue) == divergence(base, red) == ("observation", 1)
    assert divergence(red, red) == ("nowhere", 0)
    other = replace(blue, turns=(blue.turns[0], changed(1, {"action": Answer("A")}).turns[1]))
    assert divergence(red, other) == ("observation", 1), "the answer follows from what was said"
    assert divergence(changed(1, verifier_answer="A"), changed(1, verifier_answer="B")) == (
        "observation",
        2,
    )
    clips = (Clip((1.0,)), Clip((2.0,)))
    here, there = (
        changed(0, {"action": Find("a flag", found_s=clip.times_s), "clip": clip}) for clip in clips
    )
    assert divergence(here, there) == ("observation", 1)
    assert divergence(here, changed(0, {"action": Find("a kite")})) == ("action", 1)


def test_kinds_are_counted_in_the_order_of_an_episode(tmp_path):
    def answers(observation, info):
        return Crop(10, 20) if info["turn"] == 0 and info["task_id"] != "t0" else Answer("B")

    a = run_from_traces(play(tmp_path / "a.jsonl", lambda observation, info: Answer("B")), "a")
    b = run_from_traces(play(tmp_path / "b.jsonl", answers), "b")
    found = compare(a, b)
    assert found.divergences is not None
    assert [(p.kind, p.tasks) for p in found.divergences] == [
        ("action", (("t1", 1), ("t2", 1), ("t3", 1))),
        ("nowhere", (("t0", 0),)),
    ]
    assert compare(a, a).conclusion.startswith(
        "On the 4 common tasks both saw the same frames by reference"
    )
    assert json.loads(json.dumps(found.to_json()))["divergences"]["action"][0] == ["t1", 1]
