"""Packed conversations: the loss and gradients of unpacked ones, and none knows that others are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rounding import assert_close, assert_equal_gradients
from small_chat import FORMS, TASKS, Noise, load, make_actor, make_env, mixed, play, record
from torch import Tensor

from agents import train_sft
from agents.models.qwen_vl import QwenVL
from agents.train_sft import Config, nll
from agents.vlm.packing import in_packs, packed
from agents.vlm.records import Record, TurnRecord
from agents.vlm.scoring import Scorer


def talks(model: QwenVL, video: bool, **options: Any) -> list[Record]:
    """Six conversations of different lengths, with frames in several turns."""
    return play(make_env(model, video=video, **options), make_actor(model), mixed)


def gradients(model: QwenVL, log_probs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Those of the mean, of all weights."""
    weights = dict(model.named_parameters())
    loss = torch.cat(list(log_probs)).mean()
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(weight) if grad is None else grad
        for (name, weight), grad in zip(weights.items(), found, strict=True)
    }


@pytest.mark.parametrize(("family", "video"), FORMS)
@pytest.mark.parametrize("window", [None, 1])
def test_packs_have_the_scores_and_gradients_of_conversations_alone(
    checkpoints: dict[str, Path], family: str, video: bool, window: int | None
) -> None:
    """All in one pack, against one plain pass for each; windows make several passages of a conversation."""
    model = load(checkpoints[family])
    records = talks(model, video, window=window)
    (pack,) = in_packs(model, records, 10**9)
    assert sorted(map(id, pack)) == sorted(map(id, records))
    (micro,) = packed(Scorer(model, 0.8), [pack])
    plain = Scorer(model, 0.8, share=False)
    alone = [plain([record]) for record in pack]
    assert micro.scored.counts == tuple(one.counts[0] for one in alone)
    for name in ("log_probs", "entropies", "hidden"):
        expected = torch.cat([getattr(one, name) for one in alone])
        assert_close(getattr(micro.scored, name).detach(), expected.detach())
    found = gradients(model, [micro.scored.log_probs])
    assert_equal_gradients(found, gradients(model, [one.log_probs for one in alone]))


@pytest.mark.parametrize(("family", "video"), FORMS)
def test_nothing_of_a_conversation_reaches_another(
    checkpoints: dict[str, Path], family: str, video: bool
) -> None:
    """Other words and other frames in the one before: its own scores change, those behind it do not."""
    model = load(checkpoints[family])
    first, second = talks(model, video)[::3]  # of two tasks
    with torch.no_grad():
        before = next(packed(Scorer(model, 0.8), [[first, second]])).scored
        said = replace(first.turns[0], output=tuple(reversed(first.turns[0].output)))
        other = replace(first, turns=(said, *first.turns[1:]))
        seen = [visual for turn in first.turns for visual in turn.visuals]
        model.store = Noise(blank={(visual.video, time_s) for visual in seen for time_s in visual.times_s})
        model._kept.clear()  # features of the frames that were shown
        after = next(packed(Scorer(model, 0.8), [[other, second]])).scored
    count = before.counts[0]
    assert not {visual for turn in second.turns for visual in turn.visuals} & set(seen)
    assert (before.log_probs[:count] - after.log_probs[:count]).abs().max() > 1e-3
    assert_close(after.hidden[count:], before.hidden[count:])


def test_no_gradient_of_a_conversation_is_of_anothers_words(checkpoints: dict[str, Path]) -> None:
    """The rows of the embedding that only the first one reads have none from the second's loss."""
    model = load(checkpoints["qwen2_5_vl"])
    first, second = talks(model, False)[::3]
    micro = next(packed(Scorer(model, 0.8), [[first, second]]))
    table = model.model.model.language_model.embed_tokens.weight
    (grad,) = torch.autograd.grad(micro.scored.hidden[micro.scored.counts[0] :].sum(), table)
    read = [{i for turn in one.turns for i in (*turn.observation, *turn.output)} for one in (first, second)]
    only = sorted(read[0] - read[1] - set(second.head))
    assert only and not grad[only].any()
    assert grad[sorted(read[1])].any()


@given(st.lists(st.integers(1, 60), max_size=20), st.integers(1, 60))
def test_packs_are_whole_conversations_that_fit(lengths: list[int], tokens: int) -> None:
    """Every record once; a pack of several is never too long; no two packs could have been one."""

    class Lengths:
        def length(self, ids: Sequence[int], visuals: Sequence[Any]) -> int:
            return len(ids)

    records = [record(TurnRecord((0,) * (n - 1), (), output=(1,))) for n in lengths]
    packs = in_packs(Lengths(), records, tokens)  # type: ignore[arg-type]
    sizes = [[len(one.turns[0].observation) + 1 for one in pack] for pack in packs]
    assert sorted(n for pack in sizes for n in pack) == sorted(lengths)
    assert all(len(pack) == 1 or sum(pack) <= tokens for pack in sizes)
    assert all(sum(one) + sum(other) > tokens for n, one in enumerate(sizes) for other in sizes[:n])


def test_training_in_packs_ends_with_the_weights_of_training_without(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Packs of one, two and all records; the loss of each step too."""
    usual: dict[str, Any] = {
        **{"tasks": TASKS, "eval_tasks": f"{TASKS}&split=val", "eval_episodes": 1, "max_new_tokens": 4},
        **{"demonstrated_tasks": 3, "per_task": 2, "iterations": 3, "groups": 2, "learning_rate": 1e-3},
        **{"eval_every": 9, "checkpoint_every": 9, "recipe": "LONGVT_TINY"},
    }
    weights, losses = [], []
    for number, tokens in enumerate((0, 1, 700, 10**9)):
        actor = make_actor(load(checkpoints["qwen3_vl"]))
        train_sft.train(Config.of(**usual, pack_tokens=tokens), actor, tmp_path / str(number))
        weights.append([weight.detach().clone() for weight in actor.model.parameters()])
        lines = (tmp_path / str(number) / "log" / "scalars" / "loss.csv").read_text().split()
        losses.append([float(line.split(",")[1]) for line in lines])
    for some, curve in zip(weights[1:], losses[1:], strict=True):
        assert curve == pytest.approx(losses[0], rel=1e-5)
        gap = max(float((one - other).abs().max()) for one, other in zip(some, weights[0], strict=True))
        assert gap < 1e-4  # of Adam's first steps of 1e-3, which make rounding of tiny gradients as large


def test_a_loss_of_packs_counts_tokens(checkpoints: dict[str, Path]) -> None:
    """The sum over packs is the sum over all, whichever records stand together."""
    model = load(checkpoints["qwen2_5_vl"])
    records = talks(model, False)
    sums = []
    for tokens in (1, 500, 10**9):
        packs = in_packs(model, records, tokens)
        flat = [one for pack in packs for one in pack]
        with torch.no_grad():
            micros = list(packed(Scorer(model, 0.8), packs))
        assert [micro.place.stop for micro in micros][-1] == len(records)
        assert sum(micro.token_share for micro in micros) == pytest.approx(1)
        sums.append(sum(float(nll(micro, flat)) for micro in micros))
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-5)
