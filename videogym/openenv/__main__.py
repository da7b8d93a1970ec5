"""``python -m videogym.openenv``: serve episodes to OpenEnv clients."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import uvicorn

from videogym.mistakes import MENDABLE, STATUS, in_a_line
from videogym.openenv.server import make_app
from videogym.serving import add_network_options, add_options, limits_of, sessions_of

_PING_S = 20.0  # a client that does not answer within as long again is gone
_SHUTDOWN_S = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the process is told to stop; returns the exit status.

    Args:
        arguments: without the program's name; None: those of this process.
    """
    options = _parser().parse_args(arguments)
    try:
        limits, sessions = limits_of(options), sessions_of(options)
    except MENDABLE as error:
        print(f"videogym.openenv: error: {in_a_line(error)}", file=sys.stderr)
        return STATUS
    try:
        uvicorn.run(
            make_app(sessions, limits),
            host=options.host,
            port=options.port,
            ws_max_size=limits.message_bytes,
            ws_ping_interval=_PING_S,
            ws_ping_timeout=_PING_S,
            timeout_graceful_shutdown=_SHUTDOWN_S,
            log_level="warning",
        )
    finally:
        sessions.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m videogym.openenv", description="Serve episodes to OpenEnv clients."
    )
    add_options(parser)
    add_network_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
