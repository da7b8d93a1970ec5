"""Small runs for tests: a policy of a few numbers, and recipes that fail. Workers import it too."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from agents.compact.discrete import DiscretePolicy
from agents.compact.env import EpisodeEnv
from agents.compact.run import RunConfig, make_episode_env
from videogym import Recipe, State, Term, get_recipe

SMALL: dict[str, Any] = {
    "tasks": "procedural:brief_event?level=0&duration_s=60&count=40&split=train",
    "eval_tasks": "procedural:brief_event?level=0&duration_s=60&count=20&split=val",
    "windows": (4,),
    "options": 4,
    "episodes": 8,
    "iterations": 2,
    "eval_episodes": 4,
    "mini_batch_size": 8,
}
"""Arguments of a config of any training loop: 4 windows, 4 options, and a second or less."""


def video_number(video: str) -> int:
    """What `Table` keeps of a video's address."""
    return zlib.crc32(video.encode())


class Table(DiscretePolicy):
    """The same odds and the same value whatever is seen; it keeps what tells tasks and turns apart."""

    def __init__(self, actions: int = 8) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(actions))
        self.worth = nn.Parameter(torch.zeros(1))

    def read(self, observation: Mapping[str, Any], earlier: TensorDictBase | None = None) -> TensorDict:
        """The video's number, and the turns left."""
        number = torch.tensor([video_number(observation["video"])])
        return TensorDict({"video": number, "turns_left": torch.tensor(observation["turns_left"]).long()})

    def forward(self, inputs: TensorDictBase) -> tuple[Tensor, Tensor]:
        """The parameters."""
        shape = inputs.batch_size
        return self.logits.expand(*shape, -1), self.worth.expand(*shape, 1)

    def always(self, action: int) -> Table:
        """Choose one action from now on."""
        with torch.no_grad():
            self.logits.fill_(0.0)
            self.logits[action] = 100.0
        return self


def raising(before: State, after: State) -> float:
    """A reward term that fails in the second turn."""
    if before.turns:
        raise ArithmeticError("the judge is out")
    return 0.0


_PAPER = get_recipe("VIDEO_MTR/paper")
BROKEN = replace(_PAPER, name="BROKEN", terms=(Term("verdict", "turn", raising), *_PAPER.terms))


def looked(before: State, after: State) -> float:
    """A reward term that pays a look."""
    return float(bool(after.turns[-1].clips))


LOOKING = replace(_PAPER, name="LOOKING", terms=(Term("look", "turn", looked),))


def collisions(out: Path, recipe: Recipe) -> list[str]:
    """Curves of a run, beside those of its terms, whose name a recipe would give to a term."""
    names = {path.stem for path in (out / "log" / "scalars").glob("*.csv")}
    free = []
    for name in names - set(recipe.term_names):
        with suppress(ValueError):
            free.append(replace(recipe, terms=(Term(name, "turn", looked),)).terms[0].name)
    assert "reward" in names or "loss" in names
    return free


def endless(before: State, after: State) -> float:
    """A reward term that no one can learn from."""
    return float("nan")


NAN = replace(_PAPER, name="NAN", terms=(Term("endless", "turn", endless), *_PAPER.terms))


def env_with_one_broken_worker(
    config: RunConfig, policy: DiscretePolicy, *, rows: int, group_size: int = 1, seed: int = 0
) -> EpisodeEnv:
    """An environment that fails in its second turn if its seed is odd."""
    if seed % 2:
        config = replace(config, recipe=BROKEN)
    return make_episode_env(config, policy, rows=rows, group_size=group_size, seed=seed)
