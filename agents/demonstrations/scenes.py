"""Demonstrations for synthetic videos that put into words what the frames show, before they decide.

A model that starts from random weights does not learn where to look from the look alone: a wrong
window says nothing about what was misread. So this script compares the background it looks for with that
of the skim, place by place: both names side by side, "no" and the second or pool index of the place, until
it can say "yes", and looks there. Names that stand further apart are compared far more slowly: a small
model must first learn to attend to one of hundreds of tokens. Of every look it names what each frame shows,
a shape or else the background. What it says follows from what was shown, and every step from what was said
just before: nothing has to be found again further up. Other videos have no such words for their frames:
there `agents.demonstrations.evidence` serves.
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

from .evidence import ScriptedTurn

EVERY = 8.0  # seconds between the frames of a skim that are named, at least
WORDS = (*SCENE_COLOURS, *EVENT_COLOURS, "no", "yes")  # a tokenizer should have a token for each


class SceneDemonstrator:
    """Speaks for ``procedural:brief_event`` tasks, in LongVT's or Video-MTR's grammar.

    A unit is a second where the rules crop, a pool index where they select. Of a skim in seconds frames at
    least `EVERY` apart are named, of one from the pool all. A look begins at the last place before the
    scene, for it began no earlier, and reaches as far behind the first place in it as a scene of the
    shortest kind lasts. Answers are the option's words where the rules let a policy, else letters, after
    the options were compared up to the right one.

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

    def __call__(self, state: State) -> ScriptedTurn:
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
            options = " ".join(f"({letter}) {_compared(colour, option)}" for letter, option in read)
            return self._say(Answer(task.answer), state, f"{seen}. {options}")
        if state.turns_left < 2:
            return self._say(Answer(state.task.answer), state, f"{seen}. none", trainable=False)
        words, segment = self._search(state, script)
        look = self._action(state, *segment)
        # A look that its frames missed the shape in is no example: it would only be had again.
        again = any(result.action == look for turn in state.turns for result in turn.results)
        return self._say(look, state, f"{seen}. none. {words}", trainable=not again)

    def _first(self, state: State, script: Script) -> ScriptedTurn:
        words, (start, stop) = self._search(state, script)
        cue, length = script.scenes[script.asked[0]], stop - start
        others = [unit for unit, _ in self._places(state, script) if abs(unit - start) > 2 * length]
        # All are drawn always, so that draws keep in step.
        draw, other = float(self._rng.random()), int(self._rng.integers(max(1, len(others))))
        before = int(self._rng.integers(length - 2))  # a shape's first unit may not show it yet
        if draw >= 1 - self._glances and cue.event is not None:
            glance = max(0, _unit(state, script, cue.event.first) - before)
            return self._say(
                self._action(state, glance, glance + length), state, cue.colour, trainable=False
            )
        if draw < self._wrong_looks and others and state.turns_left > 2:
            wrong = self._action(state, others[other], others[other] + length)
            return self._say(wrong, state, cue.colour, trainable=False)
        return self._say(self._action(state, start, stop), state, words)

    def _search(self, state: State, script: Script) -> tuple[str, tuple[int, int]]:
        """Words that compare places of the skim with the scene asked about, and the units to look at."""
        cue, start, words = script.scenes[script.asked[0]], 0, []
        for unit, frame in self._places(state, script):
            scene = script.scene_at(frame)
            words.append(_compared(cue.colour, scene.colour))
            if scene is cue:
                return " ".join(words), (start, unit + math.ceil(MIN_SCENE * _units(state)))
            words.append(str(unit))
            start = unit
        raise ValueError(
            f"no place of the skim of {state.task.task_id!r} shows the scene that is asked about"
        )

    def _say(
        self, action: Answer | Crop | Select, state: State, thought: str, trainable: bool = True
    ) -> ScriptedTurn:
        text = self._grammar.write(action, state, thought)
        if isinstance(action, Crop) and self._grammar.name == "longvt/strict":
            # The path may be left out there, which spares a small model the copying of its digits.
            times = {"start_time": int(action.start_s), "end_time": int(action.end_s)}
            text = f"<think>{thought}</think>{write_call(CROP_VIDEO, times)}"
        return ScriptedTurn(text, trainable)

    def _places(self, state: State, script: Script) -> list[tuple[int, int]]:
        """Units of the frames of the skim that are named, with their places in the video."""
        times_s = state.skim.times_s
        if not _selects(state):
            spacing_s = state.video.duration_s / len(times_s)
            times_s = times_s[:: max(1, math.ceil(EVERY / spacing_s))]
        return [
            (_unit(state, script, frame), frame)
            for frame in (round(t * script.address.fps) for t in times_s)
        ]

    def _shown(self, state: State, script: Script) -> str:
        """The colour of the shape, or else of the background, in each frame of the newest look."""
        names = []
        for time_s in _newest(state):
            frame = round(time_s * script.address.fps)
            scene = script.scene_at(frame)
            is_on = scene.event is not None and scene.event.first <= frame < scene.event.end
            names.append(scene.event.colour if scene.event and is_on else scene.colour)
        return " ".join(names)

    def _action(self, state: State, start: int, stop: int) -> Crop | Select:
        """A look at some units, moved into the video where it would leave it."""
        units = _units(state)
        start = max(0, min(start, units - (stop - start)))
        stop = min(stop, units)
        if not _selects(state):
            return Crop(float(start), float(stop))
        end_s = state.pool_s[stop] if stop < units else state.video.duration_s
        return Select(state.pool_s[start], end_s)


def _compared(wanted: str, found: str) -> str:
    return f"{wanted} {found} {'yes' if wanted == found else 'no'}"


def _script(state: State) -> Script:
    try:
        script = write_script(Address.parse(state.task.video))
    except ValueError as error:
        raise ValueError(f"task {state.task.task_id!r} is not of a synthetic video: {error}") from error
    if script.address.family != "brief_event":
        raise ValueError(f"task {state.task.task_id!r} does not ask for the shape of one scene")
    return script


def _selects(state: State) -> bool:
    return "select" in state.rules.actions


def _units(state: State) -> int:
    """Units of the whole video."""
    return len(state.pool_s) if _selects(state) else int(state.video.duration_s)


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
