"""Fields of rows: each function takes one apart, or raises `ValueError` that names it.

Values are plain Python, as JSON and parquet give them. Nothing is guessed and no text is evaluated: a
list that is written out as Python code is refused.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from videogym.datasets.rows import Row, RowLeftOut, parse_json
from videogym.geometry import Region, Segment
from videogym.mistakes import missing_fields
from videogym.video.addresses import is_address
from videogym.video.containers import VIDEO_SUFFIXES

Fields = dict[str, Any]

_LISTED = 20  # fields that are named where one is missing
_NUMBERS = (int, float, Decimal)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTERED = re.compile(r"\s*\(?([A-Z])\s*[.):]\s*(.*)", re.DOTALL)
_INLINE = re.compile(r"\n\s*\(([A-Z])\)[ \t]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


# --- texts and numbers -------------------------------------------------------------------------


def text_of(row: Fields, name: str, *, empty: bool = False) -> str:
    """A text field.

    Raises:
        ValueError: it is missing (the message names those that there are), not text, empty, or holds half
            a surrogate pair.
    """
    return _text(_value(row, name), name, empty)


def require_fields(row: Fields, *names: str) -> None:
    """Refuse a row that lacks some fields.

    Raises:
        ValueError: the message names all that are missing, and those that there are.
    """
    if lacking := missing_fields(row, names):
        listed = ", ".join(repr(found) for found in list(row)[:_LISTED]) or "none"
        more = f" and {len(row) - _LISTED} more" if len(row) > _LISTED else ""
        raise ValueError(f"{lacking}; there are {listed}{more}")


def _value(row: Fields, name: str) -> Any:
    require_fields(row, name)
    return row[name]


def _text(value: Any, name: str, empty: bool = False) -> str:
    if not isinstance(value, str) or not (empty or value.strip()):
        raise ValueError(f"field {name!r} must be {'' if empty else 'non-empty '}text, got {short(value)}")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"field {name!r} holds half a surrogate pair, which is no character")
    return value


def texts_of(row: Fields, name: str) -> tuple[str, ...]:
    """A field that is a list of texts.

    Raises:
        ValueError: it is missing or something else.
    """
    values = _value(row, name)
    if not isinstance(values, list):
        raise ValueError(f"field {name!r} must be a list of texts, got {short(values)}")
    return tuple(_text(value, f"{name}[{i}]") for i, value in enumerate(values))


def choice_of(row: Fields, name: str, allowed: Sequence[str]) -> Any:
    """A field with a closed set of values.

    Raises:
        ValueError: it is missing or none of them.
    """
    value = text_of(row, name)
    if value not in allowed:
        raise ValueError(f"field {name!r} must be one of {', '.join(allowed)}, got {short(value)}")
    return value


def id_of(row: Fields, name: str) -> str:
    """A field that is text or a whole number, as text.

    Raises:
        ValueError: it is something else.
    """
    value = row.get(name)
    return str(value) if _is_whole(value) else text_of(row, name)


def seconds_of(row: Fields, name: str) -> float:
    """A duration.

    Raises:
        ValueError: it is missing or no positive number.
    """
    value = _value(row, name)
    # Comparing refuses NaN and the whole numbers that are too large for a float.
    if not _is_number(value) or not 0 < value < 1e9:
        raise ValueError(f"field {name!r} must be a positive number of seconds, got {short(value)}")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def short(value: Any) -> str:
    """The value for a message, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# --- lists and objects -------------------------------------------------------------------------


def unpacked(row: Fields, *names: str) -> Fields:
    """The row with those fields read as JSON that are texts: tables often store lists so.

    Raises:
        ValueError: such a text is not JSON.
    """
    row = dict(row)
    for name in names:
        if isinstance(row.get(name), str):
            try:
                row[name] = parse_json(row[name])
            except ValueError as error:
                raise ValueError(
                    f"field {name!r} must be a list or an object, or JSON of one (Python code is not "
                    f"evaluated), got {short(row[name])}"
                ) from error
    return row


def object_of(row: Fields, name: str) -> Fields:
    """A field that is an object.

    Raises:
        ValueError: it is missing or something else.
    """
    value = _value(row, name)
    if not isinstance(value, dict):
        raise ValueError(f"field {name!r} must be an object, got {short(value)}")
    return value


def objects_of(row: Fields, name: str) -> list[Fields]:
    """A field that is a list of objects.

    Raises:
        ValueError: it is missing or something else.
    """
    value = _value(row, name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"field {name!r} must be a list of objects, got {short(value)}")
    return value


# --- options and letters -----------------------------------------------------------------------


def options_of(row: Fields, name: str) -> tuple[str, ...]:
    """Option texts; the letters of ``["A. x", "B. y"]`` are cut off if all options have theirs.

    Whole numbers count as texts.

    Raises:
        ValueError: the field is no list of texts.
    """
    values = row.get(name)
    if isinstance(values, list):
        row = {name: [str(value) if _is_whole(value) else value for value in values]}
    options = texts_of(row, name)
    return without_letters(options) or options


def without_letters(options: Sequence[str]) -> tuple[str, ...]:
    """Options without their letters, or nothing unless the letters count up from A.

    >>> without_letters(["A. red", "B) blue", "(C) green"])
    ('red', 'blue', 'green')
    >>> without_letters(["A. red", "blue"])
    ()
    """
    letters, texts = split_letters(options)
    return texts if letters == _LETTERS[: len(letters)] else ()


def split_letters(options: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Letters and texts of options like ``"A. red"``; an option without a letter has ``"?"``."""
    matches = [_LETTERED.fullmatch(text) for text in options]
    letters = "".join(match[1] if match else "?" for match in matches)
    return letters, tuple(match[2] if match else text for match, text in zip(matches, options, strict=True))


def inline_options(text: str, name: str) -> tuple[str, tuple[str, ...]]:
    r"""Question and options of a text that ends in lines ``(A) ...``, ``(B) ...``.

    Raises:
        ValueError: there are no such lines, or their letters do not count up from A.

    >>> inline_options("Which?\n(A) red\n(B) blue\n", "question")
    ('Which?', ('red', 'blue'))
    """
    question, *parts = _INLINE.split(_text(text, name))
    letters, options = "".join(parts[::2]), tuple(part.strip() for part in parts[1::2])
    if not letters or letters != _LETTERS[: len(letters)]:
        raise ValueError(
            f"field {name!r} must end in the lines '(A) ...', '(B) ...' and so on, "
            f"got the letters {letters!r}"
        )
    return question.strip(), options


def letter_at(index: Any, options: Sequence[str], name: str) -> str:
    """Letter of the option at an index.

    Raises:
        ValueError: it is no whole number, or there is no such option.
    """
    if not _is_whole(index) or not 0 <= index < len(options):
        allowed = f"a whole number from 0 to {len(options) - 1}"
        raise ValueError(f"field {name!r} must be {allowed}, got {short(index)}")
    return _LETTERS[index]


def letter_of_text(row: Fields, name: str, options: Sequence[str]) -> str:
    """Letter of the first option that reads like the field.

    Raises:
        RowLeftOut: none does, as in some published rows.
    """
    text = id_of(row, name).strip()
    for letter, option in zip(_LETTERS, options, strict=False):
        if option.strip() == text:
            return letter
    raise RowLeftOut(f"field {name!r} must be the text of one of the options, got {short(text)}")


# --- evidence ----------------------------------------------------------------------------------


def segments_of(row: Fields, name: str) -> tuple[Segment, ...]:
    """A field that is a list of ``[start_s, end_s]``.

    Raises:
        ValueError: it is something else, or a segment is inverted, negative or not finite.
    """
    values = _value(row, name)
    if not isinstance(values, list) or not values:
        problem = "must be a non-empty list of [start_s, end_s], or null where nothing is annotated"
        raise ValueError(f"field {name!r} {problem}, got {short(values)}")
    return tuple(segment(value, f"{name}[{i}]") for i, value in enumerate(values))


def published_segments(line: Row, row: Fields, name: str) -> tuple[Segment, ...]:
    """A field that is a list of ``[start_s, end_s]``, as annotators left them.

    A span that starts before its video is read from 0 and noted in ``line.early``.

    Raises:
        ValueError: it is something else, or a segment is inverted, before the video or not finite.
    """
    values = row.get(name)
    if not isinstance(values, list):
        return segments_of(row, name)  # says what is wrong
    return segments_of({name: [from_zero(line, value) for value in values]}, name)


def from_zero(line: Row, value: Any) -> Any:
    """The same span from 0 if it starts before its video and ends in it; anything else as it is."""
    try:
        start_s, end_s = pair(value, "")
    except ValueError:
        return value  # to be refused by whoever reads it
    if not start_s < 0 < end_s:
        return value
    if isinstance(line.early, list):
        line.early.append(line.place)
    return [0.0, end_s]


def segment(value: Any, name: str) -> Segment:
    """One ``[start_s, end_s]``.

    Raises:
        ValueError: it is something else, inverted, negative or not finite.
    """
    bounds = pair(value, name)
    try:
        return Segment(*bounds)
    except ValueError as error:
        raise ValueError(f"field {name!r}: {error}") from error


def pair(value: Any, name: str) -> tuple[float, float]:
    """Two numbers.

    Raises:
        ValueError: it is something else.
    """
    numbers: list[Any] = value if isinstance(value, list) and len(value) == 2 else [None]
    if not all(_is_number(number) for number in numbers):
        raise ValueError(f"field {name!r} must be [start_s, end_s], two numbers, got {short(value)}")
    try:
        return float(numbers[0]), float(numbers[1])
    except OverflowError as error:
        raise ValueError(f"field {name!r}: {error}") from error


def region_of(row: Fields, name: str) -> Region:
    """A field that is ``[x0, y0, x1, y1]``, fractions of the frame.

    Raises:
        ValueError: it is something else, leaves ``[0, 1]`` or has no area.
    """
    value = _value(row, name)
    if not (isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))):
        raise ValueError(f"field {name!r} must be [x0, y0, x1, y1], four numbers, got {short(value)}")
    try:
        return Region(*map(float, value))
    except (OverflowError, ValueError) as error:
        raise ValueError(f"field {name!r}: {error}") from error


# --- videos ------------------------------------------------------------------------------------


def video_of(row: Fields, name: str, *, folder: str = "") -> str:
    """A field that names a video file: an id, a file name or a path.

    ``file://`` and ``./`` in front are cut off, and a name without the ending of a video gets ``.mp4``
    (`videogym.datasets.find_videos` finds it under another one). An absolute path stays what it is.

    Args:
        row: the row.
        name: the field.
        folder: put before a name that is not absolute.

    Raises:
        ValueError: it is no text, leads upwards with ``..``, is an address, or holds control characters.
    """
    path = file_of(row, name, folder=folder)
    return path if path.lower().endswith(VIDEO_SUFFIXES) else f"{path}.mp4"


def file_of(row: Fields, name: str, *, folder: str = "") -> str:
    """A field that names a file of any kind, see `video_of`.

    Raises:
        ValueError: as `video_of`.
    """
    value = id_of(row, name)
    text = value.strip().removeprefix("file://").removeprefix("./")
    if ".." in text.split("/") or "://" in text or is_address(text) or _CONTROL.search(text):
        problem = "must be a path to a local file, without '..' and control characters"
        raise ValueError(f"field {name!r} {problem}, got {short(value)}")
    if not text or text.endswith("/"):
        raise ValueError(f"field {name!r} must name a file, got {short(value)}")
    return posixpath.normpath(posixpath.join(folder, text))
