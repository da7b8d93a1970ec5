"""GRPO on a tiny Qwen-VL: what is learned from, what is passed over, and that reward rises."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rounding import rounded
from small_chat import FAMILIES, ODD, TASKS, Noise, batch_of, crop, grpo_step, load, make_actor
from small_runs import collisions
from torch import nn
from torchrl.checkpoint import Checkpoint

from agents import train_grpo_mllm
from agents.train_grpo_mllm import Config, compared, generate, grpo_loss, make_loss, train
from agents.training.groups import group_advantage
from agents.training.run import CheckpointMismatch
from agents.vlm.actor import ChatActor
from agents.vlm.batch import complete_groups
from agents.vlm.policy import make_model, trainable_parameters
from agents.vlm.records import Record, TurnRecord, read_records
from agents.vlm.rollouts import make_chat_env, rollouts
from agents.vlm.scoring import Scorer
from videogym import FrameStore, State, Term

SMALL: dict[str, Any] = {
    "recipe": ODD,
    "tasks": TASKS,
    "eval_tasks": f"{TASKS}&split=val",
    "eval_episodes": 2,
    "max_new_tokens": 6,
    "temperature": 0.8,
    "groups": 2,
    "group_size": 3,
    "mini_batch_groups": 1,
    "micro_batch_size": 2,
    "iterations": 4,
    "learning_rate": 1e-3,
    "eval_every": 4,
    "checkpoint_every": 2,
}


@pytest.fixture
def make(checkpoints: dict[str, Path]) -> Callable[[], ChatActor]:
    """Makes actors with the same weights."""
    return lambda: make_actor(load(checkpoints["qwen2_5_vl"]))


def curve(out: Path, name: str) -> list[float]:
    """Values of a logged curve."""
    lines = (out / "log" / "scalars" / f"{name}.csv").read_text().split()
    return [float(line.split(",")[1]) for line in lines]


def paid(records: list[Record], returns: list[float]) -> list[Record]:
    """The records with other rewards."""
    changed = []
    for one, value in zip(records, returns, strict=True):
        turns = (replace(turn, reward=0.0) for turn in one.turns[:-1])
        changed.append(replace(one, turns=(*turns, replace(one.turns[-1], reward=value))))
    return changed


# --- advantages --------------------------------------------------------------------------------


def test_advantages_compare_rollouts_within_their_group(make: Callable[[], ChatActor]) -> None:
    """Returns 0, 1, 2 give -1, 0, 1 whatever others have; equal ones give 0 and teach nothing."""
    config, actor = Config.of(**SMALL), make()
    env = make_chat_env(config, actor.model, TASKS, groups=2, group_size=3)
    records = paid(rollouts(env, actor), [0.0, 1.0, 2.0, 5.0, 5.0, 5.0])
    returns = batch_of(actor, records, torch.zeros(6)).returns
    assert returns.tolist() == [0.0, 1.0, 2.0, 5.0, 5.0, 5.0]
    advantages = group_advantage(returns, 3)
    assert advantages.tolist() == rounded([-1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    batch = batch_of(actor, records, advantages)
    assert [len(value) for value in batch.get("advantage")] == [one.sampled_tokens for one in records]
    assert batch.with_contrast(3).records == records[:3]


def test_equal_fractional_rewards_have_no_contrast(make: Callable[[], ChatActor]) -> None:
    """Sixteen returns of 1.3, whose mean is another number in float32, are nothing to learn from."""
    config = Config.of(**{**SMALL, "groups": 1, "group_size": 16, "max_new_tokens": 1})
    actor = make()
    env = make_chat_env(config, actor.model, TASKS, groups=1, group_size=16)
    records = paid(rollouts(env, actor), [1.3] * 16)
    returns = batch_of(actor, records, torch.zeros(16)).returns
    batch = batch_of(actor, records, group_advantage(returns, 16))
    assert len(batch.with_contrast(16)) == 0


def test_a_new_run_in_a_folder_keeps_no_records_of_another(
    make: Callable[[], ChatActor], tmp_path: Path
) -> None:
    """Files of iterations that are still to be done go, others are not touched."""
    old = tmp_path / "records"
    old.mkdir()
    for name in ("000007.jsonl", "notes.jsonl", "000000.jsonl"):
        (old / name).write_text("{}")
    train(
        Config.of(**{**SMALL, "iterations": 1, "max_new_tokens": 1, "eval_episodes": 1}), make(), tmp_path
    )
    assert sorted(path.name for path in old.iterdir()) == ["000000.jsonl", "notes.jsonl"]
    assert (old / "000000.jsonl").read_text() != "{}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": -1}, "window"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"eval_every": 0}, "eval_every must be at least 1"),
        ({"dtype": "bfloat16"}, "lora_rank"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(changes: dict[str, Any], message: str) -> None:
    """When the config is made, not hours later."""
    with pytest.raises(ValueError, match=message):
        Config.of(**changes)


def test_groups_with_a_rollout_that_was_cut_are_passed_over(make: Callable[[], ChatActor]) -> None:
    """One cut rollout of three takes its group along; where all are cut there is nothing to learn from."""
    config, actor = Config.of(**SMALL), make()
    env = make_chat_env(config, actor.model, TASKS, groups=2, group_size=3)
    records = rollouts(env, actor)
    records[1] = replace(records[1], abort_reason="context", ending="")
    assert complete_groups(records) == records[3:]
    records[5] = replace(records[5], abort_reason="fault: gone", ending="")
    assert complete_groups(records) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_makes_the_better_rollout_likelier(checkpoints: dict[str, Path], family: str) -> None:
    """Of two rollouts of one task the one with the higher return gains probability, the other loses it."""
    actor = make_actor(load(checkpoints[family]))
    config = Config.of(**{**SMALL, "groups": 1, "group_size": 2, "kl_coef": 0.0})
    env = make_chat_env(config, actor.model, TASKS, groups=1, group_size=2)
    records = paid(rollouts(env, actor), [1.0, 0.0])
    minibatch = batch_of(actor, records, torch.tensor([1.0, -1.0]))

    def log_probs() -> list[float]:
        with torch.no_grad():
            scored = Scorer(actor.model, 0.8)(records)
        return [float(some.mean()) for some in scored.log_probs.split(scored.counts)]

    before = log_probs()
    values = grpo_step(config, actor, minibatch, torch.optim.SGD(trainable_parameters(actor.model), 0.1))
    after = log_probs()
    assert after[0] > before[0] and after[1] < before[1]
    assert values["clip_fraction"] == 0.0 and values["ess"] == rounded(1.0)


# --- runs --------------------------------------------------------------------------------------


def test_a_run_leaves_curves_records_and_a_checkpoint(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """On real frames, with a reference: one file of rollouts an iteration, a point in every curve."""
    config = Config.of(
        **{**SMALL, "iterations": 2, "checkpoint": str(checkpoints["qwen3_vl"]), "video_form": True},
    )
    config = replace(config, mini_batch_groups=2)
    actor = make_actor(make_model(config, FrameStore()))
    run = train(config, actor, tmp_path)
    rewards = curve(tmp_path, "reward")
    for iteration in range(2):
        records = list(read_records(tmp_path / "records" / f"{iteration:06d}.jsonl", ODD.identity))
        assert len(records) == 6 and all(one.ending for one in records)
        assert rewards[iteration] == pytest.approx(sum(one.total_reward for one in records) / 6)
        versions = {v for one in records for turn in one.turns for v in turn.versions}
        assert versions == {iteration + 1}
    assert not collisions(tmp_path, ODD)
    for name in ("odd", "turns", "tokens", "invalid_rate", "cut_rate", "groups", "loss", "grad_norm"):
        assert len(curve(tmp_path, name)) == 2
    assert curve(tmp_path, "kl_to_first")[0] == rounded(0.0)
    assert len(curve(tmp_path, "eval_reward")) == 1
    assert run.turns == sum(len(one.played) for one in read_records(tmp_path / "records"))
    assert train(config, make_actor(make_model(config, FrameStore())), tmp_path).first_iteration == 2


class Killed(BaseException):
    """The end of a process, which nothing catches."""


def test_a_run_that_was_killed_ends_with_the_same_bits(
    make: Callable[[], ChatActor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the third of four iterations: weights, optimizer and rollouts are as in one go."""
    config = Config.of(**{**SMALL, "micro_batch_size": 3, "eval_episodes": 1, "max_new_tokens": 4})
    train(config, make(), tmp_path / "whole")
    steps, real = [], train_grpo_mllm.optimizer_step

    def step(*arguments: Any) -> dict[str, float]:
        steps.append(1)
        if len(steps) == 6:  # two an iteration
            raise Killed
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train_grpo_mllm, "optimizer_step", step)
        with pytest.raises(Killed):
            train(config, make(), tmp_path / "parts")
    assert train(config, make(), tmp_path / "parts").first_iteration == 2
    states = []
    for name in ("parts", "whole"):
        actor = make()
        optimizer = torch.optim.AdamW(
            trainable_parameters(actor.model),
            config.learning_rate,
            weight_decay=config.optimizer.weight_decay,
        )
        parts = {"policy": actor.model, "optimizer": optimizer, "memory": nn.Module()}
        Checkpoint(format="archive", **parts).load(tmp_path / name / "checkpoint")
        states.append((actor.model.state_dict(), optimizer.state_dict()["state"]))
    first = make().model.state_dict()
    assert any(not torch.equal(value, first[key]) for key, value in states[0][0].items())
    assert all(torch.equal(value, states[1][0][key]) for key, value in states[0][0].items())
    for key, moments in states[1][1].items():
        assert all(torch.equal(states[0][1][key][name], moments[name]) for name in moments)
    found, expected = (list(read_records(tmp_path / name / "records")) for name in ("parts", "whole"))
    assert found == expected
    assert curve(tmp_path / "parts", "loss") == curve(tmp_path / "whole", "loss")
    # Its checkpoint was overwritten: the reference would be another policy.
    other = make()
    with torch.no_grad():
        list(other.model.parameters())[-1].view(-1)[-1] += 0.5
    with pytest.raises(CheckpointMismatch, match=r"weights have changed since it began; choose another"):
        train(config, other, tmp_path / "parts")


@pytest.mark.parametrize("kl", [0.0, 0.01])
def test_a_group_whose_frames_cannot_be_shown_is_passed_over(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kl: float
) -> None:
    """In its second turn a video is gone for good: its rollouts are cut, the other group is learned."""
    config = Config.of(**{**SMALL, "iterations": 1, "kl_coef": kl})
    actor = make_actor(load(checkpoints["qwen2_5_vl"], Gone()))
    chat = make_chat_env(config, actor.model, TASKS).chat
    call = [*chat.output_ids(crop(20, 23)), chat.end_id]
    sample = actor.answer

    def look_first(records: Sequence[Record], **options: Any) -> list[Record]:
        if len(records[0].turns) > 1 or options:
            return sample(records, **options)
        return [one.answered(call, [-1.0] * len(call), [1] * len(call)) for one in sample(records)]

    monkeypatch.setattr(actor, "answer", look_first)
    train(config, actor, tmp_path)
    records = list(read_records(tmp_path / "records"))
    assert all(one.turns[0].looked for one in records)
    assert [one.abort_reason != "" for one in records] == [True] * 3 + [False] * 3
    assert all("its packets are gone" in one.abort_reason for one in records[:3])
    assert (curve(tmp_path, "groups"), curve(tmp_path, "cut_rate")) == ([1.0], [0.5])
    assert len(curve(tmp_path, "loss")) == 1


class Gone(Noise):
    """The first video that is asked for cannot be shown a second time, by any copy of the store."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Gone":
        return self

    def frames(self, source: str, *arguments: Any, **view: Any) -> Any:
        """Frames of noise, once."""
        if source == self.first:
            self.broken.add(source)
        self.first = self.first or source
        return super().frames(source, *arguments, **view)


@pytest.mark.parametrize("kl", [0.0, 0.01])
def test_an_iteration_without_a_whole_rollout_learns_nothing(
    checkpoints: dict[str, Path], tmp_path: Path, kl: float, caplog: pytest.LogCaptureFixture
) -> None:
    """No frame can be shown: all rollouts are cut before a word is said, and the weights stay.

    The evaluation, which says nothing, ends nothing.
    """

    class Empty(Noise):
        def frames(self, source: str, *arguments: Any, **view: Any) -> Any:
            self.broken.add(source)
            return super().frames(source, *arguments, **view)

    actor = make_actor(load(checkpoints["qwen2_5_vl"], Empty()))
    before = [parameter.clone() for parameter in actor.model.parameters()]
    train(Config.of(**{**SMALL, "iterations": 1, "kl_coef": kl}), actor, tmp_path)
    assert curve(tmp_path, "cut_rate") == [1.0] and curve(tmp_path, "groups") == [0.0]
    assert (
        curve(tmp_path, "eval_cut_rate") == [1.0] and not (tmp_path / "log/scalars/eval_turns.csv").exists()
    )
    assert "no episode could be scored: all 2 were cut, such as " in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(before, actor.model.parameters(), strict=True))


def test_reward_rises(make: Callable[[], ChatActor], tmp_path: Path) -> None:
    """Letters with odd codes are paid for: ten iterations raise their share by a tenth at least."""
    config = Config.of(**{**SMALL, "iterations": 10, "groups": 2, "group_size": 8, "mini_batch_groups": 2})
    config = config.with_options(
        micro_batch_size=16, learning_rate=5e-3, kl_coef=0.0, eval_every=10, checkpoint_every=10
    )
    train(config, make(), tmp_path)
    rewards = curve(tmp_path, "reward")
    # Other kernels sample other episodes, as other seeds do. Over four: 0.15 to 0.36, and with a
    # learning rate of 0 0.01 to 0.02.
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1, [round(value, 2) for value in rewards]


# --- what makes the signal count ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"group_size": 1}, "group_size must be at least 2, got 1"),
        ({"group_size": 1, "credit": "turn"}, "group_size must be at least 2, got 1"),
        ({"max_generation_batches": 0}, "max_generation_batches must be at least 1, got 0"),
    ],
)
def test_options_of_the_signal_are_refused_early(changes: dict[str, Any], told: str) -> None:
    """Before anything is sampled."""
    with pytest.raises(ValueError, match=told):
        Config.of(**{**SMALL, **changes})


def test_without_the_deviation_groups_weigh_by_how_much_differs(make: Callable[[], ChatActor]) -> None:
    """Returns 0, 1, 2 and 0, 0.1, 0.2: alike over their deviation, a tenth of each other without."""
    config, actor = Config.of(**SMALL), make()
    env = make_chat_env(config, actor.model, TASKS, groups=2, group_size=3)
    records = paid(rollouts(env, actor), [0.0, 1.0, 2.0, 0.0, 0.1, 0.2])
    for scale, expected in ((True, [-1.0, 0.0, 1.0] * 2), (False, [-1.0, 0.0, 1.0, -0.1, 0.0, 0.1])):
        batch = compared(replace(config, scale_by_std=scale), records, actor)
        found = [float(value[0]) for value in batch.get("advantage")]
        assert found == rounded(expected)
        assert len(batch.with_contrast(3)) == 6


def test_credit_of_turns_tells_a_look_from_an_answer(make: Callable[[], ChatActor]) -> None:
    """Two rollouts of two turns, paid 0.5 and 1.0, 0.0 and 1.0: only the first turns differ in worth."""
    config = Config.of(**{**SMALL, "groups": 1, "group_size": 2, "credit": "turn", "scale_by_std": False})
    actor = make()
    env = make_chat_env(config, actor.model, TASKS, groups=1, group_size=2)
    records = [
        replace(one, turns=tuple(terms(turn, paid) for turn, paid in zip(one.turns, rewards, strict=True)))
        for one, rewards in zip(rollouts(env, actor), ([0.5, 1.0], [0.0, 1.0]), strict=True)
    ]
    found = compared(config, records, actor).get("advantage")
    for values, record, expected in zip(found, records, ([0.25, 0.0], [-0.25, 0.0]), strict=True):
        lengths = [len(turn.output) for turn in record.turns]
        assert values.tolist() == [expected[0]] * lengths[0] + [expected[1]] * lengths[1]
    whole = compared(replace(config, credit="trajectory"), records, actor).get("advantage")
    assert [set(values.tolist()) for values in whole] == [{0.25}, {-0.25}]


def terms(turn: TurnRecord, reward: float) -> TurnRecord:
    """A turn that was paid so much by the recipe's only term."""
    return replace(turn, reward=reward, terms={"odd": reward})


class Scripted:
    """A collector whose groups have contrast or not, as it is told, batch by batch."""

    def __init__(self, actor: ChatActor, config: Config, contrast: Sequence[Sequence[bool]]) -> None:
        env = make_chat_env(config, actor.model, TASKS, groups=config.groups, group_size=3)
        self.env, self.actor, self.contrast = env, actor, list(contrast)
        self.asked: list[int] = []

    def collect(self, iteration: int) -> list[Record]:
        """The next batch."""
        self.asked.append(iteration)
        self.env.set_seed(iteration)
        returns = [value * differs for differs in self.contrast.pop(0) for value in (0.0, 1.0, 2.0)]
        return paid(rollouts(self.env, self.actor), returns)


def test_groups_without_contrast_are_replaced_until_the_batch_is_full(
    make: Callable[[], ChatActor],
) -> None:
    """One of two, then none, then both: three batches, of which the first two groups are learned."""
    config, actor = Config.of(**{**SMALL, "max_generation_batches": 5, "max_new_tokens": 1}), make()
    collector = Scripted(actor, config, [[True, False], [False, False], [True, True], [True, True]])
    sampled, batch = generate(config, collector, 7, actor)  # type: ignore[arg-type]
    assert len(sampled) == 18 and batch.records == [*sampled[:3], *sampled[12:15]]
    assert collector.asked[0] == 7 and len(set(collector.asked)) == 3
    assert len({one.group for one in sampled}) == 6, "other tasks, or at least other groups"


def test_a_batch_that_never_fills_is_bounded_and_said(
    make: Callable[[], ChatActor], caplog: pytest.LogCaptureFixture
) -> None:
    """Three batches with one group of contrast in all: that is learned from, and the log says so."""
    config, actor = Config.of(**{**SMALL, "max_generation_batches": 3, "max_new_tokens": 1}), make()
    collector = Scripted(actor, config, [[False, False], [False, True], [False, False]])
    sampled, batch = generate(config, collector, 7, actor)  # type: ignore[arg-type]
    assert len(sampled) == 18 and batch.records == sampled[9:12]
    assert "iteration 7: 1 of 2 groups have contrast after 3 batches" in caplog.text


def test_a_run_that_never_has_contrast_ends(make: Callable[[], ChatActor], tmp_path: Path) -> None:
    """All outputs are cut at one token that pays nothing to anyone: no step is made, and none hangs."""
    nothing = replace(ODD, name="NOTHING", terms=(Term("odd", "turn", unpaid),))
    changes = {"recipe": nothing, "iterations": 2, "max_generation_batches": 2, "max_new_tokens": 1}
    actor = make()
    before = [parameter.clone() for parameter in actor.model.parameters()]
    train(Config.of(**{**SMALL, **changes, "kl_coef": 0.0, "eval_episodes": 1}), actor, tmp_path)
    assert curve(tmp_path, "groups") == [0.0, 0.0] and curve(tmp_path, "batches") == [2.0, 2.0]
    assert all(torch.equal(a, b) for a, b in zip(before, actor.model.parameters(), strict=True))


def unpaid(before: State, after: State) -> float:
    """Pays nothing."""
    return 0.0


def test_a_higher_clip_lets_unlikely_tokens_rise_further(make: Callable[[], ChatActor]) -> None:
    """At a ratio of 1.25 a rollout above its group's mean is still learned with 0.28, not with 0.2."""
    config, actor = Config.of(**{**SMALL, "kl_coef": 0.0}), make()
    env = make_chat_env(config, actor.model, TASKS, groups=1, group_size=2)
    batch = batch_of(actor, rollouts(env, actor), torch.tensor([1.0, 1.0]))
    for row in batch.rows:  # as if each token had been sampled a quarter less likely
        row["log_probs"] = row["log_probs"] - math.log(1.25) * row["mask"]
    norms = []
    for high in (0.2, 0.28):
        loss_module = make_loss(replace(config, clip_high=high), actor.model.device)
        micro = next(actor.scorer.micro_batches(batch.records, 2))
        loss, _ = grpo_loss(config, loss_module, batch.tensors(micro), micro)
        found = torch.autograd.grad(
            loss, trainable_parameters(actor.model), allow_unused=True, materialize_grads=True
        )
        norms.append(sum(float(one.norm()) for one in found))
    assert norms[0] == 0.0 and norms[1] > 0.0
