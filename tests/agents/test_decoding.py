"""Sampled tokens read by our own step: what transformers computes, of any shape, or transformers itself."""

# ruff: noqa: D103

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from rounding import rounded
from small_chat import FAMILIES, Noise, context, image, load, record, sampling, shown
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from agents.engines.base import Context, EngineError, Output
from agents.engines.transformers_engine import TransformersEngine
from agents.models import decoding
from agents.models.family import family_of, register
from agents.models.qwen_vl import QwenVL
from agents.vlm.records import TurnRecord
from agents.vlm.scoring import Scorer


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> QwenVL:
    return load(checkpoints[request.param])


@pytest.fixture
def plain_family(model: QwenVL) -> Iterator[None]:
    """The model's family as a user's own might be, who says nothing of decoder layers."""
    known = family_of(model.family)
    register(replace(known, decoder_layer=None))
    yield
    register(known)


def conversations(model: QwenVL, engine: TransformersEngine) -> list[tuple[Context, Output]]:
    """Three turns of groups of four, two and one, which end at different steps."""
    torch.manual_seed(0)
    settings = sampling(model, max_new_tokens=40)
    favoured = torch.zeros(model.model.config.text_config.vocab_size)
    favoured[model.end_id] = 4.0  # some end soon
    hook = model.model.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits + favoured)
    side = model.layout.factor
    groups = [
        context(model, str(n), [image(float(n), (side, (n + 1) * side))], f"look {n}") for n in range(3)
    ]
    now = [replace(groups[n], key=f"{n}/{k}") for n, count in enumerate((4, 2, 1)) for k in range(count)]
    found = []
    for turn in range(3):
        outputs = engine.generate(now, settings)
        found += list(zip(now, outputs, strict=True))
        reply = [image(10.0 + turn, (side, side))] if turn else []
        now = [
            Context(one.key, (*one.ids, *said.ids, *shown(model, reply, "next")), (*one.visuals, *reply))
            for one, said in zip(now, outputs, strict=True)
        ]
    hook.remove()
    assert len({len(said.ids) for _, said in found}) > 4
    return found


def assert_as_scored(model: QwenVL, found: list[tuple[Context, Output]]) -> None:
    """Log-probabilities as sampled are those of a plain pass, which is transformers' own."""
    favoured = torch.zeros(model.model.config.text_config.vocab_size)
    favoured[model.end_id] = 4.0
    hook = model.model.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits + favoured)
    for one, said in found:
        turn = record(TurnRecord(one.ids, one.visuals, said.ids))
        with torch.no_grad():
            scored = Scorer(model, 0.8, share=False)([turn]).log_probs.tolist()
        assert list(said.log_probs) == rounded(scored)
    hook.remove()


def why_not(model: QwenVL) -> str:
    return decoding.Decoder(model).why_not()


def test_conversations_are_sampled_with_the_probabilities_of_a_plain_pass(model: QwenVL) -> None:
    assert not why_not(model)
    assert_as_scored(model, conversations(model, TransformersEngine(model)))


@pytest.mark.usefixtures("plain_family")
def test_a_family_without_our_step_is_read_by_transformers(
    model: QwenVL, caplog: pytest.LogCaptureFixture
) -> None:
    """With the same tokens, the same probabilities, and a warning that says why, once."""
    with caplog.at_level(logging.WARNING):
        found = conversations(model, TransformersEngine(model))
    warnings = [line.message for line in caplog.records if "takes longer" in line.message]
    assert len(warnings) == 1 and f"family {model.family} names no decoder_layer" in warnings[0]
    assert_as_scored(model, found)
    register(replace(family_of(model.family), decoder_layer=type(model.layers()[0])))
    again = conversations(model, TransformersEngine(model))
    same = sum(said.ids == other.ids for (_, said), (_, other) in zip(found, again, strict=True))
    assert same >= len(found) - 1  # a number may lie within a rounding of the border of two tokens


def shaped(folder: Path, family: str) -> QwenVL:
    """Heads as in the 7B and 8B models: seven queries a key; heads wider together than the model is."""
    config = AutoConfig.from_pretrained(folder)
    text = config.text_config
    text.tie_word_embeddings = config.tie_word_embeddings = False
    kind: Any = Qwen2_5_VLForConditionalGeneration
    if family == "qwen2_5_vl":
        text.hidden_size, text.num_attention_heads, text.num_key_value_heads = 14 * 32, 14, 2
        config.vision_config.out_hidden_size = 14 * 32
    else:
        text.num_attention_heads, text.num_key_value_heads, text.head_dim = 8, 2, 32
        kind = Qwen3VLForConditionalGeneration
    torch.manual_seed(0)
    return QwenVL(kind(config), AutoTokenizer.from_pretrained(folder), Noise())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fused", [True, False])
def test_shapes_of_large_models(
    checkpoints: dict[str, Path], family: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where projections are too large to be copied."""
    if not fused:
        monkeypatch.setattr(decoding, "FUSED_BYTES", 1000)
    model = shaped(checkpoints[family], family)
    engine = TransformersEngine(model)
    found = conversations(model, engine)
    assert (engine._decoder._fused[0] is not None) == fused
    assert_as_scored(model, found)


def test_copies_follow_the_weights(model: QwenVL) -> None:
    """Steps of an optimizer, another storage, and what an optimizer does unseen: all are pushed."""
    engine = TransformersEngine(model)
    conversations(model, engine)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    engine.update_weights(model.model, 1)
    assert_as_scored(model, conversations(model, engine))
    for parameter in model.model.model.language_model.parameters():
        parameter.data = parameter.data * 1.01  # another storage
    assert_as_scored(model, conversations(model, TransformersEngine(model)))
    engine.update_weights(model.model, 2)
    for parameter in model.model.model.language_model.parameters():
        parameter.data.mul_(1.01)  # no version counts this
    engine.update_weights(model.model, 3)
    assert_as_scored(model, conversations(model, engine))


def test_adapters_are_sampled_with(model: QwenVL) -> None:
    """They compute beside the weights, so nothing is copied; with them and while they are off."""
    adapters = LoraConfig(r=2, target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj")
    inject_adapter_in_model(adapters, model.model)
    plain = conversations(model, TransformersEngine(model))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    engine = TransformersEngine(model)
    found = conversations(model, engine)
    assert not why_not(model) and set(engine._decoder._fused) == {None}
    assert_as_scored(model, found)
    assert [said.ids for _, said in found] != [said.ids for _, said in plain]


@pytest.mark.parametrize("part", ["layers.1", "layers.0.self_attn", "layers.0.mlp", ""])
def test_what_hooks_do_to_a_layer_is_done_in_sampling_too(model: QwenVL, part: str) -> None:
    language: nn.Module = model.model.model.language_model
    module = language.get_submodule(part)
    before = conversations(model, TransformersEngine(model))

    def double(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if hasattr(output, "last_hidden_state"):
            output.last_hidden_state = output.last_hidden_state * 0.5
            return output
        return (output[0] * 2, *output[1:]) if isinstance(output, tuple) else output * 2

    hook = module.register_forward_hook(double)
    assert "hooks" in why_not(model)
    found = conversations(model, TransformersEngine(model))
    assert_as_scored(model, found)
    hook.remove()
    assert not why_not(model)
    assert [said.log_probs for _, said in found] != [said.log_probs for _, said in before]


def test_a_hooked_projection_is_called(model: QwenVL) -> None:
    projection: nn.Module = model.model.model.language_model.layers[0].self_attn.k_proj
    hook = projection.register_forward_hook(lambda _module, _inputs, output: output * 2)
    assert not why_not(model)
    assert_as_scored(model, conversations(model, TransformersEngine(model)))
    hook.remove()


def test_layers_that_compute_otherwise_are_left_to_transformers(model: QwenVL) -> None:
    layer = model.layers()[0]
    kind = type(layer)

    class Louder(kind):  # type: ignore[misc, valid-type]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs) * 2

    layer.__class__ = Louder
    assert "its layers are of Louder" in why_not(model)
    assert_as_scored(model, conversations(model, TransformersEngine(model)))
    layer.__class__ = kind
    config = model.model.config.text_config
    config.layer_types = ["full_attention", "sliding_attention"]
    assert "not all layers attend to everything" in why_not(model)
    config.layer_types = ["full_attention", "full_attention"]
    config.rope_parameters["rope_type"] = "dynamic"
    assert "dynamic" in why_not(model)
    config.rope_parameters["rope_type"] = "default"
    assert not why_not(model)


@pytest.mark.parametrize("greedy", [False, True])
def test_weights_that_have_diverged_sample_nothing(model: QwenVL, greedy: bool) -> None:
    """No token is made of what is no number."""
    with torch.no_grad():
        model.model.model.language_model.norm.weight.fill_(torch.nan)
    engine = TransformersEngine(model)
    with pytest.raises(EngineError, match="not numbers: its weights have diverged"):
        engine.generate([context(model, "a", [], "look")], sampling(model, greedy=greedy))


def test_a_group_keeps_its_prompt_once_through_all_turns(model: QwenVL) -> None:
    """Of seven conversations three prompts are kept, after the third turn too."""
    engine = TransformersEngine(model)
    conversations(model, engine)
    assert len(engine._kept) == 7
    assert len({id(kept.prompt) for kept in engine._kept.values()}) == 3
