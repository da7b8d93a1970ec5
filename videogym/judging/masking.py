"""Keys in texts of others: found in the forms in which servers repeat them, and masked.

What a server says goes to logs, warnings, errors and traces, which are shared. Servers repeat keys as they
came, encoded, or cut; a part of a key that is too short to be told from other words stays.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from urllib.parse import quote

MASK = "[key]"
_SHORTEST = 6  # characters of a key; "EMPTY" and its like are none, and would be masked in every text
_PIECE = 8  # characters of a form of a key by which it is known
_CREDENTIALS = re.compile(r"(?<=//)[^/\s@'\"]+@")  # in an address
_CUT = re.compile(r"\*{2,}|\.{2,}|\u2026")  # in sk-ab****yz
_HEAD = 3  # characters of a key before its cut


def masked(text: str, key: str = "", most: int | None = None) -> str:
    """A text without a key, and without the credentials of addresses.

    Args:
        text: of somebody else.
        key: masked as it is, in other case, percent-encoded, hexadecimal and in base64, alone or within
            more that was encoded, and every piece of 8 characters of these; with stars or dots for its
            middle. Keys of less than 6 characters are not secret.
        most: characters that are kept, of the masked text.

    >>> masked("Incorrect API key provided: Bearer sk-0123456789", "sk-0123456789")
    'Incorrect API key provided: Bearer [key]'
    >>> masked("see https://me:secret@host/v1")
    'see https://[key]@host/v1'
    """
    if most is not None:  # nothing behind can be kept, but a key that begins before the cut
        text = text[: most + 8 * len(key) + 256]
    text = _CREDENTIALS.sub(f"{MASK}@", text)
    if len(key) >= _SHORTEST:
        text = _without(text, key)
        text = _without_cut(text, key)
    return text if most is None else text[:most]


def _without(text: str, key: str) -> str:
    pieces = {
        form[place : place + _PIECE]
        for form in (form.lower() for form in _forms(key))
        for place in range(max(1, len(form) - _PIECE + 1))
    }
    folded = "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)
    hits = [
        (place, place + length)
        for length in sorted({len(piece) for piece in pieces})
        for place in range(len(folded) - length + 1)
        if folded[place : place + length] in pieces
    ]
    end, parts = 0, list[str]()
    for first, last in sorted(hits):
        if first > end or not parts:
            parts += [text[end:first], MASK]
        end = max(end, last)
    return "".join(parts) + text[end:] if parts else text


def _forms(key: str) -> Iterator[str]:
    """How a key can be written; never shorter than the key itself, or than a piece."""
    raw = key.encode()
    yield key
    yield quote(key, safe="")
    yield "".join(f"%{byte:02x}" for byte in raw)
    yield raw.hex()
    for before in range(3):  # bytes that stand before it in the same group of three
        # The first and the last digits are made with what stands around it.
        group = base64.b64encode(bytes(before) + raw).decode()
        inner = group[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        if len(inner) >= _PIECE:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")


def _without_cut(text: str, key: str) -> str:
    """A text without a key whose middle is left out."""
    end, parts = 0, list[str]()
    lengths = range(len(key), 0, -1)
    for cut in _CUT.finditer(text):
        heads = (n for n in lengths if n >= _HEAD and text.endswith(key[:n], end, cut.start()))
        head = next(heads, 0)
        tail = next((n for n in lengths if text.startswith(key[-n:], cut.end())), 0)
        if head:
            parts += [text[end : cut.start() - head], MASK]
            end = cut.end() + tail
    return "".join(parts) + text[end:]
