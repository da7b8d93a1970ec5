"""Plays ten random episodes in each grammar, writes them as a report, and takes pictures of it.

``python docs/make_report_pictures.py`` writes ``docs/pictures/report_*.png``; traces and pages go to
``runs/report`` or ``--out``. Needs the extra ``report``, Playwright, and a Chromium: ``$CHROMIUM``, or the
one on the path.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from videogym import TextActions, VideoQAEnv
from videogym.grammars import grammar_names
from videogym.report import write_report
from videogym.testing.policies import Oracle, Random, random_answer
from videogym.traces import RecordTraces, Traces, read_traces

PICTURES = Path(__file__).parent / "pictures"
TASKS = "procedural:brief_event?level=1&duration_s=600&count=10&split=test"
RECIPES = {
    "video_mtr/strict": "VIDEO_MTR/paper",
    "video_mtr/code": "VIDEO_MTR/code",
    "longvt/strict": "LONGVT/paper",
    "longvt/code": "LONGVT/code",
    "video_zoomer/strict": "VIDEO_ZOOMER/paper",
    "video_zoomer/code": "VIDEO_ZOOMER/code",
    "paravt/strict": "PARAVT/paper",
    "paravt/code": "PARAVT/code",
    "eva": "EVA/code",
    "native": "DEFAULT",
}
THOUGHTS = (
    "The skim does not show it. I look where the background changes.",
    "Nothing here. The scene that is asked about must be somewhere else.",
    "This looks like the right scene; a closer look will tell.",
)


def play(
    out: Path, grammar: str, run: str, policy: Any, *, garbled: float = 0.0, episodes: int = 10
) -> Traces:
    """Play the first tasks by text.

    Args:
        out: folder of the file of traces.
        grammar: what the policy writes.
        run: name of the run.
        policy: called as ``videogym.evaluate`` calls it; its actions are written in the grammar.
        garbled: share of outputs whose last tag is missing.
        episodes: how many.
    """
    path = out / f"{run.replace('/', '-').replace(' ', '-')}.jsonl"
    path.unlink(missing_ok=True)
    inner = VideoQAEnv(TASKS, RECIPES[grammar])
    env = RecordTraces(TextActions(inner, grammar), path, run)
    rng = random.Random(run)
    for task in list(inner.tasks)[:episodes]:
        observation, info = env.reset(options={"task_id": task.task_id})
        over = False
        while not over:
            text = written(env, policy(observation, info, inner), observation, rng)
            if rng.random() < garbled:
                text = text[: text.rindex("<")]
            observation, _, terminated, truncated, info = env.step(text)
            over = terminated or truncated
    env.close()
    return read_traces(path)


def written(env: Any, action: Any, observation: Any, rng: random.Random) -> str:
    """The action in the words of the environment's grammar; an answer where it has none for it."""
    grammar, state, thought = env.get_wrapper_attr("grammar"), env.unwrapped.state, rng.choice(THOUGHTS)
    try:
        return str(grammar.write(action, state, thought))
    except ValueError:  # a segment between two frames of the pool
        return str(grammar.write(random_answer(observation, env.unwrapped.np_random), state, thought))


def all_grammars(out: Path) -> Traces:
    """Ten random episodes in every grammar."""
    runs = [
        play(out, grammar, f"random {grammar}", Random(seed=1), garbled=0.15) for grammar in grammar_names()
    ]
    return Traces(tuple(trace for run in runs for trace in run.episodes), 0)


def take_pictures(page_of_all: Path, page_of_two: Path) -> None:
    """Open the pages as a person would, and keep what is seen."""
    from playwright.sync_api import sync_playwright  # for pictures alone

    PICTURES.mkdir(exist_ok=True)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, page, address, opened in (
            ("list", page_of_all, "#sort=task", None),
            ("episode", page_of_all, "#run=random native&sort=turns", 0),
            ("episode_dark", page_of_all, "#run=random longvt/code&sort=turns", 0),
            ("side_by_side", page_of_two, "", 1),
        ):
            tab = browser.new_page(
                viewport={"width": 1440, "height": 1200},
                color_scheme="dark" if name.endswith("dark") else "light",
            )
            tab.goto(page.resolve().as_uri() + address)
            if opened is not None:
                tab.locator("article summary").nth(opened).click()
            shot = PICTURES / f"report_{name}.png"
            tab.screenshot(path=shot)
            # A quarter of the size, and no difference to the eye.
            Image.open(shot).convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(
                shot, optimize=True
            )
            print(f"{shot}: {shot.stat().st_size / 1000:.0f} kB")
            tab.close()
        browser.close()


def main() -> int:
    """Play, write, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/report"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    write_report(all_grammars(out), out / "grammars.html", title="Ten random episodes in each grammar")
    two = [
        play(out, "native", name, policy) for name, policy in (("random", Random(2)), ("oracle", Oracle()))
    ]
    write_report(two[0], out / "two.html", two[1], title="Random and oracle")
    take_pictures(out / "grammars.html", out / "two.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
