"""What an answer says: which option it names, which text or number it is.

Everyone who compares answers asks here: the judges, the environment that refuses what is no answer, the
report that marks the chosen option. Only what is the same letter in another shape counts as the same
text: a full-width letter does, a superscript or a fraction does not, since 10² is not 102.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal

from videogym.state import SIGNS, Task, is_number

# Compatibility forms that are the same letter, drawn otherwise. NFKC also folds those that mean
# something else: superscripts, subscripts, fractions, circled and styled letters.
_SAME_LETTER = {"<wide>", "<narrow>", "<noBreak>", "<initial>", "<medial>", "<final>", "<isolated>"}
# Marks that show nothing: of direction, a byte order mark, a soft hyphen, where a line may (not) break.
# Not the joiners U+200C and U+200D, which tell words of some scripts apart.
_UNSEEN = dict.fromkeys(map(ord, "\u00ad\u061c\u200b\u200e\u200f\u2060\ufeff"))
_UNSEEN |= dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
_FIRST_LIGATURE, _LAST_LIGATURE = "\ufb00", "\ufb06"  # Latin: ff, fi, fl, ffi, ffl, long st, st
_LETTER = re.compile(r"\(\s*([A-Za-z])\s*\)|([A-Za-z])\s*[.):]?")
# Commas separate thousands where they stand as such; an exponent of more digits is no one's answer.
_NUMBER = re.compile(
    r"[-+]?(?:\d{1,3}(?:,\d{3})++(?:\.\d++)?|\d++(?:_\d++)*+(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d{1,4})?"
)
_LABELLED = re.compile(r"(?:\(\s*([A-Za-z])\s*\)|([A-Za-z])\s*[.):])\s*(.*)", re.DOTALL)


def plain(text: str) -> str:
    """The same text in one shape: white space as single blanks, full-width letters and ligatures folded.

    Marks that show nothing go. Case and everything that can tell one text from another stays.

    >>> plain(" Ｂ   ﬂag "), plain("10²")
    ('B flag', '10²')
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", "".join(map(_shape, text.translate(_UNSEEN))))
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


def number_of(text: str) -> Decimal | None:
    """The number that a text is, in digits; None: it is no number, or more than one.

    Any dash before it is a minus, commas may separate thousands, and a full stop may end it. All that
    may be the answer of a numeric task (`videogym.state.is_number`) is a number here.

    >>> [str(number_of(text)) for text in ("1,000", "–5.0", "-.5", "1_000", "1,00", "about 5", "10²")]
    ['1000', '-5.0', '-0.5', '1000', 'None', 'None', 'None']
    """
    text = _unstopped(with_plain_signs(text))
    if match := _NUMBER.fullmatch(text):
        return Decimal(match[0].replace(",", ""))
    # Forms that Python alone writes; read as a float, for an exponent may be too long for a decimal.
    return Decimal(repr(float(text))) if is_number(text) else None


def said(text: str) -> str | Decimal:
    """What a text says, however it is put: equal for texts that people take for the same answer.

    A number by its value. Of any other text case, white space, the shape of letters and dashes, a full
    stop at the end and articles (a, an, the) before another word do not count. A large A within a text
    is no article: "vitamin A deficiency" keeps it.

    >>> said("The red flag.") == said("a Red  flag"), said("0") == said("0.0"), said("1,000") == said("1e3")
    (True, True, True)
    >>> said("vitamin A") == said("vitamin"), said("3.5") == said("35"), said("not red") == said("red")
    (False, False, False)
    """
    number = number_of(text)
    if number is not None:
        return number
    words = _unstopped(with_plain_signs(text)).split()
    kept = [word for i, word in enumerate(words) if not _is_article(words, i)]
    return folded(" ".join(kept))


def _is_article(words: list[str], place: int) -> bool:
    word, after = words[place], words[place + 1 : place + 2]
    if not after or not after[0][0].isalnum():
        return False
    return word.casefold() in ("an", "the") or word == "a" or (word == "A" and place == 0)


def same_answer(given: str, truth: str) -> bool:
    """Whether an open answer `said` what the true one says. An empty answer is none."""
    return bool(given.strip()) and said(given) == said(truth) != ""


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
    letter and text together, then the text alone: as it is, without a full stop at its end, in any case,
    and at last however it is put, see `said`.

    Returns:
        One of ``task.letters``, or None: the answer names no option, or several at once.
    """
    letter = letter_named(task, answer) or _labelled(task, answer)
    if letter is not None:
        return letter
    readings: tuple[Callable[[str], str | Decimal], ...] = (
        plain,
        lambda text: _unstopped(plain(text)),
        folded,
        lambda text: _unstopped(folded(text)),
        said,
    )
    for read in readings if plain(answer) else ():
        given = read(answer)
        named = [
            letter for letter, text in zip(task.letters, task.options, strict=True) if read(text) == given
        ]
        if given != "" and named:
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
    ends = text.endswith((".", "。")) and not text.endswith("..")
    return text[:-1] if ends and len(text) > 1 else text
