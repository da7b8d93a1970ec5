"""Metrics of a policy: counts, intervals, what is left out, and scripted policies with known metrics."""

# ruff: noqa: D102, D103

import functools
import shutil
from dataclasses import dataclass, replace

import pytest
from pytest import approx

from videogym import Answer, Crop, Region, Segment, Task, TextActions, VideoQAEnv, evaluate, get_recipe
from videogym.datasets import TrainedOnError, write_tasks
from videogym.evaluate import hits, mean, proportion, union_iou
from videogym.rewards import AnswerTerm
from videogym.state import Clip
from videogym.testing.policies import Blind, Oracle, Random, SkimOnly
from videogym.traces import RecordTraces, read_traces
from videogym.video import UnreadableVideo
from videogym.video.synthetic import encode

ADDRESS = "synthetic:brief_event?level=0&duration_s=60&seed={}&size=64x36"


def task(number, **changes):
    made = Task(
        f"task-{number}", ADDRESS.format(number), "Which?", "choice", ("w", "x"), "B", (Segment(20, 25),)
    )
    return replace(made, **changes)


def make(count=4, **arguments):
    return VideoQAEnv([task(i) for i in range(count)], **arguments)


# --- intervals ---------------------------------------------------------------------------------


def test_wilsons_interval_by_hand():
    # 9 of 10, z^2 = 3.841459: centre (0.9 + 0.192073) / 1.384146 = 0.788986,
    # half sqrt(0.009 + 0.009604) * 1.959964 / 1.384146 = 0.193136.
    estimate = proportion(9, 10)
    assert (estimate.mean, estimate.count) == (0.9, 10)
    assert (estimate.low, estimate.high) == (approx(0.595850, abs=2e-6), approx(0.982122, abs=2e-6))


def test_wilsons_interval_at_the_ends_stays_within_one():
    # Of 10: z^2 / (10 + z^2) = 0.277533 is the far bound, the near one is the share itself.
    none, all_of_them = proportion(0, 10), proportion(10, 10)
    assert (none.mean, none.low, none.high) == (0.0, 0.0, approx(0.277533, abs=2e-6))
    assert (all_of_them.low, all_of_them.high) == (approx(1 - 0.277533, abs=2e-6), approx(1.0))


def test_means_have_a_normal_interval():
    # 1, 2, 3: deviation 1, so 1.959964 / sqrt(3).
    estimate = mean([1, 2, 3])
    assert (estimate.mean, estimate.low, estimate.high) == (2, approx(2 - 1.131586), approx(2 + 1.131586))
    assert mean([5.0]).low == mean([5.0]).high == 5.0


def test_overlap_of_unions_by_hand():
    # Looks 0-10 and 5-15 are 15 s; evidence 10-20: 5 s in common of 20.
    assert union_iou([Segment(0, 10), Segment(5, 15)], [Segment(10, 20)]) == 0.25
    assert union_iou([], [Segment(10, 20)]) == 0.0


# --- metrics -----------------------------------------------------------------------------------


def looks_then_answers(observation, info, env):
    """Look at 20 to 30 s, answer B in even tasks, A in odd ones."""
    if not env.state.turns:
        return Crop(20, 30)
    return Answer("AB"[int(info["task_id"][-1]) % 2 == 0])


def test_the_report_counts_by_hand():
    report = evaluate(looks_then_answers, make())
    assert (report.accuracy.mean, report.accuracy.count) == (0.5, 4)
    # 5 of 10 seconds looked at are evidence, 5 of the skim's 60; the gate takes it from the wrong half.
    looked = 0.5 * (5 / 10 - 5 / 60)
    assert report.tiou is not None and report.tiou.mean == 0.5
    assert report.hit_rate is not None and report.hit_rate.mean == 1.0
    assert report.reward.mean == approx((1 + looked) / 2)
    assert (report.turns.mean, report.frames.mean, report.invalid_rate.mean) == (2, 32 + 16, 0)
    assert {name: e.mean for name, e in report.terms.items()} == approx(
        {"coverage": looked, "answer": 0.5, "gate": -looked / 2}
    )
    assert report.recipe == get_recipe("DEFAULT").identity
    assert (report.bad_videos, report.faults, len(report.episodes)) == ({}, 0, 4)


def test_invalid_turns_are_a_share_of_turns():
    def policy(observation, info):
        return Crop(9, 3) if observation["turn"][0] == 0 else Answer("B")

    report = evaluate(policy, make())
    assert (report.invalid_rate.mean, report.invalid_rate.count) == (0.5, 8)


def test_tasks_without_evidence_have_no_grounding():
    env = VideoQAEnv([task(0, evidence=None), task(1)])
    report = evaluate(looks_then_answers, env)
    assert report.tiou is not None and report.tiou.count == 1
    assert report.terms["coverage"].count == 1
    assert evaluate(looks_then_answers, VideoQAEnv([task(0, evidence=None)])).hit_rate is None


@pytest.mark.parametrize(
    ("region", "hit"),
    [  # the evidence region is a quarter by a quarter: the whole frame has an IoU of 1/16 with it
        (None, False),
        ((0.5, 0.5, 0.75, 0.75), True),
        ((0.5, 0.5, 1.0, 0.75), True),  # twice as large: just enough
        ((0.5, 0.5, 1.0, 0.76), False),
        ((0.625, 0.5, 0.75, 0.75), True),  # half of it
        ((0.626, 0.5, 0.75, 0.75), False),
        ((0.0, 0.0, 0.25, 0.25), False),
    ],
)
def test_a_hit_of_a_detail_needs_its_region(region, hit):
    detail = task(0, evidence_region=Region(0.5, 0.5, 0.75, 0.75))

    def policy(observation, info):
        return Crop(20, 30, region) if info["turn"] == 0 else Answer("B")

    assert evaluate(policy, VideoQAEnv([detail])).episodes[0].hit is hit
    assert evaluate(policy, VideoQAEnv([task(0)])).episodes[0].hit is True, "the skim shows the evidence"


def test_a_hit_needs_frames_of_all_evidence_in_its_region():
    place = Region(0.4, 0.4, 0.6, 0.6)
    both = task(0, evidence=(Segment(20, 25), Segment(40, 45)), evidence_region=place)
    clips = [Clip((21.0,), place), Clip((41.0,), None)]
    assert hits(both, clips) is False
    assert hits(both, [*clips, Clip((25.0,), place)]) is False, "half-open: 25 s is outside, and the first"
    assert hits(both, [*clips, Clip((40.0,), place)]) is True
    assert hits(task(0, evidence=None), clips) is None


def test_what_was_trained_on_is_not_evaluated_on():
    def policy(observation, info):
        raise AssertionError("nothing is played")

    trained = [task(7, video=ADDRESS.format(2)), task(8)]
    with pytest.raises(
        TrainedOnError, match=r"1 of 4 tasks ask about videos .* 1 of them the same .*: task-2$"
    ):
        evaluate(policy, make(), trained_on=trained)
    assert len(evaluate(looks_then_answers, make(), episodes=2, trained_on=trained).episodes) == 2
    assert (
        len(evaluate(looks_then_answers, make(), task_ids=["task-3"], trained_on=iter(trained)).episodes)
        == 1
    )


def test_the_source_of_what_was_trained_on_will_do(tmp_path):
    source = "procedural:brief_event?duration_s=60&count=40&split={}"
    env = VideoQAEnv(source.format("test"))
    assert len(evaluate(Oracle(), env, episodes=2, trained_on=source.format("train")).episodes) == 2
    with pytest.raises(TrainedOnError, match="2 of 2 tasks"):
        evaluate(Oracle(), env, episodes=2, trained_on=source.format("test"))
    write_tasks(tmp_path / "t.jsonl", [task(1)])
    with pytest.raises(TrainedOnError, match=r": task-1$"):
        evaluate(looks_then_answers, make(), trained_on=str(tmp_path / "t.jsonl"))


def test_tasks_are_chosen_by_id_or_number():
    played = evaluate(looks_then_answers, make(), task_ids=["task-3", "task-0"]).episodes
    assert [episode.task_id for episode in played] == ["task-3", "task-0"]
    assert len(evaluate(looks_then_answers, make(), episodes=2).episodes) == 2
    assert len(evaluate(looks_then_answers, make(), episodes=99).episodes) == 4


def test_progress_is_told_after_every_episode():
    seen = []
    evaluate(looks_then_answers, make(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_answers_that_no_one_judged_are_counted_and_not_scored():
    def judge(task, answer):
        return None if task.task_id in ("task-0", "task-3") else float(answer == task.answer)

    def recipe(judge):
        terms = get_recipe("DEFAULT").terms
        return replace(
            get_recipe("DEFAULT"), terms=(terms[0], replace(terms[1], function=AnswerTerm(judge=judge)))
        )

    report = evaluate(looks_then_answers, make(recipe=recipe(judge)))
    assert [episode.correct for episode in report.episodes] == [None, False, True, None]
    assert (report.abstained, report.accuracy.mean, report.accuracy.count) == (2, 0.5, 2)
    # A look is paid where the answer is right, and taken back where it is wrong; the others have no return.
    assert (report.reward.mean, report.reward.count) == (approx((1 + 0.5 * (5 / 10 - 5 / 60)) / 2), 2)
    assert {name: e.count for name, e in report.terms.items()} == {"coverage": 4, "answer": 2, "gate": 2}
    assert report.turns.count == 4 and report.tiou is not None and report.tiou.count == 4
    assert evaluate(looks_then_answers, make()).abstained == 0
    with pytest.raises(ValueError, match="the judge abstained from all 4 answers"):
        evaluate(looks_then_answers, make(recipe=recipe(lambda task, answer: None)))


def test_bad_videos_are_named_and_not_scored(tmp_path):
    env = VideoQAEnv([task(0), task(1, video=str(tmp_path / "missing.mp4")), task(2)])
    report = evaluate(looks_then_answers, env)
    assert report.accuracy.count == 2
    assert list(report.bad_videos) == ["task-1"] and "missing.mp4" in report.bad_videos["task-1"]
    with pytest.raises(ValueError, match=r"1 bad videos, 0 faults, such as task-1: .*missing\.mp4"):
        evaluate(looks_then_answers, VideoQAEnv([task(1, video=str(tmp_path / "missing.mp4"))]))


def test_a_wrong_folder_is_told_by_a_few_of_its_videos(tmp_path):
    lost = [task(number, video=str(tmp_path / f"{number}.mp4")) for number in range(50)]
    with pytest.raises(ValueError, match="50 bad videos") as caught:
        evaluate(looks_then_answers, VideoQAEnv(lost))
    assert [f"task-{number}:" in str(caught.value) for number in range(5)] == [True] * 3 + [False] * 2


def test_episodes_with_faults_are_counted_and_left_out(monkeypatch):
    env = make(observe="pixels", frame_size=(64, 36))
    frames = env.store.frames

    def damaged_in_the_first(source, times_s, **options):
        if "seed=0&" in source and len(times_s) == 10:
            raise UnreadableVideo("damaged")
        return frames(source, times_s, **options)

    monkeypatch.setattr(env.store, "frames", damaged_in_the_first)

    def policy(observation, info, env):
        return Answer("B") if env.state.turns else Crop(20, 25)

    report = evaluate(policy, env)
    assert (report.faults, report.accuracy.count, report.accuracy.mean) == (1, 3, 1.0)
    assert all(episode.task_id != "task-0" for episode in report.episodes)


def test_a_policy_that_fails_stops_the_run():
    def policy(observation, info):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        evaluate(policy, make())


def test_text_policies_are_evaluated_through_their_wrapper():
    env = TextActions(make(recipe=get_recipe("LONGVT/paper")))

    def policy(observation, info):
        return "<think>x</think><answer>B</answer>"

    assert evaluate(policy, env).accuracy.mean == 1.0


# --- scripted policies -------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["DEFAULT", "VIDEO_MTR/paper", "LONGVT/paper", "LONGVT_TINY"])
@pytest.mark.parametrize("family", ["brief_event", "event_order", "skim_suffices"])
def test_the_oracle_is_always_right_and_sees_all_evidence(recipe, family):
    env = VideoQAEnv(f"procedural:{family}?level=1&duration_s=600&count=20&size=64x36", recipe)
    report = evaluate(Oracle(), env)
    assert report.accuracy.mean == 1.0
    assert report.hit_rate is not None and report.hit_rate.mean == 1.0
    assert report.invalid_rate.mean == 0.0


@pytest.mark.parametrize(("regions", "share"), [(True, 1.0), (False, 0.0)])
def test_a_detail_is_hit_by_crops_of_its_region_alone(regions, share):
    report = evaluate(Oracle(regions), VideoQAEnv("procedural:small_detail?duration_s=600&count=20"))
    assert report.hit_rate is not None and report.hit_rate.mean == share


def test_guessers_are_near_chance_and_the_skim_helps_where_it_suffices():
    hard = "procedural:brief_event?level=0&duration_s=600&count=200&size=64x36"
    easy = hard.replace("brief_event", "skim_suffices")
    # Four options: 200 tasks stay within 0.25 +- 0.12 (four deviations).
    for policy in (Blind(0), SkimOnly(0), Random(0)):
        assert abs(evaluate(policy, VideoQAEnv(hard)).accuracy.mean - 0.25) < 0.12
    assert evaluate(SkimOnly(0), VideoQAEnv(easy)).accuracy.mean == 1.0


def test_scripted_policies_follow_their_seed():
    env = make(8)
    for kind in (Blind, SkimOnly, Random):
        assert evaluate(kind(3), env).episodes == evaluate(kind(3), env).episodes


def test_an_episode_of_no_tasks_is_refused():
    with pytest.raises(ValueError, match="no episode could be scored"):
        evaluate(looks_then_answers, make(), task_ids=[])


def test_a_policy_that_meets_damage_makes_a_fault_or_a_bad_video():
    """Where the skim can be seen the episode is a fault, else the video is bad; neither is scored."""

    def policy(observation, info):
        if info["task_id"] == "task-1":
            raise UnreadableVideo("1.mp4: no picture")
        if info["task_id"] == "task-2" and info["turn"] == 1:
            raise UnreadableVideo("2.mp4: damaged")
        return Crop(20, 25) if info["turn"] == 0 else Answer("B")

    report = evaluate(policy, make())
    assert report.bad_videos == {"task-1": "1.mp4: no picture"}
    assert (report.faults, [e.task_id for e in report.episodes]) == (1, ["task-0", "task-3"])
    assert report.accuracy.mean == 1.0


@dataclass(frozen=True)
class Says:
    """Answers a look by a text."""

    deadline_s: float = 5.0

    def __call__(self, sight):
        return "A red flag."


@pytest.mark.parametrize(
    ("first", "responder", "cut_at"),
    [
        (Crop(25, 20), None, 1),  # refused
        (Crop(20, 25), Says(), 1),  # answered by a text
        (Crop(20, 25), None, 0),  # its own frames are lost already
    ],
)
def test_older_frames_that_are_lost_are_a_fault_whatever_the_last_turn_brought(
    first, responder, cut_at, tmp_path
):
    """The policy reads the first frames again in its second turn, when their file is gone."""
    files = [tmp_path / "0.mp4", tmp_path / "1.mp4"]
    encode(ADDRESS.format(1), files[0])
    shutil.copy(*files)
    recipe = replace(get_recipe("DEFAULT"), name="TOLD", responder=responder)
    env = VideoQAEnv([task(i, video=str(file)) for i, file in enumerate(files)], recipe)

    def policy(observation, info, env):
        turns = len(env.state.turns)
        if info["task_id"] == "task-0" and turns == cut_at:
            files[0].unlink(missing_ok=True)
        if turns:
            env.store.frames(env.state.task.video, env.state.skim.times_s[:1], size=(16, 9))
        return Answer("B") if turns else first

    with RecordTraces(env, tmp_path / "t.jsonl") as recorded:
        report = evaluate(policy, recorded)
    assert (report.faults, report.bad_videos) == (1, {})
    assert [episode.task_id for episode in report.episodes] == ["task-1"]
    lost, whole = read_traces(tmp_path / "t.jsonl").episodes
    assert "0.mp4" in lost.turns[0].turn.fault and lost.cut.startswith("fault") and not whole.cut


def test_the_environment_goes_to_a_third_parameter_that_must_be_given_or_is_called_env():
    """An option of the policy is none of ours."""
    seen = []

    def option(observation, info, greedy=False):
        seen.append(greedy)
        return Answer("B")

    def required(observation, info, world):
        seen.append(world)
        return Answer("B")

    def named(observation, info, greedy=False, env=None):
        seen.append((greedy, env))
        return Answer("B")

    def keyword(observation, info, *, greedy=False, env=None):
        seen.append((greedy, env))
        return Answer("B")

    def third(observation, info, env=None, /, *more):
        seen.append((env, more))
        return Answer("B")

    env = make(1)
    for policy, due in (
        (option, False),
        (functools.partial(option, greedy=True), True),
        (lambda observation, info, *rest: seen.append(rest) or Answer("B"), ()),
        (required, env),
        (named, (False, env)),
        (functools.partial(named, greedy=True), (True, env)),
        (functools.partial(named, env="my own"), (False, "my own")),
        (keyword, (False, env)),
        (third, (env, ())),
    ):
        seen.clear()
        evaluate(policy, env)
        assert seen == [due]


def test_a_report_prints_as_a_table():
    """A line for each figure, nothing of how it is stored."""
    report = evaluate(Blind(0), VideoQAEnv("procedural:brief_event?duration_s=60&count=3"))
    lines = str(report).splitlines()
    assert lines[0] == f"3 episodes of {report.recipe}, 95 % intervals"
    assert (
        lines[1] == f"  accuracy        {report.accuracy}"
        and f"    answer        {report.terms['answer']}" in lines
    )
    assert "Estimate" not in str(report) and "{" not in str(report) and max(map(len, lines)) < 100
    assert (
        len(
            {
                line.index(f"{value}")
                for line, value in zip(lines[1 : lines.index("")], metrics_of(report), strict=True)
            }
        )
        == 1
    )
    short = replace(report, tiou=None, hit_rate=None, faults=2, abstained=1, bad_videos={"x": "gone"})
    assert str(short).splitlines()[2:4] == [
        "  hit rate        not annotated",
        "  temporal IoU    not annotated",
    ]
    short_lines = str(short).splitlines()
    assert [line.split()[0] for line in short_lines[: short_lines.index("")][-3:]] == ["2", "1", "1"]


def metrics_of(report):
    """In the order of the table."""
    first = (report.accuracy, report.hit_rate, report.tiou, report.reward)
    return (*first, *report.terms.values(), report.turns, report.frames, report.invalid_rate)
