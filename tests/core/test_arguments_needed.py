"""Where a rate or a scale is needed, read in real pixels: with it an oracle sees all, without it nothing.

The rate: an event of two frames, of which the oracle knows the place to a second. The scale: stripes in a
disc that frames of 112 x 112 pixels are too coarse for. Four options, so chance is a quarter.
"""

# ruff: noqa: D103

from dataclasses import replace

import pytest

from videogym import Crop, VideoQAEnv, evaluate
from videogym.recipes import DEFAULT
from videogym.testing.pixel_reader import PixelReader
from videogym.testing.policies import Oracle

CHANCE = 0.25
_CLOSED = replace(DEFAULT.rules, skim_frames=0, regions=False, max_pixels=112 * 112)
RATE = replace(DEFAULT, name="RATE", rules=replace(_CLOSED, crop_fps=0.5, crop_arguments=("fps",)))
SCALE = replace(
    DEFAULT,
    name="SCALE",
    rules=replace(_CLOSED, crop_arguments=("scale",), max_scaled_pixels=1288 * 728, look_tokens=5000),
)
TASKS = {
    "RATE": "procedural:brief_event?duration_s=600&event_s=0.25&count=100&split=val",
    "SCALE": "procedural:small_detail?duration_s=600&count=24&split=val",
}


def near(fps=None):
    """Looks at 1.9 s around the event, once, and then answers by what it saw."""

    def policy(observation, info, env):
        action = Oracle()(observation, info, env)
        if not isinstance(action, Crop):
            return action
        (event,) = env.state.task.evidence
        start_s = max(0.0, event.start_s - 0.9)
        return Crop(start_s, start_s + 1.9, fps=fps)

    return policy


def oracle(scale=None):
    """The oracle, its looks at a scale."""

    def policy(observation, info, env):
        action = Oracle(regions=False)(observation, info, env)
        return replace(action, scale=scale) if isinstance(action, Crop) else action

    return policy


def accuracy(recipe, looks):
    with VideoQAEnv(TASKS[recipe.name], recipe) as env:
        ids = [task.task_id for task in env.tasks]
        return evaluate(PixelReader(looks, seed=1), env, task_ids=ids).accuracy.mean


@pytest.mark.parametrize(
    ("recipe", "with_it", "without"),
    [(RATE, near(8.0), near()), (SCALE, oracle(1.0), oracle())],
    ids=["rate", "scale"],
)
def test_the_argument_is_all_that_is_missing(recipe, with_it, without):
    assert accuracy(recipe, with_it) == 1.0
    assert accuracy(recipe, without) <= CHANCE + 0.1
