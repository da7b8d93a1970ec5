"""The study of what reinforcement learning adds: stages, each made once from its parent, and measured."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from agents import train_grpo_mllm, train_sft
from agents.experiments import demo_mllm, lift
from agents.experiments.lift import BEYOND, HASTY, SEEING, WAYS, needed, run_recipes, run_seed, stages
from agents.experiments.lift_report import LESSONS, draw, table
from agents.experiments.stages import EVENT_S, SIZES, Stage, described
from videogym import VideoQAEnv

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "language_models"
GRPO = ("grpo", "grpo_no_time", "grpo_recall", "grpo_4", "grpo_16")
SIGNAL = ("grpo_no_std", "grpo_clip_higher", "grpo_dynamic")
PPO = ("ppo", "ppo_trajectory", "ppo_no_gate", "ppo_no_bonus", "ppo_turns_1", "ppo_turns_2")


@pytest.mark.parametrize(
    ("recipe", "ways"),
    [("LONGVT_TINY", (*GRPO, *SIGNAL, *BEYOND)), ("VIDEO_MTR_TINY", (*PPO, "grpo_turn"))],
)
def test_everything_starts_from_one_cold_start(recipe: str, ways: tuple[str, ...]) -> None:
    """The mixture after the good demonstrations; the control on the same mixture; the rest from there."""
    parents = {name: stage.parent for name, stage in stages(recipe, 3).items()}
    last = "second_practice" if recipe == "VIDEO_MTR_TINY" else "practice"
    assert parents.pop("lesson") == "base" and parents.pop("sft") == last
    assert parents.pop("practice") == "lesson" and parents.pop("second_lesson", "practice") == "practice"
    assert parents.pop("second_practice", "second_lesson") == "second_lesson"
    assert parents.pop("longer") == "sft" and parents.pop("rft", "grpo") == "grpo"
    assert set(parents.values()) == {"sft"} and set(parents) == set(ways)
    for name, stage in stages(recipe, 3).items():
        spoken = "LONGVT_TINY" if name in ("lesson", "practice") else recipe
        assert "split=train" in stage.config.tasks and stage.config.rules.name.startswith(spoken), name
    for name, share in (("lesson", 0.0), ("practice", 0.0), ("sft", HASTY), ("longer", HASTY)):
        config = stages(recipe, 3)[name].config
        assert isinstance(config, train_sft.Config)
        assert (config.demonstrations.hasty, config.demonstrations.gives_up) == (share, float(share > 0))


def test_ablations_change_what_they_are_called_by() -> None:
    """Rewards by their terms; groups of 4 and 16 with as many rollouts an iteration and a step."""
    longvt = {name: stage.config for name, stage in stages("LONGVT_TINY", 0).items()}
    terms = {name: [term.name for term in longvt[name].rules.terms] for name in GRPO}
    assert terms["grpo_no_time"] == ["answer", "format"]
    assert terms["grpo"] == terms["grpo_recall"] == terms["grpo_4"] == ["answer", "format", "time"]
    assert longvt["grpo"].rules.identity != longvt["grpo_recall"].rules.identity
    for name in (*GRPO, *SIGNAL):
        config = longvt[name]
        assert isinstance(config, train_grpo_mllm.Config)
        assert config.groups * config.group_size == 64
        assert config.mini_batch_groups * config.group_size == 32
    video_mtr = {name: stage.config for name, stage in stages("VIDEO_MTR_TINY", 0).items()}
    levels = {name: {term.level for term in video_mtr[name].rules.terms} for name in PPO}
    assert levels["ppo"] == {"turn", "trajectory"} and levels["ppo_trajectory"] == {"trajectory"}
    assert [video_mtr[name].rules.rules.max_turns for name in ("ppo_turns_1", "ppo_turns_2", "ppo")] == [
        1,
        2,
        3,
    ]
    turn, ppo = video_mtr["grpo_turn"], video_mtr["ppo"]
    assert turn.groups * turn.group_size == ppo.groups * ppo.group_size and turn.credit == "turn"  # type: ignore[attr-defined]
    assert turn.iterations == ppo.iterations
    assert turn.sampling.window == ppo.sampling.window == 2
    assert video_mtr["ppo_no_gate"].gate == "none" and video_mtr["ppo_no_bonus"].bonus == "none"  # type: ignore[attr-defined]


def made_by(every: dict[str, Stage], base: str) -> dict[str, str]:
    """What each stage and all before it are known by."""
    told = {"base": base}
    for name, stage in every.items():
        told[name] = f"{told[stage.parent]} {described(stage.config)}"
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in told.items()}


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*_TINY-?-*.json")), ids=lambda path: path.stem)
def test_stored_results_are_those_of_the_stages_as_they_are(path: Path) -> None:
    """Of lesson, cold start and all that starts from it: a stage by another name is trained again."""
    stored = json.loads(path.read_text(encoding="utf-8")).get("made_by")
    experiment, recipe, seed, name = re.fullmatch(r"(lift-)?(\w+)-(\d)-(\w+)", path.stem).groups()  # type: ignore[union-attr]
    if experiment:
        known = made_by(stages(recipe, int(seed)), f"{lift.WIDE} {lift.TESTED}")
        assert stored in (None, known[name])  # parts of cells are stored without
        return
    every = demo_mllm.stages(recipe, int(seed))
    lesson = every["sft"].config
    base = f"{SIZES} {demo_mllm.TESTED} {lesson.rules.identity} {lesson.evaluation.eval_tasks}"
    assert stored == made_by(every, base)[name]


@pytest.mark.parametrize("recipe", EVENT_S)
def test_a_stage_is_known_by_the_same_words_in_every_process(recipe: str) -> None:
    """Where functions stand in a recipe, its text holds their addresses."""
    for name, stage in stages(recipe, 0).items():
        assert " at 0x" not in described(stage.config), name


def test_a_stage_brings_those_that_it_starts_from() -> None:
    """In their order; what does not exist is refused by its name."""
    every = stages("LONGVT_TINY", 0)
    assert list(needed(every, ["rft"])) == ["lesson", "practice", "sft", "grpo", "rft"]
    assert list(needed(every, ["longer", "grpo"])) == ["lesson", "practice", "sft", "longer", "grpo"]
    assert list(needed(every, [])) == list(every)
    compared = ["lesson", "practice", "sft", "longer", "grpo_two_hops"]
    assert list(needed(every, ["grpo_two_hops"])) == compared
    with pytest.raises(ValueError, match="unknown stage 'gpro'; known: lesson, practice, sft"):
        needed(every, ["gpro"])


def short(recipe: str, seed: int) -> dict[str, Stage]:
    """Stages of one iteration each."""
    whole, few = stages(recipe, seed), {"eval_episodes": 2, "max_new_tokens": 12, "iterations": 1}
    lesson = {"demonstrated_tasks": 2, "groups": 1, **few}
    rollouts = {"groups": 1, "group_size": 2, **few}
    changed = dict.fromkeys((*LESSONS, "sft", "longer"), lesson)
    changed |= dict.fromkeys(("grpo", "grpo_two_hops"), rollouts)
    return {
        name: replace(whole[name], config=whole[name].config.with_options(**options))
        for name, options in changed.items()
        if name in whole
    }


def test_cells_are_made_once_and_hold_figures_and_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call makes nothing, with the same results; a cell of another config is refused."""
    monkeypatch.setattr(lift, "stages", short)
    monkeypatch.setattr(lift, "TESTED", 2)
    monkeypatch.setattr(lift, "WAYS", dict.fromkeys(WAYS, 2))
    monkeypatch.setattr(lift, "SIZES", {"vocab_size": 700})
    first = run_seed("LONGVT_TINY", 0, tmp_path)
    folder = tmp_path / "LONGVT_TINY" / "seed-0"
    assert list(first) == ["lesson", "practice", "sft", "longer", "grpo", "grpo_two_hops"]
    for name, row in first.items():
        for way in SEEING if name in LESSONS else WAYS:
            assert len(row[way]["right"]) == 2 and 0 <= row[way]["guessed"] <= 1
        assert row["cpu_seconds"] > 0
    assert len(first["grpo"]["curves"]["looked_never"]) == 1 and "curves" not in first["sft"]
    compared = first["grpo_two_hops"]["compared"]
    assert list(compared) == ["practice", "sft", "longer"]
    assert all(len(row[way]["right"]) == 2 for row in compared.values() for way in SEEING)
    assert "compared" not in first["grpo"]
    monkeypatch.setattr(lift, "run_stage", again)
    assert run_seed("LONGVT_TINY", 0, tmp_path) == first
    text = table([first])
    lines = text.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:8]] == [f"| {name}" for name in first]
    assert lines[9].startswith("On the tasks of grpo_two_hops: practice ") and len(lines) == 10
    stored = json.loads((folder / "grpo.json").read_text())
    (folder / "grpo.json").write_text(json.dumps({**stored, "made_by": "another"}))
    with pytest.raises(ValueError, match="choose another folder"):
        run_seed("LONGVT_TINY", 0, tmp_path, ["grpo"])


def again(name: str, stage: Stage, folder: Path, places: dict[str, Path]) -> dict[str, object]:
    """Nothing is done twice."""
    raise AssertionError(f"{name} was made again")


def answers(right: list[bool]) -> dict[str, object]:
    """A cell in which all ways of answering were as right."""
    way = {
        "right": right,
        "accuracy": sum(right) / len(right),
        "first_look_met": 0.5,
        "right_if_met": 1.0,
        "guessed": 0.5,
        "looks": 1.0,
        "tokens": 10.0,
    }
    return {**dict.fromkeys(WAYS, way), "cpu_seconds": 60.0}


def test_a_table_compares_with_the_cold_start_of_the_same_seed() -> None:
    """One seed wins 4 of 10 questions, the other none; a table has both, and no gain of the start."""
    start, better = answers([False] * 10), answers([True] * 4 + [False] * 6)
    lines = table([{"sft": start, "grpo": better}, {"sft": start, "grpo": start}]).splitlines()
    assert "+0.400 [" in lines[3] and "+0.000 [" in lines[3] and "0.400, 0.000" in lines[3]
    assert "[" not in lines[2].split(" | ")[4]


def test_a_stage_on_other_tasks_is_compared_on_these() -> None:
    """The cold start is right in none of its own, and in 2 of 10 of those where the stage is in 4."""
    start, better = answers([False] * 10), answers([True] * 4 + [False] * 6)
    there = answers([True] * 2 + [False] * 8)
    row = {**better, "compared": {"practice": better, "sft": there}}
    lines = table([{"sft": start, "grpo_two_hops": row}]).splitlines()
    assert "+0.200 [" in lines[3]
    assert lines[5] == (
        "On the tasks of grpo_two_hops: practice 0.4 sampled, 0.4 greedy; sft 0.2 sampled, 0.2 greedy."
    )


def test_both_recipes_start_from_one_lesson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made once; the second lesson starts from its weights, in the second recipe's words."""
    made: list[tuple[str, str, str]] = []

    def note(name: str, stage: Stage, folder: Path, places: dict[str, Path]) -> dict[str, object]:
        start = places[stage.parent]
        made.append((name, str(folder.relative_to(tmp_path)), str(start.relative_to(tmp_path))))
        return {"curves": {}}

    monkeypatch.setattr(lift, "stages", short)
    monkeypatch.setattr(lift, "run_stage", note)
    monkeypatch.setattr(lift, "make_base", lambda folder, seed: None)
    found = run_recipes(["LONGVT_TINY", "VIDEO_MTR_TINY"], 3, tmp_path, [])
    longvt, video_mtr = "LONGVT_TINY/seed-3", "VIDEO_MTR_TINY/seed-3"
    assert made == [
        ("lesson", "shared/seed-3", "shared/seed-3/base"),
        ("practice", "shared/seed-3", "shared/seed-3/lesson"),
        ("sft", longvt, "shared/seed-3/practice"),
        ("longer", longvt, f"{longvt}/sft"),
        ("grpo", longvt, f"{longvt}/sft"),
        ("grpo_two_hops", longvt, f"{longvt}/sft"),
        ("second_lesson", video_mtr, "shared/seed-3/practice"),
        ("second_practice", video_mtr, f"{video_mtr}/second_lesson"),
        ("sft", video_mtr, f"{video_mtr}/second_practice"),
        ("longer", video_mtr, f"{video_mtr}/sft"),
    ]
    assert list(found["VIDEO_MTR_TINY"]) == [*LESSONS, "sft", "longer"]


def test_prompts_of_both_recipes_are_few_tokens(tmp_path: Path) -> None:
    """A tokenizer made for the first recipe alone writes the second's first prompt in 639."""
    lift.make_base(tmp_path / "base", 0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    for recipe, most in (("LONGVT_TINY", 80), ("VIDEO_MTR_TINY", 200)):
        prompt = stages(recipe, 0)["sft"].config
        env = VideoQAEnv(prompt.tasks, prompt.rules)
        env.reset(seed=0)
        texts = [message.text for message in env.recipe.language.messages(env.state)]
        assert sum(len(tokenizer(text).input_ids) for text in texts) < most


def test_curves_are_drawn_where_there_are_some(tmp_path: Path) -> None:
    """Iterations in which no episode counts are gaps; stages without rollouts have no row."""
    shares = ("accuracy", "searched", "first_look_met", "right_if_met")
    names = (*shares, "guessed", "looked_never", "looked_everywhere")
    curves = {name: [0.1, None, 0.3] for name in names}
    draw([{"sft": {}, "grpo": {"curves": curves}}, {"sft": {}}], tmp_path / "curves.svg")
    text = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    assert text.count('id="axes_') == 2


@pytest.mark.parametrize("recipe", EVENT_S)
def test_training_learns_from_tasks_that_are_not_tested(recipe: str) -> None:
    """Nor are those of the evaluations during a run, on which settings were chosen."""
    for stage in stages(recipe, 0).values():
        config = stage.config
        assert "split=val" in config.evaluation.eval_tasks and "split=test" not in config.tasks
        if isinstance(config, train_sft.Config) and config.demonstrations.script == "scenes":
            assert config.demonstrations.demonstrated_tasks <= 5000
