"""The actor in TorchRL: environments, collectors and losses take it; what cannot be shown is cut."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rounding import assert_close, rounded
from small_chat import (
    FAMILIES,
    Noise,
    batch_of,
    crop,
    image,
    load,
    make_actor,
    make_env,
    mixed,
    play,
    record,
    said,
    shown,
    stored,
    tensors,
)
from tensordict import NonTensorData, TensorDict
from torchrl.collectors.llm import LLMCollector
from torchrl.envs import Compose, InitTracker, RewardSum, TransformedEnv
from torchrl.envs.utils import check_env_specs
from torchrl.objectives.llm import GRPOLoss

from agents.models.qwen_vl import QwenVL
from agents.training.losses import SampledTokens, ScoredPolicy
from agents.vlm.actor import ChatActor, context_of, loss_entries
from agents.vlm.batch import RolloutBatch
from agents.vlm.records import Record, TurnRecord
from agents.vlm.rollouts import rollouts


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> QwenVL:
    """A tiny model of either family."""
    return load(checkpoints[request.param])


@pytest.fixture
def actor(checkpoints: dict[str, Path]) -> ChatActor:
    """A policy of the first family."""
    return make_actor(load(checkpoints["qwen2_5_vl"]))


# --- acting ------------------------------------------------------------------------------------


def test_a_batch_gets_one_output_a_row_and_a_waiting_row_none(actor: ChatActor) -> None:
    """The row that waits keeps its record; the others' are longer by what was sampled."""
    env = make_env(actor.model, groups=1)
    batch = env.reset()
    over = said(env, batch[1]["record"], "mumble")
    batch[1]["record"] = NonTensorData(replace(over, ending="answered"))
    batch[1]["waiting"] = torch.tensor([True])
    after = actor(batch)
    first, second, third = (row["record"] for row in after.unbind(0))
    assert second == replace(over, ending="answered")
    for one in (first, third):
        (turn,) = one.turns
        assert len(turn.output) == len(turn.log_probs) == len(turn.versions) > 0
        assert all(p < 0 for p in turn.log_probs)
    sampled = after[0]["masks", "all_assistant_mask"]
    assert after[0]["tokens", "full"][sampled].tolist() == list(first.turns[0].output)
    alone = make_env(actor.model, groups=1).reset()[0]
    assert actor(alone)["record"].turns[0].output


def test_the_entries_of_the_loss_are_those_of_the_conversation(actor: ChatActor) -> None:
    """Placeholders are spread, masks cover outputs alone, log-probabilities stand on their tokens."""
    model = actor.model
    two, three = image(0.0, (56, 28)), image(1.0, (84, 28))
    first = TurnRecord(shown(model, [two], "ab"), (two,), (5, 6), (-1.0, -2.0))
    second = TurnRecord(shown(model, [three], "c"), (three,), (7,), (-3.0,))
    entries = loss_entries(record(first, second, head=(9, 9)), model)
    start, pad, end, _ = model.vision_ids
    a, b = model.tokenizer.encode("ab"), model.tokenizer.encode("c")
    expected = [9, 9, start, pad, pad, end, *a, 5, 6, start, pad, pad, pad, end, *b, 7]
    assert entries["tokens"].tolist() == expected
    mask = entries["mask"].tolist()
    assert [place for place, sampled in enumerate(mask) if sampled] == [
        6 + len(a),
        7 + len(a),
        len(expected) - 1,
    ]
    log_probs = entries["log_probs"]
    assert log_probs[log_probs != 0].tolist() == [-1.0, -2.0, -3.0]
    assert [i for i, p in enumerate(log_probs.tolist()) if p] == [i for i, s in enumerate(mask) if s]


def test_pushing_stamps_a_new_version(actor: ChatActor) -> None:
    """Outputs say which weights sampled them."""
    env = make_env(actor.model, groups=1)
    actor.update_weights()
    actor.update_weights()
    records = play(env, actor)
    assert {version for one in records for turn in one.turns for version in turn.versions} == {2}


def test_greedy_answers_do_not_depend_on_the_generator(actor: ChatActor) -> None:
    """`answer` with other settings than the actor's own."""
    env = make_env(actor.model, groups=1)
    records = [row["record"] for row in env.reset().unbind(0)]
    greedy = replace(actor.sampling, greedy=True)
    first = actor.answer(records, greedy)
    torch.manual_seed(99)
    outputs = {one.turns[0].output for one in (*first, *actor.answer(records, greedy))}
    assert len(outputs) == 1
    assert context_of(records[0]).ids == records[0].context(0)[0]


def test_frames_that_cannot_be_shown_cut_their_rows_alone(
    actor: ChatActor, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of a batch one group's video fails: its rows are cut with the cause, the others end."""
    env = make_env(actor.model)
    store = actor.model.store
    assert isinstance(store, Noise)

    def failing(turn: int, row: int) -> str | None:
        if turn == 0 and row == 5:
            store.broken.add(env.snapshots[0].state.task.video)  # from the second turn on
        return crop(10 + row, 14) if turn == 0 else None

    with caplog.at_level(logging.WARNING):
        records = play(env, actor, failing)
    for one in records[:3]:
        assert one.abort_reason.startswith("fault: ") and "its packets are gone" in one.abort_reason
        assert one.success is None and one.ending == ""
        assert [bool(turn.output) for turn in one.turns] == [True, False]
    for one in records[3:]:
        assert one.abort_reason == "" and one.ending == "turn_limit" and len(one.turns) == 5
    assert {entry.args[0] for entry in caplog.records if isinstance(entry.args, tuple)} == {
        records[0].task_id
    }
    assert_close(torch.cat([s for s in _scores(actor, records[3:])]), _sampled(records[3:]))


def _scores(actor: ChatActor, records: list[Record]) -> list[torch.Tensor]:
    with torch.no_grad():
        scored = actor.scorer(records)
    mask = stored(records) != 0.0
    return [scored.log_probs[mask]]


def _sampled(records: list[Record]) -> torch.Tensor:
    found = stored(records)
    return found[found != 0.0]


# --- scoring -----------------------------------------------------------------------------------


def test_distributions_are_known_at_the_sampled_tokens_only(actor: ChatActor) -> None:
    """Left-padded; zero elsewhere; other tokens, or another padding, are refused."""
    records = play(make_env(actor.model), actor, mixed)
    with torch.no_grad():
        batch, scored = tensors(actor, batch_of(actor, records, torch.zeros(6))), actor.scorer(records)
    tokens, mask = batch["tokens", "full"], batch["masks", "all_assistant_mask"]
    assert not mask[:, 0].all() and mask[:, -1].all()
    dist = SampledTokens(batch)
    assert torch.equal(dist.mask, mask)
    log_probs = dist.log_prob(tokens)
    assert torch.equal(log_probs[mask], scored.log_probs) and not log_probs[~mask].any()
    assert torch.equal(dist.entropy()[mask], scored.entropies) and not dist.entropy()[~mask].any()
    with pytest.raises(ValueError, match="only these were scored"):
        dist.log_prob(tokens + mask)
    with pytest.raises(ValueError, match="only these were scored"):
        dist.log_prob(tokens[:, 1:])


# --- TorchRL -----------------------------------------------------------------------------------


def test_the_environment_keeps_its_specs(actor: ChatActor) -> None:
    """Resets and whole episodes give what was announced, in its shapes and types."""
    env = make_env(actor.model)
    assert env.observation_spec.is_in(env.reset())
    last = env.rollout(9, actor, break_when_any_done=True, return_contiguous=False)[:, -1]
    assert last["next", "done"].all()
    assert all(isinstance(row["next", "record"], Record) for row in last.unbind(0))
    for name, spec in (("reward", env.reward_spec), ("waiting", env.observation_spec["waiting"])):
        assert last["next", name].shape == spec.shape and last["next", name].dtype == spec.dtype


def test_the_environment_passes_the_check_of_torchrl(
    actor: ChatActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An action is a record, which cannot be drawn at random: a fixed text is said instead."""
    env = make_env(actor.model)

    def mumble(tensordict: TensorDict) -> TensorDict:
        for row in tensordict.unbind(0):
            if not row["record"].done:
                row["record"] = NonTensorData(said(env, row["record"], "mumble"))
        return tensordict

    monkeypatch.setattr(env, "rand_action", mumble)
    check_env_specs(env, return_contiguous=False)


def test_a_collector_gives_whole_episodes(actor: ChatActor) -> None:
    """One last step a row; its record is complete, its reward the sum over turns."""
    env = make_env(actor.model)
    collector = LLMCollector(
        # InitTracker only keeps the collector from warning that it may add one itself.
        TransformedEnv(env, Compose(RewardSum(), InitTracker())),
        policy=actor,
        dialog_turns_per_batch=6,
        yield_only_last_steps=True,
    )
    names = set()
    for number, batch in enumerate(collector):
        assert len(batch) == 6
        records = [row["next", "record"] for row in batch.unbind(0)]
        names |= {one.group for one in records}
        assert all(one.ending for one in records)
        sums = [one.total_reward for one in records]
        assert batch["next", "episode_reward"].flatten().tolist() == rounded(sums)
        if number == 1:
            break
    collector.shutdown()
    assert len(names) == 4, "every batch has groups of its own"


def test_torchrls_own_loss_trains_it(model: QwenVL) -> None:
    """At the sampled weights the ratio is 1, so that the loss of `GRPOLoss` is minus the mean advantage."""
    actor = make_actor(model)
    records = rollouts(make_env(model), actor)
    advantages = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0, -1.0])
    for aggregation in ("prompt_mean", "token_mean"):
        loss = GRPOLoss(
            ScoredPolicy(), entropy_bonus=True, masking_strategy="rlhf", aggregation=aggregation
        )
        losses = loss(tensors(actor, batch_of(actor, records, advantages)))
        lengths = torch.tensor([one.sampled_tokens for one in records], dtype=torch.float32)
        weights = torch.ones(6) if aggregation == "prompt_mean" else lengths
        expected = -(advantages * weights).sum() / weights.sum()
        size = float(stored(records).abs().max() * advantages.abs().max())
        assert_close(losses.loss_objective.squeeze(), expected, of=size)
        assert float(losses.clip_fraction) == 0.0
        assert losses.loss_entropy.isfinite().all()
        losses.loss_objective.sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert sum(bool(gradient.any()) for gradient in gradients) > 10
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_batch_keeps_tensors_by_rollout(model: QwenVL) -> None:
    """Episodes of one and of five turns, some with frames; minibatches have the rows of the whole."""
    actor = make_actor(model)
    records = play(make_env(model), actor, mixed)
    batch = RolloutBatch(records, model)
    assert len({len(ids) for ids in batch.get("tokens")}) >= 3
    parts = list(batch.split(4))
    assert [part.records for part in parts] == [records[:4], records[4:]]
    assert all(row is batch.rows[4 + place] for place, row in enumerate(parts[1].rows))
    assert batch.returns.tolist() == [one.total_reward for one in records]
