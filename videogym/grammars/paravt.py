"""ParaVT's grammar: think, then call ``crop_video`` as often as is of use in one turn, or answer.

One object holds schema, prompt, parser and writer. The ``code`` profile reads every text as the published
rollout does; ``strict`` takes one thought and then calls or one answer. Replies are frames, as in the
published evaluation, or texts, as in the published training.
Prompts follow the published structure in words of our own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from videogym.actions import Answer, Crop
from videogym.grammars.base import FramePart, Message, Part, TextPart
from videogym.grammars.blocks import THINK, exactly_one
from videogym.grammars.conversation import is_replied, question_text
from videogym.grammars.longvt import video_name
from videogym.grammars.longvt_calls import CROP_VIDEO, read_strict_arguments
from videogym.grammars.paravt_calls import TOOL_CODE, read_calls, read_crop
from videogym.grammars.tool_calls import TOOL_CALL, TOOL_RESPONSE, TOOLS, load_call, tools_text
from videogym.state import Action, Clip, Invalid, Move, Result, Rules, State, Turn

ANSWER: Final = "answer"
_OPENING, _CLOSING = f"<{TOOL_CALL}>", f"</{TOOL_CALL}>"
_PARAMETERS = {
    "video_path": ("string", "Path to the video file"),
    "start_time": ("number", "Start time in seconds"),
    "end_time": ("number", "End time in seconds"),
}
_BETWEEN = re.compile(rf"{_CLOSING}\s*{_OPENING}")
_TOOL_BLOCK = re.compile(r"<(tool_call|tool_code|tool_response)>")


def extracted_answer(text: str) -> str:
    """The answer in a text as the published reward finds it.

    The first ``<answer>`` block; else what follows the first ``</think>`` without tool blocks; else the
    last line that does not begin with ``<|im_`` or ``<tool_``.
    """
    _, opening, rest = text.partition(f"<{ANSWER}>")
    body, closing, _ = rest.partition(f"</{ANSWER}>")
    if opening and closing:
        return body.strip()
    _, closing, after = text.partition(f"</{THINK}>")
    bare = _without_tools(after).strip() if closing else ""
    if bare:
        return bare
    lines = (line.strip() for line in reversed(text.strip().split("\n")))
    return next((line for line in lines if line and not line.startswith(("<|im_", "<tool_"))), "")


def _without_tools(text: str) -> str:
    """The text without closed tool blocks."""
    last = {tag: text.rfind(f"</{tag}>") for tag in (TOOL_CALL, TOOL_CODE, TOOL_RESPONSE)}
    kept, at = [], 0
    while match := _TOOL_BLOCK.search(text, at):
        if match.end() > last[match[1]]:  # it never ends
            kept.append(text[at : match.end()])
            at = match.end()
            continue
        kept.append(text[at : match.start()])
        at = text.find(f"</{match[1]}>", match.end()) + len(match[1]) + 3
    return "".join([*kept, text[at:]])


@dataclass(frozen=True)
class ParaVT:
    """The grammar ``paravt/strict`` or ``paravt/code``."""

    profile: Literal["strict", "code"]

    tags = (THINK, TOOL_CALL, ANSWER, TOOLS, TOOL_RESPONSE)
    shows_replies = True  # of looks that are answered by a text, as in its training

    @property
    def name(self) -> str:
        """``"paravt/strict"`` or ``"paravt/code"``."""
        return f"paravt/{self.profile}"

    def frame_line(self, rules: Rules) -> str:
        """Every frame after its time."""
        return "<{time:.1f} seconds>{image}"

    def tools(self, rules: Rules) -> list[dict[str, Any]]:
        """The schema of ``crop_video`` as ParaVT's evaluation tells it."""
        if "crop" not in rules.actions:
            return []
        properties = {key: {"type": kind, "description": text} for key, (kind, text) in _PARAMETERS.items()}
        parameters = {"type": "object", "properties": properties, "required": list(_PARAMETERS)}
        purpose = "Analyze a cropped video segment by sampling frames from a specific time range."
        function = {"name": CROP_VIDEO, "description": purpose, "parameters": parameters}
        return [{"type": "function", "function": function}]

    def parse(self, text: str, state: State) -> Move:
        """Crops of one turn, one answer, or why not.

        In ``code`` a text without a readable call ends the episode; its answer is what the published reward
        finds in it, "" if nothing.
        """
        if self.profile == "strict":
            return _parse_strictly(text, state)
        calls = read_calls(text)
        if calls:
            actions = tuple(read_crop(call) for call in calls)
            return Move(actions, text, not any(isinstance(action, Invalid) for action in actions))
        closed = f"<{ANSWER}>" in text and f"</{ANSWER}>" in text
        return Move((Answer(extracted_answer(text)),), text, closed)

    def write(self, action: Action, state: State, thought: str = "") -> str:
        """The text of a crop without further arguments, or of an answer.

        Raises:
            ValueError: the grammar has no words for this action.
        """
        text = f"<{THINK}>{thought}</{THINK}>{_written(action, state)}"
        if isinstance(action, Invalid) or self.parse(text, state).actions != (action,):
            raise ValueError(f"{self.name} has no words for {action} after the thought {thought!r}")
        return text

    def messages(self, state: State) -> tuple[Message, ...]:
        """System with tools, stamped skim and question, then outputs and one reply of the user a call."""
        system = (
            "You are an agent that analyses a video by cropping it. Several calls in a turn are allowed "
            f"and wise if several places matter. Begin with <{THINK}>...</{THINK}>, then write any number "
            f"of {_OPENING}...{_CLOSING}, or, when you know enough, <{ANSWER}>...</{ANSWER}>."
        )
        tools = TextPart(f"\n{tools_text(self.tools(state.rules))}", tools=True)
        talk = [Message("system", (TextPart(system), tools)), Message("user", self._question(state))]
        for i, turn in enumerate(state.turns):
            talk.append(Message("assistant", (TextPart(self._output(turn, state)),)))
            if is_replied(state, i):
                talk += [_reply(result) for result in turn.results]
        return tuple(talk)

    def _output(self, turn: Turn, state: State) -> str:
        """The turn's text; structured actions are put into words, "" where there are none."""
        if turn.text is not None:
            return turn.text
        return "".join(_written(result.action, state) for result in turn.results)

    def _question(self, state: State) -> tuple[Part, ...]:
        return (
            *_stamped(state.skim),
            TextPart("\n"),
            TextPart(question_text(state.task), given=True),
            TextPart("\nThe path of this video is: "),
            TextPart(video_name(state.task), given=True),
        )


def _written(action: Action, state: State) -> str:
    if isinstance(action, Answer):
        return f"<{ANSWER}>{action.answer_text}</{ANSWER}>"
    if isinstance(action, Crop) and action == Crop(action.start_s, action.end_s):
        times = f'"start_time": {float(action.start_s)!r}, "end_time": {float(action.end_s)!r}'
        arguments = f'{{"video_path": "{video_name(state.task)}", {times}}}'
        return f'{_OPENING}\n{{"name": "{CROP_VIDEO}", "arguments": {arguments}}}\n{_CLOSING}'
    return ""


def _stamped(clip: Clip) -> list[Part]:
    return [
        part
        for time_s in clip.times_s
        for part in (TextPart(f"<{time_s:.1f} seconds>"), FramePart(time_s, clip.region, clip.scale))
    ]


def _reply(result: Result) -> Message:
    if result.reply is not None:
        said = TextPart(result.reply, given=True)
        return Message("user", (TextPart(f"<{TOOL_RESPONSE}>\n"), said, TextPart(f"\n</{TOOL_RESPONSE}>")))
    if result.clip is not None:
        times = result.clip.times_s
        told = f"{len(times)} frames from {times[0]:.1f} to {times[-1]:.1f} s."
        closing = TextPart(f"\n<{TOOL_RESPONSE}>\n{told}\n</{TOOL_RESPONSE}>")
        return Message("user", (*_stamped(result.clip), closing))
    reason = result.error.reason if result.error else ""
    if result.error is not None and result.error.code in ("format", "malformed_call"):
        return Message("user", (TextPart(f"Your output could not be used. {reason}"),))
    # Of all reasons "file" alone holds words that are not ours: the video's name.
    given = result.error is not None and result.error.code == "file"
    return Message("user", (TextPart(f"[Error: {CROP_VIDEO} failed] "), TextPart(reason, given=given)))


def _parse_strictly(text: str, state: State) -> Move:
    if f"<{TOOL_RESPONSE}>" in text or f"</{TOOL_RESPONSE}>" in text:
        return Move((Invalid("format", "Tool responses are not yours to write."),), text, False)
    # All calls of a turn as one block, which they are but for what stands between them.
    joined = _BETWEEN.sub("\n", text.strip())
    block = exactly_one(joined, (TOOL_CALL, ANSWER))
    if isinstance(block, Invalid):
        return Move((block,), text, False)
    tag, body = block
    if tag == ANSWER:
        return Move((Answer(body),), text)
    bodies = _BETWEEN.split(text[text.index(_OPENING) + len(_OPENING) : text.rindex(_CLOSING)])
    actions = tuple(_strict_call(one, state) for one in bodies)
    broken = ("malformed_call", "unknown_argument", "type", "required")
    good = not any(isinstance(action, Invalid) and action.code in broken for action in actions)
    return Move(actions, text, good)


def _strict_call(body: str, state: State) -> Action:
    call = load_call(body)
    if isinstance(call, Invalid):
        return call
    if call.name != CROP_VIDEO:
        return Invalid("malformed_call", f"There is one tool only: {CROP_VIDEO}.")
    return read_strict_arguments(call.arguments, video_name(state.task))
