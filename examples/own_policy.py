"""A policy of your own, trained by the training loop as it is, in less than half a minute on one core.

It keeps the mean colour of every shown frame and a hash of every option, and learns which word means
which colour. A policy says what it keeps of an observation (`read`) and scores actions (`forward`).
"""

import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDict

from agents.compact.discrete import Acting, DiscretePolicy
from agents.compact.run import make_env
from agents.train_ppo import Config, train
from videogym import FrameStore, evaluate
from videogym.cli.terminal import progress_bar


class MeanColours(DiscretePolicy):
    """Scores an option by the colours of the frames, and looks by nothing."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.store = FrameStore(open_videos=64)
        self.words = torch.nn.Embedding(97, 32)
        self.colours = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.Tanh(), torch.nn.Linear(64, 32))
        self.looks, self.value = torch.nn.Parameter(torch.zeros(looks)), torch.nn.Linear(32, 1)

    def read(self, observation, earlier=None):
        """What is kept of an observation, once a turn; tensors without a batch dimension."""
        shown, options = observation["shown_mask"].astype(bool), observation["options"].split("\n")
        colours = np.zeros((len(shown), 3), np.float32)
        times = observation["shown_times_s"][shown].tolist()
        pixels = self.store.frames(observation["video"], times, size=(16, 9)).pixels
        colours[shown] = pixels.mean((1, 2)) / 127.5 - 1.0
        words = torch.tensor([zlib.crc32(option[3:].encode()) % 97 for option in options])
        return TensorDict(
            {"colours": torch.from_numpy(colours), "shown": torch.tensor(shown), "words": words}
        )

    def forward(self, inputs):
        """Logits of all actions and a value, for a batch of what was read."""
        shown = inputs["shown"].unsqueeze(-1).float()
        seen = (self.colours(inputs["colours"]) * shown).sum(-2) / shown.sum(-2)
        answers = (self.words(inputs["words"]) * seen.unsqueeze(-2)).sum(-1)
        return torch.cat((self.looks.expand(*seen.shape[:-1], -1), answers), -1), self.value(seen)


tasks = "procedural:skim_suffices?level=0&duration_s=60&count={count}&split={split}"
config = Config.of(
    tasks=tasks.format(count=2000, split="train"),
    eval_tasks=tasks.format(count=200, split="val"),
    windows=(4,),
    iterations=60,
    episodes=64,
    learning_rate=1e-2,
    eval_episodes=200,
    eval_every=60,
)
policy, env = MeanColours(sum(config.windows)), make_env(config, config.evaluation.eval_tasks)
before = evaluate(Acting(policy), env, episodes=200, progress=progress_bar("episodes")).accuracy
train(config, policy, Path(tempfile.mkdtemp()), progress=True)
after = evaluate(Acting(policy), env, episodes=200, progress=progress_bar("episodes")).accuracy
print(f"right answers before training {before}, after {after}")
