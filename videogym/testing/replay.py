"""Replay records of published systems through the real environment, grammars and rewards.

A record is one JSON object whose ``kind`` says what it holds; the kinds are the keys of `CHECKS`. Batch
shaping and advantages belong to training and are not covered.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from videogym.env import VideoQAEnv
from videogym.geometry import Segment
from videogym.grammars import video_mtr
from videogym.grammars.longvt import video_name
from videogym.grammars.longvt_calls import read_turn
from videogym.recipes import LONGVT_CODE, VIDEO_MTR_CODE, Recipe
from videogym.rewards import FrameGain, Term, frame_iou, longvt_transcript, relevant_pool
from videogym.state import Clip, State, Task, TaskKind
from videogym.testing.blank_video import BlankVideo, OneVideoStore
from videogym.video.sampling import linspace_floored, smart_resize, window_bounds, window_indices
from videogym.wrappers import TextActions

TOLERANCE = 1e-6  # of floats; some records are rounded
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


class UnusableRow(Exception):
    """A row that is no record of a known kind."""


class ConformanceRow(dict[str, Any]):
    """One record; a field it lacks makes it unusable."""

    def __missing__(self, key: str) -> Any:
        raise UnusableRow(f"the row has no field {key!r}")


Mismatches = Iterator[str]


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
    except Exception as error:
        return [f"raised {type(error).__name__}: {error}"]


def _compare(name: str, expected: Any, actual: Any) -> Mismatches:
    if not _same(expected, actual):
        yield f"{name}: expected {expected!r}, got {actual!r}"


def _same(expected: Any, actual: Any) -> bool:
    if isinstance(expected, list | tuple) and isinstance(actual, list | tuple):
        return len(expected) == len(actual) and all(map(_same, expected, actual))
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            _same(expected[key], actual[key]) for key in expected
        )
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    if isinstance(expected, int | float) and isinstance(actual, int | float):
        return math.isclose(expected, actual, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(expected == actual)


# --- frames (LongVT) ---------------------------------------------------------------------------


def _check_frames(row: ConformanceRow) -> Mismatches:
    source, window = (row["frames"], row["fps"]), (_number(row["start"]), _number(row["end"]))
    try:
        first, last = window_bounds(*source, *window)
        indices = window_indices(*source, row["max_frames"], 1.0, *window).tolist()
    except ValueError:
        yield from _compare("error", row.get("error"), "ValueError")
        return
    yield from _compare("error", row.get("error"), None)
    actual = {"first": first, "last": last, "span": last - first + 1, "n": len(indices), "idx": indices}
    for name, value in actual.items():
        yield from _compare(name, row[name], value)


def _number(value: Any) -> float | None:
    """A number that JSON may have had to write as text, such as "nan"."""
    return None if value is None else float(value)


def _check_resize(row: ConformanceRow) -> Mismatches:
    try:
        size: Any = list(smart_resize(row["h"], row["w"], row["min_pixels"], row["max_pixels"]))
    except ValueError:
        size = "ValueError"
    yield from _compare("out", row.get("error") or row["out"], size)


# --- text (LongVT) -----------------------------------------------------------------------------


def _check_parse(row: ConformanceRow) -> Mismatches:
    text, outcome = row["text"], row["outcome"]
    reading = read_turn(text)
    # Where the published parser crashed, the episode ends here as for any unreadable call.
    crashed = row.get("error") is not None
    outcome = "stop_bad_call" if crashed else outcome
    yield from _compare("outcome", outcome, reading.outcome)
    if not crashed:
        yield from _compare("kept_text", row["kept_text"], reading.kept_text)
        calls = [{"name": call.name, "arguments": _written(call.arguments)} for call in reading.calls]
        yield from _compare("calls", row["calls"], calls)
    with _Episode(LONGVT_CODE, _OPEN_TASK, BlankVideo(5400, 30.0, 640, 360)) as env:
        env.step(text)
        full = outcome == "tool" and len(row["calls"]) >= (env.recipe.rules.max_calls or math.inf)
        endings = {"final": "answered", "stop_bad_call": "malformed", "tool": "call_limit" if full else ""}
        yield from _compare("ending", endings[outcome], env.state.ending)


def _written(value: Any) -> Any:
    """JSON values as records hold them: numbers that are not finite as "<nan>" and "<inf>"."""
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_written(item) for item in value]
    return f"<{value}>" if isinstance(value, float) and not math.isfinite(value) else value


def _check_tool_call(row: ConformanceRow) -> Mismatches:
    seconds, fps, width, height = (int(n) for n in re.findall(r"\d+", row["video"])[:4])
    with _Episode(LONGVT_CODE, _OPEN_TASK, BlankVideo(seconds * fps, float(fps), width, height)) as env:
        env.step(_call_text(row, env.state))
        result, rules = env.state.turns[-1].results[0], env.recipe.rules
        code = result.error.code if result.error else None
        yield from _compare("error", _canonical(row["error"]), _canonical(code))
        frames = size = None
        if result.clip is not None:
            frames = len(result.clip.times_s)
            rows, columns = smart_resize(
                height, width, rules.min_pixels, rules.max_pixels, rules.size_factor
            )
            size = [columns, rows]
        yield from _compare("frames", row["frames"], frames)
        yield from _compare("size", row["size"], size)


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
        yield from _compare(variant, row[variant], actual)


def _check_span_answer(row: ConformanceRow) -> Mismatches:
    actual = longvt_transcript.score_span_answer(row["text"], row["truth"], row["recall"])
    yield from _compare("out", row["out"], actual)


# --- Video-MTR ---------------------------------------------------------------------------------


def _check_parser(row: ConformanceRow) -> Mismatches:
    kind = _task_kind(row)
    letters = [option[0].upper() for option in row["options"] or () if option[:1].isalpha()]
    reading = video_mtr.probe(row["raw_response"], kind, letters, row["max_frame_idx"])
    for name, value in row["expect"].items():
        yield from _compare(name, value, getattr(reading, name, None))


def _task_kind(row: ConformanceRow) -> TaskKind:
    name = row["problem_type"]
    if name not in _KINDS:
        raise UnusableRow(f"problem_type must be one of {', '.join(_KINDS)}, got {name!r}")
    return _KINDS[name]


def _check_episode(row: ConformanceRow) -> Mismatches:
    # One frame a second: frame i of the pool is at i seconds.
    video = BlankVideo(max(row["pool_size"], 2), 1.0, 64, 36)
    with _Episode(_probe_recipe(row), _probe_task(row), video) as env:
        env.use_pool(row["pool_size"])
        yield from _compare(
            "initial_obs_idxs", row["initial_obs_idxs"], env.indices(env.state.skim.times_s)
        )
        total = 0.0
        for number, step in enumerate(map(ConformanceRow, row["steps"]), start=1):
            outcome = env.probe(step["raw_response"])
            total += outcome["reward"]
            for name, value in outcome.items():
                yield from _compare(f"step {number} {name}", step[name], value)
        yield from _compare("total_reward", row["total_reward"], total)


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


# --- the environment ---------------------------------------------------------------------------


class _Episode:
    """One task in the real environment, played by text."""

    def __init__(self, recipe: Recipe, task: Task, video: BlankVideo) -> None:
        self.inner = VideoQAEnv([task], recipe)
        self.inner.store = OneVideoStore(video)
        self.recipe, self.env = recipe, TextActions(self.inner)
        self.env.reset(seed=0)

    def __enter__(self) -> _Episode:
        return self

    def __exit__(self, *_: object) -> None:
        self.env.close()

    @property
    def state(self) -> State:
        return self.inner.state

    def use_pool(self, size: int) -> None:
        """Replace a pool that the sampling rule rounded down, for records of odd sizes."""
        if len(self.state.pool_s) != size:
            pool = tuple(map(float, range(size)))
            skim = Clip(
                tuple(pool[i] for i in linspace_floored(0, size - 1, self.recipe.rules.skim_frames))
            )
            self._set(replace(self.state, pool_s=pool, skim=skim))

    def indices(self, times_s: Sequence[float]) -> list[int]:
        return [self.state.pool_s.index(time_s) for time_s in times_s]

    def step(self, text: str) -> tuple[float, bool, dict[str, Any]]:
        """Play one output; the reward, whether the episode has ended, and the info."""
        _, reward, terminated, _, info = self.env.step(text)
        return reward, terminated, info

    def probe(self, text: str) -> dict[str, Any]:
        """Play one output and say what came of it in the words of Video-MTR's records."""
        if self.state.terminated:  # the reference goes on after the end
            self._set(replace(self.state, ending=""))
        reward, done, info = self.step(text)
        turn, relevant = self.state.turns[-1], relevant_pool(self.state)
        clip = turn.clips[-1] if turn.clips else None
        return {
            "reward": reward,
            "done": done,
            "success": bool(info["reward_terms"]["answer"] > 0),
            "action_valid": turn.valid,
            "format_correct": turn.well_formed,
            "obs_idxs": None if clip is None else self.indices(clip.times_s),
            "iou": None if clip is None or relevant is None else frame_iou(clip, relevant),
        }

    def _set(self, state: State) -> None:
        self.inner.set_state(replace(self.inner.get_state(), state=state))


_OPEN_TASK = Task("clip", "blank", "What is shown?", "open", answer="x")


CHECKS: dict[str, Callable[[ConformanceRow], Mismatches]] = {
    "parser_probe": _check_parser,
    "env_probe": _check_episode,
    "skim_frames": _check_frames,
    "crop_frames": _check_frames,
    "resize": _check_resize,
    "parse": _check_parse,
    "tool_call": _check_tool_call,
    "reward": _check_reward,
    "span_answer": _check_span_answer,
}
