"""From a state to a fixed-shape observation.

An observation holds this turn's frames and references to all frames shown so far: true timestamps,
masks and regions, and pixels only on request. It is made from what the policy may know; the answer
and the evidence are never read here.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from numpy.typing import NDArray

from videogym.geometry import WHOLE_FRAME, Region
from videogym.sizes import clip_size
from videogym.spaces import UnicodeText, is_encodable
from videogym.state import Clip, Rules, State, Task, told_bounds
from videogym.video import UnfitVideo, VideoMeta, fit_within, region_box

Observe = Literal["references", "pixels"]
Observation = dict[str, Any]

MAX_QUESTION_CHARS = 8192
MAX_MESSAGE_CHARS = 1024
MAX_VIDEO_CHARS = 4096
TASK_KINDS = ("choice", "open", "numeric")


def fitted_size(video: VideoMeta, region: Region | None, box: tuple[int, int]) -> tuple[int, int]:
    """``(width, height)`` of a region of a video's frames, scaled to fit a box with its aspect kept."""
    sides = (region or WHOLE_FRAME).as_tuple()
    left, top, right, bottom = region_box(video.width, video.height, sides)
    return fit_within(right - left, bottom - top, box)


def boxed_size(state: State, clip: Clip, box: tuple[int, int]) -> tuple[int, int]:
    """``(width, height)`` of a clip's frames in a box: as large as fits, or smaller where asked for."""
    fitted = fitted_size(state.video, clip.region, box)
    if clip.scale is None:
        return fitted
    asked = clip_size(clip, state.video, state.rules)
    return min(fitted, asked, key=lambda size: size[0] * size[1]) if _fits(asked, box) else fitted


def _fits(size: tuple[int, int], box: tuple[int, int]) -> bool:
    return size[0] <= box[0] and size[1] <= box[1]


def observation_space(rules: Rules, observe: Observe, frame_size: tuple[int, int]) -> Dict:
    """The space of `build_observation`.

    Args:
        rules: gives the largest number of frames.
        observe: ``"pixels"`` adds ``clip``.
        frame_size: ``(width, height)`` of those pixels.
    """
    clip, shown, end = rules.max_clip_frames, rules.max_shown_frames, rules.max_duration_s
    spaces: dict[str, Any] = {
        "question": UnicodeText(MAX_QUESTION_CHARS),
        "options": UnicodeText(MAX_QUESTION_CHARS),
        "task_kind": Discrete(len(TASK_KINDS)),
        "video": UnicodeText(MAX_VIDEO_CHARS),
        "duration_s": Box(0.0, end, (1,), np.float64),
        "message": UnicodeText(MAX_MESSAGE_CHARS),
        "turn": Box(0, rules.max_turns, (1,), np.int64),
        "turns_left": Box(0, rules.max_turns, (1,), np.int64),
        "frames_left": Box(-1, rules.frame_budget or 0, (1,), np.int64),
        "clip_times_s": Box(0.0, end, (clip,), np.float64),
        "clip_regions": Box(0.0, 1.0, (clip, 4), np.float32),
        "clip_mask": Box(0, 1, (clip,), np.int8),
        "shown_times_s": Box(0.0, end, (shown,), np.float64),
        "shown_regions": Box(0.0, 1.0, (shown, 4), np.float32),
        "shown_turns": Box(0, rules.max_turns, (shown,), np.int64),
        "shown_mask": Box(0, 1, (shown,), np.int8),
    }
    if rules.pool_frames:
        spaces["pool_times_s"] = Box(0.0, end, (rules.pool_frames,), np.float64)
        spaces["pool_mask"] = Box(0, 1, (rules.pool_frames,), np.int8)
    if observe == "pixels":
        width, height = frame_size
        spaces["clip"] = Box(0, 255, (clip, height, width, 3), np.uint8)
    return Dict(spaces)


def check_text_lengths(task: Task) -> None:
    """Refuse a task whose texts do not fit the observation space.

    Raises:
        ValueError: question or options are too long or hold a surrogate; names the field and the limit.
        UnfitVideo: the same of the video's name.
    """
    texts = {
        "question": (task.question, MAX_QUESTION_CHARS),
        "options": ("\n".join(task.labelled_options), MAX_QUESTION_CHARS),
        "video": (task.video, MAX_VIDEO_CHARS),
    }
    for name, (text, limit) in texts.items():
        if len(text) > limit:
            problem = f"{name} has {len(text)} characters, at most {limit} fit"
        elif not is_encodable(text):
            problem = f"{name} holds a lone surrogate, which is no character: {text!r}"
        else:
            continue
        if name == "video":  # a run that passes over bad videos passes over it
            raise UnfitVideo(problem)
        raise ValueError(f"task {task.task_id!r}: {problem}")


def newest_clips(state: State) -> tuple[Clip, ...]:
    """What this observation brings: the skim at the start, then the clips of the last turn."""
    if not state.turns:
        return (state.skim,)
    return state.turns[-1].clips


def build_observation(state: State, pixels: NDArray[np.uint8] | None = None) -> Observation:
    """The observation of a state.

    Args:
        state: what happened so far.
        pixels: (max_clip_frames, H, W, 3) uint8 frames of `newest_clips`, in order, padded with black;
            None to observe references only.
    """
    task, rules = state.task, state.rules
    left = state.frames_left
    observation: Observation = {
        "question": task.question,
        "options": "\n".join(task.labelled_options),
        "task_kind": np.int64(TASK_KINDS.index(task.kind)),
        "video": task.video,
        "duration_s": np.array([state.video.duration_s]),
        "message": _message(state),
        "turn": np.array([len(state.turns)]),
        "turns_left": np.array([state.turns_left]),
        "frames_left": np.array([-1 if left is None else left]),
        **_references("clip", newest_clips(state), rules.max_clip_frames),
    }
    shown = [(turn, clip) for turn, clips in enumerate(_clips_by_turn(state)) for clip in clips]
    observation |= _references("shown", tuple(clip for _, clip in shown), rules.max_shown_frames)
    turns = [turn for turn, clip in shown for _ in clip.times_s]
    observation["shown_turns"] = _padded(turns, rules.max_shown_frames, np.int64)
    if rules.pool_frames:
        observation["pool_times_s"] = _padded(state.pool_s, rules.pool_frames, np.float64)
        observation["pool_mask"] = _padded([1] * len(state.pool_s), rules.pool_frames, np.int8)
    if pixels is not None:
        observation["clip"] = pixels
    return observation


def _clips_by_turn(state: State) -> list[tuple[Clip, ...]]:
    return [(state.skim,), *(turn.clips for turn in state.turns)]


def _message(state: State) -> str:
    """What was said of the last turn's looks, and why it failed or what a bound took, if that is told."""
    turn = state.turns[-1] if state.turns else None
    if turn is None:
        return ""
    reason = turn.error.reason if turn.error else told_bounds(state.rules, turn)
    reason = "\n".join((*turn.replies, reason) if reason else turn.replies)
    return reason[:MAX_MESSAGE_CHARS].encode("utf-8", "replace").decode("utf-8")


def _references(name: str, clips: tuple[Clip, ...], size: int) -> Observation:
    times_s, mask = np.zeros(size, np.float64), np.zeros(size, np.int8)
    regions = np.zeros((size, 4), np.float32)
    end = 0
    for clip in clips:
        start, end = end, end + len(clip.times_s)
        times_s[start:end] = clip.times_s
        regions[start:end] = (clip.region or WHOLE_FRAME).as_tuple()
    mask[:end] = 1
    return {f"{name}_times_s": times_s, f"{name}_regions": regions, f"{name}_mask": mask}


def _padded(values: Any, size: int, dtype: Any) -> NDArray[Any]:
    array = np.zeros(size, dtype)
    array[: len(values)] = values
    return array
