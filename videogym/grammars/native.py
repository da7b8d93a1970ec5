"""The house's own grammar: one JSON tool call a turn, in seconds, for every action there is.

An optional thought, then ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``. Only the
actions of the recipe are offered and accepted, and regions only where it allows them. Every time is
told and asked in seconds, and every refusal says what to write instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from videogym.grammars.base import Message, Part, TextPart
from videogym.grammars.blocks import THINK
from videogym.grammars.conversation import frame_parts, is_replied, question_text
from videogym.grammars.tool_calls import TOOL_CALL, TOOL_RESPONSE, TOOLS, load_call, tools_text, write_call
from videogym.state import Action, Invalid, Move, Rules, State, Turn, action_kinds

_OPENING, _CLOSING = f"<{TOOL_CALL}>", f"</{TOOL_CALL}>"


@dataclass(frozen=True)
class Native:
    """The grammar ``native``."""

    tags = (THINK, TOOL_CALL, TOOLS, TOOL_RESPONSE)

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
        """One action whose arguments have the types of the schema, or why there is none.

        Whether the values make sense is judged when the action is played.
        """
        action = _read(text, state.rules)
        return Move((action,), text, not isinstance(action, Invalid))

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
            f"it matters. Every turn, think between <{THINK}> and </{THINK}> and then call one function; "
            f"you have {state.rules.max_turns} turns. All times are in seconds."
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
        """The turn's text; a structured action is put into words, "" where there are none."""
        if turn.text is not None:
            return turn.text
        try:
            return self.write(turn.results[0].action, state)
        except ValueError:
            return ""


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


def _read(text: str, rules: Rules) -> Action:
    rest = text.strip()
    if rest.startswith(f"<{THINK}>"):
        _, closed, rest = rest.partition(f"</{THINK}>")
        if not closed:
            return Invalid(
                "format", f"The thought is not closed: end it with </{THINK}>, then call a function."
            )
        rest = rest.strip()
    if not (rest.startswith(_OPENING) and rest.endswith(_CLOSING)):
        reason = f"Write one {_OPENING}...{_CLOSING} and nothing else, but for a thought before it."
        return Invalid("format", reason)
    call = load_call(rest[len(_OPENING) : -len(_CLOSING)])
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
    opening = (
        f"The video lasts {state.video.duration_s:.2f} s. "
        f"Here are {len(state.skim.times_s)} of its frames, each after its time:\n"
    )
    form = {
        "choice": "Answer with the letter of one option.",
        "numeric": "Answer with a number.",
        "open": "Answer in a few words.",
    }[state.task.kind]
    return (
        TextPart(opening),
        *frame_parts(state.skim, stamped=True),
        TextPart("\n"),
        TextPart(question_text(state.task), given=True),
        TextPart(f"\n{form} {_limits(state, 0)}"),
    )


def _reply(state: State, index: int) -> tuple[Part, ...]:
    turn, parts = state.turns[index], [TextPart(f"<{TOOL_RESPONSE}>\n")]
    shown = tuple(part for clip in turn.clips for part in frame_parts(clip, stamped=True))
    news = "" if turn.error is None else f"Refused. {turn.error.reason}"
    closing = TextPart(
        f"\n{news}{' ' if news else ''}{_limits(state, index + 1)}</{TOOL_RESPONSE}>".lstrip("\n")
    )
    return (*parts, *shown, closing)


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
