"""How every program of ours ends where whoever started it can mend what is wrong: by one line and status 2.

A program says which errors are such mistakes; what else is raised is a fault, and seen with its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from videogym.judging.endpoint import EndpointError
from videogym.video.types import VideoError

# Of programs that read what they are given and write what comes of it, and train nothing in between.
MENDABLE: tuple[type[Exception], ...] = (OSError, ValueError, ImportError, VideoError, EndpointError)
STATUS = 2


def in_a_line(error: BaseException) -> str:
    """What an error says, as one line that a terminal shows as it is; its class where it says nothing."""
    return printable(" ".join(str(error).split()) or type(error).__name__)


def printable(text: Any) -> str:
    r"""A text on one line, in which nothing is obeyed by a terminal or refused by an encoding.

    >>> printable("a\x1b[31m b\n c\ud800é")
    'a\\x1b[31m b\\n c\\ud800é'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


def missing_fields(row: Mapping[str, Any], names: Iterable[str], where: str = "") -> str:
    """Which fields a row lacks, all of them; "" if none.

    >>> missing_fields({"a": 1}, ("a", "b", "c"))
    "fields 'b', 'c' are missing"
    >>> missing_fields({}, ("a",), "turns[0].")
    "field 'turns[0].a' is missing"
    """
    lacking = [repr(f"{where}{name}") for name in names if name not in row]
    if not lacking:
        return ""
    return f"field{'s' * (len(lacking) > 1)} {', '.join(lacking)} {'are' if lacking[1:] else 'is'} missing"


@contextmanager
def told_in_a_line(program: str, mistakes: tuple[type[Exception], ...] = MENDABLE) -> Iterator[None]:
    """End a program by one line on standard error and status 2 for a mistake.

    Args:
        program: its name, before the line.
        mistakes: what is told so. A reader of the output that has left is none.

    Raises:
        SystemExit: with `STATUS`, in place of a mistake.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except mistakes as error:
        sys.stderr.write(f"{program}: error: {in_a_line(error)}\n")
        raise SystemExit(STATUS) from error
