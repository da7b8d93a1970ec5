"""Proves what the procedural families promise: seen by nobody who does not look, read by whoever does.

For every family, over 2,000 tasks of ten minutes under `DEFAULT`: what can be guessed from text (fitted
to as many other tasks), what can be read in the pixels of the skim, what an oracle's real actions come
to, and what can be read in the pixels that they show. For small details also what can be read in whole
frames of the right times, by a reader that is right about every crop and by classifiers fitted to
patches of the right places. Then three sources in which the rate or the scale of a look, or a search, is
all that an oracle needs: with it and without, over 500 tasks. Prints tables with 95 % intervals, exits 1
when a bound is missed. Run by ``make prove-families``; some ten minutes of one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifier
from tqdm import tqdm

from videogym import Answer, Task, VideoQAEnv
from videogym.datasets import load_tasks
from videogym.evaluate import Estimate, proportion
from videogym.testing.pixel_reader import read_answer
from videogym.testing.policies import Oracle, random_answer
from videogym.video.synthetic import open_synthetic

sys.path += [str(Path(__file__).parents[1] / room) for room in ("", "datasets")]
import needed_arguments as needs
from guessing import right_by_text

FAMILIES = ("brief_event", "event_order", "two_hops", "counting", "small_detail", "digits", "skim_suffices")
CHANCE = dict.fromkeys(FAMILIES, 0.25) | {"digits": 1 / 90}  # numbers of two digits
EASY_PIXELS = 2000  # of a frame; enough to read all but stripes
NEEDED = {needed.name: needed for needed in needs.NEEDED}
BUDGET = (280, 168)  # frames of 1280x720 at the pixels of the recipes, 224 * 224
NATIVE_PATCH, PATCH, MARGIN = 256, 56, 20  # the same ratio as 1280 to 280; and what is left of it

Row = tuple[str, Estimate, float, float]  # what, how good, at least, at most


def tasks_of(family: str, split: str, count: int) -> Sequence[Task]:
    """Easy tasks, where a reader's mistakes are none of its eyes."""
    return load_tasks(f"procedural:{family}?level=0&duration_s=600&count={count}&split={split}")


def prove(family: str, count: int, step: Callable[[], object]) -> Iterator[Row]:
    """The figures of one family."""
    chance, tasks = CHANCE[family], tasks_of(family, "test", count)
    near, near_half = chance_range(chance, count), chance_range(chance, count // 2)
    ways = right_by_text(tasks_of(family, "train", count), tasks)
    best = max(ways, key=lambda way: sum(ways[way]))
    yield f"text ({best})", proportion(sum(ways[best]), count), *near
    oracle, skim, looks = play(family, tasks, Oracle(), step)
    if family == "skim_suffices":
        yield "skim, pixels", skim, 0.99, 1.0
    else:
        yield "skim, pixels", skim, 0.0, chance + 0.10
    yield "oracle", oracle, 1.0, 1.0
    yield "oracle's looks, pixels", looks, 0.99, 1.0
    if family == "small_detail":
        _, _, whole = play(family, tasks, Oracle(regions=False), step, skim=False)
        yield "whole frames, pixels", whole, *near
        for name, patches in (("drawn", drawn), ("bicubic", bicubic), ("area", area)):
            yield f"whole frames, fitted ({name})", fitted(tasks, patches), *near_half


def chance_range(chance: float, count: int) -> tuple[float, float]:
    """Three points on either side, or three standard deviations where tasks are few."""
    margin = max(0.03, 3 * float(np.sqrt(chance * (1 - chance) / count)))
    return max(0.0, chance - margin), chance + margin


def play(
    family: str, tasks: Sequence[Task], oracle: Oracle, step: Callable[[], object], skim: bool = True
) -> tuple[Estimate, Estimate, Estimate]:
    """What an oracle's actions come to, what is read in the skim, and what is read in all they show."""
    env, rng = VideoQAEnv(tasks, "DEFAULT"), np.random.default_rng(0)
    pixels = None if family == "small_detail" else EASY_PIXELS
    right = np.zeros(3, np.int64)
    for task in tasks:
        observation, info = env.reset(options={"task_id": task.task_id})
        skimmed = read_answer(env.state, env.store, pixels) if skim else None
        while not isinstance(action := oracle(observation, info, env), Answer):
            observation, *_, info = env.step(action)
        read = read_answer(env.state, env.store, pixels)
        guess = random_answer(observation, rng).text if task.options else str(rng.integers(10, 100))
        env.step(action)
        answers = (action.text, skimmed or guess, read or guess)
        right += [answer == task.answer for answer in answers]
        step()
    env.close()
    found = [proportion(int(number), len(tasks)) for number in right]
    return found[0], found[1], found[2]


# --- small details in whole frames, for classifiers that know time and place -------------------


def fitted(tasks: Sequence[Task], patch_of: Callable[[Task], NDArray[Any]]) -> Estimate:
    """The better of two classifiers, fitted to one half of the tasks, on the other."""
    patches = np.stack([features(patch_of(task)) for task in tasks])
    directions = np.array([task.options[task.letters.index(task.answer)] for task in tasks])
    half = len(tasks) // 2
    models = RandomForestClassifier(60, min_samples_leaf=3, random_state=0), RidgeClassifier(1000.0)
    right = []
    for model in models:
        guesses = model.fit(patches[:half], directions[:half]).predict(patches[half:])
        right.append(int((guesses == directions[half:]).sum()))
    return proportion(max(right), len(tasks) - half)


def features(patch: NDArray[Any]) -> NDArray[np.float64]:
    """Grey values, their spectrum, and how much they change along either side and both."""
    grey = patch.mean(axis=2) - np.median(patch.mean(axis=2))
    down, across = np.gradient(grey[4:-4, 4:-4])
    changes = [(across**2).mean(), (down**2).mean(), (across * down).mean()]
    return np.concatenate([grey.ravel(), np.abs(np.fft.fft2(grey[4:-4, 4:-4])).ravel(), changes])


def middle_of(task: Task, size: tuple[int, int]) -> tuple[float, int, int]:
    """When the disc is on display, and the pixel that its middle is in."""
    assert task.evidence is not None and task.evidence_region is not None
    x0, y0, x1, y1 = task.evidence_region.as_tuple()
    return task.evidence[0].start_s, int((x0 + x1) / 2 * size[0]), int((y0 + y1) / 2 * size[1])


def drawn(task: Task) -> NDArray[Any]:
    """A patch of the frame that a policy is given of the whole picture."""
    time_s, x, y = middle_of(task, BUDGET)
    frame = open_synthetic(task.video).frames_at([time_s], size=BUDGET).pixels[0]
    half = (PATCH - 2 * MARGIN) // 2
    padded = np.pad(frame, ((half, half), (half, half), (0, 0)), mode="edge")
    return padded[y : y + 2 * half, x : x + 2 * half]


def reduced(task: Task, interpolation: Interpolation) -> NDArray[Any]:
    """The same patch of a native frame that a resizer has made smaller, as of an encoded video."""
    with open_synthetic(task.video) as video:
        width, height = video.meta.width, video.meta.height
        time_s, x, y = middle_of(task, (width, height))
        left, top = (
            min(max(at - NATIVE_PATCH // 2, 0), side - NATIVE_PATCH)
            for at, side in ((x, width), (y, height))
        )
        box = (left / width, top / height, (left + NATIVE_PATCH) / width, (top + NATIVE_PATCH) / height)
        native = np.ascontiguousarray(video.frames_at([time_s], region=box).pixels[0])
    frame = av.VideoFrame.from_ndarray(native, format="rgb24")
    small = VideoReformatter().reformat(frame, PATCH, PATCH, format="rgb24", interpolation=interpolation)
    half = (PATCH - 2 * MARGIN) // 2
    row, column = (round((at - first) * PATCH / NATIVE_PATCH) for at, first in ((y, top), (x, left)))
    padded = np.pad(small.to_ndarray(), ((half, half), (half, half), (0, 0)), mode="edge")
    return padded[row : row + 2 * half, column : column + 2 * half]


def bicubic(task: Task) -> NDArray[Any]:
    """Reduced as the frame store does it."""
    return reduced(task, Interpolation.BICUBIC)


def area(task: Task) -> NDArray[Any]:
    """Reduced by means."""
    return reduced(task, Interpolation.AREA)


# --- where an argument is all that is missing ----------------------------------------------------


def prove_needed(needed: needs.Needed, count: int, step: Callable[[], object]) -> Iterator[Row]:
    """What an oracle reads with the argument, and without it."""
    tasks = load_tasks(f"procedural:{needed.tasks}&count={count}&split=test")
    yield f"with its {needed.name}, pixels", needed.accuracy(needed.with_it, tasks), 1.0, 1.0
    step()
    yield "without, pixels", needed.accuracy(needed.without, tasks), 0.0, needs.CHANCE + 0.10
    step()


def main(families: Sequence[str], count: int) -> int:
    """Print the table; a missed bound decides the exit status."""
    proved = [family for family in families if family in FAMILIES]
    total = count * (len(proved) + ("small_detail" in proved)) + 2 * (len(families) - len(proved))
    missed, bar = 0, tqdm(total=total, unit="episodes")
    for family in families:
        if family in NEEDED:
            few = min(count, 500)
            rows, chance = prove_needed(NEEDED[family], few, bar.update), needs.CHANCE
        else:
            few, rows, chance = count, prove(family, count, bar.update), CHANCE[family]
        tqdm.write(f"{family}, {few} tasks, chance {chance:.3f}")
        for name, estimate, low, high in rows:
            holds = low <= estimate.mean <= high
            missed += not holds
            bounds = f"{low:.3f} to {high:.3f}"
            tqdm.write(f"  {'ok  ' if holds else 'MISS'} {name:42} {estimate}  must be {bounds}")
    bar.close()
    return int(missed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--family", choices=(*FAMILIES, *NEEDED), action="append", help="only this one; may be repeated"
    )
    parser.add_argument("--tasks", type=int, default=2000, help="of each family (default: %(default)s)")
    arguments = parser.parse_args()
    sys.exit(main(arguments.family or (*FAMILIES, *NEEDED), arguments.tasks))
