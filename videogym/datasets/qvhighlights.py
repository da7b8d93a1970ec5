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
"""

from __future__ import annotations

import os

from videogym.datasets.curation import Keep
from videogym.datasets.fields import id_of, published_segments, seconds_of, text_of, video_of
from videogym.datasets.moments import moment_task
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, collect, read_rows
from videogym.datasets.tasks import TaskList, check_evidence
from videogym.state import Task

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
