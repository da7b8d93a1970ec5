"""An MCP server that serves one episode over standard input and output.

``python -m videogym.mcp_server --tasks tasks.jsonl --task-id mine-1`` offers the recipe's tools, such as
``crop_video``, to any MCP client, beside ``question``, which shows the question and the first frames.
Frames are images, their times text; what was refused is an error that says why. What a training loop
needs and a model must not see (reward, ending, whether the answer was right) is in ``_meta``.
"""

from __future__ import annotations

import argparse
import base64
import importlib.metadata
import io
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium
from PIL import Image

from videogym.env import DEFAULT_TASKS, VideoQAEnv
from videogym.recipes import get_recipe
from videogym.tool_episode import ANSWER_TOOL, ToolEpisode, ToolPart, ToolReply
from videogym.traces import RecordTraces
from videogym.video import VideoError

try:
    import anyio
    import mcp_types as types
    from mcp.server import Server
    from mcp.server.stdio import stdio_server
except ImportError as error:
    raise ImportError("the MCP server needs mcp 2: pip install 'videogym[mcp]'") from error

_QUESTION_TOOL = "question"
_JPEG_QUALITY = 90
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


def make_server(episode: ToolEpisode) -> Server[Any]:
    """A server for an episode that has begun; run it on any transport of the MCP package.

    Every result has ``_meta``: ``videogym/reward`` (what the call paid), ``videogym/ending`` ("" while the
    episode runs), ``videogym/error_code`` ("" for a call that was executed) and ``videogym/is_success``.
    """
    schemas = [tool["function"] for tool in episode.tools]
    tools = [_ASK, *(types.Tool(**_renamed(schema)) for schema in schemas)]

    async def list_tools(context: Any, parameters: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools)

    async def call_tool(context: Any, parameters: types.CallToolRequestParams) -> types.CallToolResult:
        # Nothing is awaited in here, so that calls sent at once are played one after the other.
        played = len(episode.rewards)
        if parameters.name == _QUESTION_TOOL:
            reply = _asked_again(episode)
        else:
            reply = episode.call(parameters.name, parameters.arguments or {})
        return _result(reply, episode, sum(episode.rewards[played:], 0.0))

    return Server(
        "videogym",
        version=importlib.metadata.version("videogym"),
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


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
    file = io.BytesIO()
    Image.fromarray(part).save(file, "JPEG", quality=_JPEG_QUALITY)
    data = base64.b64encode(file.getvalue()).decode()
    return types.ImageContent(type="image", data=data, mime_type="image/jpeg")


async def _serve(server: Server[Any]) -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one episode until the client leaves; returns the exit status.

    Args:
        arguments: without the program's name; None: those of this process.
    """
    options = _parser().parse_args(arguments)
    env: gymnasium.Env[Any, Any] | None = None
    try:
        recipe = get_recipe(options.recipe).with_prompt(options.prompt_file)
        env = VideoQAEnv(options.tasks, recipe, video_root=options.video_root)
        if options.traces is not None:
            env = RecordTraces(env, options.traces)
        episode = ToolEpisode(env, options.grammar)
        episode.begin(seed=options.seed, task_id=options.task_id)
        anyio.run(_serve, make_server(episode))
    except (OSError, ValueError, VideoError) as error:
        print(f"videogym.mcp_server: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130  # as shells do for an interrupted command
    finally:
        if env is not None:
            env.close()  # stores the episode that was left
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m videogym.mcp_server", description="Serve one episode to an MCP client over stdio."
    )
    parser.add_argument("--tasks", default=DEFAULT_TASKS, help="source of tasks (default: %(default)s)")
    parser.add_argument("--recipe", default="DEFAULT", help="name of a recipe (default: %(default)s)")
    parser.add_argument(
        "--prompt-file", metavar="FILE", help="prompt file that words the question (default: none)"
    )
    parser.add_argument(
        "--grammar", help="grammar whose tools are served (default: the recipe's, else native)"
    )
    parser.add_argument("--task-id", help="id of the task (default: one is drawn)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: %(default)s)")
    parser.add_argument(
        "--video-root", metavar="DIR", help="folder below which relative video paths lie (default: none)"
    )
    parser.add_argument(
        "--traces", metavar="FILE", help="JSONL file to which the episode is appended (default: not stored)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
