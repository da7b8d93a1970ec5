"""Two ranks do what one process does: weights, records, memory, going on; and what is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rounding import GRADIENT, ROUNDING
from safetensors.torch import load_file
from sharded_run import GRPO, critic_of, make_actor, make_config, train, write_examples
from small_chat import FAMILIES, build

from agents import train_grpo_mllm, train_sft
from agents.collectors.rollouts import make_collector
from agents.training import ranks
from agents.training.ranks import (
    MicroBatchPlan,
    all_gather_object,
    broadcast_from_rank0,
    map_across_ranks,
    plan_micro_batches,
)
from agents.vlm.records import read_records

HERE = Path(__file__).parent
CLOSE = 1e-5  # weights after some steps: they differ by 6e-8, and move by ten times as much
JOBS: list[dict[str, Any]] = [
    # A frame is a call of the vision tower: ranks have different numbers of them.
    {"name": "sft", "family": "qwen3_vl", "loop": "sft", "changes": {}, "patches_at_once": 1},
    {
        "name": "stopped",
        "family": "qwen3_vl",
        "loop": "sft",
        "changes": {},
        "patches_at_once": 1,
        "stop": 3,
    },
    {"name": "grpo", "family": "qwen2_5_vl", "loop": "grpo", "changes": {"gradient_checkpointing": True}},
    {"name": "critic", "family": "qwen2_5_vl", "loop": "ppo", "changes": {"critic_model": "copy"}},
]
MORE: list[dict[str, Any]] = [
    {"name": "ppo", "family": "qwen2_5_vl", "loop": "ppo", "changes": {}},
    {"name": "packed", "family": "qwen3_vl", "loop": "sft", "changes": {"pack_tokens": 1500}},
    {**JOBS[3], "name": "critic-stopped", "stop": 6},
]
PLAYED = ("grpo", "ppo")  # loops that play what they learn from
POISONED: dict[str, Any] = {**JOBS[0], "name": "poisoned", "changes": {"iterations": 1}, "poison": True}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of both families, and examples to imitate."""
    folder = tmp_path_factory.mktemp("inputs")
    for family in FAMILIES:
        build(folder / family, family)
    write_examples(folder / "examples.jsonl", folder / "qwen3_vl")
    return folder


def on(inputs: Path, job: dict[str, Any]) -> dict[str, Any]:
    """A job with its inputs."""
    records = {"records": str(inputs / "examples.jsonl")} if job["loop"] == "sft" else {}
    return {**job, "changes": {**job["changes"], "checkpoint": str(inputs / job["family"]), **records}}


def on_two_ranks(jobs: list[dict[str, Any]], folder: Path) -> Path:
    """What two ranks made of some jobs."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    ran = subprocess.run(
        [*command, str(HERE / "sharded_run.py"), str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def folder(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks made of the jobs."""
    jobs = [on(inputs, job) for job in [*JOBS, POISONED]]
    return on_two_ranks(jobs, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def more(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks made of `MORE`, which takes longer."""
    return on_two_ranks([on(inputs, job) for job in MORE], tmp_path_factory.mktemp("more"))


def curve(out: Path, name: str) -> list[float]:
    """Values of a logged curve."""
    lines = (out / "log" / "scalars" / f"{name}.csv").read_text().split()
    return [float(line.split(",")[1]) for line in lines]


def weights(out: Path) -> dict[str, torch.Tensor]:
    """Those of a saved checkpoint."""
    return load_file(out / "model.safetensors")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of two checkpoints' weights."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("job", [JOBS[0], *JOBS[2:]], ids=lambda job: job["name"])
def test_two_ranks_end_with_the_weights_of_one_process(
    folder: Path, inputs: Path, tmp_path: Path, job: dict[str, Any]
) -> None:
    """Three tasks or groups for two ranks, so that their shares differ; on what the ranks played."""
    assert_alike(folder / job["name"], tmp_path, on(inputs, job))


@pytest.mark.slow
@pytest.mark.parametrize("job", MORE, ids=lambda job: job["name"])
def test_more_loops_end_with_the_weights_of_one_process(
    more: Path, inputs: Path, tmp_path: Path, job: dict[str, Any]
) -> None:
    """The head alone, packed conversations, and a run that was stopped."""
    assert_alike(more / job["name"], tmp_path, on(inputs, job))


def assert_alike(out: Path, single: Path, job: dict[str, Any]) -> None:
    """Do a job in one process, and compare with what the ranks made of it.

    Args:
        out: run of the ranks.
        single: folder for the run of one process.
        job: with its inputs.
    """
    train(job, single, out / "records" if job["loop"] in PLAYED else None)
    if job["loop"] == "ppo":
        critics = [critic_of(one) for one in (out, single)]
        assert distance(*critics) < CLOSE
        assert all(
            float(critics[1][f"critic.{name}"].abs().max()) > 50 * CLOSE for name in ("weight", "bias")
        )
        if "critic_model" in job["changes"]:  # which has moved away from that of the policy
            model = make_actor(make_config(job)).model
            first = {f"critic_model.{name}": weight.detach() for name, weight in model.named_parameters()}
            first = {name: weight for name, weight in first.items() if name in critics[1]}
            assert len(first) > 20
            assert distance({name: critics[1][name] for name in first}, first) > 50 * CLOSE
    assert distance(weights(out / "model"), weights(single / "model")) < CLOSE
    assert distance(weights(single / "model"), weights(Path(job["changes"]["checkpoint"]))) > 5 * CLOSE
    # Adam does not see the scale of gradients: their norms do.
    for name in ("loss", "grad_norm"):
        assert curve(out, name) == pytest.approx(curve(single, name), rel=GRADIENT, abs=ROUNDING["atol"])
    assert curve(out, "grad_norm")[0] == pytest.approx(curve(single, "grad_norm")[0], rel=GRADIENT)


def test_each_rank_holds_half_and_scores_what_was_sampled(folder: Path) -> None:
    """Bytes of weights and moments add up to those of one process; log-probabilities agree."""
    for job in JOBS:
        found = [json.loads((folder / job["name"] / f"facts.{rank}.json").read_text()) for rank in range(2)]
        for name in ("weights", "moments"):
            whole = found[0][f"all_{name}"]
            assert sum(one[name] for one in found) == whole
            assert all(0.45 < one[name] / whole < 0.55 for one in found)
        assert (
            found[0]["collected"]
            == found[1]["collected"]
            == [f"{group}/{number}" for group in ("1000.0.0", "1000.0.1") for number in range(2)]
        )
        assert all(one["tokens"] > 20 and one["gap"] < ROUNDING["rtol"] for one in found)


def test_records_of_all_ranks_are_in_one_file_an_iteration(folder: Path) -> None:
    """Each group whole, each episode once, with the version that sampled it; metrics are over all."""
    for iteration in range(3):
        records = list(read_records(folder / "grpo" / "records" / f"{iteration:06d}.jsonl"))
        names = [(record.group, record.sample_index) for record in records]
        assert names == [(f"{iteration}.0.{group}", number) for group in range(3) for number in range(3)]
        versions = {v for record in records for turn in record.turns for v in turn.versions}
        assert versions == {iteration + 1}
        outputs = [turn.output for record in records for turn in record.turns]
        assert len(set(outputs)) > len(outputs) // 2  # ranks do not draw the same
        reward = sum(record.total_reward for record in records) / len(records)
        assert curve(folder / "grpo", "reward")[iteration] == pytest.approx(reward)


def test_a_run_that_was_stopped_ends_with_the_same_bits(folder: Path) -> None:
    """Stopped in the third iteration, resumed from the checkpoint after the second."""
    assert distance(weights(folder / "stopped" / "model"), weights(folder / "sft" / "model")) == 0.0
    assert curve(folder / "stopped", "loss") == curve(folder / "sft", "loss")


@pytest.mark.slow
def test_a_stopped_run_with_a_critic_plays_and_ends_as_without(folder: Path, more: Path) -> None:
    """The same episodes, and the same bits of policy and critic."""
    stopped, whole = more / "critic-stopped", folder / "critic"
    assert distance(weights(stopped / "model"), weights(whole / "model")) == 0.0
    assert distance(critic_of(stopped), critic_of(whole)) == 0.0
    assert curve(stopped, "loss") == curve(whole, "loss")
    assert list(read_records(stopped / "records")) == list(read_records(whole / "records"))


def test_one_process_goes_on_with_a_run_of_two(folder: Path, inputs: Path) -> None:
    """The checkpoint is whole: nothing is left to do, and the weights are there."""
    config = make_config(on(inputs, JOBS[0]))
    actor = make_actor(config)
    run = train_sft.train(config, actor, folder / "sft")  # type: ignore[arg-type]
    assert run.first_iteration == config.iterations
    saved = weights(folder / "sft" / "model")
    assert all(torch.equal(saved[name], weight) for name, weight in actor.model.model.named_parameters())


def test_a_loss_that_is_no_number_on_one_rank_stops_all(folder: Path) -> None:
    """With the same words, before any weight has changed on any rank."""
    told = [json.loads((folder / "poisoned" / f"facts.{rank}.json").read_text()) for rank in range(2)]
    assert told == [{"diverged": "the loss is nan and its gradient's norm nan"}] * 2
    assert not (folder / "poisoned" / "checkpoint").exists()


# --- what is divided ---------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=8),
    st.integers(1, 6),
    st.integers(1, 5),
)
def test_shares_are_whole_tasks_and_as_many_passes_for_all(
    runs: list[tuple[int, int]], at_once: int, number: int
) -> None:
    """Every record is in one part of one rank, neighbours of a task in one rank, and no rank waits."""
    keys = [key for key, count in runs for _ in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "size", lambda: number)
        found = plan_micro_batches(keys, at_once)
    parts = [[portion.parts for portion in share] for share in found]
    places = [
        place
        for share in parts
        for some in share
        for part in some
        for place in range(part.start, part.stop)
    ]
    assert places == list(range(len(keys)))
    assert all(1 <= part.stop - part.start <= at_once for share in parts for some in share for part in some)
    for share in found:
        for portion in share:
            own = [place for part in portion.parts for place in range(part.start, part.stop)]
            assert list(range(len(keys)))[portion.records] == (own or [0])
            # More than one part is one task: its beginning alone waits.
            assert len(portion.parts) < 2 or len({keys[place] for place in own}) == 1
            assert not own or not own[0] or keys[own[0] - 1] != keys[own[0]]  # whole tasks
    # As many portions for all, and as many passes in each; some rank has them all.
    assert len({len(share) for share in found}) == 1
    for together in zip(*found, strict=True):
        assert len({len(portion.parts) + portion.idle for portion in together}) == 1
        assert min(portion.idle for portion in together) == 0


def test_one_process_does_all_by_itself() -> None:
    """Nobody is asked, and work is called once with everything, even with nothing."""
    calls: list[list[int]] = []

    def double(some: Any) -> list[int]:
        calls.append(list(some))
        return [2 * one for one in some]

    assert map_across_ranks([1, 2, 3], double) == [2, 4, 6] and calls == [[1, 2, 3]]
    assert all_gather_object("a") == ["a"] and broadcast_from_rank0(lambda: 7) == 7
    two, one = (
        MicroBatchPlan(slice(0, 2), (slice(0, 2),), 0),
        MicroBatchPlan(slice(2, 3), (slice(2, 3),), 0),
    )
    assert plan_micro_batches("aab", 2) == [(two, one)]
    whole = MicroBatchPlan(slice(0, 3), (slice(0, 3),), 0)
    assert plan_micro_batches("aab", 3) == plan_micro_batches("abc", 4) == [(whole,)]
    split = MicroBatchPlan(slice(0, 2), (slice(0, 1), slice(1, 2)), 0)
    assert plan_micro_batches("aab", 1) == [(split, MicroBatchPlan(slice(2, 3), (slice(2, 3),), 0))]


# --- what is refused ---------------------------------------------------------------------------


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if torchrun had started this process."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    yield


@pytest.mark.usefixtures("torchrun")
@pytest.mark.parametrize("kind", ["async", "ray"])
def test_other_collectors_are_refused_by_name(inputs: Path, kind: Any) -> None:
    """Threads and workers would ask a model of which other ranks have parts."""
    config = train_grpo_mllm.Config.of(**{**GRPO, "checkpoint": str(inputs / "qwen3_vl")})
    with pytest.raises(ValueError, match=f"the collector '{kind}' is not made for torchrun"):
        make_collector(config, make_actor(config), groups=2, group_size=2, kind=kind)


def test_all_weights_train_in_bfloat16_where_shards_stay_in_float32(
    torchrun: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process would lose the steps, and says so."""
    assert train_sft.Config.of(dtype="bfloat16").model.dtype == "bfloat16"
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    with pytest.raises(ValueError, match="start it with torchrun"):
        train_sft.Config.of(dtype="bfloat16")
