"""What two runs were: settings by name, which differ, and which only one of the two tells.

Knows nested JSON values only. Terms of a recipe are told apart by their names, so that one more term
is one difference and not a shift of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What decides most about an episode comes first; the last are words about it, which decide nothing.
_ORDER = (
    *("recipe.rules", "recipe.grammar", "recipe.terms", "recipe_identity", "tasks", "episodes", "policy"),
    *("seed", "wrappers", "observe", "backend", "trained_on", "shown", "versions"),
    *("recipe.name", "recipe.source", "recipe.choices"),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that both runs tell, and tell differently."""

    name: str  # e.g. "recipe.rules.max_turns"
    a: Any  # JSON values
    b: Any


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of two runs beside each other, the weightiest first."""

    differing: tuple[Difference, ...]
    only_a: tuple[str, ...]  # names of settings that B does not tell
    only_b: tuple[str, ...]
    same: int  # settings that both tell and that are equal


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Settings:
    """Compare nested settings.

    A name that only one of two recipes has, because they differ above it (another list of terms,
    another function), is explained by that difference and told nowhere else.
    """
    left, right = dict(_flat(a)), dict(_flat(b))
    both = sorted(left.keys() & right.keys(), key=_weight)
    differing = tuple(
        Difference(name, left[name], right[name]) for name in both if left[name] != right[name]
    )
    told = tuple(one.name for one in differing)

    def alone(names: set[str]) -> tuple[str, ...]:
        return tuple(sorted((n for n in names if not _is_below(n, told)), key=_weight))

    return Settings(
        differing=tuple(Difference(name, left[name], right[name]) for name in told),
        only_a=alone(left.keys() - right.keys()),
        only_b=alone(right.keys() - left.keys()),
        same=len(both) - len(told),
    )


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Names and plain values; of a list of named things its names, and each thing by its own."""
    if isinstance(value, Mapping) and len(value) == 1 and ":" in (only := next(iter(value))):
        yield name, only  # a callable object: its type, and below it its fields
        value = value[only]
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}".lstrip("."))
    elif named := _named(value):
        yield name, list(named)
        yield from _flat(named, name)
    else:
        yield name, value


def _named(value: Any) -> dict[str, Any]:
    """A list of terms, or of choices, by name; {} for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return {}
    if all(isinstance(item, Mapping) and "name" in item for item in value):
        return {item["name"]: {k: v for k, v in item.items() if k != "name"} for item in value}
    if all(_is_choice(item) for item in value):
        return dict(value)
    return {}


def _is_choice(item: Any) -> bool:
    return isinstance(item, Sequence) and len(item) == 2 and all(isinstance(word, str) for word in item)


def _is_below(name: str, told: Sequence[str]) -> bool:
    return any(name.startswith(f"{above}.") for above in told)


def _weight(name: str) -> tuple[int, str]:
    place = next((i for i, first in enumerate(_ORDER) if name == first or _is_below(name, (first,))), None)
    return (len(_ORDER) if place is None else place), name
