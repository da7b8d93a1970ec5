"""What tells one family of vision-language models from another.

A family is one module of this folder, or a file of your own: a `Family`, registered. It has to be built as
Qwen's are: a vision tower whose merged patches stand in the text as placeholders between two delimiters,
three axes of rotary positions, and `transformers`' names of its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast


class WrongCheckpoint(ValueError):
    """A checkpoint or tokenizer that these policies cannot use."""


@dataclass(frozen=True)
class Family:
    """One family.

    Args:
        name: ``model_type`` of its configuration in transformers.
        model_class: in transformers, for generation.
        mean: of red, green and blue in [0, 1], by its processor's file.
        std: likewise.
        video: whether neighbouring frames are one item, or one item per step in time after its seconds.
        seconds_in_positions: whether positions of a video advance with its seconds.
        processor: name of its processor in transformers, which vLLM reads from a checkpoint.
        video_processor: likewise, of its videos.
        decoder_layer: class of its decoder layers, where they compute as Qwen2.5-VL's or Qwen3-VL's, under
            the same names: `agents.models.decoding` then reads sampled tokens several times as fast as
            transformers, which does it where there is None.
        tiny: configuration of a tiny one, from its tokenizer, the widths of the language model and of the
            vision tower, and the number of layers; None: no tiny one is made.
    """

    name: str
    model_class: type[PreTrainedModel]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    video: Literal["video", "stamped_video"]
    seconds_in_positions: bool
    processor: str
    video_processor: str
    decoder_layer: type[nn.Module] | None = None
    tiny: Callable[[PreTrainedTokenizerFast, int, int, int], PretrainedConfig] | None = None


_FAMILIES: dict[str, Family] = {}


def register(family: Family) -> None:
    """Make a family known; another one of its name is replaced."""
    _FAMILIES[family.name] = family


def family_of(model_type: str) -> Family:
    """The family of a type of model.

    Raises:
        WrongCheckpoint: none is known.
    """
    if model_type not in _FAMILIES:
        raise WrongCheckpoint(f"a checkpoint of type {model_type!r}; known are {', '.join(_FAMILIES)}")
    return _FAMILIES[model_type]
