"""A run in W&B: offline, out of reach, resumed. Nothing is sent anywhere."""

from __future__ import annotations

import json
import logging
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from agents.training import loggers
from agents.training.loggers import Shown
from agents.training.options import LoopConfig
from agents.training.run import TrainingRun

pytestmark = [
    pytest.mark.peers("wandb"),
    pytest.mark.filterwarnings("ignore"),  # of the library about itself
]
BLOCK = 32_768


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No account, nothing said, nothing sent."""
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    import wandb

    wandb.teardown()  # it reads the environment once


def begin(out: Path, iterations: int) -> TrainingRun:
    """A run that trains a line."""
    policy = nn.Linear(1, 1)
    config = LoopConfig.of(logger="wandb", iterations=iterations, seed=7, run_name="the line")
    optimizer = torch.optim.AdamW(policy.parameters())
    return TrainingRun(config, out, policy, optimizer, nn.Module(), lambda: {})


def go_through(run: TrainingRun) -> None:
    """Log a curve and show a conversation in every iteration left."""
    for iteration in run.iterations():
        frames = np.full((20, 30, 3), iteration, np.uint8)
        run.show(iteration, [Shown("the task", f"said {iteration}", frames, 0.5, iteration > 0)])
        run.end_iteration(iteration, 1, {"reward": 0.25 * iteration})


def records(path: Path) -> Iterator[Any]:
    """What is in a run's file: LevelDB's log format, behind a head of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        if place + 7 + length > len(data):
            return  # it is being written
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def ended(out: Path) -> list[Path]:
    """Files of a run's offline parts, in order and whole: W&B's process ends them behind `finish`."""
    paths = sorted((out / "wandb").glob("offline-run-*/*.wandb"))
    until = time.monotonic() + 60
    while not all(any(one.WhichOneof("record_type") == "exit" for one in records(path)) for path in paths):
        assert time.monotonic() < until, "W&B has not ended its files"
        time.sleep(0.05)
    return paths


def history(path: Path) -> list[dict[str, Any]]:
    """Logged rows by name."""
    rows = [
        record.history.item for record in records(path) if record.WhichOneof("record_type") == "history"
    ]
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows
    ]


def test_an_offline_run_holds_curves_and_conversations_and_goes_on_under_its_name(tmp_path: Path) -> None:
    """Two iterations, then one more by the same folder: what W&B was told is what the CSV files say."""
    go_through(begin(tmp_path, 2))
    go_through(begin(tmp_path, 3))
    runs = ended(tmp_path)
    assert len(runs) == 2
    told = [
        record.run for path in runs for record in records(path) if record.WhichOneof("record_type") == "run"
    ]
    assert {run.run_id for run in told} == {(tmp_path / "wandb" / "id").read_text().strip()}
    assert {(run.display_name, run.project) for run in told} == {("the line", "videogym")}
    config = {item.key: json.loads(item.value_json) for run in told for item in run.config.update}
    kept = {
        item.key: json.loads(item.value_json)
        for path in runs
        for record in records(path)
        if record.WhichOneof("record_type") == "config"
        for item in record.config.update
    }
    assert (config | kept)["seed"] == "7"
    rows = [row for path in runs for row in history(path)]
    curve = {row["step"]: row["reward"] for row in rows if "reward" in row}
    lines = (tmp_path / "log" / "scalars" / "reward.csv").read_text().split()
    assert curve == {int(line.split(",")[0]): float(line.split(",")[1]) for line in lines}
    assert curve == {0: 0.0, 1: 0.25, 2: 0.5}
    tables = [json.loads(path.read_text()) for path in (tmp_path / "wandb").rglob("*.table.json")]
    shown = sorted(
        tuple(row[:5]) for table in tables for row in table["data"] if "conversation" in table["columns"]
    )
    assert shown == [(n, "the task", n > 0, 0.5, f"said {n}") for n in range(3)]
    assert len(list((tmp_path / "wandb").glob("offline-run-*/files/media/images/*.png"))) == 3


def test_where_it_is_out_of_reach_a_run_says_so_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A closed port: one line, and all of the run is kept for later."""
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(loggers, "REACH_S", 3.0)
    with caplog.at_level(logging.WARNING, logger="agents.training.loggers"):
        go_through(begin(tmp_path, 2))
    (told,) = [record for record in caplog.records if record.name == "agents.training.loggers"]
    assert "W&B is out of reach" in told.getMessage() and "\n" not in told.getMessage()
    (path,) = ended(tmp_path)
    assert [row["reward"] for row in history(path) if "reward" in row] == [0.0, 0.25]


def test_without_an_account_a_run_says_so_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No key, and nobody to ask for one."""
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))
    monkeypatch.setattr(loggers, "REACH_S", 3.0)
    with caplog.at_level(logging.WARNING, logger="agents.training.loggers"):
        go_through(begin(tmp_path / "run", 1))
    assert len([record for record in caplog.records if record.name == "agents.training.loggers"]) == 1
    assert ended(tmp_path / "run")
