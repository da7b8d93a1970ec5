"""QVHighlights: sentences about clips of YouTube videos and the times at which they hold.

From its files ``highlight_train_release.jsonl`` and ``highlight_val_release.jsonl``; the test file has no
times. There is no answer beside them, see `videogym.datasets.moments`.

| field | read as |
|---|---|
| `qid` | `task_id` |
| `vid` | `video`, `<vid>.mp4`: the files are cut already, times count from their start |
| `query` | `question` |
| `relevant_windows` | `evidence`, seconds |
| `duration` | seconds, checked against the windows |

The other plain fields, `duration` among them, are `metadata`; `relevant_clip_ids` and `saliency_scores` are
left alone.

Video-MTR has a language model turn each sentence into a choice of four options and say whether that makes
a question at all. The answers that it got are not published; `videogym.datasets.caption_questions` asks
again. What came of it lies beside the file, ``highlight_train_release.questions.jsonl``, a line a sentence:

| field | read as |
|---|---|
| `qid` | of which sentence |
| `suitable` | whether it makes a question; `false`: the sentence is passed over |
| `question`, `options` | `question`, `options`; letters are cut off |
| `answer` | the letter, or the text of the right option |

Then `query` is `metadata`.
"""

from __future__ import annotations

import os
from pathlib import Path

from videogym.datasets.curation import Keep
from videogym.datasets.fields import (
    Fields,
    id_of,
    letter_of_text,
    options_of,
    published_segments,
    seconds_of,
    short,
    split_letters,
    text_of,
    video_of,
)
from videogym.datasets.moments import moment_task
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, RowLeftOut, collect, json_rows, read_rows
from videogym.datasets.tasks import TaskFileError, TaskList, check_evidence
from videogym.state import Task

OPTIONS, LETTERS = 4, ("A", "B", "C", "D")
_USED = ("qid", "vid", "query", "relevant_windows", "relevant_clip_ids", "saliency_scores")


def read_qvhighlights(path: str | os.PathLike[str], *, keep: Keep | None = None) -> TaskList:
    """Read QVHighlights.

    Args:
        path: one of the files.
        keep: leaves out rows of which it says no; `video_mtr_keeps` keeps 6,152 of the 7,218 of the
            training file.

    Raises:
        TaskFileError: the file cannot be read or a row is invalid.
    """
    return collect(path, read_rows(path), lambda line: _read_row(line, keep))


def read_qvhighlights_choices(
    path: str | os.PathLike[str],
    *,
    questions: str | os.PathLike[str] | None = None,
    keep: Keep | None = None,
) -> TaskList:
    """Read QVHighlights as choices, the way Video-MTR uses it.

    A sentence about which nobody has asked yet is left out and listed in a warning.

    Args:
        path: one of the files.
        questions: the questions that were made of it, by default ``NAME.questions.jsonl`` beside
            ``NAME.jsonl``.
        keep: as for `read_qvhighlights`.

    Raises:
        TaskFileError: a file cannot be read, a row is invalid, or two questions are of one sentence.
    """
    beside = Path(path).with_suffix(".questions.jsonl") if questions is None else Path(questions)
    asked = read_questions(beside)
    return collect(path, read_rows(path), lambda line: _read_choice(line, beside, asked, keep))


def read_questions(path: Path) -> dict[str, Row]:
    """Questions that were made of sentences, by the id of the sentence.

    Raises:
        TaskFileError: the file cannot be read, or two questions are of one sentence.
    """
    asked: dict[str, Row] = {}
    for row in json_rows(path, lines=True):
        try:
            qid = id_of(row.fields, "qid")
        except ValueError as error:
            raise TaskFileError(path, row.place, str(error)) from error
        if qid in asked:
            raise TaskFileError(path, row.place, f"field 'qid' is {qid!r}, as in {asked[qid].place}")
        asked[qid] = row
    return asked


def _read_choice(line: Row, beside: Path, asked: dict[str, Row], keep: Keep | None) -> Task | None:
    row = line.fields
    evidence, duration_s = published_segments(line, row, "relevant_windows"), seconds_of(row, "duration")
    if keep is not None and not keep(evidence, duration_s):
        return None
    qid = id_of(row, "qid")
    if qid not in asked:
        raise RowLeftOut(f"{beside.name} has no question of qid {qid}")
    try:
        made = choice_made(asked[qid].fields)
    except ValueError as error:
        raise ValueError(f"{beside.name}, {asked[qid].place}: {error}") from error
    if made is None:
        return None
    question, options, answer = made
    task = Task(
        task_id=qid,
        video=video_of(row, "vid"),
        question=question,
        kind="choice",
        options=options,
        answer=answer,
        evidence=evidence,
        source="qvhighlights",
        metadata=metadata_of(row, _USED) | {"query": text_of(row, "query")},
    )
    check_evidence(task, duration_s)
    return task


def choice_made(row: Fields) -> tuple[str, tuple[str, ...], str] | None:
    """Question, four options and the letter of the right one; None: the sentence makes no question.

    Raises:
        ValueError: a field is missing or something else; options are not four different texts.
    """
    if not isinstance(row.get("suitable"), bool):
        raise ValueError(f"field 'suitable' must be true or false, got {short(row.get('suitable'))}")
    if not row["suitable"]:
        return None
    options = tuple(option.strip() for option in options_of(row, "options"))
    if len(options) != OPTIONS or len(set(options)) != OPTIONS:
        raise ValueError(f"field 'options' must be {OPTIONS} different texts, got {short(row['options'])}")
    text = text_of(row, "answer").strip()
    letter = text.rstrip(".)").upper()
    if letter not in LETTERS:
        labels, (bare,) = split_letters([text])
        letter = letter_of_text({"answer": bare}, "answer", options)
        if labels not in ("?", letter):
            raise ValueError(f"field 'answer' has the letter of another option, got {short(text)}")
    return text_of(row, "question").strip(), options, letter


def _read_row(line: Row, keep: Keep | None) -> Task | None:
    row = line.fields
    evidence, duration_s = published_segments(line, row, "relevant_windows"), seconds_of(row, "duration")
    if keep is not None and not keep(evidence, duration_s):
        return None
    task = moment_task(
        id_of(row, "qid"),
        video_of(row, "vid"),
        text_of(row, "query"),
        evidence,
        "qvhighlights",
        metadata_of(row, _USED),
    )
    check_evidence(task, duration_s)
    return task
