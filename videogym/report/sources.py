"""What a report is made of: files of traces, training runs with their curves and episodes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from videogym.report.curves import SCALARS, Curve, read_curves
from videogym.traces import Trace, TraceError, TraceFiles
from videogym.traces.training import JUDGE, PROMPT, RECORDS, RecordFiles, record_files, tasks_of_run


class Sources:
    """The episodes and curves of files and folders. Episodes are read one by one.

    Args:
        paths: files of traces or of training records, folders of such, and folders of training runs.
        tasks: source of the tasks that training runs played; None: what their checkpoints name.
        video_root: folder below which relative video paths lie.

    Raises:
        TraceError: a folder holds nothing of all this, or tasks of records are not known and there is
            nothing else to be shown.
        ValueError: tasks or curves cannot be read.
        OSError: a file cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        tasks: str | None = None,
        video_root: str | None = None,
    ) -> None:
        self._parts: list[TraceFiles | RecordFiles] = []
        self._notes: list[str] = []
        self.curves: tuple[Curve, ...] = ()
        for path in map(Path, paths):
            self._add(path, tasks, video_root)

    @property
    def has_episodes(self) -> bool:
        """Whether there is anything to be read that may hold episodes."""
        return bool(self._parts)

    @property
    def torn(self) -> int:
        """Unfinished last lines of what was read so far."""
        return sum(part.torn for part in self._parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is missing, and of what was read so far what was left out."""
        problems = (part.problems for part in self._parts if isinstance(part, RecordFiles))
        return (*self._notes, *(problem for some in problems for problem in some))

    def __iter__(self) -> Iterator[Trace]:
        """Read from the beginning.

        Raises:
            TraceError: a file cannot be read, or a line of it.
        """
        for part in self._parts:
            yield from part

    def _add(self, path: Path, tasks: str | None, video_root: str | None) -> None:
        records = record_files(path)
        if not path.is_dir():
            traces = [] if records else [path]
        else:
            traces = [file for file in sorted(path.glob("*.jsonl")) if file not in records]
        curves = read_curves(path)
        if not (records or traces or curves):
            raise TraceError(
                f"{path}: the folder holds neither traces (*.jsonl) nor a training run ({SCALARS}, records)"
            )
        self.curves += curves
        if traces:
            self._parts.append(TraceFiles(*traces))
        if not records:
            return
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        run = folder.parent if folder.name == RECORDS else folder
        source = tasks or tasks_of_run(run)
        if source is not None:
            name = run.name if path.is_dir() else f"{run.name} {path.stem}"
            self._parts.append(RecordFiles(records, name, source, video_root, run / PROMPT, run / JUDGE))
            return
        told = (
            f"{path}: nothing says which tasks the episodes of its {RECORDS} ask; name them: --tasks SOURCE"
        )
        if not (traces or curves):
            raise TraceError(told)
        self._notes.append(told)
