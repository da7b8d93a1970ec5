"""What goes over the wire: an action is a tool call, an observation texts and frames in reading order."""

from __future__ import annotations

import base64
import io
from typing import Any, Literal

import numpy as np
from openenv.core.env_server import Action, Observation, State
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from videogym.serving import IMAGE_TYPE, as_base64_jpeg
from videogym.tool_episode import ToolPart


class VideoAction(Action):
    """One tool call, which is one turn. What is wrong with a call is told in the observation."""

    tool: str = Field(description="Name of a tool, such as crop or answer")
    arguments: dict[str, Any] = Field(default_factory=dict, description="By the tool's schema")


class TextContent(BaseModel):
    """A text to be read."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"] = "text"
    text: str


class ImageContent(BaseModel):
    """A frame; its time is the text before it."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["image"] = "image"
    data: str = Field(description="Base64 of the encoded picture")
    mime_type: str = IMAGE_TYPE


class VideoObservation(Observation):
    """What a reset or a call brought.

    ``reward`` is what the turn paid (None after a reset), ``done`` whether the episode is over. No ground
    truth is in it; ``metadata["is_success"]`` says whether the given answer was right.
    """

    content: list[TextContent | ImageContent] = Field(description="Texts and frames in reading order")
    tools: list[dict[str, Any]] = Field(
        default_factory=list, description="Schemas in OpenAI's function format; after a reset only"
    )
    error_code: str = Field(default="", description="Why the call was not executed; empty if it was")
    ending: str = Field(default="", description="How the episode ended; empty while it runs")

    def parts(self) -> tuple[ToolPart, ...]:
        """The content with frames as pixels, (H, W, 3) uint8."""
        return tuple(part.text if isinstance(part, TextContent) else _pixels(part) for part in self.content)


class VideoState(State):
    """Where the episode stands; no ground truth."""

    task_id: str | None = Field(default=None, description="None where no episode has begun")
    turns_left: int | None = Field(default=None, ge=0)
    frames_left: int | None = Field(default=None, description="None where there is no budget of frames")
    ending: str = Field(default="", description="How the episode ended; empty while it runs")


def content_of(parts: tuple[ToolPart, ...]) -> list[TextContent | ImageContent]:
    """Parts as they go over the wire."""
    return [
        _written(part) if isinstance(part, str) else ImageContent(data=as_base64_jpeg(part))
        for part in parts
    ]


def _written(text: str) -> TextContent:
    # Half a surrogate pair, which a client's JSON can spell and no UTF-8 can hold, becomes "?".
    return TextContent(text=text.encode("utf-8", "replace").decode("utf-8"))


def _pixels(part: ImageContent) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(part.data))).convert("RGB"))
