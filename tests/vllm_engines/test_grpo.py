"""GRPO with rollouts of a real vLLM server: it learns, and the death of the server costs one iteration."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from agents import train_grpo_mllm, train_sft
from agents.engines.base import EngineError
from agents.engines.vllm_http import HTTPEngine
from agents.engines.vllm_server import Server, serve
from agents.vlm.actor import ChatActor
from agents.vlm.policy import make_actor, make_model
from agents.vlm.records import read_records
from agents.vlm.tiny import tiny_checkpoint
from videogym import FrameStore, get_recipe

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
TASKS = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=1000&split={split}"
LONGVT = get_recipe("LONGVT_TINY")
SHARED: dict[str, Any] = {
    "recipe": replace(LONGVT, name="LONGVT_TINY-16", rules=replace(LONGVT.rules, skim_frames=16)),
    "tasks": TASKS.format(split="train"),
    "eval_tasks": TASKS.format(split="val"),
    "eval_episodes": 8,
    "max_new_tokens": 48,
}
GRPO = train_grpo_mllm.Config.of(
    **SHARED,
    iterations=30,
    groups=4,
    group_size=8,
    mini_batch_groups=1,
    learning_rate=1e-3,
    kl_coef=0.0,
    checkpoint_every=1,
)
DIES_AFTER = 10  # iterations


@contextlib.contextmanager
def actor_behind_server(checkpoint: Path, log: Path) -> Iterator[tuple[ChatActor, Server]]:
    """A policy trained in this process that a server of its own samples for."""
    config = GRPO.with_options(checkpoint=str(checkpoint))
    actor = make_actor(config, make_model(config, FrameStore()))
    with serve(
        checkpoint,
        max_model_len=4096,
        max_images=96,
        max_frame_pixels=56 * 56,
        log_path=log,
        device="cpu",
        dtype="float32",
        deadline_s=300.0,
    ) as server:
        engine = HTTPEngine(server, actor.model.store, actor.model.layout, concurrency=32)
        yield ChatActor(actor.model, engine, actor.sampling), server
        engine.close()


def killer(server: Server, records: Path) -> list[float]:
    """Kills the server by SIGKILL while it samples the iteration after `DIES_AFTER`; returns when."""

    def run() -> None:
        while not (records / f"{DIES_AFTER - 1:06d}.jsonl").exists():
            time.sleep(0.02)
        log = server.log_path.stat().st_size
        while server.log_path.stat().st_size == log:  # requests for the next iteration are logged
            time.sleep(0.02)
        time.sleep(0.5)
        processes = psutil.Process(server.process.pid).children(recursive=True)
        killed_at.append(time.monotonic())
        next(p for p in processes if "serve" in p.cmdline()).send_signal(signal.SIGKILL)

    killed_at: list[float] = []
    threading.Thread(target=run, daemon=True).start()
    return killed_at


def test_it_learns_and_survives_the_death_of_its_server(tmp_path: Path) -> None:
    """The reward rises; no record is lost or there twice; each says which weights sampled it."""
    torch.manual_seed(0)
    lesson = train_sft.Config.of(
        **SHARED, iterations=60, demonstrated_tasks=64, groups=2, wrong_looks=0.3, learning_rate=1e-2
    )
    lesson = lesson.with_options(checkpoint=str(tiny_checkpoint(tmp_path / "tiny", lesson)))
    pupil = make_actor(lesson, make_model(lesson, FrameStore()))
    train_sft.train(lesson, pupil, tmp_path / "sft")
    pupil.model.save(str(tmp_path / "model"))
    config, out = GRPO.with_options(checkpoint=str(tmp_path / "model")), tmp_path / "grpo"
    with actor_behind_server(tmp_path / "model", tmp_path / "first.log") as (actor, server):
        killed_at = killer(server, out / "records")
        with pytest.raises(EngineError):
            train_grpo_mllm.train(config, actor, out)
        assert time.monotonic() - killed_at[0] < 10.0
        assert not (out / "records" / f"{DIES_AFTER:06d}.jsonl").exists()  # it died while it sampled
    with actor_behind_server(tmp_path / "model", tmp_path / "second.log") as (actor, _):
        train_grpo_mllm.train(config, actor, out)
    files = sorted((out / "records").glob("*.jsonl"))
    assert [file.stem for file in files] == [f"{n:06d}" for n in range(config.iterations)]
    for iteration, file in enumerate(files):
        records = list(read_records(file))
        episodes = {(record.group, record.sample_index) for record in records}
        assert len(records) == len(episodes) == config.groups * config.group_size
        versions = {version for record in records for turn in record.turns for version in turn.versions}
        assert len(versions) == 1 and versions.pop() == iteration + 1
    lines = (out / "log" / "scalars" / "reward.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in lines] == list(range(config.iterations))
    rewards = [float(line.split(",")[1]) for line in lines]
    assert np.mean(rewards[-8:]) > np.mean(rewards[:8]) + 0.15, rewards
