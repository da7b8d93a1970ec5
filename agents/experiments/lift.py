"""What reinforcement learning adds to a cold start that leaves room for it, and what its parts are for.

The tasks and the model are those of `agents.experiments.demo_mllm`. There the demonstrations are perfect, a
model that imitates them is right nearly always, and nothing is left to reinforcement learning. Here it is
first taught to see, to search and to speak (``lesson``, under LONGVT_TINY, and ``practice``, more of the
same, without which some seeds have not learnt to read what a look shows; ``second_lesson`` and
``second_practice`` go on from there under VIDEO_MTR_TINY), and then imitates demonstrations of mixed
quality (``sft``): `HASTY` of them look before they have searched and answer by what they saw. What is
missing after that was made to be missing, by demonstrations that are no better than those of people and of
large models are. From ``sft`` start:

- ``longer``: as much supervised fine-tuning again, on the same mixture: the control;
- under LONGVT_TINY ``grpo``; ``grpo_no_time``, without the reward for the place of the look;
  ``grpo_recall``, with recall in place of its IoU; ``grpo_4`` and ``grpo_16``, in groups of 4 and 16, with
  as many rollouts; ``grpo_no_std``, ``grpo_clip_higher`` and ``grpo_dynamic``, which are options of
  `agents.train_grpo_mllm`; ``rft`` from ``grpo``; ``grpo_320_s`` and ``grpo_two_hops``, which play what no
  demonstration shows, videos of 320 seconds and another family of questions, see `BEYOND`;
- under VIDEO_MTR_TINY ``ppo``; ``ppo_trajectory``, which is paid for answers only; ``ppo_no_gate``;
  ``ppo_no_bonus``; ``ppo_turns_1`` and ``ppo_turns_2``, of 3; ``grpo_turn``, GRPO with credit of turns and
  as many episodes.

Every model answers `TESTED` held-out questions by its likeliest outputs and by sampled ones; fewer blind
and from the skim alone, where it talks until it may no more, and lessons not. Rollouts of the runs are
counted afterwards, exploits too, iteration by iteration.

Run ``python -m agents.experiments.lift --out runs/lift``. What is done is not done again, and a stage that
was stopped goes on; ``--stages`` names some, with those that they start from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from videogym import FrameStore, Recipe, Term, VideoQAEnv, get_recipe
from videogym.datasets import load_tasks
from videogym.rewards import CropOverlap

from .. import train_grpo_mllm, train_ppo_mllm, train_rft, train_sft
from ..models.tiny_qwen import build_tiny_qwen
from ..models.visuals import FrameReader
from ..training.options import quiet_libraries
from ..training.staging import whole_folder
from ..vlm.config import ChatConfig
from ..vlm.evaluation import greedy
from ..vlm.policy import make_actor, make_model
from ..vlm.records import Record, fingerprint
from ..vlm.rollouts import make_chat_env, play_tasks
from ..vlm.tiny import corpus
from .episodes import course, curves, metrics
from .lift_report import LESSONS, draw, table
from .runs import add_run_options, resumable, runs_at_once
from .stages import (
    EVENT_S,
    SIZES,
    Grey,
    Stage,
    add_recipes_option,
    begun,
    described,
    result,
    selection,
    shared_options,
    skim,
)

TESTED = 500  # held-out questions
WIDE = SIZES | {"vocab_size": 1400}  # the words of two recipes' prompts
SHARED = ("base", "lesson", "practice")  # by both recipes
WAYS = {"greedy": TESTED, "sampled": TESTED, "blind": 200, "skim": 200}  # of answering: questions
SEEING = ("greedy", "sampled")
BEYOND = {  # stages that play other tasks than were demonstrated: what of the source is replaced by what
    "grpo_320_s": ("duration_s=256", "duration_s=320"),
    "grpo_two_hops": ("brief_event", "two_hops"),
}
COMPARED = ("practice", "sft", "longer")  # with those, on their tasks
PRACTISED = 2100  # steps; after 700 one of five seeds still answered 0.6 of the questions, another 0.85
HASTY = 0.6  # share of the demonstrations of the cold start
GRPO: dict[str, Any] = {
    "learning_rate": 2e-4,
    "kl_coef": 0.0,
    "iterations": 30,
    "eval_every": 15,
    "groups": 8,
    "group_size": 8,
    "mini_batch_groups": 4,
}


def stages(recipe: str, seed: int) -> dict[str, Stage]:
    """What is trained under a recipe, by name, parents first."""
    lesson = train_sft.Config.of(
        **shared_options("LONGVT_TINY", seed),
        learning_rate=2e-3,
        warmup=0.05,
        beta2=0.98,
        wrong_looks=0.05,
        script="scenes",
        demonstrated_tasks=5000,
        per_task=1,
        groups=12,
        iterations=1000,
        eval_every=500,
    )
    practised = {"learning_rate": 1.5e-3, "iterations": PRACTISED, "eval_every": 350}
    practice = lesson.with_options(seed=seed + 2000, **practised)
    first = {
        "lesson": Stage("base", train_sft.train, lesson),
        "practice": Stage("lesson", train_sft.train, practice),
    }
    last = "practice"
    shared = shared_options(recipe, seed)
    if recipe == "VIDEO_MTR_TINY":
        # Seeing is learnt; what is left are indices of a pool in place of seconds, and another grammar.
        lesson = lesson.with_options(**shared, learning_rate=1e-3, iterations=700, window=2)
        practice = lesson.with_options(seed=seed + 2000, **practised)
        first["second_lesson"] = Stage(last, train_sft.train, lesson)
        first["second_practice"] = Stage("second_lesson", train_sft.train, practice)
        last = "second_practice"
    sft = lesson.with_options(
        learning_rate=1e-3,
        wrong_looks=0.0,
        hasty=HASTY,
        gives_up=1.0,
        iterations=200,
        demonstrated_tasks=2400,
    )
    # Other draws of the mixture, at the rate at which the cold start was halfway; as many minutes as GRPO.
    longer = sft.with_options(seed=seed + 1000, learning_rate=5e-4, iterations=200)
    first["sft"] = Stage(last, train_sft.train, sft)
    first["longer"] = Stage("sft", train_sft.train, longer)
    return first | (_longvt(shared) if recipe == "LONGVT_TINY" else _video_mtr(shared))


def _longvt(shared: dict[str, Any]) -> dict[str, Stage]:
    grpo = train_grpo_mllm.Config.of(**shared, **GRPO)
    recipe = get_recipe(shared["recipe"])
    plain = tuple(term for term in recipe.terms if term.name != "time")
    recall = (*plain, Term("time", "trajectory", CropOverlap("recall")))
    changed: dict[str, train_grpo_mllm.Config] = {
        "grpo_no_time": grpo.with_options(recipe=_paying(recipe, "no time", plain)),
        "grpo_recall": grpo.with_options(recipe=_paying(recipe, "recall", recall)),
        "grpo_4": replace(grpo, groups=16, group_size=4, mini_batch_groups=8),
        "grpo_16": replace(grpo, groups=4, group_size=16, mini_batch_groups=2),
        "grpo_no_std": replace(grpo, scale_by_std=False),
        "grpo_clip_higher": replace(grpo, clip_high=0.28),
        "grpo_dynamic": replace(grpo, max_generation_batches=4),
    }
    for name, others in BEYOND.items():
        sources = {key: shared[key].replace(*others) for key in ("tasks", "eval_tasks")}
        changed[name] = grpo.with_options(**sources)
    return {
        "grpo": Stage("sft", train_grpo_mllm.train, grpo),
        "rft": Stage("grpo", train_rft.train, selection(shared)),
        **{name: Stage("sft", train_grpo_mllm.train, config) for name, config in changed.items()},
    }


def _video_mtr(shared: dict[str, Any]) -> dict[str, Stage]:
    ppo = train_ppo_mllm.Config.of(
        **shared,
        # At twice this rate searches were right less and less often after 50 iterations.
        learning_rate=1e-4,
        critic_learning_rate=1e-2,
        entropy_coef=0.0,
        kl_coef=0.0,
        iterations=20,
        eval_every=10,
        groups=32,
        mini_batch_size=32,
        micro_batch_size=16,
        temperature=1.0,
    )
    recipe = get_recipe(shared["recipe"])
    answers = tuple(term for term in recipe.terms if term.level == "trajectory")
    limits = {
        f"ppo_turns_{most}": ppo.with_options(
            recipe=replace(
                recipe,
                name=f"{recipe.name}, {most} turns",
                rules=replace(recipe.rules, max_turns=most),
            ),
        )
        for most in (1, 2)
    }
    changed = {
        "ppo": ppo,
        "ppo_trajectory": ppo.with_options(recipe=_paying(recipe, "answer only", answers)),
        "ppo_no_gate": replace(ppo, gate="none"),
        "ppo_no_bonus": replace(ppo, bonus="none"),
        **limits,
    }
    turn = train_grpo_mllm.Config.of(**shared, **GRPO, window=2, credit="turn")
    turn = replace(turn, iterations=ppo.iterations)
    return {
        **{name: Stage("sft", train_ppo_mllm.train, config) for name, config in changed.items()},
        "grpo_turn": Stage("sft", train_grpo_mllm.train, turn),
    }


def _paying(recipe: Recipe, name: str, terms: tuple[Term, ...]) -> Recipe:
    return replace(recipe, name=f"{recipe.name}, {name}", terms=terms)


def run_seed(recipe: str, seed: int, out: Path, names: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Stages of a seed that have no result yet.

    Args:
        recipe: a key of `EVENT_S`.
        seed: of everything.
        out: folder of all runs.
        names: of stages, which are made with those that they start from; none: all.

    Returns:
        The results by stage.

    Raises:
        ValueError: there is no such stage.
        CheckpointMismatch: a result is there that was made in another way.
    """
    quiet_libraries()
    disable_progress_bar()
    torch.set_num_threads(1)
    todo = needed(stages(recipe, seed), names)
    folders = {
        name: out / ("shared" if name in SHARED else recipe) / f"seed-{seed}" for name in (*SHARED, *todo)
    }
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    places = {name: folder / name for name, folder in folders.items()}
    make_base(places["base"], seed)
    made_by = {"base": f"{WIDE} {TESTED}"}
    results = {}
    for name, stage in todo.items():
        made_by[name] = f"{made_by[stage.parent]} {described(stage.config)}"
        folder = folders[name]
        work = partial(run_stage, name, stage, folder, places)
        # Bars of two runs would mix.
        with (folder / "log.txt").open("a", encoding="utf-8") as log, redirect_stderr(log):
            results[name] = result(folder / f"{name}.json", made_by[name], work)
    return results


def run_recipes(
    recipes: Sequence[str], seed: int, out: Path, names: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """`run_seed` under each recipe, one after the other, for they share a lesson; the results by recipe."""
    return {recipe: run_seed(recipe, seed, out, names) for recipe in recipes}


def make_base(folder: Path, seed: int) -> None:
    """Random weights, and a tokenizer that knows the words of both recipes' demonstrations.

    Args:
        folder: where it is saved; one that is there is taken as it is.
        seed: of the weights.
    """
    if (folder / "config.json").exists():
        return
    texts = []
    for recipe in EVENT_S:
        every = stages(recipe, seed)
        lesson = every[
            "second_lesson" if "second_lesson" in every else "lesson"
        ].config  # in its own grammar
        assert isinstance(lesson, train_sft.Config)
        texts += corpus(VideoQAEnv(lesson.tasks, lesson.rules), train_sft.demonstrator(lesson))
    with whole_folder(folder) as unfinished:
        build_tiny_qwen(unfinished, texts, seed=seed, **WIDE)


def needed(every: dict[str, Stage], names: Sequence[str]) -> dict[str, Stage]:
    """Some stages with those that they start from or are compared with, parents first; none: all.

    Raises:
        ValueError: there is no such stage.
    """
    wanted = set(names or every)
    if unknown := sorted(wanted - every.keys()):
        raise ValueError(f"unknown stage {unknown[0]!r}; known: {', '.join(every)}")
    for name, stage in reversed(every.items()):
        if name in wanted:
            wanted |= {stage.parent, *(COMPARED if name in BEYOND else ())}
    return {name: stage for name, stage in every.items() if name in wanted}


def run_stage(name: str, stage: Stage, folder: Path, places: dict[str, Path]) -> dict[str, Any]:
    """Train a stage from the checkpoint of another, all of which have places; measure what it made."""
    config, actor = begun(stage, folder, places[stage.parent])
    run = stage.train(config, actor, folder / "runs" / name, True)
    seconds = {"seconds": run.seconds, "cpu_seconds": run.cpu_seconds}
    actor.model.save(str(folder / name))
    found = measure(config, folder / name, ways=SEEING if name in LESSONS else tuple(WAYS)) | seconds
    if name in BEYOND:
        found["compared"] = {other: measure(config, places[other], ways=SEEING) for other in COMPARED}
    records = folder / "runs" / name / "records"
    if records.is_dir():
        tokenizer = fingerprint(actor.model.tokenizer)
        task = load_tasks(config.tasks).by_id
        found["curves"] = curves(records, task, config.rules.identity, tokenizer)
    return found


def measure(
    config: ChatConfig, checkpoint: Path, split: str = "test", ways: Sequence[str] = tuple(WAYS)
) -> dict[str, Any]:
    """Figures of a model on held-out tasks.

    Args:
        config: whose episodes are played.
        checkpoint: of the model.
        split: of the procedural tasks; anything is tuned on ``"val"``.
        ways: of answering, of `WAYS`.

    Returns:
        By way of answering, whether each task was answered ``right``, and
        `agents.experiments.episodes.metrics`.
    """
    tasks = config.evaluation.eval_tasks.replace("split=val", f"split={split}")
    found: dict[str, Any] = {}
    for way in ways:
        records = answered(config, checkpoint, tasks, way, WAYS[way])
        task = load_tasks(tasks).by_id
        rows = [course(one, task(one.task_id)) for one in records if not one.abort_reason]
        found[way] = {"right": [bool(record.success) for record in records], **metrics(rows)}
    return found


def answered(config: ChatConfig, checkpoint: Path, tasks: str, way: str, questions: int) -> list[Record]:
    """Episodes of a model on the first tasks of a source.

    Args:
        config: whose episodes are played.
        checkpoint: of the model.
        tasks: the source.
        way: of answering, of `WAYS`.
        questions: how many.
    """
    config = config.with_options(checkpoint=str(checkpoint), eval_tasks=tasks)
    some, store = load_tasks(tasks)[:questions], FrameStore(open_videos=64)
    reader: FrameReader = store
    if way not in SEEING:
        skims = {task.video: frozenset(skim(config, task.task_id).times_s) for task in some}
        reader = Grey(store, skims if way == "skim" else {})
    actor = make_actor(config, make_model(config, reader))
    env = make_chat_env(config, actor.model, tasks)
    answer: Callable[[Sequence[Record]], list[Record]] = actor.answer if way == "sampled" else greedy(actor)
    torch.manual_seed(config.seed)
    records = list(play_tasks(env, answer, [task.task_id for task in some], at_once=100))
    env.env.close()
    return records


def main() -> None:
    """Run the stages that are missing, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_options(parser, "runs/lift", seeds=(0, 1, 2, 3, 4))
    add_recipes_option(parser)
    parser.add_argument("--stages", nargs="+", default=[], help="stages, with their parents (default: all)")
    arguments = parser.parse_args()
    try:
        for recipe in arguments.recipes:
            needed(stages(recipe, 0), arguments.stages)
    except ValueError as error:
        parser.error(str(error))
    with resumable(parser, arguments.out):
        run_seeds(arguments)


def run_seeds(arguments: argparse.Namespace) -> None:
    """Run what the command names, and print it."""
    seeds = list(dict.fromkeys(arguments.seeds))
    with runs_at_once(arguments.jobs) as pool:
        runs = {
            seed: pool.submit(run_recipes, arguments.recipes, seed, arguments.out, arguments.stages)
            for seed in seeds
        }
        results = {seed: run.result() for seed, run in runs.items()}
    for recipe in arguments.recipes:
        found = [results[seed][recipe] for seed in seeds]
        text = table(found)
        (arguments.out / recipe / "table.md").write_text(text, encoding="utf-8")
        draw(found, arguments.out / recipe / "curves.svg")
        sys.stdout.write(f"\n{recipe}, {TESTED} held-out questions a seed\n\n{text}")


if __name__ == "__main__":
    main()
