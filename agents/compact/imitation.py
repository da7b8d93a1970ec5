"""Imitation of the oracle for the compact policy: DAgger (Ross et al., 2011).

The oracle looks where the evidence is and answers once it is seen. It knows more than the skim tells,
so its looks are no function of the observation: a policy that imitates them learns how likely each
window is, given what it has seen. Half of the episodes, or what is set, are played by the learner itself,
labelled by the oracle, so that it also learns where to look after a look in vain.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from videogym import Segment, State, VideoError
from videogym.geometry import intersection_s
from videogym.wrappers import window_bounds_s

from ..training.archive import UnreadableCheckpoint, load_archive, read_metadata, write_archive
from .env import passing_over
from .network import Arrays, CompactPolicy, CompactReader, stack_contexts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImitationConfig:
    """How the oracle is imitated."""

    rounds: int = 100
    updates: int = 5  # gradient steps a round
    batch: int = 64  # episodes a step
    memory: int = 2048  # episodes learned from; the oldest are forgotten
    lr: float = 3e-3  # the highest; it rises for the first tenth and then falls
    max_grad_norm: float = 1.0
    oracle_share: float = 0.5  # of the episodes that the oracle plays; the learner plays the others

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: the share is out of range.
        """
        if not 0.0 <= self.oracle_share <= 1.0:
            raise ValueError(f"oracle_share must lie in [0, 1], got {self.oracle_share}")


@dataclass(eq=False)
class Demonstration:
    """One episode, by whomever it was played, and what the oracle would have done."""

    pixels: NDArray[np.uint8]  # (N, H, W, 3); frames not shown yet are masked by the contexts
    contexts: list[Arrays] = field(default_factory=list)  # one a turn
    labels: list[int] = field(default_factory=list)  # the oracle's action, one a turn
    success: bool = False
    broken: bool = False  # frames of a look could not be shown; nothing is learned from it


Loss = Callable[[CompactPolicy, Sequence[Demonstration]], Tensor]
Lesson = Literal["oracle", "answers"]


def teach(
    policy: CompactPolicy,
    envs: Sequence[gymnasium.Env[Any, Any]],
    config: ImitationConfig,
    seed: int,
    lesson: Lesson = "oracle",
    progress: bool = False,
    saved: Path | None = None,
) -> list[tuple[int, float, float]]:
    """Teach a policy in place, its encoder included, and leave the encoder frozen.

    Args:
        policy: taught.
        envs: `videogym.DiscreteActions` environments.
        config: see there.
        seed: of tasks, the learner's actions and the choice of batches.
        lesson: ``"oracle"`` to act as it does; ``"answers"`` to answer about frames that are shown, and
            nothing of where to look.
        progress: show a progress bar.
        saved: file to which weights and round are written at the end, also where it is interrupted. Where
            it is there, what is left of the rounds is taught, with no episode in memory; a lesson without a
            break teaches other bits.

    Raises:
        UnreadableCheckpoint: the file is damaged, or of another policy or lesson.
        VideoError: as of `imitate`.

    Returns:
        Of every round that was played: episodes played so far, mean loss, share of right answers in the
        learner's own episodes.
    """
    torch.manual_seed(seed)
    for i, env in enumerate(envs):
        with suppress(VideoError):  # seeded all the same, and no episode is played of it
            env.reset(seed=seed * len(envs) + i)
    curve: list[tuple[int, float, float]] = []
    done = 0 if saved is None else _taught(policy, saved, lesson, config)
    policy.encoder.requires_grad_(True)
    with tqdm(total=config.rounds, initial=done, desc="imitation", disable=not progress) as bar:

        def on_round(episodes: int, loss: float, success: float) -> None:
            curve.append((episodes, loss, success))
            bar.set_postfix(loss=f"{loss:.2f}", success=f"{success:.2f}")
            bar.update()

        try:
            imitate(policy, envs, config, seed, on_round, _LOSSES[lesson], done)
        finally:
            if saved is not None and (done or curve):
                about = {"round": done + len(curve), "lesson": lesson}
                write_archive(saved, {"policy": policy.state_dict()}, about)
    policy.encoder.requires_grad_(False)
    return curve


def _taught(policy: CompactPolicy, saved: Path, lesson: Lesson, config: ImitationConfig) -> int:
    """Rounds that a file's policy was taught, which this one then has been."""
    if not saved.exists():
        return 0
    about = read_metadata(saved)
    done = about.get("round")
    if about.get("lesson") != lesson or type(done) is not int or not 0 <= done <= config.rounds:
        raise UnreadableCheckpoint(f"{saved} is of another imitation; remove it to begin anew")
    load_archive(saved, {"policy": policy})
    return done


def imitate(
    policy: CompactPolicy,
    envs: Sequence[gymnasium.Env[Any, Any]],
    config: ImitationConfig,
    seed: int,
    on_round: Callable[[int, float, float], None],
    loss_of: Loss,
    first: int = 0,
) -> None:
    """Train all of the policy, its critic aside, on what the oracle does.

    Args:
        policy: trained in place.
        envs: `videogym.DiscreteActions` environments, seeded; each plays an episode a round.
        config: see there.
        seed: of the learner's actions and the choice of batches.
        on_round: called with episodes played, mean loss, and the success rate of the learner's own
            episodes, NaN where it played none.
        loss_of: what is minimised.
        first: rounds that were played before, which the learning rate has fallen over.

    Raises:
        VideoError: too many tasks in a row cannot be shown, or no episode of the first round can be shown
            to its end.
    """
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    # Spread evenly, so that every other environment is the oracle's at a half.
    by_oracle = np.arange(len(envs)) * config.oracle_share % 1.0 < config.oracle_share
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.lr)
    steps = config.rounds * config.updates
    rise = max(0.1, 1.5 / steps)  # a rise of exactly one step would divide by zero
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=steps, pct_start=rise)
    memory: list[Demonstration] = []
    for _ in range(first * config.updates):
        optimizer.step()  # of no gradients: nothing moves but the schedule, which wants it
        schedule.step()
    for done in range(first + 1, config.rounds + 1):
        played = demonstrate(policy, envs, by_oracle, generator)
        memory = (memory + [d for d in played if not d.broken])[-config.memory :]
        if not memory:
            raise VideoError(f"of none of the {len(played)} episodes of a round could all frames be shown")
        losses = []
        for _ in range(config.updates):
            chosen = rng.choice(len(memory), min(config.batch, len(memory)), replace=False)
            loss = loss_of(policy, [memory[i] for i in chosen])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        own = [d.success for d, oracle in zip(played, by_oracle, strict=True) if not (oracle or d.broken)]
        on_round(done * len(envs), float(np.mean(losses)), float(np.mean(own)) if own else math.nan)


def oracle_action(state: State, windows: Sequence[int], variants: int = 1, searches: bool = False) -> int:
    """What the oracle does: look at the smallest window with most unseen evidence, or answer right.

    It answers when all evidence was shown, and in the last turn in any case. It looks by the last set of
    arguments and never searches.

    Args:
        state: of a choice task with evidence.
        windows: as of `videogym.DiscreteActions`.
        variants: number of its sets of arguments.
        searches: whether it has a search.
    """
    finest, count = max(windows), sum(windows)
    first = (variants - 1) * count + sum(windows[: tuple(windows).index(finest)])
    shown = {t for clip in state.clips for t in clip.times_s}
    unseen = [s for s in state.task.evidence or () if not any(s.contains(t) for t in shown)]
    if state.turns_left > 1 and unseen:
        return first + int(_evidence_in_windows(state, unseen, finest).argmax())
    return variants * count + searches + right_option(state)


def right_option(state: State) -> int:
    """Index of the right option."""
    return state.task.letters.index(state.task.answer)


def _evidence_in_windows(state: State, evidence: Sequence[Segment], windows: int) -> NDArray[np.float64]:
    """(windows,) how much of some evidence each holds: pool frames, or seconds without a pool."""
    amount = np.zeros(windows)
    if not state.pool_s:
        for i in range(windows):
            start_s, end_s = window_bounds_s(state, i, windows)
            amount[i] = intersection_s([Segment(start_s, end_s)], evidence)
        return amount
    cuts = np.linspace(0, len(state.pool_s), windows + 1).astype(np.int64)
    for i, t in enumerate(state.pool_s):
        amount[np.searchsorted(cuts, i, side="right") - 1] += any(s.contains(t) for s in evidence)
    return amount


def demonstrate(
    policy: CompactPolicy,
    envs: Sequence[gymnasium.Env[Any, Any]],
    by_oracle: NDArray[np.bool_],
    generator: torch.Generator,
) -> list[Demonstration]:
    """Play one episode in every environment, turn by turn together.

    Tasks that cannot be shown are passed over and logged. An episode ends broken where frames of a look
    cannot be shown.

    Args:
        policy: the learner.
        envs: `videogym.DiscreteActions` environments.
        by_oracle: (len(envs),) whose episodes the oracle plays; the learner plays the others.
        generator: draws the learner's actions.

    Raises:
        VideoError: too many tasks in a row cannot be shown.
    """
    demonstrations = [passing_over(partial(_begun, env, policy.reader)) for env in envs]
    live = list(range(len(envs)))
    while live:
        chosen = _choose(policy, [demonstrations[i] for i in live], generator)
        over = set()
        for i, learnt in zip(live, chosen, strict=True):
            action = demonstrations[i].labels[-1] if by_oracle[i] else learnt
            if not _advance(demonstrations[i], envs[i], policy.reader, action):
                over.add(i)
        live = [i for i in live if i not in over]
    return demonstrations


def _begun(env: gymnasium.Env[Any, Any], reader: CompactReader) -> Demonstration:
    """An episode of which the first frames are known."""
    observation, _ = env.reset()
    count, (width, height) = len(observation["shown_mask"]), reader.size
    demonstration = Demonstration(np.zeros((count, height, width, 3), np.uint8))
    _record(demonstration, reader, env, observation)
    return demonstration


def _advance(
    demonstration: Demonstration, env: gymnasium.Env[Any, Any], reader: CompactReader, action: int
) -> bool:
    """Play a turn, and say whether another one follows."""
    observation, _, terminated, _, info = env.step(action)
    demonstration.success, fault = bool(info["is_success"]), str(info["fault"])
    try:
        if not (terminated or fault):
            _record(demonstration, reader, env, observation)
    except VideoError as error:
        fault = str(error)
    if fault:
        log.warning("task %s: %s", info["task_id"], fault)
        demonstration.broken = True
    return not (terminated or fault)


def _record(
    demonstration: Demonstration,
    reader: CompactReader,
    env: gymnasium.Env[Any, Any],
    observation: dict[str, Any],
) -> None:
    """Add a turn: what is seen before it, and what the oracle would do."""
    state: State = env.unwrapped.state  # type: ignore[attr-defined]  # every videogym environment has one
    label = oracle_action(state, reader.windows, reader.variants, reader.searches)
    context = reader.context(observation)
    known = demonstration.contexts[-1]["mask"] if demonstration.contexts else np.zeros_like(context["mask"])
    new = context["mask"] & ~known
    if new.any():
        demonstration.pixels[new] = reader.pixels(observation, new)
    demonstration.contexts.append(context)
    demonstration.labels.append(label)


@torch.no_grad()
def _choose(policy: CompactPolicy, live: list[Demonstration], generator: torch.Generator) -> list[int]:
    pixels = torch.from_numpy(np.stack([d.pixels for d in live]))
    logits, _ = policy.score(policy.encoder(pixels), *stack_contexts([d.contexts[-1] for d in live]))
    return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1).tolist()


def imitation_loss(policy: CompactPolicy, batch: Sequence[Demonstration]) -> Tensor:
    """Cross-entropy of the oracle's actions, the mean over all turns of some episodes."""
    labels = torch.tensor([label for d in batch for label in d.labels])
    return F.cross_entropy(_logits(policy, batch), labels)


def answer_loss(policy: CompactPolicy, batch: Sequence[Demonstration]) -> Tensor:
    """Cross-entropy of the right option among the options, where the oracle answers; looks are not taught.

    So a policy learns to answer about evidence that it is shown, and not where to look for it.
    """
    looks = policy.reader.looks
    labels = torch.tensor([label for d in batch for label in d.labels])
    # The oracle answers when all evidence was shown, or at last: then the option is its label.
    shown = labels >= looks
    return F.cross_entropy(_logits(policy, batch)[shown, looks:], labels[shown] - looks)


def _logits(policy: CompactPolicy, batch: Sequence[Demonstration]) -> Tensor:
    """(turns, A) of all turns of some episodes, in order.

    Frames are varied in contrast and colour, so that the encoder also reads what a codec returns.
    """
    pixels = torch.from_numpy(np.stack([d.pixels for d in batch])).float()
    contrast = 1.0 + 0.1 * torch.randn(len(batch), 1, 1, 1, 1)
    pixels = pixels * contrast + 8.0 * torch.randn(len(batch), 1, 1, 1, 3)
    # Frames are encoded once an episode; its turns differ in what they mask.
    owner = torch.tensor([i for i, d in enumerate(batch) for _ in d.labels])
    contexts = stack_contexts([context for d in batch for context in d.contexts])
    return policy.score(policy.encoder(pixels)[owner], *contexts)[0]


_LOSSES: dict[Lesson, Loss] = {"oracle": imitation_loss, "answers": answer_loss}
