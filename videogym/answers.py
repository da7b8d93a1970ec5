"""What an answer says: which option it names, which text or number it is.

Everyone who compares answers asks here: the judges, the environment that refuses what is no answer, the
report that marks the chosen option. Only what is the same letter in another shape counts as the same
text: a full-width letter does, a superscript or a fraction does not, since 10² is not 102.
"""

from __future__ import annotations

import re
import unicodedata

from videogym.state import SIGNS, Task

# Compatibility forms that are the same letter, drawn otherwise. NFKC also folds those that mean
# something else: superscripts, subscripts, fractions, circled and styled letters.
_SAME_LETTER = {"<wide>", "<narrow>", "<noBreak>", "<initial>", "<medial>", "<final>", "<isolated>"}
_FIRST_LIGATURE, _LAST_LIGATURE = "\ufb00", "\ufb06"  # Latin: ff, fi, fl, ffi, ffl, long st, st
_LETTER = re.compile(r"\(\s*([A-Za-z])\s*\)|([A-Za-z])\s*[.):]?")
_LABELLED = re.compile(r"(?:\(\s*([A-Za-z])\s*\)|([A-Za-z])\s*[.):])\s*(.*)", re.DOTALL)


def plain(text: str) -> str:
    """The same text in one shape: white space as single blanks, full-width letters and ligatures folded.

    Case and everything that can tell one text from another stays.

    >>> plain(" Ｂ   ﬂag "), plain("10²")
    ('B flag', '10²')
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", "".join(map(_shape, text)))
    return " ".join(text.split())


def _shape(character: str) -> str:
    tag = unicodedata.decomposition(character).partition(" ")[0]
    if tag in _SAME_LETTER or _FIRST_LIGATURE <= character <= _LAST_LIGATURE:
        return unicodedata.normalize("NFKC", character)
    return character


def folded(text: str) -> str:
    """`plain` without case: equal for texts that say the same."""
    return unicodedata.normalize("NFC", plain(text).casefold())


def same_text(given: str, truth: str) -> bool:
    """Whether an open answer is the true one but for case, white space and the shape of letters.

    An empty answer is none, and never the same as anything.
    """
    return folded(given) == folded(truth) != ""


def with_plain_signs(text: str) -> str:
    """`plain` with every kind of dash as "-": before a number it is a minus, between two a range.

    >>> with_plain_signs("–5"), with_plain_signs("3–5")
    ('-5', '3-5')
    """
    return plain(text).translate(SIGNS)


def letter_named(task: Task, answer: str) -> str | None:
    """The letter that an answer is, in any case, with or without what letters are set off by.

    Returns:
        One of ``task.letters``, or None: the answer is something else, or the task has no such letter.
    """
    match = _LETTER.fullmatch(plain(answer))
    return _existing(task, match[1] or match[2]) if match else None


def option_named(task: Task, answer: str) -> str | None:
    """The letter of the one option that an answer names, however it is written.

    An existing letter is that letter and nothing else, even if it is the text of another option. Next come
    letter and text together, then the text alone: as it is, without a full stop at its end, in any case.

    Returns:
        One of ``task.letters``, or None: the answer names no option, or several at once.
    """
    letter = letter_named(task, answer) or _labelled(task, answer)
    if letter is not None:
        return letter
    for read in (
        plain,
        lambda text: _unstopped(plain(text)),
        folded,
        lambda text: _unstopped(folded(text)),
    ):
        given = read(answer)
        named = [
            letter for letter, text in zip(task.letters, task.options, strict=True) if read(text) == given
        ]
        if given and named:
            return named[0] if len(named) == 1 else None
    return None


def _labelled(task: Task, answer: str) -> str | None:
    match = _LABELLED.fullmatch(plain(answer))
    letter = _existing(task, match[1] or match[2]) if match else None
    if match is None or letter is None:
        return None
    text = _unstopped(folded(task.options[task.letters.index(letter)]))
    return letter if text and _unstopped(folded(match[3])) == text else None


def _existing(task: Task, letter: str) -> str | None:
    return letter.upper() if letter.upper() in task.letters else None


def _unstopped(text: str) -> str:
    """Without one full stop at the end, which an ellipsis and a text of nothing else keep."""
    return text[:-1] if text.endswith(".") and not text.endswith("..") and len(text) > 1 else text
