"""From videos of one's own to training tasks: scenes, captions, questions, filters, traces and exports.

Each step is a function that makes lines of one file in a folder of work, see `videogym.data.work`. Who is
asked is any endpoint of OpenAI's chat completions. Source: VideoSIAH, the data pipeline of LongVT. Differs:
traces are played in the environment, so that their frames are those that training shows.
"""

from videogym.data.asking import Asker
from videogym.data.captions import caption_scenes
from videogym.data.lines import DataError
from videogym.data.prompts import StepPrompt, step_prompt
from videogym.data.questions import ask_questions
from videogym.data.scenes import SceneOptions, find_scenes, scenes_of
from videogym.data.work import Cost, Summary, Work

__all__ = [
    "Asker",
    "Cost",
    "DataError",
    "SceneOptions",
    "StepPrompt",
    "Summary",
    "Work",
    "ask_questions",
    "caption_scenes",
    "find_scenes",
    "scenes_of",
    "step_prompt",
]
