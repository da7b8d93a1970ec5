"""A Qwen-VL small enough to train on a CPU: the real architecture and random weights.

The tokenizer is Qwen's byte-level BPE with Qwen's special tokens, its merges learned here from a
corpus, so that an episode is a few hundred tokens long. The result is saved as an ordinary checkpoint
and loaded like one; nothing else in `agents` knows that it is tiny.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from .checkpoints import save_processor
from .family import family_of
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


def build_tiny_qwen(
    folder: str | Path,
    corpus: Iterable[str],
    *,
    family: str = "qwen2_5_vl",
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
        family: name of a registered `Family`, whose architecture it has.
        vocab_size: upper bound of byte and merge tokens; Qwen's added tokens come on top.
        hidden_size: width of the language model, a multiple of 64; its heads are 32 wide.
        vision_size: width of the vision tower, a multiple of 8.
        layers: decoder layers.
        words: that remain tokens of their own, see `train_tokenizer`.
        seed: of the weights. The generator of the caller is left as it was.

    Returns:
        The folder.

    Raises:
        WrongCheckpoint: there is no such family.
        ValueError: it does not say what a tiny one is.
    """
    built = family_of(family)
    if built.tiny is None:
        raise ValueError(f"the family {family!r} does not say what a tiny model of it is: `Family.tiny`")
    tokenizer = train_tokenizer(corpus, vocab_size, words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = built.model_class(built.tiny(tokenizer, hidden_size, vision_size, layers))
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
