"""Training records become the traces of the very episodes that were played."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from small_chat import ANSWER, RECIPE, TASKS, crop, load, make_env, said

from agents.tools import traces
from agents.tools.traces import trace_of_record
from agents.vlm.env import ChatEnv
from agents.vlm.records import Record, RecordError, write_records
from videogym import TextActions, VideoQAEnv, get_recipe
from videogym.traces import RecordTraces, Trace, read_traces

OUTPUTS = [crop(10, 14), crop(14, 10), "what?", ANSWER]


@pytest.fixture
def chat(checkpoints: dict[str, Path]) -> ChatEnv:
    """An environment of language models."""
    return make_env(load(checkpoints["qwen2_5_vl"]))


def told(env: ChatEnv, outputs: Sequence[str], seed: int = 1) -> Record:
    """The record of an episode of these outputs."""
    env.env.reset(seed=seed)
    record = env.open("g")
    for output in outputs:
        record = env.advance(said(env, record, output))
    return record


def recorded(path: Path, task_id: str, outputs: Sequence[str]) -> Trace:
    """The trace of the same episode, recorded while it was played."""
    env = RecordTraces(TextActions(VideoQAEnv(TASKS, RECIPE)), path, "run")
    env.reset(options={"task_id": task_id})
    for output in outputs:
        env.step(output)
    env.close()
    return read_traces(path).episodes[-1]


def test_the_trace_of_a_record_is_that_of_its_episode(chat: ChatEnv, tmp_path: Path) -> None:
    """A look, a refused one, an unreadable output and an answer; and one that never answers."""
    for number, outputs in enumerate((OUTPUTS, [ANSWER], [crop(1, 2)] * 4 + ["?"])):
        record = told(chat, outputs, seed=number)
        trace = trace_of_record(record, VideoQAEnv(TASKS, RECIPE), "run")
        assert trace == recorded(tmp_path / "t.jsonl", record.task_id, outputs)
        assert trace.reward == record.total_reward and trace.correct == record.success


def test_payments_are_the_records_own(chat: ChatEnv) -> None:
    """What was paid then, whatever would be paid now."""
    record = told(chat, OUTPUTS)
    last = replace(record.turns[-1], reward=7.5, terms={"answer": 7.5, "format": None})
    trace = trace_of_record(
        replace(record, turns=(*record.turns[:-1], last)), VideoQAEnv(TASKS, RECIPE), "run"
    )
    assert trace.turns[-1].reward == 7.5 and trace.turns[-1].terms == {"answer": 7.5, "format": None}


def test_an_episode_that_was_cut_says_why(chat: ChatEnv, tmp_path: Path) -> None:
    """By its context, by a fault when the policy looked at frames, and by one of the environment."""
    env = VideoQAEnv(TASKS, RECIPE)
    record = replace(told(chat, OUTPUTS[:1]), abort_reason="context")
    trace = trace_of_record(record, env, "run")
    assert (trace.cut, trace.ending, trace.correct, len(trace.turns)) == ("context", "", False, 1)
    nothing = replace(record, turns=(replace(record.turns[0], output=()),), abort_reason="fault: gone")
    assert trace_of_record(nothing, env, "run").turns == ()
    turn = replace(record.turns[0], error="fault", looked=False, terms={"answer": None}, reward=0.0)
    faulty = trace_of_record(replace(record, turns=(turn,), abort_reason="fault: gone"), env, "run")
    assert faulty.turns[0].turn.fault == "gone" and faulty.cut == "fault: gone"


def test_an_episode_that_plays_otherwise_is_refused(chat: ChatEnv) -> None:
    """Other code, other tasks under the same name, another recipe."""
    env, record = VideoQAEnv(TASKS, RECIPE), told(chat, OUTPUTS)
    first = replace(record.turns[0], error="budget")
    with pytest.raises(RecordError, match="error of turn 1 '', in the record 'budget'"):
        trace_of_record(replace(record, turns=(first, *record.turns[1:])), env, "run")
    blind = replace(record.turns[0], looked=False)
    with pytest.raises(RecordError, match="frames of turn 1 True, in the record False"):
        trace_of_record(replace(record, turns=(blind, *record.turns[1:])), env, "run")
    with pytest.raises(RecordError, match="ends by 'answered', in the record by 'turn_limit'"):
        trace_of_record(replace(record, ending="turn_limit"), env, "run")
    with pytest.raises(RecordError, match="is of recipe other@1, not six@"):
        trace_of_record(replace(record, recipe="other@1"), env, "run")
    with pytest.raises(RecordError, match="a recipe of your own need trace_of_record"):
        list(traces.traces_of([record], TASKS, "run"))


def test_the_command(
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Records of a named recipe become a file of traces; a mistake is a line and status 2."""
    named = make_env(load(checkpoints["qwen2_5_vl"]), recipe=get_recipe("LONGVT_TINY"))
    records = tmp_path / "grpo é" / "records"
    for number in range(2):
        write_records(records / f"{number:06}.jsonl", [told(named, OUTPUTS, seed=number)] * 3)

    def call(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["agents.tools.traces", str(records), *arguments])
        try:
            traces.main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    out = tmp_path / "t.jsonl"
    assert call("--tasks", TASKS, "--out", str(out), "--run", "é") == 0
    assert call("--tasks", TASKS, "--out", str(out)) == 0  # replaced, not added to
    found = read_traces(out).episodes
    assert len(found) == 6 and {trace.run for trace in found} == {"records"}
    assert json.loads(out.read_text().splitlines()[0])["task"]["question"].startswith("While")
    capsys.readouterr()
    other = TASKS.replace("duration_s=60", "duration_s=120")
    assert call("--tasks", other, "--out", str(tmp_path / "u.jsonl")) == 2
    assert "no task" in capsys.readouterr().err and not list(tmp_path.glob("u.*"))
