"""``videogym index``: packet tables and frame grids, made ahead of time."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from videogym.actions import begin
from videogym.cli.doctor import answers_in_order
from videogym.cli.options import add_command, add_places, add_processes
from videogym.cli.places import find_places
from videogym.cli.terminal import progress_bar
from videogym.isolation import Lost, run_isolated
from videogym.mistakes import printable
from videogym.recipes import get_recipe
from videogym.sizes import resized
from videogym.state import Task
from videogym.video import FrameStore, Video, VideoError, fit_within
from videogym.video.cache import cache_root
from videogym.video.file_video import FileVideo
from videogym.video.packets import TABLE_FORMAT, load_table


@dataclass(frozen=True, slots=True)
class Request:
    """One video to be indexed."""

    path: str
    recipe: str | None  # whose first frames are kept; None: no frames
    box: tuple[int, int] | None  # (width, height) that a kept frame fits into; None: the recipe's pixels


@dataclass(frozen=True, slots=True)
class Indexed:
    """What there is of a video now."""

    path: str
    frames: int  # of the video
    grid: str | None  # folder of the frames that are kept
    problem: str = ""  # why there is none of it


def add_index(commands: Any) -> None:
    """``videogym index``."""
    parser = add_command(
        commands,
        "index",
        help="build packet tables and frame grids ahead of time",
        description="Read the packet table of every video, which takes a second for three hours of video "
        "and would otherwise be done when an episode opens it. With --recipe, also decode the frames that "
        "every episode of it begins with, for all processes: 32 of them with 224x126 pixels take 3 MB.",
        epilog="What is there is not made again, and a run that is killed leaves nothing half-made:\n"
        "start it again. All goes to $VIDEOGYM_CACHE or ~/.cache/videogym, which may be deleted.\n\n"
        "  videogym index videos/\n"
        "  videogym index tasks.jsonl --video-root videos/ --recipe VIDEO_MTR/paper\n"
        "  videogym index videos/ --recipe DEFAULT --frame-size 224x224\n\n"
        "Exit status: 0 all are indexed, 1 some cannot be used (`videogym doctor` says why),\n"
        "2 the command was not understood.",
    )
    add_places(parser)
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="also decode the frames that episodes of this recipe begin with (default: no frames)",
    )
    parser.add_argument(
        "--frame-size",
        metavar="WxH",
        type=_box,
        help="box that kept frames fit into, as VideoQAEnv(observe='pixels', frame_size=...) shows them "
        "(default: the recipe's pixel budget, as policies that resolve references see them)",
    )
    add_processes(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line for every video")
    parser.set_defaults(run=_index)


def _box(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (
        width.isdecimal() and height.isdecimal() and 1 <= int(width) <= 4096 and 1 <= int(height) <= 4096
    ):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT within 1 to 4096, got {text!r}")
    return int(width), int(height)


def _index(arguments: argparse.Namespace) -> int:
    if arguments.recipe is not None:
        get_recipe(arguments.recipe)  # raises here, before any work
    elif arguments.frame_size is not None:
        raise ValueError("--frame-size is of kept frames: give a --recipe too")
    places, wrong = find_places(arguments.places, arguments.video_root)
    done = [Indexed(e.path, 0, None, "; ".join(f.message for f in e.findings)) for e, _ in wrong]
    for one in done:
        _tell(one, arguments.json)
    requests = [Request(place.path, arguments.recipe, arguments.frame_size) for place in places]
    answers = run_isolated(index, requests, children=arguments.jobs, deadline_s=arguments.deadline)
    progress = progress_bar("videos")
    for request, answer in answers_in_order(requests, answers, progress):
        if isinstance(answer, Lost):
            answer = Indexed(request.path, 0, None, f"reading it: {answer.message}")
        done.append(answer)
        _tell(answer, arguments.json)
    progress.clear()
    bad = sum(bool(one.problem) for one in done)
    if not arguments.json:
        print(f"{len(done) - bad} of {len(done)} videos are indexed in {cache_root()}")
    return int(bad > 0)


def _tell(indexed: Indexed, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(indexed)), flush=True)
    elif indexed.problem:
        print(f"BAD   {printable(indexed.path)}\n      {printable(indexed.problem)}", flush=True)


def index(request: Request, alive: Callable[[], None]) -> Indexed:
    """Make what there is not yet of one video.

    Raises:
        OSError: the cache cannot be written.
    """
    grid = None
    try:
        with FrameStore() as store:
            video = store.open(request.path)
            alive()
            _require_kept(video)
            if request.recipe is not None:
                times_s, size = _first_frames(request, video)
                folder = store.build_grid(
                    request.path, size=size, times_s=times_s, progress=lambda done, total: alive()
                )
                grid = str(folder)
            return Indexed(request.path, video.meta.num_frames, grid)
    except (VideoError, ValueError) as error:  # ValueError: it does not fit the recipe
        return Indexed(request.path, 0, None, str(error))


def _require_kept(video: Video) -> None:
    """A reader goes on where its table cannot be written; here that is a failure."""
    if isinstance(video, FileVideo):
        key = video.cache_key.removesuffix(f"-{video.backend}")
        sidecar = cache_root() / "tables" / f"{key}-{TABLE_FORMAT}.npz"
        if load_table(sidecar) is None:
            raise OSError(f"the packet table could not be kept in {sidecar.parent}")


def _first_frames(request: Request, video: Video) -> tuple[list[float], tuple[int, int]]:
    """Times and size of the frames that an episode begins with: its pool and its skim."""
    assert request.recipe is not None
    recipe, meta = get_recipe(request.recipe), video.meta
    nobody = Task("index", request.path, "?", "open")
    state = begin(nobody, meta, video.pts_s, recipe.rules, recipe.identity)
    times_s = sorted({*state.pool_s, *state.skim.times_s})
    if request.box is not None:
        return times_s, fit_within(meta.width, meta.height, request.box)
    return times_s, resized(recipe.rules, meta.width, meta.height)
