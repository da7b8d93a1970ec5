"""Tasks of several sources by weight: how often each is drawn, and what is refused in a line."""

# ruff: noqa: D103

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogym import Task, VideoQAEnv
from videogym.datasets import Mixture, load_tasks
from videogym.datasets.mixture import read_parts, written_out
from videogym.testing.coded_clips import read_code, write_clip
from videogym.video import VideoError

EVENTS = "procedural:brief_event?count=3&duration_s=60"
WHO = Task(task_id="who", video="a.mp4", question="Who?", kind="open", answer="Ann")
DIGITS = "procedural:digits?count=30&duration_s=60"


def mixture(*parts: dict[str, Any]) -> str:
    return "mixture:" + json.dumps(parts)


def rows(path: Path, *tasks: dict[str, Any]) -> str:
    usual = {"video": "a.mp4", "question": "Who?", "kind": "open", "answer": "Ann"}
    path.write_text("\n".join(json.dumps(usual | task) for task in tasks), encoding="utf-8")
    return str(path)


def test_parts_are_drawn_by_weight_whatever_their_size() -> None:
    env = VideoQAEnv(mixture({"tasks": EVENTS, "weight": 3}, {"tasks": DIGITS}))
    assert len(env.tasks) == 33
    of_events = sum(env.tasks.draw(np.random.default_rng(seed)) < 3 for seed in range(1200))
    assert abs(of_events - 900) < 75  # five standard deviations


CURRICULUM = mixture(
    {"tasks": EVENTS, "weight": [[10, 4], [20, 0]]},
    {"tasks": DIGITS, "weight": [[0, 0], [20, 2]]},
)


def test_a_weight_by_iteration_is_on_the_line_between_its_points() -> None:
    """Weights 4 and 1 at iteration 10, by hand; 2 and 1.5 at 15; before and behind, what is at the ends."""
    tasks = load_tasks(CURRICULUM)
    assert isinstance(tasks, Mixture) and tasks.shares == (1.0, 0.0)
    expected = {0: (4, 0), 5: (4, 0.5), 10: (4, 1), 15: (2, 1.5), 20: (0, 2), 999: (0, 2)}
    for iteration, (first, second) in expected.items():
        shares = (first / (first + second), second / (first + second))
        assert tasks.shares_at(iteration) == pytest.approx(shares)
    assert load_tasks(written_out(CURRICULUM)).draw(np.random.default_rng(0), 999) >= 3


def test_an_environment_draws_as_at_the_iteration_it_is_told() -> None:
    env = VideoQAEnv(CURRICULUM)
    drawn: dict[int, set[str]] = {}
    for iteration in (0, 20):
        told = [env.reset(seed=seed, options={"iteration": iteration})[1] for seed in range(12)]
        drawn[iteration] = {str(info["task_id"]).split("-")[0] for info in told}
    assert len(drawn[0]) == len(drawn[20]) == 1 and drawn[0] != drawn[20]
    for wrong in (-1, 1.5, True, "3"):
        with pytest.raises(ValueError, match=r"iteration must be a whole number of at least 0, got"):
            env.reset(options={"iteration": wrong})


def test_every_task_of_a_part_is_drawn_alike() -> None:
    tasks = load_tasks(mixture({"tasks": EVENTS, "weight": 0.25}, {"tasks": DIGITS, "weight": 0.75}))
    generator = np.random.default_rng(0)
    places = Counter(tasks.draw(generator) for _ in range(4000))
    assert set(places) == set(range(33))
    # A thousand draws over 3 tasks, three thousand over 30: 333 each, 100 each.
    assert all(abs(places[place] - 1000 / 3) < 90 for place in range(3))
    assert all(abs(places[place] - 100) < 50 for place in range(3, 33))


@pytest.mark.parametrize("weight", [[[0, 0], [9, 1]], [[0, 1e-300], [9, 1]], 1e-12])
def test_a_mixture_whose_part_of_weight_has_no_video_comes_to_an_end(weight: Any, tmp_path: Path) -> None:
    """A part that is never drawn, or once in a million years, is not waited for."""
    gone = rows(tmp_path / "gone.jsonl", {"task_id": "x"}, {"task_id": "y", "video": "b.mp4"})
    env = VideoQAEnv(mixture({"tasks": gone}, {"tasks": EVENTS, "weight": weight}), on_bad_video="skip")
    if weight == [[0, 0], [9, 1]]:
        with pytest.raises(VideoError, match="none of the 2 tasks that can be drawn has a usable video"):
            env.reset(seed=0)
    else:
        assert str(env.reset(seed=0)[1]["task_id"]).startswith("brief_event")
    later = env.reset(seed=0, options={"iteration": 9})[1]
    assert str(later["task_id"]).startswith("brief_event")


def test_what_is_drawn_after_bad_videos_has_the_chances_that_are_left(tmp_path: Path) -> None:
    """Of weights 2, 1, 1 over 2, 1 and 3 tasks: without the first task 1, 1, 1 parts of 3, by hand."""
    parts = [
        {"tasks": rows(tmp_path / f"{name}.jsonl", *({"task_id": f"{name}{i}"} for i in range(count)))}
        for name, count in (("a", 2), ("b", 1), ("c", 3))
    ]
    tasks = load_tasks(mixture(parts[0] | {"weight": 2}, *parts[1:]))
    assert tasks.chances().tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 4, *[1 / 12] * 3])
    generator = np.random.default_rng(0)
    seconds: Counter[str] = Counter()
    for _ in range(9000):
        first, second, *others = tasks.draws(generator)
        assert {first, second, *others} == set(range(6))
        if first == 0:
            seconds[tasks[second].task_id[0]] += 1
    count = sum(seconds.values())  # about a quarter
    assert abs(count - 2250) < 210
    assert all(abs(seconds[name] - count / 3) < 5 * (count * 2 / 9) ** 0.5 for name in "abc")


def test_a_seed_draws_the_same_task_in_every_environment() -> None:
    source = mixture({"tasks": EVENTS}, {"tasks": DIGITS, "weight": 2})
    one, other = VideoQAEnv(source), VideoQAEnv(source)
    for seed in range(10):
        assert one.reset(seed=seed)[1]["task_id"] == other.reset(seed=seed)[1]["task_id"]


def test_a_part_can_ask_for_metadata_and_have_a_folder(tmp_path: Path) -> None:
    for name, first in (("one", 100), ("two", 200)):
        (tmp_path / name).mkdir()
        write_clip(tmp_path / name / "a.mp4", count=60, first=first)
    mine = rows(
        tmp_path / "mine.jsonl",
        {"task_id": "e", "metadata": {"level": "easy"}},
        {"task_id": "m", "metadata": {"level": "middle"}},
        {"task_id": "h", "metadata": {"level": "hard"}},
        {"task_id": "none"},
    )
    other = rows(tmp_path / "other.jsonl", {"task_id": "o"})
    own = {"tasks": mine, "video_root": str(tmp_path / "one")}
    easy = own | {"weight": 2, "where": {"level": ["easy", "middle"]}}
    hard = own | {"where": {"level": "hard"}}
    elsewhere = {"tasks": other, "video_root": str(tmp_path / "two")}
    path = tmp_path / "mix.json"
    path.write_text(json.dumps([easy, hard, elsewhere]))
    tasks = load_tasks(f"mixture:{path}", tmp_path)
    assert [task.task_id for task in tasks] == ["e", "m", "h", "o"]
    assert isinstance(tasks, Mixture) and tasks.shares == (0.5, 0.25, 0.25)
    env = VideoQAEnv(f"mixture:{path}", video_root=str(tmp_path), observe="pixels", frame_size=(160, 96))
    for task_id, code in (("h", 100), ("o", 200)):
        observation, _ = env.reset(options={"task_id": task_id})
        assert read_code(np.asarray(observation["clip"])[0]) == code
    # What a run keeps needs no file, and is the same mixture.
    whole = written_out(f"mixture:{path}")
    path.unlink()
    assert read_parts(whole) == read_parts(written_out(whole)) and "\n" not in whole
    assert list(load_tasks(whole)) == list(load_tasks(whole, tmp_path)) == list(tasks)
    with pytest.raises(ValueError, match=r"two of .*other.jsonl lies outside video_root .*one"):
        load_tasks(written_out(mixture(elsewhere)), tmp_path / "one")


@pytest.mark.parametrize("weight", [0, [[0, 0]], [[0, 0], [5, 0]]])
def test_a_part_of_weight_0_is_not_even_read(weight: Any) -> None:
    tasks = load_tasks(mixture({"tasks": "gone.jsonl", "weight": weight}, {"tasks": EVENTS}))
    assert len(tasks) == 3 and all(tasks.draw(np.random.default_rng(seed)) < 3 for seed in range(20))


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([], r"a mixture is a list of objects with tasks, weight, video_root, where, got \[\]"),
        ([3], r"a mixture is a list of objects .* got \[3\]"),
        ([{"tasks": EVENTS, "weight": 0}, {"tasks": DIGITS, "weight": 0.0}], "2 parts sum to 0"),
        ([{"tasks": EVENTS, "weight": -1}], "part 1: weight must be a number from 0 to 1e[+]09, got -1"),
        ([{"tasks": EVENTS, "weight": float("nan")}], "part 1: weight must be a number .* got nan"),
        ([{"tasks": EVENTS, "weight": float("inf")}], "part 1: weight must be a number .* got inf"),
        ([{"tasks": EVENTS, "weight": 10**400}], "part 1: weight must be a number .* got 1000"),
        ([{"tasks": EVENTS, "weight": True}], "part 1: weight must be a number .* got True"),
        ([{"tasks": EVENTS, "weight": "2"}], "part 1: weight must be a number .* got '2'"),
        (
            [{"tasks": EVENTS}, {"weight": 1}],
            "part 2: tasks must name a source that is no mixture, got None",
        ),
        (
            [{"tasks": EVENTS, "weight": [[0, 1], [9, 0]]}, {"tasks": DIGITS, "weight": [[9, 0], [10, 1]]}],
            "2 parts sum to 0 at iteration 9; one must be above 0",
        ),
        ([{"tasks": EVENTS, "weight": []}], r"part 1: a weight by iteration is a list of .* got \[\]"),
        ([{"tasks": EVENTS, "weight": [[5, 1], [5, 2]]}], r"that rise from at least 0, got \[\[5, 1"),
        ([{"tasks": EVENTS, "weight": [[-1, 1]]}], r"that rise from at least 0, got \[\[-1, 1"),
        ([{"tasks": EVENTS, "weight": [[0.5, 1]]}], r"whole numbers .* got \[\[0.5, 1"),
        ([{"tasks": EVENTS, "weight": [[0, 1], [10**400, 1]]}], r"numbers of at most 1e[+]09 .* got \[\[0"),
        ([{"tasks": EVENTS, "weight": [3, 1]}], r"a list of \[iteration, weight\] .* got \[3, 1\]"),
        ([{"tasks": EVENTS, "weight": [[0, -1]]}], "weight must be a number from 0 to 1e[+]09, got -1"),
        ([{"tasks": "mixture:[]"}], "part 1: tasks must name a source that is no mixture"),
        ([{"tasks": EVENTS, "weights": 1}], "part 1: there is no field 'weights'; there are tasks, weight"),
        ([{"tasks": EVENTS, "video_root": "gone/"}], "part 1: video_root must be a folder, got 'gone/'"),
        ([{"tasks": EVENTS, "where": ["easy"]}], "part 1: where must be an object of metadata"),
        ([{"tasks": EVENTS, "where": {"level": "hard"}}], r"none of its 3 tasks is taken with \{'level'"),
        ([{"tasks": EVENTS}, {"tasks": EVENTS}], "ids of a mixture must differ"),
        ([{"tasks": "other.txt"}], "tasks come from procedural:"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(parts: list[Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        load_tasks("mixture:" + json.dumps(parts))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "gone.json", "[", "[" * 100_000, f'[{{"tasks": "a", "tasks": "{EVENTS}"}}]']
)
def test_a_file_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        load_tasks(f"mixture:{text}")


@given(st.lists(st.floats(1e-300, 1e9), min_size=1, max_size=6), st.integers(0, 2**32))
def test_shares_are_weights_over_their_sum(weights: list[float], seed: int) -> None:
    made = [
        ([replace(WHO, task_id=f"{part}.{number}") for number in range(part + 1)], weight)
        for part, weight in enumerate(weights)
    ]
    tasks = Mixture(made)
    exact = [Fraction(weight) / sum(map(Fraction, weights)) for weight in weights]
    assert tasks.shares == pytest.approx([float(share) for share in exact], rel=1e-9, abs=1e-300)
    assert 0 <= tasks.draw(np.random.default_rng(seed)) < len(tasks) == sum(range(1, len(weights) + 1))
