"""Sources in which one argument of a look, or a search, is all that an oracle needs, and the oracles.

Everything is read in real pixels, and nothing is shown first. The rate: an event of two frames, of which
the oracle knows the place to a second. The scale: stripes in a disc that frames of 112 x 112 pixels are too
coarse for. The search: one look and an answer, about a video of an hour that nobody has seen. Four options,
so chance is a quarter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from videogym import Answer, Crop, Find, Task, VideoQAEnv, evaluate
from videogym.actions.find import MAX_QUERY_CHARS
from videogym.evaluate import Estimate
from videogym.recipes import DEFAULT, Recipe
from videogym.search import ProceduralIndex
from videogym.state import Action
from videogym.testing.pixel_reader import PixelReader
from videogym.testing.policies import Oracle

CHANCE = 0.25
_BARE = replace(DEFAULT.rules, skim_frames=0, regions=False, max_pixels=112 * 112)
Looks = Callable[..., Action]


@dataclass(frozen=True)
class Needed:
    """A source under a recipe that opens an argument, and an oracle with the argument and without."""

    name: str
    tasks: str  # without count and split
    recipe: Recipe
    with_it: Looks
    without: Looks

    def accuracy(self, looks: Looks, tasks: Sequence[Task]) -> Estimate:
        """How often the frames of the looks tell the answer; guessed where they do not."""
        with VideoQAEnv(tasks, self.recipe) as env:
            ids = [task.task_id for task in tasks]
            return evaluate(PixelReader(looks, seed=1), env, task_ids=ids).accuracy


def near(fps: float | None = None) -> Looks:
    """Looks at 1.9 s around the event, once."""

    def policy(observation: Any, info: Any, env: VideoQAEnv) -> Action:
        action = Oracle()(observation, info, env)
        if not isinstance(action, Crop):
            return action
        (event,) = env.state.task.evidence or ()
        start_s = max(0.0, event.start_s - 0.9)
        return Crop(start_s, start_s + 1.9, fps=fps)

    return policy


def oracle(scale: float | None = None) -> Looks:
    """The oracle, its looks at a scale."""

    def policy(observation: Any, info: Any, env: VideoQAEnv) -> Action:
        action = Oracle(regions=False)(observation, info, env)
        return replace(action, scale=scale) if isinstance(action, Crop) else action

    return policy


def once(search: bool) -> Looks:
    """Searches for the question, or looks at the whole video, and answers."""

    def policy(observation: Any, info: Any, env: VideoQAEnv) -> Action:
        if observation["turn"] > 0:
            return Answer("")
        if search:
            return Find(observation["question"][:MAX_QUERY_CHARS], 1)
        return Crop(0.0, float(observation["duration_s"][0]))

    return policy


NEEDED = (
    Needed(
        "rate",
        "brief_event?duration_s=600&event_s=0.25",
        replace(DEFAULT, name="RATE", rules=replace(_BARE, crop_fps=0.5, crop_arguments=("fps",))),
        near(8.0),
        near(),
    ),
    Needed(
        "scale",
        "small_detail?duration_s=600",
        replace(
            DEFAULT,
            name="SCALE",
            rules=replace(_BARE, crop_arguments=("scale",), max_scaled_pixels=1288 * 728, look_tokens=5000),
        ),
        oracle(1.0),
        oracle(),
    ),
    Needed(
        "search",
        "brief_event?duration_s=3600&event_s=3",
        replace(
            DEFAULT,
            name="SEARCH",
            rules=replace(_BARE, actions=("find", "crop", "answer"), max_turns=2),
            search=ProceduralIndex(),
        ),
        once(search=True),
        once(search=False),
    ),
)
