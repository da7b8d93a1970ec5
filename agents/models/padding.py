"""Rows of different lengths, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def runs(sizes: Sequence[int], most: int) -> list[slice]:
    """Neighbours that go through a model together: padded to the largest, so many elements at most.

    An item that is larger alone is a run by itself.
    """
    found: list[slice] = []
    largest = 0
    for place, size in enumerate(sizes):
        largest = max(largest, size)
        if found and (place + 1 - found[-1].start) * largest <= most:
            found[-1] = slice(found[-1].start, place + 1)
        else:
            found.append(slice(place, place + 1))
            largest = size
    return found


def left_padded(rows: Sequence[Tensor], value: float = 0) -> Tensor:
    """(B, L) of rows of different lengths."""
    return pad_sequence(list(rows), batch_first=True, padding_value=value, padding_side="left")


def right_padded(rows: Sequence[Tensor], value: float = 0) -> Tensor:
    """(B, L) of rows of different lengths."""
    return pad_sequence(list(rows), batch_first=True, padding_value=value)
