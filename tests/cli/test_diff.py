"""`videogym diff` in words and in JSON, its mistakes, and texts that a terminal would obey."""

# ruff: noqa: D103

import json
from dataclasses import replace
from pathlib import Path

import pytest

from videogym.cli import main
from videogym.datasets import load_tasks, write_tasks
from videogym.traces import read_traces, to_line

TASKS = "procedural:brief_event?duration_s=60&count=6&split=test"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch, capsys):
    """Traces and results of the random policy and of the oracle, which plays four of six tasks only."""
    monkeypatch.chdir(tmp_path)
    for name, *more in (("random",), ("oracle", "--episodes", "4")):
        assert main(["eval", name, "--tasks", TASKS, "--traces", f"{name}.jsonl", "--json", *more]) == 0
        Path(f"{name}.json").write_text(capsys.readouterr().out)


def told(capsys, *arguments):
    assert main(["diff", *arguments]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def test_results_tell_settings_and_metrics(capsys):
    said = told(capsys, "random.json", "oracle.json")
    assert '  policy  "random" | "oracle"\n' in said and "  episodes  null | 4\n" in said
    assert "  4 played by both\n  2 by A alone: brief_event-L0-60s-test-s0-000004, " in said
    assert "not known: a result holds no steps" in said
    assert "They differ in settings (episodes, policy); tasks are left out, 2 that A alone played." in said


def test_traces_tell_where_episodes_part(capsys):
    said = told(capsys, "random.jsonl", "oracle.jsonl")
    assert "same observation, other action: brief_event" in said and "(turn 1)" in said
    assert "traces record neither policy nor seed, backend or versions" in said


def test_a_result_and_traces_of_the_same_run_agree(capsys):
    said = told(capsys, "random.json", "random.jsonl")
    assert "right in A alone 0, in B alone 0: exact McNemar p = 1" in said
    assert (
        "  only A records: tasks, episodes, policy, seed, wrappers, observe, backend, trained_on, versions"
        in said
    )
    rows = [line for line in said.splitlines() if line.startswith(("  reward", "  turns", "    answer"))]
    assert len(rows) == 3 and all("+0.000 [+0.000, +0.000]" in row for row in rows)


def test_the_metrics_by_hand(capsys):
    """The oracle is right on all four common tasks, the random policy on as many as its traces say."""
    right = {t.task.task_id: t.correct for t in read_traces("random.jsonl").episodes}
    common = [task.task_id for task in load_tasks(TASKS)[:4]]
    wrong = sum(not right[task_id] for task_id in common)
    found = json.loads(told(capsys, "random.json", "oracle.jsonl", "--json"))
    assert found["tasks"]["common"] == common and len(found["tasks"]["only_a"]) == 2
    assert found["metrics"]["accuracy"]["difference"]["mean"] == pytest.approx(wrong / 4)
    assert found["mcnemar"] == {"only_a": 0, "only_b": wrong, "p": pytest.approx(min(1.0, 2 / 2**wrong))}
    assert found["a"]["episodes"] == 6 and found["divergences"] is None


def test_metrics_by_group(capsys):
    """Tasks of two topics; by traces and by results, in words and in JSON."""
    tasks = [replace(task, metadata={"topic": "abb"[i % 3]}) for i, task in enumerate(load_tasks(TASKS))]
    write_tasks("t.jsonl", tasks)
    right = {}
    for name in ("oracle", "random"):
        assert main(["eval", name, "--tasks", "t.jsonl", "--traces", f"{name}_t.jsonl", "--json"]) == 0
        Path(f"{name}_t.json").write_text(capsys.readouterr().out)
        right[name] = {one.task.task_id: one.correct for one in read_traces(f"{name}_t.jsonl").episodes}
    of_a = [task.task_id for task in tasks if task.metadata["topic"] == "a"]
    share = sum(right["random"][task_id] for task_id in of_a) / 2
    for suffix in ("json", "jsonl"):
        files = [f"random_t.{suffix}", f"oracle_t.{suffix}"]
        found = json.loads(told(capsys, *files, "--by", "topic", "--json"))["groups"]["topic"]
        assert [(one["value"], one["tasks"]) for one in found] == [("b", 4), ("a", 2)]
        assert found[1]["metrics"]["accuracy"]["a"]["mean"] == share
        assert found[1]["metrics"]["accuracy"]["difference"]["mean"] == 1 - share
        said = told(capsys, *files, "--by", "topic").splitlines()
        at = said.index("Accuracy by topic")
        assert said[at + 1].split() == ["tasks", "A", "B", "B", "-", "A"]
        assert [line.split()[:2] for line in said[at + 2 : at + 4]] == [["b", "4"], ["a", "2"]]
    assert main(["diff", *files, "--by", "topics"]) == 2
    assert "no task has metadata 'topics'; there is: topic" in capsys.readouterr().err


def test_another_recipe_is_told_field_by_field(capsys):
    arguments = ["eval", "oracle", "--tasks", TASKS, "--recipe", "VIDEO_MTR/code", "--traces", "mtr.jsonl"]
    assert main(arguments) == 0
    capsys.readouterr()
    said = told(capsys, "random.jsonl", "mtr.jsonl")
    assert "  recipe.rules.max_turns  6 | 3\n" in said and "  recipe.rules.pool_frames  0 | 64\n" in said
    assert '  recipe.terms  ["coverage", "answer"] | ["format", "frame_gain", "answer"]\n' in said
    assert "rewards of different recipes are" in said and "recipe_identity" not in said
    assert "same video, other frames shown first: brief_event" in said


def test_a_torn_last_line_is_told_and_left_out(capsys):
    whole = Path("random.jsonl").read_bytes()
    Path("random.jsonl").write_bytes(whole[:-100])
    said = told(capsys, "random.jsonl", "random.json")
    assert "5 tasks of DEFAULT@" in said and "without 1 last lines that are cut off" in said


def test_texts_of_others_keep_a_terminal_as_it_is(capsys):
    hostile = "<b>\x1b[31m\r\n\u202etask\ud800"
    lines = []
    for trace in read_traces("random.jsonl").episodes:
        asked = replace(trace.task, task_id=hostile + trace.task.task_id, question=hostile)
        lines.append(to_line(replace(trace, task=asked, recipe=f"{hostile}@1")))
    for name in ("a\x1b[1m.jsonl", "b.jsonl"):
        Path(name).write_bytes(b"".join(lines))
    said = told(capsys, "a\x1b[1m.jsonl", "b.jsonl")
    said.encode()
    assert all(char.isprintable() or char == "\n" for char in said)
    assert "<b>\\x1b[31m\\r\\n\\u202etask\\ud800brief_event" in said
    json.loads(told(capsys, "b.jsonl", "b.jsonl", "--json"))


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (("gone.jsonl", "random.json"), "gone.jsonl: cannot be read: No such file or directory"),
        (("random.json", "tasks.jsonl"), "tasks.jsonl: neither a file of traces nor a result of"),
        (("random.json", "cut.json"), "cut.json: cut off, or not JSON"),
        (("random.json", "empty"), "empty: the folder holds no *.jsonl file"),
        (
            ("random.jsonl", "other.jsonl"),
            "no task was played by both: random.jsonl has 6 such as 'brief_ev",
        ),
        (("torn.jsonl", "random.json"), "torn.jsonl: no episode in it that can be scored: 1 cut off"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(capsys, paths, said):
    write_tasks("tasks.jsonl", load_tasks(TASKS)[:1])
    Path("cut.json").write_bytes(Path("random.json").read_bytes()[:-9])
    Path("empty").mkdir()
    lines = Path("random.jsonl").read_bytes().splitlines(keepends=True)
    Path("torn.jsonl").write_bytes(lines[0][:-9])
    Path("other.jsonl").write_bytes(lines[0].replace(b"-test-s0-", b"-val-s0-"))
    assert main(["diff", *paths]) == 2
    found = capsys.readouterr()
    assert found.out == "" and found.err.startswith("videogym diff: error: ") and found.err.count("\n") == 1
    assert said in found.err
