"""Demonstrations for synthetic videos that put into words what the frames show, before they decide.

A model that starts from random weights does not learn where to look from the look alone: a wrong
window says nothing about what was misread. So this script compares the background it looks for with that
of the skim, place by place: both names side by side, "no" and the second or pool index of the place, until
it can say "yes", and looks there. Names that stand further apart are compared far more slowly: a small
model must first learn to attend to one of hundreds of tokens. Of every look it names what each frame shows,
a shape or else the background. What it says follows from what was shown, and every step from what was said
just before: nothing has to be found again further up. Other videos have no such words for their frames:
there `agents.demonstrations.evidence` serves.

Demonstrations can be of mixed quality, as those of people and of large models are: a share looks hastily,
before the skim was searched, and answers by what it happened to see. All of it is imitated, so that a
policy has learnt to see, to read and to speak, but looks in the wrong place as often as it was shown to.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from videogym import Answer, Crop, Select, State
from videogym.grammars import Grammar
from videogym.grammars.longvt import LongVT
from videogym.grammars.longvt_calls import CROP_VIDEO
from videogym.grammars.tool_calls import write_call
from videogym.video.synthetic import Address, Script, write_script
from videogym.video.synthetic.script import EVENT_COLOURS, MIN_SCENE, SCENE_COLOURS

from .evidence import ScriptedTurn

EVERY = 8.0  # seconds between the frames of a skim that are named, at least
WORDS = (*SCENE_COLOURS, *EVENT_COLOURS, "no", "yes")  # a tokenizer should have a token for each
HastyWords = Literal["colour", "search"]


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
        hasty: share of episodes that begin with a look at a place of the skim that shows another scene,
            which is imitated. Those that are none of the three search the skim.
        gives_up: share of looks without the evidence after which it answers by what they showed, the colour
            of the last shape in them, or else any option; this is imitated. After the others it says that
            there was none and searches the skim.
        hasty_words: before a hasty look; ``"colour"``: only what it looks for; ``"search"``: the search,
            stopped before it reached the scene. Where the first place shows the scene there is no earlier
            one, and the search is whole.
        hasty_look: units of a hasty look, at most those of the video; 0: as many as a search would end in.

    Raises:
        ValueError: a share is outside [0, 1], the first three add up to more than 1, or another of them
            cannot be meant.
    """

    def __init__(
        self,
        grammar: Grammar,
        seed: int,
        *,
        wrong_looks: float = 0.1,
        glances: float = 0.0,
        hasty: float = 0.0,
        gives_up: float = 0.0,
        hasty_words: HastyWords = "colour",
        hasty_look: int = 0,
    ) -> None:
        first = {"wrong_looks": wrong_looks, "glances": glances, "hasty": hasty}
        for name, share in {**first, "gives_up": gives_up}.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be a share in [0, 1], got {share}")
        if (total := math.fsum(first.values())) > 1:
            told = ", ".join(f"{name} {share}" for name, share in first.items())
            raise ValueError(f"shares of first looks must add up to at most 1, got {total:g}: {told}")
        if hasty_words not in get_args(HastyWords):
            raise ValueError(f"hasty_words must be one of {get_args(HastyWords)}, got {hasty_words!r}")
        if hasty_look < 0:
            raise ValueError(f"hasty_look must be at least 0, got {hasty_look}")
        self._grammar, self._wrong_looks, self._glances = grammar, wrong_looks, glances
        self._hasty, self._gives_up = hasty, gives_up
        self._hasty_words, self._hasty_look = hasty_words, hasty_look
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
            right = state.task.options[state.task.letters.index(state.task.answer)]
            return self._read(state, " ".join(seen), right)
        if self._gives_up and float(self._rng.random()) < self._gives_up:
            return self._guess(state, seen)
        shown = " ".join(seen)
        if state.turns_left < 2:
            return self._say(Answer(state.task.answer), state, f"{shown}. none", trainable=False)
        words, segment = self._search(state, script)
        look = self._action(state, *segment)
        # A look that its frames missed the shape in is no example: it would only be had again.
        again = any(result.action == look for turn in state.turns for result in turn.results)
        return self._say(look, state, f"{shown}. none. {words}", trainable=not again)

    def _read(self, state: State, shown: str, colour: str) -> ScriptedTurn:
        """Answers with an option whose words were read from what a look has shown."""
        task = state.task
        if state.rules.answers == "any":
            return self._say(Answer(colour), state, f"{shown}. {colour}")
        number = task.options.index(colour) + 1
        read = zip(task.letters[:number], task.options[:number], strict=True)
        options = " ".join(f"({letter}) {_compared(colour, option)}" for letter, option in read)
        return self._say(Answer(task.letters[number - 1]), state, f"{shown}. {options}")

    def _guess(self, state: State, seen: Sequence[str]) -> ScriptedTurn:
        """Answers by a look without the evidence: its last shape, or else any option."""
        options = state.task.options
        drawn = int(self._rng.integers(len(options)))
        shapes = [name for name in seen if name in options]
        if shapes:
            return self._read(state, " ".join(seen), shapes[-1])
        answer = options[drawn] if state.rules.answers == "any" else state.task.letters[drawn]
        return self._say(Answer(answer), state, f"{' '.join(seen)}. none")

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
        if self._wrong_looks <= draw < self._wrong_looks + self._hasty:
            early = self._hasty_words == "search"
            places = [unit for unit in others if unit < start] if early else others
            if places:
                unit = places[int(self._rng.integers(len(places)))]
                words = self._search(state, script, last=unit)[0] if early else cue.colour
                look = self._action(state, unit, unit + (self._hasty_look or length))
                return self._say(look, state, words)
        return self._say(self._action(state, start, stop), state, words)

    def _search(self, state: State, script: Script, last: int | None = None) -> tuple[str, tuple[int, int]]:
        """Words that compare places of the skim with the scene asked about, and the units to look at.

        Args:
            state: of the episode.
            script: of its video.
            last: place at which the search stops, whatever it shows; None: at the scene.
        """
        cue, start, words = script.scenes[script.asked[0]], 0, []
        length = math.ceil(MIN_SCENE * _units(state))
        for unit, frame in self._places(state, script):
            scene = script.scene_at(frame)
            words.append(_compared(cue.colour, scene.colour))
            if scene is cue:
                return " ".join(words), (start, unit + length)
            words.append(str(unit))
            start = unit
            if unit == last:
                return " ".join(words), (start, start + length)
        raise ValueError(
            f"no place of the skim of {state.task.task_id!r} shows the scene that is asked about"
        )

    def _say(
        self, action: Answer | Crop | Select, state: State, thought: str, trainable: bool = True
    ) -> ScriptedTurn:
        text = self._grammar.write(action, state, thought)
        leaves_out = isinstance(self._grammar, LongVT) and self._grammar.path_is_optional
        if isinstance(action, Crop) and leaves_out:
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

    def _shown(self, state: State, script: Script) -> list[str]:
        """The colour of the shape, or else of the background, in each frame of the newest look."""
        names = []
        for time_s in _newest(state):
            frame = round(time_s * script.address.fps)
            scene = script.scene_at(frame)
            is_on = scene.event is not None and scene.event.first <= frame < scene.event.end
            names.append(scene.event.colour if scene.event and is_on else scene.colour)
        return names

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
