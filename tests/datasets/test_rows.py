"""Rows of files in every format, and fields in every shape in which tables store them."""

# ruff: noqa: D103

from __future__ import annotations

import builtins
import datetime
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogym.datasets import TaskFileError, load_tasks, read_cg_bench, read_mlvu, read_video_mme
from videogym.datasets.fields import inline_options, options_of, video_of
from videogym.datasets.rows import read_rows
from videogym.geometry import Segment

ROW = {
    "qid": "1",
    "video_uid": "u",
    "question": "Who?",
    "choices": ["Ann", "Bo"],
    "right_answer": "B",
    "clue_intervals": [[1.5, 2.0]],
}


def parquet(path: Path, **columns: Any) -> Path:
    """One row of CG-Bench, with other columns."""
    arrays = {name: pyarrow.array([value]) for name, value in ROW.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays | columns), path)
    return path


def test_json_rows_tell_their_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('\n[ {"a": "one\\ntwo",\n  "b": [1,\n 2]},\n\n  {"a": 3}, {"a": 4}\n ] \n')
    assert [(row.place, row.number, row.fields) for row in read_rows(path)] == [
        ("row 1 (line 2)", 1, {"a": "one\ntwo", "b": [1, 2]}),
        ("row 2 (line 6)", 2, {"a": 3}),
        ("row 3 (line 6)", 3, {"a": 4}),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"a": 1}', "row 1 (line 1): not JSON: after this row ',' or ']' is expected"),
        ('[{"a": 1} {"a": 2}]', "row 1 (line 1): not JSON: after this row ',' or ']' is expected"),
        ('[{"a": 1},\n]', "row 2 (line 2): not JSON: Expecting value"),
        ('[{"a": 1},\n{"a": 1, "a": 2}]', "row 2 (line 2): field 'a' is repeated"),
        ("[] x", "not JSON: there is text after the list"),
        ("[{}] {}", "not JSON: there is text after the list"),
        ("", "not JSON: Expecting value"),
        ('"rows"', "the file must hold a list of objects, got str"),
    ],
)
def test_a_list_that_is_not_json_is_named_by_its_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(TaskFileError) as caught:
        list(read_rows(path))
    assert str(caught.value).startswith(f"{path}: {says}")


texts = st.text(max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=50)
@given(st.lists(st.dictionaries(texts, json_values, max_size=2), max_size=4), st.sampled_from([None, 0, 2]))
def test_json_rows_are_what_the_json_module_reads(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], indent: int | None
) -> None:
    path = tmp_path_factory.mktemp("json") / "rows.json"
    text = json.dumps(rows, indent=indent)
    path.write_text(text)
    assert [row.fields for row in read_rows(path)] == rows
    if indent is not None:  # an object begins on a line of its own, which counts back to it
        lines = text.split("\n")
        for row in read_rows(path):
            assert lines[int(row.place.split("line ")[1].rstrip(")")) - 1].strip().startswith("{")


def test_csv_rows_tell_the_line_on_which_they_begin(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes('\ufeffa,b\r\n1,"two\nlines"\r\n\r\n3,"4, ""5"""\r\n'.encode())
    assert [(row.place, row.fields) for row in read_rows(path)] == [
        ("line 2", {"a": "1", "b": "two\nlines"}),
        ("line 5", {"a": "3", "b": '4, "5"'}),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a,b\n1,2\n3\n", "line 3: the row has 1 fields, the header 2"),
        (b"a,b\n1,2,3\n", "line 2: the row has 3 fields, the header 2"),
        (b"a,a\n1,2\n", "line 1: a column of the header is repeated"),
        (b'a\n"open\n', "line 2: not CSV"),
        (b"a\n\xff\n", "not UTF-8"),
    ],
)
def test_a_file_that_is_not_csv_is_named_by_its_line(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(TaskFileError) as caught:
        list(read_rows(path))
    assert str(caught.value).startswith(f"{path}: {says}")


def test_a_folder_of_parts_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name, uid in (("b.jsonl", "2"), ("a.jsonl", "1"), (".hidden", "0"), ("readme.md", "0")):
        (tmp_path / name).write_text(json.dumps(ROW | {"qid": uid}))
    assert [task.task_id for task in load_tasks(f"cg-bench:{tmp_path}")] == ["1", "2"]
    (tmp_path / "b.jsonl").write_text(json.dumps(ROW | {"qid": "1"}))
    says = rf"b\.jsonl: line 1: the id '1' is already that of {tmp_path}/a\.jsonl, line 1"
    with pytest.raises(TaskFileError, match=says):
        load_tasks(f"cg-bench:{tmp_path}")


def test_a_folder_of_several_formats_or_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskFileError, match=r"a folder must hold .* files, found no such file"):
        read_cg_bench(tmp_path)
    for name in ("a.json", "b.csv"):
        (tmp_path / name).touch()
    with pytest.raises(TaskFileError, match=r"found files of several formats \(\.csv, \.json\)"):
        read_cg_bench(tmp_path)
    with pytest.raises(TaskFileError, match=r"the file must end in \.json, \.jsonl, \.csv, \.parquet"):
        read_cg_bench(tmp_path / "a.tsv")


# --- parquet -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array([[np.array([1.5, 2.0])]]),
        pyarrow.array([[np.array([1.5, 2.0], dtype=np.float32)]]),
        pyarrow.array([[[1.5, 2.0]]], pyarrow.large_list(pyarrow.list_(pyarrow.float64(), 2))),
        pyarrow.array(
            [[[Decimal("1.5"), Decimal("2.0")]]], pyarrow.list_(pyarrow.list_(pyarrow.decimal128(9, 2)))
        ),
        pyarrow.array(["[[1.5, 2]]"]),
        pyarrow.array([" [[1.5, 2]]\n"], pyarrow.large_string()),
        pyarrow.array(["[[1.5, 2]]"]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_segments_are_read_however_a_table_stores_them(column: Any, tmp_path: Path) -> None:
    (task,) = read_cg_bench(parquet(tmp_path / "rows.parquet", clue_intervals=column))
    assert task.evidence == (Segment(1.5, 2.0),)


@pytest.mark.parametrize(
    ("name", "column", "says"),
    [
        ("question", pyarrow.array([b"Who?"]), "'question' must be non-empty text, got b'Who?'"),
        ("question", pyarrow.nulls(1), "'question' must be non-empty text, got None"),
        ("question", pyarrow.array([{"en": "Who?"}]), "'question' must be non-empty text, got {'en'"),
        ("qid", pyarrow.array([1.5]), "'qid' must be non-empty text, got 1.5"),
        ("video_uid", pyarrow.array([datetime.date(2020, 1, 1)]), "'video_uid' must be non-empty text"),
        ("choices", pyarrow.array([["Ann", None]]), "'choices[1]' must be non-empty text, got None"),
        (
            "choices",
            pyarrow.array(["['Ann', 'Bo']"]),
            '(Python code is not evaluated), got "[',
        ),
        ("choices", pyarrow.array(["__import__('os')"]), "(Python code is not evaluated)"),
        (
            "choices",
            pyarrow.array([[("a", "b")]], pyarrow.map_(pyarrow.string(), pyarrow.string())),
            "'choices[0]' must be non-empty text, got ('a', 'b')",
        ),
        ("clue_intervals", pyarrow.array([[["1", "2"]]]), "'clue_intervals[0]' must be [start_s, end_s]"),
        ("clue_intervals", pyarrow.array([[[1.0, float("nan")]]]), "'clue_intervals[0]': segment bounds"),
        ("clue_intervals", pyarrow.array([[1.0, 2.0]]), "'clue_intervals[0]' must be [start_s, end_s]"),
        (
            "clue_intervals",
            pyarrow.array([[datetime.timedelta(seconds=1)]]),
            "'clue_intervals[0]' must be [start_s, end_s], two numbers, got datetime.timedelta(seconds=1)",
        ),
    ],
)
def test_other_column_types_are_refused_by_name(name: str, column: Any, says: str, tmp_path: Path) -> None:
    path = parquet(tmp_path / "rows.parquet", **{name: column})
    with pytest.raises(TaskFileError) as caught:
        read_cg_bench(path)
    assert str(caught.value).startswith(f"{path}: row 1: ")
    assert says in str(caught.value)


def test_only_the_columns_of_a_format_are_read(tmp_path: Path) -> None:
    # Bytes that are no UTF-8 in a column that nobody asked for.
    broken = pyarrow.Array.from_buffers(
        pyarrow.string(), 1, [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0"), pyarrow.py_buffer(b"\xff")]
    )
    assert len(read_cg_bench(parquet(tmp_path / "rows.parquet", other=broken))) == 1
    says = "rows 1 to 1: a text is not UTF-8"
    with pytest.raises(TaskFileError, match=says):
        read_cg_bench(parquet(tmp_path / "rows.parquet", question=broken))


def test_a_table_of_another_data_set_says_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"messages": ["x"]}), path)
    with pytest.raises(
        TaskFileError, match=r"none of the fields question_id, .* is in it; it has messages"
    ):
        read_video_mme(path)


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "rows.parquet", question=pyarrow.array(["".join(map(chr, range(40, 20_000)))])
    )
    whole = path.read_bytes()
    for content in (whole[:-1], whole[len(whole) // 2 :], whole[:-9] + b"x" + whole[-8:]):
        path.write_bytes(content)
        with pytest.raises(TaskFileError, match=str(path)):
            read_cg_bench(path)


def test_without_pyarrow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path / "rows.parquet")
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'videogym\[data\]'"):
        read_cg_bench(path)


# --- shapes of one format ----------------------------------------------------------------------


def test_mlvu_is_read_from_the_mirror_too(tmp_path: Path) -> None:
    path = tmp_path / "mlvu_dev.jsonl"
    row = {
        "video_name": "4_count/count_1.mp4",
        "duration": 480.0,
        "question": "How\noften?\n(A) 2\n(B) 4 (four)\n",
        "candidates": ["2", "4 (four)"],
        "answer": "B",
        "task_type": "count",
        "question_id": "AC_0",
    }
    path.write_text(json.dumps(row))
    (task,) = read_mlvu(path)
    assert (task.task_id, task.video, task.question) == ("AC_0", "4_count/count_1.mp4", "How\noften?")
    assert (task.kind, task.options, task.answer) == ("choice", ("2", "4 (four)"), "B")


def test_mlvu_open_questions_have_no_candidates(tmp_path: Path) -> None:
    row = {"video": "s.mp4", "question": "What?", "answer": "A lot.", "scoring_points": ["lot"]}
    (tmp_path / "9_summary.json").write_text(json.dumps([row]))
    (tmp_path / "8_sub_scene.json").write_text(json.dumps([row | {"candidates": []}]))
    tasks = load_tasks(f"mlvu:{tmp_path}")
    assert [(t.task_id, t.video, t.kind, t.answer) for t in tasks] == [
        ("8_sub_scene-1", "8_sub_scene/s.mp4", "open", "A lot."),
        ("9_summary-1", "9_summary/s.mp4", "open", "A lot."),
    ]


def test_egoschema_reads_the_public_answers_beside_its_questions(tmp_path: Path) -> None:
    options = {f"option {i}": f"C does {i}" for i in range(5)}
    rows = [
        {"q_uid": uid, "google_drive_id": "x", "question": "What?", **options} for uid in ("a-1", "b-2")
    ]
    (tmp_path / "questions.json").write_text(json.dumps(rows))
    (tmp_path / "subset_answers.json").write_text(json.dumps({"b-2": 3, "c-3": 0}))
    for source in (tmp_path, tmp_path / "questions.json"):
        (task,) = load_tasks(f"egoschema:{source}")
        assert (task.task_id, task.video, task.answer, len(task.options)) == ("b-2", "b-2.mp4", "D", 5)
    (tmp_path / "subset_answers.json").unlink()
    with pytest.raises(TaskFileError, match="there is no task in the file"):
        load_tasks(f"egoschema:{tmp_path}")


def test_longvideobench_options_may_be_columns(tmp_path: Path) -> None:
    columns = {"option0": "a", "option1": "b", "option2": "c", "option3": "N/A", "option4": "N/A"}
    row = {"id": "1", "video_path": "v.mp4", "question": "Who?", "correct_choice": 2, **columns}
    path = tmp_path / "validation.jsonl"
    path.write_text(json.dumps(row))
    (task,) = load_tasks(f"longvideobench:{path}")
    assert (task.options, task.answer) == (("a", "b", "c"), "C")
    path.write_text(json.dumps(row | {"correct_choice": 3}))
    with pytest.raises(TaskFileError, match="'correct_choice' must be a whole number from 0 to 2, got 3"):
        load_tasks(f"longvideobench:{path}")
    path.write_text(json.dumps(row | {"option1": "N/A"}))
    with pytest.raises(TaskFileError, match="'option1' is 'N/A' before another option"):
        load_tasks(f"longvideobench:{path}")


def test_charades_is_read_from_its_text_files(tmp_path: Path) -> None:
    path = tmp_path / "charades_sta_test.txt"
    path.write_text("3MSZA 24.3 30.4##person turn ## a light on.\n\nAB1 0 1e1##é ü\n", encoding="utf-8")
    first, second = load_tasks(f"charades-sta:{path}")
    assert (first.task_id, first.video) == ("charades_sta_test-1", "3MSZA.mp4")
    assert "person turn ## a light on." in first.question
    assert (second.task_id, second.evidence) == ("charades_sta_test-3", (Segment(0, 10),))
    for line in ("3MSZA 24.3##x", "3MSZA a b##x", "3MSZA 1 2##", "3MSZA 1 nan##x", "3MSZA -2 -1##x"):
        path.write_text(f"3MSZA 24.3 30.4##x\n{line}\n")
        with pytest.raises(TaskFileError, match=f"{path}: line 2: "):
            load_tasks(f"charades-sta:{path}")


def test_charades_rows_that_ask_for_nothing_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "charades_sta_train.txt"
    path.write_text("A 1 2##x\nA 3 3##x\nA 4 3##x\n")
    says = "2 of 3 rows cannot be tasks and are left out: line 2: field 'timestamp' does not end"
    with pytest.warns(UserWarning, match=says):
        assert [task.task_id for task in load_tasks(f"charades-sta:{path}")] == ["charades_sta_train-1"]


def lvbench(folder: Path, *references: Any) -> str:
    questions = [
        {"uid": i, "question": "Who?\n(A) a\n(B) b", "answer": "A", "time_reference": reference}
        for i, reference in enumerate(references)
    ]
    path = folder / "video_info.meta.jsonl"
    path.write_text(json.dumps({"key": "k", "qa": questions}))
    return f"lvbench:{path}"


@pytest.mark.parametrize(
    ("reference", "bounds"),
    [
        ("00:15-00:19", [(15, 19)]),
        ("1:02:03-1:02:10, 72:05–73:00", [(3723, 3730), (4325, 4380)]),
        ("59:59 - 01:00:00", [(3599, 3600)]),
        ("05:10-05:10", [(310, 311)]),
        ("N/A", None),
        ("", None),
        (None, None),
    ],
)
def test_lvbench_times_are_clock_times(
    reference: str | None, bounds: list[tuple[int, int]] | None, tmp_path: Path
) -> None:
    (task,) = load_tasks(lvbench(tmp_path, reference))
    assert task.evidence == (None if bounds is None else tuple(Segment(*pair) for pair in bounds))


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("late", "'time_reference' must read 'MM:SS-MM:SS', got 'late'"),
        ("01:00-02:00,", "'time_reference' must read 'MM:SS-MM:SS'"),
        ("15-19", "'time_reference' must read 'MM:SS-MM:SS'"),
        (["01:00-02:00"], "'time_reference' must read 'MM:SS-MM:SS'"),
        ("02:00-01:00", "'time_reference': segment needs 0 <= start_s < end_s"),
    ],
)
def test_lvbench_times_that_cannot_be_read_are_counted(reference: Any, says: str, tmp_path: Path) -> None:
    source = lvbench(tmp_path, "00:15-00:19", reference)
    where = "1 of 2 times cannot be read and are left out, the first in line 1, question 2: field "
    with pytest.warns(UserWarning, match=re.escape(where + says)):
        tasks = load_tasks(source)
    assert tasks[1].evidence is None


def test_lvbench_is_read_from_single_questions_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [
        {"video_path": "00000/1.mp4", "question": "Who?\n(A) a\n(B) b", "answer": " B"},
        {"video_path": "00000/1.mp4", "question": "Who?", "options": ["a", "b"], "answer": "A"},
    ]
    path.write_text(json.dumps(rows))
    assert [
        (t.task_id, t.video, t.question, t.options, t.answer) for t in load_tasks(f"lvbench:{path}")
    ] == [
        ("rows-1", "00000/1.mp4", "Who?", ("a", "b"), "B"),
        ("rows-2", "00000/1.mp4", "Who?", ("a", "b"), "A"),
    ]


# --- fields ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["A. x", "B. y"], ("x", "y")),
        (["(A) x", "(B) y"], ("x", "y")),
        (["A. x", "C. y"], ("A. x", "C. y")),  # no letters that count up: part of the texts
        (["x", "B. y"], ("x", "B. y")),
        ([2, "4"], ("2", "4")),
    ],
)
def test_letters_are_cut_off_if_all_options_have_theirs(options: list[Any], texts: tuple[str, ...]) -> None:
    assert options_of({"o": options}, "o") == texts


lines = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).map(str.strip)
plain = lines.filter(lambda text: text != "" and not text.startswith("("))


@given(plain, st.lists(plain, min_size=1, max_size=26))
def test_inline_options_are_taken_apart_as_put_together(question: str, options: list[str]) -> None:
    pairs = zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", options, strict=False)
    text = question + "".join(f"\n({letter}) {option}" for letter, option in pairs)
    assert inline_options(text, "question") == (question, tuple(options))


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("abc", "abc.mp4"),
        (17, "17.mp4"),
        ("x_360.0_510.0", "x_360.0_510.0.mp4"),
        ("a b/ü 問.MKV", "a b/ü 問.MKV"),
        ("./a//b.mp4", "a/b.mp4"),
        ("file:///mnt/a.mp4", "/mnt/a.mp4"),
        ("..a/b..mp4", "..a/b..mp4"),
    ],
)
def test_a_video_is_named_by_an_id_or_a_path(name: Any, video: str) -> None:
    assert video_of({"v": name}, "v") == video


@pytest.mark.parametrize(
    "name",
    [
        "../a.mp4",
        "a/../../b",
        "file://../a",
        "http://x/a.mp4",
        "synthetic:x",
        "a\nb",
        "a\0",
        "",
        " ",
        "./",
        "a/",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="field 'v' must"):
        video_of({"v": name}, "v")
