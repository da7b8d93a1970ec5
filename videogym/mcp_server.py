"""An MCP server: one episode over standard input and output, or one for every session over HTTP.

``python -m videogym.mcp_server --tasks tasks.jsonl --task-id mine-1`` offers the recipe's tools, such as
``crop_video``, to any MCP client, beside ``question``, which shows the question and the first frames. With
``--transport http`` many clients connect to ``http://HOST:PORT/mcp``, each to an episode of its own.
Frames are images, their times text; what was refused is an error that says why. What a training loop
needs and a model must not see (reward, ending, whether the answer was right) is in ``_meta``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from videogym.extras import MissingExtra, end_by_a_line
from videogym.mistakes import MENDABLE, STATUS, in_a_line
from videogym.serving import (
    IMAGE_TYPE,
    Limits,
    Sessions,
    add_network_options,
    add_options,
    as_base64_jpeg,
    limits_of,
    sessions_of,
)
from videogym.tool_episode import ANSWER_TOOL, ToolEpisode, ToolPart, ToolReply
from videogym.video import VideoError

try:
    import anyio
    import mcp_types as types
    import uvicorn
    from mcp.server import Server
    from mcp.server.context import ServerRequestContext
    from mcp.server.stdio import stdio_server
    from mcp.shared.exceptions import MCPError
    from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
except ImportError as error:
    end_by_a_line(__name__)
    raise MissingExtra("the MCP server needs mcp 2: pip install 'videogym[mcp]'") from error

_QUESTION_TOOL = "question"
_SHUTDOWN_S = 5
_INSTRUCTIONS = (
    f"A question about a long video. Call `{_QUESTION_TOOL}` first: it asks and shows a few frames. Look "
    f"where it matters with the other tools; each call is a turn, and turns are few. Then "
    f"call `{ANSWER_TOOL}`."
)
_ASK = types.Tool(
    name=_QUESTION_TOOL,
    description="The question and the first frames of the video. Costs no turn.",
    input_schema={"type": "object", "properties": {}, "additionalProperties": False},
)


class _Seat:
    """One client's episode; calls sent at once are played one after the other."""

    def __init__(self, begin: Callable[[], ToolEpisode]) -> None:
        self._begin = begin
        self._episode: ToolEpisode | None = None
        self._turn = anyio.Lock()

    async def call(self, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        async with self._turn:
            if self._episode is None:
                self._episode = await anyio.to_thread.run_sync(self._begin)
            return await anyio.to_thread.run_sync(_play, self._episode, name, arguments)

    async def close(self) -> None:
        async with self._turn:
            if self._episode is not None:
                self._episode.close()


def make_server(episode: ToolEpisode) -> Server[Any]:
    """A server for an episode that has begun; run it on any transport of the MCP package.

    Every result has ``_meta``: ``videogym/reward`` (what the call paid), ``videogym/ending`` ("" while the
    episode runs), ``videogym/error_code`` ("" for a call that was executed) and ``videogym/is_success``.
    """
    seat = _Seat(lambda: episode)
    return _make_server(episode.tools, lambda context: seat)


def make_session_server(
    sessions: Sessions, *, seed: int | None = None, task_id: str | None = None
) -> Server[Any]:
    """A server that plays an episode of its own with every session, for MCP over HTTP.

    The address that a client connects to may name its episode, ``/mcp?seed=3`` or ``/mcp?task_id=mine-1``;
    the episode begins with the first call. Results are those of `make_server`.

    The protocol of 2026-07-28 has no sessions, so it is not served: clients fall back to the handshake.

    Args:
        sessions: where episodes come from.
        seed: of the draw of the task, where the address names none; None: any task.
        task_id: the task, where the address names none.
    """

    def seat_of(context: ServerRequestContext[Any, Any]) -> _Seat:
        if context.protocol_version not in HANDSHAKE_PROTOCOL_VERSIONS:
            told = {"supported": HANDSHAKE_PROTOCOL_VERSIONS, "requested": context.protocol_version}
            raise MCPError(types.UNSUPPORTED_PROTOCOL_VERSION, "episodes need a session", told)
        # What lives as long as a session is kept on its connection; the package has no public way there.
        connection = context.session._connection
        if "seat" not in connection.state:
            asked = {"seed": seed, "task_id": task_id, **dict(context.request.query_params)}
            connection.state["seat"] = seat = _Seat(lambda: _begun(sessions, asked))
            connection.exit_stack.push_async_callback(seat.close)
        return connection.state["seat"]

    server = _make_server(sessions.tools, seat_of)

    async def discover(context: Any, parameters: Any) -> types.DiscoverResult:
        return types.DiscoverResult(
            supported_versions=list(HANDSHAKE_PROTOCOL_VERSIONS), capabilities=server.get_capabilities()
        )

    server.add_request_handler("server/discover", types.RequestParams, discover)
    return server


def _begun(sessions: Sessions, asked: dict[str, Any]) -> ToolEpisode:
    """The episode that an address names; whatever is wrong with it is told the client."""
    try:
        if unknown := set(asked) - {"seed", "task_id"}:
            raise ValueError(f"unknown {sorted(unknown)} in the address; known: seed, task_id")
        seed = asked["seed"]
        if isinstance(seed, str) and not re.fullmatch("[0-9]{1,18}", seed):
            raise ValueError(f"seed is a whole number, not negative, got {seed!r:.80}")
        episode = sessions.begin()
        episode.begin(seed=None if seed is None else int(seed), task_id=asked["task_id"])
    except (ValueError, VideoError) as error:
        raise MCPError(types.INVALID_PARAMS, f"no episode begins: {error}") from error
    return episode


def _make_server(
    schemas: list[dict[str, Any]], seat_of: Callable[[ServerRequestContext[Any, Any]], _Seat]
) -> Server[Any]:
    tools = [_ASK, *(types.Tool(**_renamed(schema["function"])) for schema in schemas)]

    async def list_tools(context: Any, parameters: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools)

    async def call_tool(
        context: ServerRequestContext[Any, Any], parameters: types.CallToolRequestParams
    ) -> types.CallToolResult:
        return await seat_of(context).call(parameters.name, parameters.arguments or {})

    return Server(
        "videogym",
        version=importlib.metadata.version("videogym"),
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _play(episode: ToolEpisode, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
    played = len(episode.rewards)
    reply = _asked_again(episode) if name == _QUESTION_TOOL else episode.call(name, arguments)
    return _result(reply, episode, sum(episode.rewards[played:], 0.0))


def _asked_again(episode: ToolEpisode) -> ToolReply:
    try:
        return episode.question()
    except VideoError:  # the file has changed since the episode began
        return ToolReply(("The first frames cannot be shown any more; look elsewhere or answer.",), "fault")


def _renamed(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": schema["name"],
        "description": schema["description"],
        "input_schema": schema["parameters"],
    }


def _result(reply: ToolReply, episode: ToolEpisode, reward: float) -> types.CallToolResult:
    meta = {
        "videogym/reward": reward,
        "videogym/ending": episode.state.ending,
        "videogym/error_code": reply.error_code,
        "videogym/is_success": bool(episode.info["is_success"]),
    }
    return types.CallToolResult(
        content=[_content(part) for part in reply.parts], is_error=bool(reply.error_code), _meta=meta
    )


def _content(part: ToolPart) -> types.TextContent | types.ImageContent:
    if isinstance(part, str):
        return types.TextContent(type="text", text=part)
    return types.ImageContent(type="image", data=as_base64_jpeg(part), mime_type=IMAGE_TYPE)


async def _serve_stdio(server: Server[Any]) -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def _serve_http(server: Server[Any], limits: Limits, host: str, port: int) -> None:
    app = server.streamable_http_app(
        json_response=True,
        host=host,
        max_request_body_size=limits.message_bytes,
        session_idle_timeout=limits.idle_s,
        max_sessions=limits.sessions,
    )
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=_SHUTDOWN_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one episode until the client leaves, or many over HTTP; returns the exit status.

    Args:
        arguments: without the program's name; None: those of this process.
    """
    options = _parser().parse_args(arguments)
    episode: ToolEpisode | None = None
    try:
        limits, sessions = limits_of(options), sessions_of(options)
        if options.transport == "http":
            server = make_session_server(sessions, seed=options.seed, task_id=options.task_id)
            _serve_http(server, limits, options.host, options.port)
        else:
            episode = sessions.begin()
            episode.begin(seed=0 if options.seed is None else options.seed, task_id=options.task_id)
            anyio.run(_serve_stdio, make_server(episode))
    except MENDABLE as error:
        print(f"videogym.mcp_server: error: {in_a_line(error)}", file=sys.stderr)
        return STATUS
    except KeyboardInterrupt:
        return 130  # as shells do for an interrupted command
    finally:
        if episode is not None:
            episode.close()  # stores the episode that was left
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m videogym.mcp_server",
        description="Serve one episode to an MCP client over stdio, or one to every client over HTTP.",
    )
    add_options(parser)
    parser.add_argument("--task-id", help="id of the task (default: one is drawn)")
    parser.add_argument(
        "--seed",
        type=int,
        help="seed of the draw (default: 0 over stdio, another for every session over http)",
    )
    parser.add_argument(
        "--transport",
        choices=("stdio", "http"),
        default="stdio",
        help="how clients connect (default: %(default)s)",
    )
    add_network_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
