"""Rejection-sampling fine-tuning: train again on the rollouts that went well, LongVT's third stage.

A rollout is kept if its answer was right and its look overlapped the evidence by an IoU of at least 0.3.
Of one question at most so many are kept: the published selection had up to 87 of one. Training itself is
`agents.train_sft`, which is told in its own words how many rollouts were kept and why others were not.

Run ``python -m agents.train_rft --rollouts runs/grpo/records --checkpoint runs/grpo/model --out runs/rft``.

Deviations from LongVT: its configuration starts from the base model and mixes the traces with all data of
the first stage, its paper starts from the best policy of the second; this follows the paper. Its rollouts
are of the early second stage only; here of whichever files are named.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from . import train_sft
from .training.bounds import Count, CountOrNone, OptionError, Share
from .training.ranks import is_first
from .training.run import TrainingRun
from .vlm.actor import ChatActor
from .vlm.command import command_line
from .vlm.records import Record, RecordError, fingerprint, read_records, write_records

log = logging.getLogger(__name__)
SELECTED = "selected.jsonl"  # what a run learns from, in its folder


@dataclass(frozen=True)
class Config(train_sft.Config):
    """Everything a run depends on, beside the weights it starts from."""

    rollouts: str = ""
    """File or folder of records to select from."""
    overlap_term: str = "time"
    """Reward term that is the temporal IoU of an episode."""
    min_overlap: Share = 0.3
    """Least temporal IoU of a rollout that is kept."""
    per_question: CountOrNone = 4
    """Limit of rollouts per question, the first ones; 0: all."""
    iterations: Count = 1600
    """Gradient steps."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: as in `agents.train_sft.Config`, or records are named.
        """
        super().__post_init__()
        if self.records and Path(self.records).name != SELECTED:
            raise ValueError(
                f"records={self.records} would not be learned from, but what is selected of rollouts: name "
                "them there"
            )

    @property
    def ignored(self) -> dict[str, str]:
        """See `LoopConfig.ignored`; a run writes its records itself."""
        why = "is for demonstrations, and there are rollouts"
        return super().ignored | dict.fromkeys(train_sft.DEMONSTRATING, why)


@dataclass(frozen=True)
class Selection:
    """What was kept, and why the rest was not."""

    kept: tuple[Record, ...]  # records of one question next to each other
    counts: dict[str, int]  # of records by what became of them; they add up to all that were read

    def __str__(self) -> str:
        questions = len({record.task_id for record in self.kept})
        reasons = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        return f"{sum(self.counts.values())} rollouts of which {reasons}; {questions} questions"


def select(
    records: Iterable[Record], *, overlap_term: str, min_overlap: float, per_question: int
) -> Selection:
    """Rollouts that answered right after a look at the right place.

    Args:
        records: rollouts; demonstrations among them are refused like others that do not fit.
        overlap_term: reward term that is the temporal IoU.
        min_overlap: least value of it, inclusive.
        per_question: most rollouts of one question; 0: all.

    Raises:
        RecordError: the recipe of a record has no such term, or none was kept: the message counts why.
    """
    counts = Counter(
        dict.fromkeys(
            ("kept", "demonstration", "cut", "wrong", "no overlap", "over the cap", "repeated"), 0
        )
    )
    kept: dict[str, list[Record]] = {}
    seen: set[tuple[str, tuple[tuple[int, ...], ...]]] = set()
    for record in records:
        reason = _refusal(record, overlap_term, min_overlap)
        said = (record.task_id, tuple(turn.output for turn in record.turns))
        if not reason and said in seen:
            reason = "repeated"
        elif not reason and per_question and len(kept.get(record.task_id, ())) >= per_question:
            reason = "over the cap"
        counts[reason or "kept"] += 1
        if not reason:
            seen.add(said)
            kept.setdefault(record.task_id, []).append(record)
    selection = Selection(tuple(record for some in kept.values() for record in some), dict(counts))
    if not selection.kept:
        raise RecordError(f"no rollout was good enough: {selection}")
    return selection


def _refusal(record: Record, overlap_term: str, min_overlap: float) -> str:
    if record.kind != "rollout":
        return "demonstration"
    if record.abort_reason:
        return "cut"
    if not record.success:
        return "wrong"
    try:
        overlap = record.total(overlap_term)
    except KeyError:
        names = ", ".join(record.played[0].terms)
        raise RecordError(
            f"recipe {record.recipe} has no reward term {overlap_term!r} to select by; it has {names}"
        ) from None
    return "" if overlap is not None and overlap >= min_overlap else "no overlap"


def train(config: Config, actor: ChatActor, out: Path, progress: bool = False) -> TrainingRun:
    """Select, then train a policy in place; the selection is written to ``selected.jsonl``.

    Raises:
        OptionError: no rollouts are named.
        RecordError: nothing to learn from, or rollouts of another recipe or tokenizer.
    """
    if not config.rollouts:
        raise OptionError("rollouts must name the file or folder of records to select from, got ''")
    path = out / SELECTED
    # A run that goes on learns from what it began with, whatever has been collected since.
    if is_first() and not (path.exists() and (out / "checkpoint").exists()):
        write_selection(config, actor, path)
    return train_sft.train(replace(config, records=str(path)), actor, out, progress)


def write_selection(config: Config, actor: ChatActor, path: Path) -> None:
    """Select, say how many, and write what was kept."""
    rollouts = read_records(
        Path(config.rollouts), config.rules.identity, fingerprint(actor.model.tokenizer)
    )
    selection = select(
        rollouts,
        overlap_term=config.overlap_term,
        min_overlap=config.min_overlap,
        per_question=config.per_question,
    )
    sys.stderr.write(f"{selection}\n")
    # All outputs of a rollout that went well are examples.
    write_records(path, selection.kept)


if __name__ == "__main__":
    command_line(__doc__, Config, train, Path("runs/rft"))
