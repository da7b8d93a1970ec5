"""One of two runs that are compared, from stored traces or from the result of an evaluation.

Of several episodes of one task the first that can be scored counts. An episode can be scored as in
`videogym.evaluate`: no turn has a fault, and nobody left it before its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from videogym.evaluate import Episode, Estimate
from videogym.grouping import share
from videogym.recipes import get_recipe
from videogym.results import MARK, EvaluationResult, read_result
from videogym.traces import Trace, Traces, read_traces
from videogym.traces.episodes import episode_from_trace

_TRACE = b'{"version":'  # what a line of a trace begins with


class ComparisonError(ValueError):
    """Two runs cannot be compared. The message names the file, or what the two do not share."""


@dataclass(frozen=True)
class Run:
    """A run."""

    name: str  # how it is called: the path of its file
    recipes: tuple[str, ...]  # identities
    settings: Mapping[str, Any]  # nested, in JSON values; what is not known is not there
    episodes: Mapping[str, Episode]  # by task id, one each
    traces: Mapping[str, Trace] = field(default_factory=dict, repr=False)  # of these; {} for a result
    repeated: int = 0  # further episodes of the same tasks, left out
    unscored: int = 0  # episodes with a fault, or left before their end; left out
    bad_videos: int = 0  # tasks whose video could not be used; left out, and unknown of traces
    torn: int = 0  # last lines that were cut off; left out

    @property
    def accuracy(self) -> Estimate | None:
        """Share of right answers, of all that were judged."""
        return share(self.episodes.values(), lambda episode: episode.correct)


def read_run(path: str | os.PathLike[str]) -> Run:
    """The run of a file of traces, of a folder of such, or of a result of ``videogym eval --json``.

    Raises:
        ComparisonError: it is missing, none of these, or holds no episode that can be scored.
        TraceError: a line of it is no trace.
        ResultError: a field of the result is missing or of another type.
    """
    name = os.fspath(path)
    start = b"" if os.path.isdir(name) else _start(name)
    if f'"{MARK}"'.encode() in start:
        return run_from_result(read_result(name), name)
    if start.strip() and not start.lstrip().startswith(_TRACE[: len(start)]):
        raise ComparisonError(f"{name}: neither a file of traces nor a result of `videogym eval --json`")
    return run_from_traces(read_traces(name), name)


def _start(path: str) -> bytes:
    """The first bytes of a file, which tell its kind."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe may have no writer
            raise ComparisonError(f"{path}: cannot be read: not a regular file")
        with open(path, "rb") as file:
            return file.read(80)
    except ComparisonError:
        raise
    except (OSError, ValueError) as error:  # a path can hold a zero byte
        why = getattr(error, "strerror", None) or error
        raise ComparisonError(f"{path}: cannot be read: {why}") from error


def run_from_result(result: EvaluationResult, name: str) -> Run:
    """The run of a result.

    Raises:
        ComparisonError: it holds no episode.
    """
    episodes, repeated = _first(result.episodes)
    if not episodes:
        raise ComparisonError(f"{name}: no episode in it")
    settings = {"recipe_identity": result.recipe, **result.run}
    return Run(
        name,
        (result.recipe,),
        settings,
        episodes,
        repeated=repeated,
        unscored=result.faults,
        bad_videos=len(result.bad_videos),
    )


def run_from_traces(traces: Traces, name: str) -> Run:
    """The run of traces. Settings are known as far as a recipe is a named one of this version.

    Raises:
        ComparisonError: there is no episode that can be scored.
    """
    sound = [trace for trace in traces.episodes if _is_sound(trace)]
    unscored = len(traces.episodes) - len(sound)
    if not sound:
        why = [f"{unscored} with a fault or left before their end"] * bool(unscored)
        why += [f"{traces.torn} cut off"] * bool(traces.torn)
        raise ComparisonError(": ".join([f"{name}: no episode in it that can be scored", *why]))
    episodes, repeated = _first(map(episode_from_trace, sound))
    chosen = {trace.task.task_id: trace for trace in reversed(sound)}
    recipes = tuple(dict.fromkeys(trace.recipe for trace in sound))
    return Run(
        name,
        recipes,
        _settings(sound, recipes),
        episodes,
        traces=chosen,
        repeated=repeated,
        unscored=unscored,
        torn=traces.torn,
    )


def _is_sound(trace: Trace) -> bool:
    return trace.cut in ("", "truncated") and not any(paid.turn.fault for paid in trace.turns)


def _first(episodes: Iterable[Episode]) -> tuple[dict[str, Episode], int]:
    """The first episode of every task, and how many more there are."""
    first: dict[str, Episode] = {}
    count = 0
    for count, episode in enumerate(episodes, start=1):  # noqa: B007
        first.setdefault(episode.task_id, episode)
    return first, count - len(first)


def _settings(traces: list[Trace], recipes: tuple[str, ...]) -> dict[str, Any]:
    settings: dict[str, Any] = {"recipe_identity": recipes[0] if len(recipes) == 1 else list(recipes)}
    if (described := _described(recipes)) is not None:
        return settings | {"recipe": described}
    # Of a recipe that is known by its hash alone, what can be seen in what was played.
    skims = [len(trace.skim.times_s) for trace in traces]
    terms = {name: None for trace in traces for paid in trace.turns for name in paid.terms}
    return settings | {"shown": {"skim_frames": [min(skims), max(skims)], "reward_terms": list(terms)}}


def _described(recipes: tuple[str, ...]) -> dict[str, Any] | None:
    """Every field of a recipe, if it is one, and one of those that are named here."""
    try:
        recipe = get_recipe(recipes[0].rpartition("@")[0])
    except ValueError:
        return None
    return recipe.describe() if recipes == (recipe.identity,) else None
