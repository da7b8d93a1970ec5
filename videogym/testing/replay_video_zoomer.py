"""Replay records of VideoZoomer, see `videogym.testing.replay`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from videogym.actions import Crop
from videogym.grammars.video_zoomer import VIDEO_ZOOM, final_text
from videogym.recipes import VIDEO_ZOOMER_CODE, Recipe
from videogym.rewards import video_zoomer as rewards
from videogym.state import Clip, Move, State, Turn
from videogym.testing.blank_video import BlankVideo
from videogym.testing.records import (
    OPEN_TASK,
    Check,
    ConformanceRow,
    Mismatches,
    ReplayEpisode,
    expect,
    number,
)
from videogym.video.sampling import shrink_truncated

_SPENT = Turn((), "<think>Hm.</think>", False)  # a turn before the one of a record


def _check_turn(row: ConformanceRow) -> Mismatches:
    with ReplayEpisode(_recipe(row), OPEN_TASK, _video(row)) as episode:
        _go_to(episode, row)
        episode.step(row["text"])
        state = episode.state
        yield from expect("kept", row["kept"], _last_output(state))
        yield from expect("outcome", row["outcome"], _outcome(state))
        yield from expect("call", row["call"], _call(state))
        error = state.turns[-1].error
        replied = row["outcome"] == "error_reply"
        yield from expect("error", row["error"], error.code if error and replied else None)
        frames = row["outcome"] == "reply"
        stamps = [f"{time_s:.2f}" for clip in state.turns[-1].clips for time_s in clip.times_s]
        yield from expect("stamps", row["stamps"], stamps if frames else None)
        notice = f"<{VIDEO_ZOOM}>" in episode.env.messages[-1].text if frames or replied else None
        yield from expect("last_notice", row["last_notice"], notice)
        yield from expect("images_after", row["images_after"], state.frames_shown)


def _recipe(row: ConformanceRow) -> Recipe:
    images, most = row["images"], row["max_images"]
    rules = replace(
        VIDEO_ZOOMER_CODE.rules,
        max_turns=row["max_rounds"],
        clip_frames=row["max_frames"],
        skim_frames=min(images, most),
        # Beyond the limit is as at it: the turn ends the episode.
        frame_budget=max(most, images) if images >= most else most,
        skim_sampling="even",
        skim_fps=0.0,
    )
    return replace(VIDEO_ZOOMER_CODE, name="conformance", rules=rules)


def _video(row: ConformanceRow) -> BlankVideo:
    return BlankVideo(row["frames"], row["fps"], 640, 360)


def _go_to(episode: ReplayEpisode, row: ConformanceRow) -> None:
    """As many frames shown and turns played as the record says."""
    state = episode.state
    episode.set(replace(state, skim=Clip((0.0,) * row["images"]), turns=(_SPENT,) * row["round"]))


def _last_output(state: State) -> str:
    return rewards.outputs(state)[-1]


def _outcome(state: State) -> str:
    error = state.turns[-1].error
    if state.ending == "answered":
        return "final"
    if state.ending:
        return "cut"
    return "reply" if error is None or error.code == "no_frames" else "error_reply"


def _call(state: State) -> dict[str, Any] | None:
    action = state.turns[-1].results[0].action
    if not isinstance(action, Crop) or state.ending:
        return None
    values = {"start_time": action.start_s, "end_time": action.end_s, "fps": action.fps}
    return {name: _written(value) for name, value in values.items()}


def _written(value: float | None) -> float | str | None:
    """A number as records hold it."""
    return value if value is None or math.isfinite(value) else str(float(value))


def _check_frames(row: ConformanceRow) -> Mismatches:
    recipe = replace(
        VIDEO_ZOOMER_CODE,
        rules=replace(VIDEO_ZOOMER_CODE.rules, clip_frames=row["max_frames"], frame_budget=10**6),
    )
    crop = Crop(number(row["start"]) or 0.0, number(row["end"]) or 0.0, fps=number(row["call_fps"]))
    with ReplayEpisode(recipe, OPEN_TASK, _video(row)) as episode:
        episode.inner.step(Move((crop,)))
        (result,) = episode.state.turns[-1].results
    nothing = result.error is not None and result.error.code == "no_frames"
    error = None if result.error is None or nothing else result.error.code
    yield from expect("error", row["error"], error)
    times = None if error else result.clip.times_s if result.clip else ()
    yield from expect("n", row["n"], None if times is None else len(times))
    indices = None if times is None else [round(time_s * row["fps"]) for time_s in times]
    yield from expect("idx", row["idx"], indices)
    yield from expect("stamps", row["stamps"], None if times is None else [f"{t:.2f}" for t in times])


def _check_skim(row: ConformanceRow) -> Mismatches:
    rules = replace(
        VIDEO_ZOOMER_CODE.rules,
        skim_fps=row["skim_fps"],
        skim_frames=row["max_frames"] or row["frames"],
        frame_budget=10**7,
    )
    with ReplayEpisode(replace(VIDEO_ZOOMER_CODE, rules=rules), OPEN_TASK, _video(row)) as episode:
        times = episode.state.skim.times_s
    yield from expect("n", row["n"], len(times))
    yield from expect("idx", row["idx"], [round(time_s * row["fps"]) for time_s in times])


def _check_resize(row: ConformanceRow) -> Mismatches:
    size = shrink_truncated(row["width"], row["height"], row["max_pixels"])
    yield from expect("out", row.get("error") or row["out"], list(size))


def _check_format(row: ConformanceRow) -> Mismatches:
    written = rewards.read_outputs(row["turns"], row["max_frames"])
    yield from expect("format", row["format"], int(written.well_formed))
    yield from expect("calls", row["calls"], written.calls)
    yield from expect("call_frames", row["call_frames"], written.frames)


def _check_answer(row: ConformanceRow) -> Mismatches:
    yield from expect("out", row["out"], rewards.choice_right(row["text"], row["truth"]))


def _check_reward(row: ConformanceRow) -> Mismatches:
    given, turns = dict(row["settings"]), row["turns"]
    call_rate, dropping = given.pop("call_rate"), given.pop("drop_unfinished")
    settings = rewards.ZoomSettings(**given)
    dropped = bool(dropping) and final_text(turns[-1]) is None
    yield from expect("dropped", row["dropped"], dropped)
    if dropped:
        return
    right = rewards.choice_right(" ".join(turns), row["truth"])
    written = rewards.read_outputs(turns, settings.max_frames)
    answer, form = settings.answer * right, settings.format * written.well_formed
    yield from expect("answer_part", row["answer_part"], answer)
    yield from expect("format_part", row["format_part"], form)
    score = answer + form + rewards.extra(settings, right > 0, written, call_rate)
    yield from expect("score", row["score"], 0.0 if settings.forced and not written.calls else score)


VIDEO_ZOOMER_CHECKS: Mapping[str, Check] = {
    "videozoomer_turn": _check_turn,
    "videozoomer_frames": _check_frames,
    "videozoomer_skim": _check_skim,
    "videozoomer_resize": _check_resize,
    "videozoomer_format": _check_format,
    "videozoomer_answer": _check_answer,
    "videozoomer_reward": _check_reward,
}
