"""Plays one episode in the page of ``videogym play``, as a person would, and takes pictures of it.

``python docs/make_play_picture.py`` writes ``docs/pictures/play.png`` and ``play_outcome.png``. Needs
Playwright and a Chromium: ``$CHROMIUM``, or the one on the path.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from PIL import Image

from videogym import VideoQAEnv
from videogym.play import Game, PlayServer

PICTURES = Path(__file__).parent / "pictures"
TASKS = "procedural:small_detail?level=1&duration_s=600&count=3&split=test"


def drag(page: Any, element: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Press, move and let go, between two places in shares of an element."""
    box = page.locator(element).bounding_box()
    page.mouse.move(box["x"] + start[0] * box["width"], box["y"] + start[1] * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + end[0] * box["width"], box["y"] + end[1] * box["height"], steps=5)
    page.mouse.up()


def look(page: Any, clips: int) -> None:
    """Press the button, and wait for the frames."""
    page.locator("#kinds button").click()
    page.locator(".strip").nth(clips).wait_for()
    page.wait_for_load_state("networkidle")


def keep(page: Any, name: str) -> None:
    """Take a picture, a quarter of the size and no different to the eye."""
    shot = PICTURES / f"{name}.png"
    page.screenshot(path=shot)
    Image.open(shot).convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(shot, optimize=True)
    print(f"{shot}: {shot.stat().st_size / 1000:.0f} kB")


def play(page: Any, env: VideoQAEnv) -> None:
    """Look where the scene is, into the picture, and answer; a script may read the ground truth."""
    task = env.state.task
    assert task.evidence is not None and task.evidence_region is not None
    (segment,), place, length_s = task.evidence, task.evidence_region, env.state.video.duration_s
    page.fill("#thought", "The scene that is asked about begins here.")
    drag(page, "#lanes", ((segment.start_s - 9) / length_s, 0.5), ((segment.end_s + 9) / length_s, 0.5))
    look(page, 1)
    seen = next(i for i, time_s in enumerate(env.state.clips[1].times_s) if segment.contains(time_s))
    page.locator(".strip").first.locator("button").nth(seen).click()
    page.fill("#from", "90")
    page.fill("#to", "30")
    page.locator("#kinds button").click()  # a slip, which costs a turn
    page.locator("#refusal:not(:empty)").wait_for()
    page.locator(".strip").first.locator("button").nth(seen).click()
    margin = 0.03
    drag(
        page, "#stage",
        (max(place.x0 - margin, 0.002), max(place.y0 - margin, 0.002)),
        (min(place.x1 + margin, 0.998), min(place.y1 + margin, 0.998)),
    )  # fmt: skip
    page.fill("#thought", "There is the disc. Its stripes are too fine: I enlarge it.")
    page.mouse.move(5, 5)
    keep(page, "play")
    look(page, 2)
    page.locator(f".option:nth-child({task.letters.index(task.answer) + 1})").click()
    page.fill("#thought", "Now they can be told.")
    page.click("#give")
    page.locator("#outcome .verdict").wait_for()
    page.locator("details").click()
    page.mouse.move(5, 5)
    keep(page, "play_outcome")


def main() -> int:
    """Serve an episode, play it and take the pictures."""
    from playwright.sync_api import sync_playwright  # for pictures alone

    PICTURES.mkdir(exist_ok=True)
    env = VideoQAEnv(TASKS, "DEFAULT")
    with PlayServer(Game(env)) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
        page.goto(server.address)
        page.locator(".frames img").first.wait_for()
        play(page, env)
        browser.close()
        server.shutdown()
    env.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
