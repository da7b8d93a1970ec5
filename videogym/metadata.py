"""What is told of a task beside its question: category, duration class, question type, anything in JSON.

Metadata groups metrics. No policy sees it, and nothing in an episode depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

_DEEPEST = 16  # lists and objects in each other
_LARGEST = 1024  # bits of a whole number, as far as the floats of other JSON readers go


class MetadataError(ValueError):
    """Metadata is no JSON. The message names the field and the value."""


class Metadata(Mapping[str, Any]):
    """A JSON object that never changes: it can be hashed, pickled and compared with any mapping.

    Lists come back as tuples and objects as `Metadata`.

    Args:
        fields: names and JSON values: text, finite numbers, truth values, None, and lists and objects of
            such.

    Raises:
        MetadataError: a value is none of these, or a name is no text.

    >>> Metadata({"domain": "sports", "task_type": ["OCR", "counting"]})["task_type"]
    ('OCR', 'counting')
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any] = MappingProxyType({})) -> None:
        if not isinstance(fields, Mapping):
            raise MetadataError(f"metadata must be an object, got {_short(fields)}")
        self._fields = _frozen_object(fields, "", 0)

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __hash__(self) -> int:
        return hash(frozenset(self._fields.items()))

    def __repr__(self) -> str:
        return repr(self._fields)

    def __reduce__(self) -> tuple[type[Metadata], tuple[dict[str, Any]]]:
        return type(self), (self._fields,)

    def __deepcopy__(self, memo: object) -> Metadata:
        return self

    def to_json(self) -> dict[str, Any]:
        """The object as `json.dumps` takes it."""
        return {name: _plain(value) for name, value in self._fields.items()}


def _frozen_object(fields: Mapping[str, Any], place: str, depth: int) -> dict[str, Any]:
    frozen = {}
    for name, value in fields.items():
        if not isinstance(name, str) or not _is_text(name):
            raise MetadataError(
                f"metadata{f' {place!r}' if place else ''}: a name must be text, got {name!r}"
            )
        frozen[name] = _frozen(value, f"{place}.{name}" if place else name, depth + 1)
    return frozen


def _frozen(value: Any, place: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise MetadataError(f"metadata {place[:40]!r} is nested deeper than {_DEEPEST} lists and objects")
    if isinstance(value, Mapping):
        # Made without looking at it twice: what is in it has been frozen already.
        frozen = Metadata()
        frozen._fields = _frozen_object(value, place, depth)
        return frozen
    if isinstance(value, list | tuple):
        return tuple(_frozen(item, f"{place}[{i}]", depth + 1) for i, item in enumerate(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value.bit_length() <= _LARGEST:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, str) and _is_text(value):
        return str(value)
    problem = "must be JSON: text, a finite number, true, false, null, or a list or an object of such"
    raise MetadataError(f"metadata {place!r} {problem}; got {_short(value)}")


def _is_text(text: str) -> bool:
    """Whether a text can be written: half a surrogate pair is no character."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _plain(value: Any) -> Any:
    if isinstance(value, Metadata):
        return value.to_json()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else f'{text[:77]}...'}"
