"""What an answer costs: by a clock that only moves when it is told to, so that no machine is too busy."""

# ruff: noqa: D102, D103

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pytest import approx

from videogym import Answer, Crop, Segment, Task, VideoQAEnv, evaluate, get_recipe
from videogym.cost import Cost, Spread, Stopwatch, cost_table, quantities, spread, spreads
from videogym.judging import with_judge
from videogym.report import write_report
from videogym.results import ResultError, describe_run, read_result, result_text
from videogym.serving import Sessions, SharedEnvs
from videogym.traces import RecordTraces, TraceError, from_line, read_traces, to_line
from videogym.video import decoding_time, store

ADDRESS = "synthetic:brief_event?level=0&duration_s=60&seed={}&size=64x36"
DECODES, THINKS, JUDGES, READS = 3.0, 2.0, 0.5, 0.001


class Clock:
    """Moves when it is told to, and a little whenever it is read."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        self.now_s += READS
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    made, decode = Clock(), store._decode
    monkeypatch.setattr(decoding_time, "now_s", made)

    def slow(*arguments):
        made.now_s += DECODES
        return decode(*arguments)

    monkeypatch.setattr(store, "_decode", slow)
    return made


_CLOCKS = []


def slow_judge(task, answer):
    for clock in _CLOCKS:
        clock.now_s += JUDGES
    return float(answer == task.answer)


@pytest.fixture
def slow_recipe(clock):
    _CLOCKS.append(clock)
    yield with_judge(get_recipe("DEFAULT"), slow_judge)
    _CLOCKS.clear()


def tasks(count):
    return [
        Task(f"t{i}", ADDRESS.format(i), "Which?", "choice", ("w", "x"), "B", (Segment(20, 25),))
        for i in range(count)
    ]


def looks_and_resolves(clock):
    """Looks as often as the task's number says, and reads a frame of each look itself."""

    def act(observation, info, env):
        clock.now_s += THINKS
        if len(env.state.turns) == int(info["task_id"][1:]):
            return Answer("B")
        at = 20.0 + 2 * len(env.state.turns)
        env.store.frames(env.state.task.video, [at], size=(16, 9))
        return Crop(at, at + 1)

    return act


def test_every_second_is_decoding_the_model_or_the_environment(clock, slow_recipe):
    before = clock.now_s
    report = evaluate(looks_and_resolves(clock), VideoQAEnv(tasks(3), slow_recipe))
    passed = clock.now_s - before
    for looks, episode in enumerate(report.episodes):
        cost = episode.cost
        # What is decoded for the policy is decoding, though the policy asked for it.
        assert cost.decoding_s == approx(DECODES * looks, abs=0.1)
        assert cost.model_s == approx(THINKS * (looks + 1), abs=0.1)
        assert cost.environment_s == approx(JUDGES, abs=0.1)
        assert (cost.tokens_in, cost.tokens_out) == (None, None)
    assert sum(episode.cost.seconds for episode in report.episodes) == approx(passed, rel=0.05)


def test_frames_of_an_observation_are_decoding_too(clock):
    report = evaluate(lambda o, i: Answer("B"), VideoQAEnv(tasks(1), observe="pixels"))
    assert report.episodes[0].cost.decoding_s == approx(DECODES, abs=0.1)
    assert report.episodes[0].cost.environment_s == approx(0, abs=0.1)


def test_what_is_inside_a_call_that_counts_is_not_counted_twice(clock):
    begun = decoding_time.decoding_s()
    with decoding_time.counted(), decoding_time.counted():
        clock.now_s += 7
    assert decoding_time.decoding_s() - begun == approx(7, abs=0.1)
    with pytest.raises(KeyError), decoding_time.counted():
        raise KeyError
    with decoding_time.counted():  # counts again after an error
        clock.now_s += 1
    assert decoding_time.decoding_s() - begun == approx(8, abs=0.1)


def test_a_server_counts_what_each_session_decodes_in_whatever_thread(clock, tmp_path):
    """Two sessions take turns in two threads. By hand: each decodes its skim and one look of its own."""
    path = tmp_path / "run.jsonl"
    sessions = Sessions(SharedEnvs(tasks(2), traces=path))
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:

        def play(thread, played, *arguments):
            return thread.submit(played, *arguments).result(60)

        one, other = sessions.begin(), sessions.begin()
        play(first, lambda: one.begin(task_id="t0"))
        play(first, lambda: other.begin(task_id="t1"))  # in the thread whose last word was the first's
        clock.now_s += THINKS
        play(second, one.call, "crop", {"start_s": 20.0, "end_s": 25.0})
        play(second, other.call, "crop", {"start_s": 20.0, "end_s": 25.0})
        clock.now_s += THINKS
        play(first, one.call, "answer", {"text": "B"})
        play(second, other.call, "answer", {"text": "B"})
    # The client's time, in which the server decoded twice for the other one, and once.
    for trace, others in zip(read_traces(path).episodes, (2, 1), strict=True):
        assert trace.cost.decoding_s == approx(2 * DECODES, abs=0.1)
        assert trace.cost.model_s == approx(2 * THINKS + others * DECODES, abs=0.1)
        assert trace.cost.environment_s == approx(0, abs=0.1)


def test_what_began_in_one_thread_and_ended_in_another_is_not_divided(clock, tmp_path):
    """Nobody knows whose decoding it was: no seconds are better than negative ones."""
    path = tmp_path / "run.jsonl"
    with ThreadPoolExecutor(1) as thread, RecordTraces(VideoQAEnv(tasks(1), observe="pixels"), path) as env:
        thread.submit(env.reset).result(60)
        env.step(Crop(20.0, 25.0))
        env.step(Answer("B"))
    (trace,) = read_traces(path).episodes
    assert trace.cost is None
    with ThreadPoolExecutor(1) as thread:
        watch = thread.submit(Stopwatch).result(60)
        assert math.isnan(watch.lap("model").seconds) and watch.cost is None


def test_spreads_by_hand():
    # Sorted 1, 2, 3, 4, 10: the 95th percentile lies at place 0.95 * 4 = 3.8, between 4 and 10.
    assert spread([10.0, 2.0, 3.0, 1.0, 4.0]) == Spread(4.0, 3.0, approx(4 + 0.8 * 6), 5)
    rows = [quantities(Cost(1.0, 2.0, 3.0, 50, 5), 10, 2), quantities(None, 20, 4)]
    found = spreads(rows)
    assert list(found) == [
        *("seconds", "decoding_s", "model_s", "environment_s", "tokens_in", "tokens_out"),
        *("frames", "rounds"),
    ]
    assert (found["seconds"].mean, found["seconds"].count) == (6.0, 1)  # whom nobody timed does not count
    assert (found["frames"].mean, found["frames"].count) == (15.0, 2)
    assert cost_table(spreads([quantities(None, 20, 4)])) == []


def test_table_and_json_tell_the_cost(clock, slow_recipe, tmp_path):
    env = VideoQAEnv(tasks(3), slow_recipe)
    report = evaluate(looks_and_resolves(clock), env)
    # Means: decoding 0, 3, 6; the model 2, 4, 6; the judge 0.5.
    rows = {line.split()[0]: line.split()[1:] for line in str(report).splitlines() if line}
    assert [round(float(v)) for v in rows["decoding"]] == [3, 3, 6]
    assert rows["rounds"] == ["2.0", "2.0", "2.9"] and "tokens" not in rows
    path = tmp_path / "result.json"
    path.write_text(result_text(report, describe_run(env)))
    stored = json.loads(path.read_text())
    assert stored["cost"]["seconds"]["mean"] == approx(report.cost["seconds"].mean)
    assert [one.cost for one in read_result(path).episodes] == [one.cost for one in report.episodes]
    del stored["played"][0]["cost"]  # an older result
    path.write_text(json.dumps(stored))
    assert read_result(path).episodes[0].cost is None
    stored["played"][1]["cost"]["model_s"] = "long"
    path.write_text(json.dumps(stored))
    with pytest.raises(ResultError, match=r"played\[1\].cost.model_s"):
        read_result(path)


def test_traces_and_their_page_tell_the_cost(clock, slow_recipe, tmp_path):
    path = tmp_path / "run.jsonl"
    with RecordTraces(VideoQAEnv(tasks(3), slow_recipe), path) as env:
        report = evaluate(looks_and_resolves(clock), env)
    stored = read_traces(path).episodes
    for trace, episode in zip(stored, report.episodes, strict=True):
        for part in ("decoding_s", "model_s", "environment_s"):
            assert getattr(trace.cost, part) == approx(getattr(episode.cost, part), abs=0.1)
    write_report(read_traces(path), tmp_path / "page.html", thumbnails=0)
    page = (tmp_path / "page.html").read_text()
    assert "cost of an answer" in page
    told = spread([trace.cost.seconds for trace in stored])
    assert f"<b>{told.mean:.3f}</b> <small>{told.median:.3f}, {told.p95:.3f}</small>" in page


def test_a_trace_without_its_cost_is_one_that_nobody_timed(clock, tmp_path):
    path = tmp_path / "run.jsonl"
    with RecordTraces(VideoQAEnv(tasks(1)), path) as env:
        evaluate(lambda o, i: Answer("B"), env)
    (trace,) = read_traces(path).episodes
    alone = replace(trace, cost=None)
    assert b'"cost"' not in to_line(alone) and from_line(to_line(alone)).cost is None
    told = replace(trace, cost=Cost(1.0, 2.0, 3.0, 4, None))
    assert from_line(to_line(told)).cost == told.cost
    row = json.loads(to_line(told))
    for wrong in ({"decoding_s": 1.0}, [], {**row["cost"], "model_s": "nan"}):
        with pytest.raises(TraceError, match="cost"):
            from_line(json.dumps(row | {"cost": wrong}).encode())
    page = tmp_path / "page.html"
    path.write_bytes(to_line(alone))
    write_report(read_traces(path), page, thumbnails=0)
    assert "cost of an answer" not in page.read_text()
