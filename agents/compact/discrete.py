"""What a policy must be to be trained here, and how it acts outside of training.

A `DiscretePolicy` chooses among the integers of a `videogym.DiscreteActions` environment. It says what
it keeps of an observation (`read`) and scores actions (`forward`); `agents.train_ppo` and
`agents.train_grpo` need nothing else of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn


class PolicyError(ValueError):
    """A policy put out something that cannot be an action."""


class DiscretePolicy(nn.Module, ABC):
    """The contract of a policy of your own; B is a batch dimension, A the number of actions.

    Observations carry frames by reference. `read` is called where the environment runs, once a turn,
    and may resolve them through a `videogym.FrameStore`; what it returns is all that is kept of an
    observation, for acting and for the update. Weights that `read` uses are not trained and must not
    require gradients.

    Whoever plays, evaluates or trains a policy keeps it in eval mode: what was drawn for an action is not
    known to the update, and odds that another dropout mask or batch norm gives are not those that acted.
    """

    @abstractmethod
    def read(self, observation: Mapping[str, Any], earlier: TensorDictBase | None = None) -> TensorDict:
        """What the policy keeps of an observation.

        Args:
            observation: as the environment gives it.
            earlier: what `read` returned for the turn before, to save work: the result must be the same
                without it, as at the start of an episode and in evaluation.

        Returns:
            Tensors without a batch dimension, of the same keys, shapes and dtypes in every turn.
        """

    @abstractmethod
    def forward(self, inputs: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Score all actions.

        Args:
            inputs: (B,) what `read` returned.

        Returns:
            (B, A) logits and (B, 1) values; zeros will do for values where no critic is trained.
        """


class Checked(nn.Module):
    """A policy whose outputs are looked at before they are used.

    Args:
        policy: what is trained; kept in eval mode.
        actions: A, the number of actions of the environment.
    """

    def __init__(self, policy: DiscretePolicy, actions: int) -> None:
        super().__init__()
        self.policy, self.actions = policy.eval(), actions

    def forward(self, inputs: TensorDictBase) -> tuple[Tensor, Tensor]:
        """As the policy's.

        Raises:
            PolicyError: a logit or value is not finite, or a shape is not the one of the contract.
        """
        logits, value = self.policy(inputs)
        for name, tensor, due in (("logits", logits, self.actions), ("values", value, 1)):
            if tensor.shape != (*inputs.batch_size, due):
                raise PolicyError(
                    f"{type(self.policy).__name__} gave {name} of shape {tuple(tensor.shape)}; "
                    f"due is {(*inputs.batch_size, due)}"
                )
            if not torch.isfinite(tensor).all():
                bad = int((~torch.isfinite(tensor)).sum())
                raise PolicyError(f"{type(self.policy).__name__} gave {bad} {name} that are not finite")
        return logits, value


class Acting:
    """A policy as `videogym.evaluate` calls it: the likeliest action, or a drawn one.

    Args:
        policy: trained, or not; kept in eval mode.
        generator: draws actions by their odds; None takes the likeliest.
    """

    def __init__(self, policy: DiscretePolicy, generator: torch.Generator | None = None) -> None:
        self.policy, self.generator = policy.eval(), generator

    @torch.no_grad()
    def __call__(self, observation: Mapping[str, Any], info: Mapping[str, Any]) -> int:
        """An action of the environment.

        Raises:
            PolicyError: a logit is not finite.
        """
        logits, _ = self.policy(self.policy.read(observation).unsqueeze(0))
        if not torch.isfinite(logits).all():
            raise PolicyError(f"{type(self.policy).__name__} gave logits that are not finite")
        if self.generator is None:
            return int(logits.argmax())
        return int(torch.multinomial(logits[0].softmax(-1), 1, generator=self.generator))
