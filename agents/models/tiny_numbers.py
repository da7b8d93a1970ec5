"""Small numbers that the tiny models of several families have in common."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerFast

HEAD = 32  # width of an attention head
# Of M-RoPE, for time, height and width; they must add up to half a head.
MROPE_SECTION = [HEAD // 2 - 2 * (HEAD // 6), HEAD // 6, HEAD // 6]


def text_numbers(
    tokenizer: PreTrainedTokenizerFast, hidden_size: int, layers: int, rope: dict[str, Any]
) -> dict[str, Any]:
    """Of a language model as narrow as Qwen's layout allows."""
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


def vision_numbers(hidden_size: int, vision_size: int) -> dict[str, Any]:
    """Of a vision tower of two layers."""
    return {
        "depth": 2,
        "hidden_size": vision_size,
        "intermediate_size": 2 * vision_size,
        "num_heads": 2,
        "out_hidden_size": hidden_size,
        "initializer_range": 0.1,
    }


def vision_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Ids of the placeholders of frames."""
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
