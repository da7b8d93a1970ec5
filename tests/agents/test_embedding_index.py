"""The search index over embeddings: tiny random checkpoints, real loading, real files."""

# ruff: noqa: D103

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from agents.models import embedding_index
from agents.models.embedding_index import EmbeddingIndex
from agents.models.family import WrongCheckpoint
from videogym import Answer, Find, VideoQAEnv
from videogym.recipes import FIND
from videogym.search import SearchError, WrongIndex
from videogym.testing.coded_clips import write_clip
from videogym.video import open_video

WORDS = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "a", "red", "blue", "shape", "dog"]
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = TOWER | {"image_size": 24, "patch_size": 8}


def tokenizer():
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def build(folder, kind, seed=0):
    """A checkpoint of random weights."""
    torch.manual_seed(seed)
    tokens = {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    text = TOWER | tokens | {"max_position_embeddings": 12}
    if kind == "clip":
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8))
        images = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
        images = SiglipImageProcessorPil(size={"height": 24, "width": 24})
    for part in (model, tokenizer(), images):
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=["clip", "siglip"])
def checkpoint(request, tmp_path):
    embedding_index._MEMORY.clear()
    return build(tmp_path / request.param, request.param)


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path / "clip.mp4", count=100, rate=25)  # 4 s
    return str(tmp_path / "clip.mp4")


def index_of(checkpoint, tmp_path, **changes):
    return EmbeddingIndex(
        checkpoint, **{"fps": 2.0, "device": "cpu", "cache_dir": str(tmp_path / "cache"), **changes}
    )


def test_a_score_is_the_cosine_that_the_model_itself_gives(checkpoint, clip, tmp_path):
    with open_video(clip) as video:
        hits = index_of(checkpoint, tmp_path).search(video, "a red shape")
        size = (24 * video.meta.width // video.meta.height, 24)
        frames = list(video.frames_at(hits.times_s.tolist(), size=size).pixels)
    assert hits.times_s.tolist() == [0.0, 0.48, 1.0, 1.48, 2.0, 2.48, 3.0, 3.48]  # frames of 1/25 s
    family = CLIPModel if "siglip" not in checkpoint else SiglipModel
    model = family.from_pretrained(checkpoint).eval()
    images = CLIPImageProcessorPil if family is CLIPModel else SiglipImageProcessorPil
    padding = {"padding": "max_length", "max_length": 12} if family is SiglipModel else {}
    with torch.inference_mode():
        given = model(
            input_ids=tokenizer()(["a red shape"], return_tensors="pt", **padding)["input_ids"],
            pixel_values=images.from_pretrained(checkpoint)(frames, return_tensors="pt")["pixel_values"],
        )
    cosine = (given.image_embeds @ given.text_embeds.T)[:, 0].numpy()
    assert np.allclose(hits.scores, cosine, atol=1e-5)
    assert np.ptp(hits.scores) > 1e-6  # frames differ


def test_embeddings_are_made_once_for_each_video_model_and_rate(checkpoint, clip, tmp_path, monkeypatch):
    index, folder = index_of(checkpoint, tmp_path), tmp_path / "cache" / "embeddings"
    with open_video(clip) as video:
        first = index.search(video, "a dog")
        (file,) = folder.iterdir()
        embedding_index._MEMORY.clear()
        monkeypatch.setattr(type(video), "frames_at", lambda *_, **__: pytest.fail("decoded again"))
        assert np.array_equal(index.search(video, "a dog").scores, first.scores)
        monkeypatch.undo()
        index_of(checkpoint, tmp_path, fps=1.0).search(video, "a dog")
        index_of(build(tmp_path / "other", "clip", seed=1), tmp_path).search(video, "a dog")
    assert file in folder.iterdir() and len(list(folder.iterdir())) == 3


def test_embeddings_of_another_video_or_model_and_damaged_ones_are_refused(checkpoint, clip, tmp_path):
    index, folder = index_of(checkpoint, tmp_path), tmp_path / "cache" / "embeddings"
    other = tmp_path / "other.mp4"
    write_clip(other, count=50)
    with open_video(clip) as video, open_video(str(other)) as second:
        index.search(video, "a dog")
        (file,) = folder.iterdir()
        index.search(second, "a dog")
        (theirs,) = set(folder.iterdir()) - {file}
        shutil.copy(theirs, file)
        embedding_index._MEMORY.clear()
        with pytest.raises(WrongIndex, match="fingerprint"):
            index.search(video, "a dog")
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(SearchError, match="damaged"):
            index.search(video, "a dog")


def test_a_checkpoint_that_embeds_no_images_and_texts_is_refused_when_an_episode_begins(tmp_path):
    folder = tmp_path / "lm"
    config = Qwen2Config(vocab_size=9, num_key_value_heads=2, **TOWER)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    index = EmbeddingIndex(str(folder), device="cpu")
    env = VideoQAEnv("procedural:brief_event?duration_s=60&count=2", replace(FIND, search=index))
    with pytest.raises(WrongCheckpoint, match="get_image_features"):
        env.reset(seed=0)


def test_an_episode_is_played_with_it(checkpoint, tmp_path):
    recipe = replace(FIND, search=index_of(checkpoint, tmp_path, fps=0.5))
    env = VideoQAEnv("procedural:brief_event?duration_s=60&count=2&size=64x36", recipe)
    env.reset(seed=0)
    env.step(Find("a blue shape " * 19, 3))  # longer than the model's context, which cuts it
    (result,) = env.state.turns[-1].results
    assert len(result.clip.times_s) == 3 and len(result.action.found_s) == 16
    *_, info = env.step(Answer("A"))
    assert info["ending"] == "answered"


def test_where_it_runs_and_where_embeddings_lie_is_no_part_of_the_identity(tmp_path):
    recipes = [
        replace(FIND, search=EmbeddingIndex("m", device=device, cache_dir=folder))
        for device, folder in ((None, None), ("cpu", str(tmp_path)))
    ]
    assert recipes[0].identity == recipes[1].identity and recipes[0] == recipes[1]
    assert replace(FIND, search=EmbeddingIndex("m", fps=2.0)).identity != recipes[0].identity
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="fps must be a finite number above 0"):
            EmbeddingIndex("m", fps=fps)


def test_a_model_without_a_fixed_image_size_is_refused(tmp_path):
    """SigLIP 2 of native resolution says how many patches it takes, and not of which pictures."""
    text = TOWER | {"vocab_size": len(WORDS), "max_position_embeddings": 12}
    vision = TOWER | {"num_patches": 9, "patch_size": 8}
    Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    SiglipImageProcessorPil(size={"height": 24, "width": 24}).save_pretrained(tmp_path)
    embedding_index._encoder.cache_clear()
    with pytest.raises(WrongCheckpoint, match="Siglip2Model without a fixed image size"):
        embedding_index._encoder(str(tmp_path), "cpu")
