"""Scoring: what was sampled is what is trained, shared prefixes change nothing, and are computed once."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rounding import assert_close, assert_equal_gradients
from safetensors.torch import load_file
from small_chat import (
    FAMILIES,
    FORMS,
    Noise,
    assert_agrees,
    image,
    load,
    make_actor,
    make_env,
    mixed,
    plain_logits,
    play,
    record,
    sampled_mask,
    shown,
    stored,
)
from torch import Tensor

from agents.models.qwen_vl import FrameMismatch, QwenVL, WrongCheckpoint
from agents.vlm.records import Record, TurnRecord, passages
from agents.vlm.scoring import Scorer
from videogym import FrameStore


def score(model: QwenVL, records: Sequence[Record], share: bool = True) -> Tensor:
    """(T,) log-probabilities, at the temperature of `small_chat.sampling`."""
    with torch.no_grad():
        return Scorer(model, 0.8, share)(records).log_probs


def gradients(model: QwenVL, loss: Tensor) -> dict[str, Tensor]:
    """Gradients of all weights, which are left without."""
    loss.backward()
    return taken(model)


def taken(model: QwenVL) -> dict[str, Tensor]:
    """The gradients that are there; the weights are left without."""
    found = {n: p.grad for n, p in model.model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.fixture(
    scope="module", params=FORMS, ids=lambda form: f"{form[0]}-{'video' if form[1] else 'images'}"
)
def played(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> tuple[QwenVL, list[Record]]:
    """A model and two groups of three episodes in one of the four forms."""
    family, video = request.param
    torch.manual_seed(0)
    model = load(checkpoints[family])
    return model, play(make_env(model, video=video), make_actor(model), mixed)


# --- sampled and scored ------------------------------------------------------------------------


def test_the_episodes_differ_in_what_matters(played: tuple[QwenVL, list[Record]]) -> None:
    """Several groups, turns, lengths and endings, visuals in the middle: the tests below see all that."""
    model, records = played
    assert len({record.group for record in records}) == 2
    assert len({len(record.turns) for record in records}) >= 3
    assert len({model.length(*record.context(len(record.turns) - 1)) for record in records}) >= 4
    assert {bool(turn.visuals) for record in records for turn in record.turns[1:]} == {True, False}
    kinds = {
        len(visual.times_s) > 1 for record in records for turn in record.turns for visual in turn.visuals
    }
    assert len(kinds) == 1


@pytest.mark.parametrize("share", [True, False])
def test_scores_are_those_of_sampling(played: tuple[QwenVL, list[Record]], share: bool) -> None:
    """Over all turns, with ragged rows and padding; the number of tokens is known by record."""
    model, records = played
    with torch.no_grad():
        scored = Scorer(model, 0.8, share)(records)
    assert_agrees(scored, records, at_least=60)
    assert scored.counts == tuple(sum(len(t.output) for t in r.turns) for r in records)
    assert scored.hidden.shape == (sum(scored.counts), 64)


def test_scores_are_those_of_the_plain_model(played: tuple[QwenVL, list[Record]]) -> None:
    """Each whole conversation through transformers' own forward pass: the same log-probabilities."""
    model, records = played
    scored = iter(score(model, records).split([record.sampled_tokens for record in records]))
    for one in records:
        (part,) = passages(one)
        with torch.no_grad():
            log_p = plain_logits(model, part.ids, part.visuals, 0.8)
        places = model.expand(part.ids, part.visuals).places
        expected = [
            log_p[places[first + i] - 1, token]
            for turn, first, _ in part.outputs
            for i, token in enumerate(one.turns[turn].output)
        ]
        assert_close(next(scored), torch.stack(expected))


def test_entropies_are_those_of_the_plain_model(played: tuple[QwenVL, list[Record]]) -> None:
    """By the definition, of one record."""
    model, records = played
    (part,) = passages(records[0])
    with torch.no_grad():
        scored, log_p = Scorer(model, 0.8)(records[:1]), plain_logits(model, part.ids, part.visuals, 0.8)
    places = model.expand(part.ids, part.visuals).places
    rows = [places[first + i] - 1 for _, first, length in part.outputs for i in range(length)]
    chances = log_p[rows].exp()
    expected = -(chances * log_p[rows].clamp_min(-1e9)).sum(-1)
    assert_close(scored.entropies, expected)


def test_a_saved_and_loaded_model_scores_the_same(
    played: tuple[QwenVL, list[Record]], tmp_path: Path
) -> None:
    """A checkpoint holds all that matters, tokenizer included."""
    model, records = played
    model.save(str(tmp_path))
    loaded = load(tmp_path)
    assert loaded.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    weights, same = model.model.state_dict(), loaded.model.state_dict()
    assert weights.keys() == same.keys() and all(torch.equal(same[name], weights[name]) for name in weights)
    # Not to the bit: a file's tensors lie at other addresses, by which kernels take sums in other orders.
    assert_close(score(loaded, records), score(model, records))


def test_a_record_scores_the_same_alone(played: tuple[QwenVL, list[Record]]) -> None:
    """Padding and company leave no trace."""
    model, records = played
    together = score(model, records).split([record.sampled_tokens for record in records])
    for one, expected in zip(records, together, strict=True):
        assert_close(score(model, [one]), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_window_drops_earlier_turns_in_sampling_and_in_scoring(
    checkpoints: dict[str, Path], family: str
) -> None:
    """A window of one turn: contexts begin anew, both ways of scoring agree with sampling."""
    model = load(checkpoints[family])
    records = play(
        make_env(model, window=1), make_actor(model), lambda t, r: mixed(t, r) if t < 2 else None
    )
    assert max(len(record.turns) for record in records) == 5
    longest = max(records, key=lambda one: len(one.turns))
    parts = passages(longest)
    assert [[turn for turn, _, _ in part.outputs] for part in parts] == [[0, 1], [2], [3], [4]]
    for part, dropped in zip(parts[1:], longest.turns, strict=False):
        assert not set(part.visuals) & set(dropped.visuals)
        assert part.ids[: len(longest.head)] == longest.head
    for share in (True, False):
        with torch.no_grad():
            assert_agrees(Scorer(model, 0.8, share)(records), records, at_least=60)
    with torch.no_grad():
        log_p = plain_logits(model, parts[-1].ids, parts[-1].visuals, 0.8)
    output = longest.turns[-1].output
    expected = log_p[-1 - len(output) : -1].gather(1, torch.tensor(output)[:, None])[:, 0]
    assert_close(torch.tensor(longest.turns[-1].log_probs), expected)


# --- what was shown ----------------------------------------------------------------------------


def test_only_frames_that_were_shown_matter(played: tuple[QwenVL, list[Record]]) -> None:
    """A blank for a record's frame moves its scores; one of another record or time moves nothing."""
    model, records = played
    one = records[1]
    (visual, *_) = one.turns[2].visuals  # shown after its second output
    others = [r for r in records if r.group == one.group and visual not in r.context(len(r.turns) - 1)[1]]
    # Features kept from sampling were encoded in other batches, and may be rounded otherwise.
    model._kept.clear()
    before, before_others = score(model, [one]), score(model, others)
    kept, model.store = model.store, Noise(blank=[(visual.video, 59.9)])
    model._kept.clear()
    assert torch.equal(score(model, [one]), before), "a frame that was never shown changed a score"
    model.store = Noise(blank=[(visual.video, visual.times_s[0])])
    model._kept.clear()
    after = score(model, [one])
    assert torch.equal(score(model, others), before_others), "a frame of another row changed a score"
    model.store = kept
    model._kept.clear()
    earlier = sum(len(turn.output) for turn in one.turns[:2])
    assert torch.equal(after[:earlier], before[:earlier]), "a frame changed what was said before it"
    assert (after[earlier:] - before[earlier:]).abs().max() > 1e-4, (
        "a shown frame left the scores as they were"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_of_two_frames_matters(checkpoints: dict[str, Path], family: str) -> None:
    """Pixels go to the placeholders of their own frame."""
    model = load(checkpoints[family])
    pair = (
        (image(0.0, (64, 64)), image(1.0, (64, 64)))
        if family == "qwen3_vl"
        else (
            image(0.0, (56, 56)),
            image(1.0, (56, 56)),
        )
    )
    output = tuple(model.tokenizer.encode("look"))
    one = record(TurnRecord(shown(model, pair, "what?"), pair, output))
    other = record(replace(one.turns[0], visuals=pair[::-1]))
    assert (score(model, [one]) - score(model, [other])).abs().max() > 1e-4


def test_records_and_frames_that_contradict_each_other_are_refused(checkpoints: dict[str, Path]) -> None:
    """A visual too few, and records without any output."""
    model = load(checkpoints["qwen2_5_vl"])
    pair = (image(0.0, (56, 56)), image(1.0, (56, 56)))
    turn = TurnRecord(shown(model, pair, "what?"), pair[:1], (5, 6))
    for share in (True, False):
        with pytest.raises(FrameMismatch, match=r"2 image .* does not fit 1 images"):
            Scorer(model, share=share)([record(turn)])
        with pytest.raises(ValueError, match="the 1 records hold no output"):
            Scorer(model, share=share)([record(replace(turn, output=()))])


# --- shared prefixes -------------------------------------------------------------------------


def test_shared_prefixes_give_the_gradients_of_the_plain_way(
    played: tuple[QwenVL, list[Record]],
) -> None:
    """Of all weights, the vision tower's included, also a few records at a time while they are held."""
    model, records = played
    weights = torch.linspace(-1.0, 1.0, sum(record.sampled_tokens for record in records))
    plain = gradients(model, (Scorer(model, 0.8, share=False)(records).log_probs * weights).mean())
    assert any("visual" in name for name in plain)
    shared = Scorer(model, 0.8)
    assert_equal_gradients(gradients(model, (shared(records).log_probs * weights).mean()), plain)
    with shared.holding(records):
        _in_parts(shared, records, weights)
    assert_equal_gradients(taken(model), plain)
    apart = Scorer(model, 0.8, share=False)
    with apart.holding(records):  # their visuals are held all the same
        _in_parts(apart, records, weights)
    assert_equal_gradients(taken(model), plain)


def _in_parts(scorer: Scorer, records: list[Record], weights: Tensor) -> None:
    counts = [record.sampled_tokens for record in records]
    for part in (slice(0, 2), slice(2, 5), slice(5, 6)):  # parts need not respect groups
        some = torch.cat(weights.split(counts)[part])
        (scorer(records[part]).log_probs * some).sum().div(len(weights)).backward()


def test_entropies_and_hidden_states_can_be_trained_through_shared_prefixes(
    played: tuple[QwenVL, list[Record]],
) -> None:
    """A critic reads hidden states: their gradients are the plain ones too."""
    model, records = played
    losses = []
    for share in (False, True):
        scored = Scorer(model, 0.8, share)(records)
        losses.append(gradients(model, scored.entropies.mean() + scored.hidden.pow(2).mean()))
    assert_equal_gradients(losses[1], losses[0])


def test_prefixes_are_read_once_and_visuals_encoded_once(played: tuple[QwenVL, list[Record]]) -> None:
    """Tokens: each group's question once and every rest; frames: each that is shown, once."""
    model, records = played
    model.zero_grad()
    wholes = [model.length(part.ids, part.visuals) for record in records for part in passages(record)]
    begins = [model.length(*record.context(0)) for record in records]
    distinct = {visual for record in records for turn in record.turns for visual in turn.visuals}
    outputless = [r.turns[-1].visuals for r in records if not r.turns[-1].output]
    assert not any(outputless)
    once = {record.group: model.length(*record.context(0)) for record in records}
    expected = sum(once.values()) + sum(wholes) - sum(begins)
    for hold in (False, True):
        model.forwarded_tokens = model.encoded_visuals = 0
        scorer = Scorer(model, 0.8)
        if hold:
            with scorer.holding(records):
                for one in records:
                    scorer([one]).log_probs.sum().backward()
        else:
            scorer(records)
        assert (model.forwarded_tokens, model.encoded_visuals) == (expected, len(distinct))
    model.forwarded_tokens = 0
    Scorer(model, 0.8, share=False)(records)
    assert model.forwarded_tokens == sum(wholes)
    model.zero_grad()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_vision_tower_encodes_nothing_twice(checkpoints: dict[str, Path], family: str) -> None:
    """Two updates on the same records: the second encodes no frame, and scores as a fresh model would."""
    model = load(checkpoints[family])
    records = play(make_env(model, groups=1), make_actor(model), mixed)
    model.model.model.visual.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    model.encoded_visuals = 0
    for _ in range(2):
        Scorer(model, 0.8)(records).log_probs.mean().backward()
        optimizer.step()
    assert model.encoded_visuals == 0, "sampling had encoded all of them with these very weights"
    kept = score(model, records)
    model._kept.clear()
    assert_close(score(model, records), kept)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_of_a_changed_vision_tower_are_made_anew(
    checkpoints: dict[str, Path], family: str
) -> None:
    """After a step of the vision tower no feature from before it is used."""
    model = load(checkpoints[family])
    records = play(make_env(model, groups=1), make_actor(model), mixed)
    before = score(model, records)
    vision = list(model.model.model.visual.parameters())
    optimizer = torch.optim.SGD(vision, 1.0)
    Scorer(model, 0.8)(records).log_probs.mean().backward()
    optimizer.step()
    model.encoded_visuals = 0
    after = score(model, records)
    assert model.encoded_visuals > 0
    assert (after - before).abs().max() > 1e-4
    model._kept.clear()
    assert torch.equal(score(model, records), after)
    assert_close(before[sampled_mask(records)], stored(records)[sampled_mask(records)])


def test_parts_score_what_the_whole_does(played: tuple[QwenVL, list[Record]]) -> None:
    """A few records at a time, in order, with the prefixes read once."""
    model, records = played
    scorer = Scorer(model, 0.8)
    with torch.no_grad():
        whole = scorer(records)
    model.forwarded_tokens = 0
    parts = list(scorer.in_parts(records, 2))
    read, model.forwarded_tokens = model.forwarded_tokens, 0
    with torch.no_grad():
        scorer(records)
    assert read == model.forwarded_tokens
    assert [count for part in parts for count in part.counts] == list(whole.counts)
    assert not any(part.log_probs.requires_grad for part in parts)
    for name in ("log_probs", "entropies", "hidden"):
        found = torch.cat([getattr(part, name) for part in parts])
        assert_close(found, getattr(whole, name))


# --- gradient checkpointing --------------------------------------------------------------------


@pytest.mark.parametrize("share", [True, False])
def test_checkpointed_layers_give_the_same_gradients_from_fewer_stored_tensors(
    checkpoints: dict[str, Path], played: tuple[QwenVL, list[Record]], share: bool
) -> None:
    """Whole and in parts; what a layer computes inside is not stored, and every layer runs once more."""
    plain, records = played
    model = load(checkpoints[plain.family])
    model.checkpoint_layers()
    weights = torch.linspace(-1.0, 1.0, sum(record.sampled_tokens for record in records))
    expected, usual = _gradients_and_bytes(plain, share, records, weights)
    forwards = [0]
    language = model.model.model.language_model
    for layer in language.layers:
        layer.mlp.register_forward_pre_hook(lambda *_: forwards.__setitem__(0, forwards[0] + 1))
    found, stored_bytes = _gradients_and_bytes(model, share, records, weights)
    assert_equal_gradients(found, expected)
    passes = 2 if share else 1  # prefixes, then what follows
    assert forwards[0] == 2 * passes * len(language.layers)
    assert stored_bytes < 0.5 * usual, (stored_bytes, usual)
    scorer = Scorer(model, 0.8, share)
    with scorer.holding(records):
        _in_parts(scorer, records, weights)
    assert_equal_gradients(taken(model), expected)
    forwards[0] = 0
    with torch.no_grad():
        scorer(records)
    assert forwards[0] == passes * len(language.layers)


def _gradients_and_bytes(
    model: QwenVL, share: bool, records: list[Record], weights: Tensor
) -> tuple[dict[str, Tensor], int]:
    """Gradients of a loss, and the bytes its forward pass stored: inputs of checkpointed layers too."""
    storages: dict[int, int] = {}

    kept = []  # addresses of freed tensors would be given out again

    def keep(tensor: Tensor) -> None:
        kept.append(tensor)
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()

    def pack(tensor: Tensor) -> Tensor:
        keep(tensor)
        return tensor

    inner = model.model.model
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: keep(inputs[0]))
        for layer in (*inner.language_model.layers, *inner.visual.blocks)
    ]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = (Scorer(model, 0.8, share)(records).log_probs * weights).mean()
    for hook in hooks:
        hook.remove()
    weights_bytes = {p.untyped_storage().data_ptr() for p in model.parameters()}
    total = sum(size for place, size in storages.items() if place not in weights_bytes)
    return gradients(model, loss), total


def test_a_checkpoint_in_pickles_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Weights of an old form of checkpoint are code of whoever wrote them."""
    folder = shutil.copytree(checkpoints["qwen2_5_vl"], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        QwenVL.from_pretrained(str(folder), FrameStore())


def test_damaged_weights_are_named(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Not shown as an error of a library."""
    folder = shutil.copytree(checkpoints["qwen2_5_vl"], tmp_path / "model")
    os.truncate(folder / "model.safetensors", 1000)
    with pytest.raises(WrongCheckpoint, match="weights are damaged"):
        QwenVL.from_pretrained(str(folder), FrameStore())
