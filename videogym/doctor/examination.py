"""One file examined: whether it can be used, what is wrong with it and how to mend that.

A file that is sound here is one that the environment plays, since it is opened by the same reader, whose
packet table stays in the cache. Native decoders can hang and crash: `examine_all` works in processes that
may do so, `examine` in this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from videogym.doctor.causes import Finding, finding
from videogym.doctor.diagnosis import check_path, diagnose
from videogym.isolation import Lost, run_isolated
from videogym.state import Rules
from videogym.video import VideoChanged, VideoError, VideoMeta, open_video
from videogym.video.addresses import is_address
from videogym.video.packets import PacketTable
from videogym.video.pyav_reader import PyAVVideo
from videogym.video.scan import unshown_streams

Decode = Literal["none", "some", "all"]

_SOME_FRAMES = 2000  # decoded of a longer file
_SOME_PLACES = 20  # where
_CHUNK = 64  # frames decoded between two signs of life
_HUGE_GROUP = 600  # frames; encoders leave up to 300
_GAP_S = 10.0
_NAMED = 3  # damaged times that are told one by one


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file that can be opened is."""

    video: VideoMeta
    container: str  # libav's name of the format
    longest_group: int  # frames, from one keyframe up to the next
    frames_decoded: int  # how many were tried


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found in one file."""

    path: str
    findings: tuple[Finding, ...] = ()
    facts: Facts | None = None  # None: it cannot be opened

    @property
    def usable(self) -> bool:
        """Whether no finding is an error."""
        return all(found.severity != "error" for found in self.findings)


def examine(
    path: str,
    *,
    decode: Decode = "some",
    cache_dir: str | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Examination:
    """Examine one file in this process.

    Args:
        path: of the file, or an address, which is opened and not decoded.
        decode: ``"none"`` reads packet headers; ``"some"`` also decodes up to 2000 frames, in 20 places of
            a longer file; ``"all"`` decodes every frame.
        cache_dir: where packet tables are kept; None means ``$VIDEOGYM_CACHE`` or ``~/.cache/videogym``.
        alive: called from time to time.

    Raises:
        ValueError: ``decode`` is none of those.
    """
    if decode not in get_args(Decode):
        raise ValueError(f"decode must be one of {get_args(Decode)}, got {decode!r}")
    if is_address(path):
        return _examine_address(path)
    closed = check_path(path)
    if closed is not None:
        return Examination(path, (closed,))
    try:
        video = _Examined(path, cache_dir=cache_dir)
    except VideoError as error:
        return Examination(path, (diagnose(path, error),))
    alive()
    with video:
        tried, damage = _decoded(path, video, decode, alive)
        doubts = list(_of_missing_frames(path, video))
    longest = int(np.bincount(video.table.key_of).max())
    facts = Facts(video.meta, video.table.container, longest, tried)
    notes = [*doubts, *_notes(path, facts, video.pts_s), *_of_other_streams(path, facts)]
    return Examination(path, (*damage, *notes), facts)


def examine_all(
    paths: Iterable[str],
    *,
    decode: Decode = "some",
    cache_dir: str | None = None,
    children: int = 1,
    deadline_s: float = 60.0,
) -> Iterator[tuple[int, Examination]]:
    """Examine files in child processes, so that none can hang or crash this one.

    Args:
        paths: of the files.
        decode: as for `examine`.
        cache_dir: as for `examine`.
        children: how many processes work at once.
        deadline_s: seconds without progress on one file after which it is given up.

    Yields:
        The place of a file and its examination, in the order in which they come.

    Raises:
        ValueError: an argument is out of range.
        ChildProcessError: no process can be started.
    """
    if decode not in get_args(Decode):
        raise ValueError(f"decode must be one of {get_args(Decode)}, got {decode!r}")
    listed = list(paths)
    requests = [(path, decode, cache_dir) for path in listed]
    for place, answer in run_isolated(_examine, requests, children=children, deadline_s=deadline_s):
        if isinstance(answer, Lost):
            found = finding(answer.cause, listed[place], f"reading it: {answer.message}")
            answer = Examination(listed[place], (found,))
        yield place, answer


def _examine(request: tuple[str, Decode, str | None], alive: Callable[[], None]) -> Examination:
    path, decode, cache_dir = request
    return examine(path, decode=decode, cache_dir=cache_dir, alive=alive)


def _examine_address(address: str) -> Examination:
    try:
        with open_video(address) as video:
            return Examination(address, (), Facts(video.meta, address.partition(":")[0], 1, 0))
    except VideoError as error:
        return Examination(address, (finding("address", address, str(error)),))


class _Examined(PyAVVideo):
    """The reader, which also shows its packet table."""

    @property
    def table(self) -> PacketTable:
        return self._table


# --- what can be said without decoding -----------------------------------------------------------


def _notes(path: str, facts: Facts, pts_s: NDArray[np.float64]) -> Iterator[Finding]:
    video = facts.video
    if video.num_frames < 2:
        yield finding("too_short", path, "it has one frame")
        return
    if video.duration_s > Rules.max_duration_s:
        said = f"it lasts {video.duration_s:.0f} s, at most {Rules.max_duration_s:.0f} s fit"
        yield finding("too_long", path, said)
    steps = np.diff(pts_s)
    if video.is_vfr:
        least, most = 1000 * steps.min(), 1000 * steps.max()
        yield finding("variable_rate", path, f"its frames are {least:.0f} to {most:.0f} ms apart")
    widest = int(steps.argmax())
    if steps[widest] > max(_GAP_S, 10 * float(np.median(steps))):
        span = _span(pts_s[widest], pts_s[widest + 1])
        yield finding("gap", path, f"no new frame comes from {span}")
    if facts.longest_group > _HUGE_GROUP:
        yield finding("huge_group", path, f"{facts.longest_group} frames follow one keyframe")
    if video.rotation:
        yield finding("rotated", path, f"it is shown turned by {video.rotation} degrees")


def _of_missing_frames(path: str, video: _Examined) -> Iterator[Finding]:
    """Holes in the times of a codec that cannot tell whether later frames refer to what is missing."""
    doubtful = np.flatnonzero(video.table.doubtful)
    if len(doubtful):
        places = doubtful[np.diff(doubtful, prepend=-2) > 1]
        more = f", and at {len(places) - 1} more places" if len(places) > 1 else ""
        after_s, codec = video.pts_s[places[0] - 1], video.meta.codec
        said = (
            f"frames after {after_s:.2f} s are missing{more}; {codec} does not tell whether the "
            f"{len(doubtful)} frames from there to the next keyframe refer to them"
        )
        yield finding("missing_frames", path, said)


def _of_other_streams(path: str, facts: Facts) -> Iterator[Finding]:
    try:
        others = unshown_streams(path, covers=False)
    except VideoError as error:
        yield finding("changing", path, str(error))
        return
    if others:
        video = facts.video
        shown = f"{video.codec}, {video.width}x{video.height}"
        yield finding("other_streams", path, f"{shown} is shown, and not {', '.join(others)}")


# --- decoding ------------------------------------------------------------------------------------


def _decoded(
    path: str, video: _Examined, how: Decode, alive: Callable[[], None]
) -> tuple[int, list[Finding]]:
    """How many frames were tried, and what that showed."""
    key_of = video.table.key_of
    lost = set(key_of[video.table.lost].tolist())
    groups = list(_groups(key_of, how))
    tried, bad = 0, lost.copy()
    for group in groups:
        if int(key_of[group[0]]) in lost:
            continue
        tried += len(group)
        try:
            for start in range(0, len(group), _CHUNK):
                times = video.pts_s[group[start : start + _CHUNK]].tolist()
                video.frames_at(times, size=(16, 16), resizer="bilinear")
                alive()
        except VideoChanged as error:
            return tried, [finding("changing", path, str(error))]
        except VideoError:
            bad.add(int(key_of[group[0]]))
    if not bad:
        return tried, []
    spans = [_group_span(video, key) for key in sorted(bad)]
    more = f" and {len(spans) - _NAMED} more" if len(spans) > _NAMED else ""
    looked_at = len(lost.union(int(key_of[group[0]]) for group in groups))
    said = f"{len(spans)} of {looked_at} groups of pictures that were tried cannot be decoded: "
    return tried, [finding("damaged_frames", path, said + "; ".join(spans[:_NAMED]) + more)]


def _group_span(video: _Examined, key: int) -> str:
    """From the first frame of a group of pictures to the end of its last."""
    places = np.flatnonzero(video.table.key_of == key)
    after = int(places[-1]) + 1
    end_s = video.pts_s[after] if after < len(video.pts_s) else video.meta.duration_s
    return _span(video.pts_s[places[0]], end_s)


def _groups(key_of: NDArray[np.int32], how: Decode) -> Iterator[NDArray[np.intp]]:
    """Ordinals of frames to be decoded, one group of pictures after the other."""
    if how == "none":
        return
    starts = np.flatnonzero(np.diff(key_of, prepend=-1))
    ends = np.append(starts[1:], len(key_of))
    most = len(key_of)
    if how == "some" and most > _SOME_FRAMES:
        chosen = np.unique(np.linspace(0, len(starts) - 1, _SOME_PLACES).round().astype(int))
        starts, ends, most = starts[chosen], ends[chosen], _SOME_FRAMES // len(chosen)
    for start, end in zip(starts, ends, strict=True):
        yield np.arange(start, min(end, start + most))


def _span(start_s: float, end_s: float) -> str:
    return f"{start_s:.2f} to {end_s:.2f} s"
