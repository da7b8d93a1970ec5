"""A state as a picture or as text: the timeline, what was looked at, the newest frames, the last action.

Knows states and a frame store; it decides nothing and is never part of an observation. The ground
truth is drawn only on request.
"""

from __future__ import annotations

import textwrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videogym.geometry import Segment
from videogym.observations import fitted_size
from videogym.rewards import turn_segments
from videogym.state import Clip, Invalid, Result, State, Turn
from videogym.video import FrameStore, VideoError, letterbox
from videogym.video.times import ordinals_at

WIDTH, HEIGHT = 960, 360
_MARGIN = 16
_BAR_TOP, _BAR_HEIGHT = 152, 24
_EVIDENCE_HEIGHT = 6  # of the strip at the foot of the bar
_LANES_TOP, _LANE_HEIGHT, _MAX_LANES = 181, 11, 6
_THUMB = (112, 63)  # width and height of a thumbnail, pixels
_THUMBS = 8
_THUMB_TOP = 272
_COLUMNS = 64  # of a text timeline
_EVIDENCE_FPS, _EVIDENCE_FRAMES = 2.0, 16  # at which evidence is shown to a person, and at most

_PAPER, _INK, _FAINT, _BAR = "#ffffff", "#1d2433", "#8a93a3", "#e8ebf0"
_EVIDENCE, _SKIM = "#2e9e5b", "#5b6577"
_TURNS = ("#d1495b", "#2f6fb7", "#c77d0a", "#7a4fb0", "#0f8b8d", "#9a5b34")


def render_rgb(state: State, store: FrameStore, *, evidence: bool = False) -> NDArray[np.uint8]:
    """A picture of a state.

    Args:
        state: any state of an episode.
        store: where the newest frames come from; frames that cannot be decoded are said to be missing.
        evidence: also mark the ground truth on the timeline.

    Returns:
        (360, 960, 3) uint8 RGB, the same size for every state.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    draw = ImageDraw.Draw(image)
    _draw_head(draw, state)
    _draw_timeline(draw, state, evidence)
    _draw_looks(draw, state)
    _draw_thumbnails(image, draw, state, store)
    return np.asarray(image, dtype=np.uint8).copy()


def _draw_head(draw: ImageDraw.ImageDraw, state: State) -> None:
    _text(draw, (_MARGIN, 10), f"{state.task.task_id}  ·  {state.recipe_id.split('@')[0]}", 12, _FAINT)
    _text(draw, (WIDTH - _MARGIN, 10), _progress(state), 12, _FAINT, anchor="ra")
    top = 32
    options = "      ".join(_printable(option) for option in state.task.labelled_options)
    for text, size, colour in ((state.task.question, 15, _INK), (options, 13, _SKIM)):
        for line in _wrapped(text, size, 2):
            _text(draw, (_MARGIN, top), line, size, colour)
            top += size + 6
    last = _turn_line(state, len(state.turns)) if state.turns else "the skim is shown"
    colour = _turn_colour(len(state.turns)) if state.turns else _SKIM
    _text(draw, (_MARGIN, 113), _wrapped(last, 14, 1)[0], 14, colour)


def _draw_timeline(draw: ImageDraw.ImageDraw, state: State, evidence: bool) -> None:
    top, bottom = _BAR_TOP, _BAR_TOP + _BAR_HEIGHT
    draw.rectangle((_MARGIN, top, WIDTH - _MARGIN, bottom), fill=_BAR)
    if evidence:
        for segment in state.task.evidence or ():
            strip = _span(state, segment, bottom - _EVIDENCE_HEIGHT)
            draw.rectangle((*strip, bottom), fill=_EVIDENCE)
    for turn, clips in enumerate([(state.skim,), *(turn.clips for turn in state.turns)]):
        for time_s in (t for clip in clips for t in clip.times_s):
            x = _x(state, time_s)
            draw.line((x, top, x, bottom - _EVIDENCE_HEIGHT - 2), fill=_turn_colour(turn))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        anchor = {0.0: "ls", 1.0: "rs"}.get(share, "ms")
        time_s = share * state.video.duration_s
        _text(draw, (_x(state, time_s), top - 4), _clock(time_s), 11, _FAINT, anchor=anchor)


def _draw_looks(draw: ImageDraw.ImageDraw, state: State) -> None:
    """One numbered lane a turn below the bar; long episodes show their last lanes."""
    turns = list(enumerate(state.turns, start=1))[-_MAX_LANES:]
    for lane, (number, turn) in enumerate(turns):
        top = _LANES_TOP + lane * (_LANE_HEIGHT + 3)
        for segment in turn_segments(state, turn):
            left, _, right = _span(state, segment, top)
            colour = _turn_colour(number)
            draw.rounded_rectangle((left, top, right, top + _LANE_HEIGHT), 3, fill=colour)
            beside = (right + 4, top - 1) if right < WIDTH - 2 * _MARGIN else (left - 10, top - 1)
            _text(draw, beside, str(number), 11, colour)


def _draw_thumbnails(
    image: Image.Image, draw: ImageDraw.ImageDraw, state: State, store: FrameStore
) -> None:
    turn, clip = _newest_clip(state)
    chosen = np.linspace(0, len(clip.times_s) - 1, min(_THUMBS, len(clip.times_s))).astype(int)
    times = tuple(clip.times_s[i] for i in chosen)
    try:
        frames = _thumbnails(state, store, Clip(times, clip.region))
    except VideoError as error:
        _text(draw, (_MARGIN, _THUMB_TOP), _wrapped(f"no frames: {error}", 13, 1)[0], 13, _FAINT)
        return
    step = (WIDTH - 2 * _MARGIN - _THUMB[0]) / (_THUMBS - 1)
    for i, (frame, time_s) in enumerate(zip(frames, times, strict=True)):
        left = round(_MARGIN + i * step)
        image.paste(Image.fromarray(frame), (left, _THUMB_TOP))
        draw.rectangle(
            (left, _THUMB_TOP - 3, left + _THUMB[0] - 1, _THUMB_TOP - 1), fill=_turn_colour(turn)
        )
        label = _clock(time_s, tenths=True)
        _text(draw, (left, _THUMB_TOP + _THUMB[1] + 3), label, 11, _FAINT)


def _thumbnails(state: State, store: FrameStore, clip: Clip) -> NDArray[np.uint8]:
    box = clip.region.as_tuple() if clip.region else None
    size = fitted_size(state.video, clip.region, _THUMB)
    return letterbox(store.frames(state.task.video, clip.times_s, size=size, region=box).pixels, _THUMB)


def _newest_clip(state: State) -> tuple[int, Clip]:
    """The last clip shown and its turn; turn 0 is the skim."""
    for number in range(len(state.turns), 0, -1):
        if state.turns[number - 1].clips:
            return number, state.turns[number - 1].clips[-1]
    return 0, state.skim


def _x(state: State, time_s: float) -> int:
    return round(_MARGIN + (WIDTH - 2 * _MARGIN) * time_s / state.video.duration_s)


def _span(state: State, segment: Segment, top: int) -> tuple[int, int, int]:
    """Left, top and right of a segment on the timeline, at least 3 pixels wide."""
    left = min(_x(state, segment.start_s), WIDTH - _MARGIN - 3)
    return left, top, max(_x(state, segment.end_s), left + 3)


def _turn_colour(turn: int) -> str:
    return _SKIM if turn == 0 else _TURNS[(turn - 1) % len(_TURNS)]


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: str, anchor: str = "la"
) -> None:
    draw.text(at, _printable(text), fill=colour, font=ImageFont.load_default(size), anchor=anchor)


def _wrapped(text: str, size: int, lines: int) -> list[str]:
    """At most so many lines that fit the width; at least one, the last cut with an ellipsis."""
    # Half the size is the width of an average letter of the default font.
    columns = round((WIDTH - 2 * _MARGIN) / (size * 0.48))
    return textwrap.wrap(_printable(text), columns, max_lines=lines, placeholder=" …") or [""]


def evidence_times(pts_s: NDArray[np.float64], segment: Segment) -> tuple[float, ...]:
    """Times of the frames that show a person some evidence: two a second, 1 to 16, evenly spread.

    Args:
        pts_s: (num_frames,) presentation times of the video.
        segment: of it.
    """
    count = int(np.clip(round(segment.length_s * _EVIDENCE_FPS), 1, _EVIDENCE_FRAMES))
    middles = segment.start_s + segment.length_s * (np.arange(count) + 0.5) / count
    return tuple(np.unique(pts_s[ordinals_at(pts_s, middles)]).tolist())


# --- text --------------------------------------------------------------------------------------


def render_ansi(state: State) -> str:
    """A few lines of plain text: the question, one timeline a turn, what each turn came to.

    On a timeline ``.`` is a frame shown and ``=`` a segment looked at. Characters that a terminal
    could take for commands appear as spaces.
    """
    head = f"{state.task.task_id}  {state.recipe_id.split('@')[0]}  {_progress(state)}"
    lines = [_printable(head), _printable(state.task.question)]
    lines += [f"  {_printable(option)}" for option in state.task.labelled_options]
    lines.append(f"skim    |{_marks(state, (state.skim,), ())}| {_clock(state.video.duration_s)}")
    for number, turn in enumerate(state.turns, start=1):
        marks = _marks(state, turn.clips, turn_segments(state, turn))
        lines.append(f"turn {number:<2} |{marks}| {_turn_words(turn)}")
    return "\n".join(lines) + "\n"


def _marks(state: State, clips: tuple[Clip, ...], looks: tuple[Segment, ...]) -> str:
    def column(time_s: float) -> int:
        return min(int(_COLUMNS * time_s / state.video.duration_s), _COLUMNS - 1)

    row = [" "] * _COLUMNS
    for look in looks:
        for i in range(column(look.start_s), column(look.end_s) + 1):
            row[i] = "="
    for time_s in (t for clip in clips for t in clip.times_s):
        row[column(time_s)] = "."
    return "".join(row)


def _progress(state: State) -> str:
    budget = state.rules.frame_budget
    frames = f"{state.frames_shown} frames" if budget is None else f"{state.frames_shown}/{budget} frames"
    ending = f"  ·  {state.ending}" if state.terminated else ""
    return f"turn {len(state.turns)}/{state.rules.max_turns}  ·  {frames}{ending}"


def _turn_line(state: State, number: int) -> str:
    return f"turn {number}: {_turn_words(state.turns[number - 1])}"


def _turn_words(turn: Turn) -> str:
    return "; ".join(_printable(_result_words(result)) for result in turn.results)


def _result_words(result: Result) -> str:
    action, clip = result.action, result.clip
    words = "not an action" if isinstance(action, Invalid) else f"{action.kind} {action.label()}".rstrip()
    if clip is not None:
        words += f", {len(clip.times_s)} frames"
    return words if result.error is None else f"{words} ({result.error.code}: {result.error.reason})"


def _clock(time_s: float, *, tenths: bool = False) -> str:
    """``m:ss`` or ``h:mm:ss``, cut, not rounded."""
    whole = int(time_s)
    hours, minutes, seconds = whole // 3600, whole // 60 % 60, whole % 60
    text = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{text}.{int(time_s * 10) % 10}" if tenths else text


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
