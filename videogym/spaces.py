"""A text space that holds real text, usable in Gymnasium's vector environments.

Gymnasium's own `Text` space accepts a fixed set of characters, by default letters and digits only,
so that real questions and model outputs are no members of it. This one accepts any Unicode string up
to a length and stores code points in shared memory.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Text
from gymnasium.spaces.utils import flatdim, flatten, flatten_space, unflatten
from gymnasium.vector.utils import read_from_shared_memory
from numpy.typing import NDArray

_SAMPLED = string.ascii_letters + string.digits + string.punctuation + " \n" + "äßéλж中日🙂"
_PADDING = -1  # after the last character; no code point


def is_encodable(text: str) -> bool:
    """Whether a string holds no lone surrogates, which are halves of characters and cannot be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class UnicodeText(Text):
    """All strings of at most ``max_length`` characters, the empty one included.

    `sample` draws up to 64 printable characters, some of them outside ASCII. Surrogates are no
    members: they cannot be encoded.
    """

    def __init__(self, max_length: int, *, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(max_length, min_length=0, charset=_SAMPLED, seed=seed)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A short random string; masks are not supported.

        Raises:
            ValueError: a mask was given.
        """
        if mask is not None or probability is not None:
            raise ValueError("UnicodeText cannot be sampled with a mask")
        length = int(self.np_random.integers(0, min(self.max_length, 64) + 1))
        return "".join(self.np_random.choice(list(_SAMPLED), size=length))

    def contains(self, x: Any) -> bool:
        """Whether ``x`` is a string within the length and without surrogates."""
        if not isinstance(x, str) or len(x) > self.max_length:
            return False
        return is_encodable(x)

    def __repr__(self) -> str:
        return f"UnicodeText({self.max_length})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText) and self.max_length == other.max_length

    __hash__ = None  # type: ignore[assignment]  # mutable random state, like every space


# The stubs do not know that a Text is a Space.
@flatdim.register(UnicodeText)
def _flatdim(space: UnicodeText) -> int:
    return space.max_length


@flatten.register(UnicodeText)
def _flatten(space: UnicodeText, x: str) -> NDArray[np.int32]:  # type: ignore[misc]
    points = np.full(space.max_length, _PADDING, dtype=np.int32)
    points[: len(x)] = np.frombuffer(x.encode("utf-32-le"), dtype="<u4")
    return points


@unflatten.register(UnicodeText)
def _unflatten(space: UnicodeText, x: NDArray[np.int32]) -> str:  # type: ignore[misc]
    points = x[: int(np.argmax(x == _PADDING))] if (x == _PADDING).any() else x
    return points.astype("<u4").tobytes().decode("utf-32-le")


@flatten_space.register(UnicodeText)
def _flatten_space(space: UnicodeText) -> Box:
    return Box(_PADDING, 0x10FFFF, shape=(space.max_length,), dtype=np.int32)


class _SharedTexts(Sequence[str]):
    """Texts in shared memory, decoded when they are read; a deep copy is a plain tuple of them.

    Gymnasium reads shared memory once, when a vector is made, and takes what it gets for views. Strings
    decoded then would stay empty for ever.
    """

    def __init__(self, space: UnicodeText, rows: NDArray[np.int32]) -> None:
        self._space, self._rows = space, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self)[index]
        return _unflatten(self._space, self._rows[index])

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return tuple(self)


@read_from_shared_memory.register(UnicodeText)
def _read_from_shared_memory(space: UnicodeText, shared_memory: Any, n: int = 1) -> _SharedTexts:
    rows = np.frombuffer(shared_memory.get_obj(), dtype=np.int32).reshape(n, space.max_length)
    return _SharedTexts(space, rows)
