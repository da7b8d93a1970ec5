"""Bi-level generalised advantage estimation: one pass over turns, then one over the tokens of each turn.

`bilevel_gae` and `whiten` are the arithmetic, `BiLevelGAE` its face in TorchRL. A row is one whole
episode: beyond its last turn nothing is worth anything, so nothing is bootstrapped there. Policies
with one action a turn use the same with turns in place of tokens.

Source: Video-MTR, arXiv 2508.20478v2, and the trainer its published code installs (verl fork 3f55021).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.objectives.utils import hold_out_net
from torchrl.objectives.value.advantages import ValueEstimatorBase


def bilevel_gae(
    reward: Tensor,
    value: Tensor,
    mask: Tensor,
    turn_end: Tensor,
    *,
    gamma_turn: float,
    gamma_token: float = 1.0,
    lmbda_turn: float,
    lmbda_token: float,
) -> tuple[Tensor, Tensor]:
    """Advantages and value targets of whole episodes.

    Over the turn ends e_1 .. e_n of a row, backwards, with V(e_{n+1}) = 0::

        A(e_i) = r(e_i) + gamma_turn V(e_{i+1}) - V(e_i) + gamma_turn lmbda_turn A(e_{i+1})

    Then inside each turn, backwards from its end, over the tokens of the policy, t' being the next::

        A(t) = r(t) + gamma_token V(t') - V(t) + gamma_token lmbda_token A(t')

    Args:
        reward: (..., L) float; what a turn pays lies on its last token. Rewards on other tokens, such
            as a penalty for divergence, count inside their turn only.
        value: (..., L) float, the critic's.
        mask: (..., L) bool, tokens of the policy. Others do not exist: what they hold is never read.
        turn_end: (..., L) bool, last tokens of turns; those outside ``mask`` are not read either.
        gamma_turn: discount from turn to turn, in [0, 1].
        gamma_token: discount from token to token inside a turn, in [0, 1].
        lmbda_turn: trace decay of the pass over turns, in [0, 1].
        lmbda_token: trace decay of the pass inside a turn, in [0, 1].

    Returns:
        Advantages and value targets (advantage plus value), (..., L) each, differentiable in ``value``
        and ``reward``. 0 outside the mask, and for tokens of a turn that has no end: the source does
        not say what those get.

    Raises:
        ValueError: shapes differ, a mask is not bool, a discount is out of [0, 1], or a reward or value
            under the mask is not finite; the message names the row.
    """
    _check_discounts(
        gamma_turn=gamma_turn, gamma_token=gamma_token, lmbda_turn=lmbda_turn, lmbda_token=lmbda_token
    )
    _check_shapes(reward, value, mask, turn_end)
    _check_finite(mask, reward=reward, value=value)
    ends, tokens = mask & turn_end, tokens_of_turns(mask, turn_end)
    # All rows in one line: a zero factor at every end keeps turns, and so rows, apart.
    place = ends.nonzero()
    row, index = place[:, :-1], place.unbind(-1)
    goes_on = torch.zeros(len(row), dtype=torch.bool, device=value.device)
    goes_on[:-1] = (row[1:] == row[:-1]).all(-1)
    v = value[index]
    # As floats of their own kind: a number times a bool is rounded to float32.
    delta = reward[index] + gamma_turn * goes_on.to(v) * v.roll(-1) - v
    of_turns = _discounted_sums(delta, gamma_turn * lmbda_turn * goes_on.to(delta))

    index = tokens.nonzero().unbind(-1)
    v, at_end = value[index], ends[index]
    delta = (reward[index] + gamma_token * v.roll(-1) - v).masked_scatter(at_end, of_turns)
    of_tokens = _discounted_sums(delta, gamma_token * lmbda_token * (~at_end).to(delta))
    nothing = torch.zeros_like(value, dtype=delta.dtype)
    return nothing.masked_scatter(tokens, of_tokens), nothing.masked_scatter(tokens, of_tokens + v)


def tokens_of_turns(mask: Tensor, turn_end: Tensor) -> Tensor:
    """Tokens that have an advantage: those of the mask up to the last turn end under it, (..., L) bool."""
    ends = mask & turn_end
    return mask & (ends.flip(-1).cumsum(-1).flip(-1) > 0)


def _discounted_sums(x: Tensor, factor: Tensor) -> Tensor:
    """The y of y[t] = x[t] + factor[t] y[t + 1], with nothing beyond the end; all (T,).

    Doubling: after k rounds y[t] has the terms of the next 2^k elements. Sums are pairwise, so errors
    grow with log T; it ends when no factor is left, which the longest run without a zero decides.
    """
    span = 1
    while span < len(x) and bool(factor.any()):
        x = torch.cat((x[:-span] + factor[:-span] * x[span:], x[-span:]))
        # Beyond the end there is nothing: the factors that reach there become 0.
        factor = torch.cat((factor[:-span] * factor[span:], torch.zeros_like(factor[-span:])))
        span *= 2
    return x


def masked_moments(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation under the mask, scalars; the latter is sqrt(unbiased variance + 1e-8).

    Raises:
        ValueError: shapes differ, or the mask has fewer than two elements.
    """
    if x.shape != mask.shape:
        raise ValueError(f"shapes must be equal, got {tuple(x.shape)} and mask {tuple(mask.shape)}")
    if (count := int(mask.sum())) < 2:
        raise ValueError(f"a variance needs at least 2 elements under the mask, got {count}")
    chosen = x[mask]
    return chosen.mean(), (chosen.var() + 1e-8).sqrt()


def whiten(advantage: Tensor, mask: Tensor) -> Tensor:
    """Advantages less their mean, in standard deviations, both taken under the mask; 0 outside it.

    The source shifts and scales the elements outside as well, where its losses do not read them.

    Args:
        advantage: any shape.
        mask: bool, of that shape.

    Raises:
        ValueError: as `masked_moments`.
    """
    mean, std = masked_moments(advantage, mask)
    return torch.where(mask, (advantage - mean) / std, 0.0)


def _check_discounts(**discounts: float) -> None:
    for name, discount in discounts.items():
        if not 0 <= discount <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {discount}")


def _check_shapes(reward: Tensor, value: Tensor, mask: Tensor, turn_end: Tensor) -> None:
    tensors = {"reward": reward, "value": value, "mask": mask, "turn_end": turn_end}
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"shapes must be equal, got {shapes}")
    for name in ("mask", "turn_end"):
        if tensors[name].dtype != torch.bool:
            raise ValueError(f"{name} must be bool, got {tensors[name].dtype}")


def _check_finite(mask: Tensor, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        broken = mask & ~tensor.isfinite()
        if broken.any():
            *row, token = broken.nonzero()[0].tolist()
            raise ValueError(f"{name} is {float(tensor[(*row, token)])} in row {row}, token {token}")


class BiLevelGAE(ValueEstimatorBase):
    """`bilevel_gae` as a value estimator of TorchRL, in place of its `GAE`.

    Reads a TensorDict of batch size (..., L), a row being one whole episode, with entries of shape
    (..., L, 1): ``("next", "reward")``, what the value network reads, and optionally ``"mask"`` and
    ``"turn_end"``, bool. Without ``"mask"`` all steps count that are not ``"waiting"``; without
    ``"turn_end"`` every step that counts is a turn. Writes ``"advantage"``, ``"value_target"`` and
    ``"state_value"``. Ends are the last turns of the rows: ``done`` and ``terminated`` are not read.

    Args:
        gamma_turn: see `bilevel_gae`, as for the next three.
        gamma_token: see there.
        lmbda_turn: see there.
        lmbda_token: see there.
        value_network: writes ``"state_value"``; None reads what is there.
        average: `whiten` advantages over the tokens of the batch that have one.
        differentiable: let gradients pass from the outputs into what the value network reads.

    Raises:
        ValueError: a discount is out of [0, 1].
    """

    @dataclass
    class _AcceptedKeys(ValueEstimatorBase._AcceptedKeys):
        # All of them: `set_keys` does not see inherited ones.
        advantage: NestedKey = "advantage"
        value_target: NestedKey = "value_target"
        value: NestedKey = "state_value"
        reward: NestedKey = "reward"
        done: NestedKey = "done"
        terminated: NestedKey = "terminated"
        steps_to_next_obs: NestedKey = "steps_to_next_obs"
        sample_log_prob: NestedKey | None = None
        mask: NestedKey = "mask"
        turn_end: NestedKey = "turn_end"

    default_keys = _AcceptedKeys

    def __init__(
        self,
        *,
        gamma_turn: float,
        gamma_token: float = 1.0,
        lmbda_turn: float,
        lmbda_token: float,
        value_network: TensorDictModuleBase | None,
        average: bool = False,
        differentiable: bool = False,
    ) -> None:
        super().__init__(value_network=value_network, differentiable=differentiable)
        self.discounts = {
            "gamma_turn": gamma_turn,
            "gamma_token": gamma_token,
            "lmbda_turn": lmbda_turn,
            "lmbda_token": lmbda_token,
        }
        _check_discounts(**self.discounts)
        self.average = average

    @property
    def in_keys(self) -> list[NestedKey]:
        """Entries that must be there."""
        reads = [self.tensor_keys.value] if self.value_network is None else self.value_network.in_keys
        return [*reads, ("next", self.tensor_keys.reward)]

    @property
    def out_keys(self) -> list[NestedKey]:
        """Entries that are written."""
        keys = self.tensor_keys
        return [keys.advantage, keys.value_target, keys.value]

    def forward(
        self,
        tensordict: TensorDictBase,
        *,
        params: TensorDictBase | None = None,
        target_params: TensorDictBase | None = None,
    ) -> TensorDictBase:
        """Write advantages, value targets and values.

        Args:
            tensordict: see the class; changed in place.
            params: of the value network, in place of its own.
            target_params: not read, since nothing is bootstrapped from another network.

        Raises:
            ValueError: as `bilevel_gae`; with ``average``, fewer than two tokens have an advantage.
            KeyError: an entry of `in_keys` is missing.
        """
        with torch.set_grad_enabled(self.differentiable):
            value = self._value(tensordict, params)
            advantage, value_target, scored = self._estimate(tensordict, value)
            if self.average:
                advantage = whiten(advantage, scored)
        keys = self.tensor_keys
        tensordict.set(keys.value, value)
        tensordict.set(keys.advantage, advantage)
        return tensordict.set(keys.value_target, value_target)

    def value_estimate(
        self,
        tensordict: TensorDictBase,
        params: TensorDictBase | None = None,
        target_params: TensorDictBase | None = None,
    ) -> Tensor:
        """The value targets alone, (..., L, 1); nothing is written. Arguments as in `forward`."""
        with torch.set_grad_enabled(self.differentiable):
            return self._estimate(tensordict, self._value(tensordict, params))[1]

    def _value(self, tensordict: TensorDictBase, params: TensorDictBase | None) -> Tensor:
        if self.value_network is None:
            return tensordict[self.tensor_keys.value]
        reads = tensordict.select(*self.value_network.in_keys)
        if params is None:
            with hold_out_net(self.value_network):  # its parameters are trained by a loss, never from here
                return self.value_network(reads)[self.tensor_keys.value]
        with params.detach().to_module(self.value_network):
            return self.value_network(reads)[self.tensor_keys.value]

    def _estimate(self, tensordict: TensorDictBase, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advantages, value targets, and which steps have them."""
        keys = self.tensor_keys
        reward = tensordict["next", keys.reward]
        mask = tensordict.get(keys.mask, None)
        if mask is None:
            waiting = tensordict.get("waiting", None)
            mask = torch.ones_like(reward, dtype=torch.bool) if waiting is None else ~waiting
        turn_end = tensordict.get(keys.turn_end, None)
        turn_end = mask if turn_end is None else turn_end
        _check_shapes(reward, value, mask, turn_end)
        if reward.shape[-1] != 1:
            raise ValueError(f"shapes must end in 1, as in (B, K, 1), got {tuple(reward.shape)}")
        reward, value, mask, turn_end = (tensor[..., 0] for tensor in (reward, value, mask, turn_end))
        advantage, value_target = bilevel_gae(reward, value, mask, turn_end, **self.discounts)
        scored = tokens_of_turns(mask, turn_end)
        return advantage[..., None], value_target[..., None], scored[..., None]
