"""Demonstrations for synthetic videos that put into words what the frames show, before they decide.

A model that starts from random weights does not learn where to look from the look alone: a wrong
window says nothing about what was misread. So this script first names the background of the skim at
regular places, each with its second or pool index, then names the one it looks for once more with the
place where it begins, and looks there; of every look it names the shapes it sees, frame by frame. What
it says follows from what was shown, and where it looks from what it said. Other videos have no such
words for their frames: there `agents.demonstrations` serves.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np

from videogym import Answer, Crop, Select, State
from videogym.grammars import Grammar
from videogym.grammars.longvt_calls import CROP_VIDEO
from videogym.grammars.tool_calls import write_call
from videogym.video.synthetic import Address, Script, write_script

from .demonstrations import Said

GLANCE = 6  # units of a short look
NOTHING = "-"  # a frame of a look without a shape


class SceneDemonstrator:
    """Speaks for ``procedural:brief_event`` tasks, in LongVT's or Video-MTR's grammar.

    A unit is a second where the rules crop, a pool index where they select.

    Args:
        grammar: that is spoken.
        seed: of wrong looks.
        wrong_looks: share of first looks that go to another scene; the next turn says that nothing was
            there and mends it. Such looks are not to be imitated.
        glances: share of episodes that begin with a short look straight at the evidence, which nobody
            could know of and nobody is to imitate: what follows teaches to read a look and to answer.
        every: units between the places of the skim that are named; only those of a skim of seconds. A
            skim of pool frames is named frame by frame.
        look: units of a look; 0: two for every frame that a look may bring, so that an event of two units
            is met.
        lead: units by which a look begins before the place where the scene was first seen.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        grammar: Grammar,
        seed: int,
        *,
        wrong_looks: float = 0.1,
        glances: float = 0.0,
        every: int = 8,
        look: int = 0,
        lead: int = 4,
    ) -> None:
        if min(wrong_looks, glances) < 0 or wrong_looks + glances > 1:
            raise ValueError(f"wrong_looks and glances must be shares, got {wrong_looks} and {glances}")
        if every < 1 or look < 0 or lead < 0:
            raise ValueError(f"every must be at least 1, look and lead at least 0: {every}, {look}, {lead}")
        self._grammar, self._every, self._look, self._lead = grammar, every, look, lead
        self._wrong_looks, self._glances = wrong_looks, glances
        self._rng = np.random.default_rng(seed)

    def __call__(self, state: State) -> Said:
        """The next output.

        Raises:
            ValueError: the video is not a synthetic one with a single cued scene, or the episode is over.
        """
        if state.terminated:
            raise ValueError(f"the episode of task {state.task.task_id!r} has ended with {state.ending!r}")
        script = _script(state)
        if not state.turns:
            return self._first(state, script)
        seen = self._shapes(state, script)
        if any(segment.contains(t) for segment in state.task.evidence or () for t in _newest(state)):
            letter = state.task.answer
            colour = state.task.options[state.task.letters.index(letter)]
            return self._say(Answer(letter), state, f"{seen}. {colour} ({letter})")
        return self._again(state, script, seen)

    def _first(self, state: State, script: Script) -> Said:
        named = [(unit, script.scene_at(frame).colour) for unit, frame in self._places(state, script)]
        words = " ".join(f"{colour} {unit}" for unit, colour in named)
        cue = script.scenes[script.asked[0]]
        known = [unit for unit, colour in named if colour == cue.colour]
        # A scene between two places: the look goes to the one before.
        begins = (
            known[0]
            if known
            else [unit for unit, _ in named if unit <= _unit(state, script, cue.first)][-1]
        )
        others = [unit for unit, _ in named if abs(unit - begins) > 2 * self._length(state)]
        # Both are drawn always, so that draws keep in step.
        draw, other = float(self._rng.random()), int(self._rng.integers(max(1, len(others))))
        before = int(self._rng.integers(GLANCE))
        if draw >= 1 - self._glances and cue.event is not None:
            start = _unit(state, script, cue.event.first) - before
            return self._say(self._action(state, start, GLANCE), state, cue.colour, learn=False)
        if draw < self._wrong_looks and others and state.turns_left > 2:
            look = self._action(state, others[other] - self._lead)
            return self._say(look, state, f"{words}. {cue.colour} {others[other]}", learn=False)
        return self._say(self._action(state, begins - self._lead), state, f"{words}. {cue.colour} {begins}")

    def _again(self, state: State, script: Script, seen: str) -> Said:
        """Nothing was there: the place after the last look at the scene, then the one before the first."""
        if state.turns_left < 2:
            return self._say(Answer(state.task.answer), state, f"{seen}. none", learn=False)
        cue = script.scenes[script.asked[0]]
        first, end = (_unit(state, script, frame) for frame in (cue.first, cue.end))
        looks = [look for look in _looks(state) if look[0] < end and first < look[1]]
        if not looks:  # the wrong scene
            named = [unit for unit, frame in self._places(state, script) if script.scene_at(frame) is cue]
            start = (named[0] if named else first) - self._lead
        elif looks[-1][1] < end:
            start = looks[-1][1]
        else:
            start = min(look[0] for look in looks) - self._length(state)
        action = self._action(state, start)
        return self._say(action, state, f"{seen}. none. {cue.colour} {max(0, start)}")

    def _length(self, state: State) -> int:
        return self._look or 2 * state.rules.clip_frames

    def _say(self, action: Answer | Crop | Select, state: State, thought: str, learn: bool = True) -> Said:
        text = self._grammar.write(action, state, thought)
        if isinstance(action, Crop) and self._grammar.name == "longvt/strict":
            # The path may be left out there, which spares a small model the copying of its digits.
            times = {"start_time": int(action.start_s), "end_time": int(action.end_s)}
            text = f"<think>{thought}</think>{write_call(CROP_VIDEO, times)}"
        return Said(text, learn)

    def _places(self, state: State, script: Script) -> list[tuple[int, int]]:
        """Units of the skim that are named, with the frames of the video that are there."""
        if _selects(state):
            return [(_index(state, t), round(t * script.address.fps)) for t in state.skim.times_s]
        units = range(0, int(state.video.duration_s), self._every)
        return [(unit, unit * script.address.fps) for unit in units]

    def _shapes(self, state: State, script: Script) -> str:
        """The colour of the shape in each frame of the newest look."""
        names = []
        for time_s in _newest(state):
            frame = round(time_s * script.address.fps)
            event = script.scene_at(frame).event
            names.append(event.colour if event and event.first <= frame < event.end else NOTHING)
        return " ".join(names)

    def _action(self, state: State, start: int, look: int = 0) -> Crop | Select:
        """A look from a unit on, moved into the video where it would leave it."""
        look = look or self._length(state)
        units = len(state.pool_s) if _selects(state) else int(state.video.duration_s)
        start = max(0, min(start, units - look))
        stop = min(start + look, units)
        if not _selects(state):
            return Crop(float(start), float(stop))
        end_s = state.pool_s[stop] if stop < units else state.video.duration_s
        return Select(state.pool_s[start], end_s)


def _script(state: State) -> Script:
    try:
        script = write_script(Address.parse(state.task.video))
    except ValueError as error:
        raise ValueError(f"task {state.task.task_id!r} is not of a synthetic video: {error}") from error
    if len(script.asked) != 1 or script.scenes[script.asked[0]].event is None:
        raise ValueError(f"task {state.task.task_id!r} does not ask for the shape of one scene")
    return script


def _selects(state: State) -> bool:
    return "select" in state.rules.actions


def _index(state: State, time_s: float) -> int:
    """The pool frame on display at a time."""
    return max(0, bisect_right(state.pool_s, time_s) - 1)


def _unit(state: State, script: Script, frame: int) -> int:
    """The unit in which a frame of the video lies."""
    time_s = frame / script.address.fps
    return _index(state, time_s) if _selects(state) else int(time_s)


def _newest(state: State) -> tuple[float, ...]:
    """Times of the frames that the last turn brought."""
    return tuple(time_s for clip in state.turns[-1].clips for time_s in clip.times_s)


def _looks(state: State) -> list[tuple[int, int]]:
    """Executed looks in units, in order."""
    actions = [r.action for turn in state.turns for r in turn.results if r.clip is not None]
    spans = [(a.start_s, a.end_s) for a in actions if isinstance(a, Crop | Select)]
    if not _selects(state):
        return [(int(start), int(end)) for start, end in spans]
    return [(_index(state, start), bisect_left(state.pool_s, end)) for start, end in spans]
