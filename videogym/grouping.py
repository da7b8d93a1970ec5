"""Metrics of episodes by what is told of their tasks: duration class, domain, question type.

A task counts in every item of a list: a question of two types is in both groups.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from videogym.intervals import Estimate, clustered_mean, clustered_proportion
from videogym.metadata import Metadata

if TYPE_CHECKING:
    from videogym.evaluate import Episode

T = TypeVar("T")
_WIDEST = 60  # characters of a value in a table
NOTHING = "(none)"  # group of the tasks that do not have the field


@dataclass(frozen=True)
class Group:
    """Metrics of the episodes whose tasks share a value. Intervals are clustered by video."""

    value: str
    episodes: int  # that were scored
    videos: int  # different ones
    accuracy: Estimate | None  # of those that were judged
    hit_rate: Estimate | None
    tiou: Estimate | None
    reward: Estimate | None  # of those that were judged
    turns: Estimate | None
    frames: Estimate | None
    left_out: int = 0  # tasks that could not be shown, or whose frames could not be decoded


@dataclass(frozen=True)
class Groups:
    """All groups by one field, the largest first."""

    name: str
    groups: tuple[Group, ...]

    @property
    def mean_accuracy(self) -> float | None:
        """Mean of the groups' accuracies, each counting alike, as MLVU's M-Avg is."""
        known = [group.accuracy.mean for group in self.groups if group.accuracy is not None]
        return sum(known) / len(known) if known else None


def values_of(metadata: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The groups that a task belongs to, in words.

    >>> values_of({"type": ["OCR", "count"], "level": 2.0, "hard": True}, "type")
    ('OCR', 'count')
    >>> values_of({"level": 2.0}, "level"), values_of({"hard": True}, "hard"), values_of({}, "type")
    (('2',), ('true',), ('(none)',))
    """
    value = metadata.get(name)
    items = value if isinstance(value, tuple | list) else (value,)
    words = tuple(dict.fromkeys(_words(item) for item in items if item is not None))
    return words or (NOTHING,)


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 2.0 of one file is 2 of another
    return json.dumps(Metadata({"": value}).to_json()[""], ensure_ascii=False)


def require_known(names: Iterable[str], told: Iterable[Mapping[str, Any]]) -> None:
    """Refuse to group by what no task tells.

    Raises:
        ValueError: names what there is.
    """
    known = {name for metadata in told for name in metadata}
    for name in names:
        if name not in known:
            there = f"there is: {', '.join(sorted(known))}" if known else "these tasks have none"
            raise ValueError(f"no task has metadata {name!r}; {there}")


def group(episodes: Sequence[Episode], name: str, left_out: Iterable[Mapping[str, Any]] = ()) -> Groups:
    """Metrics by one field of metadata.

    Args:
        episodes: that can be scored.
        name: of the field.
        left_out: metadata of the tasks that could not be.
    """
    members = split(((episode.metadata, episode) for episode in episodes), name)
    lost = split(((metadata, None) for metadata in left_out), name)
    values = dict.fromkeys([*members, *lost])
    return in_order(name, [_group(v, members.get(v, []), len(lost.get(v, []))) for v in values])


def split(told: Iterable[tuple[Mapping[str, Any], T]], name: str) -> dict[str, list[T]]:
    """Things by the groups that they belong to.

    Args:
        told: what is told of a thing, and the thing.
        name: of the field.
    """
    members: dict[str, list[T]] = defaultdict(list)
    for metadata, thing in told:
        for value in values_of(metadata, name):
            members[value].append(thing)
    return dict(members)


def in_order(name: str, groups: Iterable[Group]) -> Groups:
    """Groups with the largest first, and last what does not have the field."""
    return Groups(name, tuple(sorted(groups, key=lambda g: (g.value == NOTHING, -g.episodes, g.value))))


def _group(value: str, episodes: Sequence[Episode], left_out: int) -> Group:
    judged = [episode for episode in episodes if episode.correct is not None]
    return Group(
        value=value,
        episodes=len(episodes),
        videos=len({episode.video for episode in episodes}),
        accuracy=share(judged, lambda episode: episode.correct),
        hit_rate=share(episodes, lambda episode: episode.hit),
        tiou=average(episodes, lambda episode: episode.tiou),
        reward=average(judged, lambda episode: episode.reward),
        turns=average(episodes, lambda episode: episode.turns),
        frames=average(episodes, lambda episode: episode.frames),
        left_out=left_out,
    )


def share(episodes: Iterable[Episode], read: Callable[[Episode], bool | None]) -> Estimate | None:
    """Share of the episodes that have it, clustered by video; None where none has a value."""
    present = [(value, episode.video) for episode in episodes if (value := read(episode)) is not None]
    return clustered_proportion(*zip(*present, strict=True)) if present else None


def average(episodes: Iterable[Episode], read: Callable[[Episode], float | None]) -> Estimate | None:
    """Mean over the episodes that have a value, clustered by video; None where none has."""
    present = [(value, episode.video) for episode in episodes if (value := read(episode)) is not None]
    return clustered_mean(*zip(*present, strict=True)) if present else None


def _shown(text: str) -> str:
    """A text on one line, cut to 60 characters."""
    text = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:80]
    )
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def table(groups: Groups, most: int = 40) -> list[str]:
    """The groups as lines, one each. What a terminal would obey is written as an escape.

    Args:
        groups: of one field.
        most: groups that are written; what is left is counted in a line.
    """
    rows: list[tuple[str, ...]] = [
        (_shown(groups.name), "tasks", "videos", "accuracy", "hit rate", "frames", "")
    ]
    for one in groups.groups[:most]:
        metrics = ("" if f is None else str(f) for f in (one.accuracy, one.hit_rate))
        frames = "" if one.frames is None else f"{one.frames.mean:.1f}"
        lost = f"{one.left_out} left out" if one.left_out else ""
        rows.append((_shown(one.value), str(one.episodes), str(one.videos), *metrics, frames, lost))
    wide = [max(len(row[column]) for row in rows) for column in range(7)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)) for row in rows]
    if len(groups.groups) > most:
        lines.append(f"and {len(groups.groups) - most} more groups")
    if groups.mean_accuracy is not None and len(groups.groups) > 1:
        lines.append(f"mean of the groups' accuracies {groups.mean_accuracy:.3f}")
    return [line.rstrip() for line in lines]
