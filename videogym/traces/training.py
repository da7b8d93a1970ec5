r"""The episodes of a training run, from the folder that it leaves.

| in the folder | what |
|---|---|
| ``*.jsonl`` | traces, as an evaluation leaves them |
| ``records/*.jsonl`` | a line for every episode of an iteration, see `RecordFiles` |
| ``checkpoint`` | a ZIP archive or a folder, whose ``manifest.json`` names the tasks |
| ``log/scalars/*.csv`` | curves, see `videogym.report.curves` |

Of a record's fields ``recipe``, ``task_id``, ``group``, ``number``, ``turns``, ``ending``, ``cut`` and
``success`` are read, of a turn ``output``, ``text``, ``error``, ``looked``, ``reward`` and ``terms``.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogym.datasets import Tasks, load_tasks
from videogym.env import VideoQAEnv
from videogym.grammars import load_prompt
from videogym.judging import judge_named, with_judge
from videogym.mistakes import missing_fields
from videogym.recipes import get_recipe
from videogym.rewards import Judge
from videogym.traces.lines import TraceError
from videogym.traces.replay import ReplayError, replayed
from videogym.traces.trace import Trace
from videogym.video import VideoError

_VERSION = 1  # of records
RECORDS = "records"  # folder of a run's records
PROMPT = "prompt.toml"  # file of a run whose recipe has a prompt
JUDGE = "judge.json"  # file of a run whose answers another judge than the recipe's judges
_HEAD = re.compile(rb'\s*\{"version": \d+, "recipe": "[^"]*", "tokenizer": "')  # what a line begins with
_MOST_MANIFEST = 4_000_000  # bytes
_OF_RECORD = ("version", "recipe", "task_id", "group", "number", "turns", "ending", "cut", "success")
_OF_TURN = ("visuals", "output", "text", "error", "looked", "reward", "terms")
_TOLD = 3  # episodes that could not be played again and are named


@dataclass(frozen=True, slots=True)
class _Turn:
    text: str
    error: str
    looked: bool
    reward: float
    terms: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class _Record:
    recipe: str
    task_id: str
    group: str
    sample_index: int
    first_times_s: tuple[float, ...]
    played: tuple[_Turn, ...]
    ending: str
    abort_reason: str
    success: bool | None


def record_files(path: Path) -> list[Path]:
    """Files of records by name: the file itself, those of a folder, or of the ``records`` of a run.

    Raises:
        OSError: a file cannot be read.
    """
    folder = path / RECORDS if (path / RECORDS).is_dir() else path
    files = sorted(folder.glob("*.jsonl")) if path.is_dir() else [path] * path.is_file()
    return [file for file in files if _is_of_records(file)]


def _is_of_records(path: Path) -> bool:
    if not path.is_file():  # a pipe may have no writer
        return False
    with path.open("rb") as file:
        return _HEAD.match(file.read(2000)) is not None


def tasks_of_run(folder: Path) -> str | None:
    """The source of the tasks that a run was trained on, from its checkpoint; None where none is named."""
    checkpoint = folder / "checkpoint"
    try:
        if checkpoint.is_dir():
            text = (checkpoint / "manifest.json").read_bytes()[:_MOST_MANIFEST]
        elif not checkpoint.is_file():  # a pipe may have no writer
            return None
        else:
            with zipfile.ZipFile(checkpoint) as archive, archive.open("manifest.json") as file:
                text = file.read(_MOST_MANIFEST)
        source = json.loads(text)["metadata"]["config"]["tasks"]
    # Whatever is wrong with it, it does not say.
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        zipfile.BadZipFile,
        NotImplementedError,
    ):
        return None
    return source if isinstance(source, str) and source else None


def read_judge(path: Path) -> Judge:
    """The judge that a run names, which asks nobody: what an endpoint said is in the cache.

    Raises:
        ValueError: the file names no judge, or its cache is gone.
    """
    try:
        return judge_named(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: names no judge that can be had: {error}") from error


class RecordFiles:
    """The episodes of files of records, played again one by one, as traces; a run for every file.

    An episode that does not play as it did, or whose task or video is not there, is left out and told.

    Args:
        files: as `record_files` finds them.
        run: name of the run; the names of the files follow it where there are several.
        tasks: source of the tasks that were played.
        video_root: folder below which relative video paths lie.
        prompt: prompt file of the run; one that is not there is none.
        judge: file that names the run's judge; one that is not there is none.

    Raises:
        ValueError: the tasks, the prompt or the judge cannot be read.
    """

    torn = 0  # a file of records appears when it is whole

    def __init__(
        self,
        files: list[Path],
        run: str,
        tasks: str,
        video_root: str | None = None,
        prompt: Path | None = None,
        judge: Path | None = None,
    ) -> None:
        self._files, self._run, self._video_root = files, run, video_root
        self._tasks: Tasks = load_tasks(tasks, video_root)
        self._prompt = load_prompt(prompt) if prompt is not None and prompt.is_file() else None
        self._judge = read_judge(judge) if judge is not None and judge.is_file() else None
        self._envs: dict[str, VideoQAEnv] = {}
        self._problems: list[str] = []

    @property
    def problems(self) -> tuple[str, ...]:
        """Of what was read so far, what was left out and why: some of them by name, and how many more."""
        more = len(self._problems) - _TOLD
        told = tuple(f"left out: {problem}" for problem in self._problems[:_TOLD])
        return (*told, f"left out: {more} more episodes") if more > 0 else told

    def __iter__(self) -> Iterator[Trace]:
        """Read from the beginning.

        Raises:
            TraceError: a line is no record of this version.
        """
        self._problems = []
        for file in self._files:
            run = f"{self._run} {file.stem}" if len(self._files) > 1 else self._run
            for number, record in _records(file):
                try:
                    yield replayed(record, self._env(record.recipe), run)
                except (ReplayError, ValueError, VideoError) as error:
                    self._problems.append(f"{file.name}, line {number}: {error}")

    def _env(self, identity: str) -> VideoQAEnv:
        if identity not in self._envs:
            recipe = get_recipe(identity.partition("@")[0])
            if recipe.identity != identity:
                recipe = recipe.with_prompt(self._prompt)
            if recipe.identity != identity and self._judge is not None:
                recipe = with_judge(recipe, self._judge)
            self._envs[identity] = VideoQAEnv(self._tasks, recipe, video_root=self._video_root)
        return self._envs[identity]


def _records(path: Path) -> Iterator[tuple[int, _Record]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, _record(json.loads(line.decode()))
            except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
                raise TraceError(
                    f"{path}: line {number} is no record: {type(error).__name__}: {error}"
                ) from error


def _record(row: Mapping[str, Any]) -> _Record:
    if lacking := missing_fields(row, _OF_RECORD):
        raise ValueError(lacking)
    if row["version"] != _VERSION:
        raise ValueError(f"version {row['version']!r}, this code reads {_VERSION}")
    for number, turn in enumerate(row["turns"]):
        if lacking := missing_fields(turn, _OF_TURN, f"turns[{number}]."):
            raise ValueError(lacking)
    return _Record(
        recipe=row["recipe"],
        task_id=row["task_id"],
        group=row["group"],
        sample_index=row["number"],
        first_times_s=_times(row["turns"][0]) if row["turns"] else (),
        played=tuple(_turn(turn) for turn in row["turns"] if turn["output"]),
        ending=row["ending"],
        abort_reason=row["cut"],
        success=row["success"],
    )


def _times(turn: Mapping[str, Any]) -> tuple[float, ...]:
    """Times of the frames of a turn's observation, seconds."""
    return tuple(float(time_s) for visual in turn["visuals"] for time_s in visual["times_s"])


def _turn(row: Mapping[str, Any]) -> _Turn:
    terms = {str(name): None if value is None else float(value) for name, value in row["terms"].items()}
    return _Turn(str(row["text"]), str(row["error"]), bool(row["looked"]), float(row["reward"]), terms)
