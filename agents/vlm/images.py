"""Conversations about images as examples, beside those about videos: nothing is played.

LongVT fine-tunes on rows that show images, so that its model does not forget what it could. Such a row is
no episode: its messages become one record as they stand, with its images at a pixel budget of their own.
An image is a visual of one frame whose video is the image file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videogym.datasets import ImageConversation
from videogym.datasets.longvt import is_image
from videogym.video import FrameBatch, VideoError
from videogym.video.sampling import smart_resize

from ..models.visuals import WHOLE_FRAME, FrameReader, Visual
from .env import ChatEnv
from .records import Record, TurnRecord

MIN_PIXELS = 56 * 56  # Qwen2.5-VL's own
_KEPT = 64  # images that are kept at their size


class ImageFiles:
    """A frame store that shows image files too; to all else it passes the question on.

    Args:
        store: shows videos.
    """

    def __init__(self, store: FrameReader) -> None:
        self._store = store
        self._kept: dict[tuple[str, tuple[int, int]], NDArray[np.uint8]] = {}

    def frames(
        self,
        source: str,
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None,
        region: tuple[float, float, float, float] | None,
    ) -> FrameBatch:
        """See `FrameReader`; an image is the same at all times.

        Raises:
            VideoError: it cannot be read.
        """
        if not is_image(source) or size is None or region is not None:
            return self._store.frames(source, times_s, size=size, region=region)
        if (source, size) not in self._kept:
            self._kept[source, size] = np.asarray(_opened(source).resize(size, Image.Resampling.BICUBIC))
            for old in list(self._kept)[:-_KEPT]:
                del self._kept[old]
        times = np.asarray(times_s, dtype=np.float64)
        pixels = np.repeat(self._kept[source, size][None], len(times), axis=0)
        return FrameBatch(pixels, times, np.zeros(len(times), bool))


def _opened(path: str) -> Image.Image:
    """An image in RGB; what is transparent is white, as in qwen-vl-utils."""
    try:
        with Image.open(path) as file:
            if not file.has_transparency_data:
                return file.convert("RGB")
            shown = file.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: not an image that can be read: {error}") from error


class AboutImages:
    """Conversations about images, see `agents.vlm.lessons.Pool`.

    Args:
        env: lays conversations out.
        conversations: what was asked and said.
        root: folder below which images are looked up by the last parts of their paths; None: the paths are
            taken as they stand.
        max_pixels: of an image as it is shown.
    """

    def __init__(
        self,
        env: ChatEnv,
        conversations: Sequence[ImageConversation],
        root: str | None,
        max_pixels: int,
    ) -> None:
        self._env, self._conversations = env, conversations
        self._root, self._max_pixels = root, max_pixels

    def __len__(self) -> int:
        return len(self._conversations)

    def at(self, index: int) -> list[Record] | str:
        """See `agents.vlm.lessons.Pool`."""
        conversation, chat = self._conversations[index], self._env.chat
        head: list[int] = []
        turns: list[TurnRecord] = []
        ids: list[int] = []
        visuals: list[Visual] = []
        for message in conversation.messages:
            if message.role == "assistant":
                said = "".join(text for _, text in message.parts)
                observation = (*ids, *chat.assistant_opening())
                output = (*chat.output_ids(said), chat.end_id)
                nothing = (0,) * len(output)
                turn = TurnRecord(observation, tuple(visuals), output, nothing, nothing, text=said)
                turns.append(turn)
                ids, visuals = list(chat.gap()), []
                continue
            try:
                parts = [self._part(*part) for part in message.parts]
            except (VideoError, ValueError):
                return "image not shown"
            block = chat.block(message.role, parts)
            if message.role == "system" and not turns and not ids:
                head += block
            else:
                ids += block
                visuals += [part for part in parts if isinstance(part, Visual)]
        record = self._env.demonstration(conversation.name, tuple(head), tuple(turns))
        return "cut" if record.abort_reason else [record]

    def _part(self, kind: str, text: str) -> str | Visual:
        """A text as it is, an image as a visual that can be shown."""
        if kind == "text":
            return text
        path = located(text, self._root)
        width, height = _opened(path).size
        factor = self._env.chat.form.factor
        height, width = smart_resize(height, width, MIN_PIXELS, self._max_pixels, factor)
        return Visual(path, (0.0,), WHOLE_FRAME, (max(width, factor), max(height, factor)))


def located(name: str, root: str | None) -> str:
    """Where an image is: the longest end of its path that is a file below the folder.

    Raises:
        VideoError: it is not there.
    """
    if root is None:
        return name
    parts = [part for part in Path(name).parts if part != "/"]
    below = Path(root).resolve()
    for first in range(len(parts)):
        path = below.joinpath(*parts[first:])
        # Where a link leads may have another name, which would make it a video.
        if path.is_file() and path.resolve().is_relative_to(below):
            return str(path)
    raise VideoError(f"{name}: no such image below {root}")
