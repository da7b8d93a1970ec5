"""Tokens drawn by inverse CDF: one uniform number each, all of them drawn before the first is used.

What a row draws follows from the seed, its place in the batch and the step alone, not from who else is
still writing. `torch.multinomial` takes ten times as long: it draws a number per token of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

VERSION = 2
"""Of what a seed draws; a run is resumed by the version that it began with. 1 was `torch.multinomial`."""


def uniforms(rows: int, steps: int) -> Tensor:
    """(rows, steps) float64 in [0, 1), of torch's generator on the CPU, whatever the model runs on."""
    return torch.rand(rows, steps, dtype=torch.float64)


def draw(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """Token ids by their probabilities.

    Args:
        log_probs: (B, V); a token of probability 0 is never drawn.
        uniform: (B,) float64 in [0, 1).

    Returns:
        (B,) int64. Where probabilities are not numbers, any.
    """
    # Single precision would round the last of a vocabulary of 150,000 away.
    # Summed in place: another buffer of that size a step costs a CPU more than the sums.
    cumulative = log_probs.exp().double().cumsum_(-1)
    total = cumulative[:, -1:]
    # Below the total, also where rounding would reach it: the first sum above is of a possible token.
    below = torch.nextafter(total, torch.zeros_like(total))
    goal = torch.minimum(uniform[:, None] * total, below)
    token = torch.searchsorted(cumulative, goal, right=True)[:, 0]
    return token.clamp_(max=log_probs.shape[-1] - 1)
