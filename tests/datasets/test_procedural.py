"""The procedural families: exact evidence, and answers that nothing but the right frames tells."""

# ruff: noqa: D103

from __future__ import annotations

import pickle
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
from guessing import right_by_text, text_features
from numpy.typing import NDArray
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import RidgeClassifier

from videogym.datasets import ProceduralTasks, check_evidence, load_tasks
from videogym.state import Task
from videogym.testing.dataset_suite import check_choice_balance, check_tasks
from videogym.testing.pixel_reader import NAMED
from videogym.video.synthetic import Address, InvalidAddress, open_synthetic, write_script

FAMILIES = (
    *("brief_event", "event_order", "two_hops", "counting", "small_detail", "digits"),
    "skim_suffices",
)
HIDDEN = FAMILIES[:-1]  # their answers are seen by looking only
CHOICES = tuple(family for family in FAMILIES if family != "digits")
# The benchmark that proves the families takes 2,000 of each.
COUNTS = {"brief_event": 2000, "event_order": 2000, "skim_suffices": 2000}
COUNT = 600
SIZE = (160, 90)


@cache
def tasks_of(family: str, split: str = "train") -> tuple[Task, ...]:
    return tuple(load_tasks(f"procedural:{family}?count={COUNTS.get(family, COUNT)}&split={split}"))


def most_by_chance(chance: float, count: int) -> float:
    """Three standard deviations above a fair guess over so many tasks."""
    return float(chance + 3.1 * np.sqrt(chance * (1 - chance) / count))


def right_option(task: Task) -> str:
    return task.options[task.letters.index(task.answer)]


def uniform_skim(num_frames: int, count: int) -> NDArray[np.int64]:
    return np.linspace(0, num_frames - 1, count).astype(int)


def pool_of_128(num_frames: int, duration_s: float) -> NDArray[np.int64]:
    """One frame a second, at most 128, both ends included, as Video-MTR draws them."""
    return np.round(np.linspace(0, num_frames - 1, int(min(duration_s, 128)) // 2 * 2)).astype(int)


# What pixels tell, by a route of its own: differences between frames and the names of colours.


def read_colour(pixels: NDArray[Any], among: set[str]) -> str:
    colour = np.median(pixels.reshape(-1, 3), axis=0)
    return min(among, key=lambda name: float(np.linalg.norm(colour - NAMED[name])))


def read_event(task: Task, number: int, among: set[str]) -> str:
    """Colour of what is in the first frame of the evidence and not in the frame before."""
    assert task.evidence is not None
    start_s = task.evidence[number].start_s
    before, at = open_synthetic(task.video).frames_at([start_s - 1 / 8, start_s], size=SIZE).pixels
    changed = np.abs(at.astype(int) - before).max(axis=2) > 40
    return read_colour(at[changed], among)


def oracle(task: Task) -> str:
    """Reads the answer in the frames of the evidence."""
    assert task.evidence is not None
    if task.source.endswith("brief_event"):
        return read_event(task, 0, set(task.options))
    if task.source.endswith("event_order"):
        among = {colour for option in task.options for colour in option.split(", then ")}
        return f"{read_event(task, 0, among)}, then {read_event(task, 1, among)}"
    middle_s = (task.evidence[0].start_s + task.evidence[0].end_s) / 2
    return read_colour(
        open_synthetic(task.video).frames_at([middle_s], size=SIZE).pixels, set(task.options)
    )


@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("family", ["brief_event", "event_order", "skim_suffices"])
def test_the_oracle_reads_every_answer_in_the_pixels_of_the_evidence(family: str, level: int) -> None:
    tasks = load_tasks(f"procedural:{family}?level={level}&count=100&split=test&size=160x90")
    wrong = [task for task in tasks if oracle(task) != right_option(task)]
    assert not wrong, (
        f"{len(wrong)} of {len(tasks)} wrong, the first is {wrong[0]}: {right_option(wrong[0])}"
    )


@pytest.mark.parametrize("family", HIDDEN)
def test_evidence_is_exact_to_the_frame(family: str) -> None:
    """From the frame before the evidence to the one after it, the picture changes twice: at either end."""
    for task in tasks_of(family)[:10]:
        video = open_synthetic(task.video)
        region = task.evidence_region.as_tuple() if task.evidence_region else None
        for segment in task.evidence or ():
            numbers = np.arange(round(segment.start_s * 8) - 1, round(segment.end_s * 8) + 1)
            images = video.frames_at((numbers / 8).tolist(), size=(32, 32), region=region).pixels.astype(
                int
            )
            changed = (np.abs(np.diff(images, axis=0)).max(axis=3) > 40).mean(axis=(1, 2)) > 0.15
            assert np.flatnonzero(changed).tolist() == [0, len(numbers) - 2], task.task_id


@pytest.mark.parametrize("family", CHOICES)
def test_answers_are_balanced_and_a_blind_guess_is_at_chance(family: str) -> None:
    tasks = tasks_of(family)
    check_choice_balance(tasks)
    for letter in "ABCD":
        accuracy = np.mean([task.answer == letter for task in tasks])
        off = most_by_chance(0.25, len(tasks)) - 0.25
        assert abs(accuracy - 0.25) < off, f"always answering {letter} is right in {accuracy:.1%}"


@pytest.mark.parametrize("family", FAMILIES)
def test_text_does_not_tell_the_answer(family: str) -> None:
    chance = 1 / 4 if family in CHOICES else 1 / 90
    for way, right in right_by_text(tasks_of(family), tasks_of(family, "test")).items():
        assert np.mean(right) < most_by_chance(chance, len(right)), (
            f"{way} is right in {np.mean(right):.1%}"
        )


def test_every_number_of_two_digits_is_asked_for() -> None:
    numbers = Counter(task.answer for task in tasks_of("digits"))
    # 600 / 90 is 7, five standard deviations of it 13; that one of 90 is missing has odds of 1 in 9.
    assert set(numbers) <= {str(n) for n in range(10, 100)} and len(numbers) >= 88
    assert max(numbers.values()) <= 20


def test_a_classifier_would_notice_a_leak() -> None:
    """The same features and model find a dependence of one letter in ten on the question."""
    tasks = [task for task in tasks_of("brief_event")]
    rng = np.random.default_rng(0)
    answers = ["A" if "green" in t.question and rng.random() < 0.8 else t.answer for t in tasks]
    features = DictVectorizer().fit_transform([text_features(task) for task in tasks])
    model = RidgeClassifier(alpha=30.0).fit(features[:1000], answers[:1000])
    assert model.score(features[1000:], answers[1000:]) > 0.28


@pytest.mark.parametrize("family", HIDDEN)
def test_uniform_skims_of_16_and_32_frames_never_show_an_event(family: str) -> None:
    """In none of many videos of ten minutes; a skim of 48 frames shows an event in most."""
    shown: Counter[int] = Counter()
    for task in tasks_of(family):
        for count in (16, 32, 48):
            times_s = uniform_skim(4800, count) / 8
            shown[count] += any(segment.contains(t) for segment in task.evidence or () for t in times_s)
    assert shown[16] == shown[32] == 0
    assert shown[48] / len(tasks_of(family)) > 0.6


@pytest.mark.parametrize("family", HIDDEN)
def test_short_events_hide_from_long_skims(family: str) -> None:
    """LongVT's skim of an hour, 512 frames, misses events of three seconds."""
    tasks = load_tasks(f"procedural:{family}?duration_s=3600&event_s=3&count=100")
    times_s = uniform_skim(3600 * 8, 512) / 8
    assert not any(s.contains(t) for task in tasks for s in task.evidence or () for t in times_s)
    assert {segment.length_s for task in tasks for segment in task.evidence or ()} == {3.0}


@pytest.mark.parametrize("duration_s", [60, 127, 600, 3600])
@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("family", ["event_order", "counting"])
def test_one_or_two_frames_of_the_pool_show_any_event(family: str, level: int, duration_s: int) -> None:
    pool = pool_of_128(duration_s * 8, duration_s)
    counts = set()
    for task in load_tasks(f"procedural:{family}?level={level}&duration_s={duration_s}&count=60"):
        scenes = write_script(Address.parse(task.video)).scenes
        for event in (event for scene in scenes for event in scene.events):
            counts.add(int(((pool >= event.first) & (pool < event.end)).sum()))
            # Shifting the pool does not help: the event is longer than any gap of it.
            assert event.end - event.first >= np.diff(pool).max()
    assert counts == {1, 2}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_scene_has_its_own_background_and_is_met_by_a_skim_of_16_frames(family: str) -> None:
    pool = pool_of_128(4800, 600)
    for task in tasks_of(family)[:300]:
        script = write_script(Address.parse(task.video))
        skim = pool[uniform_skim(len(pool), 16)]
        met = {script.scene_at(int(frame)).colour for frame in skim}
        assert len(met) == len(script.scenes) == 8, task.task_id


def test_other_scenes_mislead() -> None:
    """Whoever reads the event of another scene than the cued one is always wrong."""
    for task in tasks_of("brief_event")[:300]:
        script = write_script(Address.parse(task.video))
        (asked,) = script.asked
        others = [scene.event.colour for i, scene in enumerate(script.scenes) if scene.event and i != asked]
        assert f"is {script.scenes[asked].colour}," in task.question
        assert len(others) == 3 and set(others) <= set(task.options) - {right_option(task)}


def test_the_order_of_two_events_needs_both() -> None:
    """Given the scenes' order and either colour, both colours of the other are equally likely."""
    tasks = tasks_of("event_order")
    for task in tasks[:50]:
        firsts, seconds = zip(*(option.split(", then ") for option in task.options), strict=True)
        assert sorted(Counter(firsts).values()) == sorted(Counter(seconds).values()) == [2, 2]
        assert task.evidence is not None and task.evidence[0].end_s < task.evidence[1].start_s
    same = np.mean([len(set(right_option(task).split(", then "))) == 1 for task in tasks])
    assert abs(same - 0.5) < 0.04
    named_first = 0
    for task in tasks:
        script = write_script(Address.parse(task.video))
        one, other = (script.scenes[i].colour for i in script.asked)
        named_first += task.question.index(f" {one}") < task.question.index(f" {other}")
    assert abs(named_first / len(tasks) - 0.5) < 0.04, "the question tells which scene comes first"


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize("duration_s", [60, 600])
def test_sixteen_frames_suffice_where_they_should(level: int, duration_s: int) -> None:
    """The commonest background among 16 frames, read in pixels, is the answer, and no tie decides."""
    tasks = load_tasks(f"procedural:skim_suffices?level={level}&duration_s={duration_s}&count=60")
    for task in tasks:
        times_s = uniform_skim(duration_s * 8, 16) / 8
        images = open_synthetic(task.video).frames_at(times_s.tolist(), size=(32, 32)).pixels
        backgrounds = {scene.colour for scene in write_script(Address.parse(task.video)).scenes}
        (first, most), (_, second) = Counter(read_colour(i, backgrounds) for i in images).most_common(2)
        assert first == right_option(task) and most > second, task.task_id


@pytest.mark.parametrize("source", [*FAMILIES, "brief_event?level=3&duration_s=7200&event_s=2.5&count=70"])
def test_keeps_the_contract_of_tasks(source: str) -> None:
    check_tasks(lambda: load_tasks(f"procedural:{source}"))


def test_a_task_depends_on_its_position_and_not_on_the_count() -> None:
    few, many = (load_tasks(f"procedural:brief_event?count={n}") for n in (5, 10**12))
    assert list(few) == list(many[:5])
    assert many[10**12 - 1].task_id == "brief_event-L0-600s-train-s0-999999999999"


def test_a_count_has_as_many_digits_as_an_id() -> None:
    assert len(load_tasks(f"procedural:brief_event?count={10**18}")) == 10**18
    for count in (0, 10**18 + 1, 9_999_999_999_999_999_999):
        with pytest.raises(InvalidAddress, match=f"count must be 1 to {10**18}, got {count}"):
            load_tasks(f"procedural:brief_event?count={count}")


def test_ids_are_readable_and_by_id_refuses_all_others() -> None:
    tasks = load_tasks("procedural:event_order?level=2&duration_s=90.5&count=10&split=val&seed=3&fps=16")
    name = "event_order-L2-90.5s-16fps-val-s3-000004"
    assert tasks[4].task_id == name and tasks.by_id(name) == tasks[4]
    for other in (
        name[:-6] + "000010",
        name[:-6] + "4",
        name[:-6] + "0000004",
        name.replace("L2", "L1"),
        "",
    ):
        with pytest.raises(ValueError, match="000000 to"):
            tasks.by_id(other)


def test_splits_and_seeds_share_no_video() -> None:
    sources = [f"split={split}&seed={seed}" for split in ("train", "val", "test") for seed in (0, 1)]
    videos = [t.video for s in sources for t in load_tasks(f"procedural:skim_suffices?count=100&{s}")]
    assert len(set(videos)) == len(videos)
    for remainder, split in enumerate(("train", "val", "test")):
        tasks = load_tasks(f"procedural:brief_event?split={split}&count=100")
        seeds = {Address.parse(task.video).seed % 3 for task in tasks}
        assert seeds == {remainder}, "videos of different splits could coincide"


def test_ids_addresses_and_repr_do_not_name_the_answer() -> None:
    # Counts are single digits, which are in every id.
    worded = [family for family in CHOICES if family != "counting"]
    for task in (task for family in worded for task in tasks_of(family)[:100]):
        assert not any(option in task.task_id + task.video for option in task.options)
        assert "evidence" not in repr(task) and "answer=" not in repr(task)


def test_evidence_lies_in_the_video() -> None:
    for family in FAMILIES:
        for task in tasks_of(family)[:300]:
            check_evidence(task, 600.0)


@pytest.mark.parametrize(
    ("field", "source"),
    [
        ("family", "procedural:weather"),
        ("level", "procedural:brief_event?level=9"),
        ("duration_s", "procedural:brief_event?duration_s=10"),
        ("duration_s", "procedural:brief_event?duration_s=-600"),
        ("count", "procedural:brief_event?count=0"),
        ("count", "procedural:brief_event?count=many"),
        ("split", "procedural:brief_event?split=dev"),
        ("seed", "procedural:brief_event?seed=1.5"),
        ("seed", "procedural:brief_event?seed=1&seed=2"),
        ("shape", "procedural:brief_event?shape=circle"),
        ("event_s", "procedural:brief_event?event_s=40"),
        ("event_s", "procedural:counting?event_s=13"),
        ("size", "procedural:small_detail?size=640x360"),
    ],
)
def test_a_bad_source_is_refused_by_field(field: str, source: str) -> None:
    with pytest.raises(InvalidAddress, match=field):
        load_tasks(source)


def test_settings_may_be_given_as_arguments() -> None:
    tasks = ProceduralTasks("brief_event", level=1, num_tasks=7, split="test")
    assert list(tasks) == list(load_tasks("procedural:brief_event?level=1&count=7&split=test"))
    assert pickle.loads(pickle.dumps(tasks)) == tasks
