"""The metrics of `videogym eval` are those of `evaluate`, and its mistakes are sentences."""

# ruff: noqa: D103

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from films import film

from videogym import Task, VideoQAEnv, evaluate
from videogym.cli import main
from videogym.cli.evaluation import POLICIES, load_policy
from videogym.datasets import load_tasks, write_tasks
from videogym.testing.policies import Oracle, Random
from videogym.traces import read_traces

TASKS = "procedural:brief_event?duration_s=60&count=6&split=test"
MINE = """
from videogym import Answer, VideoError

def b(observation, info):
    return Answer("B")

def with_env(observation, info, env):
    return Answer(env.state.task.answer)

class Speaker:
    def __call__(self, observation, info):
        return '<think>so</think>\\n<tool_call>{"name": "answer", "arguments": {"text": "A"}}</tool_call>'

def wrong(observation, info):
    raise ValueError("a bug of mine")

def unreadable(observation, info):
    raise VideoError("frames.mp4: gone")

number = 7
"""


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """A folder with a module of policies, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("mine.py").write_text(MINE)
    yield
    sys.modules.pop("mine", None)


def test_the_metrics_are_those_of_evaluate(capsys):
    assert main(["eval", "random", "--tasks", TASKS, "--seed", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    report = evaluate(Random(3), VideoQAEnv(TASKS), seed=3)
    assert told["episodes"] == 6 and told["recipe"] == report.recipe
    for name in ("accuracy", "reward", "turns", "frames"):
        assert told[name]["mean"] == getattr(report, name).mean, name
    assert set(told["terms"]) == set(report.terms)


def test_the_metrics_in_words(capsys):
    assert main(["eval", "oracle", "--tasks", TASKS, "--episodes", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0].startswith("2 episodes of DEFAULT@")
        and lines[1] == "  accuracy        1.000 [0.342, 1.000]"
    )


@pytest.mark.parametrize("name", POLICIES)
def test_every_named_policy_plays(name, capsys):
    assert main(["eval", name, "--tasks", TASKS, "--episodes", "1"]) == 0


@pytest.mark.parametrize(
    ("policy", "accuracy"), [("mine:b", None), ("mine:with_env", 1.0), ("mine:Speaker", None)]
)
def test_policies_of_ones_own(policy, accuracy, capsys):
    text = ["--text"] if policy == "mine:Speaker" else []
    assert main(["eval", policy, "--tasks", TASKS, "--traces", "t.jsonl", "--json", *text]) == 0
    told = json.loads(capsys.readouterr().out)
    letter = {"mine:b": "B", "mine:Speaker": "A"}.get(policy)
    share = sum(task.answer == letter for task in load_tasks(TASKS)) / 6 if letter else accuracy
    assert told["accuracy"]["mean"] == pytest.approx(share)
    traces = read_traces("t.jsonl").episodes
    assert len(traces) == 6 and all((t.turns[0].turn.text is None) != bool(text) for t in traces)


def test_a_bad_video_is_listed_and_left_out(capsys):
    film(Path("a.mp4"))
    Path("b.mp4").write_text("no video")
    kinds = dict(kind="choice", options=("x", "y"), answer="A")
    write_tasks("t.jsonl", [Task(name, f"{name}.mp4", "?", **kinds) for name in ("a", "b")])
    assert main(["eval", "oracle", "--tasks", "t.jsonl", "--video-root", "."]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 episodes of") and "1 tasks left out" in said and "b.mp4: not a video" in said
    assert "temporal IoU    not annotated" in said


def test_metrics_by_group(capsys):
    tasks = [
        replace(task, metadata={"topic": "ab"[i % 2], "n": i}) for i, task in enumerate(load_tasks(TASKS))
    ]
    write_tasks("t.jsonl", tasks)
    assert main(["eval", "oracle", "--tasks", "t.jsonl", "--by", "topic", "--by", "n"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("topic "))
    assert [line.split()[:4] for line in lines[at + 1 : at + 3]] == [
        ["a", "3", "3", "1.000"],
        ["b", "3", "3", "1.000"],
    ]
    assert main(["eval", "oracle", "--tasks", "t.jsonl", "--by", "topic", "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]["topic"]["groups"]
    assert [(one["value"], one["episodes"], one["accuracy"]["mean"]) for one in groups] == [
        ("a", 3, 1.0),
        ("b", 3, 1.0),
    ]
    assert main(["eval", "oracle", "--tasks", "t.jsonl", "--by", "topics"]) == 2
    assert "no task has metadata 'topics'; there is: n, topic" in capsys.readouterr().err


def test_evaluating_on_what_was_trained_on_is_refused(tmp_path, capsys):
    assert main(["eval", "oracle", "--tasks", TASKS, "--trained-on", TASKS]) == 2
    assert "6 of 6 tasks ask about videos that were trained on" in capsys.readouterr().err
    traces = tmp_path / "t.jsonl"
    assert main(["eval", "oracle", "--tasks", TASKS, "--trained-on", TASKS, "--traces", str(traces)]) == 2
    assert not traces.exists()  # nothing was played
    other = TASKS.replace("test", "train")
    assert main(["eval", "oracle", "--tasks", TASKS, "--episodes", "1", "--trained-on", other]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "a policy is one of blind, oracle, random, skim_only, or MODULE:NAME; got 'nothing'"),
        (["nowhere:act"], "No module named 'nowhere'"),
        (["mine:nothing"], "mine has no 'nothing'"),
        (["mine:number"], "mine:number is no policy: it cannot be called"),
        ([":act"], "MODULE:NAME; got ':act'"),
        ([".mine:act"], "MODULE:NAME; got '.mine:act'"),
        (["oracle", "--episodes", "0"], "--episodes must be at least 1, got 0"),
        (["oracle", "--seed", "-1"], "--seed must be at least 0, got -1"),
        (["oracle", "--recipe", "MINE"], "unknown recipe 'MINE'"),
        (["oracle", "--tasks", "nowhere.jsonl"], "nowhere.jsonl"),
        (["oracle", "--traces", "no/t.jsonl"], "Its folder does not exist"),
        (["mine:unreadable"], "no episode could be scored"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(capsys, arguments, said):
    tasks = [] if "--tasks" in arguments else ["--tasks", TASKS]
    assert main(["eval", *arguments, *tasks]) == 2
    error = capsys.readouterr().err
    assert error.startswith("videogym eval: error: ") and said in error and error.count("\n") == 1


def test_an_error_of_ones_own_policy_is_not_taken_for_a_mistake_of_the_command():
    with pytest.raises(RuntimeError, match="the policy raised ValueError") as raised:
        main(["eval", "mine:wrong", "--tasks", TASKS])
    assert str(raised.value.__cause__) == "a bug of mine"


def test_a_policy_keeps_its_signature():
    assert isinstance(load_policy("oracle", 0), Oracle)
    done = subprocess.run(
        [sys.executable, "-m", "videogym", "eval", "mine:with_env", "--tasks", TASKS, "--episodes", "2"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and "accuracy        1.000" in done.stdout and done.stderr == ""
