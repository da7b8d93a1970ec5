"""Texts as a page can show them."""

from __future__ import annotations

import re
from typing import Any

# Characters without a shape, and halves of surrogate pairs, which no file can hold.
_SHAPELESS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def visible(value: Any) -> Any:
    """A text in which every character has a shape: control characters that of their pictures."""
    return _SHAPELESS.sub(_shape, value) if type(value) is str else value


def _shape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"
