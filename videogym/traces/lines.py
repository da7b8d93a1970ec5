r"""A trace as a line of JSON, and back.

| field | value |
|---|---|
| `version` | 1 |
| `run`, `recipe` | name of the run, where it is missing that of the file; identity of the recipe |
| `task` | as a line of a task file, with every field; `metadata` where there is any |
| `video` | `duration_s`, `width`, `height`, `fingerprint` and the other facts of `VideoMeta` |
| `skim` | a clip: `times_s`, `region` as `[x0, y0, x1, y1]` or `null`; if told, `scale` and a `note` |
| `turns` | `text` (`null` for a structured action), `well_formed`, `results`, `fault`, `reward`, `terms` |
| `ending`, `cut` | why the rules ended the episode; why it was cut from outside |
| `correct` | whether it ended with the right answer; `null`: the judge of it abstained |
| `cost` | `decoding_s`, `model_s`, `environment_s`, `tokens_in`, `tokens_out`; where it was measured |
| `answer`, `reward` | the accepted answer or `null`, the sum of rewards: for other readers, not read back |

A result is an `action` (`kind` and what it asked for), the `clip` it brought or `null`, and an `error`
(`code`, `reason`) or `null`. An absent term is `null`. Numbers that JSON has no word for are `"nan"`,
`"inf"` and `"-inf"`. Fields that are not listed are passed over; one that is missing or of another type is
an error.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields, replace
from types import NoneType
from typing import Any, get_args, get_type_hints

import numpy as np

from videogym.cost import Cost
from videogym.geometry import Region, Segment
from videogym.metadata import Metadata
from videogym.mistakes import missing_fields
from videogym.state import Action, Clip, Ending, Invalid, Result, Task, TaskKind, Turn, action_kinds
from videogym.traces.trace import Trace, TurnTrace
from videogym.video import VideoMeta

_VERSION = 1  # of the format on disk
HEAD = f'{{"version": {_VERSION}, "run": "'.encode()  # what every line begins with
_LONGEST_S = 1e9  # seconds, as in task files
_WIDEST = 1 << 20  # pixels, more than any codec has
_LARGEST = sys.float_info.max
_MOST = 1e15  # frames, frames a second, degrees
_OF_TRACE = ("recipe", "task", "video", "skim", "turns", "ending", "cut", "correct")
_NOT_FINITE = ("nan", "inf", "-inf")
_Row = Mapping[str, Any]


class TraceError(ValueError):
    """A stored episode cannot be read. The message names file, line and field."""


# --- writing -----------------------------------------------------------------------------------


def to_line(trace: Trace) -> bytes:
    """The line of a trace, in UTF-8, with its line feed."""
    row = {
        "version": _VERSION,
        "run": trace.run,
        "recipe": trace.recipe,
        "task": _task_row(trace.task),
        "video": asdict(trace.video),
        "skim": _clip_row(trace.skim),
        "turns": [_turn_row(turn) for turn in trace.turns],
        "ending": trace.ending,
        "cut": trace.cut,
        "correct": trace.correct,
        "answer": trace.answer,
        "reward": _written(trace.reward),
    } | ({} if trace.cost is None else {"cost": asdict(trace.cost)})
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can say
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def _task_row(task: Task) -> dict[str, Any]:
    evidence = None if task.evidence is None else [[s.start_s, s.end_s] for s in task.evidence]
    task = replace(task, subtitles=()) if task.subtitles else task  # hours of them are long
    row = {**asdict(task), "evidence": evidence, "evidence_region": _box(task.evidence_region)}
    del row["metadata"], row["subtitles"]
    return row | ({"metadata": Metadata(task.metadata).to_json()} if task.metadata else {})


def _clip_row(clip: Clip) -> dict[str, Any]:
    row = {"times_s": clip.times_s, "region": _box(clip.region)}
    more = {"scale": clip.scale, "note": clip.note}
    return row | {name: value for name, value in more.items() if value not in (None, "")}


def _box(region: Region | None) -> tuple[float, ...] | None:
    return None if region is None else region.as_tuple()


def _turn_row(paid: TurnTrace) -> dict[str, Any]:
    turn = paid.turn
    row = {
        "text": turn.text,
        "well_formed": turn.well_formed,
        "results": [_result_row(result) for result in turn.results],
        "fault": turn.fault,
        "reward": _written(paid.reward),
        "terms": {name: None if value is None else _written(value) for name, value in paid.terms.items()},
    }
    return row if turn.verifier_answer is None else row | {"verifier_answer": turn.verifier_answer}


def _result_row(result: Result) -> dict[str, Any]:
    row: dict[str, Any] = {
        "action": _action_row(result.action),
        "clip": None if result.clip is None else _clip_row(result.clip),
        "error": None if result.error is None else asdict(result.error),
    }
    # Written where there is one: other lines stay as they were.
    return row if result.reply is None else row | {"reply": result.reply}


def _action_row(action: Action) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": action.kind}
    for one in fields(action):  # type: ignore[arg-type]  # a dataclass
        value = getattr(action, one.name)
        # Arguments that came later are written where they are given: other lines stay as they were.
        if not (one.metadata.get("later") and value == one.default):
            row[one.name] = _plain_value(value)
    return row


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):  # of a kind of one's own: ours hold Python's numbers
        value = value.tolist()
    if isinstance(value, tuple | list):
        return [_plain_value(item) for item in value]
    return _written(value) if isinstance(value, float) else value


def _written(value: float) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)


# --- reading -----------------------------------------------------------------------------------


def from_line(line: bytes, run: str | None = None) -> Trace:
    """The trace of a line.

    Args:
        line: with or without its line feed.
        run: name of the run where the line has no field ``run``; None: it must have one.

    Raises:
        TraceError: it is none of this version; the message names the field.
    """
    try:
        row = _object(json.loads(line.decode(), parse_constant=_no_constant), "the line")
        if row.get("version") != _VERSION:
            raise TraceError(f"field 'version' must be {_VERSION}, got {row.get('version')!r}")
        _require(row, ("run",) * (run is None) + _OF_TRACE)
        return Trace(
            run=_text(row, "run") if run is None or "run" in row else run,
            recipe=_text(row, "recipe"),
            task=_task(_object(_field(row, "task"), "task")),
            video=_video(_object(_field(row, "video"), "video")),
            skim=_clip(_field(row, "skim"), "skim"),
            turns=tuple(_turn(turn, f"turns[{i}]") for i, turn in enumerate(_list(row, "turns"))),
            ending=_one_of(row, "ending", get_args(Ending)),
            cut=_text(row, "cut"),
            correct=None if _field(row, "correct") is None else _flag(row, "correct"),
            cost=None if row.get("cost") is None else _cost(_object(row["cost"], "cost")),
        )
    except TraceError:
        raise
    except UnicodeDecodeError as error:
        raise TraceError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise TraceError(f"not JSON: {error}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise TraceError(str(error)) from error


def _no_constant(name: str) -> float:
    raise TraceError(f'{name} is no JSON; such a number is written as text, "nan", "inf" or "-inf"')


def _task(row: _Row) -> Task:
    _require(row, (one.name for one in fields(Task) if one.name not in ("metadata", "subtitles")))
    evidence = None
    if _field(row, "evidence") is not None:
        evidence = tuple(_segment(pair) for pair in _list(row, "evidence"))
    return Task(
        task_id=_text(row, "task_id"),
        video=_text(row, "video"),
        question=_text(row, "question"),
        kind=_one_of(row, "kind", get_args(TaskKind)),
        options=tuple(_typed(option, "options", str) for option in _list(row, "options")),
        answer=_text(row, "answer"),
        evidence=evidence,
        source=_text(row, "source"),
        evidence_region=_region(row, "evidence_region"),
        metadata=_object(row.get("metadata", {}), "metadata"),
    )


def _cost(row: _Row) -> Cost:
    seconds: dict[str, Any] = {name: row.get(name) for name in ("decoding_s", "model_s", "environment_s")}
    tokens: dict[str, Any] = {name: row.get(name) for name in ("tokens_in", "tokens_out")}
    for kinds, values in (((int, float), seconds), ((int, type(None)), tokens)):
        for name, value in values.items():
            _typed(value, f"cost.{name}", kinds)
    if not all(map(math.isfinite, seconds.values())):
        raise TraceError(f"field 'cost' must hold finite seconds, got {_short(row)}")
    return Cost(**seconds, **tokens)


def _segment(pair: Any) -> Segment:
    if not isinstance(pair, list) or len(pair) != 2:
        raise TraceError(f"field 'evidence' must be [[start_s, end_s], ...], got {_short(pair)}")
    return Segment(_real(pair[0], "evidence"), _real(pair[1], "evidence"))


def _video(row: _Row) -> VideoMeta:
    types: dict[str, Any] = {
        "str": str,
        "float": (int, float),
        "int": int,
        "bool": bool,
    }  # by the text of an annotation
    _require(row, (one.name for one in fields(VideoMeta)))
    facts = {f.name: _typed(_field(row, f.name), f.name, types[str(f.type)]) for f in fields(VideoMeta)}
    bounds = {"duration_s": _LONGEST_S, "width": _WIDEST, "height": _WIDEST, "num_frames": _MOST}
    for name, most in (bounds | {"avg_fps": _MOST, "rotation": _MOST}).items():
        # Compared as it is: a whole number of JSON may be too large for a float, and for a message.
        if not abs(facts[name]) <= most:
            raise TraceError(f"field {name!r} must be at most {most:g}, got {_short(facts[name])}")
    if not facts["duration_s"] > 0:
        raise TraceError(f"field 'duration_s' must be seconds above 0, got {facts['duration_s']}")
    if min(facts["width"], facts["height"]) < 1:
        raise TraceError(f"a frame has at least one pixel, got {facts['width']} x {facts['height']}")
    return VideoMeta(**facts)


def _clip(value: Any, name: str) -> Clip:
    row = _object(value, name)
    _require(row, ("times_s", "region"))
    times = tuple(_typed(time, f"{name}.times_s", (int, float)) for time in _list(row, "times_s"))
    if not all(map(math.isfinite, times)):
        raise TraceError(f"field '{name}.times_s' must hold finite seconds")
    scale = None if row.get("scale") is None else _typed(row["scale"], f"{name}.scale", (int, float))
    if scale is not None and not 0 < scale <= _LARGEST:
        raise TraceError(f"field '{name}.scale' must be a finite number above 0, got {_short(scale)}")
    note = _typed(row.get("note", ""), f"{name}.note", str)
    return Clip(times, _region(row, "region"), None if scale is None else float(scale), note)


def _region(row: _Row, name: str) -> Region | None:
    if _field(row, name) is None:
        return None
    box = _list(row, name)
    if len(box) != 4:
        raise TraceError(f"field {name!r} must be [x0, y0, x1, y1], got {_short(box)}")
    return Region(*(_real(side, name) for side in box))


def _turn(value: Any, name: str) -> TurnTrace:
    row = _object(value, name)
    _require(row, ("text", "well_formed", "results", "fault", "reward", "terms"))
    text = _field(row, "text")
    turn = Turn(
        results=tuple(
            _result(item, f"{name}.results[{i}]") for i, item in enumerate(_list(row, "results"))
        ),
        text=None if text is None else _typed(text, f"{name}.text", str),
        well_formed=_flag(row, "well_formed"),
        fault=_text(row, "fault"),
        verifier_answer=_verifier_answer(row),
    )
    terms = _object(_field(row, "terms"), f"{name}.terms")
    paid = {term: None if value is None else _real(value, term) for term, value in terms.items()}
    return TurnTrace(turn, _real(_field(row, "reward"), f"{name}.reward"), paid)


def _verifier_answer(row: _Row) -> str | None:
    """What a verifier said; lines of before have it under another name."""
    name = "again" if "again" in row else "verifier_answer"
    return None if row.get(name) is None else _text(row, name)


def _result(value: Any, name: str) -> Result:
    row = _object(value, name)
    _require(row, ("action", "clip", "error"))
    clip, error = _field(row, "clip"), _field(row, "error")
    return Result(
        action=_action(_object(_field(row, "action"), f"{name}.action")),
        clip=None if clip is None else _clip(clip, f"{name}.clip"),
        error=None if error is None else _invalid(_object(error, f"{name}.error")),
        reply=None if row.get("reply") is None else _text(row, "reply"),
    )


def _action(row: _Row) -> Action:
    """An action as the policy asked for it, unchecked; a field that has a default may be missing."""
    name, known = _text(row, "kind"), action_kinds()
    if name not in known:
        raise TraceError(
            f"field 'kind' must be one of {', '.join(map(repr, known))}, got {_short(name)}; for one of "
            "your own import its module first, on the command line by `videogym --import MODULE`"
        )
    kind = known[name]
    _require(row, (f.name for f in fields(kind) if f.default is MISSING))  # type: ignore[arg-type]
    types = get_type_hints(kind)
    values = {
        f.name: _value(_field(row, f.name), f.name, types[f.name])
        for f in fields(kind)  # type: ignore[arg-type]  # a dataclass
        if f.name in row or f.default is MISSING
    }
    return kind(**values)


def _value(value: Any, name: str, kind: Any) -> Any:
    """A field of an action, by its annotation."""
    if NoneType in get_args(kind):
        if value is None:
            return None
        kind = next((one for one in get_args(kind) if one in (str, int, bool, float)), kind)
    if kind is str and value is None:  # what was asked for was no text, and was refused
        return None
    if kind in (str, int, bool):
        return _typed(value, name, kind)
    if kind is float:
        return _real(value, name)
    return tuple(_real(item, name) for item in _typed(value, name, list))


def _invalid(row: _Row) -> Invalid:
    _require(row, ("code", "reason"))
    return Invalid(_text(row, "code"), _text(row, "reason"))


def _require(row: _Row, names: Iterable[str]) -> None:
    if lacking := missing_fields(row, names):
        raise TraceError(lacking)


def _field(row: _Row, name: str) -> Any:
    _require(row, (name,))
    return row[name]


def _typed(value: Any, name: str, kind: type | tuple[type, ...]) -> Any:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    # In Python a truth value is a number, in JSON it is not.
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(one.__name__ for one in kinds)
        raise TraceError(f"field {name!r} must be {names}, got {_short(value)}")
    return value


def _text(row: _Row, name: str) -> str:
    return str(_typed(_field(row, name), name, str))


def _flag(row: _Row, name: str) -> bool:
    return bool(_typed(_field(row, name), name, bool))


def _list(row: _Row, name: str) -> list[Any]:
    return list(_typed(_field(row, name), name, list))


def _object(value: Any, name: str) -> _Row:
    return dict(_typed(value, name, dict))


def _real(value: Any, name: str) -> float:
    return float(value if value in _NOT_FINITE else _typed(value, name, (int, float)))


def _one_of(row: _Row, name: str, allowed: tuple[str, ...]) -> Any:
    value = _text(row, name)
    if value not in allowed:
        raise TraceError(
            f"field {name!r} must be one of {', '.join(map(repr, allowed))}, got {_short(value)}"
        )
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
