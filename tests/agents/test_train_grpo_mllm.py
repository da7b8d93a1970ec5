"""The cold start and GRPO on a tiny Qwen2.5-VL: what is learned from, and that reward rises."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensordict import NonTensorData, TensorDict, lazy_stack
from torchrl.objectives.llm import GRPOLoss

from agents.chat import ChatEnv
from agents.policies.qwen_vl import QwenVLActor
from agents.train_grpo_mllm import (
    Clumsy,
    Config,
    History,
    cold_start,
    demonstrations,
    group_buffer,
    grpo_step,
    make_actor,
    make_recipe,
    sampled_log_probs,
    summary,
    train,
)
from videogym import FrameStore, VideoQAEnv
from videogym.grammars import get_grammar
from videogym.state import Answer, Crop

TASKS = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=100&split=train"
SMALL = Config(
    tasks=TASKS,
    cold_start_steps=3,
    cold_start_tasks=2,
    groups=2,
    group_size=2,
    minibatch=4,
    max_iterations=4,
    seconds=3600.0,
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """More threads only wait for each other here, and sampling starts from one seed."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


def test_the_script_is_clumsy_but_mostly_understood() -> None:
    """Of its outputs most parse, some do not, and its answers are right one time in four."""
    env, grammar = VideoQAEnv(TASKS, "LONGVT_TINY"), get_grammar("longvt/strict")
    speak, moves, right = Clumsy(seed=0), [], 0
    for seed in range(200):
        env.reset(seed=seed)
        moves.append(grammar.parse(speak(env.state), env.state))
        answer = grammar.parse(speak.answer(env.state), env.state).actions[0]
        right += isinstance(answer, Answer) and answer.text.strip() == env.state.task.answer
    crops = sum(isinstance(move.actions[0], Crop) for move in moves)
    assert 100 < crops < 200
    assert 25 <= right <= 75


def test_demonstrations_are_complete_episodes() -> None:
    """They end by the rules, hold outputs, and are read by the loss as rollouts are."""
    env = VideoQAEnv(TASKS, "LONGVT_TINY")
    actor = make_actor(SMALL, env)
    chat = ChatEnv(env, actor.tokenizer, groups=2, group_size=2)
    td = demonstrations(chat, Clumsy(seed=0))
    assert td["next", "done"].all()
    assert all(snapshot.state.terminated for snapshot in chat.snapshots)
    outputs = sum(int(row["masks", "all_assistant_mask"].sum()) for row in td.unbind(0))
    assert len(sampled_log_probs(actor, td)) == outputs > 0


def test_rollouts_in_the_environment_score_as_they_were_sampled() -> None:
    """Whole episodes of an untrained model, errors and crops and all: both passes agree to 1e-5."""
    env = VideoQAEnv(TASKS, make_recipe(SMALL))
    actor = make_actor(SMALL, env)
    cold_start(
        replace(SMALL, cold_start_steps=40),
        actor,
        ChatEnv(env, actor.tokenizer, groups=1, group_size=8),
        False,
    )
    chat = ChatEnv(env, actor.tokenizer, groups=2, group_size=3)
    last = chat.rollout(9, actor, break_when_any_done=True, return_contiguous=False)[:, -1]
    assert last["next", "done"].all()
    turns = {len(snapshot.state.turns) for snapshot in chat.snapshots}
    assert max(turns) > 1
    with torch.no_grad():
        scored = sampled_log_probs(actor, last)
    stored = torch.cat(
        [row["log_probs", "full"][row["masks", "all_assistant_mask"]] for row in last.unbind(0)]
    )
    torch.testing.assert_close(scored, stored, atol=1e-5, rtol=0.0)


def test_advantages_compare_rollouts_within_their_group() -> None:
    """Returns (0, 1, 2) give -1, 0, 1 whatever the other group has; equal returns give zeros."""
    config = Config(groups=2, group_size=3, minibatch=3)
    buffer, advantage = group_buffer(config)
    returns = {"0.0": [0.0, 1.0, 2.0], "0.1": [5.0, 5.0, 5.0]}
    rows = [
        TensorDict({"query": NonTensorData(query), "next": {"episode_reward": [r], "done": [True]}})
        for query, group in returns.items()
        for r in group
    ]
    buffer.extend(lazy_stack(rows))
    groups = [minibatch["advantage"].flatten().tolist() for minibatch in buffer]
    assert groups == [[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert advantage.queued_trajectories == 0


def test_a_step_makes_the_better_rollout_likelier() -> None:
    """Of two rollouts of one task, the one with the higher return gains probability, the other loses it."""
    env = VideoQAEnv(TASKS, make_recipe(SMALL))
    actor = make_actor(SMALL, env)
    chat = ChatEnv(env, actor.tokenizer, groups=1, group_size=2)
    batch = chat.rollout(9, actor, break_when_any_done=True, return_contiguous=False)[:, -1]
    batch["advantage"] = torch.tensor([[1.0], [-1.0]])
    before = [sampled_log_probs(actor, batch[i : i + 1]).mean().item() for i in range(2)]
    loss = GRPOLoss(actor, entropy_bonus=False, masking_strategy="rlhf", aggregation="prompt_mean")
    grpo_step(SMALL, actor, loss, torch.optim.SGD(actor.parameters(), lr=0.1), batch)
    after = [sampled_log_probs(actor, batch[i : i + 1]).mean().item() for i in range(2)]
    assert after[0] > before[0] and after[1] < before[1]


def test_a_run_leaves_curves_and_a_checkpoint_that_loads(tmp_path: Path) -> None:
    """The files hold what the history holds."""
    history = train(replace(SMALL, out=str(tmp_path)), progress=False)
    assert len(history.cold_start_losses) == 3 and len(history.iterations) == 4
    with (tmp_path / "grpo.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["reward"]) for row in rows] == [row["reward"] for row in history.iterations]
    assert {"answer", "format", "time", "turns", "tokens"} <= set(rows[0])
    actor = QwenVLActor.from_pretrained(str(tmp_path / "checkpoint"), FrameStore())
    assert sum(parameter.numel() for parameter in actor.parameters()) > 1000


def test_quarters_are_means_of_the_first_and_the_last_quarter() -> None:
    """Of eight rows the first two and the last two; fewer than four rows have none."""
    history = History((), iterations=[{"reward": float(i), "seconds": 1.0} for i in range(8)])
    assert history.quarters("reward") == (0.5, 6.5)
    assert "reward 0.50 -> 6.50" in summary(history)
    with pytest.raises(ValueError, match="4 iterations"):
        History((), iterations=history.iterations[:3]).quarters("reward")


def test_reward_rises() -> None:
    """After the cold start, a dozen iterations of GRPO raise the mean reward by a tenth at least."""
    history = train(Config(tasks=TASKS, seconds=3600.0, max_iterations=12), progress=False)
    first, last = history.quarters("reward")
    assert last > first + 0.1, [round(row["reward"], 2) for row in history.iterations]
