"""Which fields of a published row become metadata: all plain ones that nothing else is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

_LONGEST_TEXT = 1000  # characters; what is longer is content, such as subtitles or a model's reasoning
_LONGEST_LIST = 100  # items


def metadata_of(row: Mapping[str, Any], used: Iterable[str]) -> dict[str, Any]:
    """The fields of a row that say what kind of question it is: duration, domain, task type and the like.

    Texts of up to 1,000 characters, finite numbers, truth values, and lists of up to 100 such. Anything
    else is left out: what is missing (null, or NaN as tables write it), objects, bytes, dates.

    Args:
        row: as it was read.
        used: names of fields that are something else in the task, or that are left alone.
    """
    taken = set(used)
    values = {name: _value(value) for name, value in row.items() if name not in taken}
    return {name: value for name, value in values.items() if value is not None}


def _value(value: Any) -> Any:
    if isinstance(value, list):
        items = [_scalar(item) for item in value]
        return items if len(items) <= _LONGEST_LIST and None not in items else None
    return _scalar(value)


def _scalar(value: Any) -> Any:
    """The value if it is plain, else None."""
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, str):
        half = not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value)
        return None if half or len(value) > _LONGEST_TEXT else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) and value.bit_length() <= 64 else None
