"""PPO on a tiny Qwen-VL: what a turn and its tokens are worth, and that reward rises."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rounding import GRADIENT, assert_close, rounded
from small_chat import ODD, TASKS, build, load, make_actor, record
from small_runs import collisions
from torch import nn
from torchrl.checkpoint import Checkpoint

from agents.train_ppo_mllm import Config, estimate, make_shaping, train, value_loss
from agents.training.archive import read_metadata
from agents.training.run import CheckpointMismatch
from agents.vlm.actor import ChatActor
from agents.vlm.batch import RolloutBatch, rewards_of_turns
from agents.vlm.critic import Critic, make_critic
from agents.vlm.records import Record, TurnRecord, read_records
from agents.vlm.rollouts import make_chat_env, rollouts
from agents.vlm.scoring import Scorer

SMALL: dict[str, Any] = {
    "recipe": ODD,
    "tasks": TASKS,
    "eval_tasks": f"{TASKS}&split=val",
    "eval_episodes": 2,
    "max_new_tokens": 6,
    "temperature": 0.8,
    "groups": 3,
    "group_size": 2,
    "mini_batch_size": 4,
    "micro_batch_size": 2,
    "iterations": 4,
    "learning_rate": 1e-3,
    "critic_learning_rate": 1e-2,
    "bonus": "none",
    "kl_coef": 0.0,
    "eval_every": 4,
    "checkpoint_every": 2,
}


@pytest.fixture
def make(checkpoints: dict[str, Path]) -> Callable[[], ChatActor]:
    """Makes actors with the same weights."""
    return lambda: make_actor(load(checkpoints["qwen2_5_vl"]))


OWN = ("", "copy")  # a critic's model: the policy's, or one of its own


def critic(actor: ChatActor, bias: float = 0.0, model: str = "") -> Critic:
    """One that says the same of everything."""
    made = make_critic(Config.of(**SMALL), actor, model)
    nn.init.constant_(made.head.bias, bias)
    return made


def played(make: Callable[[], ChatActor], config: Config) -> tuple[ChatActor, list[Record]]:
    """Two-turn episodes of a fresh policy."""
    actor = make()
    env = make_chat_env(config, actor.model, TASKS, groups=1, group_size=2)
    records = rollouts(env, actor)
    assert all(len(one.played) == 2 for one in records)
    return actor, records


def test_episodes_of_different_lengths_are_one_table() -> None:
    """What was never played waits; an absent term is NaN; only the last turn ends the episode."""
    first = TurnRecord((), (), output=(1,), reward=0.5, terms={"a": 0.5, "b": None}, looked=True)
    last = TurnRecord((), (), output=(2,), reward=1.0, terms={"a": 0.0, "b": 1.0})
    td = rewards_of_turns(
        [record(first, last, ending="answered", success=True), record(last, ending="answered")]
    )
    after = td["next"]
    assert td["waiting"][..., 0].tolist() == [[False, False], [False, True]]
    assert after["reward"][..., 0].tolist() == [[0.5, 1.0], [1.0, 0.0]]
    assert after["terminated"][..., 0].tolist() == [[False, True], [True, False]]
    assert after["is_success"][..., 0].tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert after["looked"][..., 0].tolist() == [[True, False], [False, False]]
    assert after["terms", "a"][..., 0].nan_to_num(9.0).tolist() == [[0.5, 0.0], [0.0, 9.0]]
    assert after["terms", "b"][..., 0].nan_to_num(9.0).tolist() == [[9.0, 1.0], [1.0, 9.0]]


def test_a_cut_episode_is_never_scored() -> None:
    """Its gate was never settled."""
    with pytest.raises(ValueError, match="cut from outside"):
        rewards_of_turns([record(TurnRecord((), (), output=(1,), terms={}), abort_reason="context")])


@pytest.mark.parametrize("model", OWN)
@pytest.mark.parametrize("bias", [0.0, 3.0])
def test_every_token_is_worth_what_its_turn_and_later_ones_pay(
    make: Callable[[], ChatActor], bias: float, model: str
) -> None:
    """With lambda 1: r1 + 0.5 r2 in the first turn, r2 in the last, whatever the critic says."""
    config = Config.of(**SMALL | {"gamma_turn": 0.5})
    actor, records = played(make, config)
    batch, rewards = RolloutBatch(records, actor.model), make_shaping(config)(rewards_of_turns(records))
    estimate(config, batch, rewards["next", "reward"], critic(actor, bias, model))
    for row, one in zip(batch.rows, records, strict=True):
        r1, r2 = (turn.reward for turn in one.played)
        lengths = [len(turn.output) for turn in one.played]
        expected = torch.tensor([r1 + 0.5 * r2] * lengths[0] + [r2] * lengths[1])
        assert_close(row["target"], expected)
        assert row["value"].tolist() == pytest.approx([bias] * sum(lengths))
    advantage = torch.cat(batch.get("advantage"))
    assert len(advantage) == sum(one.sampled_tokens for one in records)
    assert advantage.mean().item() == rounded(0.0)
    assert advantage.std().item() == rounded(1.0)


def test_divergence_is_paid_for_token_by_token(
    make: Callable[[], ChatActor], checkpoints: dict[str, Path]
) -> None:
    """In a turn, the target falls by the penalties of its later tokens; no turn pays for another."""
    config = Config.of(**SMALL | {"kl_coef": 0.5})
    actor, records = played(make, config)
    other = load(checkpoints["qwen2_5_vl"])
    with torch.no_grad():
        other.model.lm_head.weight += 0.05 * torch.randn_like(other.model.lm_head.weight)
    reference = Scorer(other, 0.8)
    batch = RolloutBatch(records, actor.model)
    batch.set("reference", reference.log_probs(records, 16))
    rewards = make_shaping(config)(rewards_of_turns(records))["next", "reward"]
    estimate(config, batch, rewards, critic(actor))
    with torch.no_grad():
        first = reference(records[:1]).log_probs.tolist()
    row, (one, two) = batch.rows[0], records[0].played
    gaps = [p - q for p, q in zip((*one.log_probs, *two.log_probs), first, strict=True)]
    n = len(one.output)
    for place in range(len(gaps)):
        paid, ahead = (two.reward, gaps[place:]) if place >= n else (0.0, gaps[place:n])
        if place < n:
            # The end of a turn is worth its own pay and the discounted worth of the next end.
            paid = one.reward + 0.95 * (two.reward - 0.5 * gaps[-1])
        assert row["target"][place].item() == rounded(paid - 0.5 * sum(ahead), of=-sum(first))


def test_a_single_token_is_compared_with_nothing(make: Callable[[], ChatActor], tmp_path: Path) -> None:
    """All that was sampled: its advantage has no deviation, and no step is made."""
    once = replace(ODD, rules=replace(ODD.rules, max_turns=1))
    few = {"recipe": once, "groups": 1, "group_size": 1, "iterations": 1, "eval_episodes": 1}
    actor = make()
    actor.sampling = replace(actor.sampling, max_new_tokens=1)
    before = [weight.clone() for weight in actor.model.parameters()]
    train(Config.of(**SMALL | few), actor, tmp_path)
    (played,) = read_records(tmp_path / "records")
    assert played.sampled_tokens == 1 and not played.abort_reason
    assert all(torch.equal(a, b) for a, b in zip(before, actor.model.parameters(), strict=True))


@pytest.mark.parametrize("model", OWN)
def test_a_run_that_was_stopped_ends_with_the_same_bits(
    make: Callable[[], ChatActor], tmp_path: Path, model: str
) -> None:
    """Weights, critic, optimizer and records of 4 iterations are those of 2 and then 2 more."""
    config = Config.of(**SMALL | {"kl_coef": 0.01, "critic_model": model})
    train(config, make(), tmp_path / "whole")
    train(replace(config, iterations=2), make(), tmp_path / "parts")
    train(config, make(), tmp_path / "parts")
    began_with = read_metadata(tmp_path / "parts" / "checkpoint")["began_with"]
    assert list(began_with) == ["checkpoint", *["critic_model"] * bool(model)]
    other = make()  # of files that were written anew
    torch.nn.init.zeros_(next(other.model.parameters()))
    with pytest.raises(CheckpointMismatch, match=r"checkpoint .*whose weights have changed"):
        train(config, other, tmp_path / "parts")
    states = []
    for name in ("whole", "parts"):
        actor = make()
        trained = critic(actor, model=model)
        memory = nn.ModuleDict({"shaping": make_shaping(config), **trained.modules()})
        groups = [{"params": [*actor.model.parameters()]}, {"params": trained.parameters()}]
        optimizer = torch.optim.AdamW(groups)  # type: ignore[arg-type]
        Checkpoint(policy=actor.model, optimizer=optimizer, memory=memory).load(
            tmp_path / name / "checkpoint"
        )
        moments = [value for state in optimizer.state.values() for value in state.values()]
        states.append([*actor.model.state_dict().values(), *memory.state_dict().values(), *moments])
    assert len(states[0]) == len(states[1]) > 100
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    for number in range(4):
        texts = [(tmp_path / n / "records" / f"{number:06d}.jsonl").read_text() for n in ("whole", "parts")]
        assert texts[0] == texts[1]


def test_a_model_of_its_own_values_what_a_plain_pass_makes_of_it(
    make: Callable[[], ChatActor], checkpoints: dict[str, Path]
) -> None:
    """Values of another checkpoint, and the gradient that the error gives every weight of it."""
    config = Config.of(**SMALL | {"value_clip": 1e9})
    actor, records = played(make, config)
    other = load(checkpoints["qwen2_5_vl"])
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    made, plain = critic(actor, model="copy"), nn.Linear(other.model.config.text_config.hidden_size, 1)
    assert made.model is not None and not hasattr(made.model.model.lm_head, "weight")
    made.model.load_state_dict(other.state_dict(), strict=False)  # all but the output layer
    made.head.load_state_dict(plain.state_dict())
    scored = Scorer(other, share=False)(records)
    expected = plain(scored.hidden)[:, 0]
    assert_close(torch.cat(made.values(records, 1)), expected.detach())

    batch = RolloutBatch(records, actor.model)
    targets = [torch.randn(one.sampled_tokens) for one in records]
    batch.set("value", [torch.zeros_like(one) for one in targets])
    batch.set("target", targets)
    (0.5 * ((expected - torch.cat(targets)) ** 2).mean()).backward()
    for micro in made.micro_batches(records, 1):
        value_loss(config, made, batch, micro)[0].backward()
    mine, theirs = (dict(model.model.model.named_parameters()) for model in (made.model, other))
    assert mine.keys() == theirs.keys() and all(theirs[name].grad is not None for name in mine)
    largest = max(float(weight.grad.abs().max()) for weight in theirs.values() if weight.grad is not None)
    for name, weight in mine.items():
        assert weight.grad is not None and largest > 1e-4
        assert (weight.grad - theirs[name].grad).abs().max() < GRADIENT * largest, name
    assert made.head.weight.grad is not None and plain.weight.grad is not None
    assert_close(made.head.weight.grad, plain.weight.grad)
    assert all(weight.grad is None for weight in actor.model.parameters())


def test_a_critic_shapes_no_weight_of_the_policy(
    make: Callable[[], ChatActor], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """One iteration, whose advantages are returns, ends alike with a head and with a second model."""
    actors = []
    for number, model in enumerate(("", "copy", str(checkpoints["qwen2_5_vl"]))):
        config = Config.of(**SMALL | {"iterations": 1, "max_grad_norm": 1e9, "critic_model": model})
        actors.append(make())
        train(config, actors[-1], tmp_path / str(number))
    for other in actors[1:]:
        for mine, theirs in zip(actors[0].model.parameters(), other.model.parameters(), strict=True):
            assert (mine - theirs).abs().max() < 1e-6
    norms = tmp_path / "1" / "log" / "scalars" / "grad_norm_critic.csv"
    assert float(norms.read_text().split(",")[1]) > 0.01
    assert not collisions(tmp_path / "1", config.rules)


def test_a_critic_of_another_tokenizer_is_refused(make: Callable[[], ChatActor], tmp_path: Path) -> None:
    """What it would read is not what the policy wrote."""
    small = str(build(tmp_path / "small", "qwen2_5_vl", vocab_size=500))
    with pytest.raises(ValueError, match=r"the critic .*small has another tokenizer"):
        critic(make(), model=small)


def test_reward_rises(make: Callable[[], ChatActor], tmp_path: Path) -> None:
    """Letters with odd codes are paid, and become more."""
    config = Config.of(
        **SMALL
        | {
            "iterations": 30,
            "groups": 8,
            "mini_batch_size": 8,
            "micro_batch_size": 8,
            "learning_rate": 3e-3,
            "eval_every": 99,
        }
    )
    train(config, make(), tmp_path)
    lines = (tmp_path / "log" / "scalars" / "reward.csv").read_text().split()
    rewards = [float(line.split(",")[1]) for line in lines]
    # Other kernels sample other episodes, as other seeds do. Over four: 0.24 to 0.79, and with a
    # learning rate of 0 0.01 to 0.05.
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.1
