"""What servers of episodes share: options, limits, and sessions that use one frame store.

A session is one client's `ToolEpisode`. Sessions share tasks, open videos and frames in memory, so that
sixteen of them hold no more than one, and nothing else. Which protocol serves them is not known here.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videogym.datasets.loading import Source
from videogym.env import DEFAULT_TASKS, VideoQAEnv
from videogym.grammars import Grammar
from videogym.recipes import Recipe, get_recipe
from videogym.state import Task
from videogym.tool_episode import ToolEpisode
from videogym.traces import RecordTraces
from videogym.video import FrameStore

IMAGE_TYPE = "image/jpeg"
_JPEG_QUALITY = 90
_LAST_PORT = 65535


@dataclass(frozen=True)
class Limits:
    """What clients may take of a server.

    Raises:
        ValueError: one of them is not positive.
    """

    sessions: int = 16  # open at once
    message_bytes: int = 1 << 20  # of a message or body that a client sends
    idle_s: float = 600.0  # without a message, after which a session is closed

    def __post_init__(self) -> None:
        for name in ("sessions", "message_bytes", "idle_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class SharedEnvs:
    """Makes environments that read tasks and frames from one place, for clients that play at once.

    Attributes:
        tasks: what is played.

    Args:
        tasks: as `VideoQAEnv` takes them; read once.
        recipe: a recipe or the name of one.
        video_root: folder below which relative video paths lie.
        traces: file to which every episode is appended; None: none is stored.

    Raises:
        ValueError: an argument is wrong.
        OSError: the file of traces cannot be written.
    """

    def __init__(
        self,
        tasks: Source | Sequence[Task] = DEFAULT_TASKS,
        recipe: str | Recipe = "DEFAULT",
        *,
        video_root: str | None = None,
        traces: str | os.PathLike[str] | None = None,
    ) -> None:
        self._recipe, self._video_root, self._traces = recipe, video_root, traces
        env = VideoQAEnv(tasks, recipe, video_root=video_root)
        self.tasks, self._store = env.tasks, env.store
        self.make().close()  # what is wrong with the arguments is said before anybody asks

    def make(self) -> gymnasium.Env[Any, Any]:
        """One client's environment; closing it stores a left episode and no more. Thread-safe."""
        env: gymnasium.Env[Any, Any] = _SessionEnv(
            self._store, self.tasks, self._recipe, video_root=self._video_root
        )
        return env if self._traces is None else RecordTraces(env, self._traces)

    def close(self) -> None:
        """Release decoders and frames, once nobody plays any more."""
        self._store.close()


class Sessions:
    """Makes a `ToolEpisode` for every client of a server.

    Attributes:
        tools: schemas of what can be called.

    Args:
        envs: where episodes are played.
        grammar: whose tools are served, see `ToolEpisode`.

    Raises:
        ValueError: the grammar is unknown or has no tools.
    """

    def __init__(self, envs: SharedEnvs, grammar: str | Grammar | None = None) -> None:
        self._envs, self._grammar = envs, grammar
        first = self.begin()
        self.tools = first.tools
        first.close()

    def begin(self) -> ToolEpisode:
        """A new session; `ToolEpisode.close` ends it. Thread-safe."""
        return ToolEpisode(self._envs.make(), self._grammar)

    def close(self) -> None:
        """Release decoders and frames, once no session is played any more."""
        self._envs.close()


class _SessionEnv(VideoQAEnv):
    """An environment that reads from the store of all sessions and leaves it open."""

    def __init__(self, store: FrameStore, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.store = store.lent()

    def close(self) -> None:
        """Others still use the store."""


def as_base64_jpeg(frame: NDArray[np.uint8]) -> str:
    """A frame (H, W, 3) as the text in which the protocols carry pictures."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(file.getvalue()).decode()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that say what is served."""
    parser.add_argument("--tasks", default=DEFAULT_TASKS, help="source of tasks (default: %(default)s)")
    parser.add_argument("--recipe", default="DEFAULT", help="name of a recipe (default: %(default)s)")
    parser.add_argument(
        "--prompt-file", metavar="FILE", help="prompt file that words the question (default: none)"
    )
    parser.add_argument(
        "--grammar", help="grammar whose tools are served (default: the recipe's, else native)"
    )
    parser.add_argument(
        "--video-root", metavar="DIR", help="folder below which relative video paths lie (default: none)"
    )
    parser.add_argument(
        "--traces", metavar="FILE", help="JSONL file to which episodes are appended (default: not stored)"
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Options that say where a server listens, and its limits."""
    usual = Limits()
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="port (default: %(default)s)")
    parser.add_argument(
        "--sessions", type=int, default=usual.sessions, help="most sessions at once (default: %(default)s)"
    )
    parser.add_argument(
        "--message-bytes",
        type=int,
        default=usual.message_bytes,
        help="most bytes of a message that a client sends (default: %(default)s)",
    )
    parser.add_argument(
        "--idle-s",
        type=float,
        default=usual.idle_s,
        help="seconds without a message after which a session is closed (default: %(default)s)",
    )


def _port(text: str) -> int:
    if not (text.isdecimal() and len(text) <= 5 and int(text) <= _LAST_PORT):
        raise argparse.ArgumentTypeError(f"a port is a whole number up to {_LAST_PORT}, got {text!r:.80}")
    return int(text)


def limits_of(options: argparse.Namespace) -> Limits:
    """What the options of `add_network_options` allow.

    Raises:
        ValueError: one of them is not positive.
    """
    return Limits(options.sessions, options.message_bytes, options.idle_s)


def sessions_of(options: argparse.Namespace) -> Sessions:
    """What the options of `add_options` ask for.

    Raises:
        ValueError: an option is wrong.
        OSError: a file cannot be read or written.
    """
    envs = SharedEnvs(
        options.tasks,
        get_recipe(options.recipe).with_prompt(options.prompt_file),
        video_root=options.video_root,
        traces=options.traces,
    )
    return Sessions(envs, options.grammar)
