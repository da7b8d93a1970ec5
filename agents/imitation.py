"""Imitation of the oracle for the compact policy: DAgger (Ross et al., 2011).

The oracle looks where the evidence is and answers once it is seen. It knows more than the skim tells,
so its looks are no function of the observation: a policy that imitates them learns how likely each
window is, given what it has seen. Half of the episodes are played by the learner itself, labelled by
the oracle, so that it also learns where to look after a look in vain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from videogym import State

from .policies.compact import Arrays, CompactNet, CompactReader, stack_contexts


@dataclass(frozen=True)
class ImitationConfig:
    """How the oracle is imitated."""

    rounds: int = 50
    updates: int = 5  # gradient steps a round
    batch: int = 64  # episodes a step
    memory: int = 2048  # episodes learned from; the oldest are forgotten
    lr: float = 3e-3  # the highest; it rises for the first tenth and then falls
    max_grad_norm: float = 1.0


@dataclass(eq=False)
class Demonstration:
    """One episode, by whomever it was played, and what the oracle would have done."""

    pixels: NDArray[np.uint8]  # (N, H, W, 3); frames not shown yet are masked by the contexts
    contexts: list[Arrays] = field(default_factory=list)  # one a turn
    labels: list[int] = field(default_factory=list)  # the oracle's action, one a turn
    success: bool = False


def imitate(
    net: CompactNet,
    reader: CompactReader,
    envs: Sequence[gymnasium.Env[Any, Any]],
    config: ImitationConfig,
    seed: int,
    on_round: Callable[[int, float, float], None],
) -> None:
    """Train all of the net, its critic aside, on the oracle's actions.

    Args:
        net: trained in place.
        reader: reads the environments' observations.
        envs: `videogym.DiscreteActions` environments, seeded; each plays an episode a round.
        config: see there.
        seed: of the learner's actions and the choice of batches.
        on_round: called with episodes played, mean loss, and the success rate of the learner's own
            episodes.
    """
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    by_oracle = np.arange(len(envs)) % 2 == 0
    optimizer = torch.optim.Adam(net.parameters(), lr=config.lr)
    steps = config.rounds * config.updates
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=steps, pct_start=0.1)
    memory: list[Demonstration] = []
    for done in range(1, config.rounds + 1):
        played = demonstrate(net, reader, envs, by_oracle, generator)
        memory = (memory + played)[-config.memory :]
        losses = []
        for _ in range(config.updates):
            chosen = rng.choice(len(memory), min(config.batch, len(memory)), replace=False)
            loss = imitation_loss(net, [memory[i] for i in chosen])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), config.max_grad_norm)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        learnt = [d.success for d, oracle in zip(played, by_oracle, strict=True) if not oracle]
        on_round(done * len(envs), float(np.mean(losses)), float(np.mean(learnt)))


def oracle_action(state: State, windows: int) -> int:
    """What the oracle does: look at the window with most unseen evidence, or answer right.

    It answers when all evidence was shown, and in the last turn in any case.

    Args:
        state: of a choice task with evidence, under a recipe with a pool.
        windows: as of `videogym.DiscreteActions`.
    """
    shown = {t for clip in state.clips for t in clip.times_s}
    unseen = [s for s in state.task.evidence or () if not any(s.contains(t) for t in shown)]
    counts = np.zeros(windows, np.int64)
    cuts = np.linspace(0, len(state.pool_s), windows + 1).astype(np.int64)
    for i, t in enumerate(state.pool_s):
        counts[np.searchsorted(cuts, i, side="right") - 1] += any(s.contains(t) for s in unseen)
    if state.turns_left > 1 and counts.any():
        return int(counts.argmax())
    return windows + state.task.letters.index(state.task.answer)


def demonstrate(
    net: CompactNet,
    reader: CompactReader,
    envs: Sequence[gymnasium.Env[Any, Any]],
    by_oracle: NDArray[np.bool_],
    generator: torch.Generator,
) -> list[Demonstration]:
    """Play one episode in every environment, turn by turn together.

    Args:
        net: the learner.
        reader: reads the environments' observations.
        envs: `videogym.DiscreteActions` environments.
        by_oracle: (len(envs),) whose episodes the oracle plays; the learner plays the others.
        generator: draws the learner's actions.
    """
    observations = [env.reset()[0] for env in envs]
    count, (width, height) = len(observations[0]["shown_mask"]), reader.size
    demonstrations = [Demonstration(np.zeros((count, height, width, 3), np.uint8)) for _ in envs]
    live = list(range(len(envs)))
    while live:
        for i in live:
            _record(
                demonstrations[i], reader, observations[i], oracle_action(_state(envs[i]), reader.windows)
            )
        chosen = _choose(net, [demonstrations[i] for i in live], generator)
        over = set()
        for i, learnt in zip(live, chosen, strict=True):
            action = demonstrations[i].labels[-1] if by_oracle[i] else learnt
            observations[i], _, terminated, _, info = envs[i].step(action)
            demonstrations[i].success = bool(info["is_success"])
            if terminated:
                over.add(i)
        live = [i for i in live if i not in over]
    return demonstrations


def _state(env: gymnasium.Env[Any, Any]) -> State:
    return env.unwrapped.state  # type: ignore[attr-defined]  # every videogym environment has one


def _record(
    demonstration: Demonstration, reader: CompactReader, observation: dict[str, Any], label: int
) -> None:
    context = reader.context(observation)
    known = demonstration.contexts[-1]["mask"] if demonstration.contexts else np.zeros_like(context["mask"])
    new = context["mask"] & ~known
    if new.any():
        demonstration.pixels[new] = reader.pixels(observation, new)
    demonstration.contexts.append(context)
    demonstration.labels.append(label)


@torch.no_grad()
def _choose(net: CompactNet, live: list[Demonstration], generator: torch.Generator) -> list[int]:
    pixels = torch.from_numpy(np.stack([d.pixels for d in live]))
    logits, _ = net(net.encoder(pixels), *stack_contexts([d.contexts[-1] for d in live]))
    return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1).tolist()


def imitation_loss(net: CompactNet, batch: Sequence[Demonstration]) -> torch.Tensor:
    """Cross-entropy of the oracle's actions, the mean over all turns of some episodes.

    Frames are varied in contrast and colour, so that the encoder also reads what a codec returns.
    """
    pixels = torch.from_numpy(np.stack([d.pixels for d in batch])).float()
    contrast = 1.0 + 0.1 * torch.randn(len(batch), 1, 1, 1, 1)
    pixels = pixels * contrast + 8.0 * torch.randn(len(batch), 1, 1, 1, 3)
    # Frames are encoded once an episode; its turns differ in what they mask.
    owner = torch.tensor([i for i, d in enumerate(batch) for _ in d.labels])
    contexts = stack_contexts([context for d in batch for context in d.contexts])
    logits, _ = net(net.encoder(pixels)[owner], *contexts)
    return F.cross_entropy(logits, torch.tensor([label for d in batch for label in d.labels]))
