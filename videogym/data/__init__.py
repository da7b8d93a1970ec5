"""From videos of one's own to training tasks: scenes, captions, questions, filters, traces and exports.

Each step is a function that makes lines of one file in a folder of work, see `videogym.data.work`. Who is
asked is any endpoint of OpenAI's chat completions. Source: VideoSIAH, the data pipeline of LongVT. Differs:
traces are played in the environment, so that their frames are those that training shows.
"""

from videogym.data.asking import Asker
from videogym.data.captions import caption_scenes
from videogym.data.exports import ExportFormat, export, kept_tasks, kept_traces
from videogym.data.filtering import FilterOptions, filter_questions
from videogym.data.lines import DataError
from videogym.data.playing import TraceOptions, play_traces
from videogym.data.prompts import StepPrompt, step_prompt
from videogym.data.questions import make_questions
from videogym.data.scenes import SceneOptions, find_scenes, scenes_of
from videogym.data.work import CallCost, Summary, WorkFolder

__all__ = [
    "Asker",
    "CallCost",
    "DataError",
    "ExportFormat",
    "FilterOptions",
    "SceneOptions",
    "StepPrompt",
    "Summary",
    "TraceOptions",
    "WorkFolder",
    "caption_scenes",
    "export",
    "filter_questions",
    "find_scenes",
    "kept_tasks",
    "kept_traces",
    "make_questions",
    "play_traces",
    "scenes_of",
    "step_prompt",
]
