"""The page: stored episodes in one HTML file that needs nothing but itself, or a folder if they are many.

Texts of tasks and policies are escaped where they are printed, and the page's policy for content lets
no script run but its own and what that asks for: what gets past the one meets the other.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence, Sized
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from videogym.report.episodes import episode_view, signed
from videogym.report.metrics import GroupedMetrics, RunMetrics
from videogym.report.parts import EpisodeFiles
from videogym.report.publishing import data_folder, forget_leftovers, publish
from videogym.report.sources import Sources
from videogym.report.texts import visible
from videogym.report.thumbnails import Thumbnails
from videogym.report.timeline import clock, seconds
from videogym.traces import Trace
from videogym.video import FrameStore

try:
    import jinja2
    from markupsafe import Markup
except ModuleNotFoundError as error:
    raise ImportError(
        "the report needs Jinja2: pip install jinja2 (it is in the extra 'videogym[report]')"
    ) from error


class Episodes(Protocol):
    """Stored episodes: `videogym.traces.Traces`; or `Sources`, which are read as they are reported."""

    @property
    def torn(self) -> int:
        """Last lines that were left out, known when all is read."""

    def __iter__(self) -> Iterator[Trace]:
        """Read from the beginning."""


def write_report(
    traces: Episodes,
    out: str | os.PathLike[str],
    compare: Episodes | None = None,
    *,
    store: FrameStore | None = None,
    thumbnails: int = 12,
    title: str = "videogym report",
    by: Sequence[str] = (),
    progress: Callable[[int, int | None], None] | None = None,
) -> Path | None:
    """Write episodes as a page. It appears when it is whole, in place of one that was there.

    A video that cannot be used costs its pictures, and the page says why. Above `parts.MOST_EPISODES`
    episodes, or `parts.MOST_PAGE_BYTES` of them, the page reads them from a folder beside it.

    Args:
        traces: the episodes, of one run or of several.
        out: the HTML file, in a folder that exists.
        compare: other episodes; the page opens with the first run of each side by side.
        store: where frames come from; one of its own by default, without a video root.
        thumbnails: most pictures of an episode; 0 for a page without any.
        title: of the page.
        by: names of fields of `Task.metadata` by which metrics are grouped too.
        progress: called with (done, total) after every episode; of episodes that are read as they are
            reported the total is None.

    Returns:
        The folder without which the page is of no use; None where the page holds all.

    Raises:
        ValueError: there is no episode and no curve, ``thumbnails`` is negative, or no task has metadata of
            such a name.
        TraceError: episodes that are read as they are reported cannot be.
        OSError: the page cannot be written; one that was there is as it was.
    """
    if thumbnails < 0:
        raise ValueError(f"thumbnails must be at least 0, got {thumbnails}")
    page, made = Path(out), Thumbnails(store or FrameStore())
    forget_leftovers(page)
    episode_files, runs, environment = EpisodeFiles(page, made), dict[str, RunMetrics](), _environment()
    template = environment.from_string(_part("episode.html.jinja"))
    pair: list[str] = []  # the first run of each of the two sources
    grouped, total = GroupedMetrics(by), _total(traces, compare)
    curves = traces.curves if isinstance(traces, Sources) else ()
    try:
        for number, (source, run, trace) in enumerate(_named(traces, compare), start=1):
            pair += [run] * (source == len(pair))
            view = episode_view(number, trace, run, made, thumbnails)
            runs.setdefault(run, RunMetrics(run)).add(view)
            grouped.add(view)
            episode_files.add(view, template.render(e=view))
            if progress is not None:
                progress(number, total)
        if len(pair) < (1 if compare is None else 2) and (compare is not None or not curves):
            raise ValueError("; ".join(["there is no episode to report", *_notes(traces, compare)]))
        book = episode_files.close()
        if book is not None and episode_files.data is not None:
            book["folder"] = f"{data_folder(page).name}/{episode_files.data[1]}"
        texts = environment.from_string(_part("report.html.jinja")).generate(
            title=title,
            articles=map(Markup, episode_files.articles if book is None else ()),
            book=book,
            count=episode_files.count,
            runs=list(runs.values()),
            groups=grouped.tables(),
            recipes=sorted(episode_files.names["recipe"]),
            endings=sorted(episode_files.names["ending"]),
            pair=pair if compare else None,
            torn=traces.torn + (compare.torn if compare else 0),
            pictures=list(made.pictures.values()),
            curves=curves,
            notes=_notes(traces, compare),
            **_assets(),
        )
        publish(page, texts, episode_files.data)
    finally:
        episode_files.discard()
    return None if book is None else data_folder(page)


def _total(traces: Episodes, compare: Episodes | None) -> int | None:
    sources = [source for source in (traces, compare) if source is not None]
    known = [len(source) for source in sources if isinstance(source, Sized)]
    return sum(known) if len(known) == len(sources) else None


def _notes(*sources: Episodes | None) -> list[str]:
    return [note for source in sources if isinstance(source, Sources) for note in source.notes]


def _named(traces: Episodes, compare: Episodes | None) -> Iterator[tuple[int, str, Trace]]:
    """Every episode with the number of its source and the name of its run; a name in both is told apart."""
    taken = set()
    for trace in traces:
        taken.add(trace.run)
        yield 0, trace.run, trace
    if not taken and compare is not None:
        return
    for trace in compare or ():
        yield 1, f"{trace.run} (compared)" if trace.run in taken else trace.run, trace


# --- markup ------------------------------------------------------------------------------------


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"clock": clock, "seconds": seconds, "signed": signed}
    return environment


def _assets() -> dict[str, Any]:
    """What every page has, and a policy that knows its script by what it holds."""
    script = Markup(_part("report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": Markup(_part("report.css")), "script": script, "script_hash": digest}


def _part(name: str) -> str:
    return files("videogym.report").joinpath(name).read_text(encoding="utf-8")
