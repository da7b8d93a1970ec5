"""How many frames are shown first may be drawn for each prompt: by the seed, the same for its rollouts."""

# ruff: noqa: D103

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from small_chat import ANSWER, RECIPE, TASKS, crop, load, make_actor
from transformers import PreTrainedTokenizerBase as Tokenizer

from agents.train_grpo_mllm import Config, train
from agents.vlm.env import ChatEnv
from agents.vlm.records import from_json, to_json
from videogym import VideoQAEnv
from videogym.traces.replay import replayed

NUMBERS = (2, 4, 6)


def chat_env(
    tokenizer: Tokenizer,
    seed: int = 0,
    groups: int = 2,
    group_size: int = 3,
    numbers: tuple[int, ...] = NUMBERS,
) -> ChatEnv:
    env = VideoQAEnv(TASKS, RECIPE)
    return ChatEnv(env, tokenizer, groups=groups, group_size=group_size, first_frames=numbers, seed=seed)


@pytest.fixture(scope="module")
def tokenizer(checkpoints: dict[str, Path]) -> Tokenizer:
    return load(checkpoints["qwen2_5_vl"]).tokenizer


def test_a_group_shares_what_was_drawn_by_the_seed(tokenizer: Tokenizer) -> None:
    env, counts = chat_env(tokenizer), Counter[int]()
    shown = []
    for _ in range(60):
        records = [row["record"] for row in env.reset().unbind(0)]
        shown += [len(record.first_times_s) for record in records]
        for first in (0, 3):
            assert len({len(record.first_times_s) for record in records[first : first + 3]}) == 1
            counts[len(records[first].first_times_s)] += 1
        assert [len(snapshot.state.skim.times_s) for snapshot in env.snapshots] == shown[-6:]
    # 120 draws of three: 40 of each, and four standard deviations are 21.
    assert set(counts) == set(NUMBERS) and all(19 <= count <= 61 for count in counts.values())
    again = chat_env(tokenizer)
    assert [len(r["record"].first_times_s) for _ in range(60) for r in again.reset().unbind(0)] == shown
    other = chat_env(tokenizer, seed=1)
    assert [len(r["record"].first_times_s) for _ in range(60) for r in other.reset().unbind(0)] != shown


def test_without_numbers_tasks_are_drawn_as_before_and_named_tasks_show_the_recipes(
    tokenizer: Tokenizer,
) -> None:
    plain = chat_env(tokenizer, numbers=())
    drawn = [row["record"] for row in plain.reset().unbind(0)]
    assert {len(record.first_times_s) for record in drawn} == {6}
    task = drawn[0].task_id
    assert len(chat_env(tokenizer, numbers=(2,)).open_task(task).first_times_s) == 6


@pytest.mark.parametrize("numbers", [(7,), (-1,), (2, 99), (True,), (2.5,)])
def test_more_frames_than_the_recipe_shows_are_refused(
    tokenizer: Tokenizer, numbers: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="skim_frames must be an even number from 0 to 6"):
        chat_env(tokenizer, numbers=numbers)
    with pytest.raises(ValueError, match="skim_frames must be an even number from 0 to 6"):
        Config.of(recipe=RECIPE, first_frames=numbers)


def test_an_episode_with_fewer_first_frames_is_told_as_it_was(tokenizer: Tokenizer) -> None:
    env = chat_env(tokenizer, groups=1, group_size=1, numbers=(2,))
    (row,) = env.reset().unbind(0)
    record = row["record"]
    for text in (crop(5, 9), ANSWER):
        ids = [*env.chat.output_ids(text), env.chat.end_id]
        env.env.set_state(env.snapshots[0])
        record = env.advance(record.answered(ids, [0.0] * len(ids), [0] * len(ids)))
        env.snapshots[0] = env.env.get_state()
    assert record.ending == "answered"
    trace = replayed(from_json(to_json(record)), VideoQAEnv(TASKS, RECIPE), "run")
    assert len(trace.skim.times_s) == 2 and trace.skim == env.snapshots[0].state.skim


def test_grpo_trains_with_it(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    config = Config.of(
        recipe=RECIPE, tasks=TASKS, eval_tasks=f"{TASKS}&split=val", first_frames=(2, 6), iterations=2,
        groups=4, group_size=2, mini_batch_groups=4, max_new_tokens=6, eval_every=2, eval_episodes=2,
        kl_coef=0.0,
    )  # fmt: skip
    train(config, make_actor(load(checkpoints["qwen2_5_vl"])), tmp_path / "run")
    shown: dict[str, set[int]] = {}
    for file in sorted((tmp_path / "run" / "records").glob("*.jsonl")):
        for line in file.read_text().splitlines():
            record = from_json(line)
            shown.setdefault(record.group, set()).add(len(record.first_times_s))
    assert len(shown) == 8 and all(len(numbers) == 1 for numbers in shown.values())
    assert set().union(*shown.values()) == {2, 6}
