"""What a rollout engine is: it reads contexts and samples one output for each.

An engine knows ids, frames and weights. It knows nothing of episodes, grammars or rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from ..models.visuals import Visual


class EngineError(RuntimeError):
    """An engine cannot be reached, has died, or gave back what cannot be an output."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How outputs are sampled."""

    temperature: float  # above 0; divides the logits in sampling and in training
    max_new_tokens: int  # bound of one output
    end_id: int  # ends an output and belongs to it
    banned: tuple[int, ...]  # never sampled: a policy cannot write a frame
    max_context: int  # most tokens a context may have with its output, placeholders counted singly
    greedy: bool = False  # the likeliest token each time; its log-probabilities are not for training


@dataclass(frozen=True, slots=True)
class Context:
    """All that a model reads before it writes an output."""

    key: str  # names the conversation: an engine may keep what it computed for an earlier turn of it
    ids: tuple[int, ...]  # collapsed: one placeholder per visual
    visuals: tuple[Visual, ...]  # in the order of the placeholders


@dataclass(frozen=True, slots=True)
class Output:
    """What was sampled."""

    ids: tuple[int, ...]  # with the end id, unless the output was cut
    log_probs: tuple[float, ...]  # of these ids when they were sampled, after temperature and ban
    versions: tuple[int, ...]  # of the weights that sampled each


class Engine(Protocol):
    """Samples outputs with weights that training pushes to it."""

    def generate(self, contexts: Sequence[Context], sampling: Sampling) -> list[Output]:
        """One output per context, in order.

        Raises:
            EngineError: the engine failed; nothing was sampled.
        """
        ...

    def update_weights(self, model: nn.Module, version: int) -> None:
        """Sample with these weights from now on, and stamp outputs with this version.

        Nothing that was computed with earlier weights is used again.

        Raises:
            EngineError: the engine did not take them; it samples nothing until it has.
        """
        ...

    def reset_cache(self) -> None:
        """Episodes have ended: give back what is kept of conversations. Those that go on are read again."""
        ...

    def close(self) -> None:
        """Give back processes and memory."""
        ...
