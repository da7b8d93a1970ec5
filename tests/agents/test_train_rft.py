"""Rejection sampling: what is kept and why the rest is not, and training on it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_chat import ANSWER, RECIPE, TASKS, crop, load, make_actor, make_env, play, record

from agents.train_rft import Config, select, train
from agents.vlm.records import Record, RecordError, TurnRecord, read_records, write_records

SMALL: dict[str, Any] = {
    "recipe": RECIPE,
    "tasks": TASKS,
    "eval_tasks": f"{TASKS}&split=val",
    "eval_episodes": 1,
    "max_new_tokens": 6,
    "iterations": 1,
    "groups": 1,
}
SEED = 1  # of four different tasks
RULES: dict[str, Any] = {"overlap_term": "time", "min_overlap": 0.3, "per_question": 2}


def rollout(task_id: str, said: int, *, time: float | None = 0.5, **changes: Any) -> Record:
    """A rollout of two turns that answered right, if not told otherwise; its look is paid in the first."""
    turns = (
        TurnRecord((1,), (), (said,), terms={"answer": None, "time": time}),
        TurnRecord((2,), (), (said, said), terms={"answer": 1.0, "time": None}),
    )
    usual: dict[str, Any] = {"task_id": task_id, "ending": "answered", "success": True, **changes}
    return record(*turns, **usual)


def test_every_rollout_is_kept_or_counted_by_the_reason_why_not() -> None:
    """By hand: an overlap of 0.3 is enough, two of a question are kept, the same words count once."""
    rollouts = [
        rollout("a", 1),
        rollout("b", 1, time=0.3),
        rollout("a", 1, sample_index=7),  # repeated
        rollout("a", 2, time=0.29),  # no overlap
        rollout("a", 3, time=None),  # no overlap
        rollout("a", 4, success=False),  # wrong
        rollout("a", 5, success=None, ending="", abort_reason="context"),  # cut
        rollout("a", 6, abort_reason="fault: gone", time=1.0),  # cut, whatever else it is
        rollout("a", 7),
        rollout("a", 8),  # over the cap
        rollout("b", 4, success=False, time=0.0),  # wrong
        rollout("a", 9),  # over the cap
        rollout("a", 7),  # repeated
        replace(rollout("a", 10), kind="demonstration"),
    ]
    selection = select(rollouts, **RULES)
    assert selection.counts == {
        "kept": 3,
        "demonstration": 1,
        "cut": 2,
        "wrong": 2,
        "no overlap": 2,
        "over the cap": 2,
        "repeated": 2,
    }
    assert sum(selection.counts.values()) == len(rollouts)
    assert selection.kept == (rollouts[0], rollouts[8], rollouts[1]), "those of one question stand together"
    assert str(selection) == (
        "14 rollouts of which kept 3, demonstration 1, cut 2, wrong 2, no overlap 2, over the cap 2, "
        "repeated 2; 2 questions"
    )
    free = select(rollouts, **{**RULES, "per_question": 0})
    assert (free.counts["kept"], free.counts["over the cap"]) == (5, 0)


def test_nothing_kept_is_an_error_that_counts_why() -> None:
    """And so is a term that the recipe does not have."""
    with pytest.raises(
        ValueError, match=r"no rollout was good enough: 2 rollouts of which kept 0, .*wrong 1"
    ):
        select([rollout("a", 1, success=False), rollout("a", 1, time=0.1)], **RULES)
    with pytest.raises(ValueError, match="no rollout was good enough: 0 rollouts"):
        select([], **RULES)
    with pytest.raises(
        ValueError, match=r"six@0 has no reward term 'iou' to select by; it has answer, time"
    ):
        select([rollout("a", 1)], **{**RULES, "overlap_term": "iou"})


def test_a_policy_is_trained_on_the_selection(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scripted rollouts of which some answer right: these are written down, told of, and learned from."""
    actor = make_actor(load(checkpoints["qwen2_5_vl"]))
    env = make_env(actor.model, groups=4, group_size=4, seed=SEED)
    assert len({row["record"].task_id for row in env.reset().unbind(0)}) == 4
    env.set_seed(SEED)
    options = {row: ANSWER.replace("B", "ABCD"[row % 4]) for row in range(16)}
    records = play(env, actor, lambda turn, row: options[row] if turn else crop(1, 59 - row % 4))
    right = [one for one in records if one.success]
    assert len(right) == 4, "one of four options is right in each group"
    write_records(tmp_path / "records" / "000000.jsonl", records)
    config = Config.of(**SMALL, rollouts=str(tmp_path / "records"), min_overlap=0.0, per_question=1)
    train(config, actor, tmp_path / "run")
    kept = list(read_records(tmp_path / "run" / "selected.jsonl"))
    assert kept == right
    told = "kept 4, demonstration 0, cut 0, wrong 12, no overlap 0, over the cap 0, repeated 0; 4 questions"
    assert f"16 rollouts of which {told}\n" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"records": "x.jsonl"},
            "records=x.jsonl would not be learned from, but what is selected of rollouts",
        ),
        ({"per_task": 1}, "per_task=1 is for demonstrations, and there are rollouts"),
        ({"script": "scenes"}, "script=scenes is for demonstrations, and there are rollouts"),
        ({"first_frames": (4,)}, "is for loops that play"),
    ],
)
def test_an_option_that_nothing_would_obey_is_refused(changes: dict[str, Any], told: str) -> None:
    """What a run wrote down of itself is read again."""
    with pytest.raises(ValueError, match=told):
        Config.of(**changes)
    Config.of(records="runs/rft/selected.jsonl")


def test_rollouts_that_cannot_be_selected_from_are_refused(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """None named, of another recipe, or none that was good."""
    actor = make_actor(load(checkpoints["qwen2_5_vl"]))
    with pytest.raises(ValueError, match="rollouts must name the file or folder"):
        train(Config.of(**SMALL), actor, tmp_path / "run")
    path = tmp_path / "rollouts.jsonl"
    config = Config.of(**SMALL, rollouts=str(path))
    write_records(path, [rollout("a", 1)])
    with pytest.raises(RecordError, match=f"recipe six@0, expected {RECIPE.identity}"):
        train(config, actor, tmp_path / "run")
    (one, *_) = play(make_env(actor.model, groups=1), actor)
    write_records(path, [replace(one, success=False)])
    with pytest.raises(ValueError, match="no rollout was good enough"):
        train(config, actor, tmp_path / "run")
