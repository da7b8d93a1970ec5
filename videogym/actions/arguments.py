"""Numbers that policies put out, and what is wrong with them; which action they are of is not known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from videogym.geometry import as_float
from videogym.state import Invalid, Rules


def read_numbers(values: object) -> list[float] | None:
    """The values as finite floats; None if they are not a list of finite JSON numbers."""
    if not isinstance(values, list) or any(
        isinstance(v, bool) or not isinstance(v, int | float) for v in values
    ):
        return None
    try:
        numbers = [float(value) for value in values]
    except OverflowError:
        return None
    return numbers if all(math.isfinite(number) for number in numbers) else None


def as_number(value: object) -> float:
    """A number as Python's own, whole ones as int; NaN for all else, which no rules accept."""
    if isinstance(value, str | bytes | bool | np.bool_):
        return math.nan
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
    except OverflowError:
        return math.inf
    return int(number) if math.isfinite(number) and number == int(number) else number


def as_box(value: object) -> tuple[float, ...]:
    """The numbers of a box, each as `as_float`; four times NaN for what is no row of values."""
    if isinstance(value, str | bytes):
        return (math.nan,) * 4
    try:
        return tuple(map(as_float, value))  # type: ignore[call-overload]
    except TypeError:  # asked, not looked up: an array without a dimension is an Iterable by its class
        return (math.nan,) * 4


def as_text(value: object) -> str:
    """A text as it is; None for all else, which no rules accept."""
    return value if isinstance(value, str) else None  # type: ignore[return-value]  # like NaN of a number


def number_argument(name: str, value: Any) -> float | Invalid:
    """A JSON number of a tool call."""
    numbers = read_numbers([value])
    return Invalid("type", f"{name} must be a finite number.") if numbers is None else numbers[0]


def count_argument(name: str, value: Any) -> int | Invalid:
    """A whole JSON number of a tool call."""
    numbers = read_numbers([value])
    if numbers is None or numbers[0] != int(numbers[0]):
        return Invalid("type", f"{name} must be a whole number.")
    return int(value)


def judge_number(name: str, value: float, most: float, rules: Rules) -> Invalid | None:
    """Why a rate or scale is out of its range; above it only where the rules do not clamp."""
    if not math.isfinite(value):
        return Invalid("type", f"{name} must be a finite number, got {value}.")
    if value <= 0 or (value > most and rules.crop_range == "refuse"):
        return Invalid(name, f"{name} must be above 0 and at most {most:g}, got {value:g}.")
    return None


def judge_count(name: str, count: float, rules: Rules) -> int | Invalid:
    """A number of frames or moments that was asked for, at least 1; below it only where the rules clamp."""
    if not math.isfinite(count) or count != int(count):
        return Invalid("type", f"{name} must be a whole number, got {count}.")
    if count < 1:
        clamped = rules.crop_range == "clamp"
        return 1 if clamped else Invalid(name, f"{name} must be at least 1, got {count:g}.")
    return int(count)
