"""What one more look may show, in frames and in visual tokens, and what becomes of one that asks for more.

Bounds are those of a look, of its turn and of the episode; the least that is left counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from videogym.geometry import Region
from videogym.sizes import clip_tokens, frame_size, native_size, tokens
from videogym.state import Invalid, State, Turn

_FULL_SIDE = 720  # pixels: in EVA a look beyond the limit is first made so small


@dataclass(frozen=True, slots=True)
class LookRequest:
    """So many frames at a scale; what a look asks for, or what is shown of it."""

    count: int
    scale: float | None = None  # None: as large as the rules show frames
    chosen: bool = False  # whether the policy named the rate, the count or the scale


def allowance(state: State, turn: Turn) -> int:
    """Frames that one more look in this turn may show."""
    rules, shown = state.rules, sum(len(clip.times_s) for clip in turn.clips)
    left = [rules.clip_frames]
    if rules.turn_frames is not None:
        left.append(rules.turn_frames - shown)
    if state.frames_left is not None and rules.budget_reached == "refuse":
        left.append(state.frames_left - shown)
    return min(left)


def token_allowance(state: State, turn: Turn) -> int | None:
    """Visual tokens that one more look in this turn may show; None: there is no bound."""
    rules = state.rules
    bounds = rules.look_tokens, rules.turn_tokens, rules.token_budget
    if bounds == (None, None, None):
        return None
    used = sum(clip_tokens(clip, state.video, rules) for clip in turn.clips)
    left = [] if rules.look_tokens is None else [rules.look_tokens]
    if rules.turn_tokens is not None:
        left.append(rules.turn_tokens - used)
    if rules.token_budget is not None:
        left.append(rules.token_budget - used - tokens_shown(state))
    return max(0, min(left))


def tokens_shown(state: State) -> int:
    """Visual tokens of all frames shown so far, the skim's included."""
    return sum(clip_tokens(clip, state.video, state.rules) for clip in state.clips)


def bounded(request: LookRequest, region: Region | None, state: State, turn: Turn) -> LookRequest | Invalid:
    """What is shown of a request: all of it, less as the rules say, or nothing and why.

    What the policy did not name is cut whatever the rules say. The result never exceeds a bound.
    """
    frames, room = allowance(state, turn), token_allowance(state, turn)
    how = state.rules.over_bound if request.chosen else "clamp"
    each = _tokens(state, region, request.scale)
    if request.count <= frames and (room is None or request.count * each <= room):
        return request
    if how == "refuse":
        return _refused(request, each, frames, room)
    if how == "shrink" and room is not None:
        request = _shrunk(request, region, state, room)
        each = _tokens(state, region, request.scale)
    count = min(request.count, frames, frames if room is None else room // each)
    if count < 1:
        return Invalid(
            "budget", f"One such frame is {each} visual tokens, {room} are left: look coarser or answer."
        )
    return LookRequest(count, request.scale, request.chosen)


def note_of(asked: LookRequest, shown: LookRequest) -> str:
    """What a bound took, in a sentence; "" if nothing."""
    fewer = shown.count < asked.count
    coarser = shown.scale is not None and shown.scale < (asked.scale or math.inf)
    if not fewer and not coarser:
        return ""
    frames = f"{shown.count} of {_told(asked.count)} frames" if fewer else f"{shown.count} frames"
    return f"More than can be shown was asked for: {frames}" + (
        f" at scale {shown.scale:.3g}." if coarser else "."
    )


def _tokens(state: State, region: Region | None, scale: float | None) -> int:
    return tokens(frame_size(state.video, state.rules, region, scale), state.rules)


def _refused(request: LookRequest, each: int, frames: int, room: int | None) -> Invalid:
    if request.count > frames:
        reason = f"These are {_told(request.count)} frames, at most {frames} can be shown now."
        return Invalid("too_many_frames", reason)
    reason = f"These are {_told(request.count * each)} visual tokens, at most {room} can be shown now."
    return Invalid("too_many_tokens", reason)


def _told(count: int) -> str:
    """A number in few digits, however large it is."""
    return str(count) if count < 10**9 else f"{count:.3g}"


def _shrunk(request: LookRequest, region: Region | None, state: State, room: int) -> LookRequest:
    """Fewer and smaller frames, so that their visual tokens come near to what is left.

    Source: EVA's evaluation code: each side is first cut to 720 pixels for the smaller one; then count and
    sides are multiplied by the cube root of what is left over what is asked. Differs: where rounding leaves
    a single frame that is too large, its sides are cut once more.
    """
    scale = min(_scale_of(request, region, state), _FULL_SIDE / min(native_size(state.video, region)))
    total, count = request.count * _tokens(state, region, scale), request.count
    if total > room:
        share = (room / total) ** (1 / 3)
        count, scale = max(1, int(count * share)), scale * share
    for _ in range(8):
        if room < 1 or (each := _tokens(state, region, scale)) <= room:
            break
        scale *= math.sqrt(room / each) * 0.99
    return LookRequest(count, max(scale, math.ulp(0.0)), request.chosen)  # a factor of 0 is none


def _scale_of(request: LookRequest, region: Region | None, state: State) -> float:
    """The scale of a request; without one that at which frames are as large as the rules show them."""
    if request.scale is not None:
        return request.scale
    shown, whole = frame_size(state.video, state.rules, region), native_size(state.video, region)
    return min(1.0, math.sqrt(shown[0] * shown[1] / (whole[0] * whole[1])))
