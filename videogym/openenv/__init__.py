"""Episodes over OpenEnv: served to many clients at once, and a client for them.

``python -m videogym.openenv --tasks tasks.jsonl`` serves; `VideoEnv` is the client, and `VideoAction`,
`VideoObservation` and `VideoState` are what goes over the wire. Server, client, messages and sessions are
those of the package ``openenv``.
"""

from videogym.extras import MissingExtra, end_by_a_line

try:
    import openenv.core as _core  # noqa: F401
except ImportError as error:
    end_by_a_line(__name__)
    raise MissingExtra("this needs OpenEnv: pip install 'videogym[openenv]'") from error

from videogym.openenv.client import VideoEnv
from videogym.openenv.models import ImageContent, TextContent, VideoAction, VideoObservation, VideoState
from videogym.openenv.server import VideoEnvironment, make_app
from videogym.serving import Limits, Sessions, SharedEnvs

__all__ = [
    "ImageContent",
    "Limits",
    "Sessions",
    "SharedEnvs",
    "TextContent",
    "VideoAction",
    "VideoEnv",
    "VideoEnvironment",
    "VideoObservation",
    "VideoState",
    "make_app",
]
