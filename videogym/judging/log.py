"""The log of a language model's judgements, which is also its cache: one JSON line each, only appended.

Any number of processes and threads share one file. Whoever writes holds the file's lock, reads what
others have added, and removes what a killed writer left of a line; the first reply to a request stays
the only one. So a line that was reported written is whole, and all readers agree.

A file lock rather than a database: the log is read with any tool, the lock goes with the process that
held it, and judgements come a few times a second at most.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from videogym.writing import naming

_VERSION = 1  # of a line
_HEAD = f'{{"version": {_VERSION}, "task_id": "'.encode()  # how every line begins


class JudgementLogError(ValueError):
    """A whole line of a log is not a judgement of this version."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a language model said."""

    text: str
    complete: bool = True  # False: cut at the limit of tokens or by a filter; what it says is not all
    model: str = ""  # what the endpoint calls the model that replied
    refused: bool = False  # the endpoint says that the text is a refusal
    tokens_in: int | None = None  # as the endpoint counts them; None: it does not tell
    tokens_out: int | None = None


@dataclass(frozen=True)
class Judgement:
    """One question put to a judge and what came of it."""

    task_id: str
    question: str
    reference: str  # the true answer
    answer: str  # the one that was judged
    request: Mapping[str, Any]  # body of the request: model, messages and all that decides the reply
    reply: Reply | None  # None: there was none
    error: str  # why there was none
    parser: str  # who read the verdict
    verdict: float | None  # None: the judge abstained
    time: str  # when, ISO 8601 in UTC

    @property
    def key(self) -> str:
        """What the reply is stored under."""
        return request_key(self.request)

    def verdict_by(self, parser: Callable[[str], float | None]) -> float | None:
        """The verdict that another parser reads in the stored reply; None where it would abstain."""
        return read_verdict(self.reply, parser)


def read_verdict(reply: Reply | None, parser: Callable[[str], float | None]) -> float | None:
    """The verdict in a reply, in [0, 1].

    Returns:
        None without a reply, for a refusal, for one that was cut (the "0" may have become "0.5"), and where
        the parser finds no verdict.

    Raises:
        ValueError: the parser's value is not in [0, 1].
    """
    if reply is None or not reply.complete or reply.refused:
        return None
    verdict = parser(reply.text)
    if verdict is not None and not 0.0 <= verdict <= 1.0:
        raise ValueError(f"verdicts are None or in [0, 1]; {parser} read {verdict!r} in {reply.text!r}")
    return verdict


def request_key(request: Mapping[str, Any]) -> str:
    """A hash of everything that decides a reply. Where the endpoint is, or how it is read, is not in it."""
    text = json.dumps(request, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class JudgementLog:
    """A file of judgements. Picklable: a copy reads the file anew.

    Args:
        path: of the file; it and its folder are made by the first judgement.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._forget()

    def _forget(self) -> None:
        self._replies: dict[str, Reply] = {}
        self._read_bytes = self._read_lines = 0  # always the end of a whole line

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._forget()

    def find(self, key: str) -> Reply | None:
        """The stored reply to a request, whoever asked.

        Raises:
            JudgementLogError: the file holds something else; the message names the line.
        """
        if key not in self._replies and self.path.exists():
            with _readable(self.path) as file, _locked(file):
                self._catch_up(file)
        return self._replies.get(key)

    def add(self, judgement: Judgement) -> Reply | None:
        """Append a judgement, unless another process has stored a reply to its request meanwhile.

        Returns:
            The reply that is stored now, None if the judgement has none either.

        Raises:
            JudgementLogError: see `find`; or the file ends in something that is no piece of a judgement,
                and is left as it is.
            OSError: the file cannot be written, or the disk is full.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(self.path) as file, _locked(file, alone=True):
            self._catch_up(file)
            if (stored := self._replies.get(judgement.key)) is not None:
                return stored
            self._cut_torn_line(file)
            self._write(file.fileno(), _line(judgement))
            file.seek(0, os.SEEK_END)  # forgets what was read ahead
            file.seek(self._read_bytes)
            self._catch_up(file)
            return self._replies.get(judgement.key)

    def _catch_up(self, file: BinaryIO) -> None:
        """Read what has been added."""
        if os.fstat(file.fileno()).st_size < self._read_bytes:
            self._forget()  # someone began the file anew
        for judgement, length in _read(file, self.path, self._read_bytes, self._read_lines):
            if judgement.reply is not None:
                self._replies.setdefault(judgement.key, judgement.reply)
            self._read_bytes += length
            self._read_lines += 1

    def _write(self, handle: int, line: bytes) -> None:
        """Add a line behind the last whole one, or nothing of it."""
        try:
            with naming(self.path):
                if os.pwrite(handle, line, self._read_bytes) != len(line):  # the disk is full
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(handle)
        except OSError:
            os.ftruncate(handle, self._read_bytes)
            raise

    def _cut_torn_line(self, file: BinaryIO) -> None:
        """Remove what a killed writer left behind the last whole line, and go there."""
        file.truncate(self._read_bytes)
        file.seek(self._read_bytes)

    def __iter__(self) -> Iterator[Judgement]:
        """All judgements in the order they were stored, abstentions included; a torn last line is none.

        Raises:
            FileNotFoundError: there is no such file.
            JudgementLogError: see `find`.
        """
        with _readable(self.path) as file, _locked(file):
            judgements = [judgement for judgement, _ in _read(file, self.path, 0, 0)]
        return iter(judgements)


@contextlib.contextmanager
def _locked(file: BinaryIO, alone: bool = False) -> Iterator[None]:
    import fcntl  # POSIX only; judges that keep no log work without it

    fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _readable(path: Path) -> BinaryIO:
    """The file for reading."""
    if path.exists() and not path.is_file():  # a pipe may have no writer
        raise JudgementLogError(f"{path}: cannot be read: not a regular file")
    return path.open("rb")


def _opened(path: Path) -> BinaryIO:
    """The file for reading and writing, made when missing."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")


def _read(file: BinaryIO, path: Path, start: int, lines: int) -> Iterator[tuple[Judgement, int]]:
    """The whole lines from a place on, with their lengths in bytes."""
    file.seek(start)
    for number, line in enumerate(file, lines + 1):
        if not line.endswith(b"\n"):
            _require_torn(line[: len(_HEAD)], path)
            return  # its writer was killed
        try:
            yield _judgement(json.loads(line)), len(line)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise JudgementLogError(f"{path}, line {number}: {type(error).__name__}: {error}") from error


def _require_torn(start: bytes, path: Path) -> None:
    """Refuse what stands behind the last whole line, unless it is the start of a judgement."""
    if start != _HEAD[: len(start)]:
        told = "ends in something that is no piece of a judgement; it is left as it is"
        raise JudgementLogError(f"{path} {told}")


def _line(judgement: Judgement) -> bytes:
    text = json.dumps({"version": _VERSION, **asdict(judgement)}, ensure_ascii=False)
    # What UTF-8 cannot write, a lone surrogate, becomes the JSON escape that means it.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _judgement(plain: dict[str, Any]) -> Judgement:
    version = plain.pop("version")
    if version != _VERSION:
        raise ValueError(f"the judgement has version {version!r}, this code reads {_VERSION}")
    reply = plain.pop("reply")
    return Judgement(reply=None if reply is None else Reply(**reply), **plain)
