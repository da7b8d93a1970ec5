"""Tagged blocks such as ``<think>...</think>`` in a policy's output, read in linear time.

Knows tags and nothing of what stands between them. Regular expressions with two lazy groups take
quadratic time on hostile texts, so everything here walks the text with `str.find`.
"""

from __future__ import annotations

import re

from videogym.state import Invalid

THINK = "think"


def bodies(text: str, tag: str) -> list[str]:
    """What stands between each ``<tag>`` and the next ``</tag>``, in order, not nested."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    found: list[str] = []
    start = text.find(opening)
    while start >= 0:
        start += len(opening)
        end = text.find(closing, start)
        if end < 0:
            break
        found.append(text[start:end])
        start = text.find(opening, end + len(closing))
    return found


def after_thought(text: str, tag: str) -> str | None:
    r"""The first ``tag`` block of a text that is a thought and then blocks of that tag, else None.

    The same texts as ``^\s*<think>(.*?)</think>\s*<tag>(.*?)</tag>\s*$`` with ``.`` matching
    newlines: further blocks may hide in either lazy group, and the first body is returned.

    Source: the format checks of Video-MTR and of LongVT's reward use this pattern.
    """
    stripped, opening, closing = text.strip(), f"<{THINK}>", f"</{tag}>"
    if not (stripped.startswith(opening) and stripped.endswith(closing)):
        return None
    joint = re.compile(rf"</{THINK}>\s*<{tag}>").search(stripped, len(opening))
    if joint is None or joint.end() > len(stripped) - len(closing):
        return None
    return stripped[joint.end() : stripped.find(closing, joint.end())]


def exactly_one(text: str, tags: tuple[str, ...]) -> tuple[str, str] | Invalid:
    """Tag and body of the one block that follows the one thought, or why the text is not that.

    Args:
        text: a whole output.
        tags: tags of which exactly one must follow the thought; none may occur twice anywhere.
    """
    stripped = text.strip()
    opening, closing = f"<{THINK}>", f"</{THINK}>"
    if not stripped.startswith(opening) or _count(stripped, THINK) != (1, 1):
        return Invalid("format", f"Begin with exactly one {opening}...{closing} block.")
    counts = {tag: _count(stripped, tag) for tag in tags}
    used = [tag for tag in tags if counts[tag] != (0, 0)]
    choice = " or ".join(f"<{tag}>...</{tag}>" for tag in tags)
    if len(used) != 1 or counts[used[0]] != (1, 1):
        return Invalid("format", f"After the thought write exactly one block: {choice}.")
    tag = used[0]
    rest = stripped[stripped.index(closing) + len(closing) :].strip()
    if not (rest.startswith(f"<{tag}>") and rest.endswith(f"</{tag}>")):
        return Invalid(
            "format", f"Write nothing before, between or after the thought and the <{tag}> block."
        )
    return tag, rest[len(tag) + 2 : -len(tag) - 3]


def _count(text: str, tag: str) -> tuple[int, int]:
    return text.count(f"<{tag}>"), text.count(f"</{tag}>")
