"""Scripted demonstrators for a supervised cold start: thoughts, looks and answers as text.

A demonstrator reads the evidence from the state, as the oracle does, and speaks a grammar. It says what
it looks for, goes there, says whether it was there and answers once it has seen it. At configured rates it
first looks in a wrong place or writes a call that is refused, and mends that in the next turn; such
mistakes are context, not to be imitated. Tokens, models and losses are not known here.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from videogym import Answer, Segment, State
from videogym.actions import Look
from videogym.grammars import Grammar
from videogym.grammars.longvt import LongVT, video_name
from videogym.grammars.longvt_calls import CROP_VIDEO
from videogym.grammars.tool_calls import write_call
from videogym.grammars.video_mtr import RETRIEVE, VideoMTR
from videogym.state import Clip

Span = tuple[float, float]  # first unit and the one after the last; whole numbers but for narrow crops


class ScriptedTurn(NamedTuple):
    """One output of a demonstrator."""

    text: str
    trainable: bool  # False: context only; a deliberate mistake, or an answer that was not seen


ScriptedPolicy = Callable[[State], ScriptedTurn]  # speaks for a policy


class Demonstrator:
    """Speaks a grammar as a careful policy would, for tasks whose evidence is annotated.

    Looks are windows of whole units around the evidence. A unit is ``1 / crop_fps`` seconds where the
    rules crop, one pool frame where they select. Draws depend on the seed and on the order of calls;
    everything else on the state alone, so that one demonstrator may speak for many episodes at once.

    Args:
        grammar: one of LongVT's or Video-MTR's.
        seed: of windows in wrong places, kinds of mistakes and wording.
        wrong_looks: share of turns spent on a wrong place, where turns, calls and frames suffice to mend it
            and no mistake went before.
        refused_calls: share of turns spent on a call that is refused, under the same condition.
        look: least units of a look; 0: as many as one clip has frames.
        look_again: whether what the skim shows is looked at all the same, as LongVT's conversations do.
        step: bounds of looks are multiples of so many units; coarse ones are easier to learn.
        wording: ``"varied"`` draws thoughts from several forms; ``"plain"`` always takes the first.

    Raises:
        ValueError: the grammar is of another family, or a number is out of range.
    """

    def __init__(
        self,
        grammar: Grammar,
        seed: int,
        *,
        wrong_looks: float = 0.15,
        refused_calls: float = 0.1,
        look: int = 0,
        look_again: bool = False,
        step: int = 1,
        wording: str = "varied",
    ) -> None:
        if not isinstance(grammar, LongVT | VideoMTR):
            raise ValueError(f"demonstrators speak longvt/* and video_mtr/*, got {grammar.name!r}")
        if min(wrong_looks, refused_calls) < 0 or wrong_looks + refused_calls > 1:
            raise ValueError(
                f"wrong_looks and refused_calls must be shares, got {wrong_looks} and {refused_calls}"
            )
        if look < 0 or step < 1:
            raise ValueError(f"look must be at least 0 and step at least 1, got {look} and {step}")
        if wording not in ("varied", "plain"):
            raise ValueError(f"wording must be 'varied' or 'plain', got {wording!r}")
        self._grammar, self._look, self._step, self._wording = grammar, look, step, wording
        self._wrong_looks, self._refused_calls = wrong_looks, refused_calls
        self._look_again = look_again
        self._rng = np.random.default_rng(seed)

    def __call__(self, state: State) -> ScriptedTurn:
        """The next output.

        Raises:
            ValueError: the task has no evidence, or the episode has ended.
        """
        if not state.task.evidence:
            raise ValueError(f"task {state.task.task_id!r} has no evidence to look at")
        if state.terminated:
            raise ValueError(f"the episode of task {state.task.task_id!r} has ended with {state.ending!r}")
        clips = [clip for turn in state.turns for clip in turn.clips] if self._look_again else state.clips
        unseen = [segment for segment in state.task.evidence if not _is_shown(clips, segment)]
        if not unseen or not _may_look(state, 1):
            return self._answer(state, seen=not unseen)
        mistake = self._mistake(state, len(unseen))
        if mistake == "refused":
            return ScriptedTurn(self._refused_call(state, unseen[0]), trainable=False)
        wrong = self._wrong_window(state) if mistake == "wrong" else None
        if wrong is not None:
            return ScriptedTurn(
                self._call(self._thought_before(state, wrong), wrong, state), trainable=False
            )
        window = self._window(state, unseen[0])
        return ScriptedTurn(self._call(self._thought_before(state, window), window, state), trainable=True)

    # --- what to do --------------------------------------------------------------------------

    def _mistake(self, state: State, looks: int) -> str:
        """``"wrong"``, ``"refused"`` or "" for none; drawn always, so that draws keep in step."""
        draw = float(self._rng.random())
        erred = bool(state.turns) and (state.turns[-1].error is not None or not _hit(state))
        if erred or not _may_look(state, looks + 1):
            return ""
        if draw < self._wrong_looks:
            return "wrong"
        return "refused" if draw < self._wrong_looks + self._refused_calls else ""

    def _window(self, state: State, segment: Segment) -> Span:
        """A look at a segment.

        Where a look went there and showed nothing of it, its frames lay too far apart: then the window
        is as narrow as the segment.
        """
        units, first, end = _units(state), *_unit_span(state, segment)
        if any(start < end and first < stop for start, stop in _looks(state)):
            return _narrow_window(state, segment)
        step, length = self._step, _least_length(state, self._look, self._step)
        start = round(((first + end - length) / 2) / step) * step
        start = max(0, min(start, (units - length) // step * step))
        start, stop = min(start, first // step * step), max(start + length, math.ceil(end / step) * step)
        return start, min(stop, units)

    def _wrong_window(self, state: State) -> Span | None:
        """A window without evidence that was not looked at; None where there is none."""
        length = _least_length(state, self._look, self._step)
        evidence = [_unit_span(state, segment) for segment in state.task.evidence or ()]
        taken = [*evidence, *_looks(state)]
        starts = [
            start
            for start in range(0, _units(state) - length + 1, self._step)
            if all(stop <= start or start + length <= first for first, stop in taken)
        ]
        if not starts:
            return None
        start = starts[int(self._rng.integers(len(starts)))]
        return start, start + length

    def _answer(self, state: State, *, seen: bool) -> ScriptedTurn:
        task = state.task
        # The letter beside the text: what was seen comes first, its letter follows from the options.
        text = task.answer
        if task.kind == "choice":
            text = f"{task.options[task.letters.index(task.answer)]} ({task.answer})"
        if not seen:
            thought = self._one_of("I have not seen it and cannot look again. I guess.")
            return ScriptedTurn(self._grammar.write(Answer(task.answer), state, thought), trainable=False)
        cue = _cue(state)
        thought = self._one_of(
            f"I see {cue}: {text}.",
            f"Here is {cue}: {text}.",
            f"The frames show {cue}: {text}.",
            f"Now I can tell {cue}: {text}.",
        )
        return ScriptedTurn(self._grammar.write(Answer(task.answer), state, thought), trainable=True)

    # --- words -------------------------------------------------------------------------------

    def _one_of(self, *forms: str) -> str:
        draw = int(self._rng.integers(len(forms)))
        return forms[draw if self._wording == "varied" else 0]

    def _thought_before(self, state: State, window: Span) -> str:
        """What went wrong last, what is looked for, and where."""
        place, cue = self._place(state, window), _cue(state)
        # The part of the video first: a coarse decision is easier to learn than a time.
        part = _part(state, window)
        look = self._one_of(
            f"I look for {cue}, {part}, at {place}.",
            f"I need {cue}, {part}: look at {place}.",
            f"To see {cue}, {part}, I look at {place}.",
            f"The skim is too coarse for {cue}, {part}. Closer, at {place}.",
        )
        return f"{self._thought_after(state)}{look}"

    def _thought_after(self, state: State) -> str:
        """What the last turn brought, "" in the first."""
        if not state.turns:
            return ""
        if state.turns[-1].error is not None:
            return self._one_of("My call was refused. ", "That call was wrong, once more. ")
        last = self._place(state, _looks(state)[-1])
        if _hit(state):
            return self._one_of(f"I saw one at {last}. ", f"One part is at {last}. ")
        return self._one_of(
            f"It is not at {last}. ",
            f"Nothing of it at {last}. ",
            f"No, {last} does not show it. ",
        )

    def _place(self, state: State, window: Span) -> str:
        if _selects(state):
            return f"frames {window[0]} to {window[1] - 1}"
        return f"{_number(window[0], state)} to {_number(window[1], state)} s"

    def _call(self, thought: str, window: Span, state: State) -> str:
        if _selects(state):
            return f"<think>{thought}</think><{RETRIEVE}>{window[0]},{window[1] - 1}</{RETRIEVE}>"
        return f"<think>{thought}</think>{self._crop(window, state)}"

    def _crop(self, window: Span, state: State) -> str:
        times = {"start_time": _seconds(window[0], state), "end_time": _seconds(window[1], state)}
        leaves_out = isinstance(self._grammar, LongVT) and self._grammar.path_is_optional
        path = {} if leaves_out else {"video_path": video_name(state.task)}
        return write_call(CROP_VIDEO, {**path, **times})

    def _refused_call(self, state: State, segment: Segment) -> str:
        """A look at the right place that is refused with a reason, and never the end of the episode."""
        window = self._window(state, segment)
        thought = self._thought_before(state, window)
        start, end, past = window[0], window[1], _units(state) + self._step
        faults = [self._call(thought, (end, start + 1 if _selects(state) else start), state)]
        if _selects(state) or state.rules.crop_past_end == "refuse":
            faults.append(self._call(thought, (start, past + 1), state))
        if state.rules.malformed == "feedback":
            whole = self._call(thought, window, state)
            broken = [whole.replace("</think>", ""), whole[: whole.rindex("</")]]
            # The profiles of published code read some of what is broken.
            faults += [text for text in broken if not self._grammar.parse(text, state).well_formed]
        return faults[int(self._rng.integers(len(faults)))]


# --- units: pool frames or ticks of crop_fps ---------------------------------------------------


def _selects(state: State) -> bool:
    return "select" in state.rules.actions


def _units(state: State) -> int:
    """Whole units in the video."""
    return len(state.pool_s) if _selects(state) else int(state.video.duration_s * state.rules.crop_fps)


def _unit_span(state: State, segment: Segment) -> tuple[int, int]:
    """First unit that a segment touches and the one after the last, at least one apart."""
    if not _selects(state):
        fps = state.rules.crop_fps
        first = min(math.floor(segment.start_s * fps), _units(state) - 1)
        return first, min(max(math.ceil(segment.end_s * fps), first + 1), _units(state))
    first, end = (bisect_left(state.pool_s, time_s) for time_s in (segment.start_s, segment.end_s))
    # Between two pool frames: the one before is the nearest there is.
    return (first, end) if first < end else (max(0, first - 1), max(1, end))


def _narrow_window(state: State, segment: Segment) -> Span:
    """The least look that shows a segment where any does."""
    if _selects(state):
        return _unit_span(state, segment)
    fps, least_s = state.rules.crop_fps, 3.0 / state.video.avg_fps  # a crop needs two frames
    start_s = min(segment.start_s, state.video.duration_s - least_s)
    return start_s * fps, max(segment.end_s, start_s + least_s) * fps


def _looks(state: State) -> list[Span]:
    """Executed looks as unit spans, in order."""
    spans: list[Span] = []
    for turn in state.turns:
        for result in turn.results:
            if result.clip is not None and isinstance(result.action, Look):
                spans.append(_unit_span(state, Segment(result.action.start_s, result.action.end_s)))
    return spans


def _least_length(state: State, look: int, step: int) -> int:
    """Units of a look, a multiple of the step, at most the video."""
    length = math.ceil((look or state.rules.clip_frames) / step) * step
    return max(1, min(length, _units(state)))


def _part(state: State, window: Span) -> str:
    """Which quarter of the video the middle of a window lies in, in words."""
    quarter = int(2 * (window[0] + window[1]) / _units(state))
    return ("near the start", "before the middle", "after the middle", "near the end")[min(quarter, 3)]


def _seconds(unit: float, state: State) -> int | float:
    seconds = unit / state.rules.crop_fps
    return int(seconds) if seconds == int(seconds) else seconds


def _number(unit: float, state: State) -> str:
    return f"{unit / state.rules.crop_fps:g}"


# --- the course of the episode -----------------------------------------------------------------


def _is_shown(clips: Iterable[Clip], segment: Segment) -> bool:
    return any(segment.contains(time_s) for clip in clips for time_s in clip.times_s)


def _hit(state: State) -> bool:
    """Whether the last turn showed some evidence."""
    evidence: Sequence[Segment] = state.task.evidence or ()
    return any(s.contains(t) for s in evidence for clip in state.turns[-1].clips for t in clip.times_s)


def _may_look(state: State, looks: int) -> bool:
    """Whether so many looks fit before a turn that is left for the answer."""
    rules, left = state.rules, state.frames_left
    calls = math.inf if rules.max_calls is None else rules.max_calls - 1 - state.calls_made
    # A look that would show fewer frames than it may is not worth a turn.
    frames = math.inf if left is None else left / rules.clip_frames
    return looks <= min(state.turns_left - 1, calls, frames)


_CUES = (
    re.compile(r"While the (background is [a-z]+)"),
    re.compile(r"(background is [a-z]+), and another one while it is ([a-z]+)"),
)


def _cue(state: State) -> str:
    """What is looked for, in words of the question alone."""
    question = state.task.question
    one, two = (cue.search(question) for cue in _CUES)
    if two is not None:
        return f"the shapes while the {two[1]} or {two[2]}"
    return f"the shape while the {one[1]}" if one is not None else "what the question asks about"
