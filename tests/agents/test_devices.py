"""Training of language models where the model is not on the CPU, without an accelerator.

Runs on the device of `pretend_device`, in a process of their own: torch does not forget a device.
"""

import math
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pretend_device
import pytest
import torch
from safetensors.torch import load_file
from small_chat import ANSWER, ODD, TASKS, Noise, crop, load, make_env, play
from small_chat import make_actor as make_small_actor
from torch import Tensor

from agents import train_grpo_mllm, train_ppo_mllm, train_rft, train_sft
from agents.vlm.policy import make_actor, make_model, trainable_parameters
from agents.vlm.records import write_records

USUAL: dict[str, Any] = {
    "recipe": ODD,
    "tasks": TASKS,
    "eval_tasks": f"{TASKS}&split=val",
    "eval_episodes": 1,
    "max_new_tokens": 3,
    "groups": 2,
    "micro_batch_size": 2,
    "learning_rate": 1e-3,
    "eval_every": 1,
    "checkpoint_every": 1,
}
LOOPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sft": (train_sft, {"demonstrated_tasks": 2, "per_task": 2, "warmup": 0.0}),
    "rft": (train_rft, {"overlap_term": "odd", "min_overlap": 0.0}),
    "grpo": (train_grpo_mllm, {"group_size": 2, "mini_batch_groups": 2, "kl_coef": 0.01}),
    "ppo": (
        train_ppo_mllm,
        {"group_size": 2, "mini_batch_size": 4, "kl_coef": 0.01, "critic_learning_rate": 1e-2},
    ),
}


def run(loop: str, options: dict[str, Any], out: Path) -> float:
    """Train, or resume a run, and save the model; the last loss."""
    module, usual = LOOPS[loop]
    config = module.Config.of(**{**USUAL, **usual, **options})
    torch.manual_seed(0)
    torch.set_num_threads(1)
    actor = make_actor(config, make_model(config, Noise()))
    before = [weight.detach().cpu().clone() for weight in trainable_parameters(actor.model)]
    module.train(config, actor, out)
    assert {weight.device.type for weight in actor.model.parameters()} == {config.model.device}
    if loop != "rft":  # a single gradient step of it
        pairs = zip(before, trainable_parameters(actor.model), strict=True)
        assert any(not torch.equal(old, new.detach().cpu()) for old, new in pairs), "nothing was learned"
    actor.model.save(str(out / "model"))
    return curves(out)["loss"][-1]


def curves(out: Path) -> dict[str, list[float]]:
    """Every logged curve but times."""
    files = [file for file in (out / "log" / "scalars").glob("*.csv") if "seconds" not in file.stem]
    return {file.stem: [float(line.split(",")[1]) for line in file.read_text().split()] for file in files}


@pytest.fixture(scope="module")
def apart() -> Iterator[Callable[..., Any]]:
    """Calls a function of a module in a process that has the device."""
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=pretend_device.install
    ) as pool:
        yield lambda function, *args: pool.submit(function, *args).result()


# --- the device itself -------------------------------------------------------------------------

REFUSED: dict[str, Callable[[Tensor, Tensor], Any]] = {  # of three numbers there and here
    "a sum": lambda there, here: there + here,
    "a sum here, in place": lambda there, here: here.add_(there),
    "a scalar here that changes": lambda there, here: here[0].add_(there[0]),
    "a concatenation": lambda there, here: torch.cat([there, here]),
    "an index there": lambda there, here: here[there.long()],
    "what is put there": lambda there, here: there.index_put_((here > 0,), here),
    "a mask": lambda there, here: there.masked_fill(here > 0, 0.0),
    "a scattered mask": lambda there, here: there.masked_scatter(here > 0, there),
    "a condition": lambda there, here: torch.where(here > 0, there, 0.0),
    "a gathered index": lambda there, here: there.gather(0, here.long()),
    "an embedding": lambda there, here: torch.nn.functional.embedding(here.long(), there[:, None]),
    "a bound that is a scalar here": lambda there, here: there.clamp(here[0]),
    "a comparison": lambda there, here: torch.equal(there, here),
    "a generator": lambda there, here: torch.rand(3, device=there.device, generator=torch.Generator()),
    "numpy": lambda there, here: there.numpy(),
    "a layer": lambda there, here: torch.nn.Linear(3, 1)(there),
}
TAKEN: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a scalar here": lambda there, here: there + here[0],
    "an index here": lambda there, here: there[here.long()],
    "a mask here": lambda there, here: there[here > 0],
    "a copy here": lambda there, here: there.copy_(here),
    "a slice from here": lambda there, here: there[:2].copy_(here[:2]),
    "a copy there": lambda there, here: here.copy_(there),
    "the way back": lambda there, here: there.cpu() + here,
    "numbers": lambda there, here: [there.tolist(), float(there[0]), bool(there.any())],
}


def outcome(name: str) -> str:
    """What becomes of an operation on both devices."""
    here = torch.ones(3)
    there = torch.ones(3, device=pretend_device.NAME)
    try:
        {**REFUSED, **TAKEN}[name](there, here)
    except (pretend_device.MixedDevices, TypeError) as error:
        return str(error)
    return "taken"


@pytest.mark.parametrize("name", [*REFUSED, *TAKEN])
def test_devices_mix_only_where_cuda_mixes(apart: Callable[..., Any], name: str) -> None:
    """As CUDA has it: else a fault below would be passed over, or one be seen that is none."""
    said = apart(outcome, name)
    assert (said == "taken") == (name in TAKEN), said


# --- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["sft", "grpo", "ppo"])
def test_a_run_does_the_same_on_a_device(
    apart: Callable[..., Any], loop: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Two iterations there, and one there and one here, end as two here do, but for rounding."""
    options = {"checkpoint": str(checkpoints["qwen2_5_vl"]), "iterations": 2}
    there = {**options, "device": pretend_device.NAME}
    run(loop, options, tmp_path / "here")
    apart(run, loop, {**there, "iterations": 1}, tmp_path / "there")
    shutil.copytree(tmp_path / "there", tmp_path / "moved")
    apart(run, loop, there, tmp_path / "there")
    run(loop, options, tmp_path / "moved")  # this process has no such device
    expected = curves(tmp_path / "here")
    for name in ("there", "moved"):
        found = curves(tmp_path / name)
        assert found.keys() == expected.keys()
        for curve, values in expected.items():
            assert found[curve] == pytest.approx(values, rel=1e-3, abs=1e-3, nan_ok=True), (name, curve)
        weights = load_file(tmp_path / name / "model" / "model.safetensors")
        for weight, value in load_file(tmp_path / "here" / "model" / "model.safetensors").items():
            torch.testing.assert_close(weights[weight], value, atol=1e-3, rtol=1e-3)


ADAPTERS = {"dtype": "bfloat16", "lora_rank": 2}
WAYS = [
    ("sft", "qwen3_vl", {**ADAPTERS, "gradient_checkpointing": True, "share_prefixes": False}),
    ("rft", "qwen3_vl", {"freeze_vision": True}),
    ("grpo", "qwen3_vl", {"gradient_checkpointing": True, "collector": "async"}),
    ("grpo", "qwen2_5_vl", {**ADAPTERS, "gradient_checkpointing": True, "video_form": True}),
    ("ppo", "qwen3_vl", {**ADAPTERS, "freeze_vision": True, "video_form": True, "micro_batch_size": 4}),
    ("ppo", "qwen2_5_vl", {"share_prefixes": False, "window": 1, "gate": "code", "bonus": "code"}),
]


@pytest.mark.parametrize(("loop", "family", "options"), WAYS, ids=str)
def test_no_way_of_training_mixes_devices(
    apart: Callable[..., Any],
    loop: str,
    family: str,
    options: dict[str, Any],
    checkpoints: dict[str, Path],
    tmp_path: Path,
) -> None:
    """Types, adapters, frozen and checkpointed layers, shared prefixes, forms of frames, families."""
    options = {**options, "checkpoint": str(checkpoints[family]), "iterations": 1}
    if loop == "rft":
        options["rollouts"] = str(tmp_path / "records")
        write_answers(checkpoints[family], tmp_path / "records" / "000000.jsonl")
    loss = apart(run, loop, {**options, "device": pretend_device.NAME}, tmp_path / "run")
    assert math.isfinite(loss)


def write_answers(checkpoint: Path, path: Path) -> None:
    """Scripted rollouts, of which one in four answers right."""
    actor = make_small_actor(load(checkpoint))
    env = make_env(actor.model, recipe=ODD, groups=1, group_size=4)
    answers = [ANSWER.replace("B", letter) for letter in "ABCD"]
    write_records(path, play(env, actor, lambda turn, row: answers[row] if turn else crop(1, 9)))
