"""Which tokens of an output are its structure: tags, the skeleton of calls in JSON, and the end.

What a policy says lies between them: thoughts, answers, names of tools, times. A reward for the format is
about the structure, so it can be learned there alone. Nothing is parsed: an output that cannot be read has
structure too, and is punished for it there.

Source: ParaVT (arXiv 2605.20342) pays its format reward "only at the structural-token positions most prone
to collapse". Which these are its abstract does not say, and its code pays all tokens alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from videogym.grammars.tool_calls import TOOL_CALL
from videogym.grammars.video_zoomer import VIDEO_ZOOM

CALLS = (TOOL_CALL, VIDEO_ZOOM)  # tags that hold JSON
# A string, closed or not, or one of JSON's own characters. Every character is looked at once.
_LEXEME = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\],:]', re.DOTALL)
_COLON = re.compile(r"\s*:")


def structural_places(text: str, tags: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where the structure of an output stands, as half-open ranges of characters in order.

    Whole tags; inside of calls brackets, colons, commas, keys with their quotes, and the quotes of other
    strings. Other values and white space are no structure, nor is anything outside of calls.

    Args:
        text: of the output.
        tags: names of the grammar's tags.

    >>> text = '<think>a</think><tool_call>{"name": "crop", "end": 2.5}</tool_call>'
    >>> "".join(text[a:b] for a, b in structural_places(text, ("think", "tool_call")))
    '<think></think><tool_call>{"name":"","end":}</tool_call>'
    """
    tag = re.compile(rf"<(/?)({'|'.join(map(re.escape, tags)) or '(?!)'})>")
    found = [*tag.finditer(text), None]
    for one, following in pairwise(found):
        assert one is not None  # only the last is
        yield one.span()
        if not one[1] and one[2] in CALLS:
            yield from _skeleton(text, one.end(), following.start() if following else len(text))


def _skeleton(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for lexeme in _LEXEME.finditer(text, start, end):
        first, last = lexeme.span()
        if text[first] != '"' or _COLON.match(text, last, end):
            yield first, last
            continue
        yield first, first + 1
        if last - first > 1 and _closed(text, first, last):
            yield last - 1, last


def _closed(text: str, first: int, last: int) -> bool:
    """Whether a string ends with a quote that no backslash hides."""
    inside = text[first + 1 : last - 1]
    return text[last - 1] == '"' and (len(inside) - len(inside.rstrip("\\"))) % 2 == 0


def structural_tokens(
    output: Sequence[int], tokenizer: PreTrainedTokenizerBase, end_id: int, tags: Sequence[str]
) -> Tensor:
    """(T,) bool: tokens of an output with a character of structure in them, and the end token.

    Args:
        output: ids as they were sampled.
        tokenizer: of bytes, as Qwen's: a token has its own text wherever it stands.
        end_id: ends an output.
        tags: see `structural_places`.
    """
    # Pieces of a character of several bytes become signs of replacement, which are no structure either.
    said = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    pieces = ["" if token == end_id else str(tokenizer.decode([token], **said)) for token in output]
    text = "".join(pieces)
    marked = torch.zeros(len(text) + 1, dtype=torch.long)
    for first, last in structural_places(text, tags):
        marked[first + 1 : last + 1] = 1
    before = marked.cumsum(0)  # structural characters among the first n
    ends = torch.tensor([len(piece) for piece in pieces], dtype=torch.long).cumsum(0)
    begins = torch.cat((torch.zeros(1, dtype=torch.long), ends))[:-1]
    return (before[ends] > before[begins]) | (torch.tensor(output, dtype=torch.long) == end_id)
