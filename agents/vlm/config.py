"""What every training loop of a multimodal language model needs to know."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, TypeVar

from videogym import Recipe
from videogym.grammars import compared

from ..engines import draws
from ..training.bounds import Coefficient, Count, CountOrNone, Positive
from ..training.options import EvaluationConfig, LoopConfig
from ..training.ranks import launched

# Longer events than half the gap between a skim's frames do not hide from it, and nobody need look.
TASKS = (
    "procedural:brief_event?level=0&duration_s=256&fps=4&size=320x180&event_s=2&count={count}&split={split}"
)
EVALUATED_AT_ONCE = 32  # episodes in play together, unless it is said


@dataclass(frozen=True)
class ModelConfig:
    """The model, and which of its weights are trained."""

    checkpoint: str = ""
    """Folder or name of a Qwen2.5-VL or Qwen3-VL checkpoint; empty: a tiny model with random weights."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights. One process trains in bfloat16 with adapters only (``lora_rank``, which stay in
    float32), because bfloat16 weights round away steps of these learning rates. Under torchrun all weights
    can be trained: the shards stay in float32, and computation is in bfloat16."""
    device: str = "cpu"
    """Device of the model, as torch names it: cpu, cuda, cuda:1."""
    lora_rank: CountOrNone = 0
    """Rank of LoRA adapters on all linear layers of the language model; 0: all weights are trained."""
    freeze_vision: bool = False
    """Freeze the vision tower; features of frames are then computed once and cached."""


@dataclass(frozen=True)
class SamplingConfig:
    """What the model reads of a conversation, and how its outputs are sampled."""

    video_form: bool = False
    """Show neighbouring frames as a video, in the way of the model family, instead of as images."""
    window: CountOrNone = 0
    """Number of earlier turns in the context; 0: all."""
    temperature: Positive = 1.0
    """Temperature of sampling, and of the distribution that is trained."""
    max_new_tokens: Count = 128
    """Limit of tokens in one output."""
    max_context: Count = 32_768
    """Limit of tokens in a conversation."""
    first_frames: tuple[int, ...] = ()
    """Numbers of first frames, one of which is drawn for each training prompt and shared by its rollouts,
    such as 4 8 16 32 64; without any, and in evaluations, the recipe's."""
    allow_untested_vllm: bool = False
    """Sample by a server whose version of vLLM our tests have not seen; a warning names it."""


@dataclass(frozen=True)
class MemoryConfig:
    """Memory against time; what is trained is the same but for rounding."""

    micro_batch_size: Count = 16
    """Rollouts per forward and backward pass; gradients are accumulated over the step."""
    max_concurrent_rollouts: CountOrNone = 0
    """Number of episodes played concurrently, whose KV caches are in memory; 0: all of an iteration, 32 in
    an evaluation."""
    share_prefixes: bool = True
    """Compute the common prefix of rollouts once in an update."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: an update takes about a third longer, and memory holds
    the activations of one layer instead of all."""


@dataclass(frozen=True)
class ConversationConfig:
    """Sampled conversations for people to read; nothing is trained by them."""

    conversations_every: CountOrNone = 0
    """Iterations between conversations that are shown: in the run's ``conversations``, and by its logger;
    0: none are."""
    conversations_shown: Count = 4
    """Number of them, of different tasks where there are as many."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, beside the learning rate."""

    weight_decay: Coefficient = 0.01
    """Weight decay of AdamW."""
    max_grad_norm: Positive = 1.0
    """Clip the norm of the gradient to this value."""


@dataclass(frozen=True)
class ChatConfig(LoopConfig):
    """What every training loop of a multimodal language model needs to know."""

    trains: ClassVar[bool] = True  # whether steps are made, which bfloat16 would lose
    engine_version: ClassVar[int] = draws.VERSION

    recipe: str = "LONGVT_TINY"
    """Recipe of all episodes, or its name, such as LONGVT/paper."""
    prompt_file: str = ""
    """Prompt file with the words of the conversations; empty: those of the recipe's grammar."""
    tasks: str = TASKS.format(count=4000, split="train")
    """Source of the training tasks: a task file, FORMAT:PATH or procedural:."""
    evaluation: EvaluationConfig = EvaluationConfig(TASKS.format(count=200, split="val"))
    """Evaluations while a run trains."""
    model: ModelConfig = ModelConfig()
    """The model, and which of its weights are trained."""
    sampling: SamplingConfig = SamplingConfig()
    """What the model reads of a conversation, and how its outputs are sampled."""
    memory: MemoryConfig = MemoryConfig()
    """Memory against time."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a number is out of range, the prompt file is no prompt, or all weights would be kept
                in bfloat16 and trained.
            OSError: the prompt file cannot be read.
        """
        super().__post_init__()
        if self.prompt_file:
            _ = self.rules  # the file is read here and now, and once
        for number in self.sampling.first_frames:
            self.rules.rules.skimming(number)
        alone = not self.model.lora_rank and not launched()
        if self.trains and self.model.dtype == "bfloat16" and alone:
            raise ValueError(
                "in bfloat16 steps of this size are lost; set lora_rank, or dtype to float32, or start it "
                "with torchrun, which keeps shards of the weights in float32"
            )

    @cached_property
    def rules(self) -> Recipe:
        """The recipe itself, in the words of the prompt file."""
        recipe = super().rules
        return recipe.with_prompt(self.prompt_file) if self.prompt_file else recipe


M = TypeVar("M", bound=ChatConfig)


def tell_prompt(config: ChatConfig) -> None:
    """Say on standard error whose words the conversations have, if a prompt gives them."""
    if config.rules.prompt is not None:
        lines = [f"  {line}" for line in compared(config.rules.prompt)]
        sys.stderr.write("\n".join([f"prompt of {config.prompt_file or config.rules.name}", *lines, ""]))
