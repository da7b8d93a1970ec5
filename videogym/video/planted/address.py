"""The name of a planted video: whose frames, which content they must have, and what is drawn into them.

Written ``planted-video:PATH?content=FINGERPRINT&insertions=TEXT``; the text is JSON in URL-safe
base 64, so that nothing of an answer can be read in it, and blanks behind it make the addresses of most
tasks equally long, so that nothing can be counted either. Whoever decodes it knows all, as with the seed
of a synthetic address. Read strictly, as these are.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote

from videogym.video.addresses import PLANTED_PREFIX
from videogym.video.planted.insertion import Insertion
from videogym.video.synthetic.address import InvalidAddress, read_fields

MAX_INSERTIONS = 64
_LEAST_CHARS = 1152  # of the JSON; more than eight bars and four shapes take


@dataclass(frozen=True, slots=True)
class PlantedAddress:
    """A planted video, named by everything that determines it.

    Raises:
        InvalidAddress: there is no source or content, or there are more than `MAX_INSERTIONS`.
    """

    source: str  # path of the file
    content: str  # fingerprint that its content must have
    insertions: tuple[Insertion, ...]  # in the order in which they are drawn

    def __post_init__(self) -> None:
        if not self.source or not self.content:
            raise InvalidAddress(
                f"planted video: source and content must not be empty, got {self.source!r}"
            )
        if self.source.startswith(PLANTED_PREFIX):
            raise InvalidAddress("planted video: its source must not be planted itself")
        if len(self.insertions) > MAX_INSERTIONS:
            raise InvalidAddress(
                f"planted video: at most {MAX_INSERTIONS} insertions, got {len(self.insertions)}"
            )

    def __str__(self) -> str:
        path = quote(self.source, safe="/", errors="surrogateescape")
        text = canonical(self.insertions).ljust(_LEAST_CHARS)
        coded = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        return f"{PLANTED_PREFIX}{path}?content={self.content}&insertions={coded}"

    @classmethod
    def parse(cls, text: str) -> PlantedAddress:
        """Read an address.

        Raises:
            InvalidAddress: a field is missing, unknown, repeated or unreadable; the message names it.
        """
        if not text.startswith(PLANTED_PREFIX):
            raise InvalidAddress(f"a planted address starts with {PLANTED_PREFIX!r}, got {text!r:.120}")
        path, values = read_fields(text.removeprefix(PLANTED_PREFIX), _READERS)
        if missing := [name for name in _READERS if name not in values]:
            raise InvalidAddress(f"{text!r:.120}: field {missing[0]!r} is missing")
        return cls(unquote(path, errors="surrogateescape"), values["content"], values["insertions"])

    def relocated(self, move: Callable[[str], str]) -> PlantedAddress:
        """The same video with other paths, of its source and of the files that are drawn into it."""
        moved = tuple(replace(one, file=move(one.file)) if one.file else one for one in self.insertions)
        return PlantedAddress(move(self.source), self.content, moved)


def canonical(insertions: tuple[Insertion, ...]) -> str:
    """Insertions as JSON, the same text on every machine."""
    return json.dumps([one.to_json() for one in insertions], separators=(",", ":"))


def _read_insertions(text: str) -> tuple[Insertion, ...]:
    try:
        rows: Any = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), "-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise ValueError("a list of insertions in URL-safe base 64") from None
    if not isinstance(rows, list):
        raise ValueError("a list of insertions in URL-safe base 64")
    return tuple(Insertion.from_json(row) for row in rows)


_READERS: dict[str, Callable[[str], Any]] = {"content": str, "insertions": _read_insertions}
