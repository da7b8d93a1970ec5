"""``videogym play``: a person plays, in a browser."""

from __future__ import annotations

import argparse
import contextlib
import webbrowser
from typing import Any

import gymnasium

from videogym.cli.options import add_command, add_episodes, read_recipe
from videogym.data.verdicts import Verdicts
from videogym.env import VideoQAEnv
from videogym.mistakes import printable
from videogym.play import Game, PlayServer, Review
from videogym.traces import RecordTraces


def add_play(commands: Any) -> None:
    """``videogym play``."""
    parser = add_command(
        commands,
        "play",
        help="play episodes yourself, in a browser",
        description="Play episodes in a browser, with the frames, the rules and the budget of a policy. "
        "What the environment refuses is shown with its reason; at the end you see the evidence and what "
        "was paid. With --traces, episodes are kept in the words of the recipe's grammar, so that they can "
        "serve as demonstrations, and `videogym report` shows them.",
        epilog="The page is for this machine alone, at an address that nobody can guess. Over ssh, choose\n"
        "a port and forward it: ssh -L 8000:127.0.0.1:8000 HOST, then open the address that was\n"
        "printed. Ctrl-C ends it; an episode that is not over is kept as left.\n\n"
        "  videogym play\n"
        "  videogym play --recipe LONGVT/paper --tasks tasks.jsonl --video-root videos/\n"
        "  videogym play --tasks tasks.jsonl --task-id mine-17 --traces demonstrations.jsonl\n"
        "  videogym play --review verdicts.jsonl --tasks tasks.jsonl --video-root videos/",
    )
    add_episodes(parser)
    parser.add_argument("--task-id", help="the task to begin with (default: the first)")
    parser.add_argument("--port", type=int, default=0, help="TCP port (default: one that is free)")
    parser.add_argument(
        "--review",
        metavar="FILE",
        help="accept (key y) or reject (key n) tasks, shown with answer and evidence, and append the "
        "verdicts to this file (default: play)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in this machine's browser")
    parser.set_defaults(run=_play)


def _play(arguments: argparse.Namespace) -> int:
    if not 0 <= arguments.port <= 65_535:
        raise ValueError(f"--port must be 0 to 65535, got {arguments.port}")
    env: gymnasium.Env[Any, Any] = VideoQAEnv(
        arguments.tasks, read_recipe(arguments), video_root=arguments.video_root
    )
    if arguments.traces is not None:
        if arguments.review is not None:
            raise ValueError("--review plays nothing: leave --traces out")
        env = RecordTraces(env, arguments.traces)
    with contextlib.ExitStack() as stack:
        stack.callback(env.close)  # stores the episode that is left
        if arguments.review is None:
            game = Game(env, arguments.task_id)
        else:
            verdicts = stack.enter_context(Verdicts(arguments.review, writes=True))
            game = Review(env, verdicts, arguments.task_id)
        with PlayServer(game, arguments.port) as server:
            what = "Play" if arguments.review is None else "Review"
            print(f"{what} at {printable(server.address)}  (Ctrl-C ends it)", flush=True)
            if arguments.open:
                webbrowser.open(server.address)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                return 0
    return 0
