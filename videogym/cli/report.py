"""``videogym report``: stored episodes as a page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from videogym.cli.options import add_command
from videogym.cli.terminal import progress_bar


def add_report(commands: Any) -> None:
    """``videogym report``."""
    parser = add_command(
        commands,
        "report",
        help="stored episodes as one HTML file",
        description="Write stored episodes as one HTML file that can be read without a network.",
        epilog="Episodes are stored by videogym.traces.RecordTraces(env, 'run.jsonl').\n\n"
        "  videogym report run.jsonl                          what a policy did, in report.html\n"
        "  videogym report before.jsonl --compare after.jsonl two runs side by side, task by task",
    )
    parser.add_argument(
        "traces", nargs="+", metavar="TRACES", help="JSONL file of episodes, or a folder of such"
    )
    parser.add_argument(
        "--compare", metavar="OTHER", help="file or folder to show side by side with the first"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), help="HTML file (default: %(default)s)"
    )
    parser.add_argument("--video-root", metavar="DIR", help="folder below which relative video paths lie")
    parser.add_argument(
        "--thumbnails",
        type=int,
        default=12,
        metavar="N",
        help="most pictures of an episode (default: %(default)s); 0: none, and no video is opened",
    )
    parser.add_argument("--title", default="videogym report", help="heading of the page")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from videogym.report import write_report  # Jinja2 is optional
    from videogym.traces import Traces, read_traces
    from videogym.video import FrameStore

    if arguments.out.suffix == ".jsonl":
        raise ValueError(f"--out {arguments.out} names a file of traces, which a page would replace")
    read = [read_traces(path) for path in arguments.traces]
    traces = Traces(tuple(t for one in read for t in one.episodes), sum(one.torn for one in read))
    with FrameStore(video_root=arguments.video_root) as store:
        write_report(
            traces,
            arguments.out,
            None if arguments.compare is None else read_traces(arguments.compare),
            store=store,
            thumbnails=arguments.thumbnails,
            title=arguments.title,
            progress=progress_bar("episodes"),
        )
    print(arguments.out)
    return 0
