"""What goes into a Qwen-VL: placeholders and positions, patches and features, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import ROUNDING, assert_close, assert_equal_gradients
from small_chat import FAMILIES, Noise, build, image, load, plain_logits, shown
from torch import Tensor
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, Qwen2VLImageProcessorPil

import agents.models.qwen_vl as qwen_vl
from agents.models import family
from agents.models.qwen_vl import FrameMismatch, QwenVL, WrongCheckpoint, seconds_per_step
from agents.models.tiny_qwen import build_tiny_qwen, train_tokenizer
from agents.models.visuals import WHOLE_FRAME, ChatForm, Visual, resolve
from agents.vlm.config import ChatConfig
from agents.vlm.policy import make_model, trainable_parameters

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> QwenVL:
    """A tiny model of either family."""
    return load(checkpoints[request.param])


def side(model: QwenVL, width: int, height: int) -> tuple[int, int]:
    """Pixels of so many merged patches."""
    return width * model.layout.factor, height * model.layout.factor


# --- ids and positions -------------------------------------------------------------------------


Piece = tuple[int, int, int, int, float]
"""Text ids, then a visual of width and height in merged patches, of so many frames, so many a second."""
PIECES = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(1, 4),
        st.integers(1, 4),
        st.integers(1, 7),
        st.sampled_from([0.4, 1.0, 2.0, 3.0, 7.5]),
    ),
    max_size=5,
)


def conversation(model: QwenVL, pieces: list[Piece], tail: int) -> tuple[list[int], list[Visual], Any]:
    """Collapsed ids and visuals, and what `get_rope_index` wants to know about them."""
    start, pad, stop, video_pad = model.vision_ids
    ids: list[int] = []
    visuals: list[Visual] = []
    kinds: list[int] = []
    expanded: list[int] = []
    grids: dict[int, list[list[int]]] = {1: [], 2: []}
    seconds: list[float] = []
    for text, width, height, frames, fps in pieces:
        if model.family == "qwen3_vl":
            frames = min(frames, 2)  # one visual per step in time
        times = tuple(3.0 + k / fps for k in range(frames))
        visuals.append(Visual("v", times, WHOLE_FRAME, side(model, width, height)))
        kind, token = (2, video_pad) if frames > 1 else (1, pad)
        steps = (frames + 1) // 2
        count = steps * width * height
        ids += [*range(7, 7 + text), start, token, stop]
        expanded += [*range(7, 7 + text), start, *[token] * count, stop]
        kinds += [0] * (text + 1) + [kind] * count + [0]
        grids[kind].append([steps, 2 * height, 2 * width])
        if kind == 2:
            seconds.append(2 / fps)
    ids += range(7, 7 + tail)
    expanded += range(7, 7 + tail)
    official: dict[str, Any] = {
        "input_ids": torch.tensor([expanded]),
        "mm_token_type_ids": torch.tensor([kinds + [0] * tail], dtype=torch.int32),
        "image_grid_thw": torch.tensor(grids[1]) if grids[1] else None,
        "video_grid_thw": torch.tensor(grids[2]) if grids[2] else None,
    }
    if model.family == "qwen2_5_vl":
        official["second_per_grid_ts"] = torch.tensor(seconds) if seconds else None
    return ids, visuals, official


@settings(max_examples=40)
@given(pieces=PIECES, tail=st.integers(1, 4), data=st.data())
def test_ids_and_positions_are_those_of_transformers(
    model: QwenVL, pieces: list[Piece], tail: int, data: st.DataObject
) -> None:
    """Of any conversation, also when it is expanded in two parts, the second from where the first ends."""
    ids, visuals, official = conversation(model, pieces, tail)
    positions, _ = model.model.model.get_rope_index(**official)
    whole = model.expand(ids, visuals)
    assert torch.equal(whole.ids, official["input_ids"][0])
    assert torch.equal(whole.positions, positions[:, 0])
    assert whole.after == positions[:, 0, -1].max() + 1
    assert model.length(ids, visuals) == len(whole.ids)
    assert torch.equal(whole.ids[whole.places], torch.tensor(ids))
    starts = [place for place, token in enumerate(ids) if token == model.vision_ids[0]]
    inside = {place for start in starts for place in (start + 1, start + 2)}
    cut = data.draw(st.sampled_from([place for place in range(len(ids) + 1) if place not in inside]))
    before = sum(start < cut for start in starts)
    first = model.expand(ids[:cut], visuals[:before])
    second = model.expand(ids[cut:], visuals[before:], start=first.after)
    assert torch.equal(torch.cat([first.ids, second.ids]), whole.ids)
    assert torch.equal(torch.cat([first.positions, second.positions], 1), whole.positions)
    assert torch.equal(torch.cat([first.places, second.places + len(first.ids)]), whole.places)
    assert second.after == whole.after


def test_a_video_of_qwen25_advances_by_its_seconds(checkpoints: dict[str, Path]) -> None:
    """Eight frames at one a second: steps of two seconds, at four tokens a second 8 apart."""
    model = load(checkpoints["qwen2_5_vl"])
    assert model.model.config.vision_config.tokens_per_second == 4
    visual = Visual("v", tuple(map(float, range(8))), WHOLE_FRAME, (28, 28))
    assert seconds_per_step(visual, model.layout) == 2.0
    start, _, stop, pad = model.vision_ids
    expanded = model.expand([start, pad, stop], [visual])
    assert expanded.positions[0].tolist() == [0, 1, 9, 17, 25, 2]
    assert expanded.positions[1].tolist() == [0, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("times", [(), (4.0,), (2.0, 3.0)])
def test_the_audit_names_what_does_not_fit(model: QwenVL, times: tuple[float, ...]) -> None:
    """Too many, too few or other visuals; placeholders without delimiters; texts in between."""
    size = side(model, 2, 1)
    pair = [image(0.0, size), image(1.0, size)]
    ids = list(shown(model, pair, "look"))
    some = [Visual("v", times, WHOLE_FRAME, size)] if times else []
    with pytest.raises(FrameMismatch, match=r"hold 2 image and 0 video .* 2 starts and 2 ends") as refusal:
        model.expand(ids, some)
    assert f"fit {len(times) == 1:d} images and {len(times) > 1:d} videos" in str(refusal.value)
    with pytest.raises(FrameMismatch, match="other tokens stand between"):
        model.expand([ids[0], 9, *ids[1:]], pair)
    with pytest.raises(FrameMismatch, match="1 starts and 2 ends"):
        model.expand(ids[1:], pair)
    with pytest.raises(FrameMismatch, match="0 image and 0 video"):
        model.expand(ids[6:], pair)
    swapped = [ids[1], ids[0], *ids[2:]]
    with pytest.raises(FrameMismatch):
        model.expand(swapped, pair)


def test_a_long_video_is_no_single_visual_of_qwen3(checkpoints: dict[str, Path]) -> None:
    """Each step in time stands after its own time there."""
    model = load(checkpoints["qwen3_vl"])
    visual = Visual("v", (0.0, 1.0, 2.0), WHOLE_FRAME, (32, 32))
    with pytest.raises(FrameMismatch, match="one visual per 2 frames"):
        model.expand(shown(model, [visual], "look"), [visual])


def test_sides_of_frames_must_fit_the_patches(model: QwenVL) -> None:
    """The message names the factor and the size."""
    for width, height in ((30, 56), (56, 30), (0, 56)):
        with pytest.raises(
            ValueError, match=f"multiples of {model.layout.factor} pixels, got {width}x{height}"
        ):
            model.layout.grid(image(0.0, (width, height)))
    assert model.layout.grid(image(0.0, side(model, 3, 1))) == (1, 2, 6)
    assert model.layout.tokens(Visual("v", (0.0, 1.0, 2.0), WHOLE_FRAME, side(model, 3, 1))) == 6


def test_the_form_is_that_of_the_family(model: QwenVL) -> None:
    """Sides of frames and the way of showing a video."""
    if model.family == "qwen3_vl":
        assert model.chat_form(video=True) == ChatForm(32, 2, "stamped_video")
        assert model.chat_form() == ChatForm(32, 2, "images")
    else:
        assert model.chat_form(video=True) == ChatForm(28, 2, "video")
        assert model.chat_form() == ChatForm(28, 2, "images")


# --- patches and features ----------------------------------------------------------------------


def processor(model: QwenVL) -> Qwen2VLImageProcessorPil:
    """The official image processor of the family, with what the published checkpoints' files say."""
    if model.family == "qwen2_5_vl":
        return Qwen2VLImageProcessorPil(do_resize=False)
    half = [0.5, 0.5, 0.5]
    return Qwen2VLImageProcessorPil(do_resize=False, patch_size=16, image_mean=half, image_std=half)


@pytest.mark.parametrize("width, height", [(1, 1), (3, 1), (2, 5)])
def test_patches_equal_those_of_the_official_image_processor(
    model: QwenVL, width: int, height: int
) -> None:
    """On frames that already have their size."""
    shape = (*side(model, width, height)[::-1], 3)
    frame = np.random.default_rng(width).integers(0, 256, shape, dtype=np.uint8)
    official = processor(model)(images=[frame], return_tensors="np")
    np.testing.assert_allclose(model.layout.patches(frame[None]), official["pixel_values"], **ROUNDING)
    grid = model.layout.grid(image(0.0, side(model, width, height)))
    assert official["image_grid_thw"].tolist() == [list(grid)]


def test_patches_equal_those_of_the_official_video_processor(model: QwenVL) -> None:
    """Three frames, the last without a partner; see ``write_patches.py`` for where the numbers are from."""
    golden = np.load(GOLDEN / "patches.npz")
    _, height, width, _ = shape = (3, model.layout.factor, 2 * model.layout.factor, 3)
    frames = np.random.default_rng(0).integers(0, 12, shape, dtype=np.uint8) * np.uint8(23)
    np.testing.assert_allclose(model.layout.patches(frames), golden[model.family], **ROUNDING)
    visual = Visual("v", (0.0, 1.0, 2.0), WHOLE_FRAME, (width, height))
    assert golden[f"{model.family}_grid"].tolist() == list(model.layout.grid(visual))


def official_features(model: QwenVL, visual: Visual) -> Tensor:
    """Features of one visual by the model's own method for its kind, deepstack behind."""
    frames = model.store.frames(visual.video, visual.times_s, size=visual.size, region=None).pixels
    grid = torch.tensor([model.layout.grid(visual)])
    if len(visual.times_s) == 1:
        patches = processor(model)(images=list(frames), return_tensors="pt")["pixel_values"]
        out = model.model.model.get_image_features(patches, grid, return_dict=True)
    else:
        patches = torch.from_numpy(model.layout.patches(frames))
        out = model.model.model.get_video_features(patches, grid, return_dict=True)
    deep = getattr(out, "deepstack_features", None) or []
    return torch.cat([torch.cat(list(layer)) for layer in (out.pooler_output, *deep)], -1)


@torch.no_grad()
def test_features_are_those_of_each_visual_alone(model: QwenVL) -> None:
    """Images and videos of several sizes in one batch: each as the official methods give it alone."""
    model._kept.clear()
    visuals = [
        image(0.0, side(model, 2, 1)),
        Visual("v", (1.0, 2.0), WHOLE_FRAME, side(model, 3, 3)),
        image(0.0, side(model, 4, 4)),
        Visual("w", (1.0, 2.0, 3.0), WHOLE_FRAME, side(model, 1, 2)),
    ]
    features = model.encode([*visuals, visuals[0]])
    assert list(features) == visuals
    for visual, found in features.items():
        assert found.shape == (model.layout.tokens(visual), 64 * (2 if model.family == "qwen3_vl" else 1))
        assert_close(found, official_features(model, visual))


def test_features_are_kept_as_long_as_they_hold(checkpoints: dict[str, Path]) -> None:
    """Without gradients or with a frozen tower: once; with gradients: anew; at most so many are kept."""
    model = load(checkpoints["qwen2_5_vl"], kept_features=2)
    visuals = [image(float(k), (28, 28)) for k in range(3)]

    def encoded(asked: list[Visual]) -> int:
        model.encoded_visuals = 0
        features = model.encode(asked)
        assert list(features) == asked
        return model.encoded_visuals

    with torch.no_grad():
        assert [encoded(visuals), encoded(visuals[1:]), encoded(visuals)] == [3, 0, 1]
    assert encoded(visuals) == 3 and encoded(visuals) == 3
    assert model.encode(visuals[:1])[visuals[0]].requires_grad
    model.model.model.visual.requires_grad_(False)
    assert encoded([visuals[2], visuals[0]]) == 0  # the two latest that were made
    assert not model.encode(visuals[:1])[visuals[0]].requires_grad


def test_a_store_is_asked_once_per_video_region_and_size() -> None:
    """What it is asked for is what the visuals say, and frames come back to their own visuals."""
    asked: list[tuple[Any, ...]] = []

    class Asked(Noise):
        def frames(self, source: str, times_s: Any, **view: Any) -> Any:
            asked.append((source, tuple(times_s), view["size"], view["region"]))
            return super().frames(source, times_s, **view)

    corner = (0.5, 0.0, 1.0, 0.25)
    visuals = [
        Visual("v", (0.0, 1.5), WHOLE_FRAME, (56, 28)),
        Visual("v", (1.0,), corner, (56, 28)),
        Visual("v", (7.0,), WHOLE_FRAME, (56, 28)),
        Visual("w", (0.0,), WHOLE_FRAME, (28, 28)),
    ]
    pixels = resolve(Asked(), visuals)
    assert asked == [
        ("v", (0.0, 1.5, 7.0), (56, 28), None),
        ("v", (1.0,), (56, 28), corner),
        ("w", (0.0,), (28, 28), None),
    ]
    for visual, found in zip(visuals, pixels, strict=True):
        region = None if visual.region == WHOLE_FRAME else visual.region
        alone = Noise().frames(visual.video, visual.times_s, size=visual.size, region=region).pixels
        assert np.array_equal(found, alone)


# --- log-probabilities -------------------------------------------------------------------------


def test_log_probabilities_in_slices_are_those_of_the_whole(
    model: QwenVL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tokens at a time: the same values and gradients as by the definition."""
    vocabulary = model.model.config.text_config.vocab_size
    hidden, ids = torch.randn(8, 64, requires_grad=True), torch.arange(8) + 20
    logits = hidden @ model.model.lm_head.weight.T / 0.7
    logits = logits.index_fill(1, torch.tensor(model.vision_ids), -torch.inf)
    log_p = logits.log_softmax(-1)
    entropies = -(log_p.exp() * log_p.clamp_min(-1e9)).sum(-1)
    expected = log_p.gather(1, ids[:, None])[:, 0]
    (gradient,) = torch.autograd.grad((expected + entropies).sum(), hidden, retain_graph=True)
    monkeypatch.setattr(qwen_vl, "LOGITS_AT_ONCE", 3 * vocabulary)
    found = model.log_probs(hidden, ids, 0.7)
    assert_close(found[0], expected)
    assert_close(found[1], entropies)
    (other,) = torch.autograd.grad((found[0] + found[1]).sum(), hidden)
    assert_equal_gradients({"hidden": other}, {"hidden": gradient})


# --- bad checkpoints ---------------------------------------------------------------------------


def test_a_tokenizer_without_qwens_tokens_is_refused(checkpoints: dict[str, Path]) -> None:
    """The message names what is missing."""
    tokenizer = train_tokenizer(["look at the frames"] * 4, 300)
    config = tokenizer.backend_tokenizer.to_str().replace("<|video_pad|>", "<|film|>")
    tokenizer = replace_backend(tokenizer, config)
    model = load(checkpoints["qwen2_5_vl"])
    with pytest.raises(WrongCheckpoint, match=r"lacks <\|video_pad\|>: it is not that of a Qwen-VL"):
        QwenVL(model.model, tokenizer, Noise())


def replace_backend(tokenizer: Any, text: str) -> Any:
    """A tokenizer like another, from the JSON of its inner one."""
    from tokenizers import Tokenizer

    return type(tokenizer)(
        tokenizer_object=Tokenizer.from_str(text), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def test_a_checkpoint_of_another_family_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """A text-only Qwen2: the message names its type and those that are known."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 1000}
    text_only = Qwen2ForCausalLM(Qwen2Config(num_attention_heads=2, num_key_value_heads=1, **sizes))
    text_only.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["qwen2_5_vl"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(WrongCheckpoint, match="type 'qwen2'; known are qwen2_5_vl, qwen3_vl"):
        load(tmp_path)
    with pytest.raises(WrongCheckpoint, match="type 'qwen2'"):
        QwenVL(text_only, tokenizer, Noise())


def test_a_tiny_checkpoint_follows_from_its_seed(tmp_path: Path) -> None:
    """Equal weights for equal seeds, others for others; the caller's generator is left alone."""
    state = torch.get_rng_state()
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        model = load(build(tmp_path / str(number), "qwen3_vl", seed=seed, layers=1, vocab_size=300))
        weights.append(model.model.lm_head.weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert replace(model.layout, patch=14).factor == 28


def test_a_model_with_adapters_is_saved_as_an_ordinary_one(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """What is loaded again scores what was saved; the weights that were not trained are as they were."""
    config = ChatConfig.of(checkpoint=str(checkpoints["qwen2_5_vl"]), lora_rank=2)
    model = make_model(config, Noise())
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert names and all("lora_" in name and "language_model" in name for name in names)
    with torch.no_grad():
        for weight in trainable_parameters(model):
            weight += 0.1 * torch.randn_like(weight)
    ids, visuals = shown(model, [image(1.0, (56, 28))], "look"), [image(1.0, (56, 28))]
    adapted = plain_logits(model, ids, visuals, 1.0)
    model.save(str(tmp_path))
    saved, first = load(tmp_path), load(checkpoints["qwen2_5_vl"])
    # Their product is added to the weights, or to what the weights give: another sum.
    assert_close(plain_logits(saved, ids, visuals, 1.0), adapted, of=float(adapted.detach().abs().max()))
    assert not torch.allclose(plain_logits(first, ids, visuals, 1.0), adapted, atol=0.1)
    assert set(saved.state_dict()) == set(first.state_dict())


def test_a_family_without_a_tiny_model_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written."""
    monkeypatch.setitem(family._FAMILIES, "large", replace(family.family_of("qwen3_vl"), tiny=None))
    with pytest.raises(ValueError, match="the family 'large' does not say what a tiny model of it is"):
        build_tiny_qwen(tmp_path / "tiny", ["words"], family="large")
    assert not (tmp_path / "tiny").exists()
