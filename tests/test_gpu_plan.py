"""What fits on GPUs: arithmetic by hand, and a documented command up to its first forward."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
HERE = Path(__file__).parent / "benchmarks"


@pytest.fixture(scope="module")
def plan() -> Iterator[object]:
    """The module of the benchmark."""
    sys.path.insert(0, str(HERE))
    import gpu_plan

    yield gpu_plan
    sys.path.remove(str(HERE))


FACTS = {
    "whole": 1000,
    "vision": 100,
    "adapters": 10,
    "layer": 20,
    "layers": 3,
    "width": 7,
    "together": 300,
    "together_of_vision": 40,
    "inside": 50,
    "kept": 6,
}


@pytest.mark.parametrize(
    ("ranks", "lora_rank", "update", "sampling"),
    [
        # Four ranks, all weights: 16 x 1000 / 4 of shards; a reference of 4 x 900 / 4, its vision whole in
        # bfloat16, 200; gathered 2 x (340 + 40) + 6 x 340. Two rollouts of 5 tokens behind 11, run again:
        # (2 x 7 x 3 + 50) x 21, and 11 tokens of keys and values. Sampling gathers 2000.
        (4, 0, 4000 + 900 + 200 + 760 + 2040 + 92 * 21 + 66, 4000 + 900 + 200 + 2000 + 3 * 6 * 16),
        # Four ranks, adapters: 2 x 900 / 4, 200 of vision, 160 / 4; gathered 2 x (300 + 40).
        (4, 64, 450 + 200 + 40 + 680 + 92 * 21 + 66, 450 + 200 + 40 + 2000 + 3 * 6 * 16),
        # One process, adapters: the model in bfloat16, 2000, and 160.
        (1, 64, 2000 + 160 + 92 * 21 + 66, 2000 + 160 + 3 * 6 * 16),
        # One process, all weights, in float32: 16000, a reference of 4000, everything else twice.
        (1, 0, 16000 + 4000 + 2 * (92 * 21 + 66), 16000 + 4000 + 2 * 3 * 6 * 16),
    ],
)
def test_memory_is_what_is_counted_by_hand(
    plan: object, monkeypatch: pytest.MonkeyPatch, ranks: int, lora_rank: int, update: int, sampling: int
) -> None:
    """A shape of a thousand weights."""
    monkeypatch.setattr(plan, "facts_of", lambda shape: plan.Facts(**FACTS))  # type: ignore[attr-defined]
    memory = plan.Memory("tiny", ranks, lora_rank)  # type: ignore[attr-defined]
    assert memory.update(2, True, prefix=11, response=5) == update
    assert memory.sampling(3, prefix=11, response=5) == sampling
    more = memory.update(2, False, prefix=11, response=5) - update
    assert more == (50 * 3 - 92) * 21 * (2 if (ranks, lora_rank) == (1, 0) else 1)


def test_options_are_the_first_that_fit(plan: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a GPU that is large, small, and too small."""
    monkeypatch.setattr(plan, "facts_of", lambda shape: plan.Facts(**FACTS))  # type: ignore[attr-defined]
    memory = plan.Memory("tiny", 2, 64)  # type: ignore[attr-defined]
    sampling = memory.sampling(64)
    large, small = (
        plan.fitting(memory, gpu_gb=gb)  # type: ignore[attr-defined]
        for gb in (1.0, memory.update(1, True) / 0.9e9 * 1.01)
    )
    assert sampling < 0.9e9 and "--micro-batch-size 16 --max-concurrent-rollouts 64: 0 GB" in large
    assert "--gradient-checkpointing" not in large
    assert "--lora-rank 64 --gradient-checkpointing --micro-batch-size 1 " in small
    assert plan.fitting(memory, gpu_gb=1e-6).startswith("does not fit: at least ")  # type: ignore[attr-defined]


LINE = "torchrun --nproc-per-node 8 -m agents.train_grpo_mllm "
CONFIG = "--config examples/configs/longvt_grpo_7b.yaml --out runs/longvt_grpo_7b"


def test_the_commands_are_those_that_are_shown(plan: object) -> None:
    """Of the eight examples, and that of the page, with all their words."""
    shown = plan.documented()  # type: ignore[attr-defined]
    assert len(shown) == 9 and LINE + CONFIG in shown
    assert shown[-1].startswith(f"{LINE}--checkpoint Qwen/Qwen2.5-VL-7B-Instruct --recipe LONGVT/paper ")
    assert shown[-1].endswith(" --max-context 52384")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(9))
def test_a_documented_command_reaches_its_first_forward(plan: object, number: int) -> None:
    """Every one on eight GPUs; LongVT's show 512 frames, and GRPO has two rollouts behind them."""
    command = plan.documented()[number]  # type: ignore[attr-defined]
    (told,) = plan.plan_of_commands([command])  # type: ignore[attr-defined]
    said, answer = told.split("\n")
    assert said == command and "each of 8 GPUs holds" in answer
    found = re.fullmatch(
        r" +(\d+) frames and the question are ([\d,]+) tokens, (\d+) rollouts of .*", answer
    )
    assert found, answer
    if "longvt" in command.lower():
        assert found[1] == "512" and found[2].startswith("32,")
    if "grpo" in command:
        assert found[3] == "2"


def test_an_option_that_there_is_not_ends_a_rehearsal(plan: object) -> None:
    """Words are read, not thrown away."""
    with pytest.raises(SystemExit):
        plan.rehearsed(f"{LINE}{CONFIG} --rolouts 3")  # type: ignore[attr-defined]
