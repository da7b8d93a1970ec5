"""Metrics by what is told of tasks: counts by hand, and intervals where questions share a video."""

# ruff: noqa: D103

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from videogym import Answer, Crop, Task, VideoQAEnv, evaluate
from videogym.grouping import NOTHING, table, values_of
from videogym.intervals import clustered_mean, clustered_proportion, design_effect, mean, proportion
from videogym.results import describe_run, read_result, result_text
from videogym.video import UnreadableVideo

VIDEO = "synthetic:brief_event?level=0&duration_s=60&seed={}&size=64x36"
# Video, right answer of a policy that says B, and what is told of the task.
ROWS = [
    (1, "B", {"domain": "sports", "type": ["OCR"], "level": 1}),
    (1, "B", {"domain": "sports", "type": ["OCR", "count"], "level": 1.0}),
    (2, "A", {"domain": "sports", "type": ["count"], "level": "1"}),
    (2, "A", {"domain": "news", "type": []}),
    (3, "B", {"domain": "news", "type": None, "level": True}),
    (4, "A", {}),
]


def tasks():
    return [
        Task(f"t{i}", VIDEO.format(video), "Which?", "choice", ("w", "x"), truth, metadata=told)
        for i, (video, truth, told) in enumerate(ROWS)
    ]


def says_b(observation, info):
    return Answer("B")


def shown(groups):
    return [
        (one.value, one.episodes, one.videos, one.accuracy and round(one.accuracy.mean, 3))
        for one in groups.groups
    ]


def test_the_table_by_hand():
    report = evaluate(says_b, VideoQAEnv(tasks()), by=["domain", "type", "level", "domain"])
    assert list(report.groups) == ["domain", "type", "level"]
    assert shown(report.groups["domain"]) == [
        ("sports", 3, 2, 0.667),
        ("news", 2, 2, 0.5),
        (NOTHING, 1, 1, 0.0),
    ]
    # A question of two types counts in both.
    assert shown(report.groups["type"]) == [
        ("OCR", 2, 1, 1.0),
        ("count", 2, 2, 0.5),
        (NOTHING, 3, 3, 0.333),
    ]
    # 1, 1.0 and "1" read alike; true does not.
    assert shown(report.groups["level"]) == [("1", 3, 2, 0.667), ("true", 1, 1, 1.0), (NOTHING, 2, 2, 0.0)]
    assert report.groups["domain"].mean_accuracy == approx((2 / 3 + 1 / 2 + 0) / 3)
    news = report.groups["domain"].groups[1]
    assert (news.reward.mean, news.turns.mean, news.frames.mean, news.tiou) == (0.5, 1, 32, None)
    assert evaluate(says_b, VideoQAEnv(tasks())).groups == {}
    assert evaluate(says_b, VideoQAEnv(tasks()), by="domain").groups["domain"] == report.groups["domain"]


def test_what_is_no_field_is_refused_before_anything_is_played():
    def policy(observation, info):
        raise AssertionError("nothing is played")

    with pytest.raises(ValueError, match=r"no task has metadata 'domian'; there is: domain, level, type$"):
        evaluate(policy, VideoQAEnv(tasks()), by="domian")
    with pytest.raises(ValueError, match="no task has metadata 'type'; these tasks have none"):
        evaluate(policy, VideoQAEnv([tasks()[-1]]), by=["type"])


def test_what_could_not_be_shown_is_counted_in_its_group(tmp_path):
    lost = tasks()
    for i in (2, 4):
        lost[i] = replace(lost[i], video=str(tmp_path / "gone.mp4"))

    def policy(observation, info):
        if info["task_id"] == "t0":
            if info["turn"]:
                raise UnreadableVideo("damaged")
            return Crop(20, 25)
        return Answer("B")

    report = evaluate(policy, VideoQAEnv(lost), by="domain")
    assert [(one.value, one.episodes, one.left_out) for one in report.groups["domain"].groups] == [
        ("news", 1, 1),
        ("sports", 1, 2),
        (NOTHING, 1, 0),
    ]
    told = table(report.groups["domain"])
    assert told[0].split() == ["domain", "tasks", "videos", "accuracy", "hit", "rate", "frames"]
    assert told[2].startswith("sports") and told[2].endswith("2 left out")
    assert told[-1] == "mean of the groups' accuracies 0.333"


def test_a_group_in_which_nothing_was_scored_is_there():
    def policy(observation, info):
        if info["task_id"] in ("t3", "t4"):
            raise UnreadableVideo("damaged")
        return Answer("B")

    groups = evaluate(policy, VideoQAEnv(tasks()), by="domain").groups["domain"]
    news = next(one for one in groups.groups if one.value == "news")
    assert (news.episodes, news.accuracy, news.left_out) == (0, None, 2)
    assert groups.mean_accuracy == approx((2 / 3 + 0) / 2)
    assert any(line.startswith("news") for line in table(groups))


def test_a_field_of_many_values_is_cut_short():
    many = [replace(one, metadata={"id": f"v{i}"}) for i, one in enumerate(tasks())]
    told = table(evaluate(says_b, VideoQAEnv(many), by="id").groups["id"], most=4)
    assert [line.split()[0] for line in told] == ["id", "v0", "v1", "v2", "v3", "and", "mean"]


def test_what_a_terminal_would_obey_is_written_out():
    hostile = [replace(one, metadata={"a\nb": "\x1b[31mred\r\n" + "x" * 99}) for one in tasks()]
    report = evaluate(says_b, VideoQAEnv(hostile), by="a\nb")
    lines = table(report.groups["a\nb"])
    assert lines[0].startswith("a\\nb ") and lines[1].startswith("\\x1b[31mred\\r\\nx") and len(lines) == 2
    assert str(report).splitlines()[-2:] == lines


def test_results_keep_metadata_and_groups(tmp_path):
    env = VideoQAEnv(tasks())
    report = evaluate(says_b, env, by="domain")
    (tmp_path / "r.json").write_text(result_text(report, describe_run(env)))
    told = json.loads((tmp_path / "r.json").read_text())
    assert [one["value"] for one in told["groups"]["domain"]["groups"]] == ["sports", "news", NOTHING]
    assert read_result(tmp_path / "r.json").episodes == report.episodes
    for row in told["played"]:  # a result of before there was metadata
        del row["metadata"]
    (tmp_path / "old.json").write_text(json.dumps(told))
    assert [one.metadata for one in read_result(tmp_path / "old.json").episodes] == [{}] * 6


def test_words_of_a_value_are_those_of_json():
    told = {
        "n": None,
        "text": "3",
        "three": 3.0,
        "half": 0.5,
        "no": False,
        "o": {"a": [1]},
        "ll": [[1], [1]],
    }
    found = [values_of(told, name) for name in told]
    assert found == [(NOTHING,), ("3",), ("3",), ("0.5",), ("false",), ('{"a": [1]}',), ("[1]",)]


# --- intervals ---------------------------------------------------------------------------------


def test_one_question_a_video_is_the_plain_interval():
    values = [True] * 9 + [False]
    assert clustered_proportion(values, range(10)) == proportion(9, 10)
    assert clustered_mean([1.0, 2.0, 3.0], "abc") == mean([1.0, 2.0, 3.0])


def test_the_design_effect_by_hand():
    # Videos of two questions: 1 1 | 1 1 | 0 0 | 0 1, mean 5/8. Sums of what is off: 3/4, 3/4, -5/4, -1/4;
    # their squares add up to 44/16, so 4/3 * 2.75 / 64. Alone: 5 (3/8)^2 + 3 (5/8)^2 = 15/8, over 7 * 8.
    values, videos = [1, 1, 1, 1, 0, 0, 0, 1], [0, 0, 1, 1, 2, 2, 3, 3]
    assert design_effect(values, videos) == approx((4 / 3 * 2.75 / 64) / (15 / 8 / 56))
    # All of one video are worth one question; where all are right, a video is worth one.
    assert (design_effect([1, 0, 1], "aaa"), design_effect([1, 1, 1, 1], "aabb")) == (3, 2)
    wide = proportion(5, 5)
    assert clustered_proportion([True] * 10, [i // 2 for i in range(10)]) == replace(wide, count=10)


def drawn(seed, videos=80):
    """Right and wrong where videos differ in how hard they are, one to nine questions each."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 10, videos)
    chances = random.beta(1.2, 0.8, videos)
    clusters = np.repeat(np.arange(videos), sizes)
    return random.random(len(clusters)) < chances[clusters], clusters


def bootstrapped(values, clusters, draws=4000):
    """95 % of the means of samples of whole videos, with the weights of their questions."""
    random = np.random.default_rng(0)
    sums = np.bincount(clusters, weights=values)
    sizes = np.bincount(clusters)
    chosen = random.integers(0, len(sizes), (draws, len(sizes)))
    return np.percentile(sums[chosen].sum(1) / sizes[chosen].sum(1), [2.5, 97.5])


@pytest.mark.parametrize("seed", range(5))
def test_clustered_intervals_are_those_of_a_bootstrap_of_videos(seed):
    values, clusters = drawn(seed)
    low, high = bootstrapped(values, clusters)
    for estimate in (
        clustered_proportion(values.tolist(), clusters.tolist()),
        clustered_mean(values.astype(float).tolist(), clusters.tolist()),
    ):
        # Within a tenth of the interval's length; taken for independent it is a third too short.
        assert max(abs(estimate.low - low), abs(estimate.high - high)) < 0.1 * (high - low)
    plain = proportion(int(values.sum()), len(values))
    assert plain.high - plain.low < 0.8 * (high - low)


def test_the_truth_lies_in_the_interval_as_often_as_it_says():
    covered = []
    for seed in range(300):
        values, clusters = drawn(seed, videos=60)
        estimate = clustered_proportion(values.tolist(), clusters.tolist())
        covered.append(estimate.low <= 0.6 <= estimate.high)  # the mean of that beta distribution
    # Five deviations of a binomial share of 0.95 in 300 are 0.063.
    assert abs(np.mean(covered) - 0.95) < 0.063


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_an_interval_is_never_narrower_than_of_independent_questions(pairs):
    values, clusters = zip(*pairs, strict=True)
    estimate, plain = clustered_proportion(values, clusters), proportion(sum(values), len(values))
    low, high = estimate.low - 1e-12, estimate.high + 1e-12  # rounding
    assert 0 <= estimate.low and low <= plain.low <= estimate.mean + 1e-12
    assert estimate.mean - 1e-12 <= plain.high <= high and estimate.high <= 1
    assert (estimate.mean, estimate.count) == (plain.mean, plain.count)
    average = clustered_mean([float(value) for value in values], clusters)
    assert math.isfinite(average.low) and average.low <= average.mean <= average.high


@pytest.mark.parametrize(
    "values", [[1.0, math.inf, 0.0], [math.inf, -math.inf], [math.nan, 1.0], [math.inf]]
)
@pytest.mark.filterwarnings("error")
def test_a_mean_of_what_is_not_finite_has_no_interval_and_no_warning(values):
    told = mean(values)
    assert not math.isfinite(told.mean) and math.isnan(told.low) and math.isnan(told.high)
