"""Demonstrations for synthetic videos that put into words what the frames show, before they decide.

A model that starts from random weights does not learn where to look from the look alone: a wrong
window says nothing about what was misread. So this script says which background it looks for, then names
that of the skim place by place, each with its second or pool index, until it has named this one, and looks
there. Of every look it names what each frame shows, a shape or else the background. What it says follows
from what was shown, and every step from what was said just before: nothing has to be found again further
up. Other videos have no such words for their frames: there `agents.demonstrations` serves.
"""

from __future__ import annotations

import math
from bisect import bisect_right

import numpy as np

from videogym import Answer, Crop, Select, State
from videogym.grammars import Grammar
from videogym.grammars.longvt_calls import CROP_VIDEO
from videogym.grammars.tool_calls import write_call
from videogym.video.synthetic import Address, Script, write_script
from videogym.video.synthetic.script import EVENT_COLOURS, MIN_SCENE, SCENE_COLOURS

from .demonstrations import Said

EVERY = 8  # seconds between the places of the skim that are named
WORDS = (*SCENE_COLOURS, *EVENT_COLOURS)  # a tokenizer should have a token for each


class SceneDemonstrator:
    """Speaks for ``procedural:brief_event`` tasks, in LongVT's or Video-MTR's grammar.

    A unit is a second where the rules crop, a pool index where they select. A skim of seconds is named
    every `EVERY` seconds, a skim of pool frames frame by frame. A look begins as far before the place where
    the scene was first seen as places are apart, for it began no earlier, and lasts to the end of a scene
    of the shortest kind. Answers are the option's words where the rules let a policy, else letters, after
    the options were read up to the right one.

    Args:
        grammar: that is spoken.
        seed: of wrong looks and glances.
        wrong_looks: share of first looks that go to another scene; the next turn says what is there,
            searches the skim again and finds the scene. Such looks are not to be imitated.
        glances: share of episodes that begin with a look near the evidence without a word about the skim,
            which is not to be imitated: what follows teaches to read a look and to answer.

    Raises:
        ValueError: the shares are none.
    """

    def __init__(
        self, grammar: Grammar, seed: int, *, wrong_looks: float = 0.1, glances: float = 0.0
    ) -> None:
        if min(wrong_looks, glances) < 0 or wrong_looks + glances > 1:
            raise ValueError(f"wrong_looks and glances must be shares, got {wrong_looks} and {glances}")
        self._grammar, self._wrong_looks, self._glances = grammar, wrong_looks, glances
        self._rng = np.random.default_rng(seed)

    def __call__(self, state: State) -> Said:
        """The next output.

        Raises:
            ValueError: the video is not a synthetic one with a single cued scene that the skim meets, or
                the episode is over.
        """
        if state.terminated:
            raise ValueError(f"the episode of task {state.task.task_id!r} has ended with {state.ending!r}")
        script = _script(state)
        if not state.turns:
            return self._first(state, script)
        seen = self._shown(state, script)
        if any(segment.contains(t) for segment in state.task.evidence or () for t in _newest(state)):
            task, number = state.task, state.task.letters.index(state.task.answer) + 1
            colour = task.options[number - 1]
            if state.rules.answers == "any":
                return self._say(Answer(colour), state, f"{seen}. {colour}")
            read = zip(task.letters[:number], task.options[:number], strict=True)
            options = " ".join(f"({letter}) {option}" for letter, option in read)
            return self._say(Answer(task.answer), state, f"{seen}. {colour}: {options}")
        if state.turns_left < 2:
            return self._say(Answer(state.task.answer), state, f"{seen}. none", learn=False)
        words, begins = self._search(state, script)
        look = self._action(state, begins)
        # A look that its frames missed the shape in is no example: it would only be had again.
        again = any(result.action == look for turn in state.turns for result in turn.results)
        return self._say(look, state, f"{seen}. none. {words}", learn=not again)

    def _first(self, state: State, script: Script) -> Said:
        words, begins = self._search(state, script)
        cue = script.scenes[script.asked[0]]
        others = [
            unit
            for unit, frame in self._places(state, script)
            if abs(unit - begins) > 2 * self._length(state)
        ]
        # All are drawn always, so that draws keep in step.
        draw, other = float(self._rng.random()), int(self._rng.integers(max(1, len(others))))
        before = int(self._rng.integers(self._length(state)))
        if draw >= 1 - self._glances and cue.event is not None:
            start = _unit(state, script, cue.event.first) - before
            look = self._action(state, start + self._before(state))
            return self._say(look, state, cue.colour, learn=False)
        if draw < self._wrong_looks and others and state.turns_left > 2:
            return self._say(self._action(state, others[other]), state, cue.colour, learn=False)
        return self._say(self._action(state, begins), state, words)

    def _search(self, state: State, script: Script) -> tuple[str, int]:
        """Places of the skim up to the first in the scene that is asked about, in words, and its unit."""
        cue = script.scenes[script.asked[0]]
        words = [f"{cue.colour}:"]
        for unit, frame in self._places(state, script):
            scene = script.scene_at(frame)
            words.append(f"{scene.colour} {unit}")
            if scene is cue:
                return " ".join(words), unit
        raise ValueError(
            f"no place of the skim of {state.task.task_id!r} shows the scene that is asked about"
        )

    def _before(self, state: State) -> int:
        return len(state.pool_s) // len(state.skim.times_s) if _selects(state) else EVERY

    def _length(self, state: State) -> int:
        units = len(state.pool_s) if _selects(state) else state.video.duration_s
        return self._before(state) + math.ceil(MIN_SCENE * units)

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
        units = range(0, int(state.video.duration_s), EVERY)
        return [(unit, unit * script.address.fps) for unit in units]

    def _shown(self, state: State, script: Script) -> str:
        """The colour of the shape, or else of the background, in each frame of the newest look."""
        names = []
        for time_s in _newest(state):
            frame = round(time_s * script.address.fps)
            scene = script.scene_at(frame)
            is_on = scene.event is not None and scene.event.first <= frame < scene.event.end
            names.append(scene.event.colour if scene.event and is_on else scene.colour)
        return " ".join(names)

    def _action(self, state: State, unit: int) -> Crop | Select:
        """A look at a scene that was first seen at a unit, moved into the video where it would leave it."""
        look = self._length(state)
        units = len(state.pool_s) if _selects(state) else int(state.video.duration_s)
        start = max(0, min(unit - self._before(state), units - look))
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
