"""``videogym look``: properties of a video, and a contact sheet of its frames."""

from __future__ import annotations

import argparse
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videogym.cli.options import add_command
from videogym.cli.terminal import printable
from videogym.geometry import Segment
from videogym.video import Video, fit_within, open_video
from videogym.video.addresses import is_address
from videogym.video.scan import unshown_streams
from videogym.writing import appearing

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
_THUMB = (240, 135)  # width and height that a frame fits into, pixels
_GAP, _LABEL = 8, 18  # pixels between frames, and of a line of text
_PAPER, _INK, _FAINT = "#ffffff", "#1d2433", "#667085"
_MOST_FRAMES = 1000


def add_look(commands: Any) -> None:
    """``videogym look``."""
    parser = add_command(
        commands,
        "look",
        help="properties of a video, and a contact sheet of its frames",
        description="Print the properties of a video, and draw frames with their times on a contact sheet.",
        epilog="  videogym look a.mp4                                         in words\n"
        "  videogym look a.mp4 --out a.jpg                             24 frames of the whole video\n"
        "  videogym look a.mp4 --from 61.5 --to 64 --frames 50 --out part.png\n"
        "  videogym look 'synthetic:brief_event?level=0&duration_s=600&seed=1' --out s.png\n\n"
        "A file that is refused is explained by `videogym doctor`.",
    )
    parser.add_argument(
        "video", metavar="VIDEO", help="path of a file, or a synthetic: or planted-video: address"
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
    with open_video(arguments.video) as video:
        part = _part(video, arguments.start, arguments.end)
        lines = description(arguments.video, video)
        if not is_address(arguments.video):
            lines += [f"not shown: {other}" for other in unshown_streams(arguments.video, covers=True)]
        print("\n".join(map(printable, lines)))
        if arguments.out is not None:
            sheet = contact_sheet(video, part, arguments.frames, f"{arguments.video}   {lines[1]}")
            _save(sheet, arguments.out)
            print(arguments.out)
    return 0


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


def contact_sheet(video: Video, part: Segment, count: int, title: str) -> Image.Image:
    """Frames with their times, evenly spread over a part of a video, each shown once.

    Raises:
        VideoError: a frame cannot be decoded.
    """
    wanted = np.linspace(part.start_s, part.end_s, count, endpoint=False)
    size = fit_within(video.meta.width, video.meta.height, _THUMB)
    places = np.unique(np.searchsorted(video.pts_s, wanted, side="right") - 1)
    times = video.pts_s[np.maximum(places, 0)]
    batch = video.frames_at(times.tolist(), size=size, resizer="area")
    return _drawn(batch.pixels, times, title)


def _drawn(pixels: NDArray[np.uint8], times_s: NDArray[np.float64], title: str) -> Image.Image:
    count, height, width, _ = pixels.shape
    columns = max(1, round(math.sqrt(count * (height + _LABEL) / width * 16 / 9)))
    columns = min(columns, count)
    rows = -(-count // columns)
    right, down = width + _GAP, height + _LABEL + _GAP
    sheet = Image.new(
        "RGB", (max(columns * right, 2 * right) + _GAP, rows * down + _LABEL + 2 * _GAP), _PAPER
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    draw.text((_GAP, _GAP), printable(title), fill=_INK, font=font)
    for i, (frame, time_s) in enumerate(zip(pixels, times_s.tolist(), strict=True)):
        left, top = _GAP + i % columns * right, _LABEL + 2 * _GAP + i // columns * down
        sheet.paste(Image.fromarray(frame), (left, top))
        draw.text((left, top + height + 1), f"{_clock(time_s)}  {time_s:.3f} s", fill=_FAINT, font=font)
    return sheet


def _clock(time_s: float) -> str:
    """``h:mm:ss``, cut, not rounded."""
    return str(timedelta(seconds=int(time_s)))


def _save(sheet: Image.Image, path: Path) -> None:
    """Write a picture that appears when it is whole."""
    with appearing(path) as partial:
        sheet.save(partial, _FORMATS[path.suffix.lower()], quality=90)
