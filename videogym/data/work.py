"""The folder of a pipeline: one process at work in it, a file for each step, all replies that were paid.

Every line of a step has a ``key``, the hash of all that decides it, a ``place`` that a newer line takes
from it, and the keys of what it was made from as ``parents``. So a step that is run again makes what is
missing and nothing else, and what was made of something that has changed since is passed over, as is what
its last run was not asked for any more.

| file | a line for each |
|---|---|
| `scenes.jsonl` | video |
| `captions.jsonl` | scene |
| `questions.jsonl` | some neighbouring scenes |
| `filter.jsonl` | question |
| `traces.jsonl` | question that was kept |
| `replies.jsonl` | reply of the endpoint |

Beside the lines of a step, `STEP.places.json` lists the places of its last run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

from videogym.data.lines import DataError, Holder, Lines, hold
from videogym.judging import NoReply, Reply
from videogym.video import DecodeTimeout, UnfitVideo, VideoChanged, VideoError, VideoNotFound
from videogym.writing import appearing

STEPS = ("scenes", "captions", "questions", "filter", "traces")
Progress = Callable[[int, int], None]


def hashed(*values: Any) -> str:
    """A key: the hash of values of JSON."""
    text = json.dumps(values, ensure_ascii=True, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Later(Exception):
    """Something cannot be made now and may be in another run."""


@dataclass(frozen=True)
class Dropped:
    """Why something goes no further."""

    code: str  # short and stable
    reason: str  # a sentence
    facts: Mapping[str, Any] = field(default_factory=dict)  # what else the line holds


@dataclass(frozen=True)
class Item:
    """What a line of a step is made from."""

    place: str  # which of the lines of the step it is, e.g. "a.mp4#3"
    parents: tuple[str, ...]  # keys of the lines before that it is made from
    by: Mapping[str, Any]  # settings of the step
    source: Any  # for whoever makes the line
    content: str = ""  # what else decides it

    @property
    def key(self) -> str:
        """Hash of all that decides the line."""
        return hashed(self.place, self.parents, self.by, self.content)


@dataclass
class CallCost:
    """What endpoints were asked."""

    calls: int = 0
    stored: int = 0  # replies that were there already
    tokens_in: int = 0
    tokens_out: int = 0
    uncounted: int = 0  # replies whose tokens the endpoint did not tell

    def add(self, reply: Mapping[str, Any]) -> None:
        """Count one reply that was paid for."""
        self.calls += 1
        told = reply.get("tokens_in"), reply.get("tokens_out")
        self.uncounted += None in told
        self.tokens_in += told[0] or 0
        self.tokens_out += told[1] or 0

    def __str__(self) -> str:
        more = f", {self.stored} stored replies used" if self.stored else ""
        unknown = f", {self.uncounted} of unknown length" if self.uncounted else ""
        return f"{self.calls} calls, {self.tokens_in} tokens in, {self.tokens_out} out{unknown}{more}"


@dataclass
class Summary:
    """What a step has done, and what there is of it now."""

    step: str
    made: int = 0  # lines of this run
    kept: int = 0  # of all lines that count
    dropped: Counter[str] = field(default_factory=Counter)  # by code
    reasons: list[str] = field(default_factory=list)  # of what was dropped in this run, one sentence each
    left: list[str] = field(default_factory=list)  # what has no line yet, and why: for another run
    cost: CallCost = field(default_factory=CallCost)


class WorkFolder(Holder):
    """A folder that a pipeline works in; the files of others are refused, and so is a second pipeline.

    Args:
        folder: where.
        make: whether it is made when missing.

    Raises:
        DataError: another process is at work in it, or it is missing.
        OSError: it cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], *, make: bool = True) -> None:
        self.folder = Path(folder)
        if not make and not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder: `videogym data scenes` makes one")
        self.folder.mkdir(parents=True, exist_ok=True)
        told = f"{self.folder}: another pipeline is at work in this folder"
        super().__init__(hold(self.folder / "lock", told))
        self._files: dict[str, Lines] = {}

    @property
    def video_root(self) -> Path:
        """The folder below which the videos lie.

        Raises:
            DataError: no scenes were found yet.
        """
        path = self.folder / "video_root"
        if not path.exists():
            raise DataError(
                f"{self.folder}: no scenes were found here yet: run `videogym data scenes` first"
            )
        return Path(path.read_text(encoding="utf-8", errors="surrogateescape"))

    @video_root.setter
    def video_root(self, root: Path) -> None:
        # Rows for trainers hold paths below it, and their readers refuse "..".
        with appearing(self.folder / "video_root") as partial:
            partial.write_text(os.path.abspath(root), encoding="utf-8", errors="surrogateescape")

    def file(self, name: str) -> Lines:
        """The lines of a step, or ``"replies"``.

        Raises:
            DataError: the file holds something else.
        """
        if name not in self._files:
            lines = Lines(self.folder / f"{name}.jsonl")
            is_ours = _is_reply if name == "replies" else _is_step_line
            for number, row in enumerate(lines.rows, start=1):
                if not is_ours(row):
                    raise DataError(f"{lines.path}, line {number}: no line of {name}")
            self._files[name] = lines
        return self._files[name]

    def current(self, step: str) -> list[dict[str, Any]]:
        """The lines of a step that count, dropped ones too, in their order.

        They are the newest of each place of the step's last run, made from lines that count themselves.

        Raises:
            DataError: lines were made by different settings, or a file holds something else.
        """
        newest = self.newest(step)
        if (places := self._places(step)) is not None:
            newest = {place: row for place, row in newest.items() if place in places}
        if step == STEPS[0]:
            rows = list(newest.values())
        else:
            parents = {row["key"] for row in self.kept(STEPS[STEPS.index(step) - 1])}
            rows = [row for row in newest.values() if parents.issuperset(row["parents"])]
        if len({json.dumps(row["by"], sort_keys=True) for row in rows}) > 1:
            raise DataError(
                f"{self.folder / step}.jsonl holds lines of different settings: "
                "run that step to its end first"
            )
        return rows

    def _places(self, step: str) -> frozenset[str] | None:
        """The places of a step's last run; None: not written, so all count."""
        path = self.folder / f"{step}.places.json"
        try:
            places = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DataError(f"{path}: not JSON: {error}") from error
        if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
            raise DataError(f"{path}: no list of places")
        return frozenset(places)

    def set_places(self, step: str, places: Sequence[str]) -> None:
        """Tell which lines a step should have; others count no more.

        Raises:
            OSError: it cannot be written.
        """
        with appearing(self.folder / f"{step}.places.json") as partial:
            partial.write_text(json.dumps(places), encoding="utf-8")

    def require_before(self, step: str) -> None:
        """Make sure that the step before one was run.

        Raises:
            DataError: it was not, so that there is nothing to go on from.
        """
        if step == STEPS[0]:
            return
        before = STEPS[STEPS.index(step) - 1]
        if self._places(before) is None and not self.file(before).rows:
            command = "caption" if before == "captions" else before
            raise DataError(
                f"{self.folder}: the step before {step} was not run: run `videogym data {command}` first"
            )

    def newest(self, step: str) -> dict[str, dict[str, Any]]:
        """The newest line of each place, in their order."""
        newest: dict[str, dict[str, Any]] = {}
        for row in self.file(step).rows:
            newest.pop(row["place"], None)
            newest[row["place"]] = row
        return newest

    def kept(self, step: str) -> list[dict[str, Any]]:
        """The lines of a step that were not dropped."""
        return [row for row in self.current(step) if "code" not in row]


def _is_step_line(row: Mapping[str, Any]) -> bool:
    parents = row.get("parents")
    found = isinstance(row.get("place"), str), isinstance(row.get("by"), dict), isinstance(parents, list)
    return all(found) and all(isinstance(key, str) for key in parents or ())


def _is_reply(row: Mapping[str, Any]) -> bool:
    reply = row.get("reply")
    known = {one.name for one in fields(Reply)}
    return isinstance(reply, dict) and isinstance(reply.get("text"), str) and reply.keys() <= known


Made = Mapping[str, Any] | Dropped


def run_step(
    work: WorkFolder,
    step: str,
    items: Sequence[Item],
    make: Callable[[Any], Made],
    *,
    jobs: int = 1,
    progress: Progress | None = None,
    cost: CallCost | None = None,
    max_tokens: int | None = None,
) -> Summary:
    """Make the lines of a step that are missing, in the order of the items; other places count no more.

    What gets no reply, raises `Later` or is not decoded in time is left for another run; where a video
    cannot be shown the line is dropped, as ``unreadable`` or ``unfit``. Lines are written in the order of
    their items, whatever the order in which they are made, so that a run that was killed and begun again
    ends in the same file.

    Args:
        work: where.
        step: one of `STEPS`.
        items: of all lines there should be.
        make: what a line holds, from the item's source; called by ``jobs`` threads.
        jobs: how many are made at once.
        progress: called with (done, total) after each.
        cost: where whoever is asked counts.
        max_tokens: of a reply. What was dropped because a reply was cut at another number is made again.

    Raises:
        DataError: the step before was not run, or a file holds something else.
        EndpointError: the endpoint cannot be used; what was made before is kept.
        VideoError: a video has changed or is gone.
        OSError: a line cannot be written.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    work.require_before(step)
    lines, summary = work.file(step), Summary(step, cost=cost or CallCost())
    work.set_places(step, [item.place for item in items])
    newest = work.newest(step)
    missing = [item for item in items if not _is_made(item, newest.get(item.place), max_tokens)]
    with contextlib.closing(_in_order(missing, make, jobs)) as begun:
        for done, (item, future) in enumerate(begun, start=1):
            try:
                made = _outcome(item, future)
            except (NoReply, Later, DecodeTimeout) as failure:
                summary.left.append(f"{item.place}: {failure}")
            else:
                summary.made += 1
                lines.append(_line(item, made, max_tokens))
                if isinstance(made, Dropped):
                    summary.reasons.append(f"{made.code}: {made.reason}")
            if progress is not None:
                progress(done, len(missing))
    newest = work.newest(step)
    for item in items:
        row = newest.get(item.place)
        if row is None or not _is_made(item, row, max_tokens):
            continue  # it is left
        if "code" in row:
            summary.dropped[row["code"]] += 1
        else:
            summary.kept += 1
    return summary


def _is_made(item: Item, row: Mapping[str, Any] | None, max_tokens: int | None) -> bool:
    """Whether a line is that of an item; one of a reply that was cut, only at the same number of tokens."""
    if row is None or row["key"] != item.key:
        return False
    return row.get("code") != "cut" or row.get("max_tokens") == max_tokens


def _in_order(
    items: Sequence[Item], make: Callable[[Any], Made], jobs: int
) -> Generator[tuple[Item, Future[Made]], None, None]:
    """Items with what is made of them; what has not begun when the caller leaves is not begun any more."""
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="pipeline")
    try:
        ahead = iter(items)
        begun: deque[tuple[Item, Future[Made]]] = deque()
        while True:
            # Few are begun, so that little is decoded that nobody asks for yet.
            begun.extend(
                (item, pool.submit(make, item.source)) for item in islice(ahead, 2 * jobs - len(begun))
            )
            if not begun:
                return
            yield begun.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(item: Item, future: Future[Made]) -> Made:
    """What was made; a video that cannot be shown there drops the line, and no other.

    Raises:
        VideoChanged: the video is another one now, which concerns all of its lines.
        VideoNotFound: it is gone.
    """
    try:
        return future.result()
    except (VideoChanged, VideoNotFound, DecodeTimeout):
        raise
    except VideoError as error:
        code = "unfit" if isinstance(error, UnfitVideo) else "unreadable"
        return Dropped(code, f"{item.place}: {error}")


def _line(item: Item, made: Made, max_tokens: int | None) -> dict[str, Any]:
    head = {"key": item.key, "place": item.place, "parents": item.parents, "by": dict(item.by)}
    if isinstance(made, Dropped):
        limit = {"max_tokens": max_tokens} if made.code == "cut" else {}
        return {**head, "code": made.code, "reason": made.reason, **limit, **made.facts}
    return {**head, **made}
