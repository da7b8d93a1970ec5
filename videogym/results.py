"""The result of an evaluation as JSON: what was run, its metrics, and what every episode came to.

It is what ``videogym eval --json`` writes and `videogym.comparison` reads. A trace tells what was done
turn by turn and names its recipe by a hash; a result tells no turns, but every setting by its name.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

import av
import gymnasium

from videogym.cost import Cost
from videogym.evaluate import Episode, Report
from videogym.metadata import Metadata, MetadataError
from videogym.mistakes import missing_fields
from videogym.traces import RecordTraces

_VERSION = 1  # of the format on disk
MARK = "videogym_eval"  # the first field of a result, which holds the version
_PACKAGES = ("videogym", "gymnasium", "numpy", "av", "decord", "torchcodec")
_NUMBER = (int, float)
_TYPES: dict[str, tuple[type, ...]] = {  # by the text of an annotation of `Episode`
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "bool | None": (bool, type(None)),
    "float": _NUMBER,
    "float | None": (*_NUMBER, type(None)),
    "dict[str, float]": (dict,),
    "Mapping[str, Any]": (dict,),
    "Cost | None": (dict, type(None)),
}


class ResultError(ValueError):
    """A stored result cannot be read. The message names file and field."""


@dataclass(frozen=True)
class EvaluationResult:
    """What a file holds."""

    run: Mapping[str, Any]  # what was run, see `describe_run`
    recipe: str  # identity
    episodes: tuple[Episode, ...]  # without those that had a fault
    bad_videos: Mapping[str, str]  # task id -> cause, for tasks that could not be shown
    faults: int  # episodes that had one


def describe_run(env: gymnasium.Env[Any, Any], **told: Any) -> dict[str, Any]:
    """What was run, by name, in JSON values: all that two runs of other metrics may differ in.

    Args:
        env: a videogym environment, wrapped or not.
        told: what it does not know of itself: ``policy``, ``seed``, ``tasks``, ``backend``.

    Returns:
        ``recipe`` (every field), ``wrappers``, ``observe``, what was told, and ``versions``.
    """
    inner: Any = env.unwrapped
    return {
        "recipe": inner.recipe.describe(),
        **told,
        "wrappers": list(_wrappers(env)),
        "observe": inner.observe,
        "versions": versions(),
    }


def _wrappers(env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    """Names of what is wrapped around an environment and can change an episode, outermost first."""
    while isinstance(env, gymnasium.Wrapper):
        if not isinstance(env, RecordTraces):
            yield type(env).__name__
        env = env.env


def versions() -> dict[str, str]:
    """Versions of all that decides about pixels and rewards, by package; those that are installed."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    found["libavcodec"] = ".".join(map(str, av.library_versions["libavcodec"]))
    return found


def result_text(report: Report, run: Mapping[str, Any]) -> str:
    """A result as JSON: first what was run, then the metrics, then a line for each episode."""
    metrics = {name: value for name, value in asdict(report).items() if name != "episodes"}
    head = {MARK: _VERSION, "run": run, "episodes": len(report.episodes), **metrics}
    rows = ",\n    ".join(json.dumps(_row(episode)) for episode in report.episodes)
    return f'{json.dumps(head, indent=2)[:-2]},\n  "played": [\n    {rows}\n  ]\n}}'


def _row(episode: Episode) -> dict[str, Any]:
    return asdict(episode) | {"metadata": Metadata(episode.metadata).to_json()}


def read_result(path: str | os.PathLike[str]) -> EvaluationResult:
    """The result of a file.

    Raises:
        ResultError: it cannot be read, or is none of this version; the message names the field.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe may have no writer
            raise ResultError("cannot be read: not a regular file")
        with open(path, encoding="utf-8") as file:
            row = json.load(file)
        return _result(row)
    except ResultError as error:
        raise ResultError(f"{os.fspath(path)}: {error}") from error
    except OSError as error:
        raise ResultError(f"{os.fspath(path)}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{os.fspath(path)}: cut off, or not JSON: {error}") from error


def _result(row: Any) -> EvaluationResult:
    if not isinstance(row, dict) or row.get(MARK) != _VERSION:
        found = row.get(MARK) if isinstance(row, dict) else None
        raise ResultError(f"field {MARK!r} must be {_VERSION}, got {found!r}")
    _require(row, ("run", "recipe", "played", "bad_videos", "faults"))
    played = _typed(row, "played", (list,))
    return EvaluationResult(
        run=_typed(row, "run", (dict,)),
        recipe=_typed(row, "recipe", (str,)),
        episodes=tuple(_episode(one, f"played[{number}]") for number, one in enumerate(played)),
        bad_videos=_typed(row, "bad_videos", (dict,)),
        faults=_typed(row, "faults", (int,)),
    )


def _episode(row: Any, place: str) -> Episode:
    if not isinstance(row, dict):
        raise ResultError(f"field {place!r} must be an object, got {row!r:.80}")
    row = {"metadata": {}, "cost": None, **row}  # older results lack them
    _require(row, (one.name for one in fields(Episode)), place)
    found = {f.name: _typed(row, f.name, _TYPES[str(f.type)], place) for f in fields(Episode)}
    for term in found["terms"]:
        _typed(found["terms"], term, _NUMBER, f"{place}.terms")
    try:
        metadata = Metadata(found["metadata"])
    except MetadataError as error:
        raise ResultError(f"field '{place}.metadata': {error}") from error
    cost = None if found["cost"] is None else _cost(found["cost"], f"{place}.cost")
    return Episode(**found | {"metadata": metadata, "cost": cost})


def _cost(row: Mapping[str, Any], place: str) -> Cost:
    types = {"float": _NUMBER, "int | None": (int, type(None))}
    return Cost(**{f.name: _typed(row, f.name, types[str(f.type)], place) for f in fields(Cost)})


def _require(row: Mapping[str, Any], names: Iterable[str], place: str = "") -> None:
    if lacking := missing_fields(row, names, f"{place}." if place else ""):
        raise ResultError(lacking)


def _typed(row: Mapping[str, Any], name: str, types: tuple[type, ...], place: str = "") -> Any:
    where = f"{place}.{name}".lstrip(".")
    _require(row, (name,), place)
    value = row[name]
    # In Python a truth value is a number, in JSON it is not.
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        names = " or ".join("null" if one is type(None) else one.__name__ for one in types)
        raise ResultError(f"field {where!r} must be {names}, got {value!r:.80}")
    return value
