"""What TorchRL's losses for language models lack."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor, nn
from torchrl.objectives.llm import GRPOLoss

KL_BOUND = 10.0  # LongVT's


class ChatGRPOLoss(GRPOLoss):
    """`GRPOLoss` for `agents.vlm.actor.ChatActor`.

    Differs in three ways. The divergence from a reference is averaged over sampled tokens, rollout by
    rollout, where TorchRL averages over all positions, padding and frames included, so that its strength
    would fall with the length of the context; its estimate is bounded as in LongVT. Figures are means over
    sampled tokens for the same reason. Only sampled tokens are trained, whatever the masking strategy.

    Args:
        actor: whose outputs are scored.
        options: as for `GRPOLoss`.
    """

    def __init__(self, actor: Any, **options: Any) -> None:
        super().__init__(actor, masking_strategy="rlhf", **options)

    def _kl_to_ref(
        self,
        tensordict: TensorDictBase,
        key: NestedKey = ("next", "ref_log_probs"),
        ref_log_prob: Tensor | None = None,
        coeff: float | None = None,
        mask: Tensor | None = None,
        dist: Any = None,
    ) -> tuple[Tensor, Tensor]:
        if ref_log_prob is None:
            ref_log_prob = tensordict.get(
                key, as_padded_tensor=True, padding_side="left", padding_value=0.0
            )
        diff = torch.where(dist.mask, ref_log_prob - tensordict["_cur_log_prob"], 0.0)
        diff = diff.clamp(-20.0, 20.0)  # beyond, the exponential has no finite gradient
        divergence = (diff.expm1() - diff).clamp(max=KL_BOUND)
        mean = (divergence.sum(-1) / dist.mask.sum(-1).clamp_min(1)).mean()
        return (self.kl_to_ref_coeff if coeff is None else coeff) * mean, mean

    def forward(self, tensordict: TensorDictBase) -> Any:
        """As `GRPOLoss`; reads ``"advantage"`` (B, L, 1) or (B, 1, 1)."""
        losses = super().forward(tensordict)
        sampled = tensordict.get(
            ("masks", "all_assistant_mask"), as_padded_tensor=True, padding_side="left"
        )
        # Means over all positions, those without a sampled token counting as zeros.
        share = sampled.float().mean()
        losses.clip_fraction = losses.clip_fraction / share
        losses.kl_approx = losses.kl_approx / share
        return losses


class ChatPPOLoss(ChatGRPOLoss):
    """`ChatGRPOLoss` with one advantage a token, and a critic that reads the actor's hidden states.

    It only reads: its error shapes no weight of the actor. A head that begins at zero is wrong by whole
    returns at first, and errors of that size let into the actor make it forget in a few steps what it
    knew; Video-MTR's critic has a model of its own.

    Args:
        actor: whose outputs are scored.
        critic: (T, H) hidden states before sampled tokens to (T, 1) values.
        value_clip: values are compared clipped to this distance from the old ones as well, and the larger
            error counts, as in Video-MTR.
        options: as for `GRPOLoss`.
    """

    def __init__(self, actor: Any, critic: nn.Module, value_clip: float, **options: Any) -> None:
        super().__init__(actor, **options)
        self.critic, self.value_clip = critic, value_clip
        self._hidden = torch.zeros(0)

    def _get_cur_log_prob(self, tensordict: TensorDictBase) -> Any:
        log_prob, dist, is_composite = super()._get_cur_log_prob(tensordict)
        self._hidden = dist.hidden.detach()
        return log_prob, dist, is_composite

    def critic_loss(self, value: Tensor, target: Tensor) -> Tensor:
        """Half the mean squared error of the critic on the batch of the last `forward`.

        Args:
            value: (T,) of the sampled tokens, rows in order, when the batch was collected.
            target: (T,).
        """
        now = self.critic(self._hidden.float())[:, 0]
        near = value + (now - value).clamp(-self.value_clip, self.value_clip)
        return 0.5 * torch.maximum((now - target) ** 2, (near - target) ** 2).mean()
