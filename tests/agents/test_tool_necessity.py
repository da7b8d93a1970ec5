"""Prompts that rollouts answer without a look are left out, and others drawn in their place."""

# ruff: noqa: D103

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_chat import ANSWER, RECIPE, TASKS, crop, load, make_actor, make_env, play, record

from agents.train_grpo_mllm import Config, compared, generate
from agents.vlm.actor import ChatActor
from agents.vlm.batch import needing_looks
from agents.vlm.records import Record, TurnRecord

Kind = tuple[bool, bool]  # right, looked
kinds = st.tuples(st.booleans(), st.booleans())


def rollout(kind: Kind) -> Record:
    right, looked = kind
    return record(
        TurnRecord((), (), output=(1,), looked=looked), TurnRecord((), (), output=(1,)), success=right
    )


SEEN, UNSEEN, WRONG, WRONG_SEEN = (True, True), (True, False), (False, False), (False, True)


@pytest.mark.parametrize(
    ("group", "most", "kept"),
    [
        ((UNSEEN, SEEN, WRONG, WRONG_SEEN), 0.25, True),  # one of four is not more than a quarter
        ((UNSEEN, SEEN, WRONG, WRONG_SEEN), 0.2, False),
        ((UNSEEN, SEEN, WRONG, WRONG_SEEN), 0.0, False),
        ((SEEN, SEEN, WRONG, WRONG), 0.0, True),  # right after a look, or wrong without: it may be needed
        ((UNSEEN,) * 4, 0.99, False),
        ((UNSEEN,) * 4, 1.0, True),
    ],
)
def test_a_prompt_is_left_out_by_the_share_that_is_right_without_a_look(
    group: Sequence[Kind], most: float, kept: bool
) -> None:
    records = [rollout(kind) for kind in group]
    assert needing_looks(records, 4, most) == (records if kept else [])


@given(st.lists(st.lists(kinds, min_size=3, max_size=3), max_size=5), st.integers(0, 3))
def test_groups_are_kept_whole_and_in_order(groups: list[list[Kind]], most: int) -> None:
    """A bound of k of 3, as a float: those with at most k such rollouts are kept."""
    records = [rollout(kind) for group in groups for kind in group]
    expected = [rollout(kind) for group in groups for kind in group if group.count(UNSEEN) <= most]
    assert needing_looks(records, 3, most / 3) == expected


@pytest.mark.parametrize("most", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(most: float) -> None:
    with pytest.raises(
        ValueError, match=rf"max_success_without_looks must be (from 0 to 1|a finite number), got {most}"
    ):
        Config.of(recipe=RECIPE, tasks=TASKS, max_success_without_looks=most)


# --- in the loop -------------------------------------------------------------------------------


@pytest.fixture
def actor(checkpoints: dict[str, Path]) -> ChatActor:
    return make_actor(load(checkpoints["qwen2_5_vl"]))


def looks_in_odd_rows(turn: int, row: int) -> str:
    return crop(10, 12) if turn == 0 and row % 2 else ANSWER


class Scripted:
    """A collector of two groups of two, in each of which one rollout looks."""

    def __init__(self, actor: ChatActor, right: Sequence[Sequence[bool]]) -> None:
        self.env, self.actor, self.right = make_env(actor.model, groups=2, group_size=2), actor, list(right)

    def collect(self, iteration: int) -> list[Record]:
        """The next batch; in a group that is right both are, else the one that looked."""
        self.env.set_seed(iteration)
        records = play(self.env, self.actor, looks_in_odd_rows)
        whole = [both for both in self.right.pop(0) for _ in range(2)]
        return [
            judged(one, both or place % 2 == 1)
            for place, (one, both) in enumerate(zip(records, whole, strict=True))
        ]


def judged(one: Record, right: bool) -> Record:
    """The record paid 1 for a right answer, and for a look 0.5, so that every group has contrast."""
    looked = any(turn.looked for turn in one.turns)
    last = replace(one.turns[-1], reward=right + 0.5 * looked)
    return replace(one, turns=(*one.turns[:-1], last), success=right)


def test_the_loop_learns_from_the_others_and_draws_anew(actor: ChatActor) -> None:
    """Of the first batch the second group is right without a look, of the second the first."""
    settings: dict[str, Any] = {"recipe": RECIPE, "tasks": TASKS, "groups": 2, "group_size": 2}
    right = [[False, True], [True, False]]
    config = Config.of(**settings, max_success_without_looks=0.0, max_generation_batches=3)
    sampled, batch = generate(config, Scripted(actor, right), 5, actor)  # type: ignore[arg-type]
    assert len(sampled) == 8, "the third batch is not needed"
    assert batch.records == [*sampled[:2], *sampled[6:8]]
    usual = Config.of(**settings, max_generation_batches=3)
    sampled, batch = generate(usual, Scripted(actor, right), 5, actor)  # type: ignore[arg-type]
    assert batch.records == sampled[:4], "by default no prompt is left out"


def test_where_every_prompt_is_left_out_nothing_is_learned(actor: ChatActor) -> None:
    config = Config.of(
        recipe=RECIPE, tasks=TASKS, groups=2, group_size=2, max_success_without_looks=0.0, kl_coef=0.0
    )
    sampled, batch = generate(config, Scripted(actor, [[True, True]]), 5, actor)  # type: ignore[arg-type]
    assert len(sampled) == 4 and len(batch) == 0 and len(compared(config, sampled, actor)) == 0
