"""How ParaVT's rollout and its evaluation read calls in what a model writes; they read differently.

Knows texts and values, no state and no prompt. All functions are pure, take linear time and never raise.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from typing import Any, NamedTuple

from videogym.actions import Crop
from videogym.grammars.longvt_calls import CROP_VIDEO
from videogym.grammars.tool_calls import TOOL_CALL, Call
from videogym.state import Invalid

TOOL_CODE = "tool_code"
_POSITIONAL = ("video_path", "start_time", "end_time")
MAX_EVALUATED = 5  # calls of one turn that the evaluation runs


def blocks(text: str, tag: str, *, unclosed: bool) -> list[str]:
    """What stands between each ``<tag>`` and the next ``</tag>``, or the text's end if ``unclosed``."""
    found = []
    _, opening, rest = text.partition(f"<{tag}>")
    while opening:
        body, closing, rest = rest.partition(f"</{tag}>")
        if closing or unclosed:
            found.append(body)
        _, opening, rest = rest.partition(f"<{tag}>")
    return found


def read_calls(text: str) -> tuple[Call, ...]:
    """All calls of a turn as the published rollout reads them; none if one ``<tool_call>`` is broken.

    Then, or without such a tag, Python calls in ``<tool_code>`` blocks, one a line; a line that is none is
    passed over. Arguments are whatever stands there.
    """
    return _json_calls(text) or tuple(call for body in _codes(text) for call in _python_calls(body))


def _codes(text: str) -> list[str]:
    return blocks(text, TOOL_CODE, unclosed=True)


def _json_calls(text: str) -> tuple[Call, ...]:
    calls = []
    for body in blocks(text, TOOL_CALL, unclosed=True):
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return ()
        if not isinstance(value, dict) or "name" not in value or "arguments" not in value:
            return ()
        calls.append(Call(value["name"], value["arguments"]))
    return tuple(calls)


def _python_calls(body: str) -> list[Call]:
    calls = (_python_call(line.strip()) for line in body.split("\n"))
    return [call for call in calls if call is not None]


def _python_call(line: str) -> Call | None:
    line = line.rstrip("\"'").strip() if line.rstrip("\"'").endswith(")") else line
    if line.startswith("print(") and line.endswith(")"):
        line = line[len("print(") : -1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in a literal
            call = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return None
    given = _values([(word.arg, word.value) for word in call.keywords])
    if not given and call.func.id == CROP_VIDEO:
        given = _values(list(zip(_POSITIONAL, call.args, strict=False)))
    return Call(call.func.id, given) if given else None


def _values(pairs: list[Any]) -> dict[str, Any]:
    """Literals by name; all else is left out."""
    found = {}
    for name, node in pairs:
        try:
            if name is not None:
                found[name] = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
    return found


def read_crop(call: Call) -> Crop | Invalid:
    """The crop that a call asks for, or the first check of the published tool that it fails.

    The path is not looked at: there is one video. Truth values are numbers, texts are not.
    """
    if call.name != CROP_VIDEO:
        return Invalid("unknown_tool", f"There is one tool only: {CROP_VIDEO}.")
    arguments: Any = call.arguments
    if not isinstance(arguments, dict):
        return Invalid("type", "Arguments are a JSON object.")
    times: list[Any] = [arguments.get(f"{name}_time", arguments.get(name)) for name in ("start", "end")]
    for name, value in zip(("start", "end"), times, strict=True):
        if value is None:
            return Invalid("required", f"{name}_time (or {name}) is required.")
    if not all(isinstance(value, int | float) for value in times):
        return Invalid("type", "start_time and end_time must be numbers of seconds.")
    try:
        return Crop(float(times[0]), float(times[1]))
    except OverflowError:
        return Invalid("type", "start_time and end_time must be finite numbers of seconds.")


class Evaluated(NamedTuple):
    """What the published evaluation finds in a turn."""

    calls: list[Any]  # JSON values, whatever they are
    windows: (
        list[tuple[float, float]] | None
    )  # seconds, of the first five; None: it raises, the sample is lost


def read_evaluated(text: str) -> Evaluated:
    """Calls of a turn as the published evaluation reads them: block by block, broken ones passed over."""
    calls: list[Any] = []
    for body in blocks(text, TOOL_CALL, unclosed=False):
        try:
            calls.append(json.loads(body))
        except (ValueError, RecursionError):
            continue
    if not calls:
        found = (_keywords(body) for body in blocks(text, TOOL_CODE, unclosed=False))
        calls = [{"name": CROP_VIDEO, "arguments": words} for words in found if words]
    windows = []
    for call in calls[:MAX_EVALUATED]:
        arguments = call.get("arguments", {}) if isinstance(call, dict) else None
        if not isinstance(arguments, dict):
            return Evaluated(calls, None)
        start_s = clock_seconds(arguments.get("start_time", 0))
        end = arguments.get("end_time")
        windows.append((start_s, start_s + 10.0 if end is None else clock_seconds(end)))
    return Evaluated(calls, windows)


def _keywords(body: str) -> dict[str, float | str]:
    """Keyword arguments of a bare call of the tool, read by commas and equal signs."""
    body = body.strip().rstrip("\"'").strip()
    if not (body.startswith(f"{CROP_VIDEO}(") and body.endswith(")")):
        return {}
    found: dict[str, float | str] = {}
    for part in body[len(CROP_VIDEO) + 1 : -1].split(","):
        name, equals, value = part.partition("=")
        if equals and name.strip().isidentifier():
            value = value.strip().strip("\"'")
            found[name.strip()] = _float(value, value)
    return found


def _float(text: str, otherwise: Any) -> Any:
    try:
        return float(text)
    except ValueError:
        return otherwise


def clock_seconds(value: object) -> float:
    """Seconds of a number or of a text such as "1:05" or "0:01:05"; 0.0 for all else."""
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if not isinstance(value, str) or len(value) > 100:
        return 0.0
    parts = value.strip().split(":")
    if not 2 <= len(parts) <= 3 or not all(re.fullmatch(r"\d+(\.\d+)?", part, re.ASCII) for part in parts):
        return float(_float(value, 0.0))
    return sum(float(part) * 60**place for place, part in enumerate(reversed(parts)))
