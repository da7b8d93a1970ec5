"""A Qwen-VL small enough to train on a CPU: the real architecture and random weights.

The tokenizer is Qwen's byte-level BPE with Qwen's special tokens, its merges learned here from a
corpus, so that an episode is a few hundred tokens long. The result is saved as an ordinary checkpoint
and loaded like one; nothing else in `agents` knows that it is tiny.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from .checkpoints import save_processor
from .qwen_vl import patch_layout

# In Qwen2.5's own order. Special tokens vanish when a text is decoded without them; the two
# of the tool calls are ordinary text that happens to be one token.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TOOL_TOKENS = ("<tool_call>", "</tool_call>")
HEAD = 32  # width of an attention head


def build_tiny_qwen(
    folder: str | Path,
    corpus: Iterable[str],
    *,
    family: Literal["qwen2_5_vl", "qwen3_vl"] = "qwen2_5_vl",
    vocab_size: int = 896,
    hidden_size: int = 64,
    vision_size: int = 32,
    layers: int = 2,
    words: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """Make a checkpoint with random weights that ``from_pretrained`` loads.

    Args:
        folder: where the model and the tokenizer are saved.
        corpus: texts from which the merges are learned.
        family: whose architecture it has.
        vocab_size: upper bound of byte and merge tokens; Qwen's added tokens come on top.
        hidden_size: width of the language model, a multiple of 64; its heads are 32 wide.
        vision_size: width of the vision tower, a multiple of 8.
        layers: decoder layers.
        words: that remain tokens of their own, see `train_tokenizer`.
        seed: of the weights. The generator of the caller is left as it was.

    Returns:
        The folder.
    """
    tokenizer = train_tokenizer(corpus, vocab_size, words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel
        if family == "qwen3_vl":
            model = Qwen3VLForConditionalGeneration(
                tiny_qwen3_config(tokenizer, hidden_size, vision_size, layers)
            )
        else:
            model = Qwen2_5_VLForConditionalGeneration(
                tiny_config(tokenizer, hidden_size, vision_size, layers)
            )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_processor(folder, patch_layout(model.config))
    return Path(folder)


def train_tokenizer(
    corpus: Iterable[str], vocab_size: int, words: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """A byte-level BPE with merges learned from a corpus and Qwen's added tokens.

    Every string can be encoded: all 256 bytes are tokens. Unlike Qwen's, merges may span the words
    of a line and the digits of a number, so that a fixed prompt is a handful of tokens. Numbers, tags and
    letters in parentheses are never merged with what is beside them.

    Args:
        corpus: texts.
        vocab_size: upper bound of byte and merge tokens.
        words: that are not merged with their neighbours either: "B. red" as one token would say nothing of
            another "red".
    """
    pieces = [r"\n", r" ?\p{N}+", r"<(?=/?tool_call>|\|)", r"</?[a-z_]+>", r" \([A-Z]\)"]
    if words:
        pieces.append(rf" ?\b(?:{'|'.join(re.escape(word) for word in words)})\b")
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.decoder = normalizers.NFC(), decoders.ByteLevel()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # The third alternative keeps a spelled-out added token from being merged into its namesake.
            pre_tokenizers.Split(Regex("|".join(pieces)), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(corpus, trainer)
    bpe.add_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS])
    bpe.add_tokens([AddedToken(text, special=False, normalized=False) for text in TOOL_TOKENS])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def tiny_config(
    tokenizer: PreTrainedTokenizerFast, hidden_size: int, vision_size: int, layers: int
) -> Qwen2_5_VLConfig:
    """Qwen2.5-VL's configuration with small numbers; patches and merging stay Qwen's (14 and 2)."""
    # The three sections of M-RoPE must add up to half a head.
    sections = [HEAD // 2 - 2 * (HEAD // 6), HEAD // 6, HEAD // 6]
    return Qwen2_5_VLConfig(
        text_config=_text_numbers(tokenizer, hidden_size, layers, {"mrope_section": sections}),
        vision_config={
            **_vision_numbers(hidden_size, vision_size),
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        tie_word_embeddings=True,
        **_vision_tokens(tokenizer),
    )


def tiny_qwen3_config(
    tokenizer: PreTrainedTokenizerFast, hidden_size: int, vision_size: int, layers: int
) -> Qwen3VLConfig:
    """Qwen3-VL's configuration with small numbers; patches and merging stay Qwen's (16 and 2)."""
    third = HEAD // 6
    rope = {"mrope_section": [HEAD // 2 - 2 * third, third, third], "mrope_interleaved": True}
    return Qwen3VLConfig(
        text_config={**_text_numbers(tokenizer, hidden_size, layers, rope), "head_dim": HEAD},
        vision_config={
            **_vision_numbers(hidden_size, vision_size),
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        tie_word_embeddings=True,
        **_vision_tokens(tokenizer),
    )


def _text_numbers(
    tokenizer: PreTrainedTokenizerFast, hidden_size: int, layers: int, rope: dict[str, Any]
) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden_size // HEAD,
        "num_key_value_heads": hidden_size // HEAD // 2,
        "max_position_embeddings": 32_768,
        "initializer_range": 0.1,  # Qwen's 0.02 suits wide layers; narrow ones hardly move at first
        # Qwen's 1e6 is made for long texts; of so few frequencies these conversations need the fast ones.
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, **rope},
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    }


def _vision_numbers(hidden_size: int, vision_size: int) -> dict[str, Any]:
    return {
        "depth": 2,
        "hidden_size": vision_size,
        "intermediate_size": 2 * vision_size,
        "num_heads": 2,
        "out_hidden_size": hidden_size,
        "initializer_range": 0.1,
    }


def _vision_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
