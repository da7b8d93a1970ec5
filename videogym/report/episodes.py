"""An episode as the page shows it: words, colours by number, places in per cent.

Turns traces into plain records for the template, which alone knows markup. Texts stay as they are.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from videogym.answers import option_named
from videogym.evaluate import hits, union_iou
from videogym.geometry import Region, Segment, segment_iou
from videogym.report.thumbnails import Strip, Thumbnails
from videogym.report.timeline import Tick, axis, clock, seconds, span, tick_path
from videogym.state import Result
from videogym.traces import Trace, TurnTrace

Verdict = Literal["right", "wrong", "unjudged", "silent", "cut"]
TONES = 6  # colours of turns; later turns begin again
_TOLD_CHARS = 300  # of what was said of a look in place of its frames
_DIRECTIONS: dict[int, Literal["up", "still", "down"]] = {1: "up", 0: "still", -1: "down"}

_Box = tuple[float, float, float, float]  # left, top, width and height, per cent of the frame


@dataclass(frozen=True, slots=True)
class Block:
    """A segment on the timeline."""

    left: float  # per cent
    width: float
    title: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class ClipView:
    """What the skim or one look brought."""

    strip: Strip
    frames: int  # of the whole clip
    region: _Box | None


@dataclass(frozen=True, slots=True)
class ActionView:
    """One action of a turn."""

    kind: str  # "select", "crop", "answer" or "invalid"
    words: str
    code: str  # of the error, or ""
    reason: str


@dataclass(frozen=True, slots=True)
class Payment:
    """What one turn paid: a row of the reward table and a bar of the waterfall."""

    cells: tuple[str, ...]  # by term; "" where absent
    reward: str
    total: str  # up to here
    left: float  # of the bar, per cent
    width: float
    direction: Literal["up", "still", "down"]


@dataclass(frozen=True, slots=True)
class Rewards:
    """The reward table of an episode."""

    terms: tuple[str, ...]
    rows: tuple[Payment, ...]
    sums: tuple[str, ...]  # by term; "" where it was always absent
    zero: float  # where the waterfall has its 0, per cent


@dataclass(frozen=True, slots=True)
class TurnView:
    """One turn."""

    number: int
    tone: int  # 1 to TONES
    label: str  # beside its lane
    text: str | None
    actions: tuple[ActionView, ...]
    fault: str
    blocks: tuple[Block, ...]
    ticks: str  # SVG path of the frames shown
    clips: tuple[ClipView, ...]
    payment: Payment


@dataclass(frozen=True, slots=True)
class OptionView:
    """One option of a choice."""

    letter: str
    text: str
    right: bool
    given: bool


@dataclass(frozen=True, slots=True)
class EpisodeView:
    """One episode."""

    number: int  # in the order in which episodes were stored, from 1
    trace: Trace
    run: str  # name of its run on the page
    verdict: Verdict
    options: tuple[OptionView, ...]
    truth: str  # the right answer in words
    ending: str  # in a word
    why: str  # it ended, in full
    duration: str
    axis: tuple[Tick, ...]
    evidence: tuple[Block, ...]
    evidence_region: _Box | None
    skim: ClipView
    skim_ticks: str
    turns: tuple[TurnView, ...]
    rewards: Rewards
    refused_turns: int  # that executed nothing, by no fault of the video
    faults: int
    tiou: float | None  # union of looks with union of evidence; None without evidence
    hit: bool | None  # whether all evidence was shown; None without evidence


def episode_view(number: int, trace: Trace, run: str, thumbnails: Thumbnails, count: int) -> EpisodeView:
    """The view of an episode.

    Args:
        number: of the episode.
        trace: the episode.
        run: name of its run on the page.
        thumbnails: makes the pictures.
        count: most pictures of the episode.
    """
    duration_s, evidence = trace.video.duration_s, trace.task.evidence
    rewards = _rewards(trace.turns)
    clips = _clip_views(trace, thumbnails, count)
    return EpisodeView(
        number=number,
        trace=trace,
        run=run,
        verdict=verdict(trace),
        options=_options(trace),
        truth=_truth(trace),
        ending=trace.ending.replace("_", " ") or trace.cut.partition(":")[0] or "cut",
        why=trace.ending.replace("_", " ") or trace.cut or "cut",
        duration=clock(duration_s),
        axis=axis(duration_s),
        evidence=tuple(
            Block(*_span(s, duration_s), f"evidence: {_range(s.start_s, s.end_s)}") for s in evidence or ()
        ),
        evidence_region=_box(trace.task.evidence_region),
        skim=next(clips),
        skim_ticks=tick_path(trace.skim.times_s, duration_s),
        turns=tuple(
            _turn_view(trace, number, paid, payment, clips)
            for number, (paid, payment) in enumerate(zip(trace.turns, rewards.rows, strict=True), start=1)
        ),
        rewards=rewards,
        refused_turns=sum(not paid.turn.valid and not paid.turn.fault for paid in trace.turns),
        faults=sum(bool(paid.turn.fault) for paid in trace.turns) or int(trace.cut.startswith("fault")),
        tiou=union_iou(trace.looks, evidence) if evidence else None,
        hit=hits(trace.task, trace.clips),
    )


def verdict(trace: Trace) -> Verdict:
    """What the episode came to."""
    if trace.answer is None:
        return "cut" if trace.cut else "silent"
    if trace.correct is None:
        return "unjudged"
    return "right" if trace.correct else "wrong"


# --- answers -----------------------------------------------------------------------------------


def _options(trace: Trace) -> tuple[OptionView, ...]:
    task, answer = trace.task, trace.answer
    given = None if answer is None else option_named(task, answer)
    return tuple(
        # However the answer was written: by letter, in full, or both.
        OptionView(
            letter,
            text,
            letter == task.answer,
            letter == given,
        )
        for letter, text in zip(task.letters, task.options, strict=True)
    )


def _truth(trace: Trace) -> str:
    task = trace.task
    if task.kind != "choice":
        return task.answer
    return task.labelled_options[task.letters.index(task.answer)]


# --- turns -------------------------------------------------------------------------------------


def _clip_views(trace: Trace, thumbnails: Thumbnails, count: int) -> Iterator[ClipView]:
    """Views of the skim and of every look, in order; a third of the pictures is the skim's."""
    looks = len(trace.clips) - 1
    skim = -(-count // 3) if looks else count
    least, more = divmod(count - skim, looks) if looks else (0, 0)
    shares = [skim, *(least + (i < more) for i in range(looks))]
    for clip, share in zip(trace.clips, shares, strict=True):
        strip = thumbnails.strip(trace.task, trace.video, clip, share)
        yield ClipView(strip, len(clip.times_s), _box(clip.region))


def _box(region: Region | None) -> _Box | None:
    if region is None:
        return None
    x0, y0, x1, y1 = (100 * side for side in region.as_tuple())
    return round(x0, 1), round(y0, 1), round(x1 - x0, 1), round(y1 - y0, 1)


def _turn_view(
    trace: Trace, number: int, paid: TurnTrace, payment: Payment, clips: Iterator[ClipView]
) -> TurnView:
    turn, duration_s = paid.turn, trace.video.duration_s
    actions = tuple(_action_view(result) for result in turn.results)
    kinds = list(dict.fromkeys(action.kind for action in actions))
    times = [time_s for clip in turn.clips for time_s in clip.times_s]
    return TurnView(
        number=number,
        tone=1 + (number - 1) % TONES,
        label=" + ".join(kinds) if turn.valid else "fault" if turn.fault else "refused",
        text=turn.text,
        actions=actions,
        fault=turn.fault,
        blocks=tuple(_blocks(trace, number, turn.results)),
        ticks=tick_path(times, duration_s),
        clips=tuple(next(clips) for _ in turn.clips),
        payment=payment,
    )


def _action_view(result: Result) -> ActionView:
    code, reason = (result.error.code, result.error.reason) if result.error else ("", "")
    frames = f", {len(result.clip.times_s)} frames" if result.clip else ""
    if result.reply is not None:
        frames += f", told “{textwrap.shorten(result.reply, _TOLD_CHARS, placeholder='…')}”"
    action = result.action  # what an unreadable one was meant to be is in the text and in the reason
    return ActionView(action.kind, action.label() + frames, code, reason)


def _blocks(trace: Trace, number: int, results: Sequence[Result]) -> Iterator[Block]:
    """Segments that a turn looked at, or asked for and did not get, as far as they lie in the video."""
    duration_s = trace.video.duration_s
    for result in results:
        action = result.action
        asked = action.segment(duration_s)
        if asked is None:
            continue
        title = f"turn {number}: {action.kind} {action.label()}"
        if result.error is not None:
            title += f"; refused ({result.error.code})"
        elif trace.task.evidence:
            best = max(segment_iou(asked, segment) for segment in trace.task.evidence)
            title += f"; IoU with the evidence {best:.2f}"
        yield Block(*_span(asked, duration_s), title, refused=result.error is not None)


def _span(segment: Segment, duration_s: float) -> tuple[float, float]:
    return span(segment.start_s, segment.end_s, duration_s)


def _range(start_s: float, end_s: float) -> str:
    return f"{seconds(start_s).removesuffix(' s')} to {seconds(end_s)}"


# --- rewards -----------------------------------------------------------------------------------


def _rewards(turns: Sequence[TurnTrace]) -> Rewards:
    names = tuple(dict.fromkeys(name for paid in turns for name in paid.terms))
    totals = [0.0, *accumulate(paid.reward for paid in turns)]
    drawable = all(map(math.isfinite, totals))
    low, high = (min(totals), max(totals)) if drawable else (0.0, 0.0)
    scale = 100 / (high - low) if high > low else 0.0
    rows = []
    for paid, before, after in zip(turns, totals, totals[1:], strict=False):
        left, right = (
            round((value - low) * scale, 2) if drawable else 0.0 for value in sorted((before, after))
        )
        cells = tuple(signed(paid.terms.get(name)) for name in names)
        width = round(right - left, 2)
        direction = _DIRECTIONS[(paid.reward > 0) - (paid.reward < 0)]
        rows.append(Payment(cells, signed(paid.reward), signed(after), left, width, direction))
    return Rewards(names, tuple(rows), tuple(_sum(turns, name) for name in names), round(-low * scale, 2))


def _sum(turns: Sequence[TurnTrace], name: str) -> str:
    present = [value for value in (paid.terms.get(name) for paid in turns) if value is not None]
    return signed(sum(present)) if present else ""


def signed(value: float | None) -> str:
    """A payment with its sign; "" for one that is absent, which is not 0.

    >>> signed(0.25), signed(-1.0), signed(-1e-17), signed(2e-5), signed(None)
    ('+0.250', '−1.000', '0', '+2e-05', '')
    """
    if value is None:
        return ""
    if abs(value) < 1e-9:  # what is left of sums that should be 0
        return "0"
    if not math.isfinite(value):
        return f"{value:g}"
    text = f"{value:+.3f}" if abs(value) >= 0.0005 else f"{value:+.0e}"
    return text.replace("-", "−", 1) if value < 0 else text
