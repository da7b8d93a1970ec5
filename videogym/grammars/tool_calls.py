"""JSON tool calls between ``<tool_call>`` tags, as Qwen's models are trained to write them.

Knows the syntax of calls and how tools are announced in a system message; which tools exist and what
their arguments mean is the grammars' business.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from videogym.state import Invalid

TOOL_CALL = "tool_call"
TOOL_RESPONSE = "tool_response"
TOOLS = "tools"


class Call(NamedTuple):
    """One call: the tool's name and its arguments as JSON gave them."""

    name: str
    arguments: dict[str, Any]


def write_call(name: str, arguments: dict[str, Any]) -> str:
    """The call as a tagged block."""
    values = json.dumps(arguments, ensure_ascii=False)
    return f'<{TOOL_CALL}>{{"name": {json.dumps(name)}, "arguments": {values}}}</{TOOL_CALL}>'


def load_call(body: str) -> Call | Invalid:
    """Read one call strictly: a JSON object of exactly ``name`` and ``arguments``.

    Refused, each with its reason: anything `json` refuses, ``NaN`` and ``Infinity``, a key twice in
    one object, further keys, and values of another type.
    """
    try:
        value = json.loads(body, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except RecursionError:
        return Invalid("malformed_call", "The call is nested too deeply.")
    except ValueError as error:
        return Invalid("malformed_call", f"The call is not valid JSON: {str(error)[:100]}.")
    if not isinstance(value, dict) or set(value) != {"name", "arguments"}:
        return Invalid(
            "malformed_call", 'Write the call as one JSON object with "name" and "arguments" only.'
        )
    if not isinstance(value["name"], str) or not isinstance(value["arguments"], dict):
        return Invalid("malformed_call", 'In a call, "name" is a string and "arguments" is a JSON object.')
    return Call(value["name"], value["arguments"])


def tools_text(tools: list[dict[str, Any]]) -> str:
    """How a system message announces tools and the syntax of calls; "" without tools.

    The layout is that of Qwen2.5's chat template, the words are ours.
    """
    if not tools:
        return ""
    schemas = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return (
        f"# Tools\nThese functions are at your disposal:\n<{TOOLS}>{schemas}</{TOOLS}>\n"
        "To call one, write its name and a JSON object of its arguments like this:\n"
        f'<{TOOL_CALL}>{{"name": "...", "arguments": {{...}}}}</{TOOL_CALL}>'
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return dict(pairs)
