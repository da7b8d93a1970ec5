"""The house's own grammar: JSON tool calls, in seconds, for every action there is.

An optional thought, then ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, one a turn, or
several where the rules run several. Only the actions of the recipe are offered and accepted, with the
arguments that its rules open. Every time is told and asked in seconds, and every refusal says what to write
instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from videogym.grammars.base import Message, Part, TextPart
from videogym.grammars.blocks import THINK
from videogym.grammars.conversation import frame_parts, is_replied, question_text
from videogym.grammars.tool_calls import TOOL_CALL, TOOL_RESPONSE, TOOLS, load_call, tools_text, write_call
from videogym.state import Action, Invalid, Move, Result, Rules, State, Turn, action_kinds, told_bounds

_OPENING, _CLOSING = f"<{TOOL_CALL}>", f"</{TOOL_CALL}>"
_BETWEEN = re.compile(rf"{_CLOSING}\s*{_OPENING}")


@dataclass(frozen=True)
class Native:
    """The grammar ``native``."""

    tags = (THINK, TOOL_CALL, TOOLS, TOOL_RESPONSE)
    shows_replies = True  # of looks that are answered by a text

    @property
    def name(self) -> str:
        """``"native"``."""
        return "native"

    def frame_line(self, rules: Rules) -> str:
        """Every frame after its time."""
        return "[{time} s] {image}"

    def tools(self, rules: Rules) -> list[dict[str, Any]]:
        """One function for each action of the rules."""
        return [_schema(action_kinds()[kind], rules) for kind in rules.actions]

    def parse(self, text: str, state: State) -> Move:
        """Actions whose arguments have the types of the schema, or why there is none.

        Whether the values make sense is judged when the actions are played.
        """
        actions = _read(text, state.rules)
        return Move(actions, text, not any(isinstance(action, Invalid) for action in actions))

    def write(self, action: Action, state: State, thought: str = "") -> str:
        """The text of an action.

        Raises:
            ValueError: the rules do not offer this action, or the thought would hide it.
        """
        text = (f"<{THINK}>{thought}</{THINK}>\n" if thought else "") + write_call(
            action.kind, action.arguments()
        )
        if self.parse(text, state).actions != (action,):
            raise ValueError(f"{self.name} has no words for {action} after the thought {thought!r}")
        return text

    def messages(self, state: State) -> tuple[Message, ...]:
        """System with tools, skim and question, then outputs and one tool message a turn."""
        system = (
            "You answer a question about a video. You see a few frames first and may look again where "
            f"it matters. Every turn, think between <{THINK}> and </{THINK}> and then call "
            f"{_how_many(state.rules)}; you have {state.rules.max_turns} turns. All times are in seconds."
        )
        tools = tools_text(self.tools(state.rules))
        talk = [
            Message("system", (TextPart(system), TextPart(f"\n\n{tools}", tools=True))),
            Message("user", _first_observation(state)),
        ]
        for i, turn in enumerate(state.turns):
            talk.append(Message("assistant", (TextPart(self._output(turn, state)),)))
            if is_replied(state, i):
                talk.append(Message("tool", _reply(state, i)))
        return tuple(talk)

    def _output(self, turn: Turn, state: State) -> str:
        """The turn's text; structured actions are put into words, "" where there are none."""
        if turn.text is not None:
            return turn.text
        try:
            return "".join(self.write(result.action, state) for result in turn.results)
        except ValueError:
            return ""


def _how_many(rules: Rules) -> str:
    most = rules.max_calls_per_turn
    return "one function" if most == 1 else f"one function, or up to {most} for several looks at once"


def _schema(kind: type[Action], rules: Rules) -> dict[str, Any]:
    properties = kind.parameters(rules)
    parameters = {
        "type": "object",
        "properties": properties,
        "required": _required(kind, properties),
        "additionalProperties": False,
    }
    function = {"name": kind.kind, "description": kind.purpose, "parameters": parameters}
    return {"type": "function", "function": function}


def _required(kind: type[Action], properties: dict[str, Any]) -> list[str]:
    return [name for name in properties if name not in kind.optional]


def _read(text: str, rules: Rules) -> tuple[Action, ...]:
    rest = text.strip()
    if rest.startswith(f"<{THINK}>"):
        _, closed, rest = rest.partition(f"</{THINK}>")
        if not closed:
            reason = f"The thought is not closed: end it with </{THINK}>, then call a function."
            return (Invalid("format", reason),)
        rest = rest.strip()
    if not (rest.startswith(_OPENING) and rest.endswith(_CLOSING)):
        reason = f"Write one {_OPENING}...{_CLOSING} and nothing else, but for a thought before it."
        return (Invalid("format", reason),)
    inner = rest[len(_OPENING) : -len(_CLOSING)]
    if rules.max_calls_per_turn == 1:
        return (_read_call(inner, rules),)
    return tuple(_read_call(body, rules) for body in _BETWEEN.split(inner))


def _read_call(body: str, rules: Rules) -> Action:
    call = load_call(body)
    if isinstance(call, Invalid):
        return call
    if call.name not in rules.actions:
        return Invalid(
            "unknown_tool", f"There is no such function here; call {' or '.join(rules.actions)}."
        )
    return _read_arguments(action_kinds()[call.name], call.arguments, rules)


def _read_arguments(kind: type[Action], arguments: dict[str, Any], rules: Rules) -> Action:
    properties = kind.parameters(rules)
    if any(name not in properties for name in arguments):
        return Invalid("unknown_argument", f"{kind.kind} takes {', '.join(properties)} and nothing else.")
    missing = [name for name in _required(kind, properties) if name not in arguments]
    if missing:
        return Invalid("required", f"{kind.kind} needs {' and '.join(missing)}.")
    return kind.from_arguments(arguments, rules)


def _first_observation(state: State) -> tuple[Part, ...]:
    count = len(state.skim.times_s)
    first = f"Here are {count} of its frames, each after its time:" if count else "No frame is shown first."
    opening = f"The video lasts {state.video.duration_s:.2f} s. {first}\n"
    form = {
        "choice": "Answer with the letter of one option.",
        "numeric": "Answer with a number.",
        "open": "Answer in a few words.",
    }[state.task.kind]
    return (
        TextPart(opening),
        *frame_parts(state.skim, stamped=True),
        TextPart("\n" if count else ""),
        TextPart(question_text(state.task), given=True),
        TextPart(f"\n{form} {_limits(state, 0)}"),
    )


def _reply(state: State, index: int) -> tuple[Part, ...]:
    turn, parts = state.turns[index], [TextPart(f"<{TOOL_RESPONSE}>\n")]
    shown = tuple(part for result in turn.results for part in _looked(result))
    news = told_bounds(state.rules, turn)
    if turn.error is not None:
        news = f"Refused. {turn.error.reason}"
    closing = TextPart(
        f"\n{news}{' ' if news else ''}{_limits(state, index + 1)}</{TOOL_RESPONSE}>".lstrip("\n")
    )
    return (*parts, *shown, closing)


def _looked(result: Result) -> tuple[Part, ...]:
    """The frames of a look, or what was said of them."""
    if result.clip is None:
        return ()
    if result.reply is None:
        return frame_parts(result.clip, stamped=True)
    start_s, end_s = result.clip.times_s[0], result.clip.times_s[-1]
    said = TextPart(result.reply, given=True)
    return (TextPart(f"[{start_s:.2f} to {end_s:.2f} s] "), said, TextPart("\n"))


def _limits(state: State, played: int) -> str:
    """What is left after so many turns, in a sentence."""
    rules = state.rules
    left = rules.max_turns - played
    turns = "This is your last turn: call answer." if left == 1 else f"{left} turns are left."
    if rules.frame_budget is None:
        return turns
    clips = [state.skim, *(clip for turn in state.turns[:played] for clip in turn.clips)]
    frames = max(0, rules.frame_budget - sum(len(clip.times_s) for clip in clips))
    return f"{turns} {frames} more frames can be shown."
