"""LongVT's grammar: think, then call ``crop_video`` in JSON and seconds, or answer.

One object holds schema, prompt, parser and writer. The ``code`` profile reads every text as the
published rollout does; ``strict`` takes one thought and one call or answer. The model copies the
video's name into its calls, where it is compared and never opened. Special tokens of chat templates
are the model's side and unknown here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from videogym.actions import Answer, Crop
from videogym.grammars.base import Message, Part, TextPart
from videogym.grammars.blocks import THINK, exactly_one
from videogym.grammars.conversation import frame_parts, is_replied, question_text
from videogym.grammars.longvt_calls import (
    ANSWER,
    CROP_VIDEO,
    PARAMETERS,
    last_answer,
    read_arguments,
    read_strict_arguments,
    read_turn,
)
from videogym.grammars.tool_calls import TOOL_CALL, TOOL_RESPONSE, TOOLS, load_call, tools_text, write_call
from videogym.state import Action, Invalid, Move, Result, Rules, State, Task, Turn
from videogym.video.addresses import is_address

MAX_PARALLEL_CALLS = 5  # further calls of one turn are dropped in silence, as the rollout does
_UNREAD = ("format", "malformed_call")  # codes of outputs in which no call and no answer was found
_OFF_SCHEMA = ("unknown_argument", "type", "required")  # codes of calls that break the schema
_SUCCESS = "The tool has run. These are the frames it returned."
_FAILURE = "Tool execution failed: "


def video_name(task: Task) -> str:
    """What prompts call the task's video: its file name, or an opaque stable name.

    Addresses and file names with characters that could be read as structure get the latter.
    """
    name = PurePosixPath(task.video).name
    if not is_address(task.video) and re.fullmatch(r"\w[\w.,+ ()-]*", name):
        return name
    return f"video-{hashlib.sha1(task.video.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}.mp4"


def turn_text(turn: Turn, task: Task) -> str:
    """What the policy put out; the actions of a structured turn in words, "" for those without."""
    if turn.text is not None:
        return turn.text
    blocks = "".join(_write_block(result.action, task) for result in turn.results)
    return f"<{THINK}></{THINK}>{blocks}"


def _write_block(action: Action, task: Task) -> str:
    if isinstance(action, Answer):
        return f"<{ANSWER}>{action.answer_text}</{ANSWER}>"
    if isinstance(action, Crop) and action.region is None:
        times = {"start_time": float(action.start_s), "end_time": float(action.end_s)}
        return write_call(CROP_VIDEO, {"video_path": video_name(task), **times})
    return ""


@dataclass(frozen=True)
class LongVT:
    """The grammar ``longvt/strict`` or ``longvt/code``."""

    profile: Literal["strict", "code"]

    tags = (THINK, TOOL_CALL, ANSWER, TOOLS, TOOL_RESPONSE)
    block_end = ""  # as in LongVT's training

    @property
    def name(self) -> str:
        """``"longvt/strict"`` or ``"longvt/code"``."""
        return f"longvt/{self.profile}"

    @property
    def path_is_optional(self) -> bool:
        """Whether a call may leave out the path; the schema of ``strict`` asks for it all the same."""
        return self.profile == "strict"

    def tools(self, rules: Rules) -> list[dict[str, Any]]:
        """The schema of ``crop_video`` as LongVT's models see it; ``strict`` requires all arguments."""
        if "crop" not in rules.actions:
            return []
        properties = {
            key: {"type": kind, "description": text, "enum": None}
            for key, (kind, text) in PARAMETERS.items()
        }
        required = list(PARAMETERS) if self.profile == "strict" else []
        function = {
            "name": CROP_VIDEO,
            "description": "Crop a video to a specified duration.",
            "parameters": {"type": "object", "properties": properties, "required": required},
            "strict": False,
        }
        return [{"type": "function", "function": function}]

    def parse(self, text: str, state: State) -> Move:
        """Crops, one answer, or why not.

        Arguments of the wrong type, missing ones and a path that is not the episode's video become
        `Invalid` here; what depends on the video, and whether the end is after the start, is judged
        when the crop is played. In ``code`` a text without a call is the final answer, "" if it holds
        none, and a move may mix crops and invalid calls.
        """
        if self.profile == "strict":
            return _parse_strictly(text, state)
        reading = read_turn(text)
        if reading.outcome == "final":
            answer = last_answer(text)
            return Move((Answer(answer or ""),), text, answer is not None)
        if reading.outcome == "stop_bad_call":
            reason = (
                f"No valid call of {CROP_VIDEO} was found: write it as one JSON object and close the tag."
            )
            return Move((Invalid("malformed_call", reason),), text, False)
        name = video_name(state.task)
        calls = reading.calls[:MAX_PARALLEL_CALLS]
        return Move(tuple(read_arguments(call.arguments, name) for call in calls), text)

    def write(self, action: Action, state: State, thought: str = "") -> str:
        """The text of a crop without region, or of an answer.

        Raises:
            ValueError: the grammar has no words for this action.
        """
        text = f"<{THINK}>{thought}</{THINK}>{_write_block(action, state.task)}"
        if isinstance(action, Invalid) or self.parse(text, state).actions != (action,):
            raise ValueError(f"{self.name} has no words for {action} after the thought {thought!r}")
        return text

    def messages(self, state: State) -> tuple[Message, ...]:
        """System with tools, skim and question, then outputs and one tool message a call.

        The tools are a part of their own in the system message, so that a chat template that renders
        schemas itself can leave it out.
        """
        system = (TextPart("You are a helpful assistant."), *_optional(tools_text(self.tools(state.rules))))
        talk = [Message("system", system), Message("user", self._question(state))]
        for i, turn in enumerate(state.turns):
            talk.append(Message("assistant", (TextPart(turn_text(turn, state.task)),)))
            if is_replied(state, i) or _ran_last(state):
                talk += [_reply(result, state.rules) for result in turn.results]
        return tuple(talk)

    def _question(self, state: State) -> tuple[Part, ...]:
        ask = (
            f"\nThink before anything else, call **{CROP_VIDEO}** if you need a closer look, then answer. "
            f"Keep strictly to this order: every turn <{THINK}>...</{THINK}> first, then "
            f"<{TOOL_CALL}>...</{TOOL_CALL}> if you need the tool, or else <{ANSWER}>...</{ANSWER}>.\n"
            "The path of this video is: "
        )
        return (
            *frame_parts(state.skim, stamped=state.rules.timestamps == "seconds"),
            TextPart(question_text(state.task), given=True),
            TextPart(ask),
            TextPart(video_name(state.task), given=True),
        )


def _optional(text: str) -> tuple[TextPart, ...]:
    return (TextPart(f"\n{text}", tools=True),) if text else ()


def _ran_last(state: State) -> bool:
    """Whether the calls of the ending turn were run: their replies then close the conversation."""
    skipped = state.ending == "turn_limit" and state.rules.last_turn_look == "skip"
    return state.ending in ("call_limit", "turn_limit") and not skipped


def _reply(result: Result, rules: Rules) -> Message:
    if result.clip is not None:
        frames = frame_parts(result.clip, stamped=rules.timestamps == "seconds")
        return _tool_message(frames, _SUCCESS)
    code, reason = (result.error.code, result.error.reason) if result.error else ("", "")
    if isinstance(result.action, Answer) or code in _UNREAD:
        return Message("user", (TextPart(f"Your output could not be used. {reason}"),))
    # Of all reasons "file" alone holds words that are not ours: the video's name.
    return _tool_message((TextPart(_FAILURE), TextPart(reason, given=code == "file")), "")


def _tool_message(parts: tuple[Part, ...], text: str) -> Message:
    # Frames before text, a newline after the opening tag only: as LongVT's chat template renders it.
    return Message(
        "tool", (TextPart(f"<{TOOL_RESPONSE}>\n"), *parts, TextPart(f"{text}</{TOOL_RESPONSE}>"))
    )


def _parse_strictly(text: str, state: State) -> Move:
    if f"<{TOOL_RESPONSE}>" in text or f"</{TOOL_RESPONSE}>" in text:
        reason = "Tool responses are not yours to write."
        return Move((Invalid("format", reason),), text, False)
    block = exactly_one(text, (TOOL_CALL, ANSWER))
    if isinstance(block, Invalid):
        return Move((block,), text, False)
    tag, body = block
    if tag == ANSWER:
        return Move((Answer(body),), text)
    call = load_call(body)
    if isinstance(call, Invalid):
        return Move((call,), text, False)
    if call.name != CROP_VIDEO:
        return Move((Invalid("malformed_call", f"There is one tool only: {CROP_VIDEO}."),), text, False)
    action = read_strict_arguments(call.arguments, video_name(state.task))
    broken = isinstance(action, Invalid) and action.code in _OFF_SCHEMA
    return Move((action,), text, not broken)
