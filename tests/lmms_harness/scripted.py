"""Policies for `policy=scripted:NAME`: what a model may be like, without a model.

Those that write speak LongVT's grammar (`recipe=LONGVT_TINY,text=True`).
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from videogym import Answer, Crop, VideoQAEnv
from videogym.grammars.longvt import video_name

CALL = '<think>look</think><tool_call>{{"name": "crop_video", "arguments": {}}}</tool_call>'


def look_and_tell(observation: Any, info: dict[str, Any], env: VideoQAEnv) -> str:
    """Writes a look, then the right answer in tags."""
    if not env.state.turns:
        times = {"start_time": 1.0, "end_time": 5.0}
        return CALL.format(json.dumps({"video_path": video_name(env.state.task), **times}))
    return f"<think>I have seen it.</think><answer>{env.state.task.answer}</answer>"


def say_the_option(observation: Any, info: dict[str, Any], env: VideoQAEnv) -> str:
    """Writes letter and text of the right option where a letter is asked for."""
    task = env.state.task
    right = dict(zip(task.letters, task.labelled_options, strict=True)).get(task.answer, task.answer)
    return f"<think>Not A, not B.</think><answer>{right}</answer>"


def always_a(observation: Any, info: dict[str, Any], env: VideoQAEnv) -> Any:
    """Knows nothing: the first option, after a look at nothing in particular."""
    return Answer("A") if env.state.turns else Crop(0.0, 4.0)


def never_ends(observation: Any, info: dict[str, Any], env: VideoQAEnv) -> str:
    """Thinks of A, B, C and D for as long as it may, and says nothing."""
    return "<think>" + "It could be A. Or B. Or C. Or D. " * 200


def dies_in_the_middle(observation: Any, info: dict[str, Any], env: VideoQAEnv) -> Any:
    """Is killed after some episodes, once; then answers as `always_a`."""
    count, mark = int(os.environ["DIES_AFTER"]), Path(os.environ["DIED"])
    _answered.add(env.state.task.task_id)
    if len(_answered) > count and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return always_a(observation, info, env)


_answered: set[str] = set()
