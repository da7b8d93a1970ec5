"""Serves one question under a recipe of few small frames, as a script of a user's own would."""

import argparse
from dataclasses import replace

from videogym import get_recipe

# One question, whose evidence of 3 s is known.
TASKS = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=1&size=64x36"
DEFAULT = get_recipe("DEFAULT")
RECIPE = replace(
    DEFAULT, name="small", rules=replace(DEFAULT.rules, skim_frames=6, clip_frames=4, max_pixels=28 * 56)
)

if __name__ == "__main__":
    import uvicorn

    from videogym.openenv import Limits, Sessions, SharedEnvs, make_app

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    port = parser.parse_args().port
    app = make_app(Sessions(SharedEnvs(TASKS, RECIPE)), Limits(sessions=4))
    uvicorn.run(app, port=port, log_level="warning", timeout_graceful_shutdown=5)
