"""Scripted policies on every family: what ground truth, pixels and pixels without looks come to."""

# ruff: noqa: D103

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from videogym import Crop, Segment, Task, VideoQAEnv, evaluate
from videogym.datasets import load_tasks
from videogym.recipes import DEFAULT
from videogym.rewards import looked_segments
from videogym.testing.pixel_reader import PixelReader, direction_of, read_answer, resolve
from videogym.testing.policies import Oracle, SkimOnly
from videogym.video.synthetic import Address, open_synthetic, write_script

FAMILIES = ("brief_event", "event_order", "two_hops", "counting", "small_detail", "digits", "skim_suffices")
HIDDEN = FAMILIES[:-1]
SMALL = 5000  # pixels in which easy frames can be read, stripes apart


def env_of(family: str, count: int, level: int = 0, recipe: Any = DEFAULT) -> VideoQAEnv:
    return VideoQAEnv(f"procedural:{family}?level={level}&count={count}&split=test", recipe)


def accuracy(policy: Any, env: VideoQAEnv) -> float:
    return evaluate(policy, env).accuracy.mean


# --- ground truth, through real actions --------------------------------------------------------


@pytest.mark.parametrize(
    "recipe", ["DEFAULT", "VIDEO_MTR/paper", "VIDEO_MTR/code", "LONGVT/paper", "LONGVT/code"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_oracle_is_always_right_and_executes_all_it_does(family: str, recipe: str) -> None:
    report = evaluate(Oracle(), env_of(family, 20, recipe=recipe))
    assert report.accuracy.mean == 1.0 and report.invalid_rate.mean == 0.0
    assert report.hit_rate is not None
    if family == "small_detail" and recipe != "DEFAULT":  # the papers' recipes have no regions
        assert report.hit_rate.mean == 0.0, "the whole picture is not the region"
    elif recipe != "VIDEO_MTR/code":  # its pool of 64 frames misses some events
        assert report.hit_rate.mean == 1.0, "some evidence was not shown"


@pytest.mark.parametrize("family", HIDDEN)
def test_the_oracle_earns_all_that_default_pays(family: str) -> None:
    """1 for the answer, 0.5 for the exact time and place of all evidence, less what the skim has of it."""
    env = env_of(family, 20)
    skim = [
        segment.length_s / 600 * (task.evidence_region.area if task.evidence_region else 1.0)
        for task in env.tasks
        for segment in (task.evidence or ())[:1]  # all of a task are of one length
    ]
    assert evaluate(Oracle(), env).reward.mean == pytest.approx(1.5 - 0.5 * np.mean(skim), abs=0.005)


@pytest.mark.parametrize("family", HIDDEN)
def test_an_oracle_that_only_skims_guesses(family: str) -> None:
    # 25 % of 100, and four standard deviations.
    assert accuracy(SkimOnly(), env_of(family, 100)) < 0.43


def test_a_skim_that_meets_a_detail_does_not_show_it() -> None:
    """LongVT's skim of 512 frames meets every event of ten minutes."""
    assert accuracy(SkimOnly(), env_of("brief_event", 20, recipe="LONGVT/paper")) == 1.0
    assert accuracy(SkimOnly(), env_of("small_detail", 100, recipe="LONGVT/paper")) < 0.43


def test_the_oracle_looks_at_the_clue_first() -> None:
    for task in load_tasks("procedural:two_hops?count=40"):
        script = write_script(Address.parse(task.video))
        clue, target = (script.scenes[i] for i in script.asked)
        assert task.evidence is not None and clue.event is not None and target.event is not None
        assert [segment.start_s * 8 for segment in task.evidence] == [clue.event.first, target.event.first]
        assert f"is {clue.colour}," in task.question and target.colour not in task.question
        assert clue.event.colour == target.colour


EIGHT = [Segment(s, s + 2) for s in (10, 20, 300, 310, 320, 500, 590, 596)]


@pytest.mark.parametrize(
    ("max_turns", "looks"),
    [
        # As many stretches as there are looks, the longest as short as can be, worked by hand.
        (2, [(10, 598)]),
        (3, [(10, 302), (310, 598)]),
        (4, [(10, 22), (300, 322), (500, 598)]),
        (5, [(10, 22), (300, 322), (500, 502), (590, 598)]),
    ],
)
def test_where_turns_are_few_neighbouring_evidence_shares_a_look(
    max_turns: int, looks: list[tuple[float, float]]
) -> None:
    video = "synthetic:brief_event?level=0&duration_s=600&seed=1"
    task = Task("t", video, "Which?", "choice", ("w", "x"), "B", tuple(reversed(EIGHT)))
    rules = replace(DEFAULT.rules, max_turns=max_turns, frame_budget=None)
    env, oracle = VideoQAEnv([task], replace(DEFAULT, rules=rules)), Oracle()
    observation, info = env.reset(seed=0)
    while not env.state.terminated:
        observation, *_, info = env.step(oracle(observation, info, env))
    assert [(look.start_s, look.end_s) for look in looked_segments(env.state)] == looks
    assert env.state.answer == "B"


# --- what can be read in pixels ----------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_is_in_the_frames_that_an_oracle_shows(family: str, level: int) -> None:
    small = SMALL if level == 0 and family != "small_detail" else None
    assert accuracy(PixelReader(Oracle(), small), env_of(family, 8, level)) == 1.0


@pytest.mark.parametrize("family", HIDDEN)
def test_nothing_of_the_answer_is_in_the_skim(family: str) -> None:
    env = env_of(family, 25)
    for task in env.tasks:
        env.reset(options={"task_id": task.task_id})
        assert read_answer(env.state, env.store, SMALL) is None, f"{task.task_id} is read in its skim"


def test_reading_needs_a_family() -> None:
    env = VideoQAEnv([replace(load_tasks("procedural:digits?count=1")[0], source="own")])
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"'own'; known: brief_event, .*digits"):
        read_answer(env.state, env.store)


def test_the_reader_guesses_what_it_cannot_read() -> None:
    """Among 100 tasks it neither refuses nor always says the same."""
    env = env_of("brief_event", 100)
    reader, answers = PixelReader(max_pixels=1600), Counter[str]()
    for task in env.tasks:
        answers[reader(*env.reset(options={"task_id": task.task_id}), env).text] += 1  # type: ignore[union-attr]
    assert set(answers) == set("ABCD") and max(answers.values()) < 43


# --- small details -----------------------------------------------------------------------------


def test_without_a_crop_of_its_region_a_small_detail_is_not_read() -> None:
    env = env_of("small_detail", 40)
    assert accuracy(PixelReader(Oracle()), env) == 1.0
    # The same frames of the same times, but of the whole picture: 25 % of 40, and four deviations.
    without = evaluate(PixelReader(Oracle(regions=False)), env)
    assert without.accuracy.mean < 0.53
    assert without.hit_rate is not None and without.hit_rate.mean == 0.0, "a frame was of the disc alone"
    # 0.5 for the time alone, times the share of the picture that the disc's box is: 0.055 squared. Of that
    # the skim has one or two hundredths already.
    assert without.terms["coverage"].mean == pytest.approx(0.5 * 0.003025, rel=0.03)


@pytest.mark.parametrize("size", [(280, 168), (224, 126), (168, 280), (224, 224), (56, 28)])
@pytest.mark.parametrize("level", [0, 3])
def test_a_frame_of_the_recipes_is_the_same_whichever_way_stripes_run(
    level: int, size: tuple[int, int]
) -> None:
    """Not alike but equal, pixel by pixel: nothing can be learned from it."""
    portrait = size[0] < size[1]
    source = f"synthetic:small_detail?level={level}&duration_s=60&seed=5&size="
    source += "720x1280" if portrait else "1280x720"
    video = open_synthetic(source)
    event = next(event for scene in video.script.scenes for event in scene.events)
    whole, crops = [], []
    for direction in ("horizontal", "vertical", "rising", "falling"):
        turned = with_mark(source, event.first, direction)
        whole.append(turned.frames_at([event.first / 8], size=size).pixels)
        crops.append(turned.frames_at([event.first / 8], region=event.box).pixels.astype(int))
    assert all((image == whole[0]).all() for image in whole)
    differences = [np.abs(a - b).mean() for i, a in enumerate(crops) for b in crops[:i]]
    assert min(differences) > 10, "at native size the crops are alike"


def with_mark(source: str, first: int, mark: str) -> Any:
    """The video with the disc that appears in frame ``first`` turned."""
    video = open_synthetic(source)
    scenes = tuple(
        replace(scene, events=tuple(replace(e, mark=mark) if e.first == first else e for e in scene.events))
        for scene in video.script.scenes
    )
    video._script = replace(video.script, scenes=scenes)
    return video


@pytest.mark.parametrize("level", [0, 3])
def test_a_crop_of_three_times_the_disc_is_enough(level: int) -> None:
    """Of the sides; read at the pixels that a language model would be given of such a crop."""
    env = env_of("small_detail", 10, level)
    for task in env.tasks:
        assert task.evidence is not None and task.evidence_region is not None
        env.reset(options={"task_id": task.task_id})
        x0, y0, x1, y1 = task.evidence_region.as_tuple()
        wide, high = x1 - x0, y1 - y0
        x0, y0 = min(max(x0 - wide, 0.0), 1 - 3 * wide), min(max(y0 - high, 0.0), 1 - 3 * high)
        middle_s = (task.evidence[0].start_s + task.evidence[0].end_s) / 2
        env.step(Crop(middle_s - 1, middle_s + 1, (x0, y0, x0 + 3 * wide, y0 + 3 * high)))
        image = resolve(env.state, env.store, env.state.clips[-1])[0].astype(np.float32)
        across, down = ((task.evidence_region.x0 - x0) / wide, (task.evidence_region.y0 - y0) / high)
        third = (image.shape[0] / 3, image.shape[1] / 3)
        top, left = round((down + 0.2) * third[0]), round((across + 0.2) * third[1])
        bottom, right = round((down + 0.8) * third[0]), round((across + 0.8) * third[1])
        read = direction_of(image[top:bottom, left:right].mean(axis=2))
        assert read == task.options[task.letters.index(task.answer)], task.task_id
