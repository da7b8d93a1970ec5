"""Runs that are killed, that several processes share, whose videos are not all there, whose server dies."""

# ruff: noqa: D103

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from running import Run, run, run_apart
from scripted_engine import Dying
from small_benchmarks import Benchmarks, store_rows, video_mme

from agents.train_grpo_mllm import Config
from agents.vlm.tiny import tiny_checkpoint
from videogym.traces import read_traces

pytestmark = [pytest.mark.lmms_eval, pytest.mark.filterwarnings("ignore")]

MODEL = {"policy": "scripted:always_a", "recipe": "DEFAULT"}
TASKS = ("videomme", "lvbench")
COUNT = 12 + 8


def names(run: Run) -> list[str]:
    return sorted(trace.task.task_id for trace in read_traces(run.folder / "traces"))


@pytest.fixture(scope="module")
def whole(benchmarks: Benchmarks, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing stops."""
    return run(tmp_path_factory.mktemp("whole"), TASKS, MODEL)


@pytest.mark.parametrize("cached", [True, False], ids=["response cache", "traces alone"])
def test_a_killed_run_ends_with_the_same_table(
    cached: bool, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With lmms-eval's response cache, whose run keeps its name, and by the traces without it."""
    environment = {"DIES_AFTER": "7", "DIED": str(tmp_path / "died"), "LMMS_CACHE_RUN_ID": "one"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    model = MODEL | {"policy": "scripted:dies_in_the_middle"}
    more = ("--use_cache", str(tmp_path / "cache")) if cached else ()
    killed = run_apart(tmp_path, TASKS, model, *more)
    assert killed.status == -9 and not killed.table
    assert len(names(killed)) == 7
    done = run(tmp_path, TASKS, model, *more)
    assert done.status == 0 and done.table == whole.table
    assert names(done) == names(whole) and len(set(names(done))) == COUNT
    if cached:
        assert f"ResponseCache: 7/{COUNT} cache hits" in done.said


def test_two_processes_make_the_same_table(whole: Run, tmp_path: Path) -> None:
    done = run_apart(tmp_path, ("videomme", "lvbench"), MODEL, processes=2)
    assert done.status == 0 and done.table == whole.table
    assert names(done) == names(whole)
    files = {path.name: len(list(read_traces(path))) for path in (tmp_path / "traces").glob("*.jsonl")}
    assert files == {"process_0.jsonl": 10, "process_1.jsonl": 10}


@pytest.fixture
def gaps(benchmarks: Benchmarks) -> list[Path]:
    """A video of each of two benchmarks is away for the time of a test."""
    away = [benchmarks.home / "videomme/data/mme3.mp4", benchmarks.home / "lvbench/key1.mp4"]
    for path in away:
        path.rename(path.with_suffix(".away"))
    yield away
    for path in away:
        path.with_suffix(".away").rename(path)


def test_missing_videos_are_counted_apart(gaps: list[Path], whole: Run, tmp_path: Path) -> None:
    """They are neither right nor wrong: the oracle scores a hundred, on fewer documents."""
    done = run(tmp_path, (*TASKS, "longvideobench_val_v"), MODEL | {"policy": "oracle"})
    assert set(done.table.values()) == {100.0, 1.0}
    assert len(done.samples) == len(names(done)) == 10 + 4 + 8
    assert "6 of 28 questions could not be played and are NOT in the table" in done.said
    assert "mme3.mp4" in done.said
    left_out = (tmp_path / "traces" / "left_out_0.json").read_text()
    assert left_out.count('"videomme/') == 2 and left_out.count('"lvbench/') == 4  # as keys
    # They are asked again when they are there, and only they.
    for path in gaps:
        shutil.copy(path.with_suffix(".away"), path)
    later = run(tmp_path, (*TASKS, "longvideobench_val_v"), MODEL | {"policy": "oracle"})
    assert len(names(later)) == 28 and not (tmp_path / "traces" / "left_out_0.json").exists()


def test_a_missing_video_stays_out_when_a_cached_run_is_resumed(
    gaps: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMMS_CACHE_RUN_ID", "one")
    cache = ("--use_cache", str(tmp_path / "cache"))
    tables = []
    for _ in range(2):
        done = run(tmp_path, TASKS, MODEL | {"policy": "oracle"}, *cache)
        assert "6 of" in done.said and "NOT in the table" in done.said
        tables.append(done.table)
    assert tables[0] == tables[1] and set(tables[0].values()) == {100.0, 1.0}


def test_a_bad_video_is_counted_apart(benchmarks: Benchmarks, gaps: list[Path], tmp_path: Path) -> None:
    for path in gaps:
        path.write_bytes(b"no video")
    done = run(tmp_path, TASKS, MODEL | {"policy": "oracle"})
    assert set(done.table.values()) == {100.0, 1.0} and len(names(done)) == COUNT - 6
    assert "6 of 20 questions could not be played" in done.said


def test_a_server_that_dies_ends_the_run_with_a_line(
    benchmarks: Benchmarks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same command continues it when the server is back."""
    monkeypatch.setattr("agents.vlm.policy.TransformersEngine", Dying)
    config = Config.of(tasks="procedural:brief_event?level=0&duration_s=60&event_s=3&count=50")
    model = {"checkpoint": tiny_checkpoint(tmp_path / "tiny", config), "recipe": "LONGVT_TINY"}
    model |= {"max_new_tokens": 64, "max_concurrent_rollouts": 3}
    stopped = run(tmp_path, TASKS, model)
    assert stopped.status == 1 and not stopped.table and len(names(stopped)) == 6
    assert stopped.said.splitlines()[-2:] == [
        "videogym: http://127.0.0.1:8000 does not answer: connection refused",
        f"videogym: 6 episodes are in {tmp_path / 'traces'}; the same command continues from there",
    ]
    done = run(tmp_path, TASKS, model)
    assert done.status == 0 and len(names(done)) == len(set(names(done))) == COUNT
    assert done.table.keys() == {("videomme", "videomme_perception_score"), ("lvbench", "lvbench_score")}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (MODEL | {"recipe": "LONGVT/papers"}, "videogym: unknown recipe 'LONGVT/papers'; known: "),
        (MODEL | {"max_frames": 8}, "videogym: unknown argument 'max_frames'; known: "),
        (MODEL | {"policy": "nothing:there"}, "videogym: No module named 'nothing'"),
        (
            {"recipe": "DEFAULT", "checkpoint": "nowhere"},
            "videogym: nowhere is no model that can be loaded",
        ),
        (
            {"recipe": "DEFAULT", "checkpoint": "nowhere", "policy": "blind"},
            "videogym: name what plays: either a checkpoint or a policy",
        ),
    ],
)
def test_arguments_that_cannot_be_meant_end_the_run(
    model: dict[str, str], message: str, benchmarks: Benchmarks, tmp_path: Path
) -> None:
    done = run(tmp_path, TASKS, model)
    assert done.status == 1 and message in done.said.splitlines()[-1] and not done.table


def test_an_unknown_task_is_named(benchmarks: Benchmarks, tmp_path: Path) -> None:
    assert "Tasks not found: videomm." in run(tmp_path, ("videomm",), MODEL).said


def test_rows_of_another_version_are_told_by_their_fields(
    benchmarks: Benchmarks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task misses the field that names the video: one line and status 1."""
    ((name, config, split, rows, _),) = video_mme()
    renamed = [{("video" if field == "videoID" else field): row[field] for field in row} for row in rows]
    store_rows(tmp_path / "hub" / name, config, split, renamed)
    monkeypatch.chdir(tmp_path / "hub")
    done = run(tmp_path, ("videomme",), MODEL)
    last = done.said.splitlines()[-1]
    assert last.startswith("videogym: videomme/0: the task cannot read its row (KeyError: 'videoID'), ")
    assert ", url, video, question_id, " in last
    assert done.status == 1 and not done.table


def test_another_run_has_another_folder(whole: Run) -> None:
    done = run(whole.folder, TASKS, MODEL | {"policy": "oracle"})
    assert done.status == 1
    assert "another run, policy 'scripted:always_a' and not 'oracle'" in done.said.splitlines()[-1]
