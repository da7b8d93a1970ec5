"""Which numbers an option may have: the type of its field says it, and a config refuses all others.

``iterations: Count = 60`` is an `int` to whoever reads it. No number may be infinite or NaN.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin


class OptionError(ValueError):
    """An option has a value that it cannot have, by itself, beside others or here; it says which."""


@dataclass(frozen=True)
class Bounds:
    """Finite numbers from one to another.

    Args:
        least: the smallest; where it is ``open``, it is none itself.
        most: the largest; where it is ``below``, it is none itself.
    """

    least: float
    most: float = math.inf
    open: bool = False
    below: bool = False

    def refusal(self, value: float) -> str:
        """What a number must be that this one is not; "" if nothing."""
        try:
            is_finite = math.isfinite(value)
        except OverflowError:  # an integer that no float holds
            is_finite = False
        if not is_finite:
            return "must be a finite number"
        low = value > self.least if self.open else value >= self.least
        high = value < self.most if self.below else value <= self.most
        if low and high:
            return ""
        if self.most == math.inf:
            return f"must be {'above' if self.open else 'at least'} {self.least:g}"
        return f"must be from {self.least:g} to {'below ' if self.below else ''}{self.most:.15g}"


Count = Annotated[int, Bounds(1)]
CountOrNone = Annotated[int, Bounds(0)]  # 0: none, or all
Seed = Annotated[int, Bounds(0, 2**32 - 1)]  # numpy's, torch's and Gymnasium's
Port = Annotated[int, Bounds(0, 65_535)]  # 0: one that is free
Threads = Annotated[int, Bounds(1, 1024)]
Share = Annotated[float, Bounds(0, 1)]
ShareBelowOne = Annotated[float, Bounds(0, 1, below=True)]
Coefficient = Annotated[float, Bounds(0)]
Positive = Annotated[float, Bounds(0, open=True)]


def bounds_of(kind: Any) -> tuple[Any, Bounds | None]:
    """The plain type of a field, and the bounds that it has."""
    if get_origin(kind) is not Annotated:
        return kind, None
    plain, *further = get_args(kind)
    return plain, next((one for one in further if isinstance(one, Bounds)), None)


def number(kind: Any) -> Callable[[str], Any]:
    """How a command reads a number within the bounds of a type, for `argparse`."""
    plain, bounds = bounds_of(kind)

    def read(text: str) -> Any:
        value = plain(text)
        if bounds and (refusal := bounds.refusal(value)):
            raise argparse.ArgumentTypeError(f"{refusal}, got {text}")
        return value

    read.__name__ = plain.__name__  # as `argparse` calls what it cannot read
    return read
