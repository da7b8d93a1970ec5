"""The guard that refuses to evaluate on what was trained on."""

# ruff: noqa: D103

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogym.datasets import (
    Overlap,
    ProceduralTasks,
    TrainedOnError,
    find_overlap,
    load_tasks,
    require_unseen,
    require_unseen_files,
)
from videogym.state import Task
from videogym.video.planted import Insertion, PlantedAddress


def task(task_id: str, video: str, question: str = "Who sings?") -> Task:
    return Task(task_id=task_id, video=video, question=question, kind="open", answer="Ann")


TRAINED = [task("1", "NExT/0063/2435100235.mp4"), task("2", "b.mp4", "Why is it\nblue ?")]


@pytest.mark.parametrize(
    ("video", "question", "shares_video", "shares_question"),
    [
        ("0063/2435100235.mp4", "Who sings?", True, True),
        ("/elsewhere/2435100235.mkv", "who  sings", True, True),
        ("2435100235.mp4", "Who dances?", True, False),
        (r"C:\data\B.MP4", "why is it blue?", True, True),
        ("B", "Why is it ｂlue?", True, True),
        ("24351002350.mp4", "Who sings?", False, False),
        ("2435100235.5.mp4", "Who sings?", False, False),
    ],
)
def test_videos_are_known_by_name_and_questions_by_their_words(
    video: str, question: str, shares_video: bool, shares_question: bool
) -> None:
    overlap = find_overlap([task("x", video, question)], TRAINED)
    assert overlap == Overlap(("x",) * shares_video, ("x",) * shares_question)


def test_a_question_of_another_video_is_another_question() -> None:
    assert find_overlap([task("x", "b.mp4", "Who sings?")], TRAINED) == Overlap(("x",), ())


def test_the_error_says_what_is_shared() -> None:
    tasks = [task("same", "b.mp4", "why is it blue?"), task("video", "b.mp4"), task("new", "c.mp4")]
    with pytest.raises(TrainedOnError) as caught:
        require_unseen(tasks, TRAINED)
    assert caught.value.overlap == Overlap(("same", "video"), ("same",))
    assert str(caught.value) == (
        "2 of 3 tasks ask about videos that were trained on, 1 of them the same question: same, video"
    )
    with pytest.raises(TrainedOnError, match=r"the same question: same$"):
        require_unseen(tasks, TRAINED, by="question")
    require_unseen(tasks[1:], TRAINED, by="question")
    require_unseen(tasks[2:], TRAINED)


@pytest.mark.parametrize(
    ("file", "shared"),
    [
        ("elsewhere/B.mkv", ("x", "y")),
        ("frames/b.jpg", ("x", "y")),  # a frame, by its own name
        ("frames/b/000017.png", ("x", "y")),  # or by its folder's
        ("frames/b.mp4/000017.png", ("x", "y")),  # which may keep the ending
        ("frames/B.mkv.jpg", ("x", "y")),
        ("frames/b/more/000017.png", ()),
        ("b/other.mp4", ()),
        ("bb.jpg", ()),
    ],
)
def test_files_without_questions_are_compared_by_their_names(file: str, shared: tuple[str, ...]) -> None:
    tasks = [task("x", "b.mp4"), task("y", "b.mp4", "Why?"), task("z", "c.mp4")]
    require_unseen_files(tasks, ["a.mp4"])
    if not shared:
        return require_unseen_files(tasks, [file])
    with pytest.raises(TrainedOnError, match=r"^2 of 3 tasks ask about videos .*: x, y$") as caught:
        require_unseen_files(tasks, iter(["a.mp4", file]))
    assert caught.value.overlap == Overlap(shared, ())


def test_many_tasks_are_counted_and_some_named() -> None:
    with pytest.raises(TrainedOnError, match=r"^9 of 9 tasks .*: 0, 1, 2, 3, 4, \.\.\.$"):
        require_unseen([task(str(i), "b.mp4") for i in range(9)], TRAINED)


def test_the_error_survives_a_worker_process() -> None:
    error = TrainedOnError(Overlap(("a",), ()), "video", 3)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.overlap) == (str(error), error.overlap)


def test_splits_of_a_procedural_source_are_apart_and_a_source_is_not_unseen() -> None:
    train, test = (load_tasks(f"procedural:brief_event?count=50&split={s}") for s in ("train", "test"))
    require_unseen(test, train)
    with pytest.raises(TrainedOnError, match=r"^50 of 50 tasks"):
        require_unseen(train, train)


def test_a_procedural_source_that_holds_none_of_the_videos_is_not_gone_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 40,000 tasks only the first is made, which tells what the addresses of all have in common."""
    made: list[int] = []
    make = ProceduralTasks._task
    monkeypatch.setattr(ProceduralTasks, "_task", lambda self, i: made.append(i) or make(self, i))
    source = "procedural:brief_event?duration_s=60&count=40000"
    train = load_tasks(source)
    assert isinstance(train, ProceduralTasks)
    others = [load_tasks(f"{source}&split=val")[3], load_tasks(f"{source}&level=1")[3]]
    others += [load_tasks(f"{source}&event_s=2")[3], load_tasks(source.replace("60", "90"))[3]]
    others += [load_tasks(source.replace("brief_event", "digits"))[3]]
    made.clear()
    assert find_overlap([*others, *TRAINED, task("x", "synthetic:nothing")], train) == Overlap((), ())
    assert set(made) == {0}


def test_a_video_of_a_procedural_source_is_found_whatever_stands_beside_it() -> None:
    train = load_tasks("procedural:brief_event?count=30&split=train")
    same, copied = train[29], task("copied", train[7].video)
    found = find_overlap([*TRAINED, same, copied], train)
    assert found == Overlap((same.task_id, "copied"), (same.task_id,))
    reseeded = load_tasks("procedural:brief_event?count=30&split=train&seed=1")
    assert find_overlap(reseeded, train) == Overlap((), ()), "may be of it, and is not"


def test_what_may_not_be_shared_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="by must be 'video' or 'question', got 'task'"):
        require_unseen([], [], by="task")  # type: ignore[arg-type]


names = st.sampled_from(["a", "b/a", "c", "d"]).map(lambda name: name + ".mp4")
some_tasks = st.lists(st.builds(lambda v, q: task(f"{v}{q}", v, q), names, st.sampled_from(["Q?", "R?"])))


@given(some_tasks, some_tasks)
def test_what_passes_the_guard_shares_nothing(tasks: list[Task], trained: list[Task]) -> None:
    seen = {t.video.split("/")[-1] for t in trained}
    shared = any(t.video.split("/")[-1] in seen for t in tasks)
    try:
        require_unseen(tasks, trained)
        assert not shared
    except TrainedOnError as error:
        assert shared
        assert set(error.overlap.questions) <= set(error.overlap.videos)


def test_what_is_planted_into_a_file_is_the_same_footage():
    """Whatever is drawn into it, and wherever the file lies."""
    box = (0.1, 0.1, 0.2, 0.2)
    one, other = (
        str(PlantedAddress(path, "0", (Insertion(1, 2, box, kind),)))
        for path, kind in (("a/bikes.mp4", "ellipse"), ("bikes.mkv", "diamond"))
    )
    asked = [
        Task(f"t{i}", video, "what?", "open") for i, video in enumerate((one, "b/bikes.mp4", "cars.mp4"))
    ]
    assert find_overlap(asked, [Task("x", other, "which?", "open")]).videos == ("t0", "t1")
