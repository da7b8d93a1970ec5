"""``videogym look``: properties of a video or a task, and a contact sheet of its frames."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videogym.cli.options import add_command
from videogym.datasets import check_evidence, check_same_video, load_tasks
from videogym.geometry import Region, Segment
from videogym.mistakes import printable
from videogym.rendering import evidence_times
from videogym.state import Task
from videogym.video import FrameStore, Video, fit_within
from videogym.video.addresses import is_address
from videogym.video.scan import unshown_streams
from videogym.writing import appearing

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
_THUMB = (240, 135)  # width and height that a frame fits into, pixels
_GAP, _LABEL = 8, 18  # pixels between frames, and of a line of text
_PAPER, _INK, _FAINT, _EVIDENCE = "#ffffff", "#1d2433", "#667085", "#2e9e5b"
_EDGE = 3  # pixels of the line around a frame of the evidence
_MOST_FRAMES = 1000


def add_look(commands: Any) -> None:
    """``videogym look``."""
    parser = add_command(
        commands,
        "look",
        help="properties of a video or a task, and a contact sheet of its frames",
        description="Print the properties of a video, and draw frames with their times on a contact sheet. "
        "With --tasks also a question about it, its answer, and its evidence, whose frames are added and "
        "edged in green.",
        epilog="  videogym look a.mp4                                         in words\n"
        "  videogym look a.mp4 --out a.jpg                             24 frames of the whole video\n"
        "  videogym look a.mp4 --from 61.5 --to 64 --frames 50 --out part.png\n"
        "  videogym look 'synthetic:brief_event?level=0&duration_s=600&seed=1' --out s.png\n"
        "  videogym look --tasks tasks.jsonl --task-id mine-17 --video-root videos/ --out mine-17.jpg\n\n"
        "A file that is refused is explained by `videogym doctor`.",
    )
    parser.add_argument(
        "video",
        nargs="?",
        metavar="VIDEO",
        help="path of a file, or a synthetic: or planted-video: address (default: that of a task)",
    )
    parser.add_argument(
        "--tasks",
        metavar="SOURCE",
        help="show a task of this source, with its answer: a task file, FORMAT:PATH of a published data "
        "set, or procedural: or planted: source (default: a video is shown)",
    )
    parser.add_argument("--task-id", metavar="ID", help="which task (default: the first)")
    parser.add_argument(
        "--video-root", metavar="DIR", help="folder below which relative video paths lie (default: none)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="image file of the contact sheet, .jpg or .png (default: no sheet)",
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=24,
        metavar="N",
        help="number of frames on the sheet (default: %(default)s)",
    )
    parser.add_argument(
        "--from", type=float, dest="start", metavar="SECONDS", help="time of the first frame (default: 0)"
    )
    parser.add_argument(
        "--to",
        type=float,
        dest="end",
        metavar="SECONDS",
        help="end of the part that is shown (default: that of the video)",
    )
    parser.set_defaults(run=_look)


def _look(arguments: argparse.Namespace) -> int:
    if arguments.out is not None and arguments.out.suffix.lower() not in _FORMATS:
        raise ValueError(f"--out must end in {', '.join(_FORMATS)}, got {arguments.out}")
    if not 1 <= arguments.frames <= _MOST_FRAMES:
        raise ValueError(f"--frames must be 1 to {_MOST_FRAMES}, got {arguments.frames}")
    if (arguments.video is None) == (arguments.tasks is None):
        raise ValueError("name either a VIDEO or the source of a task, --tasks")
    if arguments.task_id is not None and arguments.tasks is None:
        raise ValueError("--task-id needs the source of the task, --tasks")
    task = None if arguments.tasks is None else _chosen(arguments)
    name = arguments.video if task is None else task.video
    with FrameStore(video_root=arguments.video_root) as store:
        video = store.open(name)
        lines = description(name, video)
        title = f"{name}   {lines[1]}"
        if not is_address(name):
            lines += [f"not shown: {other}" for other in unshown_streams(store.located(name), covers=True)]
        if task is not None:
            check_same_video(task, video.meta)
            check_evidence(task, video.meta.duration_s)
            lines, title = [*task_lines(task), *lines], f"{task.task_id}   {task.question}"
        part = _part(video, arguments.start, arguments.end)
        print("\n".join(map(printable, lines)))
        if arguments.out is not None:
            _save(contact_sheet(video, part, arguments.frames, title, task), arguments.out)
            print(arguments.out)
    return 0


def _chosen(arguments: argparse.Namespace) -> Task:
    """The task that is named, or the first.

    Raises:
        ValueError: there is no such task, or none at all.
    """
    tasks = load_tasks(arguments.tasks, arguments.video_root)
    if arguments.task_id is not None:
        return tasks.by_id(arguments.task_id)
    if not len(tasks):
        raise ValueError(f"{arguments.tasks} has no task")
    return tasks[0]


def task_lines(task: Task) -> list[str]:
    """What is asked, what is right, and where it is seen."""
    right = None if task.kind != "choice" else task.letters.index(task.answer)
    lines = [f"task {task.task_id}", task.question]
    lines += [f"{text}{' (right)' * (i == right)}" for i, text in enumerate(task.labelled_options)]
    if right is None:
        lines.append(f"answer: {task.answer}")
    if task.evidence is None:
        lines.append("no evidence is annotated")
    lines += [f"evidence from {s.start_s:.3f} to {s.end_s:.3f} s" for s in task.evidence or ()]
    if task.evidence_region is not None:
        lines.append(
            f"evidence in the region {', '.join(f'{x:.3f}' for x in task.evidence_region.as_tuple())}"
        )
    return lines


def _part(video: Video, start_s: float | None, end_s: float | None) -> Segment:
    length_s = video.meta.duration_s
    if start_s is not None and start_s >= length_s:
        raise ValueError(f"--from {start_s:g} is not before the end of the video, {length_s:g} s")
    part = Segment(0.0 if start_s is None else start_s, length_s if end_s is None else end_s)
    return Segment(part.start_s, min(part.end_s, length_s))


def description(source: str, video: Video) -> list[str]:
    """What a video is, in a few lines."""
    meta, steps = video.meta, np.diff(video.pts_s)
    turned = f", turned by {meta.rotation} degrees" if meta.rotation else ""
    lines = [
        source,
        f"{meta.width}x{meta.height}{turned}, {meta.codec}, "
        f"{_clock(meta.duration_s)} ({meta.duration_s:.3f} s)",
        f"{meta.num_frames} frames, {meta.avg_fps:.3f} a second, at "
        + ("a variable rate" if meta.is_vfr else "a constant rate"),
    ]
    if len(steps):
        widest = f", widest after {video.pts_s[steps.argmax()]:.3f} s" if meta.is_vfr else ""
        lines.append(
            f"frames from 0.000 to {video.pts_s[-1]:.3f} s, {1000 * steps.min():.1f} to "
            f"{1000 * steps.max():.1f} ms apart{widest}"
        )
    return [*lines, f"fingerprint {meta.fingerprint}"]


def contact_sheet(
    video: Video, part: Segment, count: int, title: str, task: Task | None = None
) -> Image.Image:
    """Frames with their times, evenly spread over a part of a video, each shown once.

    Args:
        video: any video.
        part: of it.
        count: of frames that are spread, at most.
        title: above them.
        task: frames of its evidence in that part are added, and edged in green; its region is marked.

    Raises:
        VideoError: a frame cannot be decoded.
    """
    wanted = np.linspace(part.start_s, part.end_s, count, endpoint=False)
    spread = np.searchsorted(video.pts_s, wanted, side="right") - 1
    evidence = () if task is None else task.evidence or ()
    shown = {time_s for segment in evidence for time_s in evidence_times(video.pts_s, segment)}
    added = [time_s for time_s in shown if part.contains(time_s)]
    times_s = np.unique([*video.pts_s[np.maximum(spread, 0)], *added])
    size = fit_within(video.meta.width, video.meta.height, _THUMB)
    pixels = video.frames_at(times_s.tolist(), size=size, resizer="area").pixels
    sheet = _drawn(pixels, times_s, title)
    shown |= {t for t in times_s.tolist() if any(segment.contains(t) for segment in evidence)}
    marked = [i for i, time_s in enumerate(times_s.tolist()) if time_s in shown]
    places = [_place(i, len(times_s), size) for i in marked]
    _mark(sheet, places, size, None if task is None else task.evidence_region)
    return sheet


def _drawn(pixels: NDArray[np.uint8], times_s: NDArray[np.float64], title: str) -> Image.Image:
    count, height, width, _ = pixels.shape
    columns = _columns(count, (width, height))
    rows = -(-count // columns)
    right, down = width + _GAP, height + _LABEL + _GAP
    sheet = Image.new(
        "RGB", (max(columns * right, 2 * right) + _GAP, rows * down + _LABEL + 2 * _GAP), _PAPER
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    draw.text((_GAP, _GAP), printable(title), fill=_INK, font=font)
    for i, (frame, time_s) in enumerate(zip(pixels, times_s.tolist(), strict=True)):
        left, top = _place(i, count, (width, height))
        sheet.paste(Image.fromarray(frame), (left, top))
        draw.text((left, top + height + 1), f"{_clock(time_s)}  {time_s:.3f} s", fill=_FAINT, font=font)
    return sheet


def _mark(
    sheet: Image.Image, places: Sequence[tuple[int, int]], size: tuple[int, int], region: Region | None
) -> None:
    """Edge frames at some places, outside of their pixels, and a region in them."""
    draw, (width, height) = ImageDraw.Draw(sheet), size
    for left, top in places:
        around = left - _EDGE, top - _EDGE, left + width + _EDGE - 1, top + height + _EDGE - 1
        draw.rectangle(around, outline=_EVIDENCE, width=_EDGE)
        if region is not None:
            x0, y0, x1, y1 = region.as_tuple()
            x0, y0 = left + x0 * width, top + y0 * height
            # One that is smaller than a pixel is a pixel.
            x1, y1 = max(x0, left + x1 * width - 1), max(y0, top + y1 * height - 1)
            draw.rectangle((x0, y0, x1, y1), outline=_EVIDENCE)


def _columns(count: int, size: tuple[int, int]) -> int:
    width, height = size
    return min(max(1, round(math.sqrt(count * (height + _LABEL) / width * 16 / 9))), count)


def _place(i: int, count: int, size: tuple[int, int]) -> tuple[int, int]:
    """Left and top of a frame on the sheet."""
    row, column = divmod(i, _columns(count, size))
    return _GAP + column * (size[0] + _GAP), _LABEL + 2 * _GAP + row * (size[1] + _LABEL + _GAP)


def _clock(time_s: float) -> str:
    """``h:mm:ss``, cut, not rounded."""
    return str(timedelta(seconds=int(time_s)))


def _save(sheet: Image.Image, path: Path) -> None:
    """Write a picture that appears when it is whole."""
    with appearing(path) as partial:
        sheet.save(partial, _FORMATS[path.suffix.lower()], quality=90)
