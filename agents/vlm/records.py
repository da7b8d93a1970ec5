"""What one episode of a language model leaves: everything that training needs, and no pixel.

A `Record` grows turn by turn as the episode is played. SFT, GRPO, PPO and RFT read the same record; the
contexts a policy read are derived from it, the same way when it acts and when it is trained. Ids are
collapsed: one placeholder stands for a visual, which is named by reference. On disk a record is a line
of JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from videogym.cost import Cost
from videogym.metadata import Metadata, MetadataError
from videogym.mistakes import missing_fields

from ..models.visuals import WHOLE_FRAME, Visual
from ..training.ranks import is_first
from ..training.staging import sweep, whole_file

VERSION = 1  # of the format on disk
STORED = {
    "sample_index": "number",
    "abort_reason": "cut",
    "trainable": "learn",
}  # fields by their names there
Kind = Literal["rollout", "demonstration"]


class RecordError(ValueError):
    """A stored record cannot be read, or belongs to another recipe or tokenizer."""


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One observation and the output that answered it."""

    observation: tuple[int, ...]  # collapsed ids since the last output, up to where the assistant writes
    visuals: tuple[Visual, ...]  # those of the observation, in order of its placeholders
    output: tuple[int, ...] = ()  # ids as they were sampled, the end id included unless it was cut
    log_probs: tuple[float, ...] = ()  # of the output's ids when they were sampled; 0 where it was not
    versions: tuple[int, ...] = ()  # of the weights that sampled each id; 0 where none did
    text: str = ""  # what the output says
    trainable: bool = True  # whether it is an example to follow; a demonstrated mistake is not
    reward: float = 0.0  # paid by the environment
    terms: Mapping[str, float | None] = field(default_factory=dict)  # reward terms, None where absent
    looked: bool = False  # whether a look was executed, answered by frames or by a text
    error: str = ""  # code of the environment's first refusal


@dataclass(frozen=True, slots=True)
class Record:
    """One episode, whole or still being played."""

    recipe: str  # identity
    tokenizer: str  # fingerprint: ids of another tokenizer mean something else
    task_id: str
    group: str  # episodes of one group began in the same state
    sample_index: int  # of the episode in its group
    kind: Kind
    head: tuple[int, ...]  # ids of the system message
    window: int | None  # earlier turns that a policy reads again; None: all of them
    turns: tuple[TurnRecord, ...]  # the last one has no output while it is the policy's turn
    ending: str = ""  # why the recipe's rules ended the episode; "" while it runs or when it was cut
    abort_reason: str = ""  # why it was cut from outside: "context", "fault: ..."; never learned from
    success: bool | None = None  # whether the answer was right; None while it runs or where it was cut
    metadata: Mapping[str, Any] = Metadata()  # of the task
    # What it took; None in training, where a run that is done again leaves the same bytes.
    cost: Cost | None = field(default=None, compare=False)

    @property
    def done(self) -> bool:
        """Whether nothing is asked of the policy any more."""
        return bool(self.ending or self.abort_reason)

    @property
    def played(self) -> tuple[TurnRecord, ...]:
        """Turns with an output."""
        return tuple(turn for turn in self.turns if turn.output)

    @property
    def first_times_s(self) -> tuple[float, ...]:
        """Times of the frames that were shown first; a video fills its last pair with the last of them."""
        shown = self.turns[0].visuals if self.turns else ()
        return tuple(time_s for visual in shown for time_s in visual.times_s)

    @property
    def sampled_tokens(self) -> int:
        """Ids of all outputs."""
        return sum(len(turn.output) for turn in self.turns)

    @property
    def frames_shown(self) -> int:
        """Frames of all observations; one that was shown twice counts twice."""
        return sum(len(visual.times_s) for turn in self.turns for visual in turn.visuals)

    @property
    def total_reward(self) -> float:
        """Sum over turns of what the environment paid."""
        return sum(turn.reward for turn in self.turns)

    def total(self, term: str) -> float | None:
        """Sum of one reward term over the turns; None where it is absent from all of them.

        Raises:
            KeyError: the recipe has no such term.
        """
        paid = [turn.terms[term] for turn in self.played]
        present = [value for value in paid if value is not None]
        return sum(present) if present else None

    def context(self, turn: int) -> tuple[tuple[int, ...], tuple[Visual, ...]]:
        """Ids and visuals that a policy reads before the output of a turn."""
        first = 0 if self.window is None else max(0, turn - self.window)
        ids = list(self.head)
        visuals: list[Visual] = []
        for earlier in self.turns[first:turn]:
            ids += [*earlier.observation, *earlier.output]
            visuals += earlier.visuals
        ids += self.turns[turn].observation
        return tuple(ids), (*visuals, *self.turns[turn].visuals)

    def answered(
        self, output: Sequence[int], log_probs: Sequence[float], versions: Sequence[int]
    ) -> Record:
        """With the output of the current turn."""
        turn = replace(
            self.turns[-1], output=tuple(output), log_probs=tuple(log_probs), versions=tuple(versions)
        )
        return replace(self, turns=(*self.turns[:-1], turn))


@dataclass(frozen=True, slots=True)
class Passage:
    """What goes through the model at once: a context with outputs that follow one another in it."""

    ids: tuple[int, ...]  # collapsed, from the system message to the end of the last output
    visuals: tuple[Visual, ...]
    outputs: tuple[tuple[int, int, int], ...]  # (turn, place in ids of its first id, number of ids)


def passages(record: Record) -> list[Passage]:
    """The fewest sequences in which every output stands behind the context it was sampled in.

    A conversation that only grows is one sequence. Where a window drops earlier turns, a new one begins.
    """
    found: list[Passage] = []
    for number, turn in enumerate(record.turns):
        if not turn.output:
            continue
        context, visuals = record.context(number)
        outputs: tuple[tuple[int, int, int], ...] = ((number, len(context), len(turn.output)),)
        if (
            found
            and context[: len(found[-1].ids)] == found[-1].ids
            and visuals[: len(found[-1].visuals)] == found[-1].visuals
        ):
            outputs = (*found.pop().outputs, *outputs)
        found.append(Passage((*context, *turn.output), visuals, outputs))
    return found


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """What tells a tokenizer from another: a hash of all its tokens and ids."""
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:12]


# --- on disk -----------------------------------------------------------------------------------


def to_json(record: Record) -> str:
    """One line."""
    plain = _stored(asdict(replace(record, metadata={}, cost=None)))
    for name in ("metadata", "cost"):
        del plain[name]  # written where there is any: without, a line is one of before they were there
    if record.metadata:
        plain["metadata"] = Metadata(record.metadata).to_json()
    if record.cost is not None:
        plain["cost"] = asdict(record.cost)
    plain["turns"] = [_stored(turn) for turn in plain["turns"]]
    for turn in plain["turns"]:
        turn["visuals"] = [
            {
                "video": video,
                "times_s": times,
                "region": None if region == WHOLE_FRAME else region,
                "size": size,
            }
            for video, times, region, size in turn["visuals"]
        ]
    return json.dumps({"version": VERSION, **plain}, ensure_ascii=False)


def from_json(line: str) -> Record:
    """The record of a line.

    Raises:
        RecordError: the line is not a record of this version; the message names the field, or all that are
            missing.
    """
    try:
        plain = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not a record: not JSON: {error}") from error
    try:
        _require_all(plain, (), "")
        if (version := plain.get("version", VERSION)) != VERSION:
            raise RecordError(f"the record has version {version!r}, this code reads {VERSION}")
        _require_all(plain, ("version", *_needed(Record)), "")
        del plain["version"]
        turns = tuple(_turn(turn, f"turns[{i}]") for i, turn in enumerate(plain.pop("turns")))
        metadata, cost = Metadata(plain.pop("metadata", {})), plain.pop("cost", None)
        return Record(
            turns=turns,
            metadata=metadata,
            cost=None if cost is None else Cost(**cost),
            **{**_named(plain), "head": tuple(plain["head"])},
        )
    except (KeyError, TypeError, AttributeError, MetadataError) as error:
        raise RecordError(f"not a record: {type(error).__name__}: {error}") from error


def _needed(kind: type[Any]) -> list[str]:
    """Fields that a line must have, by their names there."""
    needed = (one for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING)
    return [STORED.get(one.name, one.name) for one in needed]


def _require_all(plain: Any, names: Iterable[str], where: str) -> None:
    if not isinstance(plain, dict):
        raise RecordError(f"not a record: {where or 'the line'} is no object but {plain!r:.80}")
    if lacking := missing_fields(plain, names, f"{where}." if where else ""):
        raise RecordError(f"not a record: {lacking}")


def _turn(plain: Any, where: str) -> TurnRecord:
    lists = ("observation", "output", "log_probs", "versions")
    _require_all(plain, ("visuals", *lists), where)
    for i, visual in enumerate(plain["visuals"]):
        _require_all(visual, ("video", "times_s", "region", "size"), f"{where}.visuals[{i}]")
    visuals = tuple(
        Visual(
            visual["video"],
            tuple(visual["times_s"]),
            WHOLE_FRAME if visual["region"] is None else tuple(visual["region"]),
            tuple(visual["size"]),
        )
        for visual in plain.pop("visuals")
    )
    for name in lists:
        plain[name] = tuple(plain[name])
    for name, value in {"reward": plain.get("reward"), **plain.get("terms", {})}.items():
        if value is not None and not math.isfinite(value):
            raise RecordError(f"a reward must be a finite number, {name} is {value}")
    return TurnRecord(visuals=visuals, **_named(plain))


def _stored(plain: dict[str, Any]) -> dict[str, Any]:
    return {STORED.get(name, name): value for name, value in plain.items()}


def _named(plain: dict[str, Any]) -> dict[str, Any]:
    """Fields by the names they have here.

    Raises:
        KeyError: one has that name already.
    """
    names = {stored: name for name, stored in STORED.items()}
    if odd := plain.keys() & STORED.keys():
        raise KeyError(", ".join(sorted(odd)))
    return {names.get(name, name): value for name, value in plain.items()}


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write a file of records; it appears when it is whole, in place of one that was there.

    A training run writes one file an iteration, so that an iteration which is done again after a stop
    replaces its records, and none is lost or there twice.
    """
    with whole_file(path) as file:
        file.writelines(f"{to_json(record)}\n".encode() for record in records)


class RolloutFiles:
    """The rollouts of a run, one file an iteration; of several ranks the first writes.

    Args:
        folder: of the files.
        first_iteration: that is to be done; its file and later ones go: another run left them, or they are
            done again.
    """

    def __init__(self, folder: Path, first_iteration: int) -> None:
        self.folder = folder
        if not is_first():
            return
        sweep(folder)
        for path in folder.glob("*.jsonl"):
            if path.stem.isdigit() and int(path.stem) >= first_iteration:
                path.unlink()

    def write(self, iteration: int, records: Iterable[Record]) -> None:
        """Write the rollouts of an iteration."""
        if is_first():
            write_records(self.folder / f"{iteration:06d}.jsonl", records)


def read_records(path: Path, recipe: str | None = None, tokenizer: str | None = None) -> Iterator[Record]:
    """The records of a file, or of all ``*.jsonl`` files of a folder by name.

    Args:
        path: of the file or folder.
        recipe: identity they must have; None takes any.
        tokenizer: fingerprint they must have; None takes any.

    Raises:
        RecordError: a line is not a record, or of another recipe or tokenizer; the message names the
            line and both identities. Or there is no record at all.
        OSError: a file cannot be read.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise RecordError(f"{path} holds no *.jsonl file of records")
    found = False
    for file in files:
        for record in _records_of(file, recipe, tokenizer):
            found = True
            yield record
    if not found:
        raise RecordError(f"{path} holds no record")


def _records_of(path: Path, recipe: str | None, tokenizer: str | None) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = from_json(line.decode())
            except (RecordError, UnicodeDecodeError) as error:
                raise RecordError(f"{path}, line {number}: {error}") from error
            for name, expected in (("recipe", recipe), ("tokenizer", tokenizer)):
                found = getattr(record, name)
                if expected is not None and found != expected:
                    raise RecordError(f"{path}, line {number}: {name} {found}, expected {expected}")
            yield record
