"""Conversations as token ids.

`Chat` lays messages out as token ids. Tags that a grammar wrote are the tokens a model knows them by. A
task's text never becomes structure: a question that spells a token is encoded as plain characters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, cast

from jinja2 import TemplateError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from videogym import Region, State
from videogym.grammars import FramePart, Grammar, Message, Part, TextPart, with_subtitles
from videogym.sizes import resized
from videogym.video.sampling import MAX_ASPECT, smart_resize

from ..models.family import WrongCheckpoint
from ..models.qwen_vl import token_ids
from ..models.visuals import WHOLE_FRAME, ChatForm, Visual
from .records import Record, TurnRecord

_SYSTEM, _END = "<|im_start|>system\n", "<|im_end|>"


class Chat:
    """Lays conversations out as collapsed token ids.

    A block ends with ``<|im_end|>`` and what the grammar's ``block_end`` says, by default a newline. Tool
    replies are user blocks.

    Args:
        tokenizer: of a Qwen-VL checkpoint.
        grammar: what makes messages from states.
        form: how frames are shown.

    Raises:
        WrongCheckpoint: the tokenizer lacks Qwen-VL's special tokens.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, grammar: Grammar, form: ChatForm | None = None
    ) -> None:
        self.grammar, self.form, self._tokenizer = grammar, form or ChatForm(), tokenizer
        backend = tokenizer.backend_tokenizer
        # The same merges without the added tokens: no text can turn into one.
        self._plain = Tokenizer(backend.model)
        self._plain.normalizer, self._plain.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
        added = backend.get_added_tokens_decoder().items()
        self._tags = {token.content: number for number, token in added if not token.special}
        longest = sorted(map(re.escape, self._tags), key=len, reverse=True)  # as the tokenizer finds them
        self._tag = re.compile(f"({'|'.join(longest) or '(?!)'})")
        self._begin, self.end_id, self._open, self._close, *self._pads = token_ids(
            tokenizer,
            *("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
            *("<|image_pad|>", "<|video_pad|>"),
        )
        self._block_end: str = getattr(grammar, "block_end", "\n")

    def opening(self, state: State) -> tuple[tuple[int, ...], TurnRecord]:
        """The system message, and the first observation up to where the assistant writes.

        Raises:
            ValueError: a turn has been played: what the policy sampled there is not in the state.
        """
        if state.turns:
            raise ValueError(f"a conversation opens before the first turn, not after {len(state.turns)}")
        system, *rest = with_subtitles(self.grammar.messages(state), state.task)
        head = self._with_tools(system, state)
        return tuple(self._blocks(state, [head], [])), self._observation(state, rest, ())

    def _with_tools(self, system: Message, state: State) -> Message:
        """The system message; its block of tools as the checkpoint's chat template has it, if it does."""
        texts = [part for part in system.parts if isinstance(part, TextPart)]
        if self._tokenizer.chat_template is None or not any(part.tools for part in texts):
            return system
        said = "".join(part.text for part in texts if not part.tools)
        body = system_with_tools(self._tokenizer, said, self.grammar.tools(state.rules))
        return system if body is None else Message("system", (TextPart(body),))

    def reply(self, state: State, closed: bool) -> TurnRecord:
        """What followed the last output, up to where the assistant writes again.

        Args:
            state: after the turn.
            closed: whether the output ended itself; one that was cut is ended here.
        """
        messages = with_subtitles(self.grammar.messages(state), state.task)
        last = max(place for place, message in enumerate(messages) if message.role == "assistant")
        end = [] if closed else [self.end_id]
        return self._observation(state, messages[last + 1 :], [*end, *self.gap()])

    def length(self, record: Record, turn: int = -1) -> int:
        """Tokens that a policy reads before the output of a turn, placeholders counted singly."""
        ids, visuals = record.context(turn % len(record.turns))
        factor, temporal = self.form.factor, self.form.temporal
        areas = [
            -(-len(times) // temporal) * (width // factor) * (height // factor)
            for _, times, _, (width, height) in visuals
        ]
        return len(ids) + sum(areas) - len(areas)

    def output_ids(self, text: str) -> list[int]:
        """Ids of a text as a model writes it: ``<tool_call>`` is one token, specials are spelled out."""
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def text_ids(self, text: str) -> list[int]:
        """Ids of a text by its characters alone; no added token is among them."""
        return self._plain.encode(text).ids if text else []

    def output_text(self, ids: Sequence[int]) -> str:
        """What a sampled output says, without its end token."""
        said = list(ids[:-1] if len(ids) and ids[-1] == self.end_id else ids)
        text = self._tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return cast(str, text)

    def written_ids(self, parts: Iterable[TextPart]) -> list[int]:
        """Ids of neighbouring texts: what the tokenizer makes of all of them at once, but for two things.

        Special tokens are characters. Other added tokens, such as ``<tool_call>``, are themselves only
        where a grammar wrote them; in given text they are characters too.
        """
        ids: list[int] = []
        plain = ""  # grows over parts: merges know no borders between them
        for given, group in groupby(parts, key=lambda part: part.given):
            text = "".join(part.text for part in group)
            words, *rest = [text] if given else self._tag.split(text)
            plain += words
            for tag, words in zip(rest[::2], rest[1::2], strict=True):
                ids += [*self.text_ids(plain), self._tags[tag]]
                plain = words
        return [*ids, *self.text_ids(plain)]

    def block(self, role: str, parts: Iterable[str | Visual]) -> list[int]:
        """A message of given texts, in which nothing becomes a tag, and of images, with what follows it."""
        ids: list[int] = []
        texts = [TextPart(f"{role}\n")]
        for part in parts:
            if isinstance(part, str):
                texts.append(TextPart(part, given=True))
                continue
            ids += [*self.written_ids(texts), self._open, self._pads[0], self._close]
            texts = []
        return [self._begin, *ids, *self.written_ids(texts), self.end_id, *self.gap()]

    def assistant_opening(self) -> list[int]:
        """What stands before an output."""
        return [self._begin, *self.text_ids("assistant\n")]

    def gap(self) -> list[int]:
        """What stands between two messages."""
        return self.text_ids(self._block_end)

    def _observation(self, state: State, messages: Sequence[Message], before: Iterable[int]) -> TurnRecord:
        visuals: list[Visual] = []
        ids = [*before, *self._blocks(state, messages, visuals), *self.assistant_opening()]
        return TurnRecord(tuple(ids), tuple(visuals))

    def _blocks(self, state: State, messages: Iterable[Message], visuals: list[Visual]) -> list[int]:
        ids: list[int] = []
        for role, group in groupby(messages, key=lambda message: message.role):
            parts = [message.parts for message in group]
            if role == "tool":  # replies to parallel calls share one block
                parts, head = [tuple(part for one in parts for part in one)], "user"
                head = f"{head}{self._block_end}"
            else:
                head = f"{role}\n"
            for one in parts:
                body = self._parts(head, one, state, visuals)
                ids += [self._begin, *body, self.end_id, *self.gap()]
        return ids

    def _parts(self, head: str, parts: Iterable[Part], state: State, visuals: list[Visual]) -> list[int]:
        ids: list[int] = []
        texts = [TextPart(head)]
        for is_text, group in groupby(parts, key=lambda part: isinstance(part, TextPart)):
            if is_text:
                texts += [part for part in group if isinstance(part, TextPart)]
                continue
            for stamp, visual in self._visuals([p for p in group if isinstance(p, FramePart)], state):
                ids += self.written_ids([*texts, TextPart(stamp)])
                ids += [self._open, self._pads[len(visual.times_s) > 1], self._close]
                visuals.append(visual)
                texts = []
        return [*ids, *self.written_ids(texts)]

    def _visuals(self, parts: Sequence[FramePart], state: State) -> list[tuple[str, Visual]]:
        """Neighbouring frames as visuals, each with the text before it."""
        made = []
        for (region, scale), group in groupby(parts, key=lambda part: (part.region, part.scale)):
            times = [part.time_s for part in group]
            step = {"images": 1, "video": len(times), "stamped_video": self.form.temporal}[self.form.frames]
            size = frame_size(state, region, self.form.factor, scale)
            box = region.as_tuple() if region else WHOLE_FRAME
            for first in range(0, len(times), step):
                some = tuple(times[first : first + step])
                # A last frame without a partner is shown twice, as the official processor does.
                some = (*some, some[-1]) if self.form.frames == "stamped_video" and len(some) == 1 else some
                stamped = self.form.frames == "stamped_video"
                stamp = f"<{sum(some) / len(some):.1f} seconds>" if stamped else ""
                made.append((stamp, Visual(state.task.video, some, box, size)))
        return made


def system_with_tools(
    tokenizer: PreTrainedTokenizerBase, text: str, tools: list[dict[str, Any]]
) -> str | None:
    """A system message as a checkpoint's own chat template renders it with tools.

    Args:
        tokenizer: has the template.
        text: of the message, before the tools.
        tools: schemas in OpenAI's function format.

    Returns:
        What stands between role and end token; None where the template tells no tools in it.

    Raises:
        WrongCheckpoint: the template cannot be rendered.
    """
    with_tools, without = (_system_block(tokenizer, text, told) for told in (tools, None))
    return None if with_tools == without else with_tools


def _system_block(tokenizer: PreTrainedTokenizerBase, text: str, tools: list[Any] | None) -> str | None:
    talk = [{"role": "system", "content": text}, {"role": "user", "content": "?"}]
    try:
        rendered = cast(str, tokenizer.apply_chat_template(talk, tools=tools, tokenize=False))
    except (TemplateError, TypeError, ValueError) as error:
        raise WrongCheckpoint(f"its chat template cannot tell tools: {error}") from error
    block, _, _ = rendered.rpartition("<|im_start|>user")
    block = block.rstrip("\n")
    if not (block.startswith(_SYSTEM) and block.endswith(_END)):
        return None
    return block.removeprefix(_SYSTEM).removesuffix(_END)


def frame_size(
    state: State, region: Region | None, factor: int, scale: float | None = None
) -> tuple[int, int]:
    """``(width, height)`` at which a frame is shown: the recipe's pixel budget, aspect kept.

    A sliver that a policy asks for is shown too, at the narrowest aspect there is. A scale multiplies the
    sides of the region's own pixels, see `videogym.sizes`.
    """
    x0, y0, x1, y1 = region.as_tuple() if region else WHOLE_FRAME
    width, height = round(state.video.width * (x1 - x0)), round(state.video.height * (y1 - y0))
    least = max(1, math.ceil(max(width, height) / MAX_ASPECT))
    rules = state.rules
    if scale is not None or rules.frame_resize != "smart":
        return resized(rules, max(width, least), max(height, least), scale, factor)
    height, width = smart_resize(
        max(height, least), max(width, least), rules.min_pixels, rules.max_pixels, factor
    )
    most = rules.max_pixels // factor // factor * factor  # beside a side of one factor
    if not width or not height:
        width, height = (most, factor) if width else (factor, most)
    return width, height
