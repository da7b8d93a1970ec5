"""Replay records of published systems through the real environment, grammars and rewards.

A record is one JSON object whose ``kind`` says what it holds; the kinds are the keys of `CHECKS`. Batch
shaping and advantages belong to training and are not covered.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from videogym.geometry import Segment
from videogym.grammars import video_mtr
from videogym.grammars.longvt import video_name
from videogym.grammars.longvt_calls import read_turn
from videogym.recipes import LONGVT_CODE, VIDEO_MTR_CODE, Recipe
from videogym.rewards import FrameGain, Term, longvt_transcript
from videogym.state import State, Task, TaskKind
from videogym.testing.blank_video import BlankVideo
from videogym.testing.records import (
    OPEN_TASK,
    Check,
    ConformanceRow,
    Mismatches,
    ReplayEpisode,
    UnusableRow,
    expect,
    number,
)
from videogym.testing.replay_paravt import PARAVT_CHECKS
from videogym.testing.replay_video_zoomer import VIDEO_ZOOMER_CHECKS
from videogym.video.sampling import smart_resize, window_bounds, window_indices

__all__ = ["CHECKS", "ConformanceRow", "Mismatches", "UnusableRow", "check_row"]

_KINDS: dict[str, TaskKind] = {"multiple choice": "choice", "numerical": "numeric", "free-form": "open"}
# Names of one condition in records and in our codes; the first is the one compared.
_SYNONYMS = (
    ("type", "validation", "not a number"),
    ("required", "missing argument"),
    ("path", "empty path", "blank path"),
    ("negative", "start<0", "negative start"),
    ("order", "end<=start", "inverted"),
    ("file", "missing file", "file missing", "not found", "no file"),
    ("start>=duration", "start beyond duration", "start out of range"),
    ("end>duration", "end beyond duration", "end out of range"),
    ("no two frames", "too few frames", "fewer than two frames"),
)


def check_row(row: dict[str, Any]) -> list[str]:
    """What comes out differently from the record; empty if nothing does.

    An exception of the code under test is a mismatch too.

    Raises:
        UnusableRow: the kind is unknown or a field is missing.
    """
    record = ConformanceRow(row)
    kind = record["kind"]
    if kind not in CHECKS:
        raise UnusableRow(f"unknown kind {kind!r}; known: {', '.join(sorted(CHECKS))}")
    try:
        return list(CHECKS[kind](record))
    except UnusableRow:
        raise
    except Exception as error:  # whatever it is, the row does not come out as recorded
        return [f"raised {type(error).__name__}: {error}"]


# --- frames (LongVT) ---------------------------------------------------------------------------


def _check_frames(row: ConformanceRow) -> Mismatches:
    source, window = (row["frames"], row["fps"]), (number(row["start"]), number(row["end"]))
    try:
        first, last = window_bounds(*source, *window)
        indices = window_indices(*source, row["max_frames"], 1.0, *window).tolist()
    except ValueError:
        yield from expect("error", row.get("error"), "ValueError")
        return
    yield from expect("error", row.get("error"), None)
    actual = {"first": first, "last": last, "span": last - first + 1, "n": len(indices), "idx": indices}
    for name, value in actual.items():
        yield from expect(name, row[name], value)


def _check_resize(row: ConformanceRow) -> Mismatches:
    try:
        size: Any = list(smart_resize(row["h"], row["w"], row["min_pixels"], row["max_pixels"]))
    except ValueError:
        size = "ValueError"
    yield from expect("out", row.get("error") or row["out"], size)


# --- text (LongVT) -----------------------------------------------------------------------------


def _check_parse(row: ConformanceRow) -> Mismatches:
    text, outcome = row["text"], row["outcome"]
    reading = read_turn(text)
    # Where the published parser crashed, the episode ends here as for any unreadable call.
    crashed = row.get("error") is not None
    outcome = "stop_bad_call" if crashed else outcome
    yield from expect("outcome", outcome, reading.outcome)
    if not crashed:
        yield from expect("kept_text", row["kept_text"], reading.kept_text)
        calls = [{"name": call.name, "arguments": _written(call.arguments)} for call in reading.calls]
        yield from expect("calls", row["calls"], calls)
    with ReplayEpisode(LONGVT_CODE, OPEN_TASK, BlankVideo(5400, 30.0, 640, 360)) as env:
        env.step(text)
        full = outcome == "tool" and len(row["calls"]) >= (env.recipe.rules.max_calls or math.inf)
        endings = {"final": "answered", "stop_bad_call": "malformed", "tool": "call_limit" if full else ""}
        yield from expect("ending", endings[outcome], env.state.ending)


def _written(value: Any) -> Any:
    """JSON values as records hold them: numbers that are not finite as "<nan>" and "<inf>"."""
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_written(item) for item in value]
    return f"<{value}>" if isinstance(value, float) and not math.isfinite(value) else value


def _check_tool_call(row: ConformanceRow) -> Mismatches:
    seconds, fps, width, height = (int(n) for n in re.findall(r"\d+", row["video"])[:4])
    with ReplayEpisode(LONGVT_CODE, OPEN_TASK, BlankVideo(seconds * fps, float(fps), width, height)) as env:
        env.step(_call_text(row, env.state))
        result, rules = env.state.turns[-1].results[0], env.recipe.rules
        code = result.error.code if result.error else None
        yield from expect("error", _canonical(row["error"]), _canonical(code))
        frames = size = None
        if result.clip is not None:
            frames = len(result.clip.times_s)
            rows, columns = smart_resize(
                height, width, rules.min_pixels, rules.max_pixels, rules.size_factor
            )
            size = [columns, rows]
        yield from expect("frames", row["frames"], frames)
        yield from expect("size", row["size"], size)


def _call_text(row: ConformanceRow, state: State) -> str:
    path = row.get("path", row.get("video_path"))
    given = {
        "video_path": json.dumps(video_name(state.task)) if path is None else path,
        "start_time": row["start"],
        "end_time": row["end"],
    }
    values = ", ".join(f'"{key}": {_json(text)}' for key, text in given.items() if text != "absent")
    return f'<think>x</think><tool_call>{{"name": "crop_video", "arguments": {{{values}}}}}</tool_call>'


def _json(text: Any) -> str:
    """An argument as JSON; records hold it as JSON text, and what is not JSON is a string."""
    try:
        json.loads(text)
    except (TypeError, ValueError):
        return json.dumps(text)
    return str(text)


def _canonical(label: str | None) -> str | None:
    if label is None:
        return None
    plain = label.replace(" ", "").replace("_", "").lower()
    for names in _SYNONYMS:
        if plain in {name.replace(" ", "") for name in names}:
            return names[0]
    return label


# --- rewards (LongVT) --------------------------------------------------------------------------


def _check_reward(row: ConformanceRow) -> Mismatches:
    segment = None if row["segment"] is None else (float(row["segment"][0]), float(row["segment"][1]))
    variants: tuple[longvt_transcript.Variant, ...] = ("iou", "recall", "tool", "acc_format", "default")
    for variant in variants:
        parts = longvt_transcript.score(row["text"], segment, row["verdict"], variant)
        # The published code raises where a term has no annotation to go by; here the term is absent.
        actual = "KeyError" if None in parts else parts
        yield from expect(variant, row[variant], actual)


def _check_span_answer(row: ConformanceRow) -> Mismatches:
    actual = longvt_transcript.score_span_answer(row["text"], row["truth"], row["recall"])
    yield from expect("out", row["out"], actual)


# --- Video-MTR ---------------------------------------------------------------------------------


def _check_parser(row: ConformanceRow) -> Mismatches:
    kind = _task_kind(row)
    letters = [option[0].upper() for option in row["options"] or () if option[:1].isalpha()]
    reading = video_mtr.probe(row["raw_response"], kind, letters, row["max_frame_idx"])
    for name, value in row["expect"].items():
        yield from expect(name, value, getattr(reading, name, None))


def _task_kind(row: ConformanceRow) -> TaskKind:
    name = row["problem_type"]
    if name not in _KINDS:
        raise UnusableRow(f"problem_type must be one of {', '.join(_KINDS)}, got {name!r}")
    return _KINDS[name]


def _check_episode(row: ConformanceRow) -> Mismatches:
    # One frame a second: frame i of the pool is at i seconds.
    video = BlankVideo(max(row["pool_size"], 2), 1.0, 64, 36)
    with ReplayEpisode(_probe_recipe(row), _probe_task(row), video) as env:
        env.use_pool(row["pool_size"])
        yield from expect("initial_obs_idxs", row["initial_obs_idxs"], env.indices(env.state.skim.times_s))
        total = 0.0
        for number, step in enumerate(map(ConformanceRow, row["steps"]), start=1):
            outcome = env.probe(step["raw_response"])
            total += outcome["reward"]
            for name, value in outcome.items():
                yield from expect(f"step {number} {name}", step[name], value)
        yield from expect("total_reward", row["total_reward"], total)


def _probe_recipe(row: ConformanceRow) -> Recipe:
    config = ConformanceRow(row["config"])
    if config.get("add_final_frame_reward"):
        raise UnusableRow("add_final_frame_reward is not rebuilt here")
    frames = config["add_step_frame_reward"]
    terms = (
        replace(VIDEO_MTR_CODE.terms[0], weight=config["format_reward"]),
        *((_frame_term(config["frame_reward"]),) if frames else ()),
        VIDEO_MTR_CODE.terms[2],
    )
    rules = replace(
        VIDEO_MTR_CODE.rules,
        skim_frames=config["init_sample_num"],
        clip_frames=config["max_turn_frames"],
        # The reference leaves its turn limit to the rollout: here no step of the row reaches it.
        max_turns=max(config["max_turns"], len(row["steps"]) + 1),
        pool_frames=max(row["pool_size"], 2),
    )
    return replace(VIDEO_MTR_CODE, name="conformance", rules=rules, terms=terms)


def _frame_term(bonus: float) -> Term:
    term = VIDEO_MTR_CODE.terms[1]
    assert isinstance(term.function, FrameGain)
    return replace(term, function=replace(term.function, bonus=bonus))


def _probe_task(row: ConformanceRow) -> Task:
    relevant = row["relevant_sample_frames"]
    solution = re.sub(r"^\s*<answer>(.*)</answer>\s*$", r"\1", row["solution"], flags=re.DOTALL)
    return Task(
        task_id="probe",
        video="blank",
        question="What is shown?",
        kind=_task_kind(row),
        options=tuple(re.sub(r"^[A-Z]\.\s*", "", option) for option in row["options"] or ()),
        answer=solution.strip(),
        evidence=None if relevant is None else tuple(Segment(i, i + 1) for i in sorted(set(relevant))),
    )


CHECKS: Mapping[str, Check] = {
    "parser_probe": _check_parser,
    "env_probe": _check_episode,
    "skim_frames": _check_frames,
    "crop_frames": _check_frames,
    "resize": _check_resize,
    "parse": _check_parse,
    "tool_call": _check_tool_call,
    "reward": _check_reward,
    "span_answer": _check_span_answer,
    **VIDEO_ZOOMER_CHECKS,
    **PARAVT_CHECKS,
}
