"""Measures sampling with the tiny Qwen2.5-VL of `make demo-mllm` against the plain way, in one run.

The plain way (`growing_engine.py`) is transformers' own: a cache that grows by copying, keys of a prompt
held and read by each of its rollouts, `torch.multinomial`. Both sample 128 rollouts, sixteen groups of
eight, whose first context has some 260 tokens; in process time, in turns, medians. Then the same with draws
that are the same in both, so that outputs have to be equal token by token, and the cost of a token behind
contexts of 300 and 1,000 tokens. Run by ``make bench-rollouts``; exits 1 where a target is missed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import growing_engine
import torch
from growing_engine import GrowingEngine
from torch import Tensor

from agents import train_sft
from agents.engines import lockstep
from agents.engines.base import Context, Engine, Output, Sampling
from agents.engines.transformers_engine import TransformersEngine
from agents.experiments.demo_mllm import stages
from agents.experiments.stages import SIZES
from agents.models.qwen_vl import QwenVL
from agents.vlm.actor import context_of
from agents.vlm.policy import make_model
from agents.vlm.rollouts import make_chat_env, opened
from agents.vlm.tiny import tiny_checkpoint
from videogym import FrameStore

STEPS, REPEATS, GROUPS, GROUP_SIZE = 120, 3, 16, 8
WHOLE_TARGET, EQUAL_TARGET, LENGTH_TARGET = 4.0, 1.8, 2.5
LONG = 1000


def make(folder: Path) -> tuple[QwenVL, list[Context]]:
    """The model with random weights, and the first contexts of a batch of GRPO."""
    found = stages("LONGVT_TINY", 0)
    lesson = found["sft"].config
    assert isinstance(lesson, train_sft.Config)
    tiny_checkpoint(folder, lesson, train_sft.demonstrator(lesson), **SIZES)
    config = found["grpo"].config.with_options(checkpoint=str(folder))
    model = make_model(config, FrameStore())
    env = make_chat_env(config, model, config.tasks, groups=GROUPS, group_size=GROUP_SIZE)
    contexts = [context_of(episode.record) for episode in opened(env)]
    model.encode([visual for context in contexts for visual in context.visuals])  # for all alike
    return model, contexts


def never_ending(model: QwenVL, steps: int) -> Sampling:
    """Outputs of a length."""
    return Sampling(1.0, steps, -1, model.vision_ids, 32_768)


def seconds(engine: Engine, contexts: Sequence[Context], sampling: Sampling) -> tuple[float, list[Output]]:
    """CPU seconds of sampling, and what was sampled."""
    engine.reset_cache()
    torch.manual_seed(0)
    started = time.process_time()
    outputs = engine.generate(contexts, sampling)
    return time.process_time() - started, outputs


def medians(works: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Median CPU seconds of each, taken in turns after one call that is not counted."""
    for work in works.values():
        work()
    rounds = [{name: work() for name, work in works.items()} for _ in range(REPEATS)]
    return {name: statistics.median(row[name] for row in rounds) for name in works}


def race(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """Tokens by a race of exponential numbers, as `torch.multinomial` draws, from one number a row.

    Sums of probabilities differ by roundings between any two ways to compute them, and an inverse CDF meets
    the border between two of 1,210 tokens a thousand times as often as a race meets a tie.
    """
    places = torch.arange(1, log_probs.shape[-1] + 1, dtype=torch.float64)
    noise = (uniform[:, None] * 1e6 + places * 0.6180339887498949).mul(7919.0).frac()
    return (log_probs - (-noise.clamp_min(1e-12).log()).log().float()).argmax(-1)


def whole(model: QwenVL, contexts: Sequence[Context]) -> list[str]:
    """Tokens a second, every part of the engine on, against the plain way."""
    sampling, count = never_ending(model, STEPS), len(contexts) * STEPS
    engines: dict[str, Engine] = {
        "plain": GrowingEngine(model),
        "plain, inverse CDF": GrowingEngine(model, by_inverse_cdf=True),
        "engine": TransformersEngine(model),
    }
    found = medians({n: lambda e=e: seconds(e, contexts, sampling)[0] for n, e in engines.items()})  # type: ignore[misc]
    for name, value in found.items():
        print(f"{name}: {count / value:,.0f} tokens/s, {1e3 * value / STEPS:.1f} ms a step")
    ratio = found["plain"] / found["engine"]
    print(f"  {ratio:.2f} times as fast, at least {WHOLE_TARGET}")
    return [] if ratio >= WHOLE_TARGET else ["speed"]


def equal(model: QwenVL, contexts: Sequence[Context]) -> list[str]:
    """The same draws in both: equal outputs, and how much faster they are there."""
    sampling = never_ending(model, STEPS)
    usual = lockstep.draw
    lockstep.draw = growing_engine.draw = race
    plain, engine = GrowingEngine(model, by_inverse_cdf=True), TransformersEngine(model)
    found: dict[str, list[Output]] = {}

    def work(name: str, one: Engine) -> float:
        took, found[name] = seconds(one, contexts, sampling)
        return took

    taken = medians({"plain": lambda: work("plain", plain), "engine": lambda: work("engine", engine)})
    lockstep.draw = growing_engine.draw = usual
    pairs = list(zip(found["plain"], found["engine"], strict=True))
    same = sum(one.ids == other.ids for one, other in pairs)
    gap = max(
        abs(a - b)
        for one, other in pairs
        if one.ids == other.ids
        for a, b in zip(one.log_probs, other.log_probs, strict=True)
    )
    ratio = taken["plain"] / taken["engine"]
    print(
        f"same draws: {same} of {len(pairs)} outputs equal, log-probabilities within {gap:.0e}; "
        f"{ratio:.2f} times as fast, at least {EQUAL_TARGET}"
    )
    missed = [] if same == len(pairs) else ["equal outputs"]
    return missed if ratio >= EQUAL_TARGET else [*missed, "speed with the same draws"]


def lengths(model: QwenVL, contexts: Sequence[Context]) -> list[str]:
    """The cost of a token behind 300 and 1,000: text before the question, reading not counted."""
    missed = []
    engines: dict[str, Engine] = {"plain": GrowingEngine(model), "engine": TransformersEngine(model)}
    steps = 32
    for name, engine in engines.items():
        costs = []
        for length in (300, LONG):
            longer = [_padded(model, context, length) for context in contexts]
            one, many = never_ending(model, 1), never_ending(model, 1 + steps)
            taken = medians(
                {
                    "one": lambda e=engine, c=longer, s=one: seconds(e, c, s)[0],  # type: ignore[misc]
                    "many": lambda e=engine, c=longer, s=many: seconds(e, c, s)[0],  # type: ignore[misc]
                }
            )
            costs.append((taken["many"] - taken["one"]) / steps)
        ratio = costs[1] / costs[0]
        bound = f", at most {LENGTH_TARGET}" if name == "engine" else ""
        print(f"{name}: a step behind {LONG} tokens costs {ratio:.1f} of one behind 300{bound}")
        missed += ["length"] if name == "engine" and ratio > LENGTH_TARGET else []
    return missed


def _padded(model: QwenVL, context: Context, length: int) -> Context:
    missing = length - model.length(context.ids, context.visuals)
    return replace(context, ids=(*context.ids[:1] * missing, *context.ids))


def main() -> int:
    """Print all figures."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model, contexts = make(Path(folder) / "tiny")
        found = sorted({model.length(context.ids, context.visuals) for context in contexts})
        print(f"{len(contexts)} rollouts of {STEPS} tokens behind {found[0]} to {found[-1]}")
        missed = [*whole(model, contexts), *equal(model, contexts), *lengths(model, contexts)]
    print("missed: " + ", ".join(missed) if missed else "all targets are met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
