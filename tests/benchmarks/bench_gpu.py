"""Generation and update of Qwen2.5-VL in the shapes of its 3B and 7B, random weights, under both recipes.

Real episodes on synthetic videos, as the recipes of the papers play them: what is sampled is random, a
script says what it means, so that every rollout looks and then answers. Weights are bfloat16 with LoRA
adapters of rank 64, as `agents.train_grpo_mllm` trains them. Printed for each: tokens sampled a second,
tokens of the update a second, peak memory, and the update's share of the rate at which this chip multiplies
large matrices, measured first.

Run ``make bench-gpu`` on a machine with a GPU. ``python tests/benchmarks/bench_gpu.py --device cpu --shapes
tiny`` shows that it runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_plan import SHAPES, numbers, plan, plan_of_commands, plan_of_sizes
from scripted import ScriptedActor, ScriptedEnv, learn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLForConditionalGeneration

from agents.engines.base import Sampling
from agents.engines.transformers_engine import TransformersEngine
from agents.models.qwen2_5_vl import tiny_config
from agents.models.qwen_vl import QwenVL
from agents.models.tiny_qwen import build_tiny_qwen, train_tokenizer
from agents.train_grpo_mllm import Config
from agents.vlm.policy import apply_adapters, make_model, trainable_parameters
from agents.vlm.rollouts import rollouts
from agents.vlm.tiny import corpus
from videogym import VideoQAEnv, get_recipe

TASKS = "procedural:brief_event?level=0&duration_s=512&size=640x360&count=16"
CROP = (
    '<think>look</think><tool_call>{{"name": "crop_video", "arguments": '
    '{{"start_time": {}, "end_time": {}}}}}</tool_call>'
)
SEEN = "<think>seen</think><answer>A</answer>"


@dataclass(frozen=True)
class Load:
    """What is played under a recipe."""

    said: tuple[str, ...]  # by the script, turn by turn
    lengths: tuple[int, ...]  # tokens sampled, turn by turn
    groups: int
    group_size: int
    micro_batch_size: int  # rollouts in a micro-batch
    checkpointed: bool  # whether layers run again in the backward pass


LOADS = {
    "VIDEO_MTR/paper": Load(
        (
            "<think>look</think><retrieve>8,24</retrieve>",
            "<think>look</think><retrieve>80,96</retrieve>",
            SEEN,
        ),
        (256, 256, 128),
        groups=4,
        group_size=8,
        micro_batch_size=4,
        checkpointed=False,
    ),
    "LONGVT/paper": Load(
        (CROP.format(40, 72), CROP.format(200, 232), SEEN),
        (768, 768, 512),
        groups=1,
        group_size=16,
        micro_batch_size=4,
        checkpointed=True,
    ),
}


def build(shape: str, config: Config, env: VideoQAEnv) -> QwenVL:
    """A model of a shape with random weights, and a tokenizer that knows the recipe's words."""
    if shape == "tiny":
        with tempfile.TemporaryDirectory() as folder:
            build_tiny_qwen(folder, corpus(env, episodes=4))
            return make_model(config.with_options(checkpoint=folder), env.store)
    tokenizer = train_tokenizer(corpus(env, episodes=4), 896)
    tiny = tiny_config(tokenizer, 64, 32, 1)  # for the ids of its tokens
    ids = {name: value for name, value in tiny.to_dict().items() if name.endswith("_token_id") and value}
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, config.model.dtype))
    try:
        with torch.device(config.model.device):
            model = QwenVL(Qwen2_5_VLForConditionalGeneration(numbers(shape, **ids)), tokenizer, env.store)
    finally:
        torch.set_default_dtype(before)
    return apply_adapters(config, model)


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a product of large matrices."""
    size = 8192 if device == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    left @ right
    seconds, _ = timed(device, lambda: [left @ right for _ in range(10)])
    return 10 * 2 * size**3 / seconds


def timed(device: str, work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call and what it returned."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.monotonic()
    returned = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - started, returned


def peak_gb(device: str) -> float:
    """Most memory held since the last call; 0 where there is no GPU."""
    if device != "cuda":
        return 0.0
    most = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return most


def measure(shape: str, recipe: str, device: str, rate: float) -> dict[str, Any]:
    """Figures of one shape under one recipe."""
    load = LOADS[recipe]
    lengths = tuple(length // 16 for length in load.lengths) if shape == "tiny" else load.lengths
    config = Config.of(
        recipe=recipe,
        tasks=TASKS,
        device=device,
        dtype="bfloat16" if device == "cuda" else "float32",  # which CPUs only emulate
        lora_rank=64,
        kl_coef=0.0,
        groups=load.groups,
        group_size=load.group_size,
        mini_batch_groups=load.groups,
        micro_batch_size=load.micro_batch_size,
        max_context=131_072,
        gradient_checkpointing=load.checkpointed,
    )
    env = VideoQAEnv(TASKS, get_recipe(recipe))
    model = build(shape, config, env)
    sampling = Sampling(1.0, max(lengths), model.end_id, model.vision_ids, config.sampling.max_context)
    actor = ScriptedActor(model, TransformersEngine(model), sampling)
    actor.lengths = lengths
    chat = ScriptedEnv(
        env,
        model.tokenizer,
        groups=load.groups,
        group_size=load.group_size,
        form=model.chat_form(),
        max_context=config.sampling.max_context,
    )
    chat.said = load.said
    actor.update_weights()
    rollouts(chat, actor)  # the first of everything costs more
    actor.update_weights()
    peak_gb(device)
    generating, records = timed(device, lambda: rollouts(chat, actor))
    generating_gb = peak_gb(device)
    assert not any(record.abort_reason for record in records)
    optimizer = torch.optim.AdamW(trainable_parameters(model), 1e-6)

    def update() -> None:
        learn(config, actor, records, optimizer)

    model.forwarded_tokens = 0
    with FlopCounterMode(display=False) as counter:
        update()
    read, flops = model.forwarded_tokens, counter.get_total_flops()
    peak_gb(device)
    updating, _ = timed(device, update)
    env.close()
    sampled = sum(record.sampled_tokens for record in records)
    whole = sum(model.length(*record.context(len(record.turns) - 1)) for record in records)
    return {
        "shape": shape,
        "recipe": recipe,
        "parameters": sum(p.numel() for p in model.parameters()),
        "gradient_checkpointing": load.checkpointed,
        "rollouts": len(records),
        "sampled_tokens": sampled,
        "conversation_tokens": whole,
        "update_tokens": read,
        "generate_s": generating,
        "sampled_tokens_a_second": sampled / generating,
        "generate_peak_gb": generating_gb,
        "update_s": updating,
        "update_tokens_a_second": read / updating,
        "update_peak_gb": peak_gb(device),
        "update_tflops": flops / updating / 1e12,
        "update_share_of_matrix_rate": flops / updating / rate,
    }


def main() -> None:
    """Print a line a measurement; all of them as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=("tiny", *SHAPES), default=list(SHAPES))
    parser.add_argument("--recipes", nargs="+", choices=tuple(LOADS), default=list(LOADS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="file for the figures")
    parser.add_argument(
        "--plan", action="store_true", help="print what memory follows from the shapes, and end"
    )
    arguments = parser.parse_args()
    if arguments.plan:
        print("\n".join(plan(shape) for shape in SHAPES))
        print("\n".join(plan_of_sizes()))
        for told in plan_of_commands():
            print(told, flush=True)
        return
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU here: this measures one; --device cpu --shapes tiny shows that it runs")
    torch.manual_seed(0)
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    rate = matrix_rate(arguments.device, dtype)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    print(f"{name}: {rate / 1e12:.2f} TFLOP/s in matrices of {dtype}")
    rows = []
    for shape in arguments.shapes:
        for recipe in arguments.recipes:
            try:
                row = measure(shape, recipe, arguments.device, rate)
            except torch.OutOfMemoryError as error:
                row = {"shape": shape, "recipe": recipe, "out_of_memory": str(error).splitlines()[0]}
            rows.append(row)
            gc.collect()
            if arguments.device == "cuda":
                torch.cuda.empty_cache()
            print(", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
            if arguments.out:
                arguments.out.write_text(json.dumps({"device": name, "rate": rate, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
