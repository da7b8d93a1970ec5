"""The server: OpenEnv's own application on our episodes, one for every connection."""

from __future__ import annotations

import functools
import importlib.metadata
import uuid
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from openenv.core.env_server import ConcurrencyConfig, Environment, create_fastapi_app
from openenv.core.env_server.types import EnvironmentMetadata

from videogym.openenv.limits import Limited
from videogym.openenv.models import VideoAction, VideoObservation, VideoState, content_of
from videogym.serving import Limits, Sessions
from videogym.tool_episode import ToolReply
from videogym.video import VideoError

_LONGEST_ID = 255  # characters, OpenEnv's own bound


class VideoEnvironment(Environment[VideoAction, VideoObservation, VideoState]):
    """One session: episodes by tool calls, one after the other.

    Whatever a tool is called with, `step` returns an observation: a bad call is a turn, refused with a
    reason. Errors are those of a client that asks for what there is not.

    Args:
        sessions: where episodes come from.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, sessions: Sessions) -> None:
        super().__init__()
        self._episode = sessions.begin()
        self._episode_id: str | None = None
        self._closed = False

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        task_id: str | None = None,
        **unknown: Any,
    ) -> VideoObservation:
        """Start an episode and ask its question; a reset that is refused leaves no episode.

        Args:
            seed: of the draw of the task, not negative; a group of rollouts shares one.
            episode_id: any name; None: one is made.
            task_id: the task instead of a drawn one.
            unknown: whatever else a client sent.

        Raises:
            ValueError: an argument is unknown or wrong, or there is no such task.
            VideoError: the video cannot be used.
        """
        self._require_open()
        self._episode_id = None
        if unknown:
            raise ValueError(f"unknown reset arguments {sorted(unknown)}; known: seed, episode_id, task_id")
        if episode_id is not None and not (isinstance(episode_id, str) and len(episode_id) <= _LONGEST_ID):
            raise ValueError(
                f"episode_id is text of up to {_LONGEST_ID} characters, got {episode_id!r:.80}"
            )
        if task_id is not None and not isinstance(task_id, str):
            raise ValueError(f"task_id is text, got {task_id!r:.80}")
        asked = self._episode.begin(seed=seed, task_id=task_id)
        self._episode_id = episode_id or str(uuid.uuid4())
        return self._observation(asked, None, self._episode.tools)

    def step(self, action: VideoAction, timeout_s: float | None = None, **_: Any) -> VideoObservation:
        """Play one turn.

        Args:
            action: the tool call.
            timeout_s: OpenEnv's; not used, videos have deadlines of their own.

        Raises:
            ValueError: no episode has begun.
        """
        self._require_begun()
        played = len(self._episode.rewards)
        reply = self._episode.call(action.tool, action.arguments)
        return self._observation(reply, sum(self._episode.rewards[played:], 0.0), [])

    @property
    def state(self) -> VideoState:
        """Where the episode stands; before a reset, and after a refused one, nothing is known."""
        if self._episode_id is None:
            return VideoState()
        state = self._episode.state
        return VideoState(
            episode_id=self._episode_id,
            step_count=len(state.turns),
            task_id=state.task.task_id,
            turns_left=state.turns_left,
            frames_left=state.frames_left,
            ending=state.ending,
        )

    def get_metadata(self) -> EnvironmentMetadata:
        """What is served."""
        return EnvironmentMetadata(
            name="videogym",
            description="Questions about long videos; the policy looks around by tool calls.",
            version=importlib.metadata.version("videogym"),
        )

    def close(self) -> None:
        """End the session; an episode that was left is stored as left, where traces are stored."""
        self._closed = True
        self._episode.close()

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("this session is closed; connect again")

    def _require_begun(self) -> None:
        self._require_open()
        if self._episode_id is None:
            raise ValueError("there is no episode yet: reset first, in the same WebSocket session")

    def _observation(
        self, reply: ToolReply, reward: float | None, tools: list[dict[str, Any]]
    ) -> VideoObservation:
        state = self._episode.state
        return VideoObservation(
            content=content_of(reply.parts),
            tools=tools,
            error_code=reply.error_code,
            ending=state.ending,
            reward=reward,
            done=state.terminated,
            metadata={"is_success": bool(self._episode.info["is_success"])},
        )


def make_app(sessions: Sessions, limits: Limits | None = None) -> FastAPI:
    """An application that serves sessions over HTTP and WebSocket.

    Run it with ``ws_max_size=limits.message_bytes``, as ``python -m videogym.openenv`` does, so that the
    web server does not even gather longer messages.

    Args:
        sessions: what is played.
        limits: what clients may take; None: the usual ones.
    """
    limits = limits or Limits()
    app = create_fastapi_app(
        functools.partial(VideoEnvironment, sessions),
        VideoAction,
        VideoObservation,
        concurrency_config=ConcurrencyConfig(max_concurrent_envs=limits.sessions),
        env_name="videogym",
        state_cls=VideoState,
    )
    for error in (ValueError, VideoError):
        app.add_exception_handler(error, _told)
    app.add_middleware(Limited, limits=limits)
    return app


async def _told(request: Request, error: Exception) -> JSONResponse:
    """A caller's mistake or a bad video, over HTTP; in a session OpenEnv tells it itself."""
    return JSONResponse({"detail": str(error)}, 400 if isinstance(error, ValueError) else 500)
