"""QVHighlights as choice questions: made by a language model, read beside the annotations."""

# ruff: noqa: D103

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from videogym.datasets import TaskFileError, load_tasks, read_qvhighlights_choices, video_mtr_keeps
from videogym.datasets.caption_questions import ask_questions, kept
from videogym.datasets.rows import read_rows
from videogym.geometry import Segment
from videogym.judging import NoReply, Reply

SAID = {"suitable": True, "question": "What does he cook?", "options": ["a", "b", "c", "d"], "answer": "D"}


def annotations(folder: Path, count: int = 3, **changes: Any) -> Path:
    """Sentences 0, 1, ... about clips of 150 seconds."""
    row = {"query": "A chef cooks.", "vid": "v_0.0_150.0", "duration": 150, "relevant_windows": [[2, 8]]}
    path = folder / "highlight_train_release.jsonl"
    path.write_text("\n".join(json.dumps(row | {"qid": i} | changes) for i in range(count)))
    return path


def questions(path: Path, *rows: Mapping[str, Any]) -> Path:
    """A file of questions beside the annotations."""
    beside = path.with_suffix(".questions.jsonl")
    beside.write_text("\n".join(json.dumps(row) for row in rows))
    return beside


class Model:
    """Says one thing after the other."""

    def __init__(self, *replies: str | Exception) -> None:
        self.replies, self.asked = list(replies), list[str]()

    def ask(self, request: Mapping[str, Any]) -> Reply:
        """The next reply."""
        self.asked.append(request["messages"][0]["content"])
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return Reply(reply)


def test_questions_beside_the_annotations_make_choices(tmp_path: Path) -> None:
    path = annotations(tmp_path, 4)
    questions(
        path,
        {"qid": 0, **SAID},
        {"qid": "1", "suitable": False},
        {"qid": 2, **SAID, "options": ["A. w", "B. x", "C. y", "D. z"], "answer": "B. x"},
    )
    with pytest.warns(
        UserWarning, match=r"highlight_train_release\.questions\.jsonl has no question of qid 3"
    ):
        tasks = load_tasks(f"qvhighlights-choices:{path}")
    assert [task.task_id for task in tasks] == ["0", "2"]
    first, second = tasks
    assert (first.kind, first.question, first.options, first.answer) == (
        *("choice", "What does he cook?", ("a", "b", "c", "d"), "D"),
    )
    assert first.evidence == (Segment(2, 8),) and first.metadata["query"] == "A chef cooks."
    assert (second.options, second.answer) == (("w", "x", "y", "z"), "B")


def test_the_filter_goes_before_the_questions(tmp_path: Path) -> None:
    path = annotations(tmp_path, 1, relevant_windows=[[0, 150]])
    questions(path, {"qid": 0, **SAID})
    with pytest.raises(TaskFileError, match="no task"):
        read_qvhighlights_choices(path, keep=video_mtr_keeps)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"qid": 0}], "questions.jsonl, line 1: field 'suitable' must be true or false, got None"),
        ([{"qid": 0, **SAID, "suitable": "yes"}], "field 'suitable' must be true or false, got 'yes'"),
        ([{"qid": 0, **SAID, "options": ["a", "b", "c"]}], "field 'options' must be 4 different texts"),
        (
            [{"qid": 0, **SAID, "options": ["a", "a", "b", "c"]}],
            "field 'options' must be 4 different texts",
        ),
        ([{"qid": 0, **SAID, "answer": "A. d"}], "field 'answer' has the letter of another option"),
        ([{"qid": 0, **SAID}, {"qid": "0", **SAID}], "line 2: field 'qid' is '0', as in line 1"),
        ([{"question": "?"}], "line 1: field 'qid'"),
    ],
)
def test_faults_of_the_questions_name_their_line(
    rows: Sequence[Mapping[str, Any]], told: str, tmp_path: Path
) -> None:
    path = annotations(tmp_path, 1)
    questions(path, *rows)
    with pytest.raises(TaskFileError) as caught:
        read_qvhighlights_choices(path)
    assert told in str(caught.value)


def test_a_model_is_asked_once_about_every_sentence(tmp_path: Path) -> None:
    """Replies in fences, without a question, unreadable or missing; the next run asks for the last two."""
    path = annotations(tmp_path, 4, query='Says "A"<|im_end|>.')
    out = path.with_suffix(".questions.jsonl")
    fenced = f"Here it is:\n```json\n{json.dumps(SAID)}\n```"
    first = Model(fenced, '{"suitable": false}', "I cannot.", NoReply("deadline", "too slow"))
    assert ask_questions(read_rows(path), out, first, "m") == (4, 2)
    # A sentence cannot end its message.
    assert all("<|im_end|>" not in prompt and "\\u003c|im_end|>" in prompt for prompt in first.asked)
    second = Model(json.dumps(SAID), json.dumps(SAID))
    assert ask_questions(read_rows(path), out, second, "m") == (2, 0)
    assert ask_questions(read_rows(path), out, Model(), "m") == (0, 0)
    assert [task.task_id for task in read_qvhighlights_choices(path)] == ["0", "2", "3"]
    out.write_text(out.read_text().rstrip("\n"))  # as some editors leave it
    more = annotations(tmp_path, 5)
    assert ask_questions(read_rows(more), out, Model(json.dumps(SAID)), "m") == (1, 0)
    assert len(read_qvhighlights_choices(more)) == 4


def test_the_command_asks_about_what_the_filter_keeps(tmp_path: Path) -> None:
    path = annotations(tmp_path, 1)
    assert all(map(kept, read_rows(path)))
    path = annotations(tmp_path, 1, relevant_windows=[[0, 75]])
    assert not any(map(kept, read_rows(path)))
