"""Credit without a critic: every episode against its group, or every turn against the same turn of it.

`group_advantage` is what TorchRL's `MCAdvantage` gives, which goes episode by episode; here a whole batch
is one step.

For turns, bi-level GAE asks a critic what a turn could have hoped for. In `group_turn_advantage` the other
rollouts of the group answer: what a turn and those after it were paid, less the mean of that over the
rollouts of the group that have this turn. For episodes of one turn, and for rewards at the last of equally
many turns, that is GRPO.

Knows tensors only. Source of the second: the idea is Video-MTR's turn-level credit (arXiv 2508.20478v2),
with GRPO's baseline in place of its critic; neither paper has this form.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_STD = 1e-6  # as in TorchRL's MCAdvantage


def group_advantage(returns: Tensor, group_size: int, *, scale_by_std: bool = True) -> Tensor:
    """Advantages of episodes, ``(R - mean) / std`` over each group.

    Source: GRPO (arXiv 2402.03300); without the deviation Dr. GRPO (arXiv 2503.20783).

    Args:
        returns: (N,) float, of whole groups one after the other.
        group_size: episodes of a group, at least 2, divides N.
        scale_by_std: False: ``R - mean``, so that groups in which little differs weigh little.

    Returns:
        (N,), of the dtype of the returns.

    Raises:
        ValueError: a group is of one, or the groups are not whole.
    """
    _require_groups(len(returns), group_size)
    if not len(returns):
        return returns
    groups = returns.reshape(-1, group_size)
    apart = groups - groups.mean(1, keepdim=True)
    if scale_by_std:
        apart = apart / groups.std(1, keepdim=True).clamp_min(LEAST_STD)
    return apart.flatten()


def group_turn_advantage(
    reward: Tensor, played: Tensor, group_size: int, *, scale_by_std: bool = True
) -> Tensor:
    """Advantages of turns.

    Args:
        reward: (N, K) float, of whole episodes; groups one after the other.
        played: (N, K) bool; other turns do not exist, and what they hold is not read.
        group_size: episodes of a group, at least 2, divides N.
        scale_by_std: divide by the standard deviation, over the same rollouts as the mean.

    Returns:
        (N, K) float64; 0 where nothing was played, and where no other rollout of the group has the turn.

    Raises:
        ValueError: shapes do not fit, a group is of one, or a reward of a played turn is not finite.
    """
    if reward.shape != played.shape or reward.dim() != 2:
        raise ValueError(
            f"reward and played must be (N, K), got {tuple(reward.shape)} and {tuple(played.shape)}"
        )
    _require_groups(len(reward), group_size)
    reward = torch.where(played, reward, 0.0).double()
    if not reward.isfinite().all():
        row, turn = (~reward.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"reward is {float(reward[row, turn])} in episode {row}, turn {turn}")
    to_go = reward.flip(1).cumsum(1).flip(1)
    grouped, there = (x.reshape(-1, group_size, reward.shape[1]) for x in (to_go, played))
    count = there.sum(1, keepdim=True)
    mean = (grouped * there).sum(1, keepdim=True) / count.clamp_min(1)
    apart = torch.where(there & (count > 1), grouped - mean, 0.0)
    if scale_by_std:
        variance = (apart**2).sum(1, keepdim=True) / (count - 1).clamp_min(1)
        apart = apart / variance.sqrt().clamp_min(LEAST_STD)
    return apart.reshape(reward.shape)


def _require_groups(episodes: int, group_size: int) -> None:
    if group_size < 2:
        raise ValueError(f"group_size must be at least 2, got {group_size}: a group of one has no baseline")
    if episodes % group_size:
        raise ValueError(f"{episodes} episodes are no whole groups of {group_size}")
