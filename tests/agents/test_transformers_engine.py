"""The transformers engine: nothing is computed twice, nothing stale is used, and limits hold."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rounding import rounded
from small_chat import (
    FAMILIES,
    Noise,
    context,
    image,
    load,
    plain_logits,
    record,
    sampling,
    shown,
)
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from agents.engines.base import Context, EngineError, Output
from agents.engines.transformers_engine import TransformersEngine
from agents.models.qwen_vl import FrameMismatch, QwenVL
from agents.models.visuals import Visual
from agents.vlm.records import TurnRecord
from agents.vlm.scoring import Scorer
from videogym.video import VideoError


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> QwenVL:
    """A tiny model of either family."""
    return load(checkpoints[request.param])


def frame(model: QwenVL, time_s: float, width: int = 2, height: int = 1) -> Visual:
    """A frame of so many merged patches."""
    return image(time_s, (width * model.layout.factor, height * model.layout.factor))


def longer(model: QwenVL, before: Context, said: Output, visuals: Sequence[Visual], text: str) -> Context:
    """The conversation a turn later."""
    ids = (*before.ids, *said.ids, *shown(model, visuals, text))
    return Context(before.key, ids, (*before.visuals, *visuals))


def scored(model: QwenVL, before: Context, said: Output) -> list[float]:
    """What the scorer makes of an output, the plain way."""
    one = record(TurnRecord(before.ids, before.visuals, said.ids))
    with torch.no_grad():
        return Scorer(model, 0.8, share=False)([one]).log_probs.tolist()


def favouring(model: QwenVL, tokens: Sequence[int], by: float) -> RemovableHandle:
    """Let the model want some tokens more."""
    favoured = torch.zeros(model.model.config.text_config.vocab_size)
    favoured[list(tokens)] = by
    head: nn.Module = model.model.lm_head
    return head.register_forward_hook(lambda _module, _inputs, logits: logits + favoured)


# --- nothing twice -----------------------------------------------------------------------------


def test_a_turn_reads_its_new_tokens_only(model: QwenVL) -> None:
    """First the context once for the whole group; then the unread end of the output and the reply."""
    engine, settings = TransformersEngine(model), sampling(model, greedy=True)
    first = context(model, "0", [frame(model, 0.0), frame(model, 1.0, 3, 3)], "what colour was it?")
    contexts = [replace(first, key=str(number)) for number in range(3)]
    outputs = engine.generate(contexts, sampling(model))
    question = len(first.ids) - 2 + 2 + 9  # two placeholders become 2 and 9
    assert model.forwarded_tokens == question + sum(len(said.ids) - 1 for said in outputs)
    assert model.encoded_visuals == 2
    replies = [[frame(model, 5.0)], [], [frame(model, 5.0), frame(model, 0.0)]]
    later = [
        longer(model, one, said, reply, "and then?")
        for one, said, reply in zip(contexts, outputs, replies, strict=True)
    ]
    text = len(model.tokenizer.encode("and then?"))
    model.forwarded_tokens = model.encoded_visuals = 0
    again = engine.generate(later, settings)
    new = sum(1 + text + 4 * len(reply) for reply in replies)  # start, two placeholders, end
    assert model.forwarded_tokens == new + sum(len(said.ids) - 1 for said in again)
    assert model.encoded_visuals == 1, "of the reply's frames one was encoded for the question"


def test_equal_frames_are_resolved_once(model: QwenVL) -> None:
    """Four conversations that differ but show the same two frames fetch two."""
    pair = [frame(model, 0.0), frame(model, 1.0)]
    TransformersEngine(model).generate(
        [context(model, str(n), pair, f"look {n}") for n in range(4)], sampling(model)
    )
    assert isinstance(model.store, Noise)
    assert (model.store.asked, model.encoded_visuals) == (2, 2)


# --- nothing stale -----------------------------------------------------------------------------


def test_another_conversation_in_between_disturbs_nothing(model: QwenVL) -> None:
    """With frames of other sizes, then a reply of text alone: values are those of the plain way."""
    engine, settings = TransformersEngine(model), sampling(model)
    first = context(model, "a", [frame(model, 0.0, 4, 4)], "what colour was it?")
    (said,) = engine.generate([first], settings)
    engine.generate([context(model, "b", [frame(model, 1.0), frame(model, 2.0)], "look")], settings)
    # Somebody uses the module in the ordinary way: it then keeps positions of its own.
    plain_logits(model, *_ids(context(model, "c", [frame(model, 3.0, 1, 3)], "look at that")), 1.0)
    model.model.model.rope_deltas = torch.tensor([[-77]])
    later = longer(model, first, said, [], "answer now")
    model.forwarded_tokens = 0
    (answer,) = engine.generate([later], settings)
    assert model.forwarded_tokens < len(later.ids), "the conversation was read anew"
    assert list(answer.log_probs) == rounded(scored(model, later, answer))


def _ids(one: Context) -> tuple[tuple[int, ...], tuple[Visual, ...]]:
    return one.ids, one.visuals


@pytest.mark.parametrize(
    "kind", ["other output", "other frame", "other order", "shorter", "other question"]
)
def test_a_conversation_that_turned_out_otherwise_is_read_from_there(model: QwenVL, kind: str) -> None:
    """Under a known key but with another past: values are those of a fresh engine."""
    engine, settings = TransformersEngine(model), sampling(model, greedy=True)
    pair = [frame(model, 0.0), frame(model, 1.0)]
    first = context(model, "a", pair, "what colour was it?")
    (said,) = engine.generate([first], settings)
    later = longer(model, first, said, [frame(model, 2.0)], "and then?")
    engine.generate([later], settings)
    changed = {
        "other output": longer(model, first, replace(said, ids=(9, *said.ids[1:])), [], "and then?"),
        "other frame": replace(later, visuals=(pair[0], frame(model, 7.0), *later.visuals[2:])),
        "other order": replace(later, visuals=(pair[1], pair[0], *later.visuals[2:])),
        "shorter": first,
        "other question": context(model, "a", pair[:1], "what?"),
    }[kind]
    (found,) = engine.generate([changed], settings)
    (fresh,) = TransformersEngine(model).generate([changed], settings)
    assert found.ids == fresh.ids
    assert found.log_probs == rounded(fresh.log_probs)
    assert list(found.log_probs) == rounded(scored(model, changed, found))


def test_a_conversation_that_was_forgotten_is_read_again(model: QwenVL) -> None:
    """Of three conversations two are kept; all three go on rightly, in one batch."""
    engine, settings = TransformersEngine(model, conversations=2), sampling(model)
    firsts = [context(model, str(n), [frame(model, float(n))], f"look {n}") for n in range(3)]
    outputs = engine.generate(firsts, settings)
    assert len(engine._kept) == 2
    later = [longer(model, *pair, [], "and then?") for pair in zip(firsts, outputs, strict=True)]
    for one, said in zip(later, engine.generate(later, settings), strict=True):
        assert list(said.log_probs) == rounded(scored(model, one, said))


def test_changed_weights_must_be_pushed_and_nothing_kept_survives_that(model: QwenVL) -> None:
    """Refused until pushed; then all is read again, with the new weights and version."""
    engine, settings = TransformersEngine(model), sampling(model)
    first = context(model, "a", [frame(model, 0.0)], "what colour was it?")
    (said,) = engine.generate([first], settings)
    assert said.versions == (0,) * len(said.ids)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    later = longer(model, first, said, [], "and then?")
    with pytest.raises(EngineError, match="weights have changed since they were pushed"):
        engine.generate([later], settings)
    engine.update_weights(model.model, 7)
    model.forwarded_tokens = model.encoded_visuals = 0
    (answer,) = engine.generate([later], settings)
    assert answer.versions == (7,) * len(answer.ids)
    assert model.forwarded_tokens == model.length(later.ids, later.visuals) + len(answer.ids) - 1
    assert model.encoded_visuals == 1
    assert list(answer.log_probs) == rounded(scored(model, later, answer))


def test_an_engine_takes_no_other_model(model: QwenVL, checkpoints: dict[str, Path]) -> None:
    """It samples with its own; closing forgets all conversations."""
    engine = TransformersEngine(model)
    with pytest.raises(EngineError, match="its own model"):
        engine.update_weights(load(checkpoints[model.family]).model, 1)
    engine.generate([context(model, "a", [], "look")], sampling(model))
    engine.close()
    model.forwarded_tokens = 0
    engine.generate([context(model, "a", [], "look")], sampling(model, max_new_tokens=1))
    assert model.forwarded_tokens == len(model.tokenizer.encode("look"))


# --- outputs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("video", [False, True])
def test_greedy_takes_the_likeliest_token_of_a_plain_forward_pass(model: QwenVL, video: bool) -> None:
    """Step by step, each with the whole context read anew by transformers itself."""
    times = ((0.0, 1.0),) if video else ((0.0,), (1.0,))
    size = (2 * model.layout.factor, 3 * model.layout.factor)
    visuals = [Visual("v", some, (0.0, 0.0, 1.0, 1.0), size) for some in times]
    one = context(model, "a", visuals, "what colour was it?")
    (said,) = TransformersEngine(model).generate([one], sampling(model, greedy=True))
    ids, log_probs = list(one.ids), []
    with torch.no_grad():
        for _ in said.ids:
            log_p = plain_logits(model, ids, one.visuals, 0.8)[-1]
            ids.append(int(log_p.argmax()))
            log_probs.append(float(log_p.max()))
    assert said.ids == tuple(ids[len(one.ids) :])
    assert list(said.log_probs) == rounded(log_probs)


def test_limits_hold_row_by_row(model: QwenVL) -> None:
    """At most max_new_tokens, and max_context with the output; a context that fills it is refused."""
    engine = TransformersEngine(model)
    never = favouring(model, [model.end_id], -50.0)
    short, long = (
        context(model, text, [frame(model, 0.0, 3, 3)], text) for text in ("a", "a long question")
    )
    lengths = [model.length(one.ids, one.visuals) for one in (short, long)]
    assert lengths[0] < lengths[1]
    outputs = engine.generate([short, long], sampling(model, max_context=lengths[1] + 2))
    assert [len(said.ids) for said in outputs] == [min(6, lengths[1] + 2 - lengths[0]), 2]
    with pytest.raises(
        EngineError, match=rf"'a long question' has {lengths[1]} tokens .* room in {lengths[1]}"
    ):
        engine.generate([short, long], sampling(model, max_context=lengths[1]))
    assert engine.generate([], sampling(model)) == []
    never.remove()


def test_rows_that_leave_early_keep_their_values(model: QwenVL) -> None:
    """Outputs of one to nine tokens in a batch, then a second turn: values are those of the plain way."""
    engine, settings = TransformersEngine(model), sampling(model, max_new_tokens=9)
    sometimes = favouring(model, [model.end_id], 4.0)
    contexts = [context(model, str(n), [frame(model, float(n % 3))], f"look {n}") for n in range(12)]
    outputs = engine.generate(contexts, settings)
    lengths = {len(said.ids) for said in outputs}
    assert len(lengths) >= 4, f"the rows should end at different steps, not {lengths}"
    later = [
        longer(model, one, said, [frame(model, 4.0)] if n % 2 else [], "and then?")
        for n, (one, said) in enumerate(zip(contexts, outputs, strict=True))
    ]
    model.forwarded_tokens = 0
    answers = engine.generate(later, settings)
    new = [
        model.length(b.ids, b.visuals) - model.length(a.ids, a.visuals)
        for a, b in zip(contexts, later, strict=True)
    ]
    unread = [count - len(said.ids) + 1 for count, said in zip(new, outputs, strict=True)]
    assert model.forwarded_tokens == sum(unread) + sum(len(said.ids) - 1 for said in answers)
    for one, said in zip([*contexts, *later], [*outputs, *answers], strict=True):
        assert all(token != model.end_id for token in said.ids[:-1])
        assert len(said.ids) == 9 or said.ids[-1] == model.end_id
        assert list(said.log_probs) == rounded(scored(model, one, said))
    sometimes.remove()


def test_sampling_follows_the_probabilities(model: QwenVL) -> None:
    """Of 2000 first tokens of one context the likeliest is as many as it should be, within 4 sigma."""
    one = context(model, "a", [frame(model, 0.0)], "look")
    with torch.no_grad():
        chances: Tensor = plain_logits(model, one.ids, one.visuals, 0.8)[-1].exp()
    settings = sampling(model, max_new_tokens=1)
    contexts = [replace(one, key=str(n)) for n in range(2000)]
    drawn = [said.ids[0] for said in TransformersEngine(model, 1).generate(contexts, settings)]
    likeliest = int(chances.argmax())
    p = float(chances[likeliest])
    assert abs(drawn.count(likeliest) - 2000 * p) < 4 * (2000 * p * (1 - p)) ** 0.5


def test_vision_tokens_are_never_sampled(model: QwenVL) -> None:
    """Even where the model wants nothing else; scoring knows the same ban."""
    hook = favouring(model, model.vision_ids, 50.0)
    contexts = [context(model, str(n), [frame(model, 0.0)], "look") for n in range(8)]
    for greedy in (False, True):
        for one, said in zip(
            contexts,
            TransformersEngine(model).generate(contexts, sampling(model, greedy=greedy)),
            strict=True,
        ):
            assert not set(said.ids) & set(model.vision_ids)
            assert list(said.log_probs) == rounded(scored(model, one, said))
    hook.remove()


# --- bad input ---------------------------------------------------------------------------------


def test_bad_contexts_raise_and_leave_the_engine_as_it_was(model: QwenVL) -> None:
    """Frames that cannot be shown, and ids that do not fit: nothing is sampled, the next call is right."""
    engine, settings = TransformersEngine(model), sampling(model)
    good = context(model, "a", [frame(model, 0.0)], "look")
    broken = context(model, "b", [frame(model, 0.0)._replace(video="gone")], "look")
    assert isinstance(model.store, Noise)
    model.store.broken.add("gone")
    with pytest.raises(VideoError, match="gone: its packets are gone"):
        engine.generate([good, broken], settings)
    with pytest.raises(FrameMismatch, match="0 images"):
        engine.generate([good, replace(broken, visuals=())], settings)
    (said,) = engine.generate([good], settings)
    assert list(said.log_probs) == rounded(scored(model, good, said))
