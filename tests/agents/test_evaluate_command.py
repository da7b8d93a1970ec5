"""The command that evaluates a language model: what it plays, what it says of it, and what it keeps."""

# ruff: noqa: D103

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from small_chat import ANSWER, TASKS, crop, said

from agents import evaluate
from agents.evaluate import Config, prepare, told, write
from agents.vlm.config import ChatConfig
from agents.vlm.estimates import estimates, grouped
from agents.vlm.evaluation import hits, rollout_metrics
from agents.vlm.records import Record, read_records
from videogym.comparison import compare, read_run
from videogym.datasets import load_tasks, write_tasks
from videogym.intervals import proportion
from videogym.report import write_report
from videogym.traces import read_traces
from videogym.video import decoding_time

TEST = f"{TASKS}&split=test"
Command = Callable[..., None]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command on procedural tasks, with little to say."""

    def call(checkpoint: Path, out: Path, *more: str) -> None:
        usual = ("--recipe", "LONGVT_TINY", "--tasks", TEST, "--episodes", "3", "--max-new-tokens", "6")
        places = ("--checkpoint", str(checkpoint), "--out", str(out))
        monkeypatch.setattr("sys.argv", ["agents.evaluate", *places, *usual, *more])
        evaluate.main()

    return call


def config(checkpoint: Path, episodes: int, **changes: object) -> Config:
    usual = Config.of(checkpoint=str(checkpoint), recipe="LONGVT_TINY", tasks=TEST, episodes=episodes)
    return usual.with_options(**changes)


def test_two_checkpoints_are_played_and_compared(
    checkpoints: dict[str, Path], tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records and traces are the same episodes; `report` and `diff` read the folders as they are."""
    for family, checkpoint in checkpoints.items():
        command(checkpoint, tmp_path / family)
    said = capsys.readouterr().out
    assert "3 episodes of LONGVT_TINY@" in said and "accuracy" in said and "turns refused" in said
    assert "cost of an answer" in said and "tokens in" in said
    ids = [task.task_id for task in load_tasks(TEST)[:3]]
    for family in checkpoints:
        out = tmp_path / family
        assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "played", "traces.jsonl"]
        records = list(read_records(out / "played"))
        traces = read_traces(out)
        assert [record.task_id for record in records] == ids
        assert [trace.task.task_id for trace in traces.episodes] == ids
        assert [[turn.text for turn in record.played] for record in records] == [
            [paid.turn.text for paid in trace.turns] for trace in traces.episodes
        ]
        assert {trace.run for trace in traces.episodes} == {family}
    write_report(traces, tmp_path / "report.html", thumbnails=0)
    found = compare(*(read_run(tmp_path / family) for family in checkpoints))
    assert found.common == tuple(ids) and found.same_recipe and not found.other_tasks
    assert found.mcnemar is not None and found.divergences is not None


def test_played_again_it_is_the_same(
    checkpoints: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    """The likeliest outputs hang on nothing else; files are replaced, not added to."""
    command(checkpoints["qwen2_5_vl"], tmp_path)
    first = kept(tmp_path)
    command(checkpoints["qwen2_5_vl"], tmp_path)
    assert kept(tmp_path) == first


def kept(folder: Path) -> dict[Path, list[str]]:
    """Lines of all episodes, without the seconds that they took."""
    lines = {path: path.read_text(encoding="utf-8").splitlines() for path in folder.rglob("*.jsonl")}
    return {
        path: [re.sub(r'_s": [-+.e\d]+', '_s": 0', line) for line in some] for path, some in lines.items()
    }


def test_seconds_of_a_round_are_shared_by_those_in_it(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a clock that moves 4 s in every answer: episodes of one, two and three turns, together."""
    now_s = [0.0]
    monkeypatch.setattr(decoding_time, "now_s", lambda: now_s[0])
    right = answers(3)
    outputs = [[right[0]], [crop(1, 5), right[1]], [crop(1, 5), crop(2, 6), right[2]]]
    evaluation, records = scripted(monkeypatch, checkpoints["qwen2_5_vl"], outputs, lambda: add(now_s, 4.0))
    found = [record.cost for record in records]
    assert [one and one.model_s for one in found] == pytest.approx([4 / 3, 4 / 3 + 2, 4 / 3 + 2 + 4])
    assert sum(one.seconds for one in found if one) == pytest.approx(now_s[0], rel=0.05)
    for record in records:
        contexts = [evaluation.env.chat.length(record, turn) for turn in range(len(record.played))]
        assert record.cost and record.cost.tokens_in == sum(contexts)
        assert contexts == sorted(contexts) and len(set(contexts)) == len(contexts)
        assert record.cost.tokens_out == sum(len(turn.output) for turn in record.turns)
    write(tmp_path, records, evaluation.config)
    stored = read_traces(tmp_path).episodes
    assert [trace.cost for trace in stored] == found
    assert [trace.frames_shown for trace in stored] == [record.frames_shown for record in records]
    assert [record.cost for record in read_records(tmp_path / "played")] == found
    evaluate.write_metrics(tmp_path / "metrics.json", records, evaluation)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["cost"]["rounds"] == {"mean": 2.0, "median": 2.0, "p95": pytest.approx(2.9), "count": 3}
    assert metrics["metrics"]["accuracy"]["mean"] == 1.0


def add(to: list[float], seconds: float) -> None:
    to[0] += seconds


def scripted(
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: Path,
    outputs: Sequence[Sequence[str]],
    before: Callable[[], None] = lambda: None,
) -> tuple[evaluate.Evaluation, list[Record]]:
    """An evaluation in which task i is answered by outputs i, one a turn, and cut where there is none."""
    evaluation = prepare(config(checkpoint, len(outputs)))
    script = {task.task_id: some for task, some in zip(evaluation.tasks, outputs, strict=True)}

    def answer(records: Sequence[Record]) -> list[Record]:
        before()
        left = [script[record.task_id][len(record.played) :] for record in records]
        return [
            said(evaluation.env, record, some[0]) if some else replace(record, abort_reason="fault: gone")
            for record, some in zip(records, left, strict=True)
        ]

    monkeypatch.setattr(evaluate, "greedy", lambda actor: answer)
    return evaluation, evaluation.play()


def answers(count: int) -> list[str]:
    return [f"<think>seen</think><answer>{task.answer}</answer>" for task in load_tasks(TEST)[:count]]


def test_figures_are_those_of_the_records(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Four episodes by hand: right at once, right after two looks, wrong after a refused look, and cut."""
    right = answers(3)
    wrong = next(one for one in (ANSWER, ANSWER.replace("B", "A")) if one != right[2])
    outputs = [[right[0]], [crop(1, 5), crop(2, 6), right[1]], [crop(9, 5), wrong], [crop(1, 5)]]
    evaluation, records = scripted(monkeypatch, checkpoints["qwen2_5_vl"], outputs)
    assert [bool(record.abort_reason) for record in records] == [False, False, False, True]
    found = estimates(records, evaluation.tasks)
    z = 1.959964  # Wilson's interval of two of three
    centre, half = (
        (2 / 3 + z * z / 6) / (1 + z * z / 3),
        z * math.sqrt(2 / 27 + z * z / 36) / (1 + z * z / 3),
    )
    accuracy = found["accuracy"]
    assert (accuracy.mean, accuracy.count) == (pytest.approx(2 / 3), 3)
    assert (accuracy.low, accuracy.high) == pytest.approx((centre - half, centre + half))
    assert (found["turns"].mean, found["turns"].count) == (2.0, 3)
    # Standard deviation of 1, 2, 3 turns is 1.
    assert found["turns"].high == pytest.approx(2 + z / math.sqrt(3))
    assert found["looks"].mean == pytest.approx(2 / 3)
    assert (found["invalid_rate"].mean, found["invalid_rate"].count) == (pytest.approx(1 / 6), 6)
    assert (found["cut_rate"].mean, found["cut_rate"].count) == (0.25, 4)
    paid = [sum(turn.reward for turn in record.turns) for record in records[:3]]
    assert found["reward"].mean == pytest.approx(sum(paid) / 3)
    # And all are the metrics of training.
    expected = rollout_metrics(records) | hits(records[:3], evaluation.tasks[:3])
    assert {name: estimate.mean for name, estimate in found.items()} == pytest.approx(expected)

    lines = told(found, evaluation, len(records)).splitlines()
    assert f"  accuracy        {accuracy}" in lines and f"    answer        {found['answer']}" in lines
    assert any(line.startswith("1 episodes were cut and count in no other figure") for line in lines)
    # What is compared later are the same episodes.
    write(tmp_path, records, evaluation.config)
    side = read_run(tmp_path)
    assert side.accuracy == accuracy and side.unscored == 1


def test_figures_are_grouped_by_what_is_told_of_tasks(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Right, right and wrong, the first two of one topic; one more task that could not be played."""
    right = answers(3)
    wrong = next(one for one in (ANSWER, ANSWER.replace("B", "A")) if one != right[2])
    evaluation, records = scripted(
        monkeypatch, checkpoints["qwen2_5_vl"], [[right[0]], [right[1]], [wrong]]
    )
    topics = ("a", "a", ["b", "c"])
    tasks = [replace(t, metadata={"topic": of}) for t, of in zip(evaluation.tasks, topics, strict=True)]
    told_of = replace(evaluation, tasks=tuple(tasks), unplayable=(replace(tasks[0], task_id="lost"),))
    groups = grouped(records, told_of.tasks, told_of.unplayable, "topic").groups
    assert [(one.value, one.episodes, one.left_out) for one in groups] == [
        ("a", 2, 1),
        ("b", 1, 0),
        ("c", 1, 0),
    ]
    assert [one.accuracy and one.accuracy.mean for one in groups] == [1, 0, 0]
    skims = [float(record.frames_shown) for record in records]  # nobody looked
    assert [one.frames and one.frames.mean for one in groups] == [sum(skims[:2]) / 2, skims[2], skims[2]]
    # Two questions about one video are worth one.
    shared = replace(told_of, tasks=tuple(replace(task, video=tasks[0].video) for task in tasks))
    assert grouped(records, shared.tasks, shared.unplayable, "topic").groups[0].accuracy == replace(
        proportion(1, 1), count=2
    )
    write_tasks(tmp_path / "t.jsonl", tasks)
    with pytest.raises(ValueError, match="no task has metadata 'topics'; there is: topic"):
        prepare(config(checkpoints["qwen2_5_vl"], 3, tasks=str(tmp_path / "t.jsonl"), by="topic, topics"))


def test_all_cut_is_said_and_kept(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    evaluation, records = scripted(monkeypatch, checkpoints["qwen2_5_vl"], [[], [crop(1, 5)]])
    found = estimates(records, evaluation.tasks)
    assert list(found) == ["cut_rate"] and found["cut_rate"].mean == 1.0
    assert "2 episodes were cut" in told(found, evaluation, 2)
    write(tmp_path, records, evaluation.config)
    assert len(read_traces(tmp_path).episodes) == 2


def test_bfloat16_is_for_evaluation(checkpoints: dict[str, Path], tmp_path: Path, command: Command) -> None:
    """Where no step is made none is lost; training all weights in it is refused as before."""
    command(checkpoints["qwen2_5_vl"], tmp_path, "--dtype", "bfloat16")
    assert len(read_traces(tmp_path).episodes) == 3
    with pytest.raises(ValueError, match="in bfloat16 steps of this size are lost"):
        ChatConfig.of(dtype="bfloat16")


def test_a_video_that_cannot_be_used_costs_its_tasks(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """It is named, and the others are played."""
    good, bad = load_tasks(TEST)[:2]
    write_tasks(tmp_path / "t.jsonl", [replace(bad, video="gone.mp4"), good])
    evaluation = prepare(config(checkpoints["qwen2_5_vl"], 0, tasks=str(tmp_path / "t.jsonl")))
    assert evaluation.tasks == (good,) and list(evaluation.left_out) == [bad.task_id]
    records = [replace(evaluation.env.open("g"), abort_reason="context")]
    lines = told(estimates(records, [good]), evaluation, 1)
    assert "1 tasks left out: they cannot be played" in lines and "gone.mp4" in lines
    write_tasks(tmp_path / "t.jsonl", [replace(bad, video="gone.mp4")])
    with pytest.raises(ValueError, match=r"none of 1 tasks can be played, such as .*gone\.mp4"):
        prepare(config(checkpoints["qwen2_5_vl"], 0, tasks=str(tmp_path / "t.jsonl")))


def test_a_context_that_is_full_cuts_the_episode(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Nothing is read out of an output that had no room to end, and its trace ends before it."""
    roomy = prepare(config(checkpoints["qwen2_5_vl"], 1))
    question = roomy.env.chat.length(roomy.env.open_task(roomy.tasks[0].task_id))
    tight = config(checkpoints["qwen2_5_vl"], 1, max_context=question + 3)
    evaluation = prepare(tight)
    records = evaluation.play()
    assert [(record.abort_reason, len(record.played)) for record in records] == [("context", 1)]
    found = estimates(records, evaluation.tasks)
    assert {name: (one.mean, one.count) for name, one in found.items()} == {
        "cut_rate": (1.0, 1),
        "accuracy": (0.0, 1),
    }
    write(tmp_path, records, tight)
    (trace,) = read_traces(tmp_path).episodes
    assert (trace.cut, trace.ending, trace.turns) == ("context", "", ())


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--trained-on", TEST, "3 of 3 tasks ask about videos that were trained on"),
        ("--recipe", "LONGVT/papr", "unknown recipe 'LONGVT/papr'; known: "),
        ("--recipe", "", "name the recipe: an evaluation has none by default"),
        ("--tasks", "nowhere.jsonl", "nowhere.jsonl"),
        ("--trained-on", "nowhere.jsonl", "nowhere.jsonl"),
        ("--checkpoint", "", "name the checkpoint"),
        ("--checkpoint", "no/such/model", "no/such/model is no model that can be loaded"),
        ("--device", "abacus", "device 'abacus' cannot be used"),
        ("--episodes", "-1", "episodes must be at least 0, got -1"),
        ("--max-context", "50", "leaves no room in max_context=50"),
        ("--temperature", "0.5", "unrecognized arguments: --temperature"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(
    option: str,
    value: str,
    said: str,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With status 2, before anything is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        command(checkpoints["qwen2_5_vl"], tmp_path / "out", option, value)
    assert ended.value.code == 2 and said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_other_splits_were_not_trained_on(
    checkpoints: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    command(checkpoints["qwen2_5_vl"], tmp_path, "--trained-on", f"{TASKS}&split=train")
    assert (tmp_path / "traces.jsonl").exists()


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_played(
    checkpoints: dict[str, Path],
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(evaluate, "play_tasks", None)
    with pytest.raises(SystemExit) as ended:
        command(checkpoints["qwen2_5_vl"], tmp_path / "file" / "out")
    assert ended.value.code == 2 and "Not a directory" in capsys.readouterr().err
