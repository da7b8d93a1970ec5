"""Videos: open one, ask for frames at times, keep what was decoded."""

from videogym.video.backends import Backend, open_video
from videogym.video.pixels import fit_within, letterbox, region_box
from videogym.video.store import FrameStore
from videogym.video.types import (
    DecodeTimeout,
    FrameBatch,
    NoVideoStream,
    Resizer,
    TruncatedVideo,
    UnfitVideo,
    UnreadableVideo,
    Video,
    VideoChanged,
    VideoError,
    VideoMeta,
    VideoNotFound,
    VideoTooLarge,
)

__all__ = [
    "Backend",
    "DecodeTimeout",
    "FrameBatch",
    "FrameStore",
    "NoVideoStream",
    "Resizer",
    "TruncatedVideo",
    "UnfitVideo",
    "UnreadableVideo",
    "Video",
    "VideoChanged",
    "VideoError",
    "VideoMeta",
    "VideoNotFound",
    "VideoTooLarge",
    "fit_within",
    "letterbox",
    "open_video",
    "region_box",
]
