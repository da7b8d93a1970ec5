"""What every training loop of a multimodal language model needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

from ..training.options import LoopConfig
from ..training.ranks import (
    launched,
)

# Longer events than half the gap between a skim's frames do not hide from it, and nobody need look.
TASKS = (
    "procedural:brief_event?level=0&duration_s=256&fps=4&size=320x180&event_s=2&count={count}&split={split}"
)
EVALUATED_AT_ONCE = 32  # episodes in play together, unless it is said


@dataclass(frozen=True)
class ChatConfig(LoopConfig):
    """What every training loop of a multimodal language model needs to know."""

    trains: ClassVar[bool] = True  # whether steps are made, which bfloat16 would lose

    recipe: str = "LONGVT_TINY"
    """Recipe of all episodes, or its name."""
    tasks: str = TASKS.format(count=4000, split="train")
    """Source of the tasks that are trained on."""
    eval_tasks: str = TASKS.format(count=200, split="val")
    """Source of held-out tasks."""
    eval_episodes: int = 100
    """Held-out tasks of an evaluation, always the same."""
    checkpoint: str = ""
    """Folder or name of a Qwen2.5-VL or Qwen3-VL; empty: a tiny one with random weights is made."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights. In bfloat16 steps of these learning rates are lost: it is for adapters
    (``lora_rank``), which are kept and trained in float32. Under torchrun all weights can be trained with
    it: the shards that are stepped stay in float32, what is gathered of them computes in bfloat16."""
    device: str = "cpu"
    """Where the model is, as torch names it."""
    lora_rank: int = 0
    """Of low-rank adapters on all linear layers of the language model; 0: all weights are trained."""
    freeze_vision: bool = False
    """Whether the vision tower stays as it is; features of its frames are then computed once."""
    video_form: bool = False
    """Whether neighbouring frames are shown as a video of the family, not as images."""
    window: int = 0
    """Earlier turns that a policy reads again; 0: all."""
    temperature: float = 1.0
    """Of sampling and of the trained distribution."""
    max_new_tokens: int = 128
    """Bound of one output."""
    max_context: int = 32_768
    """Tokens that a conversation may have."""
    rollouts_at_once: int = 0
    """Episodes in play together, whose keys and values are in memory; 0: all of an iteration, and 32 of an
    evaluation."""
    share_prefixes: bool = True
    """Whether what rollouts have in common goes through the model once in an update."""
    gradient_checkpointing: bool = False
    """Whether layers keep their inputs only and run again in the backward pass: about a third more time in
    an update, and memory for one layer's activations in place of all."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a number is out of range, or all weights would be kept in bfloat16 and trained.
        """
        for name in ("window", "lora_rank", "rollouts_at_once"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        counts = ("max_new_tokens", "eval_episodes", "eval_every", "checkpoint_every", "iterations")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.trains and self.dtype == "bfloat16" and not self.lora_rank and not launched():
            raise ValueError(
                "in bfloat16 steps of this size are lost; set lora_rank, or dtype to float32, or start it "
                "with torchrun, which keeps shards of the weights in float32"
            )


M = TypeVar("M", bound=ChatConfig)
