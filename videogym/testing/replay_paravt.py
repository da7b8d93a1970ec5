"""Replay records of ParaVT, see `videogym.testing.replay`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from videogym.grammars.paravt import extracted_answer
from videogym.grammars.paravt_calls import read_calls, read_evaluated
from videogym.recipes import PARAVT_CODE
from videogym.rewards import paravt as rewards
from videogym.state import State
from videogym.testing.blank_video import BlankVideo
from videogym.testing.records import OPEN_TASK, Check, ConformanceRow, Mismatches, ReplayEpisode, expect
from videogym.video import UnfitVideo

_SAME = {"start>=duration": "start_past_end", "no two frames": "no_two_frames"}


def _plain(value: Any, nan: str = "NaN", inf: str = "Infinity") -> Any:
    """A value as records hold it: numbers that are not finite as text."""
    if isinstance(value, dict):
        return {key: _plain(item, nan, inf) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, nan, inf) for item in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return nan if math.isnan(value) else inf if value > 0 else f"-{inf}"


def _check_calls(row: ConformanceRow) -> Mismatches:
    calls = read_calls(row["text"])
    yield from expect("called", row["called"], bool(calls))
    yield from expect("calls", row["calls"], [_plain(call._asdict()) for call in calls])
    with ReplayEpisode(PARAVT_CODE, OPEN_TASK, BlankVideo(5400, 30.0, 640, 360)) as episode:
        episode.step(row["text"])
        yield from expect("ending", "" if row["called"] else "answered", episode.state.ending)
        if calls:
            yield from expect("looks", len(row["calls"]), len(episode.state.turns[0].results))


def _check_eval_calls(row: ConformanceRow) -> Mismatches:
    found = read_evaluated(row["text"])
    yield from expect("calls", row["calls"], _plain(found.calls))
    windows = None if found.windows is None else _plain(found.windows, "nan", "inf")
    yield from expect("windows", row["windows"], windows)
    yield from expect("error", row["error"], "AttributeError" if windows is None else None)


def _look(video: BlankVideo, arguments: dict[str, Any]) -> State:
    """The state after one call with these arguments."""
    text = f'<tool_call>{{"name": "crop_video", "arguments": {json.dumps(arguments)}}}</tool_call>'
    with ReplayEpisode(PARAVT_CODE, OPEN_TASK, video) as episode:
        episode.step(text)
        return episode.state


def _check_crop(row: ConformanceRow) -> Mismatches:
    video = BlankVideo(row["frames"], row["fps"], 640, 360)
    state = _look(video, {"start_time": row["start"], "end_time": row["end"]})
    (result,) = state.turns[0].results
    code = result.error.code if result.error else None
    yield from expect("error", row["error"], _SAME.get(code or "", code))
    judged = code not in ("order", "start>=duration")
    yield from expect(
        "used_end", row["used_end"], min(row["end"], video.meta.duration_s) if judged else None
    )
    times = result.clip.times_s if result.clip else None
    yield from expect("n", row["n"], None if times is None else len(times))
    yield from expect("idx", row["idx"], None if times is None else [round(t * row["fps"]) for t in times])


def _check_crop_arguments(row: ConformanceRow) -> Mismatches:
    arguments, duration_s = row["arguments"], row["duration"]
    state = _look(BlankVideo(round(duration_s * 30), 30.0, 640, 360), arguments)
    (result,) = state.turns[0].results
    code = result.error.code if result.error else None
    # A comparison of a text with a number raises in the published tool.
    yield from expect("ok", row["ok"], None if code == "type" else code is None)
    reason = result.error.reason.rstrip(".") if result.error else None
    recorded = row["error"]
    if recorded is not None and "required" not in recorded and recorded != "TypeError":
        yield from expect("error", True, code not in (None, "type", "required"))
    else:
        yield from expect("error", recorded, "TypeError" if code == "type" else reason)
    start, end = (arguments.get(f"{name}_time", arguments.get(name)) for name in ("start", "end"))
    used = None if code is not None else [start, min(end, duration_s)]
    yield from expect("used", row["used"], used)


def _check_overview(row: ConformanceRow) -> Mismatches:
    rules = replace(PARAVT_CODE.rules, **_overview(row["how"]))
    video, times = BlankVideo(row["frames"], row["fps"], 640, 360), None
    try:
        with ReplayEpisode(replace(PARAVT_CODE, rules=rules), OPEN_TASK, video) as episode:
            times = episode.state.skim.times_s
    except UnfitVideo:
        pass
    yield from expect("error", row["error"], "too_short" if times is None else None)
    yield from expect("n", row["n"], None if times is None else len(times))
    yield from expect("idx", row["idx"], None if times is None else [round(t * row["fps"]) for t in times])


def _overview(how: str) -> dict[str, Any]:
    if how == "train_fps":
        return {}
    counted: dict[str, Any] = {"skim_fps": 0.0, "skim_sampling": "counted"}
    return counted | {"skim_frames": int(how.rpartition("_")[2])}


def _check_format(row: ConformanceRow) -> Mismatches:
    score = rewards.format_score(row["text"], row["answer_suffix"], row["anchor_weight"])
    yield from expect("out", row["out"], score)


def _check_accuracy(row: ConformanceRow) -> Mismatches:
    arguments = row["prediction"], row["truth"], row["question_type"], row["mode"]
    yield from expect("out", row["out"], rewards.accuracy(*arguments))


def _check_reward(row: ConformanceRow) -> Mismatches:
    text, settings = row["text"], row["settings"]
    answer = extracted_answer(text)
    yield from expect("extracted", row["extracted"], answer)
    right = rewards.accuracy(answer, row["truth"], row["question_type"])
    form = rewards.format_score(text, settings["answer_suffix"], settings["anchor_weight"])
    parts = {"answer": right, "format": form, "tool": rewards.tool_score(text, right)}
    if rewards.is_degenerate(text):
        parts = dict.fromkeys(parts, 0.0)
    for name, value in parts.items():
        yield from expect(name, row[name], value)
    total = parts["answer"] + settings["format_weight"] * parts["format"] + parts["tool"]
    yield from expect("reward", row["reward"], total)


def _check_letter(row: ConformanceRow) -> Mismatches:
    yield from expect("out", row["out"], rewards.evaluated_letter(row["text"]))


def _check_time(row: ConformanceRow) -> Mismatches:
    found = rewards.evaluated_range(row["text"])
    yield from expect("out", row["out"], None if found is None else list(found))
    first, last = row["truth"]
    yield from expect("iou", row["iou"], 0.0 if found is None else rewards.range_iou(found, (first, last)))


PARAVT_CHECKS: Mapping[str, Check] = {
    "paravt_calls": _check_calls,
    "paravt_eval_calls": _check_eval_calls,
    "paravt_crop": _check_crop,
    "paravt_crop_arguments": _check_crop_arguments,
    "paravt_overview": _check_overview,
    "paravt_format": _check_format,
    "paravt_accuracy": _check_accuracy,
    "paravt_reward": _check_reward,
    "paravt_letter": _check_letter,
    "paravt_time": _check_time,
}
