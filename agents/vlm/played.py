"""Episodes of an evaluation that is under way, so that one that was stopped resumes task by task.

Every rank adds a line to a file of its own as soon as an episode has ended. Beside the files stands what
decides about episodes: what was played with other settings is not mixed in. When all is played and written
elsewhere, both go.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..training.ranks import all_gather_object, broadcast_from_rank0, is_first, rank, require_alike
from ..training.staging import whole_file
from .records import Record, from_json, to_json

SETTINGS = "settings.json"


class PlayedFiles:
    """The files of one evaluation.

    Args:
        folder: made when it is missing; all ranks reach it.
        settings: what decides about episodes, in JSON values.

    Raises:
        ValueError: the folder holds an unfinished evaluation with other settings, or ranks have different
            ones; the message names one.
        RecordError: a line of it is no record.
        OSError: the folder cannot be used.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._own = folder / f"part-{rank()}.jsonl"
        require_alike({name: str(value) for name, value in settings.items()})
        broadcast_from_rank0(lambda: self._open(dict(settings)))
        # By task id. Whose judge abstained is played again: it may be there by now.
        self.done = {name: one for name, one in self.read().items() if not is_unjudged(one)}
        all_gather_object(None)  # nobody adds before all have read

    def _open(self, settings: dict[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        told = self._folder / SETTINGS
        if told.exists():
            _require_same(told, settings)
        else:  # parts without settings are leftovers of one that was finished
            for part in self._parts():
                part.unlink()
            with whole_file(told) as file:
                file.write(f"{json.dumps(settings, indent=2)}\n".encode())
        for part in self._parts():
            content = part.read_bytes()
            os.truncate(part, content.rfind(b"\n") + 1)  # a killed writer's last line may be torn

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.jsonl"))

    def read(self) -> dict[str, Record]:
        """What all ranks have played so far, by task id."""
        found: dict[str, Record] = {}
        for part in self._parts():
            for line in part.read_text(encoding="utf-8").splitlines():
                record = from_json(line)
                if record.task_id not in found or is_unjudged(found[record.task_id]):
                    found[record.task_id] = record  # two commands at once may play one twice
        return found

    def add(self, record: Record) -> None:
        """Keep an episode that has ended; it is on the disk when this returns."""
        with self._lock, self._own.open("a", encoding="utf-8") as file:
            file.write(f"{to_json(record)}\n")
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Forget all: it has been written elsewhere."""
        if is_first():
            (self._folder / SETTINGS).unlink()
            for part in self._parts():
                part.unlink()


def is_unjudged(record: Record) -> bool:
    """Whether the judge abstained from the answer."""
    return record.abort_reason.startswith("judge")


def _require_same(path: Path, settings: dict[str, Any]) -> None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no file of settings: {error}") from error
    for name, value in settings.items():
        if stored.get(name) != value:
            raise ValueError(
                f"{path.parent} holds an unfinished evaluation with {name} {stored.get(name)!r:.80}, not "
                f"{value!r:.80}; give it as before, or another --out, or remove that folder"
            )


def weights_digest(checkpoint: str) -> str:
    """What changes when files of a checkpoint are written anew; "" where there are none."""
    folder = Path(checkpoint)
    files = sorted(path for path in (folder, *folder.rglob("*")) if path.is_file())
    stats = [(str(path.relative_to(folder)), path.stat()) for path in files]
    told = ";".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats)
    return hashlib.sha256(told.encode()).hexdigest()[:12] if stats else ""
