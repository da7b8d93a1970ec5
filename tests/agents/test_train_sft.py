"""Supervised fine-tuning: the loss falls, mistakes are not imitated, and a stopped run loses nothing."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rounding import GRADIENT, assert_close, assert_equal_gradients
from small_chat import RECIPE, TASKS, Noise, load, make_actor
from small_runs import collisions
from torch import nn
from torchrl.checkpoint import Checkpoint

from agents import train_sft
from agents.train_sft import (
    Config,
    learned,
    load_examples,
    nll,
    rate,
    train,
    weight_groups,
)
from agents.training.archive import read_metadata
from agents.training.run import CheckpointMismatch, RunDiverged
from agents.vlm.actor import ChatActor
from agents.vlm.lessons import Lessons, Stored, by_task
from agents.vlm.records import Record, RecordError, fingerprint, write_records
from agents.vlm.scoring import Scorer

SMALL: dict[str, Any] = {
    "recipe": RECIPE,
    "tasks": TASKS,
    "eval_tasks": f"{TASKS}&split=val",
    "eval_episodes": 2,
    "max_new_tokens": 6,
    "demonstrated_tasks": 3,
    "per_task": 2,
    "wrong_looks": 0.3,
    "refused_calls": 0.3,
    "iterations": 4,
    "groups": 2,
    "micro_batch_size": 2,
    "learning_rate": 1e-3,
    "eval_every": 4,
    "checkpoint_every": 2,
}


@pytest.fixture
def make(checkpoints: dict[str, Path]) -> Callable[[], ChatActor]:
    """Makes actors with the same weights."""
    return lambda: make_actor(load(checkpoints["qwen2_5_vl"]))


def examples_of(config: Config, actor: ChatActor, progress: bool) -> list[Record]:
    """The examples of tasks that are no mixture."""
    ((examples, share),) = load_examples(config, actor, progress)
    assert share == 1.0
    return examples


@pytest.fixture
def examples(make: Callable[[], ChatActor]) -> list[Record]:
    """Three tasks, two demonstrations each, with mistakes."""
    return examples_of(Config.of(**SMALL), make(), progress=False)


def state_of(
    out: Path, config: Config, make: Callable[[], ChatActor]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and optimizer of a run's checkpoint."""
    actor = make()
    optimizer = torch.optim.AdamW(weight_groups(config, actor.model), config.learning_rate)
    checkpoint = Checkpoint(format="archive", policy=actor.model, optimizer=optimizer, memory=nn.Module())
    checkpoint.load(out / "checkpoint")
    return actor.model.state_dict(), optimizer.state_dict()


def assert_same_bits(found: Any, expected: Any) -> None:
    """Equal to the bit, at any depth."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same_bits(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        for one, other in zip(found, expected, strict=True):
            assert_same_bits(one, other)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


# --- examples ----------------------------------------------------------------------------------


def test_demonstrations_are_whole_episodes_with_mistakes_to_read(
    examples: list[Record], make: Callable[[], ChatActor]
) -> None:
    """They end by the rules, were not sampled, and belong to the recipe and the tokenizer."""
    assert len(examples) == 6 and len({one.task_id for one in examples}) == 3
    for one in examples:
        assert one.kind == "demonstration" and one.ending == "answered" and one.success
        assert one.recipe == RECIPE.identity and one.tokenizer == fingerprint(make().model.tokenizer)
        assert all(turn.output and not any(turn.log_probs) for turn in one.turns)
    learned = [turn.trainable for one in examples for turn in one.turns]
    assert 0 < learned.count(False) < learned.count(True)
    assert examples_of(Config.of(**SMALL), make(), progress=False) == examples
    grouped = by_task(examples)
    assert [len(some) for some in grouped] == [2, 2, 2]
    silent = [replace(one, turns=tuple(replace(t, trainable=False) for t in one.turns)) for one in examples]
    cut = [replace(one, abort_reason="context") for one in examples]
    assert by_task([*silent, *examples[:2], *cut]) == [examples[:2]]
    for none in ([], silent, cut):
        with pytest.raises(
            ValueError, match=f"none of the {len(none)} records has an output to learn from"
        ):
            by_task(none)


def test_examples_whose_frames_cannot_be_shown_are_passed_over_and_counted(
    examples: list[Record], checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of three videos does not decode: a run learns from the others, to its end."""
    tasks = by_task(examples)
    (broken,) = {visual.video for turn in tasks[1][0].turns for visual in turn.visuals}
    lessons = Lessons([(Stored(tasks), 1.0)], 0, Noise(broken=[broken]))
    learned_from = [some[0].task_id for some in lessons.at(range(9))]
    assert set(learned_from) == {tasks[0][0].task_id, tasks[2][0].task_id} and len(learned_from) == 9
    assert lessons.counts == {"kept": 9, "frames not shown": 3}, "each pass asks once for each of three"
    again = Lessons([(Stored(tasks), 1.0)], 0, Noise(broken=[broken]))
    assert [some[0].task_id for some in again.at(range(4, 9))] == learned_from[4:], "a run that goes on"
    videos = {visual.video for one in examples for turn in one.turns for visual in turn.visuals}
    with pytest.raises(
        ValueError, match="none of 3 examples in a row can be had: kept 0, frames not shown 3"
    ):
        Lessons([(Stored(tasks), 1.0)], 0, Noise(broken=videos)).at(range(1))
    actor = make_actor(load(checkpoints["qwen2_5_vl"], Noise(broken=[broken])))
    train(Config.of(**{**SMALL, "eval_episodes": 1}), actor, tmp_path)
    assert read_metadata(tmp_path / "checkpoint")["iteration"] == 4
    assert "frames not shown" in capsys.readouterr().err


def test_every_pass_shows_every_task_once_in_an_order_of_its_own(examples: list[Record]) -> None:
    """Two tasks a step: three steps are two passes over three tasks, wherever one starts to look."""

    def order(seed: int) -> list[str]:
        lessons = Lessons([(Stored(by_task(examples)), 1.0)], seed, Noise())
        steps = [lessons.at(range(2 * step, 2 * step + 2)) for step in range(30)]
        again = Lessons([(Stored(by_task(examples)), 1.0)], seed, Noise())
        assert steps[17] == again.at(range(34, 36))  # whatever came before
        return [some[0].task_id for step in steps for some in step]

    seen, tasks = order(0), {one.task_id for one in examples}
    passes = [seen[first : first + 3] for first in range(0, 60, 3)]
    assert all(set(some) == tasks for some in passes)
    assert len({tuple(some) for some in passes}) > 3
    assert seen != order(1)


def test_the_rate_rises_and_falls_by_a_half_cosine() -> None:
    """Of 100 steps 10 rise; the highest comes then; in the middle of the fall it is a half."""
    config = Config.of(iterations=100, warmup=0.1)
    assert [rate(config, step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    last = math.sin(math.radians(1.0)) ** 2  # 89 / 90 of the fall: (1 + cos(178 degrees)) / 2
    assert [rate(config, step) for step in (10, 55, 99)] == pytest.approx([1.0, 0.5, last])
    assert rate(Config.of(iterations=100, warmup=0.0), 0) == 1.0


def test_the_vision_tower_has_a_rate_of_its_own(make: Callable[[], ChatActor]) -> None:
    """All weights are in one group of the two, and a frozen tower is in none."""
    model = make().model
    config = Config.of(learning_rate=0.5, vision_lr_mult=0.1)
    others, vision = weight_groups(config, model)
    assert (others["full_lr"], vision["full_lr"]) == (0.5, pytest.approx(0.05))
    tower = {id(weight) for weight in model.model.model.visual.parameters()}
    assert {id(weight) for weight in vision["params"]} == tower  # type: ignore[attr-defined]
    assert len(others["params"]) + len(tower) == len(list(model.parameters()))  # type: ignore[arg-type]
    model.model.model.visual.requires_grad_(False)
    assert len(weight_groups(config, model)) == 1


# --- the loss ----------------------------------------------------------------------------------


def test_mistakes_are_read_but_not_imitated(examples: list[Record], make: Callable[[], ChatActor]) -> None:
    """The loss is a mean over learned tokens alone; with none there is no gradient."""
    actor = make()
    some = [one for one in examples if not all(turn.trainable for turn in one.turns)][:2]
    assert some
    scored = Scorer(actor.model, 0.8, share=False)(some).log_probs
    taught = torch.tensor([turn.trainable for one in some for turn in one.turns for _ in turn.output])
    assert torch.equal(torch.cat([learned(one) for one in some]), taught)

    def mean_nll(records: list[Record], count: int) -> torch.Tensor:
        (micro,) = actor.scorer.micro_batches(records, len(records))
        return nll(micro, records) / count

    loss = mean_nll(some, int(taught.sum()))
    assert_close(loss, -scored[taught].mean())
    parameters = list(actor.model.parameters())
    expected = torch.autograd.grad(-scored[taught].mean(), parameters, allow_unused=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert_equal_gradients(*(
        {str(place): one for place, one in enumerate(gradients) if one is not None}
        for gradients in (found, expected)
    ))  # fmt: skip
    wrong = [replace(one, turns=tuple(replace(t, trainable=False) for t in one.turns)) for one in some]
    nothing = torch.autograd.grad(mean_nll(wrong, 1), parameters, allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in nothing)


def test_the_loss_falls(make: Callable[[], ChatActor], tmp_path: Path) -> None:
    """Sixteen steps on one task: the mean negative log-likelihood falls by more than a half."""
    config = Config.of(
        **{**SMALL, "iterations": 16, "learning_rate": 5e-3, "demonstrated_tasks": 1, "groups": 1}
    )
    config = config.with_options(eval_every=16, checkpoint_every=16)
    actor = make()
    run = train(config, actor, tmp_path)
    losses = [float(line.split(",")[1]) for line in (tmp_path / "log/scalars/loss.csv").read_text().split()]
    assert len(losses) == 16
    assert losses[-1] < 0.5 * losses[0]
    assert {"eval_accuracy", "eval_cut_rate", "eval_invalid_rate"} <= set(run.evaluate())
    assert (tmp_path / "log/scalars/eval_accuracy.csv").exists()
    assert not collisions(tmp_path, config.rules)


# --- runs --------------------------------------------------------------------------------------


class Killed(BaseException):
    """The end of a process, which nothing catches."""


def killed_in_the_third_step(
    config: Config, make: Callable[[], ChatActor], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four, after a checkpoint of two."""
    steps, real = [], train_sft.optimizer_step

    def step(*arguments: Any) -> dict[str, float]:
        steps.append(1)
        if len(steps) == 3:
            raise Killed
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train_sft, "optimizer_step", step)
        with pytest.raises(Killed):
            train(config, make(), out)


def test_a_run_that_was_killed_ends_with_the_same_bits(
    make: Callable[[], ChatActor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the third of four steps, after a checkpoint of two: weights and optimizer as in one go."""
    config = Config.of(**{**SMALL, "per_task": 1, "eval_episodes": 1, "max_new_tokens": 4})
    train(config, make(), tmp_path / "whole")
    killed_in_the_third_step(config, make, tmp_path / "parts", monkeypatch)
    run = train(config, make(), tmp_path / "parts")
    assert run.first_iteration == 2
    found, expected = (state_of(tmp_path / name, config, make) for name in ("parts", "whole"))
    assert_same_bits(found, expected)
    assert not torch.equal(
        found[0]["model.lm_head.weight"], make().model.state_dict()["model.lm_head.weight"]
    )
    assert train(config, make(), tmp_path / "parts").first_iteration == 4, "there is nothing left to do"
    other = make()  # of files that were written anew
    torch.nn.init.zeros_(next(other.model.parameters()))
    with pytest.raises(CheckpointMismatch, match=r"checkpoint .*whose weights have changed"):
        train(config, other, tmp_path / "parts")


def test_a_folder_of_another_run_is_refused(make: Callable[[], ChatActor], tmp_path: Path) -> None:
    """Another learning rate is another run."""
    config = Config.of(**{**SMALL, "iterations": 1})
    train(config, make(), tmp_path)
    with pytest.raises(CheckpointMismatch, match=r"it has learning_rate 0\.001, this run 0\.5; choose"):
        train(replace(config, learning_rate=0.5), make(), tmp_path)


def test_what_fits_into_memory_may_change_from_one_part_of_a_run_to_the_next(
    make: Callable[[], ChatActor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory in the third step: smaller pieces go on; losses are those of the whole, nearly."""
    config = Config.of(**{**SMALL, "eval_episodes": 1, "max_new_tokens": 4})
    train(config, make(), tmp_path / "whole")
    killed_in_the_third_step(config, make, tmp_path / "run", monkeypatch)
    smaller = config.with_options(micro_batch_size=1, max_concurrent_rollouts=1, share_prefixes=False)
    assert train(smaller, make(), tmp_path / "run").first_iteration == 2
    curves = [
        [float(row.split(",")[1]) for row in (folder / "log/scalars/loss.csv").read_text().split()]
        for folder in (tmp_path / "run", tmp_path / "whole")
    ]
    assert len(curves[0]) == 4 and curves[0] == pytest.approx(curves[1], rel=GRADIENT)


def test_demonstrations_that_never_look_are_told(
    make: Callable[[], ChatActor], caplog: pytest.LogCaptureFixture
) -> None:
    """A skim of every second shows the evidence: said so, and looked at all the same where asked."""
    config = Config.of(**{**SMALL, "recipe": "LONGVT/paper", "wrong_looks": 0.0, "refused_calls": 0.0})
    silent = examples_of(config, make(), progress=False)
    assert not any(turn.looked for one in silent for turn in one.turns)
    assert "none of 6 demonstrations looks: the skim shows all evidence" in caplog.text
    caplog.clear()
    looking = examples_of(config.with_options(look_again=True), make(), progress=False)
    assert all(any(turn.looked for turn in one.turns) and one.success for one in looking)
    assert not caplog.text


def test_examples_of_another_recipe_or_tokenizer_are_refused(
    make: Callable[[], ChatActor], examples: list[Record], tmp_path: Path
) -> None:
    """The message names both; examples that fit are read from a file as they were."""
    path = tmp_path / "examples.jsonl"
    plain = {name: value for name, value in SMALL.items() if name not in train_sft.DEMONSTRATING}
    config = Config.of(**plain, records=str(path))
    write_records(path, examples)
    assert examples_of(config, make(), progress=False) == examples
    write_records(path, [*examples[:1], replace(examples[1], recipe="OTHER@1")])
    with pytest.raises(RecordError, match=f"line 2: recipe OTHER@1, expected {RECIPE.identity}"):
        train(config, make(), tmp_path / "run")
    write_records(path, [replace(examples[1], tokenizer="123")])
    with pytest.raises(RecordError, match="line 1: tokenizer 123, expected "):
        examples_of(config, make(), progress=False)


def test_a_loss_that_is_not_finite_stops_the_run(make: Callable[[], ChatActor], tmp_path: Path) -> None:
    """Before a step is made with it."""
    actor = make()
    with torch.no_grad():
        actor.model.model.lm_head.weight[5] = torch.nan
    before = [parameter.clone() for parameter in actor.model.parameters()]
    with pytest.raises(RunDiverged, match="nan"):
        train(Config.of(**SMALL), actor, tmp_path)
    after = list(actor.model.parameters())
    assert all(torch.equal(b.nan_to_num(), a.nan_to_num()) for b, a in zip(before, after, strict=True))


def test_low_rank_adapters_train_alone(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """With adapters and a frozen tower nothing else moves, and frames are encoded once in the whole run."""
    from agents.vlm.policy import make_model

    config = Config.of(
        **{**SMALL, "checkpoint": str(checkpoints["qwen3_vl"]), "lora_rank": 2, "freeze_vision": True}
    )
    model = make_model(config, Noise())
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    train(config, make_actor(model), tmp_path)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all("lora_" in name and "visual" not in name for name in moved)


def test_a_finished_run_can_be_asked_again(make: Callable[[], ChatActor], tmp_path: Path) -> None:
    """Nothing is left to do, and the loaded weights can be evaluated at once."""
    config = Config.of(**SMALL)
    first = train(config, make(), tmp_path).evaluate()
    again = train(config, make(), tmp_path)
    assert again.first_iteration == 4 and again.evaluate() == first


def test_glances_are_more_demonstrations_of_a_task_that_teach_to_read_only(
    make: Callable[[], ChatActor],
) -> None:
    """One whole episode of each task, then its glances, whose first turn is not learned."""
    tasks = "procedural:brief_event?level=0&duration_s=256&fps=4&size=32x32&event_s=2&count=4"
    lesson: dict[str, Any] = {"script": "scenes", "demonstrated_tasks": 3, "wrong_looks": 0.0}
    config = Config.of(tasks=tasks, eval_tasks=tasks, per_task=1, glances=2, **lesson)
    examples = by_task(examples_of(config, make(), False))
    learned = [[[turn.trainable for turn in record.played] for record in some] for some in examples]
    assert learned == [[[True, True], [False, True], [False, True]]] * 3
    with pytest.raises(ValueError, match=r"glances=1 needs script='scenes', got 'evidence'"):
        Config.of(glances=1)


def test_demonstrations_of_mixed_quality_are_imitated_whole(make: Callable[[], ChatActor]) -> None:
    """Half of them begin with a look that shows nothing, and end with a guess: all of it is learned."""
    tasks = "procedural:brief_event?level=0&duration_s=256&fps=4&size=32x32&event_s=3&count=40"
    lesson: dict[str, Any] = {"script": "scenes", "demonstrated_tasks": 40, "wrong_looks": 0.0}
    config = Config.of(tasks=tasks, eval_tasks=tasks, per_task=1, hasty=0.5, gives_up=1.0, **lesson)
    examples = examples_of(config, make(), False)
    assert all(turn.trainable for record in examples for turn in record.played)
    assert 5 < sum(not record.success for record in examples) < 30
    for changes, told in (
        ({"hasty": 0.1}, r"hasty=0\.1 needs script='scenes', got 'evidence'"),
        ({"gives_up": 0.1}, "gives_up=0.1 needs"),
        ({"hasty": 0.96, "script": "scenes"}, "add up to at most 1"),
    ):
        with pytest.raises(ValueError, match=told):
            Config.of(**changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"first_frames": (4, 8)}, r"first_frames=\(4, 8\) is for loops that play"),
        (
            {"script": "scenes", "refused_calls": 0.0},
            "refused_calls=0.0 needs script='evidence', got 'scenes'",
        ),
        ({"script": "scenes", "look_again": True}, "look_again=True needs script='evidence', got 'scenes'"),
        (
            {"script": "traces", "tasks": "longvt-sft:x.json", "wrong_looks": 0.3},
            "wrong_looks=0.3 needs script='evidence' or script='scenes', got 'traces'",
        ),
        ({"script": "traces", "tasks": "longvt-sft:x.json", "per_task": 2}, "per_task=2 needs script="),
        ({"images_share": 0.5}, "images_share=0.5 needs images"),
        ({"image_max_pixels": 1000}, "image_max_pixels=1000 needs images"),
        *(
            (
                {"records": "x.jsonl", name: value},
                f"{name}={value} is for demonstrations, and there are rec",
            )
            for name, value in (
                *(("script", "scenes"), ("per_task", 1), ("demonstrated_tasks", 7), ("wrong_looks", 0.0)),
                *(("refused_calls", 0.0), ("look_again", True), ("glances", 1)),
            )
        ),
    ],
)
def test_an_option_that_nothing_would_obey_is_refused(changes: dict[str, Any], told: str) -> None:
    """By its name, and what it would need."""
    with pytest.raises(ValueError, match=told):
        Config.of(**changes)


def test_fine_tuning_refuses_a_curriculum() -> None:
    """Its steps draw by shares that stay."""
    parts = '[{"tasks": "a.jsonl", "weight": [[0, 1], [9, 2]]}, {"tasks": "b.jsonl"}]'
    for script in ("evidence", "scenes"):
        with pytest.raises(ValueError, match=r"tasks: .*a weight by iteration is for GRPO and PPO"):
            Config.of(tasks=f"mixture:{parts}", script=script)
    stays = f"mixture:{parts.replace('[[0, 1], [9, 2]]', '3')}"
    shares = [share for _, share in train_sft.weighted_sources(stays, "tasks")]
    assert shares == [0.75, 0.25]


def test_a_script_plays_at_least_one_task() -> None:
    """Conversations come to an end, so that there 0 means all."""
    with pytest.raises(ValueError, match="demonstrated_tasks must be at least 1, got 0"):
        Config.of(**{**SMALL, "demonstrated_tasks": 0})


def test_rows_of_images_are_not_chosen_by_metadata_that_they_lack(
    tmp_path: Path,
) -> None:
    """A part of a mixture that chooses would otherwise be taken whole, without a word."""
    source = tmp_path / "images.json"
    part = {"tasks": "longvt-images:rows.jsonl", "weight": 1, "where": {"kind": "chart"}}
    source.write_text(json.dumps([part]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"images: .*leave where=.*chart.* out of the part"):
        Config.of(**SMALL, images=f"mixture:{source}")
