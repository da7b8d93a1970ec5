"""A grammar whose conversations are worded by a prompt.

Order and roles of the messages, what is read and what is written stay the grammar's; a message whose field
the prompt gives is filled in from the state. What a task says stays given text wherever it is put.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from videogym.grammars.base import FramePart, Grammar, Message, Part, TextPart
from videogym.grammars.conversation import minutes_and_seconds, told_length
from videogym.grammars.longvt import video_name
from videogym.grammars.prompts import Prompt, PromptError, PromptPlace, places, split_places
from videogym.grammars.tool_calls import TOOLS
from videogym.grammars.wrapper import GrammarWrapper
from videogym.state import Clip, Result, Rules, State

_POOL = ("index", "frame_indices", "last_index")  # places that need a pool of frames
Value = str | int | float | tuple[Part, ...]


@dataclass(frozen=True)
class Prompted(GrammarWrapper):
    """A grammar in the words of a prompt."""

    prompt: Prompt

    def messages(self, state: State) -> tuple[Message, ...]:
        """The grammar's conversation, those messages reworded that the prompt has words for."""
        system, question, *rest = self.grammar.messages(state)
        talk = [self._system(system, state), self._question(question, state)]
        turn, replies = -1, list[Message]()
        for message in rest:
            if message.role == "assistant":
                talk += self._replies(replies, state, turn)
                talk, turn, replies = [*talk, message], turn + 1, []
            else:
                replies.append(message)
        return (*talk, *self._replies(replies, state, turn))

    def _system(self, own: Message, state: State) -> Message:
        text = self.prompt.system
        if text is None:
            return own
        schemas = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in self.tools(state.rules))
        values = _of_episode(state) | {"tools": schemas}
        brought = "tools" in places(text) or f"<{TOOLS}>" in text
        block = () if brought else (part for part in own.parts if isinstance(part, TextPart) and part.tools)
        return Message("system", (*_fill(text, values), *block))

    def _question(self, own: Message, state: State) -> Message:
        if self.prompt.question is None:
            return own
        values = self._of_turn(state, 1) | self._frames(state, (state.skim,))
        return Message(own.role, _fill(self.prompt.question, values))

    def _replies(self, own: Sequence[Message], state: State, turn: int) -> list[Message]:
        if not own:
            return []
        results = state.turns[turn].results
        if len(own) == len(results):
            each: list[tuple[Result, ...]] = [(result,) for result in results]
        else:  # one reply to all calls of the turn
            each = [results, *[()] * (len(own) - 1)]
        return [self._reply(message, state, turn, some) for message, some in zip(own, each, strict=True)]

    def _reply(self, own: Message, state: State, turn: int, results: Sequence[Result]) -> Message:
        clips = tuple(result.shown for result in results if result.shown is not None)
        errors = [result.error for result in results if result.error is not None]
        prompt, values = self.prompt, self._of_turn(state, turn + 2)
        empty = (
            bool(errors) and errors[0].code == "no_frames" and getattr(self.grammar, "empty_reply", False)
        )
        if any(result.reply is not None for result in results):
            text = None  # what another policy said stands in the grammar's own words, as does all else
        elif clips or empty:
            text, values = prompt.reply, values | self._frames(state, clips) | _asked(results)
        elif errors:
            unread = not state.turns[turn].well_formed and prompt.unreadable is not None
            text = prompt.unreadable if unread else prompt.refusal
            # Of all reasons "file" alone holds words that are not a grammar's: the video's name.
            reason = TextPart(errors[0].reason, given=errors[0].code == "file")
            values = values | {"reason": (reason,)}
        else:
            text = None
        return own if text is None else Message(own.role, _fill(text, values))

    def _of_turn(self, state: State, turn: int) -> dict[str, Value]:
        """What stands at the places of a message that asks for a turn, counted from 1."""
        prompt, last = self.prompt, turn >= state.rules.max_turns
        left = max(0, state.rules.max_turns - turn + 1)
        values = _of_episode(state) | {"turn": turn, "turns_left": left}
        values |= {"last_index": len(state.pool_s) - 1}
        form = getattr(prompt, state.task.kind)
        values |= {"answer_form": _fill(form or "", values)}
        instruction = prompt.last_instruction if last and prompt.last_instruction else prompt.instruction
        values |= {"instruction": _fill(instruction or "", values)}
        return values | {
            "question": (TextPart(state.task.question, given=True),),
            "options": self._options(state),
        }

    def _options(self, state: State) -> tuple[Part, ...]:
        options = state.task.labelled_options
        if not options:
            return ()
        shown = {"lines": "\n".join(options), "list": str(list(options))}
        values = {name: (TextPart(text, given=True),) for name, text in shown.items()}
        return _fill("{lines}" if self.prompt.options is None else self.prompt.options, values)

    def _frames(self, state: State, clips: Sequence[Clip]) -> dict[str, Value]:
        """All frames of a message, each in its line, and what is told of them."""
        line = self.prompt.frame or frame_line(self.grammar, state.rules)
        frames = [FramePart(time_s, clip.region, clip.scale) for clip in clips for time_s in clip.times_s]
        indices = [max(0, bisect_right(state.pool_s, frame.time_s) - 1) for frame in frames]
        parts: list[Part] = []
        for number, (frame, index) in enumerate(zip(frames, indices, strict=True)):
            told: dict[str, Value] = {"image": (frame,), "index": index, "number": number}
            parts += _fill(line, told | {"time": frame.time_s, "clock": minutes_and_seconds(frame.time_s)})
        listed = np.array2string(np.array(indices), max_line_width=75, threshold=1000)
        return {"frames": tuple(parts), "frame_count": len(frames), "frame_indices": listed}


def frame_line(grammar: Grammar, rules: Rules) -> str:
    """How a grammar shows a frame, as a prompt's ``frame`` would have it."""
    if hasattr(grammar, "frame_line"):
        return str(grammar.frame_line(rules))
    return "[{time} s] {image}" if rules.timestamps == "seconds" else "{image}"


def prompted(grammar: Grammar, prompt: Prompt | None) -> Grammar:
    """The grammar in the words of the prompt; without one, the grammar itself."""
    return grammar if prompt is None else Prompted(grammar, prompt)


def check_prompt(prompt: Prompt, grammar: Grammar, rules: Rules) -> None:
    """Refuse a prompt that cannot be one of this grammar and these rules.

    Raises:
        PromptError: it tells of a pool that there is not, or does not tell the path that calls need.
    """
    if not rules.pool_frames:
        for field, text in prompt.texts.items():
            for name in places(text):
                if name in _POOL:
                    raise PromptError(
                        f"{field}: {{{name}}} needs a pool of frames, which the recipe has not"
                    )
    called = [tool["function"]["parameters"].get("properties", {}) for tool in grammar.tools(rules)]
    told = [name for text in (prompt.system, prompt.question) for name in places(text)]
    told += [name for name in places(prompt.instruction) if prompt.question is not None]
    if (
        prompt.question is not None
        and any("video_path" in names for names in called)
        and "path" not in told
    ):
        raise PromptError(
            f"question misses the place {{path}}: calls of {grammar.name} name the video by it"
        )


def _of_episode(state: State) -> dict[str, Value]:
    return {
        "path": (TextPart(video_name(state.task), given=True),),
        "duration": state.video.duration_s,
        "whole_seconds": told_length(state.video),
        "short_side": min(state.video.width, state.video.height),
        "max_turns": state.rules.max_turns,
    }


def _asked(results: Sequence[Result]) -> dict[str, Value]:
    """The seconds that the first look asked for; of a kind without such, those of its frames."""
    shown = [result for result in results if result.clip]
    first = (shown or results)[0]
    times_s = first.clip.times_s if first.clip else (math.nan,)
    start_s, end_s = (getattr(first.action, name, None) for name in ("start_s", "end_s"))
    return {
        "start": times_s[0] if start_s is None else float(start_s),
        "end": times_s[-1] if end_s is None else float(end_s),
    }


def _fill(text: str, values: Mapping[str, Value]) -> tuple[Part, ...]:
    """The parts of a text whose places have these values; numbers of seconds have two decimals."""
    parts: list[Part] = []
    for piece in split_places(text):
        value = values[piece.name] if isinstance(piece, PromptPlace) else piece
        if isinstance(value, tuple):
            parts += value
            continue
        if isinstance(value, float):
            digits = piece.digits if isinstance(piece, PromptPlace) else None
            value = f"{value:.{2 if digits is None else digits}f}"
        parts.append(TextPart(str(value)))
    return tuple(parts)
