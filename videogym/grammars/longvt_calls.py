"""How LongVT's rollout and tool server read what a model writes: calls, arguments, final answers.

Knows texts and JSON values, no state and no prompt. A path in a call is compared with a name and
never opened.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal, NamedTuple

from videogym.actions import Crop
from videogym.grammars.blocks import bodies
from videogym.grammars.tool_calls import TOOL_CALL, Call
from videogym.state import Invalid

ANSWER = "answer"
CROP_VIDEO = "crop_video"
PARAMETERS = {
    "video_path": ("string", "Path to the video file"),
    "start_time": ("number", "Start time in seconds"),
    "end_time": ("number", "End time in seconds, must be > start_time"),
}


class Reading(NamedTuple):
    """What the published rollout makes of one assistant text."""

    outcome: Literal["final", "tool", "stop_bad_call"]
    kept_text: str  # what stays in the conversation besides the calls
    calls: tuple[Call, ...]


def read_turn(text: str) -> Reading:
    """Read one assistant text as the published rollout does.

    Source: sglang 0.4.6.post5 ``Qwen25Detector`` and verl's ``sglang_rollout`` in LongVT. Differs:
    what makes the rollout crash (a list or object as name, JSON nested too deeply or with too many
    digits) ends the episode like any other malformed call.
    """
    at = text.find(f"<{TOOL_CALL}>")
    if at < 0:
        return Reading("final", text, ())
    calls = _calls(text)
    if not calls:
        return Reading("stop_bad_call", text, ())
    return Reading("tool", text[:at].strip(), calls)


def _calls(text: str) -> tuple[Call, ...]:
    """All valid calls; none if any body is broken, for the rollout then loses the others too."""
    acts: list[Any] = []
    for body in bodies(text, TOOL_CALL):
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return ()
        acts += value if isinstance(value, list) else [value]
    if not all(isinstance(act, dict) for act in acts):
        return ()
    if any(isinstance(act.get("name"), list | dict) and act["name"] for act in acts):
        return ()
    named = [act for act in acts if act.get("name") == CROP_VIDEO]
    arguments = [act.get("parameters") or act.get("arguments", {}) for act in named]
    return tuple(Call(CROP_VIDEO, value) for value in arguments if isinstance(value, dict))


def last_answer(text: str) -> str | None:
    """What follows the last ``<answer>`` up to ``</answer>`` or the end; None unless both tags occur.

    Source: the answer extraction of LongVT's reward.
    """
    if f"<{ANSWER}>" not in text or f"</{ANSWER}>" not in text:
        return None
    return text.split(f"<{ANSWER}>")[-1].split(f"</{ANSWER}>")[0]


def read_strict_arguments(arguments: dict[str, Any], name: str) -> Crop | Invalid:
    """As `read_arguments`, but numbers are JSON numbers and unknown arguments are refused.

    The path may be left out, for there is one video only.
    """
    unknown = [key for key in arguments if key not in PARAMETERS]
    if unknown:
        return Invalid("unknown_argument", f"{CROP_VIDEO} takes {', '.join(PARAMETERS)} and nothing else.")
    for key in ("start_time", "end_time"):
        if isinstance(arguments.get(key), bool | str):
            return Invalid("type", f"{key} must be a number of seconds.")
    return read_arguments({"video_path": name, **arguments}, name)


def read_arguments(arguments: dict[str, Any], name: str) -> Crop | Invalid:
    """The crop a call asks for, or the first check of the tool server that it fails.

    Types come first, for all arguments, then absence, then values. Numbers may be written as strings
    and true is 1.0, as pydantic has it; unlike there, a number that is not finite is a wrong type.
    Times are compared here only where the server does so before it misses the file; of the right
    video they are judged when the crop is played.

    Args:
        arguments: what the call holds, as JSON gave it.
        name: the only path that exists.

    Source: ``crop_video`` in LongVT's ``examples/video_tools/mcp_server.py``.
    """
    path = arguments.get("video_path", "")
    if not isinstance(path, str):
        return Invalid("type", "video_path must be a string.")
    start_s, end_s = (_seconds(arguments.get(key, 0.0)) for key in ("start_time", "end_time"))
    if start_s is None or end_s is None:
        return Invalid("type", "start_time and end_time must be finite numbers of seconds.")
    missing = [key for key in PARAMETERS if key not in arguments]
    if missing:
        return Invalid("required", f"{missing[0]} is required.")
    if not path.strip():
        return Invalid("path", "video_path must not be empty.")
    if path != name:
        return _refuse_file(start_s, end_s, name)
    return Crop(start_s, end_s)


def _refuse_file(start_s: float, end_s: float, name: str) -> Invalid:
    if start_s < 0:
        return Invalid("negative", f"start_time must not be negative, got {start_s:g}.")
    if end_s <= start_s:
        return Invalid("order", f"end_time must be after start_time, got {start_s:g} and {end_s:g}.")
    return Invalid("file", f"There is no such video; the path is {name}.")


def _seconds(value: object) -> float | None:
    """A finite number of seconds from what JSON gave, or None."""
    if not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not value.strip().isascii():  # digits of other scripts
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None
