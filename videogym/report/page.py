"""The page: all episodes in one HTML file that needs nothing but itself.

Texts of tasks and policies are escaped where they are printed, and the page's policy for content lets
no script run but its own and nothing be fetched: what gets past the one meets the other.
"""

from __future__ import annotations

import base64
import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from videogym.evaluate import Estimate, mean, proportion
from videogym.report.episodes import EpisodeView, episode_view, signed
from videogym.report.thumbnails import SIZE, Thumbnails
from videogym.report.timeline import clock, seconds
from videogym.traces import Trace, Traces
from videogym.video import FrameStore

try:
    import jinja2
    from markupsafe import Markup
except ModuleNotFoundError as error:
    raise ImportError("the report needs Jinja2: pip install 'videogym[report]'") from error

# Characters without a shape, and halves of surrogate pairs, which no file can hold.
_SHAPELESS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class RunView:
    """Figures of one run, without episodes that had a fault, were left, or were not judged."""

    name: str
    recipes: tuple[str, ...]
    episodes: int
    left_out: int
    accuracy: Estimate | None
    reward: Estimate | None
    turns: Estimate | None
    frames: Estimate | None
    refused: Estimate | None  # share of turns that executed nothing
    tiou: Estimate | None


def write_report(
    traces: Traces,
    out: str | os.PathLike[str],
    compare: Traces | None = None,
    *,
    store: FrameStore | None = None,
    thumbnails: int = 12,
    title: str = "videogym report",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write episodes as a page. It appears when it is whole, in place of one that was there.

    A video that cannot be used costs its pictures, and the page says why.

    Args:
        traces: the episodes, of one run or of several.
        out: the HTML file, in a folder that exists.
        compare: other episodes; the page opens with the first run of each side by side.
        store: where frames come from; one of its own by default, without a video root.
        thumbnails: most pictures of an episode; 0 for a page without any.
        title: of the page.
        progress: called with (done, total) after every episode.

    Raises:
        ValueError: there is no episode, or ``thumbnails`` is negative.
        OSError: the file cannot be written; one that was there is as it was.
    """
    if thumbnails < 0:
        raise ValueError(f"thumbnails must be at least 0, got {thumbnails}")
    if not traces.episodes or (compare is not None and not compare.episodes):
        raise ValueError("there is no episode to report")
    named = _named(traces, compare)
    made = Thumbnails(store or FrameStore())
    views = []
    for number, (run, trace) in enumerate(named, start=1):
        views.append(episode_view(number, trace, run, made, thumbnails))
        if progress is not None:
            progress(number, len(named))
    runs = list(dict.fromkeys(run for run, _ in named))
    page = _render(
        title=title,
        episodes=views,
        runs=[_run_view(run, [view for view in views if view.run == run]) for run in runs],
        recipes=sorted({view.trace.recipe for view in views}),
        endings=sorted({view.ending for view in views}),
        pair=(runs[0], named[len(traces.episodes)][0]) if compare else None,
        torn=traces.torn + (compare.torn if compare else 0),
        pictures=Markup(json.dumps(made.pictures)),  # base64 alone
    )
    _publish(Path(out), page)


def _named(traces: Traces, compare: Traces | None) -> list[tuple[str, Trace]]:
    """Every episode with the name of its run; a name that both sides have is told apart."""
    named = [(trace.run, trace) for trace in traces.episodes]
    taken = {name for name, _ in named}
    others = compare.episodes if compare else ()
    return [*named, *((f"{t.run} (compared)" if t.run in taken else t.run, t) for t in others)]


def _run_view(name: str, views: Sequence[EpisodeView]) -> RunView:
    sound = [v for v in views if not v.faults and v.trace.cut in ("", "truncated")]
    sound = [v for v in sound if v.trace.correct is not None]
    tious = [view.tiou for view in sound if view.tiou is not None]
    turns = sum(len(view.turns) for view in sound)
    return RunView(
        name=name,
        recipes=tuple(dict.fromkeys(view.trace.recipe for view in views)),
        episodes=len(views),
        left_out=len(views) - len(sound),
        accuracy=proportion(sum(bool(v.trace.correct) for v in sound), len(sound)) if sound else None,
        reward=mean([v.trace.reward for v in sound]) if sound else None,
        turns=mean([len(v.turns) for v in sound]) if sound else None,
        frames=mean([v.trace.frames_shown for v in sound]) if sound else None,
        refused=proportion(sum(v.refused_turns for v in sound), turns) if turns else None,
        tiou=mean(tious) if tious else None,
    )


# --- markup ------------------------------------------------------------------------------------


def _render(**values: Any) -> str:
    script = Markup(_part("report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"clock": clock, "seconds": seconds, "signed": signed}
    template = environment.from_string(_part("report.html.jinja"))
    return template.render(
        **values,
        style=Markup(_part("report.css")),
        script=script,
        script_hash=digest,
        thumb_size=SIZE,
    )


def _part(name: str) -> str:
    return files("videogym.report").joinpath(name).read_text(encoding="utf-8")


def _visible(value: Any) -> Any:
    """A text in which every character has a shape: control characters that of their pictures."""
    return _SHAPELESS.sub(_shape, value) if type(value) is str else value


def _shape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def _publish(path: Path, text: str) -> None:
    """Write a file that appears when it is whole."""
    _forget_leftovers(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _forget_leftovers(path: Path) -> None:
    """Remove what writers of the same page left that were killed while they wrote."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        writer = leftover.name.split(".")[-2]
        with suppress(OSError):  # another writer was faster
            if writer.isdigit() and not _runs(int(writer)):
                leftover.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True
