"""A training run as a report: its curves, and its episodes played again from what the records say."""

# ruff: noqa: D103

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import pytest
from test_report import Page

from videogym import Crop, TextActions, VideoQAEnv
from videogym.cli import main
from videogym.grammars import get_grammar
from videogym.report import Sources
from videogym.report.curves import curve, read_curves
from videogym.traces import RecordTraces, Trace, TraceError, append_trace, read_traces, to_line

TASKS = "procedural:brief_event?duration_s=60&count=4&split=test"
RECIPE = "LONGVT/paper"


def play(path: Path, number: int) -> Trace:
    """An episode by text: a look, then the answer A, or in every second one what nobody can read."""
    env = RecordTraces(TextActions(VideoQAEnv(TASKS, RECIPE)), path, "run")
    env.reset(options={"task_id": env.unwrapped.tasks[number % 4].task_id})  # type: ignore[attr-defined]
    look = get_grammar("longvt/strict").write(Crop(10, 14), env.unwrapped.state, "I look.")  # type: ignore[attr-defined]
    for text in (look, "gibberish" if number % 2 else "<think>So.</think><answer>A</answer>"):
        env.step(text)
    env.close()
    return read_traces(path).episodes[-1]


def record(trace: Trace, number: int) -> str:
    """The line that training leaves of an episode, as format 1 of records has it."""
    turns = [
        {
            **{"observation": [1, 2], "visuals": [], "output": [3, 4], "log_probs": [-0.1, -0.2]},
            **{"versions": [0, 0], "text": paid.turn.text, "learn": True, "reward": paid.reward},
            **{"terms": dict(paid.terms), "looked": bool(paid.turn.clips)},
            "error": paid.turn.error.code if paid.turn.error else "",
        }
        for paid in trace.turns
    ]
    turns[0]["visuals"] = [{"times_s": [time_s]} for time_s in trace.skim.times_s]
    row = {
        **{"version": 1, "recipe": trace.recipe, "tokenizer": "abc", "task_id": trace.task.task_id},
        **{"group": "g", "number": number, "kind": "rollout", "head": [0], "window": None, "turns": turns},
        **{"ending": trace.ending, "cut": "" if trace.ending else "context", "success": trace.correct},
    }
    return json.dumps(row, ensure_ascii=False)


def run_folder(folder: Path, iterations: int = 2, tasks: str | None = TASKS) -> list[Trace]:
    """A folder as training leaves it, and the episodes that are in it."""
    played = []
    (folder / "records").mkdir(parents=True)
    for iteration in range(iterations):
        traces = [play(folder.parent / "played.jsonl", 2 * iteration + i) for i in range(2)]
        played += traces
        lines = [record(trace, i) for i, trace in enumerate(traces)]
        (folder / "records" / f"{iteration:06d}.jsonl").write_text("\n".join(lines) + "\n")
    scalars = folder / "log" / "scalars"
    scalars.mkdir(parents=True)
    (scalars / "reward.csv").write_text("0,0.25\n10,0.5\n20,0.75\n30,0.")  # the last one is being written
    (scalars / "eval_accuracy.csv").write_text("10,0.5\n")
    if tasks is not None:
        manifest = {"metadata": {"config": {"tasks": tasks}, "recipe": "x"}}
        with zipfile.ZipFile(folder / "checkpoint", "w") as archive:
            archive.writestr("manifest.json", json.dumps(manifest))
    return played


def report(*arguments: Any) -> int:
    return main(["report", *map(str, arguments), "--thumbnails", "0"])


def test_a_training_folder_is_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    played = run_folder(tmp_path / "grpo")
    assert report(tmp_path / "grpo", "--out", tmp_path / "r.html") == 0
    assert capsys.readouterr().err == ""
    page = Page(tmp_path / "r.html")
    articles = page.of("article")
    assert [a["data-run"] for a in articles] == ["grpo 000000"] * 2 + ["grpo 000001"] * 2
    assert [a["data-task"] for a in articles] == [trace.task.task_id for trace in played]
    assert [float(a["data-reward"]) for a in articles] == pytest.approx([trace.reward for trace in played])
    text = "".join(page.texts)
    assert "eval_accuracy" in text and "0.75 from 0.25; 0.25 to 0.75" in text and "gibberish" in text
    assert text.index("eval_accuracy") < text.index("0.75 from")


def test_episodes_of_records_are_those_that_were_played(tmp_path: Path) -> None:
    """Line by line what was recorded, but for the name of the run, why one was cut, and the seconds."""
    played = run_folder(tmp_path / "grpo", iterations=1)
    found = list(Sources([tmp_path / "grpo"]))
    for one, other in zip(found, played, strict=True):
        rows = [json.loads(to_line(trace)) for trace in (one, other)]
        for row in rows:
            row.pop("run")
            row.pop("cut")
            row.pop("cost", None)
        assert rows[0] == rows[1]
    # The folder of the records and a file of them are the same episodes.
    for path in ("records", "records/000000.jsonl"):
        assert [t.task for t in Sources([tmp_path / "grpo" / path])] == [t.task for t in played]


def test_a_run_without_episodes_shows_its_curves(tmp_path: Path) -> None:
    scalars = tmp_path / "run" / "log" / "scalars"
    scalars.mkdir(parents=True)
    (scalars / "loss.csv").write_text("0,nan\n1,2.0\n")
    assert report(tmp_path / "run", "--out", tmp_path / "r.html") == 0
    page = Page(tmp_path / "r.html")
    assert not page.of("article") and "loss" in page.texts


def test_tasks_that_nobody_names_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With curves in a note, without them in an error; named, they are found."""
    run_folder(tmp_path / "grpo", tasks=None)
    out = tmp_path / "r.html"
    assert report(tmp_path / "grpo", "--out", out) == 0
    assert "name them: --tasks SOURCE" in capsys.readouterr().err
    assert "name them: --tasks SOURCE" in "".join(Page(out).texts)
    assert report(tmp_path / "grpo", "--tasks", TASKS, "--out", out) == 0
    assert len(Page(out).of("article")) == 4 and capsys.readouterr().err == ""
    assert report(tmp_path / "grpo" / "records", "--out", out) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "name them: --tasks SOURCE" in said


def test_an_episode_that_plays_otherwise_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder(tmp_path / "grpo")
    path = tmp_path / "grpo" / "records" / "000001.jsonl"
    lines = path.read_text().splitlines()
    changed = json.loads(lines[0])
    changed["turns"][0]["looked"] = False
    path.write_text("\n".join([json.dumps(changed), *lines[1:]]) + "\n")
    assert report(tmp_path / "grpo", "--out", tmp_path / "r.html") == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "000001.jsonl, line 1: episode g/0" in said
    page = Page(tmp_path / "r.html")
    assert len(page.of("article")) == 3 and "does not play as it did" in "".join(page.texts)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "records/000000.jsonl",
            '{"version": 1, "recipe": "x", "tokenizer": "y"}\n',
            "line 1 is no record",
        ),
        ("log/scalars/loss.csv", "0,1\none,2\n", "line 2 is no step,value: 'one,2'"),
        (
            "records/000000.jsonl",
            '{"version": 1, "recipe": "mine@0", "tokenizer": "y", "task_id": "x", "group": "g", '
            '"number": 0, "turns": [], "ending": "", "cut": "context", "success": null}\n',
            "there is no episode to report; left out: 000000.jsonl, line 1: ",
        ),
        ("readme.txt", "", "neither traces (*.jsonl) nor a training run"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str
) -> None:
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert report(tmp_path / "run", "--tasks", TASKS, "--out", tmp_path / "r.html") == 2
    error = capsys.readouterr().err
    assert error.startswith("videogym report: error: ") and said in error and error.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + b"\0" * 18])
def test_a_checkpoint_that_says_nothing_is_no_error(tmp_path: Path, content: bytes) -> None:
    run_folder(tmp_path / "grpo", tasks=None)
    (tmp_path / "grpo" / "checkpoint").write_bytes(content)
    assert any("--tasks" in note for note in Sources([tmp_path / "grpo"]).notes)


def test_a_trace_without_a_run_is_of_the_run_of_its_file(tmp_path: Path) -> None:
    trace = play(tmp_path / "t.jsonl", 0)
    row = json.loads(to_line(trace))
    del row["run"]
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    assert [t.run for t in read_traces(tmp_path / "mine.jsonl").episodes] == ["mine"]
    assert report(tmp_path / "mine.jsonl", "--out", tmp_path / "r.html") == 0
    # A run that is no text is a mistake all the same.
    (tmp_path / "mine.jsonl").write_text(json.dumps({**row, "run": 3}) + "\n")
    with pytest.raises(TraceError, match=r"mine\.jsonl: line 1: field 'run' must be str, got 3"):
        read_traces(tmp_path / "mine.jsonl")
    append_trace(tmp_path / "t.jsonl", trace)


def test_curves_by_hand(tmp_path: Path) -> None:
    """Steps 0, 10, 30 lie at 0, a third and all of the width; what is not finite is a gap."""
    found = curve("x", [(0, 0.0), (10, 5.0), (20, math.nan), (30, 10.0)])
    assert found.path == "M0 100L333 50M1000 0" and (found.low, found.high, found.last) == (0.0, 10.0, 10.0)
    assert curve("x", [(7, math.inf)]).path == "" and curve("x", [(7, 2.0)]).path == "M500 50h8"
    long = curve("x", [(step, float(step)) for step in range(10_001)])
    assert long.path.count("L") <= 301 and long.path.endswith("L1000 0")
    assert read_curves(tmp_path) == ()
