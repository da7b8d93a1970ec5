"""The memory budget holds: rows in play, tokens read, patches seen, prefixes kept."""

# ruff: noqa: D103

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rounding import assert_close, assert_equal_gradients, rounded
from small_chat import FAMILIES, RECIPE, TASKS, crop, image, load, make_actor, make_env, play, said
from torch import Tensor

from agents.collectors.rollouts import make_collector
from agents.engines import reading
from agents.engines.transformers_engine import TransformersEngine
from agents.models import qwen_vl
from agents.models.padding import runs
from agents.models.qwen_vl import QwenVL
from agents.train_grpo_mllm import Config
from agents.vlm import policy
from agents.vlm.actor import ChatActor, context_of
from agents.vlm.evaluation import make_evaluator
from agents.vlm.policy import make_actor as configured
from agents.vlm.records import Record
from agents.vlm.rollouts import make_chat_env, rollouts


@pytest.fixture(params=FAMILIES)
def actor(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> ChatActor:
    return make_actor(load(checkpoints[request.param]))


def spied(model: QwenVL, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Shapes (B, L) of what goes through the language model from now on."""
    shapes: list[tuple[int, int]] = []
    hidden = model.hidden

    def spy(ids: Tensor, *rest: Any) -> Tensor:
        shapes.append((ids.shape[0], ids.shape[1]))
        return hidden(ids, *rest)

    monkeypatch.setattr(model, "hidden", spy)
    return shapes


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 200))
def test_runs_cover_all_and_are_no_larger_than_allowed(sizes: list[int], most: int) -> None:
    found = runs(sizes, most)
    assert [size for some in found for size in sizes[some]] == sizes
    for some in found:
        assert len(sizes[some]) == 1 or len(sizes[some]) * max(sizes[some]) <= most
    for one, other in itertools.pairwise(found):  # none could have taken the next as well
        longer = sizes[one.start : other.start + 1]
        assert len(longer) * max(longer) > most


# --- rollouts ----------------------------------------------------------------------------------


def test_so_many_episodes_are_in_play_and_those_that_ended_are_forgotten(
    actor: ChatActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six likeliest episodes, two at once: the same outputs, and keys and values of two at most."""
    actor.sampling = replace(actor.sampling, greedy=True)
    engine = actor.engine
    assert isinstance(engine, TransformersEngine)
    together = rollouts(make_env(actor.model), actor)
    assert not engine._kept
    shapes, kept = spied(actor.model, monkeypatch), [0]
    keep = engine._keep

    def count(*arguments: Any) -> None:
        keep(*arguments)
        kept.append(len(engine._kept))

    monkeypatch.setattr(engine, "_keep", count)
    apart = rollouts(make_env(actor.model), actor, at_once=2)
    assert max(rows for rows, _ in shapes) == max(kept) == 2 and not engine._kept
    assert [one.turns[-1].output for one in apart] == [one.turns[-1].output for one in together]
    assert [(one.group, one.sample_index) for one in apart] == [
        (one.group, one.sample_index) for one in together
    ]
    assert all(one.ending for one in apart)


def test_collectors_and_evaluation_keep_the_bound(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = make_actor(load(checkpoints["qwen2_5_vl"]), max_new_tokens=2)
    options: dict[str, Any] = {"recipe": RECIPE, "tasks": TASKS, "eval_tasks": f"{TASKS}&split=val"}
    config = Config.of(**options, max_concurrent_rollouts=3, eval_episodes=5)
    collector = make_collector(config, actor, groups=2, group_size=4)
    collector.update_policy_weights_()
    shapes = spied(actor.model, monkeypatch)
    assert len(collector.collect(0)) == 8
    assert max(rows for rows, _ in shapes) == 3
    shapes.clear()
    assert 0.0 <= make_evaluator(config, actor)()["eval_accuracy"] <= 1.0
    assert max(rows for rows, _ in shapes) == 3
    assert isinstance(actor.engine, TransformersEngine) and not actor.engine._kept
    collector.close()


def test_threads_keep_the_bound(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Four episodes of two groups would be in play, and keys and values of those that have ended stay."""
    options: dict[str, Any] = {"recipe": RECIPE, "tasks": TASKS, "max_new_tokens": 2}
    config = Config.of(**options, max_concurrent_rollouts=3)
    actor = configured(config, load(checkpoints["qwen2_5_vl"]))
    engine, kept = actor.engine, [0]
    assert isinstance(engine, TransformersEngine)
    keep, generate, asked = engine._keep, engine.generate, [0]

    def count(*arguments: Any) -> None:
        keep(*arguments)
        kept.append(len(engine._kept))

    def ask(contexts: Any, sampling: Any) -> Any:
        asked.append(len(contexts))
        return generate(contexts, sampling)

    monkeypatch.setattr(engine, "_keep", count)
    monkeypatch.setattr(engine, "generate", ask)
    collector = make_collector(config, actor, groups=2, group_size=4, kind="async")
    collector.update_policy_weights_()
    assert len(collector.collect(0)) == 8
    collector.close()
    assert max(asked) == max(kept) == 3


def test_threads_leave_no_keys_and_values_behind(checkpoints: dict[str, Path]) -> None:
    """After a collection, before the update."""
    actor = make_actor(load(checkpoints["qwen2_5_vl"]), max_new_tokens=2)
    config = Config.of(recipe=RECIPE, tasks=TASKS)
    collector = make_collector(config, actor, groups=2, group_size=2, kind="async")
    collector.update_policy_weights_()
    assert len(collector.collect(0)) == 4
    assert isinstance(actor.engine, TransformersEngine) and not actor.engine._kept
    collector.close()


def test_long_contexts_are_read_one_after_the_other(
    actor: ChatActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two groups, then the second turn of six rows: fewer tokens a call, the same outputs."""
    actor.sampling = replace(actor.sampling, greedy=True)
    script = {0: [crop(5, 9), crop(20, 24)]}

    def speak(turn: int, row: int) -> str | None:
        return script[turn][row // 3] if turn in script else None

    together = play(make_env(actor.model), actor, speak)
    actor.update_weights()
    shapes = spied(actor.model, monkeypatch)
    monkeypatch.setattr(reading, "READ_AT_ONCE", 1)
    apart = play(make_env(actor.model), actor, speak)
    assert {rows for rows, length in shapes if length > 1} == {1}
    for one, other in zip(apart, together, strict=True):
        assert [turn.output for turn in one.turns] == [turn.output for turn in other.turns]
        for turn, same in zip(one.turns, other.turns, strict=True):
            assert turn.log_probs == rounded(same.log_probs)


def test_patches_are_seen_some_at_a_time(actor: ChatActor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features do not depend on how many go through the tower in a call."""
    model, factor = actor.model, actor.model.layout.factor
    visuals = [image(float(k), (factor * (1 + k % 3), factor)) for k in range(9)]
    whole = model._encode(visuals)
    calls: list[int] = []
    features = model.features

    def spy(patches: Tensor, grids: Tensor) -> Tensor:
        calls.append(len(patches))
        return features(patches, grids)

    monkeypatch.setattr(model, "features", spy)
    monkeypatch.setattr(qwen_vl, "PATCHES_AT_ONCE", 16)
    parts = model._encode(visuals)
    assert max(calls) <= 16 and sum(calls) == sum(4 * (1 + k % 3) for k in range(9))
    for visual, found in parts.items():
        assert_close(found, whole[visual])


# --- updates -----------------------------------------------------------------------------------


def gradients(actor: ChatActor, records: Sequence[Record], micro_batch_size: int) -> dict[str, Tensor]:
    actor.model.zero_grad()
    count = sum(record.sampled_tokens for record in records)
    total = 0.0
    for micro in actor.scorer.micro_batches(records, micro_batch_size):
        loss = -micro.scored.log_probs.sum() / count
        loss.backward()
        total += loss.item()
    assert total > 0
    return {n: p.grad.clone() for n, p in actor.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3, 4, 6])
def test_an_update_holds_the_prefixes_of_one_part(
    actor: ChatActor, monkeypatch: pytest.MonkeyPatch, micro_batch_size: int
) -> None:
    """Two groups of three: never more rows than asked for, and one prefix until two groups fit."""
    env = make_chat_env(Config.of(recipe=RECIPE), actor.model, TASKS, groups=2, group_size=3)
    records = rollouts(env, actor)
    expected = gradients(actor, records, 6)
    prefixes: list[int] = []
    forward = actor.scorer._forward

    def spy(expanded: Any, shown: Any, cache: Any, before: Any = None) -> Any:
        prefixes.extend([len(expanded)] if before is None else [])
        return forward(expanded, shown, cache, before)

    monkeypatch.setattr(actor.scorer, "_forward", spy)
    shapes = spied(actor.model, monkeypatch)
    found = gradients(actor, records, micro_batch_size)
    assert prefixes == ([2] if micro_batch_size == 6 else [1, 1])
    assert max(rows for rows, _ in shapes) == (6 if micro_batch_size == 6 else min(micro_batch_size, 3))
    assert_equal_gradients(found, expected)


def test_a_reference_scores_one_group_after_the_other(
    actor: ChatActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make_chat_env(Config.of(recipe=RECIPE), actor.model, TASKS, groups=2, group_size=3)
    records = rollouts(env, actor)
    whole = actor.scorer.log_probs(records, 6)
    shapes = spied(actor.model, monkeypatch)
    parts = actor.scorer.log_probs(records, 2)
    assert max(rows for rows, _ in shapes) == 2
    for one, other in zip(parts, whole, strict=True):
        assert_close(one, other)


# --- the reference policy ----------------------------------------------------------------------


def test_adapters_need_no_copy_of_the_first_policy(checkpoints: dict[str, Path]) -> None:
    """Scored without them it is what it was, however they are trained, and they are back afterwards."""
    config = Config.of(
        checkpoint=str(checkpoints["qwen2_5_vl"]), recipe=RECIPE, lora_rank=2, temperature=0.8
    )
    store = load(checkpoints["qwen2_5_vl"]).store
    actor = make_actor(policy.make_model(config, store))
    reference = policy.reference_policy(config, actor)
    assert reference.model is actor.model
    env = make_chat_env(config, actor.model, TASKS, groups=1, group_size=2)
    records = [env.advance(said(env, row["record"], crop(5, 9))) for row in env.reset().unbind(0)[:1]]

    def scores(scorer: Any) -> Tensor:
        return torch.cat([part.log_probs for part in scorer.in_parts(records, 4)])

    first = scores(reference)
    assert_close(scores(actor.scorer), first)
    trained = policy.trainable_parameters(actor.model)
    with torch.no_grad():
        for weight in trained:
            weight += 0.1 * torch.randn_like(weight)
    assert torch.equal(scores(reference), first)
    assert not torch.allclose(scores(actor.scorer), first, atol=0.01)
    assert [id(weight) for weight in policy.trainable_parameters(actor.model)] == [
        id(weight) for weight in trained
    ]


# --- what cannot be played ---------------------------------------------------------------------


def test_one_broken_video_costs_one_more_call_not_one_a_row(
    actor: ChatActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make_env(actor.model, groups=3, group_size=2)
    records = [row["record"] for row in env.reset().unbind(0)]
    actor.model.store.broken.add(env.snapshots[2].state.task.video)  # type: ignore[attr-defined]
    asked: list[int] = []
    generate = actor.engine.generate

    def spy(contexts: Any, sampling: Any) -> Any:
        asked.append(len(contexts))
        return generate(contexts, sampling)

    monkeypatch.setattr(actor.engine, "generate", spy)
    answered = actor.answer(records)
    assert asked == [6, 4]
    assert [bool(one.abort_reason) for one in answered] == [False, False, True, True, False, False]
    assert [context_of(one).key for one in answered] == [context_of(one).key for one in records]
