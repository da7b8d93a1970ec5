"""What is told of a task beside its question: JSON that never changes, and that no policy sees."""

# ruff: noqa: D103

import copy
import datetime
import json
import pickle
from dataclasses import replace

import pytest

from videogym import Answer, Task, TextActions, VideoQAEnv
from videogym.metadata import Metadata, MetadataError
from videogym.results import describe_run
from videogym.traces import RecordTraces, from_line, read_traces, to_line

TOLD = {
    "domain": "sports",
    "n": 3,
    "x": 0.5,
    "hard": True,
    "none": None,
    "tags": ["a", ["b"]],
    "o": {"p": [1]},
}
VIDEO = "synthetic:brief_event?level=0&duration_s=60&seed=1&size=64x36"
TASK = Task("t", VIDEO, "Which?", "choice", ("w", "x"), "B", metadata=TOLD)


def test_it_is_what_was_told_and_never_changes():
    told = copy.deepcopy(TOLD)
    task = replace(TASK, metadata=told)
    told["tags"].append("c")
    told["domain"] = "cooking"
    assert task == TASK and hash(task) == hash(TASK)
    assert task.metadata["tags"] == ("a", ("b",)) and task.metadata["o"]["p"] == (1,)
    with pytest.raises(TypeError):
        task.metadata["domain"] = "cooking"
    assert task != replace(TASK, metadata={}) and Task("t", "v", "q", "open").metadata == {}
    assert json.loads(json.dumps(Metadata(task.metadata).to_json())) == TOLD


def test_it_is_the_same_in_any_order_and_in_other_processes():
    turned = replace(TASK, metadata=dict(reversed(TOLD.items())))
    assert turned == TASK and hash(turned) == hash(TASK)
    assert pickle.loads(pickle.dumps(TASK)) == copy.deepcopy(TASK) == TASK


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"a": float("nan")}, "metadata 'a' must be JSON: .*; got float nan"),
        ({"a": [1, float("inf")]}, r"metadata 'a\[1\]' must be JSON"),
        ({"a": {"b": {1, 2}}}, r"metadata 'a\.b' must be JSON: .*; got set"),
        ({"a": b"x"}, "metadata 'a' must be JSON: .*; got bytes b'x'"),
        ({"a": datetime.date(2026, 1, 1)}, "metadata 'a' must be JSON"),
        ({"a": "\ud800"}, "metadata 'a' must be JSON"),
        ({"a": 10**400}, "metadata 'a' must be JSON"),
        ({1: "a"}, "a name must be text, got 1"),
        ({"a": {2: 1}}, "metadata 'a': a name must be text, got 2"),
        ({"\ud800": 1}, "a name must be text"),
        (["a"], r"metadata must be an object, got list \['a'\]"),
        (None, "metadata must be an object, got NoneType None"),
        ("sports", "metadata must be an object, got str 'sports'"),
    ],
)
def test_what_is_no_json_is_refused_by_name(told, says):
    with pytest.raises(MetadataError, match=f"task 't': .*{says}"):
        replace(TASK, metadata=told)


def test_a_list_in_itself_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(MetadataError, match="nested deeper than 16"):
        Metadata({"a": endless})


@pytest.mark.parametrize("wrap", [lambda env: env, TextActions], ids=["actions", "text"])
def test_no_policy_sees_it(wrap):
    secret = "unguessable-1f7a"
    env = wrap(VideoQAEnv([replace(TASK, metadata={secret: [secret]})]))
    seen = [env.reset(seed=0)]
    seen.append(env.step("nonsense" if wrap is TextActions else Answer("A")))
    assert secret not in repr(seen) and secret not in repr(env.unwrapped.state.task)
    assert secret not in json.dumps(describe_run(env))


def test_traces_carry_it(tmp_path):
    env = RecordTraces(VideoQAEnv([TASK]), tmp_path / "t.jsonl")
    env.reset(seed=0)
    env.step(Answer("B"))
    env.close()
    (trace,) = read_traces(tmp_path / "t.jsonl").episodes
    assert trace.task == TASK
    # Traces of before there was metadata are read as well.
    row = json.loads(to_line(trace))
    assert row["task"].pop("metadata") == TOLD
    assert from_line(json.dumps(row).encode()).task == replace(TASK, metadata={})
