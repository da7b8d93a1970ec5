"""What TorchRL's losses for language models need beside them.

`torchrl.objectives.llm.GRPOLoss` asks a policy for distributions. `ScoredPolicy` answers with what was
scored already, so that the loss is arithmetic alone: which model made the log-probabilities, and how, is
known to the loop. Two terms are written out, because TorchRL has them otherwise or not at all.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

KL_BOUND = 10.0  # LongVT's
SCORED = "scored"  # where a batch has the present log-probabilities and entropies of its sampled tokens


class SampledTokens:
    """What a loss asks of the distributions over conversations, at their sampled tokens only.

    Logits exist nowhere for all tokens: with a real vocabulary and a long context they would fill hundreds
    of gigabytes.

    Args:
        batch: (B,) with ``("tokens", "full")``, ``("masks", "all_assistant_mask")`` and `SCORED`, (B, L)
            each.
    """

    def __init__(self, batch: TensorDictBase) -> None:
        self.mask = batch["masks", "all_assistant_mask"]
        self._tokens = batch["tokens", "full"][self.mask]
        self._log_probs, self._entropies = batch[SCORED, "log_probs"], batch[SCORED, "entropies"]

    def log_prob(self, tokens: Tensor) -> Tensor:
        """(B, L) log-probabilities, 0 where nothing was sampled.

        Args:
            tokens: (B, L), left-padded; those under the mask must be the sampled ones.

        Raises:
            ValueError: they are not: only these were scored.
        """
        if tokens.shape != self.mask.shape or not torch.equal(tokens[self.mask], self._tokens):
            raise ValueError(
                f"tokens {tuple(tokens.shape)} are not the sampled ones {tuple(self.mask.shape)}, and only "
                "these were scored"
            )
        return self._log_probs

    def entropy(self) -> Tensor:
        """(B, L) entropies in nats before each sampled token, 0 elsewhere."""
        return self._entropies


class ScoredPolicy(nn.Module):
    """What `GRPOLoss` takes for a policy: its distributions are those that the batch holds."""

    def get_dist(self, tensordict: TensorDictBase, **_: object) -> SampledTokens:
        """The distributions at the sampled tokens of a batch."""
        return SampledTokens(tensordict)


def kl_to_reference(batch: TensorDictBase) -> Tensor:
    """Divergence from a reference policy: a mean over rollouts of means over their sampled tokens.

    ``exp(d) - d - 1`` of ``d = reference - now``, at most `KL_BOUND` a token as in LongVT. TorchRL averages
    over all positions, padding and frames included: its strength would fall with the length of the context.

    Args:
        batch: (B,) with ``"reference"`` (B, L) and `SCORED`.
    """
    mask = batch["masks", "all_assistant_mask"]
    diff = torch.where(mask, batch["reference"] - batch[SCORED, "log_probs"], 0.0)
    diff = diff.clamp(-20.0, 20.0)  # beyond, the exponential has no finite gradient
    divergence = (diff.expm1() - diff).clamp(max=KL_BOUND)
    return (divergence.sum(-1) / mask.sum(-1).clamp_min(1)).mean()


def clipped_value_loss(now: Tensor, old: Tensor, target: Tensor, clip: float) -> Tensor:
    """Half the mean squared error of a critic.

    Args:
        now: (T,) values.
        old: (T,) when the batch was collected. Values are compared held to a distance from these as well,
            and the larger error counts, as in Video-MTR.
        target: (T,).
        clip: the distance.
    """
    near = old + (now - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((now - target) ** 2, (near - target) ** 2).mean()


def loss_metrics(losses: Any, batch: TensorDictBase) -> dict[str, float]:
    """``clip_fraction`` and ``ess`` of a `GRPOLoss`, and ``entropy`` where it has a bonus.

    TorchRL takes means over all positions, those without a sampled token counting as zeros; here they are
    means over sampled tokens.

    Args:
        losses: what it returned.
        batch: what it was given.
    """
    sampled = batch["masks", "all_assistant_mask"]
    values = {
        "clip_fraction": float(losses.clip_fraction / sampled.float().mean()),
        "ess": float(losses.ESS),
    }
    if losses.entropy is not None:
        values["entropy"] = float(losses.entropy) * sampled.numel() / int(sampled.sum())
    return values
