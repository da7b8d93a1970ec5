"""``videogym report``: stored episodes as a page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from videogym.cli.options import add_command, add_groups
from videogym.cli.terminal import progress_bar
from videogym.mistakes import printable


def add_report(commands: Any) -> None:
    """``videogym report``."""
    parser = add_command(
        commands,
        "report",
        help="stored episodes as one HTML file",
        description="Write stored episodes, or a training run with its curves, as one HTML file that "
        "can be read without a network. More than 1,000 episodes, or 128 MB of them, lie in a folder "
        "beside it, which the page reads as it needs them.",
        epilog="Episodes are stored by videogym.traces.RecordTraces(env, 'run.jsonl').\n\n"
        "  videogym report run.jsonl                          what a policy did, in report.html\n"
        "  videogym report before.jsonl --compare after.jsonl two runs side by side, task by task\n"
        "  videogym report runs/grpo                          curves of a training run, and its episodes",
    )
    parser.add_argument(
        "traces",
        nargs="+",
        metavar="TRACES",
        help="JSONL file of episodes, a folder of such, or of a training run",
    )
    parser.add_argument(
        "--compare", metavar="OTHER", help="second run, shown side by side (default: one run)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), help="HTML file (default: %(default)s)"
    )
    parser.add_argument(
        "--tasks",
        metavar="SOURCE",
        help="source of the tasks of a training run, whose records hold no questions (default: the one "
        "that its checkpoint names)",
    )
    parser.add_argument(
        "--video-root", metavar="DIR", help="folder below which relative video paths lie (default: none)"
    )
    parser.add_argument(
        "--thumbnails",
        type=int,
        default=12,
        metavar="N",
        help="limit of pictures per episode; 0: none, and no video is opened (default: %(default)s)",
    )
    parser.add_argument(
        "--title", default="videogym report", help="heading of the page (default: %(default)s)"
    )
    add_groups(parser)
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from videogym.report import Sources, write_report  # Jinja2 is optional
    from videogym.video import FrameStore

    if arguments.out.suffix == ".jsonl":
        raise ValueError(f"--out {arguments.out} names a file of traces, which a page would replace")
    root, other = arguments.video_root, arguments.compare
    sources = Sources(arguments.traces, arguments.tasks, root)
    progress = progress_bar("episodes")
    with FrameStore(video_root=root) as store:
        folder = write_report(
            sources,
            arguments.out,
            None if other is None else Sources([other], arguments.tasks, root),
            store=store,
            thumbnails=arguments.thumbnails,
            title=arguments.title,
            by=arguments.by,
            progress=progress,
        )
    progress.clear()
    for note in sources.notes:
        print(f"videogym report: {printable(note)}", file=sys.stderr)
    print(arguments.out)
    if folder is not None:
        print(
            f"Its episodes are in {folder}, too many for one page: keep the two together.",
            file=sys.stderr,
        )
    return 0
