"""The wrapper that stores what is played. It departs from the other wrappers in holding what was paid."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium

from videogym.cost import Stopwatch
from videogym.env import VideoQAEnv
from videogym.rewards import answered_right, history, score
from videogym.state import State
from videogym.traces.files import append_trace, prepare, require_writable
from videogym.traces.trace import TurnTrace, trace_of


class RecordTraces(gymnasium.Wrapper[Any, Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """Append every episode to a file of traces as soon as it has ended.

    When the step that ends an episode returns, its line is on the disk. An episode that is left before
    its end is stored by the `reset` or `close` that leaves it, if a turn was played. Wrap it outermost,
    around ``TimeLimit`` too, to see who cut an episode; several environments may share a file.

    Turns that were not paid in this wrapper's sight (the state was set, or a policy reported a fault
    afterwards) are scored again by the same pure terms.

    Args:
        env: a videogym environment, wrapped or not.
        path: the file, in a folder that exists; made by the first `reset`, or added to.
        run: name of the run; None: the file's name without its ending.

    Raises:
        ValueError: the environment is none of ours.
        TraceError: the file holds something else.
        OSError: the file cannot be written.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], path: str | os.PathLike[str], run: str | None = None
    ) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, path=os.fspath(path), run=run)
        super().__init__(env)
        inner = env.unwrapped
        if not isinstance(inner, VideoQAEnv):
            raise ValueError(f"this wrapper needs a videogym environment, got {type(inner).__name__}")
        self._inner = inner
        self.path = os.path.abspath(path)
        self.run = Path(path).stem if run is None else run
        self._paid: dict[int, TurnTrace] = {}  # by number of the turn
        self._open = False  # whether a turn was played that is not stored
        self._cut = ""  # how the episode ended, where storing it was tried
        self._watch = Stopwatch(inner.store.spent)
        require_writable(self.path)  # what is refused before its first episode leaves no file

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the environment's; stores the episode that it leaves.

        Raises:
            OSError: that episode could not be stored; the next call tries again.
        """
        self._leave()
        if not os.path.lexists(self.path):
            prepare(self.path)
        self._watch = Stopwatch(self._inner.store.spent)
        found = self.env.reset(seed=seed, options=options)
        self._watch.lap("environment")
        return found

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As the environment's; stores the episode when it ends.

        Raises:
            OSError: the episode could not be stored; the next `reset` or `close` tries again.
        """
        self._watch.lap("model")
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._watch.lap("environment")
        turns = self._inner.state.turns
        terms = {
            name: float(value) if info["reward_present"][name] else None
            for name, value in info["reward_terms"].items()
        }
        self._paid[len(turns)] = TurnTrace(turns[-1], float(reward), terms)
        self._open = True
        if terminated or truncated:
            self._store("" if terminated else "truncated")
        return observation, float(reward), terminated, truncated, info

    def close(self) -> None:
        """As the environment's; stores the episode that it leaves."""
        try:
            self._leave()
        finally:
            super().close()

    def _leave(self) -> None:
        if self._open and self._inner.state.turns:
            fault = self._inner.state.turns[-1].fault
            terminated = self._inner.state.terminated
            self._store(self._cut or ("" if terminated else f"fault: {fault}" if fault else "left"))
        self._paid, self._open, self._cut = {}, False, ""

    def _store(self, cut: str) -> None:
        self._open, self._cut = False, cut  # what can never be stored is told of once
        state, terms = self._inner.state, self._inner.recipe.terms
        turns = tuple(self._turn(before, after) for before, after in pairwise(history(state)))
        correct = answered_right(terms, turns[-1].terms.get("answer"), state)
        trace = trace_of(state, turns, correct=correct, run=self.run, cut=cut, cost=self._watch.cost)
        try:
            append_trace(self.path, trace)
        except OSError:  # a disk that is full today
            self._open = True
            raise

    def _turn(self, before: State, after: State) -> TurnTrace:
        seen = self._paid.get(len(after.turns))
        if seen is not None and seen.turn is after.turns[-1]:
            return seen
        paid = score(self._inner.recipe.terms, before, after)
        return TurnTrace(after.turns[-1], paid.reward, paid.terms)
