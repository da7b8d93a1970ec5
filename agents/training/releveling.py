"""What a batch of whole episodes is trained on instead of what the environment paid.

The environment pays as it goes and settles its gate at the end, so that every return is right; the
transforms here put each payment at the turn that earned it (`TurnRewards`), shape batches as the
published code of Video-MTR does (`CodeGate`), and pay for looking while a policy does not look
(`ExplorationBonus`).

All take and give a TensorDict of batch size (B, K), episodes by turns, with entries (B, K, 1). Where
``"waiting"`` is true the episode was over before: such turns do not exist. They follow one another in
a `torchrl.envs.Compose`, in the order of effect: a bonus given before a gate is subject to it, one
given after it is not. Inputs are never changed in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import Transform

from videogym import Term
from videogym.rewards import RewardError, pays_for_answers

Definition = Literal["paper", "code"]
PAYMENT = 0.5  # Video-MTR's frame reward: what its gate takes back, and what tells a right answer


class TurnRewards(Transform):
    """Pays every turn what it was worth in the end, without a settlement at the last one.

    Gated payments of an episode whose answer was wrong or missing become 0 where they were paid. The
    sum over an episode stays what the environment paid. An answer is right as in
    `videogym.rewards.score`: the ``answer`` term paid at the last turn, or ``is_success`` in a recipe
    without that term, or where its weight is not positive. A bonus paid before, ``("next", "bonus")``, is
    a gated payment like others.

    Args:
        terms: the recipe's terms.
        gate: False keeps gated payments whatever the answer, for an ablation.
    """

    def __init__(self, terms: Sequence[Term], gate: bool = True) -> None:
        super().__init__()
        self.terms, self.gate = tuple(terms), gate

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Replace ``("next", "reward")`` and drop rows that are no whole episodes.

        Reads ``("next", name)`` for ``reward``, ``terminated``, ``is_success`` and every entry of
        ``terms``, in which NaN means absent. A row is whole if the last of its turns is terminated:
        others were cut by a time limit or the end of a batch, and their gate was never settled. Nor was
        that of rows whose ``answer`` is absent at the last turn: the judge abstained.

        Raises:
            ValueError: no row is whole, no answer was judged, or the entries of ``("next", "terms")``
                are not those of the recipe.
            RewardError: a reward or a term is not finite; NaN is a term that is absent.
        """
        names, found = {term.name for term in self.terms}, set(tensordict["next", "terms"].keys())
        if found - {"gate"} != names:
            raise ValueError(f"the recipe's terms are {sorted(names)}, got {sorted(found)}")
        tensordict = _whole_episodes(tensordict)
        require_finite(tensordict)
        if "answer" in names:
            tensordict = _judged_episodes(tensordict)
        played, payments = _played(tensordict), tensordict["next", "terms"]
        last = played & ~_followed(played)
        refused = played & ~self._right(tensordict, last) if self.gate else torch.zeros_like(played)
        reward = torch.zeros_like(tensordict["next", "reward"])
        for term in self.terms:
            lost = {"no": refused & False, "all": refused, "before_last": refused & ~last}[term.gated]
            reward += payments[term.name].nan_to_num(0.0).masked_fill(lost, 0.0)
        bonus = tensordict.get(("next", "bonus"), None)
        if bonus is not None:
            bonus = bonus.masked_fill(refused, 0.0)
            tensordict = tensordict.set(("next", "bonus"), bonus)
            reward += bonus
        return tensordict.set(("next", "reward"), reward.masked_fill(~played, 0.0))

    def _right(self, tensordict: TensorDictBase, last: Tensor) -> Tensor:
        """Whether each episode's answer was right, (B, 1, 1)."""
        judged = any(pays_for_answers(term) for term in self.terms)
        right = tensordict["next", "terms", "answer"] if judged else tensordict["next", "is_success"]
        return ((right > 0) & last).any(1, keepdim=True)


class CodeGate(Transform):
    """The gate of Video-MTR's published code, which reads turn rewards only.

    Of an episode with at least two positive turns, the last of which got less than 0.5, every earlier
    turn that got more than 0.5 loses 0.5. So a look that pays last counts as a right answer, and the
    format reward survives.

    Source: published code b7d1234, step 1 of its batch shaping.
    """

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Change ``("next", "reward")`` of wrong episodes."""
        reward = tensordict["next", "reward"]
        positive, earlier = _positive(tensordict)
        final = torch.where(positive & ~earlier, reward, 0.0).sum(1, keepdim=True)
        taken = earlier & (reward > PAYMENT) & (final < PAYMENT)
        return tensordict.copy().set(("next", "reward"), reward - PAYMENT * taken)


class ExplorationBonus(Transform):
    """Pays for looking while the policy looks too rarely.

    ``"paper"``: the rate is the share of turns that look, and every turn that looks is paid. Once the
    rate has been above the upper threshold in ``patience`` consecutive batches, it is off for good.

    ``"code"``: of the episodes with a positive turn the rate is the share of those with two, and in
    these every positive turn but the last is paid. It has no memory.

    Below the lower threshold the first bonus is paid, else below the upper one the second.

    Source: Video-MTR, exploration bootstrapping. Chosen here: ``patience``, for which the paper gives
    no number, and that a rate can fall back below the lower threshold.

    Args:
        definition: see above.
        thresholds: lower and upper rate; a rate equal to one is not below it.
        bonuses: what is paid below each.
        patience: batches, for ``"paper"``; None never switches off.

    Attributes:
        rate: of the last batch, () float64; NaN before the first. Like the memory it is a buffer.

    Raises:
        ValueError: a definition, thresholds or a patience that cannot be meant.
    """

    rate: Tensor
    streak: Tensor  # () int64, consecutive batches above the upper threshold
    off: Tensor  # () bool

    def __init__(
        self,
        definition: Definition = "paper",
        thresholds: tuple[float, float] = (0.1, 0.5),
        bonuses: tuple[float, float] = (1.0, 0.5),
        patience: int | None = 5,
    ) -> None:
        super().__init__()
        if definition not in get_args(Definition):
            raise ValueError(f"definition must be one of {get_args(Definition)}, got {definition!r}")
        if not 0 <= thresholds[0] <= thresholds[1] <= 1:
            raise ValueError(f"thresholds must ascend in [0, 1], got {thresholds}")
        if patience is not None and patience < 1:
            raise ValueError(f"patience must be None or at least 1, got {patience}")
        self.definition, self.thresholds, self.bonuses = definition, thresholds, bonuses
        self.patience = patience
        self.register_buffer("rate", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("streak", torch.tensor(0))
        self.register_buffer("off", torch.tensor(False))

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Add the bonus to ``("next", "reward")`` and write it to ``("next", "bonus")``.

        ``"paper"`` reads ``("next", "looked")``, bool: a look was executed in that turn.
        """
        reward = tensordict["next", "reward"]
        if self.definition == "paper":
            # A turn whose frames could not be shown tells nothing of the policy.
            played = _played(tensordict) & ~tensordict["next"].get("fault", torch.tensor(False))
            paid = played & tensordict["next", "looked"]
            rate = _share(paid, played)
        else:
            positive, paid = _positive(tensordict)
            rate = _share(paid.any(1), positive.any(1))
        self.rate.fill_(rate)
        self._remember(rate)
        bonus = torch.where(paid, self._bonus(rate), torch.zeros_like(reward))
        tensordict = tensordict.copy().set(("next", "bonus"), bonus)
        return tensordict.set(("next", "reward"), reward + bonus)

    def _bonus(self, rate: float) -> float:
        if self.off:
            return 0.0
        below = [bonus for limit, bonus in zip(self.thresholds, self.bonuses, strict=True) if rate < limit]
        return below[0] if below else 0.0

    def _remember(self, rate: float) -> None:
        if self.definition == "code" or self.patience is None:
            return
        self.streak.fill_(int(self.streak) + 1 if rate > self.thresholds[1] else 0)
        self.off |= self.streak >= self.patience


def require_finite(tensordict: TensorDictBase) -> None:
    """Refuse a batch with a reward that nothing can be learned from.

    Args:
        tensordict: (B, K) episodes; ``("next", "terms")`` may hold NaN, which means absent.

    Raises:
        RewardError: a reward of a turn that was played is not finite, or a term infinite; names it, with
            the row and the turn.
    """
    played, after = _played(tensordict), tensordict["next"]
    wrong = {"the reward": ~after["reward"].isfinite() & played}
    wrong |= {f"reward term {name!r}": value.isinf() & played for name, value in after["terms"].items()}
    for name, places in wrong.items():
        if places.any():
            row, turn = places[..., 0].nonzero()[0].tolist()
            raise RewardError(f"{name} must be a finite number; it is not in row {row}, turn {turn}")


def _whole_episodes(tensordict: TensorDictBase) -> TensorDictBase:
    """Rows whose last turn is terminated, always as a new TensorDict."""
    if tensordict.batch_dims != 2:
        raise ValueError(f"the batch size must be (episodes, turns), got {tuple(tensordict.batch_size)}")
    played = _played(tensordict)
    last = played & ~_followed(played)
    whole = (last & tensordict["next", "terminated"]).flatten(1).any(1)
    if not whole.any():
        raise ValueError(f"none of the {len(whole)} rows is a whole episode that terminated")
    return tensordict.copy() if whole.all() else tensordict[whole]


def _judged_episodes(tensordict: TensorDictBase) -> TensorDictBase:
    """Rows whose ``answer`` term is present at the last turn."""
    played = _played(tensordict)
    absent = tensordict["next", "terms", "answer"].isnan() & played & ~_followed(played)
    judged = ~absent.flatten(1).any(1)
    if not judged.any():
        raise ValueError(f"the judge abstained from the answers of all {len(judged)} episodes")
    return tensordict if judged.all() else tensordict[judged]


def _played(tensordict: TensorDictBase) -> Tensor:
    """Turns that exist, (B, K, 1) bool."""
    waiting = tensordict.get("waiting", None)
    reward = tensordict["next", "reward"]
    return torch.ones_like(reward, dtype=torch.bool) if waiting is None else ~waiting


def _positive(tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
    """Turns paid more than 0, and those of them that another one follows; (B, K, 1) bool."""
    positive = _played(tensordict) & (tensordict["next", "reward"] > 0)
    return positive, positive & _followed(positive)


def _followed(turns: Tensor) -> Tensor:
    """Whether one of ``turns`` comes later in the row, (B, K, 1) bool."""
    return turns.flip(1).cumsum(1).flip(1) - turns.long() > 0


def _share(part: Tensor, whole: Tensor) -> float:
    """Count of one by count of the other; 0.0 if there is none."""
    # Of Python's integers: in float32 one in ten would be more than 0.1.
    total = int(whole.sum())
    return int(part.sum()) / total if total else 0.0
