"""Gymnasium environments in which a policy looks around in long videos."""

import gymnasium as _gymnasium

from videogym.actions import Answer, Crop, Find, Select
from videogym.env import Snapshot, VideoQAEnv
from videogym.evaluate import evaluate
from videogym.geometry import Region, Segment
from videogym.grammars import Prompt
from videogym.recipes import Recipe, get_recipe
from videogym.rewards import RewardError, Term
from videogym.state import Invalid, Move, Rules, State, Task
from videogym.video import FrameStore, VideoError, open_video
from videogym.wrappers import DiscreteActions, TextActions

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Crop",
    "DiscreteActions",
    "Find",
    "FrameStore",
    "Invalid",
    "Move",
    "Prompt",
    "Recipe",
    "Region",
    "RewardError",
    "Rules",
    "Segment",
    "Select",
    "Snapshot",
    "State",
    "Task",
    "Term",
    "TextActions",
    "VideoError",
    "VideoQAEnv",
    "evaluate",
    "get_recipe",
    "open_video",
]

# Events last long enough for one frame of the recipe's pool, or hide between two frames of its skim.
for _id, _recipe, _tasks in (
    ("VideoMTR-v0", "VIDEO_MTR/paper", "procedural:brief_event?duration_s=600"),
    ("VideoMTRCode-v0", "VIDEO_MTR/code", "procedural:brief_event?duration_s=600&event_s=12"),
    ("LongVT-v0", "LONGVT/paper", "procedural:brief_event?duration_s=3600&event_s=3"),
    ("LongVTCode-v0", "LONGVT/code", "procedural:brief_event?duration_s=3600&event_s=3"),
    ("VideoZoomer-v0", "VIDEO_ZOOMER/paper", "procedural:brief_event?duration_s=3600&event_s=3"),
    ("VideoZoomerCode-v0", "VIDEO_ZOOMER/code", "procedural:brief_event?duration_s=3600&event_s=3"),
    ("ParaVT-v0", "PARAVT/paper", "procedural:brief_event?duration_s=3600&event_s=3"),
    ("ParaVTCode-v0", "PARAVT/code", "procedural:brief_event?duration_s=3600&event_s=3"),
    ("EVA-v0", "EVA/code", "procedural:brief_event?duration_s=600"),
    ("Find-v0", "FIND", "procedural:brief_event?duration_s=3600&event_s=3"),
    ("VideoQA-v0", "DEFAULT", "procedural:brief_event?duration_s=600"),
):
    _gymnasium.register(
        id=f"videogym/{_id}",
        entry_point="videogym.env:VideoQAEnv",
        kwargs={"recipe": _recipe, "tasks": _tasks},
    )
