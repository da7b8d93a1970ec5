"""From Gymnasium to TorchRL: the wrapped environment and what it reports beside the reward.

Observations keep their references, texts and masks on the way; pixels never enter a TensorDict. A
policy resolves references where it runs. Nothing here knows a policy or an algorithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import torch
from tensordict import TensorDictBase
from torchrl.data import Composite, Unbounded
from torchrl.envs import EnvBase, GymWrapper
from torchrl.envs.gym_like import BaseInfoDictReader

REPORTED = ("is_success", "frames_shown", "invalid")  # scalars of info, beside the reward terms


class EpisodeInfo(BaseInfoDictReader):
    """Writes reward terms and some scalars of ``info`` into the TensorDict, (1,) float32 each.

    ``("terms", name)`` is NaN where a term is absent, as it is after every reset.

    Args:
        terms: names of the recipe's reward terms.
    """

    def __init__(self, terms: Sequence[str]) -> None:
        self.terms = tuple(terms)
        scalars = {name: Unbounded((1,)) for name in REPORTED}
        self._spec = Composite(**scalars, terms=Composite({name: Unbounded((1,)) for name in self.terms}))

    def __call__(self, info_dict: dict[str, Any], tensordict: TensorDictBase) -> TensorDictBase:
        """Write the values of one ``info``."""
        for name in REPORTED:
            tensordict.set(name, torch.tensor([float(info_dict[name])]))
        for name in self.terms:
            tensordict.set(("terms", name), torch.tensor([float(info_dict["reward_terms"][name])]))
        return tensordict

    @property
    def info_spec(self) -> Composite:
        """Specs of all entries."""
        return self._spec


def torchrl_env(env: gymnasium.Env[Any, Any]) -> EnvBase:
    """A TorchRL environment of a videogym environment, wrapped or not.

    Texts become NonTensor entries, as observations and as actions: TorchRL converts
    `videogym.spaces.UnicodeText` as the ``Text`` space it derives from. Discrete actions are integers.

    Args:
        env: a videogym environment.
    """
    wrapped = GymWrapper(env, categorical_action_encoding=True)
    recipe = env.unwrapped.recipe  # type: ignore[attr-defined]  # every videogym environment has one
    wrapped.set_info_dict_reader(EpisodeInfo(recipe.term_names))
    return wrapped
