"""The commands of the documentation: a vLLM server in one process, training and evaluation in others."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import LAYOUTS

from agents import train_grpo_mllm
from agents.engines.vllm_http import HTTPEngine
from agents.training.archive import load_archive
from agents.vlm.policy import make_actor, make_model
from agents.vlm.records import read_records
from agents.vlm.tiny import tiny_checkpoint
from videogym import FrameStore

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
TASKS = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=100&split={split}"
CONFIG = train_grpo_mllm.Config.of(tasks=TASKS.format(split="train"), eval_tasks=TASKS.format(split="val"))


def run(*command: str) -> str:
    """What a command says; it must succeed."""
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights."""
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", CONFIG)


@pytest.fixture(scope="module")
def url(checkpoint: Path) -> Iterator[str]:
    """Of a server that its command has started, and that is terminated in the end."""
    bounds = ("--max-model-len", "4096", "--max-images", "128", "--max-frame-pixels", "3136")
    place = ("--device", "cpu", "--dtype", "float32", "--log", str(checkpoint.parent / "vllm.log"))
    command = [sys.executable, "-m", "agents.engines.vllm_server", str(checkpoint), *bounds, *place]
    # What stands behind -- must reach vLLM.
    command += ["--", "--served-model-name", "tiny-one"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"--server (\S+); ", server.stdout.readline())
            assert found, "the server did not start"
            assert "tiny-one" in (checkpoint.parent / "vllm.log").read_text()
            yield found[1]
        finally:
            server.terminate()
            try:
                assert server.wait(60) == 0
            finally:
                server.kill()


@pytest.mark.parametrize("collector", ["local", "async"])
def test_a_trainer_takes_a_server_by_its_address(
    collector: str, checkpoint: Path, url: str, tmp_path: Path
) -> None:
    """What the server sampled is what the model scores; weights are pushed each time."""
    sizes = ("--iterations", "2", "--groups", "2", "--group-size", "2", "--mini-batch-groups", "1")
    tasks = ("--tasks", CONFIG.tasks, "--eval-tasks", CONFIG.evaluation.eval_tasks, "--eval-episodes", "2")
    bounds = (
        "--max-new-tokens",
        "16",
        "--max-context",
        "4096",
        "--learning-rate",
        "0.01",
        "--temperature",
        "0.7",
    )
    command = ("agents.train_grpo_mllm", "--checkpoint", str(checkpoint), "--out", str(tmp_path))
    said = run(*command, *sizes, *tasks, *bounds, "--server", url, "--collector", collector)
    assert "eval_accuracy" in said
    first, second = (list(read_records(file)) for file in sorted((tmp_path / "records").iterdir()))
    for version, records in ((1, first), (2, second)):
        assert {v for record in records for turn in record.turns for v in turn.versions} == {version}
    model = make_model(CONFIG.__class__.of(checkpoint=str(checkpoint)), FrameStore())
    actor = make_actor(CONFIG.__class__.of(checkpoint=str(checkpoint), temperature=0.7), model)
    with torch.no_grad():
        scored = actor.scorer(first).log_probs
    sampled = [value for record in first for turn in record.turns for value in turn.log_probs]
    # Two engines in float32: some hundred roundings of numbers as great as the greatest.
    assert (scored - torch.tensor(sampled)).abs().max() < 2e-5 * scored.abs().max()


def test_two_ranks_share_a_server(checkpoint: Path, url: str, tmp_path: Path) -> None:
    """What the server sampled for either rank, the weights of the run at that version score alike."""
    sizes = ("--iterations", "3", "--groups", "2", "--group-size", "2", "--mini-batch-groups", "1")
    tasks = ("--tasks", CONFIG.tasks, "--eval-tasks", CONFIG.evaluation.eval_tasks, "--eval-episodes", "2")
    bounds = ("--max-new-tokens", "16", "--max-context", "4096", "--learning-rate", "0.01")
    kept = ("--checkpoint-every", "1", "--keep-checkpoints", "3", "--server", url)
    launch = ("torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m")
    what = ("agents.train_grpo_mllm", "--checkpoint", str(checkpoint), "--out", str(tmp_path))
    assert "eval_accuracy" in run(*launch, *what, *sizes, *tasks, *bounds, *kept)
    engine = HTTPEngine(url, FrameStore(), LAYOUTS["qwen2_5_vl"])
    assert engine.served_checkpoint() == str(checkpoint)  # whatever name it is served under
    engine.close()
    gaps = []
    for iteration in range(3):
        records = list(read_records(tmp_path / "records" / f"{iteration:06d}.jsonl"))
        names = [f"{record.group}/{record.sample_index}" for record in records]
        assert names == [f"{iteration}.0.{group}/{number}" for group in range(2) for number in range(2)]
        assert {v for one in records for turn in one.turns for v in turn.versions} == {iteration + 1}
        config = CONFIG.with_options(checkpoint=str(checkpoint))
        actor = make_actor(config, make_model(config, FrameStore()))
        sampled = torch.tensor([p for one in records for turn in one.turns for p in turn.log_probs])
        with torch.no_grad():
            before = actor.scorer(records).log_probs
            if iteration:
                path = tmp_path / "checkpoints" / f"{iteration:06d}"
                load_archive(path, {"policy": actor.model})
            scored = actor.scorer(records).log_probs
        assert (scored - sampled).abs().max() < 2e-5 * scored.abs().max()
        gaps.append(float((before - sampled).abs().max()))
    assert gaps[1] > 0.01 and gaps[2] > 0.01  # of the first weights, which have moved


def test_an_evaluation_says_what_the_model_itself_would(checkpoint: Path, url: str, tmp_path: Path) -> None:
    """Though it has other weights: the checkpoint's are pushed, and their likeliest tokens taken."""
    other = make_model(CONFIG.__class__.of(checkpoint=str(checkpoint)), FrameStore())
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn(weight.shape))
    engine = HTTPEngine(url, other.store, other.layout)
    engine.update_weights(other.model, 1)  # the version that the command will push, too
    engine.close()
    usual = ("--recipe", "LONGVT_TINY", "--tasks", TASKS.format(split="test"), "--episodes", "4")
    bounds = ("--max-new-tokens", "16", "--max-context", "4096")
    texts = []
    for name, more in (("alone", ()), ("served", ("--server", url))):
        out = tmp_path / name
        run("agents.evaluate", "--checkpoint", str(checkpoint), "--out", str(out), *usual, *bounds, *more)
        texts.append([turn.text for record in read_records(out / "played") for turn in record.turns])
    assert texts[0] == texts[1]
