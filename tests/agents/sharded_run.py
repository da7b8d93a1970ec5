"""What ranks do in `test_sharding` and ``tests/benchmarks/prove_sharding.py``.

Started by torchrun with a folder whose ``jobs.json`` says what; a test calls `train` for the same in one
process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from small_chat import ODD, RECIPE, TASKS, Noise, sampling, stored
from torch import Tensor
from torch.distributed.tensor import DTensor

from agents import train_grpo_mllm, train_ppo_mllm, train_sft
from agents.collectors.rollouts import make_collector
from agents.engines.transformers_engine import TransformersEngine
from agents.models import qwen_vl
from agents.training import ranks
from agents.training.archive import load_archive
from agents.training.run import RunDiverged
from agents.vlm.actor import ChatActor
from agents.vlm.config import ChatConfig
from agents.vlm.policy import make_model
from agents.vlm.records import Record, read_records, write_records

PATCHES_AT_ONCE = qwen_vl.PATCHES_AT_ONCE
SMALL: dict[str, Any] = {
    "recipe": RECIPE,
    "tasks": TASKS,
    "eval_tasks": TASKS.replace("count=50", "count=20&split=val"),
    "eval_episodes": 2,
    "max_new_tokens": 6,
    "temperature": 0.8,
    "micro_batch_size": 2,
    "learning_rate": 3e-5,
    "iterations": 3,
    "eval_every": 3,
    "checkpoint_every": 2,
}
GRPO: dict[str, Any] = {
    **SMALL,
    "recipe": ODD,
    "groups": 3,
    "group_size": 3,
    "mini_batch_groups": 2,
    "kl_coef": 0.01,
}
SFT: dict[str, Any] = {**SMALL, "groups": 3}
PPO: dict[str, Any] = {
    **SMALL,
    "recipe": ODD,
    "groups": 3,
    "group_size": 2,
    "mini_batch_size": 4,
    "critic_learning_rate": 1e-3,
    "kl_coef": 0.01,
    "bonus": "code",
    "window": 1,
}
LOOPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sft": (train_sft, SFT),
    "grpo": (train_grpo_mllm, GRPO),
    "ppo": (train_ppo_mllm, PPO),
}


class Stopped(BaseException):
    """The end of a run, which nothing catches."""


def make_actor(config: ChatConfig) -> ChatActor:
    """The configured model, with noise for frames."""
    torch.manual_seed(0)  # of adapters
    model = make_model(config, Noise())
    return ChatActor(
        model, TransformersEngine(model), sampling(model, temperature=config.sampling.temperature)
    )


def make_config(job: dict[str, Any]) -> ChatConfig:
    """The config of a job."""
    module, usual = LOOPS[job["loop"]]
    config: ChatConfig = module.Config.of(**{**usual, **job["changes"]})
    return config


def write_examples(path: Path, checkpoint: Path) -> None:
    """Demonstrations of three tasks, two of each; those of the first task answer without a look.

    So ranks that do a task each score at the same time what looked and what did not.

    Args:
        path: of the records.
        checkpoint: whose tokenizer they are written with.
    """
    lesson = {"checkpoint": str(checkpoint), "demonstrated_tasks": 3, "per_task": 2}
    config = train_sft.Config.of(**{**SFT, **lesson})
    ((played, _),) = train_sft.load_examples(config, make_actor(config), False)
    first = played[0].task_id
    write_records(path, [at_once(one) if one.task_id == first else one for one in played])


def at_once(record: Record) -> Record:
    """An episode whose answer is given in the first turn, instead of a look."""
    asked, answered = record.turns[0], record.turns[-1]
    assert asked.looked
    said = replace(answered, observation=asked.observation, visuals=asked.visuals)
    return replace(record, turns=(said,))


def train(job: dict[str, Any], out: Path, played: Path | None = None) -> ChatActor:
    """Do a job; its checkpoint is ``out``'s ``model``.

    Args:
        job: ``loop`` is one of `LOOPS`, ``changes`` those to the config; with ``stop``, it is stopped at
            the start of that step and resumed by another actor; with ``patches_at_once``, the vision tower
            reads so many in a call.
        out: folder of the run.
        played: learn from the records of this folder instead of playing.
    """
    config, (module, _) = make_config(job), LOOPS[job["loop"]]
    qwen_vl.PATCHES_AT_ONCE = job.get("patches_at_once", PATCHES_AT_ONCE)
    with stored_rollouts(module, played):
        if "stop" in job:
            with stopping(module, job["stop"]):
                module.train(config, make_actor(config), out)
        actor = make_actor(config)
        module.train(config, actor, out)
    actor.model.save(str(out / "model"))
    return actor


@contextmanager
def stopping(module: Any, number: int) -> Iterator[None]:
    """End what is done inside, on all ranks, where a gradient step would begin."""
    steps, real = [], module.optimizer_step

    def step(*arguments: Any) -> Any:
        steps.append(1)
        if len(steps) == number:
            raise Stopped
        return real(*arguments)

    module.optimizer_step = step
    try:
        yield
    except Stopped:
        pass
    finally:
        module.optimizer_step = real


@contextmanager
def poisoned(job: dict[str, Any]) -> Iterator[None]:
    """With ``poison``, the last rank's loss of `agents.train_sft` is no number, and no other's."""
    real = train_sft.nll
    if "poison" in job and ranks.rank() == ranks.size() - 1:
        train_sft.nll = lambda *arguments: torch.nan * real(*arguments)
    try:
        yield
    finally:
        train_sft.nll = real


@contextmanager
def stored_rollouts(module: Any, folder: Path | None) -> Iterator[None]:
    """Let a loop collect what was played by others; None: it plays."""
    if folder is None:
        yield
        return
    real = module.make_collector

    class Stored:
        def __init__(self, config: ChatConfig, actor: ChatActor, **_: Any) -> None:
            self.update_policy_weights_ = actor.update_weights

        def collect(self, iteration: int) -> list[Record]:
            return list(read_records(folder / f"{iteration:06d}.jsonl"))

        def close(self) -> None:
            pass

    module.make_collector = Stored
    try:
        yield
    finally:
        module.make_collector = real


def critic_of(out: Path) -> dict[str, Tensor]:
    """Weights of the critic in a run's checkpoint, with its own model; {} where there is none."""

    class Memory:
        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.state = state

    memory = Memory()
    load_archive(out / "checkpoint", {"memory": memory})
    return {name: value for name, value in memory.state.items() if name.startswith("critic")}


# --- what a rank can say about itself ----------------------------------------------------------


@contextmanager
def optimizers() -> Iterator[list[torch.optim.Optimizer]]:
    """Those that are made inside."""
    made: list[torch.optim.Optimizer] = []
    real = torch.optim.AdamW

    class Kept(real):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    torch.optim.AdamW = Kept  # type: ignore[misc]
    try:
        yield made
    finally:
        torch.optim.AdamW = real  # type: ignore[misc]


def held(tensor: Tensor) -> int:
    """Bytes of a tensor that this process holds."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes


def facts(job: dict[str, Any], actor: ChatActor, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Bytes of weights and moments here and in one process; how far scores are from what was sampled."""
    weights = list(actor.model.parameters())
    moments = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
    collector = make_collector(make_config(job), actor, groups=2, group_size=2)
    collector.update_policy_weights_()
    records = collector.collect(1000)
    sampled = stored(records)
    scored = actor.scorer(records)  # with gradients: layer by layer
    scored.log_probs.sum().backward()
    return {
        "weights": sum(map(held, weights)),
        "all_weights": sum(weight.nbytes for weight in weights),
        "moments": sum(map(held, moments)),
        "all_moments": sum(moment.nbytes for moment in moments),
        "gap": float(((scored.log_probs.detach() - sampled).abs() / (1 + sampled.abs())).max()),
        "tokens": len(sampled),
        "collected": [f"{record.group}/{record.sample_index}" for record in records],
    }


def main(folder: Path) -> None:
    """Do all jobs of a folder."""
    torch.set_num_threads(1)
    ranks.init_distributed("cpu")
    for job in json.loads((folder / "jobs.json").read_text()):
        out = folder / job["name"]
        try:
            with optimizers() as made, poisoned(job):
                actor = train(job, out)
            said = facts(job, actor, made[-1])
        except RunDiverged as error:
            said = {"diverged": str(error)}
        (out / f"facts.{ranks.rank()}.json").write_text(json.dumps(said))
    ranks.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
