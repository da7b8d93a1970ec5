"""An evaluation by several processes or servers, or stopped and resumed: the report is that of one."""

# ruff: noqa: D103

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import held_evaluation
import psutil
import pytest
from forks import fork, status
from small_chat import ANSWER, TASKS, said

from agents import evaluate
from agents.engines.base import EngineError
from agents.vlm.played import PlayedFiles
from agents.vlm.records import Record
from videogym.datasets import load_tasks

TEST = f"{TASKS}&split=test"
ROOT = Path(__file__).parents[2]
HELD = Path(__file__).with_name("held_evaluation.py")
COUNT = 5


def arguments(checkpoint: Path, out: Path, *more: str) -> list[str]:
    usual = ("--recipe", "LONGVT_TINY", "--tasks", TEST, "--episodes", str(COUNT), "--max-new-tokens", "6")
    return [
        "--checkpoint",
        str(checkpoint),
        "--out",
        str(out),
        *usual,
        "--max-concurrent-rollouts",
        "2",
        *more,
    ]


def report(out: Path) -> tuple[Any, list[str]]:
    """Figures and episodes without seconds and the name of the run."""
    metrics = json.loads((out / "metrics.json").read_text())
    for name in ("seconds", "decoding_s", "model_s", "environment_s"):
        assert metrics["cost"].pop(name)["count"] == COUNT
    lines = (out / "traces.jsonl").read_text().splitlines()
    lines = [re.sub(r'_s": [-+.e\d]+(?=[,}])', '_s": 0', line) for line in lines]
    return metrics, [line.replace(f'"run": "{out.name}"', '"run": ""') for line in lines]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def call(*options: str) -> None:
        monkeypatch.setattr("sys.argv", ["agents.evaluate", *options])
        evaluate.main()

    return call


class Killed(BaseException):
    """The end of a process, which nothing catches."""


def kill_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let a process die when so many episodes are on the disk."""
    add, left = PlayedFiles.add, [count]

    def dying(self: PlayedFiles, record: Record) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        add(self, record)

    monkeypatch.setattr(PlayedFiles, "add", dying)


def stored(out: Path) -> list[str]:
    """Tasks of the whole lines that are on the disk."""
    parts = [part.read_bytes() for part in (out / "played").glob("part-*.jsonl")]
    return [json.loads(line)["task_id"] for content in parts for line in content.split(b"\n")[:-1]]


def start(out: Path, *command: str) -> tuple[subprocess.Popen[str], Path]:
    """An evaluation in a process of its own, and the file that tells that it stands still."""
    log, marker = out.with_suffix(".log"), out.with_suffix(".held")
    marker.unlink(missing_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("w") as told:
        process = subprocess.Popen(command, stdout=told, stderr=told, text=True, cwd=ROOT, env=environment)
    return process, marker


def await_sign(sign: Callable[[], bool], process: subprocess.Popen[str], out: Path) -> None:
    """Wait until something is seen; a process that has ended before is told with its last words."""
    while not sign():
        if process.poll() is not None:
            raise AssertionError(
                f"ended with {process.returncode}: {out.with_suffix('.log').read_text()[-2000:]}"
            )
        time.sleep(0.02)


def kill_at(moment: str, out: Path, options: Sequence[str]) -> None:
    """Start an evaluation, and kill it where it stands still."""
    marker = out.with_suffix(".held")
    marker.unlink(missing_ok=True)
    child = fork(lambda: held_evaluation.main(moment, marker, options))
    while not marker.exists():
        assert os.waitpid(child, os.WNOHANG)[0] == 0, "it has ended"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    assert status(child) == -signal.SIGKILL


def test_a_killed_evaluation_resumes_task_by_task(
    checkpoints: dict[str, Path],
    tmp_path: Path,
    command: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By SIGKILL, between two episodes, inside a line, and while the report is written."""
    checkpoint = checkpoints["qwen2_5_vl"]
    command(*arguments(checkpoint, tmp_path / "whole"))
    asked = Counter[str]()
    play = evaluate.play_tasks

    def counting(env: Any, answer: Any, task_ids: Sequence[str], *rest: Any) -> Any:
        asked.update(task_ids)
        return play(env, answer, task_ids, *rest)

    monkeypatch.setattr(evaluate, "play_tasks", counting)
    out = tmp_path / "killed"
    ids = [task.task_id for task in load_tasks(TEST)[:COUNT]]
    # After two whole episodes; then one more, and half of the next.
    for moment, whole in (("written:2", 2), ("torn:2", 3)):
        kill_at(moment, out, arguments(checkpoint, out))
        assert len(stored(out)) == whole == len(set(stored(out)))
        assert not (out / "traces.jsonl").exists() and not (out / "metrics.json").exists()
    part = (out / "played" / "part-0.jsonl").read_bytes()
    assert not part.endswith(b"\n") and part.count(b"\n") == 3
    kill_at("traces", out, arguments(checkpoint, out))
    assert sorted(stored(out)) == sorted(ids)
    assert not (out / "traces.jsonl").exists()
    command(*arguments(checkpoint, out, "--max-concurrent-rollouts", "3"))
    assert not asked, "all had been played"
    assert report(out) == report(tmp_path / "whole")
    assert [path.name for path in (out / "played").iterdir()] == ["records.jsonl"]


def test_what_was_played_otherwise_is_not_mixed_in(
    checkpoints: dict[str, Path],
    tmp_path: Path,
    command: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 1)
        command(*arguments(checkpoints["qwen2_5_vl"], tmp_path))
    for family, options, told in (
        ("qwen2_5_vl", ("--max-new-tokens", "7"), "with max_new_tokens 6, not 7"),
        ("qwen2_5_vl", ("--episodes", "4"), "with episodes 5, not 4"),
        ("qwen3_vl", (), "with checkpoint "),
    ):
        with pytest.raises(SystemExit) as ended:
            command(*arguments(checkpoints[family], tmp_path, *options))
        assert ended.value.code == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "holds an unfinished evaluation" in error and told in error
    weights = next(checkpoints["qwen2_5_vl"].glob("*.safetensors"))
    before = weights.stat()
    try:
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))  # trained on meanwhile
        with pytest.raises(SystemExit):
            command(*arguments(checkpoints["qwen2_5_vl"], tmp_path))
        assert "with weights " in capsys.readouterr().err
    finally:
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))


def scripted_servers(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, out: Path, dies: Sequence[int]
) -> tuple[evaluate.Evaluation, PlayedFiles, list[list[str]]]:
    """Two servers that answer at once, each until so many answers; and whom they were asked about."""
    options = {"checkpoint": str(checkpoint), "recipe": "LONGVT_TINY", "tasks": TEST, "episodes": COUNT}
    config = evaluate.Config.of(**options, max_concurrent_rollouts=1)
    first, second = evaluate.prepare(config), evaluate.prepare(config)
    asked: list[list[str]] = [[], []]

    def greedy(actor: Any) -> Callable[[Sequence[Record]], list[Record]]:
        number = 0 if actor is first.actor else 1
        env = (first, second)[number].env

        def answer(records: Sequence[Record]) -> list[Record]:
            if len(asked[number]) == dies[number]:
                raise EngineError(f"server {number} is gone")
            asked[number] += [record.task_id for record in records]
            return [said(env, record, ANSWER) for record in records]

        return answer

    monkeypatch.setattr(evaluate, "greedy", greedy)
    both = replace(first, others=((second.actor, second.env),))
    return both, PlayedFiles(out, {}), asked


def test_tasks_of_a_server_that_dies_go_to_the_others(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, files, asked = scripted_servers(monkeypatch, checkpoints["qwen2_5_vl"], tmp_path, (1, 100))
    records = both.play(files=files)
    assert [record.task_id for record in records] == [task.task_id for task in both.tasks]
    assert sorted(asked[0] + asked[1]) == sorted(task.task_id for task in both.tasks)
    assert len(asked[0]) <= 1


def test_when_all_servers_are_gone_what_was_played_stays(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, files, asked = scripted_servers(monkeypatch, checkpoints["qwen2_5_vl"], tmp_path, (1, 1))
    with pytest.raises(EngineError, match="is gone"):
        both.play(files=files)
    assert (
        sorted(PlayedFiles(tmp_path, {}).done) == sorted(asked[0] + asked[1]) and sum(map(len, asked)) == 2
    )


@pytest.mark.slow  # 40 s: ranks that start anew at three moments
def test_two_processes_of_which_one_is_killed_report_what_one_does(
    checkpoints: dict[str, Path], tmp_path: Path, command: Callable[..., None]
) -> None:
    """The second is killed inside its second line; the same command plays what is left."""
    checkpoint, out = checkpoints["qwen2_5_vl"], tmp_path / "two"
    command(*arguments(checkpoint, tmp_path / "one"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    options = arguments(checkpoint, out)
    process, marker = start(out, *launch, str(HELD), "torn:2", str(out.with_suffix(".held")), *options)
    try:
        await_sign(marker.exists, process, out)
        killed = [one for one in psutil.Process(process.pid).children() if one.environ().get("RANK") == "1"]
        killed[0].kill()
        assert process.wait(300) != 0, "torchrun tells that a process is gone"
    finally:
        process.terminate()  # by which torchrun ends its own
    before = stored(out)
    assert 1 <= len(before) == len(set(before)) < COUNT and not (out / "metrics.json").exists()
    done, _ = start(out, *launch, "-m", "agents.evaluate", *options)
    said = out.with_suffix(".log")
    assert done.wait(300) == 0, said.read_text()[-2000:]
    assert report(out) == report(tmp_path / "one")
    assert said.read_text().count("episodes of LONGVT_TINY@") == 1  # told once, by the first
