"""Wrappers that change what a policy writes or reads. None holds state of its own.

`TextActions` lets a text policy speak a grammar. `DiscreteActions` gives a small policy one integer
to choose: a window of the video to look at, or an option to answer with. `ArrayObservations` leaves it
rows of numbers and a picture to read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Text
from numpy.typing import NDArray

from videogym.actions import Answer, Crop, Find, Select
from videogym.actions.find import MAX_QUERY_CHARS
from videogym.datasets import TaskList
from videogym.env import VideoQAEnv
from videogym.grammars import Grammar, Message, get_grammar, prompted, with_subtitles
from videogym.observations import Observation, observation_space
from videogym.spaces import UnicodeText
from videogym.state import Action, Rules, State, Task

MAX_PROMPT_CHARS = 65_536


class TextActions(gymnasium.Wrapper[Any, Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """Act by text: the policy's output is parsed by a grammar, the observation gains ``prompt``.

    ``prompt`` is the text of the newest message; `messages` is the whole conversation with frame
    references, for policies that render a chat themselves.

    Args:
        env: a videogym environment.
        grammar: a grammar or the name of one; by default the recipe's. The recipe's prompt words it.

    Raises:
        ValueError: the grammar is unknown.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], grammar: str | Grammar | None = None) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, grammar=grammar)
        super().__init__(env)
        inner = _inner(env)
        self.grammar: Grammar = prompted(get_grammar(grammar or inner.recipe.grammar), inner.recipe.prompt)
        self.action_space = UnicodeText(inner.recipe.rules.max_text_chars)
        prompt = {"prompt": UnicodeText(MAX_PROMPT_CHARS)}
        spaces = observation_space(inner.recipe.rules, inner.observe, inner.frame_size).spaces
        self.observation_space = Dict({**spaces, **prompt})

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, made from the environment's state."""
        state = _inner(self.env).state
        return with_subtitles(self.grammar.messages(state), state.task)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """As the environment's, with the prompt added."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_prompt(observation), info

    def step(self, action: str) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Parse one output and play it.

        Raises:
            ValueError: the action is not a string.
        """
        if not isinstance(action, str):
            raise ValueError(f"a text action is a str, got {type(action).__name__}")
        move = self.grammar.parse(action, _inner(self.env).state)
        observation, reward, terminated, truncated, info = self.env.step(move)
        return self._with_prompt(observation), float(reward), terminated, truncated, info

    def _with_prompt(self, observation: Observation) -> Observation:
        newest = self.messages[-1]
        text = newest.text if newest.role != "assistant" else ""
        return {**observation, "prompt": text[:MAX_PROMPT_CHARS].encode("utf-8", "replace").decode("utf-8")}


class DiscreteActions(gymnasium.Wrapper[Any, Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """Act by one integer: look at a window of the video, or answer an option.

    With ``windows=16`` action ``i < 16`` selects (or, without a pool, crops) the i-th of 16 equal parts
    of the video; with ``windows=(4, 16)`` there are 4 large and 16 small ones, in this order. The
    actions after the looks answer, with option 0 first. With a pool, windows hold equally many pool
    frames, as far as these divide.

    With ``arguments=({}, {"fps": 8})`` all windows come twice: looked at as the recipe does, and then
    cropped at 8 frames a second. With ``moments=2`` the last action before the answers searches for the
    question and is shown two moments.

    Args:
        env: a videogym environment whose tasks are choices.
        windows: number of windows, at least 1; several numbers give windows of several sizes.
        options: number of options the policy can choose from.
        arguments: further arguments of a `Crop` by which every window can be looked at.
        moments: that a search brings, ``k`` of `Find`; 0: the policy cannot search.

    Raises:
        ValueError: a number is below 1; the recipe looks at no windows, does not open an argument, refuses
            its value or offers no search; more frames are asked for than one look can show; or a task is no
            choice or has more options: it could not be answered. Of tasks that are made on demand, the one
            that is played tells.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        windows: int | Sequence[int] = 16,
        options: int = 4,
        arguments: Sequence[Mapping[str, Any]] = ({},),
        moments: int = 0,
    ) -> None:
        scales = (windows,) if isinstance(windows, int) else tuple(windows)
        if not scales or min(scales) < 1 or options < 1:
            raise ValueError(f"windows and options must be at least 1, got {windows} and {options}")
        _check_looks(_inner(env).recipe.rules, arguments, moments)
        gymnasium.utils.RecordConstructorArgs.__init__(
            self, windows=windows, options=options, arguments=arguments, moments=moments
        )
        super().__init__(env)
        self.windows, self.options = scales, options
        self.arguments, self.moments = tuple(arguments), moments
        self.looks = sum(scales) * len(self.arguments) + (moments > 0)
        self.action_space = Discrete(self.looks + options)
        tasks = _inner(env).tasks
        for task in tasks if isinstance(tasks, TaskList) else ():
            self._check(task)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """As the environment's.

        Raises:
            ValueError: the task cannot be answered by these actions.
        """
        started = self.env.reset(seed=seed, options=options)
        self._check(_inner(self.env).state.task)
        return started

    def _check(self, task: Task) -> None:
        if task.kind != "choice":
            raise ValueError(
                f"task {task.task_id!r} has no options to answer by a number: its kind is {task.kind!r}; "
                f"use TextActions, or the environment's own actions"
            )
        if len(task.options) > self.options:
            raise ValueError(
                f"task {task.task_id!r} has {len(task.options)} options, the actions reach {self.options}: "
                f"use DiscreteActions(env, options={len(task.options)})"
            )

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play the action.

        Raises:
            ValueError: the number is outside the action space.
        """
        index = int(action)
        if not 0 <= index < self.looks + self.options:
            raise ValueError(f"action must be 0 to {self.looks + self.options - 1}, got {index}")
        observation, reward, terminated, truncated, info = self.env.step(self.decode(index))
        return observation, float(reward), terminated, truncated, info

    def decode(self, index: int) -> Action:
        """The action an integer stands for, in the current state."""
        state = _inner(self.env).state
        self._check(state.task)  # it may have been set, not drawn
        if index >= self.looks:
            option = index - self.looks
            letters = state.task.letters
            return Answer(letters[option] if option < len(letters) else f"option {option}")
        variant, index = divmod(index, sum(self.windows))
        if variant == len(self.arguments):
            return Find(state.task.question[:MAX_QUERY_CHARS], self.moments)
        for windows in self.windows:
            if index < windows:
                break
            index -= windows
        start_s, end_s = window_bounds_s(state, index, windows)
        arguments = self.arguments[variant]
        if "select" in state.rules.actions and not arguments:
            return Select(start_s, end_s)
        return Crop(start_s, end_s, **arguments)


def _check_looks(rules: Rules, arguments: Sequence[Mapping[str, Any]], moments: int) -> None:
    """Refuse arguments of looks, or a search, that the rules do not open."""
    regions = ("region",) if rules.regions else ()
    opened = (*regions, *rules.crop_arguments) if "crop" in rules.actions else ()
    if not {"select", "crop"} & set(rules.actions):
        raise ValueError(
            f"windows are looked at by select or crop, the recipe has {', '.join(rules.actions)}"
        )
    if not arguments:
        raise ValueError("arguments must hold at least one set, {} for looks as the recipe makes them")
    for name in sorted({name for some in arguments for name in some}):
        if name not in opened:
            raise ValueError(f"the recipe opens no argument {name!r} of looks; open are {list(opened)}")
    most = min(rules.clip_frames, rules.max_turn_frames)
    for some in arguments:
        look = Crop(0.0, 1.0, **some)
        if refused := look.judge_arguments(rules):
            raise ValueError(f"no look can have the arguments {dict(some)}: {refused.reason}")
        if look.fps is not None and not look.fps > 0:  # windows do not run backwards
            raise ValueError(f"fps must be above 0, got {look.fps:g}")
        if look.frames is not None and look.frames > most:
            raise ValueError(f"frames must be 1 to {most}, which one look can show, got {look.frames}")
    if moments < 0:
        raise ValueError(f"moments must not be negative, got {moments}")
    if moments and "find" not in rules.actions:
        raise ValueError(f"moments must be 0 where the recipe offers no search, got {moments}")
    if moments > most:
        raise ValueError(f"moments must be 0 to {most}, which one search can show, got {moments}")


class ArrayObservations(gymnasium.ObservationWrapper[Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """Observe by arrays only, as libraries with ready-made networks want them.

    Texts are left out, arrays with several axes become rows, and the frames of ``clip`` become one picture,
    (H, W, 3) uint8, of which they fill the places line by line; places without a frame are black.

    Without texts a policy knows neither the question nor the options: it can learn where to look, and what
    to answer where one question has its options in one order. For more, observe features of your own
    by `gymnasium.wrappers.TransformObservation`.

    Args:
        env: a videogym environment, wrapped or not.

    Raises:
        ValueError: the environment's observations are no `Dict`.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        if not isinstance(env.observation_space, Dict):
            raise ValueError(f"this wrapper needs a Dict of observations, got {env.observation_space}")
        spaces = env.observation_space.spaces
        self._columns = 1
        if "clip" in spaces:
            count, height, width, _ = spaces["clip"].shape or ()
            self._columns = min(count, max(1, round(math.sqrt(count * height / width))))
        self._kept = tuple(name for name, space in spaces.items() if not isinstance(space, Text))
        self.observation_space = Dict({name: self._array_space(spaces[name]) for name in self._kept})

    def observation(self, observation: Observation) -> Observation:
        """The same without texts, in rows and a picture."""
        return {name: self._array(observation[name]) for name in self._kept}

    def _array_space(self, space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
        if not isinstance(space, Box):
            return space
        if len(space.shape) == 4:
            return Box(0, 255, self._array(space.low).shape, np.uint8)
        return Box(self._array(space.low), self._array(space.high), dtype=space.dtype.type)

    def _array(self, value: Any) -> Any:
        if np.ndim(value) == 4:
            return tiled(value, self._columns)
        return value.reshape(-1) if np.ndim(value) > 1 else value


def tiled(frames: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """One picture of many frames, line by line; what is left of the last line is black.

    Args:
        frames: (N, H, W, 3) uint8.
        columns: frames in a line, 1 to N.

    Returns:
        (ceil(N / columns) * H, columns * W, 3) uint8.
    """
    count, height, width, channels = frames.shape
    lines = -(-count // columns)
    places = np.zeros((lines * columns, height, width, channels), frames.dtype)
    places[:count] = frames
    sheet = places.reshape(lines, columns, height, width, channels).swapaxes(1, 2)
    return sheet.reshape(lines * height, columns * width, channels)


def window_bounds_s(state: State, index: int, windows: int) -> tuple[float, float]:
    """Start and end, in seconds, of the index-th of ``windows`` equal parts of the episode's video."""
    if not state.pool_s:
        edges = np.linspace(0.0, state.video.duration_s, windows + 1)
        return float(edges[index]), float(edges[index + 1])
    bounds = (*state.pool_s, state.video.duration_s)
    cuts = np.linspace(0, len(state.pool_s), windows + 1).astype(int)
    return bounds[cuts[index]], bounds[cuts[index + 1]]


def _inner(env: gymnasium.Env[Any, Any]) -> VideoQAEnv:
    inner = env.unwrapped
    if not isinstance(inner, VideoQAEnv):
        raise ValueError(f"this wrapper needs a videogym environment, got {type(inner).__name__}")
    return inner
