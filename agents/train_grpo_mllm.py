"""GRPO on a Qwen2.5-VL that looks around in long videos: the whole path in one file.

``python -m agents.train_grpo_mllm --seconds 60 --out runs/grpo`` builds a tiny model with random weights,
shows it clumsy transcripts (a supervised cold start) and then trains it on the episode's reward alone:
collect groups of rollouts that start from one state, take each return relative to its group, update.
The same file takes a real checkpoint with ``--checkpoint``.

Deviations from LongVT: groups of 8, not 16; a shorter skim; no KL to a reference model; learning rates and
sizes for a tiny model; the cold start imitates a script, not a larger model. As in its code, the loss is
the mean over rollouts of the mean over sampled tokens.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.collectors.llm import LLMCollector
from torchrl.data import LazyStackStorage, ReplayBuffer
from torchrl.data.replay_buffers import SamplerWithoutReplacement
from torchrl.envs import Compose, InitTracker, RewardSum, TransformedEnv, step_mdp
from torchrl.objectives.llm import GRPOLoss, MCAdvantage
from tqdm import tqdm

from videogym import Recipe, State, VideoQAEnv, get_recipe
from videogym.grammars import get_grammar

from .chat import ChatEnv
from .policies.qwen_vl import QwenVLActor, append_output
from .policies.tiny_qwen import build_tiny_qwen

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Everything a run depends on."""

    tasks: str = "procedural:skim_suffices?level=0&duration_s=60&count=1000&split=train"
    """Task source; of this family even a rough look overlaps the evidence, so that looking pays at once."""
    recipe: str = "LONGVT_TINY"
    """Recipe of the episodes: sampling, limits, grammar and reward terms."""
    skim_frames: int = 16
    """Cap on the skim; 0 keeps the recipe's. Few frames make short conversations, which train fast."""
    checkpoint: str = ""
    """Folder or name of a Qwen2.5-VL; empty: build a tiny one with random weights."""
    cold_start_steps: int = 120
    """Supervised updates on transcripts before GRPO; 0 for a checkpoint that speaks the grammar."""
    cold_start_tasks: int = 16
    """Tasks with ``group_size`` transcripts each."""
    cold_start_lr: float = 1e-2
    """Learning rate of the supervised updates."""
    seconds: float = 60.0
    """Wall-clock budget of GRPO, the cold start not counted."""
    max_iterations: int = 10_000
    """Further bound on GRPO iterations."""
    groups: int = 4
    """Tasks per iteration."""
    group_size: int = 8
    """Rollouts per task."""
    minibatch: int = 8
    """Rollouts per gradient step; a multiple of ``group_size`` keeps a group and its frames together."""
    lr: float = 1e-3
    """Learning rate of GRPO."""
    clip_epsilon: float = 0.2
    """Clipping of the importance ratio."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    temperature: float = 1.0
    """Of sampling and of the trained distribution."""
    max_new_tokens: int = 32
    """Bound of one output."""
    seed: int = 0
    """Of tasks, weights and sampling."""
    threads: int = 1
    """CPU threads of torch."""
    out: str = ""
    """Folder for ``grpo.csv``, ``cold_start.csv`` and the trained checkpoint; empty: nothing is written."""


@dataclass
class History:
    """What a run measured."""

    term_names: tuple[str, ...]  # of the recipe
    cold_start_losses: list[float] = field(default_factory=list)  # mean negative log-likelihood a token
    iterations: list[dict[str, float]] = field(default_factory=list)  # one row per GRPO iteration

    def quarters(self, key: str) -> tuple[float, float]:
        """Means of a column over the first and the last quarter of the iterations.

        Raises:
            ValueError: there are fewer than 4 iterations.
        """
        if len(self.iterations) < 4:
            raise ValueError(f"quarters need 4 iterations, there are {len(self.iterations)}")
        values = [row[key] for row in self.iterations]
        length = len(values) // 4
        return float(np.nanmean(values[:length])), float(np.nanmean(values[-length:]))


def train(config: Config, progress: bool = True) -> History:
    """Cold start, then GRPO.

    Args:
        config: the run.
        progress: whether to show progress bars.

    Returns:
        Losses of the cold start and one row per iteration. A row holds ``iteration``, ``seconds``, then
        means over rollouts (``reward`` and each reward term, ``turns``, sampled ``tokens``) and over
        gradient steps (``loss``, ``clip_fraction``, ``ess``).
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    env = VideoQAEnv(config.tasks, make_recipe(config))
    actor = make_actor(config, env)
    chat_env = ChatEnv(
        env, actor.tokenizer, groups=config.groups, group_size=config.group_size, seed=config.seed
    )
    history = History(chat_env.term_names)
    if config.cold_start_steps:
        history.cold_start_losses = cold_start(config, actor, chat_env, progress)
    history.iterations = grpo(config, actor, chat_env, progress)
    if config.out:
        save(config, actor, history)
    env.close()
    return history


def make_recipe(config: Config) -> Recipe:
    """The configured recipe with the configured skim."""
    recipe = get_recipe(config.recipe)
    if not config.skim_frames:
        return recipe
    rules = replace(recipe.rules, skim_frames=config.skim_frames)
    return replace(recipe, name=f"{recipe.name}-{config.skim_frames}", rules=rules)


def make_actor(config: Config, env: VideoQAEnv) -> QwenVLActor:
    """The policy of the configured checkpoint, or a tiny one whose tokenizer knows the grammar's words."""
    limits = {"max_new_tokens": config.max_new_tokens, "temperature": config.temperature}
    if config.checkpoint:
        return QwenVLActor.from_pretrained(config.checkpoint, env.store, **limits)
    with tempfile.TemporaryDirectory() as folder:
        build_tiny_qwen(folder, corpus(env), seed=config.seed)
        return QwenVLActor.from_pretrained(folder, env.store, **limits)


def corpus(env: VideoQAEnv, episodes: int = 64) -> list[str]:
    """Texts of some played episodes, and the whole seconds of their videos."""
    grammar, texts = get_grammar(env.recipe.grammar), []
    for seed in range(episodes):
        speak = Clumsy(seed)
        env.reset(seed=seed)
        while not env.state.terminated:
            env.step(grammar.parse(speak(env.state), env.state))
        for message in grammar.messages(env.state):
            texts += [f"{message.role}\n", message.text]
        texts += map(str, range(round(env.state.video.duration_s) + 1))
    return texts


# --- cold start --------------------------------------------------------------------------------


class Clumsy:
    """Speaks LongVT's grammar with a stammer, looks near the evidence and guesses the answer.

    It shows a random model what an episode sounds like and leaves something to learn from rewards.
    """

    def __init__(self, seed: int, stammer: float = 0.4, jitter_s: float = 15.0) -> None:
        self._rng, self._stammer, self._jitter_s = np.random.default_rng(seed), stammer, jitter_s

    def __call__(self, state: State) -> str:
        """The next output: a crop first, then an answer."""
        text = self.answer(state) if state.calls_made else self.crop(state)
        if self._rng.random() < self._stammer:
            return text.replace("</think>", "")
        return text

    def crop(self, state: State) -> str:
        """A crop of whole seconds, some seconds off the evidence."""
        if not state.task.evidence:
            raise ValueError(f"task {state.task.task_id!r} has no evidence to look at")
        evidence, duration_s = state.task.evidence[0], int(state.video.duration_s)
        ends = self._rng.normal([evidence.start_s, evidence.end_s], self._jitter_s).round()
        start_s = int(np.clip(ends[0], 0, duration_s - 2))
        times = {"start_time": start_s, "end_time": int(np.clip(ends[1], start_s + 1, duration_s))}
        call = json.dumps({"name": "crop_video", "arguments": times})
        return f"<think>look</think><tool_call>{call}</tool_call>"

    def answer(self, state: State) -> str:
        """A random option."""
        return f"<think>answer</think><answer>{self._rng.choice(state.task.letters)}</answer>"


def demonstrations(env: ChatEnv, speak: Callable[[State], str]) -> TensorDictBase:
    """One batch of episodes spoken by a script, in the form in which rollouts are stored."""
    td = env.reset()
    while True:
        for row, snapshot in zip(td.unbind(0), env.snapshots, strict=True):
            ids = (
                []
                if row["waiting"].any()
                else [*env.chat.output_ids(speak(snapshot.state)), env.chat.end_id]
            )
            append_output(row, torch.tensor(ids, dtype=torch.int64), torch.zeros(len(ids)))
        td = env.step(td)
        if td["next", "done"].all():
            return td
        td = step_mdp(td)


def cold_start(config: Config, actor: QwenVLActor, env: ChatEnv, progress: bool) -> list[float]:
    """Supervised updates on scripted transcripts; returns the loss of each."""
    speak = Clumsy(config.seed)
    groups: list[TensorDictBase] = []
    while len(groups) < config.cold_start_tasks:
        groups += demonstrations(env, speak).split(config.group_size)
    optimizer = torch.optim.AdamW(actor.parameters(), lr=config.cold_start_lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.cold_start_lr, config.cold_start_steps, pct_start=0.1, cycle_momentum=False
    )
    losses = []
    for _ in tqdm(range(config.cold_start_steps), desc="cold start", disable=not progress):
        # The rows of one task share its skim, which is then encoded once.
        group = groups[int(torch.randint(len(groups), ()))]
        loss = -sampled_log_probs(actor, group).mean()
        update(config, actor, optimizer, loss)
        schedule.step()
        losses.append(loss.item())
    return losses


def sampled_log_probs(actor: QwenVLActor, batch: TensorDictBase) -> Tensor:
    """Log-probabilities of the tokens a policy wrote, all rows in one vector."""
    tokens = batch.get(("tokens", "full"), as_padded_tensor=True, padding_side="left", padding_value=-100)
    dist = actor.get_dist(batch)
    return dist.log_prob(tokens)[dist.mask]


def update(config: Config, actor: QwenVLActor, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One gradient step."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(actor.parameters(), config.max_grad_norm)
    optimizer.step()


# --- GRPO --------------------------------------------------------------------------------------


def grpo(config: Config, actor: QwenVLActor, env: ChatEnv, progress: bool) -> list[dict[str, float]]:
    """Collect, compare within groups, update, until the time is over; returns one row per iteration."""
    rollouts = config.groups * config.group_size
    collector = LLMCollector(
        # InitTracker only keeps the collector from warning that it may add one itself.
        TransformedEnv(env, Compose(RewardSum(), InitTracker())),
        policy=actor,
        dialog_turns_per_batch=rollouts,
        yield_only_last_steps=True,
    )
    buffer, advantage = group_buffer(config)
    loss_module = GRPOLoss(
        actor,
        clip_epsilon=config.clip_epsilon,
        entropy_bonus=False,
        masking_strategy="rlhf",
        aggregation="prompt_mean",
    )
    optimizer = torch.optim.AdamW(actor.parameters(), lr=config.lr, weight_decay=0.0)
    rows: list[dict[str, float]] = []
    started = time.monotonic()
    with tqdm(total=round(config.seconds), desc="grpo", unit="s", disable=not progress) as bar:
        for batch in collector:
            buffer.extend(batch)
            losses = [grpo_step(config, actor, loss_module, optimizer, minibatch) for minibatch in buffer]
            buffer.empty()
            advantage.clear_queues()  # a group must not mix versions of the policy
            seconds = time.monotonic() - started
            rows.append(
                {"iteration": len(rows), "seconds": seconds, **measured(env, batch), **mean(losses)}
            )
            bar.update(min(round(seconds), bar.total) - bar.n)
            bar.set_postfix(reward=f"{rows[-1]['reward']:.2f}")
            if seconds >= config.seconds or len(rows) >= config.max_iterations:
                break
    collector.shutdown()
    return rows


def group_buffer(config: Config) -> tuple[ReplayBuffer, MCAdvantage]:
    """A buffer that takes rollouts and gives minibatches with advantages, and what computes these.

    A group's rollouts enter when it is complete, with ``(R - mean) / std`` over the group.
    """
    advantage = MCAdvantage(
        config.group_size, rewards_key=("next", "episode_reward"), trajectory_return="sum"
    )
    buffer = ReplayBuffer(
        storage=LazyStackStorage(config.groups * config.group_size),
        sampler=SamplerWithoutReplacement(shuffle=False),
        transform=advantage,
        batch_size=config.minibatch,
    )
    return buffer, advantage


def grpo_step(
    config: Config,
    actor: QwenVLActor,
    loss_module: GRPOLoss,
    optimizer: torch.optim.Optimizer,
    minibatch: TensorDictBase,
) -> dict[str, float]:
    """One gradient step of GRPO; returns loss, clip fraction and effective sample size."""
    # One advantage per rollout, for all its tokens: GRPOLoss wants (B, 1, 1).
    minibatch["advantage"] = minibatch["advantage"].reshape(-1, 1, 1)
    losses = loss_module(minibatch)
    update(config, actor, optimizer, losses.loss_objective)
    return {
        "loss": losses.loss_objective.item(),
        "clip_fraction": losses.clip_fraction.item(),
        "ess": losses.ESS.item(),
    }


def measured(env: ChatEnv, batch: TensorDictBase) -> dict[str, float]:
    """Means over finished rollouts: reward, its terms, turns and sampled tokens."""
    terms = batch["next", "reward_terms"].nanmean(0).tolist()
    sampled = [row["masks", "all_assistant_mask"].int() for row in batch.unbind(0)]
    return {
        "reward": batch["next", "episode_reward"].mean().item(),
        **dict(zip(env.term_names, terms, strict=True)),
        "turns": float(np.mean([(mask.diff() == 1).sum() for mask in sampled])),
        "tokens": float(np.mean([mask.sum() for mask in sampled])),
    }


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Column means."""
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


# --- files and command line --------------------------------------------------------------------


def save(config: Config, actor: QwenVLActor, history: History) -> None:
    """Write both curves as CSV, and the model and its tokenizer as a checkpoint."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    losses = [{"step": step, "loss": loss} for step, loss in enumerate(history.cold_start_losses)]
    for name, rows in (("cold_start.csv", losses), ("grpo.csv", history.iterations)):
        if rows:
            with open(out / name, "w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    actor.model.save_pretrained(out / "checkpoint")
    actor.tokenizer.save_pretrained(out / "checkpoint")


def summary(history: History) -> str:
    """First against last quarter of the GRPO iterations, reward and its terms, in one line."""
    changes = ", ".join(
        "{} {:.2f} -> {:.2f}".format(name, *history.quarters(name))
        for name in ("reward", *history.term_names)
    )
    count, seconds = len(history.iterations), history.iterations[-1]["seconds"]
    return f"GRPO, {count} iterations in {seconds:.0f} s, first to last quarter: {changes}"


def main() -> None:
    """Command line: every field of `Config` is an option."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option in fields(Config):
        parser.add_argument(
            f"--{option.name.replace('_', '-')}", type=type(option.default), default=option.default
        )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    history = train(Config(**vars(parser.parse_args())))
    log.info(summary(history))


if __name__ == "__main__":
    main()
