"""Train the compact policy on lazily drawn videos: imitation of the oracle, then PPO by TorchRL.

Imitation (`agents.imitation`) teaches the encoder to see. PPO then keeps the encoder fixed and trains
all behind it on the recipe's rewards, as the environment pays them, through `GymWrapper`,
`Collector`, `GAE` and `ClipPPOLoss`. Frames reach a TensorDict as features only.

Run ``python -m agents.train_ppo --out runs/ppo``.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.data import Composite, LazyTensorStorage, TensorDictReplayBuffer, Unbounded
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement
from torchrl.envs import EnvBase, SelectTransform, Transform, TransformedEnv
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE
from torchrl.record import CSVLogger
from tqdm import tqdm

from videogym import DiscreteActions, FrameStore

from .collect import torchrl_env
from .imitation import ImitationConfig, imitate
from .policies.compact import CONTEXT, MAX_WORDS, CompactNet, CompactReader, Vocabulary

READ_KEYS = (
    *("video", "question", "options", "turns_left", "pool_times_s", "pool_mask"),
    *("shown_times_s", "shown_mask", "shown_turns"),
)
NET_KEYS = [("net", name) for name in ("features", *CONTEXT)]
LOSS_KEYS = [*NET_KEYS, "action", "action_log_prob", "advantage", "value_target"]


@dataclass(frozen=True)
class Config:
    """What a run depends on: with equal values, on one thread, two runs are equal."""

    tasks: str = "procedural:brief_event?level=0&duration_s=600&count=100000&split=train&fps=4&size=320x180"
    env_id: str = "videogym/VideoMTR-v0"  # its recipe must have a pool
    windows: int = 16  # with a pool of 128 frames, one holds what a look may show
    options: int = 4
    seed: int = 0
    imitation: ImitationConfig = field(default_factory=ImitationConfig)
    imitation_envs: int = 64  # episodes a round of imitation
    batches: int = 6  # of PPO
    batch_turns: int = 1024
    epochs: int = 8
    minibatch_turns: int = 256
    lr: float = 5e-4
    clip_epsilon: float = 0.2
    entropy: float = 0.01
    gamma: float = 1.0  # turns are limited, so a later one is not worth less
    lmbda: float = 0.95
    max_grad_norm: float = 0.5


@dataclass(frozen=True)
class Trained:
    """What a run leaves."""

    reader: CompactReader
    imitated: CompactNet  # before PPO
    trained: CompactNet
    curves: Mapping[str, list[tuple[int, float]]]  # (episodes, value) by name, as in the log


def train(config: Config, log_dir: Path, progress: bool = False) -> Trained:
    """Imitation, then PPO.

    Args:
        config: see there.
        log_dir: one CSV file per curve is written to its folder ``scalars``, in place of earlier ones.
        progress: show progress bars.
    """
    torch.manual_seed(config.seed)
    envs = [make_env(config) for _ in range(config.imitation_envs)]
    for i, env in enumerate(envs):
        env.reset(seed=config.seed * len(envs) + i)
    reader = make_reader(config)
    net = CompactNet(len(reader.vocabulary), config.windows, reader.size)
    for earlier in (log_dir / "scalars").glob("*.csv"):
        earlier.unlink()  # the logger would append
    logger = CSVLogger(log_dir.name, str(log_dir.parent))
    with tqdm(total=config.imitation.rounds, desc="imitation", disable=not progress) as bar:

        def on_round(episodes: int, loss: float, success: float) -> None:
            log(logger, {"imitation_loss": loss, "success": success}, episodes)
            bar.set_postfix(loss=f"{loss:.2f}", success=f"{success:.2f}")
            bar.update()

        imitate(net, reader, envs, config.imitation, config.seed, on_round)
    imitated = copy.deepcopy(net)
    played = config.imitation.rounds * len(envs)
    ppo(config, net, reader, logger, played, progress)
    return Trained(reader, imitated, net, dict(logger.experiment.scalars))


def make_env(config: Config) -> gymnasium.Env[Any, Any]:
    """The environment trained in."""
    env = gymnasium.make(config.env_id, tasks=config.tasks, disable_env_checker=True)
    return DiscreteActions(env, config.windows, config.options)


def make_reader(config: Config) -> CompactReader:
    """A reader with a frame store of its own, and the words of the first tasks."""
    tasks = make_env(config).unwrapped.tasks[:256]  # type: ignore[attr-defined]
    vocabulary = Vocabulary.of(text for task in tasks for text in (task.question, *task.options))
    return CompactReader(FrameStore(), vocabulary, config.windows, config.options)


def log(logger: CSVLogger, values: Mapping[str, float], episodes: int) -> None:
    """Append one point to every named curve."""
    for name, value in values.items():
        logger.log_scalar(name, value, step=episodes)


class EncodedFrames(Transform):
    """Adds under ``"net"`` what `CompactNet` reads: frames as its encoder sees them, and the context.

    The encoder is not trained through this. A frame is resolved and encoded once an episode.

    Args:
        reader: reads the environment's observations.
        net: has the encoder.
    """

    def __init__(self, reader: CompactReader, net: CompactNet) -> None:
        super().__init__()
        self.reader, self.net = reader, net

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        return self._read(None, tensordict_reset)

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        return self._read(tensordict["net"], next_tensordict)

    @torch.no_grad()
    def _read(self, known: TensorDictBase | None, tensordict: TensorDictBase) -> TensorDictBase:
        observation = {name: _as_observed(tensordict[name]) for name in READ_KEYS}
        context = {
            name: torch.from_numpy(value) for name, value in self.reader.context(observation).items()
        }
        features, new = torch.zeros(len(context["mask"]), self.net.width), context["mask"]
        if known is not None:
            features, new = known["features"].clone(), new & ~known["mask"]
        if new.any():
            features[new] = self.net.encoder(torch.from_numpy(self.reader.pixels(observation, new.numpy())))
        return tensordict.set("net", TensorDict({"features": features, **context}))

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """Specs of all that is added."""
        frames = observation_spec["shown_mask"].shape[0]
        observation_spec["net"] = Composite(
            features=Unbounded((frames, self.net.width)),
            mask=Unbounded((frames,), dtype=torch.bool),
            window=Unbounded((frames,), dtype=torch.int64),
            looked=Unbounded((frames,)),
            question=Unbounded((MAX_WORDS,), dtype=torch.int64),
            options=Unbounded((self.reader.options, MAX_WORDS), dtype=torch.int64),
            turns_left=Unbounded((1,)),
        )
        return observation_spec


def _as_observed(entry: Any) -> Any:
    return entry.numpy() if isinstance(entry, torch.Tensor) else entry


def training_env(config: Config, net: CompactNet, reader: CompactReader) -> EnvBase:
    """The environment that PPO collects from."""
    env = TransformedEnv(torchrl_env(make_env(config)), EncodedFrames(reader, net))
    # References and texts have been read: every key costs time in every turn, NonTensor ones most.
    terms = [("terms", name) for name in env.observation_spec["terms"].keys()]
    env.append_transform(SelectTransform(*NET_KEYS, *terms, "is_success"))
    env.set_seed(config.seed)
    return env


def ppo(
    config: Config, net: CompactNet, reader: CompactReader, logger: CSVLogger, episodes: int, progress: bool
) -> None:
    """Train all of the net but its encoder, in place.

    Args:
        config: see there.
        net: starts from what it knows.
        reader: reads the environment's observations.
        logger: gets the means of every batch.
        episodes: where the curves go on.
        progress: show a progress bar.
    """
    net.encoder.requires_grad_(False)
    env = training_env(config, net, reader)
    actor, critic = actor_critic(net, env)
    turns = config.batches * config.batch_turns
    collector = Collector(
        env,
        actor,
        frames_per_batch=config.batch_turns,
        total_frames=turns,
        auto_register_policy_transforms=False,
    )
    advantage = estimator(config, critic)
    loss_module = ClipPPOLoss(actor, critic, clip_epsilon=config.clip_epsilon, entropy_coeff=config.entropy)
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=config.lr)
    storage = LazyTensorStorage(config.batch_turns)
    buffer = TensorDictReplayBuffer(
        storage=storage, sampler=SamplerWithoutReplacement(), batch_size=config.minibatch_turns
    )
    for batch in (bar := tqdm(collector, total=config.batches, desc="ppo", disable=not progress)):
        advantage(batch)
        buffer.extend(batch.select(*LOSS_KEYS))
        for _ in range(config.epochs):
            for minibatch in buffer:
                losses = loss_module(minibatch)
                loss = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(loss_module.parameters(), config.max_grad_norm)
                optimizer.step()
        episodes += int(batch["next", "done"].sum())
        means = episode_means(batch)
        log(logger, means, episodes)
        bar.set_postfix(success=f"{means['success']:.2f}", reward=f"{means['reward']:.2f}")
    collector.shutdown()
    net.encoder.requires_grad_(True)


def actor_critic(net: CompactNet, env: EnvBase) -> tuple[ProbabilisticActor, TensorDictModule]:
    """The two faces that TorchRL's losses know; both share the net."""
    actor = ProbabilisticActor(
        TensorDictModule(net, in_keys=NET_KEYS, out_keys=["logits", "_"]),
        in_keys=["logits"],
        spec=env.action_spec,
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
    )
    return actor, TensorDictModule(net, in_keys=NET_KEYS, out_keys=["_", "state_value"])


def estimator(config: Config, critic: TensorDictModule) -> GAE:
    """Writes ``advantage``, standardised over the batch, and ``value_target``."""
    return GAE(gamma=config.gamma, lmbda=config.lmbda, value_network=critic, average_gae=True)


def episode_means(batch: TensorDictBase) -> dict[str, float]:
    """Means over the episodes that ended in a batch: success, reward and every term of it.

    Args:
        batch: (T,) turns of a collector. The episodes cut at its ends are counted by their share.
    """
    last = batch["next"]
    ended = int(last["done"].sum())
    sums = {name: float(values.nansum()) for name, values in last["terms"].items()}
    sums |= {
        "reward": float(last["reward"].sum()),
        "success": float((last["is_success"] * last["done"]).sum()),
    }
    sums["turns"] = float(len(batch))
    return {name: value / ended for name, value in sums.items()}


def main() -> None:
    """Train once and keep the weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ppo"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    trained = train(replace(Config(), seed=arguments.seed), arguments.out / "log", progress=True)
    torch.save(trained.trained.state_dict(), arguments.out / "compact.pt")


if __name__ == "__main__":
    main()
