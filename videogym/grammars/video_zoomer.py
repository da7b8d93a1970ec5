"""VideoZoomer's grammar: think, then zoom into a segment at a rate of one's own, or answer.

One object holds tags, prompt, parser and writer. The ``code`` profile reads every text as the published
rollout does; ``strict`` takes one thought and one block with JSON of exactly a segment and a rate. Prompts
follow the structure of the published ones in words of our own.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final, Literal

from videogym.actions import Answer, Crop
from videogym.actions.look import read_numbers
from videogym.grammars.base import FramePart, Message, Part, TextPart
from videogym.grammars.blocks import THINK, exactly_one
from videogym.grammars.conversation import is_replied, question_text
from videogym.grammars.tool_calls import TOOL_RESPONSE
from videogym.state import Action, Clip, Invalid, Move, Rules, State, Turn

ANSWER: Final = "answer"
VIDEO_ZOOM: Final = "video_zoom"
_OPENING, _CLOSING = f"<{VIDEO_ZOOM}>", f"</{VIDEO_ZOOM}>"
_UNREAD = ("not_one_object", "json", "invalid_input")  # codes of blocks in which no call was found


def kept_text(text: str) -> str:
    """What the published rollout keeps of an output: up to the first ``</video_zoom>``, where it stops."""
    before, closing, _ = text.partition(_CLOSING)
    return before + closing


def block_body(text: str) -> str | None:
    """What stands in the first complete block of an output; None where there is none."""
    before, closing, _ = text.partition(_CLOSING)
    _, opening, body = before.partition(_OPENING)
    return body if opening and closing else None


def read_body(body: str) -> Crop | Invalid:
    """The call in a block as the published rollout reads it.

    Exactly one JSON object, found on one line from a brace to the next closing one; its segment's first two
    items and its rate go through Python's ``float``.

    Source: ``extract`` of VideoZoomer's agent loop. Differs: what makes ``json`` or ``float`` fail in other
    ways than they mostly do, such as an integer of 400 digits, is an invalid input too.
    """
    objects = _objects(body)
    if len(objects) != 1:
        return Invalid("not_one_object", "Write exactly one JSON object on one line into the block.")
    try:
        call = json.loads(objects[0])
    except (ValueError, RecursionError):
        return Invalid("json", "The block holds no valid JSON.")
    try:
        start_s, end_s, fps = float(call["segment"][0]), float(call["segment"][1]), float(call["fps"])
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return Invalid("invalid_input", 'Give "segment" as [start, end] in seconds and "fps" as a number.')
    return Crop(start_s, end_s, fps=fps)


def _objects(body: str) -> list[str]:
    """What stands on one line from each brace to the next closing one, in linear time."""
    found = []
    for line in body.split("\n"):
        start = line.find("{")
        while start >= 0 and (end := line.find("}", start)) >= 0:
            found.append(line[start : end + 1])
            start = line.find("{", end)
    return found


def final_text(text: str) -> str | None:
    """What follows the last ``<answer>`` up to the next ``</answer>``, stripped; None without that tag."""
    _, opening, rest = text.rpartition(f"<{ANSWER}>")
    return rest.partition(f"</{ANSWER}>")[0].strip() if opening else None


@dataclass(frozen=True)
class VideoZoomer:
    """The grammar ``video_zoomer/strict`` or ``video_zoomer/code``."""

    profile: Literal["strict", "code"]

    tags = (THINK, VIDEO_ZOOM, ANSWER, TOOL_RESPONSE)
    empty_reply = True

    @property
    def name(self) -> str:
        """``"video_zoomer/strict"`` or ``"video_zoomer/code"``."""
        return f"video_zoomer/{self.profile}"

    def tools(self, rules: Rules) -> list[dict[str, Any]]:
        """None: this grammar uses tags only."""
        return []

    def frame_line(self, rules: Rules) -> str:
        """Every frame after its number in the message and its time."""
        return "<frame{number}_time{time:.2f}s>{image}"

    def parse(self, text: str, state: State) -> Move:
        """A crop with a rate, an answer, or why not.

        In ``code`` an output without a complete block ends the episode; its answer is "" if it holds none.
        """
        if self.profile == "strict":
            return _parse_strictly(text)
        body = block_body(text)
        if body is not None:
            action = read_body(body)
            return Move((action,), text, not isinstance(action, Invalid))
        answer = final_text(text)
        return Move((Answer(answer or ""),), text, answer is not None)

    def write(self, action: Action, state: State, thought: str = "") -> str:
        """The text of a crop with a rate, or of an answer.

        Raises:
            ValueError: the grammar has no words for this action.
        """
        if isinstance(action, Answer):
            block = f"<{ANSWER}>{action.answer_text}</{ANSWER}>"
        elif isinstance(action, Crop) and action.fps is not None and action.region is None:
            call = {"segment": [float(action.start_s), float(action.end_s)], "fps": action.fps}
            block = f"{_OPENING} {json.dumps(call)} {_CLOSING}"
        else:
            raise ValueError(f"{self.name} has no words for {action}: it zooms at a rate, or answers")
        text = f"<{THINK}>{thought}</{THINK}>{block}"
        if self.parse(text, state).actions != (action,):
            raise ValueError(f"{self.name} has no words for {action} after the thought {thought!r}")
        return text

    def messages(self, state: State) -> tuple[Message, ...]:
        """System, stamped skim and question, then outputs and replies of the user."""
        talk = [
            Message("system", (TextPart(_system(state.rules)),)),
            Message("user", self._question(state)),
        ]
        for i, turn in enumerate(state.turns):
            talk.append(Message("assistant", (TextPart(self._output(turn, state)),)))
            if is_replied(state, i):
                talk.append(Message("user", self._reply(state, turn, i)))
        return tuple(talk)

    def _output(self, turn: Turn, state: State) -> str:
        """What is kept of the turn's text; a structured action in words, "" where there are none."""
        if turn.text is not None:
            return kept_text(turn.text) if self.profile == "code" else turn.text
        try:
            return self.write(turn.results[0].action, state)
        except ValueError:
            return ""

    def _question(self, state: State) -> tuple[Part, ...]:
        return (
            *_stamped(state.skim),
            TextPart("\n"),
            TextPart(question_text(state.task), given=True),
            TextPart(f"\nThink between <{THINK}> and </{THINK}> first."),
        )

    def _reply(self, state: State, turn: Turn, index: int) -> tuple[Part, ...]:
        last = state.rules.max_turns - index == 2
        notice = (
            f" Do not write {_OPENING} any more: answer in <{ANSWER}>...</{ANSWER}> now." if last else ""
        )
        error = turn.error
        if error is None or error.code == "no_frames":
            frames = [part for clip in turn.clips for part in _stamped(clip)]
            opening = TextPart(f"<{TOOL_RESPONSE}>\nThe frames of this segment:\n")
            ask = f"\n</{TOOL_RESPONSE}>\nGo on thinking, look again if you must, then answer.{notice}"
            return (opening, *frames, TextPart(ask))
        # The published reply to a call that was read and cannot be run ends in a second opening tag.
        slip = self.profile == "code" and error.code not in _UNREAD
        closing = f"<{TOOL_RESPONSE}>" if slip else f"\n</{TOOL_RESPONSE}>\n"
        reason = f"<{TOOL_RESPONSE}>\nError: {error.reason}{closing}See what was wrong and go on.{notice}"
        return (TextPart(reason),)


def _system(rules: Rules) -> str:
    return (
        "You answer questions about a video of which a few frames are shown, each after its number and "
        f"time. To look closer, write {_OPENING}, a JSON object with a segment in seconds and a rate in "
        f'frames a second, and {_CLOSING}: {_OPENING} {{"segment": [12.0, 16.0], "fps": 2}} {_CLOSING}. '
        f"A call brings at most {rules.clip_frames} frames: (end - start) * fps must not be above that. "
        f"You may look again until you are told to stop, {rules.max_turns - 1} times in all. Do not answer "
        f"in a turn that looks. Think in <{THINK}>...</{THINK}>, answer in <{ANSWER}>...</{ANSWER}>."
    )


def _stamped(clip: Clip) -> list[Part]:
    parts: list[Part] = []
    for number, time_s in enumerate(clip.times_s):
        parts += [
            TextPart(f"<frame{number}_time{time_s:.2f}s>"),
            FramePart(time_s, clip.region, clip.scale),
        ]
    return parts


def _parse_strictly(text: str) -> Move:
    block = exactly_one(text, (VIDEO_ZOOM, ANSWER))
    if isinstance(block, Invalid):
        return Move((block,), text, False)
    tag, body = block
    if tag == ANSWER:
        return Move((Answer(body),), text)
    call = _read_strictly(body)
    return Move((call,), text, not isinstance(call, Invalid))


def _read_strictly(body: str) -> Crop | Invalid:
    reason = 'Write {"segment": [start, end], "fps": n} and nothing else, numbers as JSON numbers.'
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return Invalid("json", reason)
    if not isinstance(call, dict) or set(call) != {"segment", "fps"}:
        return Invalid("invalid_input", reason)
    segment, fps = read_numbers(call["segment"]), read_numbers([call["fps"]])
    if segment is None or len(segment) != 2 or fps is None or not math.isfinite(fps[0]):
        return Invalid("invalid_input", reason)
    return Crop(segment[0], segment[1], fps=fps[0])
