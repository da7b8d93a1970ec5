"""The client: OpenEnv's own, which knows the types of our messages."""

from __future__ import annotations

from typing import Any

from openenv.core import EnvClient
from openenv.core.client_types import StepResult

from videogym.openenv.models import VideoAction, VideoObservation, VideoState


class VideoEnv(EnvClient[VideoAction, VideoObservation, VideoState]):
    """One session of a server: an episode that nobody else sees and that ends with the connection.

    ``reset`` takes ``seed``, ``task_id`` and ``episode_id``, ``step`` a `VideoAction`; ``state`` tells
    where the episode stands. All are awaited; ``VideoEnv(base_url=...).sync()`` needs no asyncio.

    Args:
        base_url: of the server, e.g. ``"http://127.0.0.1:8000"``; the others are OpenEnv's.

    Raises:
        ConnectionError: there is no server.
        RuntimeError: the server refused; the message says why.
    """

    def _step_payload(self, action: VideoAction) -> dict[str, Any]:
        return action.model_dump()

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[VideoObservation]:
        reward, done = payload.get("reward"), payload.get("done", False)
        observation = VideoObservation(**payload["observation"], reward=reward, done=done)
        return StepResult(observation, reward, done, observation.metadata)

    def _parse_state(self, payload: dict[str, Any]) -> VideoState:
        return VideoState(**payload)
