"""Task files: what is written is read back, and every fault is named by file, line and field."""

# ruff: noqa: D103

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogym import VideoQAEnv
from videogym.datasets import (
    EvidenceError,
    TaskFileError,
    TaskList,
    check_evidence,
    load_tasks,
    read_tasks,
    write_tasks,
)
from videogym.geometry import Segment
from videogym.metadata import Metadata
from videogym.state import Task, TaskKind
from videogym.testing.dataset_suite import check_tasks

CHOICE = {
    "task_id": "a",
    "video": "folder/clip.mp4",
    "question": "What colour?",
    "kind": "choice",
    "options": ["red", "blue"],
    "answer": "B",
    "evidence": [[1.5, 2], [4, 5]],
    "source": "mine",
}
OPEN = {"task_id": "b", "video": "/abs/clip.mp4", "question": "Who?", "kind": "open", "answer": "Ann"}
NUMERIC = {
    "task_id": "c",
    "video": "clip.mp4",
    "question": "How many?",
    "kind": "numeric",
    "answer": "-3.5",
}


def write_rows(path: Path, *rows: Any) -> Path:
    path.write_bytes(
        b"\n".join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows) + b"\n"
    )
    return path


def test_each_kind_is_read(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "tasks.jsonl", CHOICE, b"", OPEN, b"  \r", NUMERIC | {"evidence": None})
    assert list(load_tasks(path)) == [
        Task(
            task_id="a",
            video="folder/clip.mp4",
            question="What colour?",
            kind="choice",
            options=("red", "blue"),
            answer="B",
            evidence=(Segment(1.5, 2.0), Segment(4.0, 5.0)),
            source="mine",
        ),
        Task(task_id="b", video="/abs/clip.mp4", question="Who?", kind="open", answer="Ann"),
        Task(task_id="c", video="clip.mp4", question="How many?", kind="numeric", answer="-3.5"),
    ]


def test_keeps_the_contract_of_tasks(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "tasks.jsonl", CHOICE, OPEN, NUMERIC)
    check_tasks(lambda: load_tasks(str(path), video_root=tmp_path))


NAN, INF = float("nan"), float("inf")
MISSPELT = {"anser" if name == "answer" else name: value for name, value in CHOICE.items()}
NO_OPTIONS = {name: value for name, value in CHOICE.items() if name != "options"}


@pytest.mark.parametrize(
    ("says", "row"),
    [
        *(
            (f"'{name}' is missing", {k: v for k, v in CHOICE.items() if k != name})
            for name in list(CHOICE)[:4]
        ),
        ("'answer' is missing", {k: v for k, v in CHOICE.items() if k != "answer"}),
        ("options", {k: v for k, v in CHOICE.items() if k != "options"}),
        ("'anser', 'evidence', 'source'; is 'anser' meant to be 'answer'?", MISSPELT),
        ("2 to 26 options, got 0; is 'option' meant to be 'options'?", NO_OPTIONS | {"option": ["x", "y"]}),
        ("metadata 'share' must be JSON", CHOICE | {"share": NAN}),
        ("metadata 'a.b[1]' must be JSON", CHOICE | {"metadata": {"a": {"b": [1, INF]}}}),
        ("metadata 'half' must be JSON", CHOICE | {"half": "\ud800"}),
        ("metadata 'large' must be JSON", CHOICE | {"large": 10**400}),
        (
            "is nested deeper than 16",
            b'{"a":' + b"[" * 40 + b"]" * 40 + b"," + json.dumps(CHOICE).encode()[1:],
        ),
        ("'metadata' must be an object, got 'sports'", CHOICE | {"metadata": "sports"}),
        (
            "'topic' stands in the line and in its 'metadata'",
            CHOICE | {"topic": 1, "metadata": {"topic": 1}},
        ),
        ("'task_id' must be non-empty text, got 7", CHOICE | {"task_id": 7}),
        ("'video' must be non-empty text, got ''", CHOICE | {"video": ""}),
        ("'question' must be non-empty text", CHOICE | {"question": "  "}),
        ("'question' must be non-empty text, got None", CHOICE | {"question": None}),
        ("'question' holds half a surrogate pair", CHOICE | {"question": "\ud800?"}),
        ("'kind' must be one of choice, open, numeric, got 'mcq'", CHOICE | {"kind": "mcq"}),
        ("answer must be one of A, B", CHOICE | {"answer": "C"}),
        ("answer must be one of A, B", CHOICE | {"answer": "b"}),
        ("'answer' must be non-empty text, got 1", CHOICE | {"answer": 1}),
        ("task 'c': answer must be a finite number", NUMERIC | {"answer": "many"}),
        ("task 'c': answer must be a finite number", NUMERIC | {"answer": "nan"}),
        ("options are only for kind 'choice'", OPEN | {"options": ["x", "y"]}),
        ("'options' must be a list of texts, got 'red'", CHOICE | {"options": "red"}),
        ("'options[1]' must be non-empty text, got 2", CHOICE | {"options": ["red", 2]}),
        ("2 to 26 options, got 1", CHOICE | {"options": ["red"]}),
        ("2 to 26 options, got 27", CHOICE | {"options": [str(i) for i in range(27)]}),
        ("'evidence' must be a non-empty list", CHOICE | {"evidence": "1-2"}),
        ("'evidence' must be a non-empty list", CHOICE | {"evidence": []}),
        ("'evidence[0]' must be [start_s, end_s]", CHOICE | {"evidence": [1, 2]}),
        ("'evidence[1]' must be [start_s, end_s]", CHOICE | {"evidence": [[1, 2], [1, 2, 3]]}),
        ("'evidence[0]' must be [start_s, end_s]", CHOICE | {"evidence": [[True, 2]]}),
        ("'evidence[0]' must be [start_s, end_s]", CHOICE | {"evidence": [["1", "2"]]}),
        ("'evidence[0]': segment bounds must be finite", CHOICE | {"evidence": [[NAN, 2]]}),
        ("'evidence[0]': segment bounds must be finite", CHOICE | {"evidence": [[0, INF]]}),
        ("'evidence[0]'", CHOICE | {"evidence": [[0, 10**400]]}),
        ("'evidence[0]': segment needs 0 <= start_s < end_s", CHOICE | {"evidence": [[3, 2]]}),
        ("'evidence[0]': segment needs 0 <= start_s < end_s", CHOICE | {"evidence": [[2, 2]]}),
        ("'evidence[0]': segment needs 0 <= start_s < end_s", CHOICE | {"evidence": [[-1, 2]]}),
        ("'source' must be text", CHOICE | {"source": None}),
        ("a row must be an object, got list", [1, 2]),
        ("a row must be an object, got str", "text"),
        ("not JSON", b'{"task_id": "a",'),
        ("not JSON", b"task a"),
        ("field 'answer' is repeated", b'{"answer": "A", "answer": "B"}'),
        ("not UTF-8", '{"task_id": "é"}'.encode("latin-1")),
        ("nested too deeply", b"[" * 100_000),
    ],
)
def test_a_fault_is_named_by_file_line_and_field(says: str, row: Any, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "tasks.jsonl", OPEN, b"", row)
    with pytest.raises(TaskFileError) as caught:
        load_tasks(path)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{path}: line 3: ")


def test_unknown_fields_are_kept_as_metadata(tmp_path: Path) -> None:
    told = {"category": "sports", "duration": "long", "tags": ["a", 1, None], "source_url": "x", "level": 2}
    path = write_rows(
        tmp_path / "tasks.jsonl", OPEN | told, NUMERIC | {"metadata": told, "own": {"x": [1]}}
    )
    first, second = read_tasks(path)
    assert first.metadata == Metadata(told) and first.metadata["tags"] == ("a", 1, None)
    assert second.metadata == Metadata(told | {"own": {"x": [1]}})
    assert first == replace(second, task_id="b", video="/abs/clip.mp4", question="Who?", kind="open",
                            answer="Ann", metadata=told)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("anser", "answer"),
        ("Answer", "answer"),
        ("awnser", "answer"),
        ("option", "options"),
        ("Evidence", "evidence"),
        ("evidences", "evidence"),
        ("quesiton", "question"),
        ("task-id", "task_id"),
        ("taskId", "task_id"),
        ("videos", "video"),
        ("kinds", "kind"),
        ("evidenceRegion", "evidence_region"),
        ("meta_data", "metadata"),
        ("sorce", "source"),
    ],
)
def test_a_name_that_is_nearly_a_field_is_kept_and_told(name: str, known: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "tasks.jsonl", OPEN, CHOICE | {name: 1}, NUMERIC | {name: 1})
    says = f"tasks.jsonl: field '{name}' \\(line 2 and 1 more\\) is kept as metadata; is '{known}' meant"
    with pytest.warns(UserWarning, match=says):
        tasks = read_tasks(path)
    assert [task.metadata for task in tasks] == [{}, {name: 1}, {name: 1}]


@pytest.mark.parametrize(
    "name",
    ["category", "duration", "question_type", "question_id", "task_type", "video_id", "caption", "captions",
     "domain", "answer_type", "resource", "score", "type", "id", "kind_of_video", "level", "tags"],
)  # fmt: skip
def test_a_name_of_its_own_is_kept_without_a_word(name: str, tmp_path: Path) -> None:
    (task,) = read_tasks(write_rows(tmp_path / "tasks.jsonl", OPEN | {name: "x"}))
    assert task.metadata == {name: "x"}


def test_a_repeated_id_names_both_lines(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "tasks.jsonl", CHOICE, OPEN, CHOICE | {"question": "Another?"})
    with pytest.raises(TaskFileError, match=r"line 3: the id 'a' is already that of line 1"):
        read_tasks(path)


def test_a_file_without_tasks_a_missing_one_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (write_rows(tmp_path / "empty.jsonl"), tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(TaskFileError, match=str(path)):
            read_tasks(path)
    with pytest.raises(TaskFileError, match=r"none\.jsonl: there is no task to write"):
        write_tasks(tmp_path / "none.jsonl", iter(()))
    assert not (tmp_path / "none.jsonl").exists(), "which could not be read"


def test_what_cannot_be_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"procedural:.*, mixture:\.\.\., a \.jsonl or .*, or FORMAT:PATH .*; got 'tasks\.csv'",
    ):
        load_tasks("tasks.csv")
    path = write_rows(tmp_path / "tasks.jsonl", OPEN)
    with pytest.raises(ValueError, match="video_root must be a folder, got '/no/such'"):
        load_tasks(path, video_root="/no/such")


def test_the_error_survives_a_worker_process(tmp_path: Path) -> None:
    error = TaskFileError(tmp_path / "x.jsonl", "line 2", "field 'a' is unknown")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.place) == (str(error), "line 2")


# Characters that count as line ends in other places must not split a line of the file.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
texts |= st.sampled_from(["\u2028a\u0085b\x1c", "</answer>", '"\\', "<|im_end|>", "ⅰ é 中"])
segments = st.builds(lambda a, b: Segment(a, a + b), st.floats(0, 1e5), st.floats(0.001, 1e5))
plain = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | texts
plain |= st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(plain, lambda v: st.lists(v, max_size=2) | st.dictionaries(texts, v, max_size=2))


@st.composite
def some_tasks(draw: st.DrawFn) -> list[Task]:
    tasks = []
    for i in range(draw(st.integers(1, 4))):
        kind: TaskKind = draw(st.sampled_from(("choice", "open", "numeric")))
        options = draw(st.lists(texts, min_size=2, max_size=26)) if kind == "choice" else []
        number = st.floats(allow_nan=False, allow_infinity=False).map(repr)
        answers = {
            "choice": st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(options)]),
            "numeric": number,
        }
        tasks.append(
            Task(
                task_id=f"{i}{draw(texts)}",
                video=draw(texts),
                question=draw(texts),
                kind=kind,
                options=tuple(options),
                answer=draw(answers.get(kind, st.just("") | texts)),
                evidence=draw(st.none() | st.lists(segments, min_size=1, max_size=3).map(tuple)),
                source=draw(st.just("") | texts),
                metadata=draw(st.dictionaries(texts, json_values, max_size=3)),
            )
        )
    return tasks


@given(some_tasks())
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, tasks: list[Task]) -> None:
    path = tmp_path_factory.mktemp("round") / "tasks.jsonl"
    write_tasks(path, tasks)
    assert list(read_tasks(path)) == tasks


any_text = st.text(max_size=4) | st.sampled_from(["", " ", "\ud800", "\ufeff", "A. red"])


@given(st.tuples(*[any_text] * 5), st.none() | st.just(()) | st.just((Segment(0, 1e300),)))
def test_a_task_comes_back_equal_or_is_refused_by_its_name(
    tmp_path_factory: pytest.TempPathFactory, fields: tuple[str, ...], evidence: tuple[Segment, ...] | None
) -> None:
    task_id, video, question, answer, source = fields
    if not (task_id and video and question):
        return
    path = tmp_path_factory.mktemp("round") / "tasks.jsonl"
    task = Task(task_id, video, question, "open", answer=answer, evidence=evidence, source=source)
    try:
        write_tasks(path, [task])
    except ValueError as error:
        assert repr(task_id) in str(error) and not list(path.parent.iterdir())
    else:
        assert list(read_tasks(path)) == [task]


def test_an_open_task_may_have_no_answer_and_two_of_one_id_are_not_written(tmp_path: Path) -> None:
    path, task = tmp_path / "tasks.jsonl", Task("t", "v.mp4", "What happens?", "open")
    write_tasks(path, [task])
    assert list(read_tasks(path)) == [task]
    with pytest.raises(ValueError, match="task 't' is there twice"):
        write_tasks(path, [task, task])
    with pytest.raises(ValueError, match="task 't' cannot be written: field 'question' must be non-empty"):
        write_tasks(path, [replace(task, question=" ")])
    assert list(read_tasks(path)) == [task]


@pytest.mark.parametrize("task_id", [5, None, 2.5, ["t"], b"t", {"t": 1}], ids=repr)
def test_an_id_that_is_no_text_is_refused_like_any_other(task_id: Any) -> None:
    for tasks in ([Task("t", "v.mp4", "What?", "open")], "procedural:brief_event?count=3"):
        env = VideoQAEnv(tasks)
        with pytest.raises(ValueError, match="no task"):
            env.reset(options={"task_id": task_id})
        env.close()


@pytest.mark.parametrize("family", ["event_order", "small_detail", "digits"])
def test_procedural_tasks_can_be_written(tmp_path: Path, family: str) -> None:
    tasks = load_tasks(f"procedural:{family}?count=5")
    write_tasks(tmp_path / "tasks.jsonl", tasks)
    assert list(load_tasks(tmp_path / "tasks.jsonl")) == list(tasks)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tasks.jsonl"]


@pytest.mark.parametrize(
    "region", [[0, 0, 1], [0, 0, 2, 1], [0.5, 0, 0.5, 1], [0, 0, 1, True], "all", [0, 0, 1, "1"]]
)
def test_a_region_that_is_none_is_refused(tmp_path: Path, region: object) -> None:
    path = tmp_path / "tasks.jsonl"
    row = {"task_id": "a", "video": "a.mp4", "question": "Who?", "kind": "open", "answer": "Ann"}
    path.write_text(json.dumps({**row, "evidence": [[0, 1]], "evidence_region": region}) + "\n")
    with pytest.raises(TaskFileError, match=r"line 1.*evidence_region"):
        read_tasks(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    write_tasks(path, load_tasks("procedural:brief_event?count=2"))
    before = path.read_bytes()

    def broken() -> Any:
        yield from load_tasks("procedural:event_order?count=1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tasks(path, broken())
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["tasks.jsonl"]


def with_evidence(*bounds: tuple[float, float]) -> Task:
    evidence = tuple(Segment(*b) for b in bounds)
    return Task(task_id="t", video="v.mp4", question="Q?", kind="open", answer="a", evidence=evidence)


@pytest.mark.parametrize("bounds", [(0, 10), (9.9, 10), (9.9, 11)])
def test_evidence_in_the_video_passes_even_if_rounded_up_a_second(bounds: tuple[float, float]) -> None:
    check_evidence(with_evidence((1, 2), bounds), 10.0)


@pytest.mark.parametrize("bounds", [(10, 10.5), (9, 11.1), (100, 200)])
def test_evidence_outside_the_video_is_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(EvidenceError, match=rf"task 't': evidence \[{bounds[0]:g}, .* video of 10 s"):
        check_evidence(with_evidence((1, 2), bounds), 10.0)


def test_no_evidence_fits_any_video() -> None:
    check_evidence(Task(task_id="t", video="v", question="Q?", kind="open", answer="a"), 1.0)


def test_a_list_of_tasks_refuses_repeated_ids() -> None:
    task = with_evidence((0, 1))
    with pytest.raises(ValueError, match="task_id 't' is repeated"):
        TaskList([task, task])


# --- options with letters ----------------------------------------------------------------------


def lettered(*options, answer="A"):
    """A choice with these options."""
    return Task("t", "v.mp4", "Which?", "choice", options, answer)


@pytest.mark.parametrize("form", ["{}. {}", "({}) {}", "{}) {}", "{}: {}", " {}.  {}"])
@pytest.mark.parametrize("letters", ["ABC", "abc"])
def test_options_lose_letters_that_count_up_over_all_of_them(form, letters, tmp_path):
    texts = ("sixty", "6. six", "C.\nsea")
    with pytest.warns(UserWarning, match="lose these"):
        task = lettered(*(form.format(*pair) for pair in zip(letters, texts, strict=True)))
    assert task.options == texts and task.labelled_options[0] == "A. sixty"
    assert replace(task) == task  # what is cut off is cut off
    path = tmp_path / "tasks.jsonl"
    write_tasks(path, [task])
    path.write_text(path.read_text().replace('"sixty"', '"A. sixty"'))
    assert read_tasks(path)[0].options == ("A. sixty", *texts[1:])  # not all of them have one


@pytest.mark.parametrize(
    "options",
    [
        ("B", "C", "A", "D"),
        ("A", "B"),
        ("A.", "B."),
        ("A. red", "blue"),
        ("B. red", "A. blue"),
        ("A. red", "C. blue"),
        ("A. red", "b. blue"),
        ("A.M.", "B.M."),
        ("A red", "B blue"),
        ("1. red", "2. blue"),
    ],
)
def test_options_without_such_letters_stay_as_they_are(options):
    assert lettered(*options).options == options


def test_the_warning_is_shown_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for i in range(5):
            lettered(f"A. red {i}", "B. blue")
    assert len(caught) == 1 and caught[0].filename == __file__


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text("{}\n" * 100, encoding="utf-8")
    with pytest.raises(TaskFileError) as caught:
        load_tasks(tmp_path / "tasks.jsonl")
    assert str(caught.value).count("line ") == 10 and str(caught.value).endswith("; and 90 more")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and len(again.others) == 99


def test_the_byte_order_mark_of_an_editor_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(OPEN).encode())
    assert load_tasks(tmp_path / "tasks.jsonl")[0].task_id == "b"
