"""Files that only grow: torn ends, what is none of ours, a second pipeline in one folder."""

# ruff: noqa: D103

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogym.data import DataError, WorkFolder
from videogym.data.lines import Lines

ROWS = [{"key": "a", "text": "é\ud800\u2028\n"}, {"key": "b", "value": 1.5}, {"key": "c"}]


def written(path: Path) -> list[object]:
    lines = Lines(path)
    for row in ROWS:
        lines.append(row)
    return Lines(path).rows


def test_what_was_appended_is_read_back_as_json_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert written(path) == ROWS
    assert [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] == ROWS


@pytest.mark.parametrize("lost", range(1, 13))
def test_a_last_line_that_is_cut_anywhere_is_written_anew(tmp_path: Path, lost: int) -> None:
    """The last line is `{"key": "c"}` and its end, 13 bytes."""
    path = tmp_path / "a.jsonl"
    written(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    mended = Lines(path)
    assert mended.rows == ROWS[:2]
    mended.append(ROWS[2])
    assert path.read_bytes() == whole


@given(st.binary(min_size=1, max_size=12).filter(lambda end: b"\n" not in end and not end.startswith(b"{")))
def test_an_end_that_is_no_piece_of_a_line_is_left_alone(tmp_path_factory: object, end: bytes) -> None:
    path = tmp_path_factory.mktemp("ends") / "a.jsonl"  # type: ignore[attr-defined]
    path.write_bytes(b'{"key": "a"}\n' + end)
    with pytest.raises(DataError, match="ends in something that is no line"):
        Lines(path)
    assert path.read_bytes().endswith(end)


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"no": "key"}', '{"key": 3}'])
def test_a_whole_line_of_somebody_else_is_refused_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"key": "a"}}\n{line}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: "):
        Lines(path)


@pytest.mark.parametrize(
    ("step", "row"),
    [
        ("scenes", {}),
        ("captions", {"place": "a", "by": {}}),
        ("captions", {"place": ["a"], "by": {}, "parents": []}),
        ("captions", {"place": "a", "by": {}, "parents": [{}]}),
        ("replies", {}),
        ("replies", {"reply": {"text": 1}}),
        ("replies", {"reply": {"text": "a", "more": 1}}),
    ],
)
def test_a_line_of_something_else_is_refused_by_its_number(
    tmp_path: Path, step: str, row: dict[str, object]
) -> None:
    (tmp_path / f"{step}.jsonl").write_text(json.dumps({"key": "a", **row}) + "\n")
    with (
        WorkFolder(tmp_path) as work,
        pytest.raises(DataError, match=rf"{step}\.jsonl, line 1: no line of"),
    ):
        work.file(step)


def test_a_file_system_without_locks_is_named_and_no_other_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError) as caught:
        WorkFolder(tmp_path)
    assert caught.value.errno == errno.ENOLCK and caught.value.filename == str(tmp_path / "lock")


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="not a regular file"):
        Lines(tmp_path / "a.jsonl")


def test_a_second_pipeline_in_a_folder_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom videogym.data import WorkFolder\nwith WorkFolder(sys.argv[1]):\n"
        "    print('in', flush=True)\n    sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with first:
        assert first.stdout is not None and first.stdout.readline() == b"in\n"
        with pytest.raises(DataError, match="another pipeline is at work in this folder"):
            WorkFolder(tmp_path)
        first.kill()
    WorkFolder(tmp_path).close()
