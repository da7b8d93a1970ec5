"""A report of very many episodes: its size, what writing it takes, and whether a browser can read it.

Plays a few episodes, stores them under many names until there are 100,000, runs ``videogym report`` on them
in a process of its own, and opens the page in Chromium from the disk: it must find the last episode by
number and by a search, sort and filter all of them, and turn to the last page. Prints a table, exits 1 when
something is not found or the memory of the writer grows with the number of episodes. Run by
``make bench-report``; needs Playwright and a Chromium (``$CHROMIUM``, or the one on the path).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from videogym import TextActions, VideoQAEnv
from videogym.testing.policies import Random
from videogym.traces import RecordTraces

EPISODES = 100_000
MOST_MEMORY = 400_000_000  # bytes of the writer: an interpreter with its libraries, and one page
TASKS = "procedural:brief_event?level=1&duration_s=600&count=50&split=test"
WRITER = """
import resource, sys
from videogym.cli import main
status = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(status)
"""


def store(path: Path, count: int) -> None:
    """Store so many episodes of a random policy, of which fifty are played."""
    played = path.with_name("played.jsonl")
    env = RecordTraces(TextActions(VideoQAEnv(TASKS)), played, "random")
    policy = Random(seed=0)
    for task in list(env.unwrapped.tasks):  # type: ignore[attr-defined]
        observation, info = env.reset(options={"task_id": task.task_id})
        over = False
        while not over:
            action = policy(observation, info, env.unwrapped)  # type: ignore[arg-type]
            text = env.get_wrapper_attr("grammar").write(action, env.unwrapped.state, "I look there. " * 20)  # type: ignore[attr-defined]
            observation, _, terminated, truncated, info = env.step(text)
            over = terminated or truncated
    env.close()
    rows = [json.loads(line) for line in played.read_text(encoding="utf-8").splitlines()]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = rows[number % len(rows)]
            row["task"]["task_id"] = f"task-{number}"
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write(traces: Path, page: Path, thumbnails: int) -> tuple[float, int]:
    """Run the command; seconds, and bytes of memory at most."""
    begun = time.monotonic()
    command = [sys.executable, "-c", WRITER, "report", str(traces), "--out", str(page)]
    done = subprocess.run([*command, "--thumbnails", str(thumbnails)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    print(done.stderr.strip())
    return time.monotonic() - begun, int(done.stdout.splitlines()[-1])


def size(page: Path) -> tuple[int, int, int]:
    """Bytes of the page, bytes of its folder, and files in it."""
    files = [path for path in page.with_name(f"{page.stem}.files").rglob("*") if path.is_file()]
    return page.stat().st_size, sum(path.stat().st_size for path in files), len(files)


def read(page: Path, count: int) -> list[tuple[str, float, bool]]:
    """What a person does with the page: each with its seconds, and whether it came to what it should."""
    from playwright.sync_api import sync_playwright  # for this alone

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        tab = browser.new_context(offline=True).new_page()
        rows: list[tuple[str, float, bool]] = []

        def shown() -> list[str]:
            tab.wait_for_selector("#episodes:not([aria-busy])", state="attached", timeout=120_000)
            articles = tab.locator("article")
            return articles.evaluate_all("(all) => all.map((one) => one.dataset.task)")  # type: ignore[no-any-return]

        def step(what: str, do: Any, right: Any) -> None:
            begun = time.monotonic()
            do()
            tasks = shown()
            rows.append((what, time.monotonic() - begun, right(tasks)))

        last = f"task-{count - 1}"
        counted = f"{count} of {count} shown"
        step("open", lambda: tab.goto(page.as_uri()), lambda t: t[:2] == ["task-0", "task-1"])
        step("turn to the last page", lambda: tab.fill("[name=page]", "999999"), lambda t: t[-1] == last)
        step("find by number", lambda: tab.fill("[name=text]", f"#{count}"), lambda t: t == [last])
        step("search for its name", lambda: tab.fill("[name=text]", last), lambda t: t == [last])
        tab.locator("article summary").click()
        rows.append(("read it", 0.0, last in tab.inner_text("article .body")))
        step(
            "all again", lambda: tab.fill("[name=text]", ""), lambda t: counted in tab.inner_text("#count")
        )
        step(
            "sort by reward",
            lambda: tab.select_option("[name=sort]", "reward"),
            lambda t: len(t) == 50 and counted in tab.inner_text("#count"),
        )
        step(
            "filter by answer",
            lambda: tab.select_option("[name=verdict]", "right"),
            lambda t: len(t) == 50 and counted not in tab.inner_text("#count"),
        )
        browser.close()
    return rows


def main() -> int:
    """Print the tables; what is not right decides the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--thumbnails", type=int, default=0, help="pictures of an episode")
    parser.add_argument("--out", type=Path, help="folder to keep all in (default: one that is removed)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        traces, page = folder / "traces.jsonl", (folder / "report.html").resolve()
        store(traces, arguments.episodes)
        seconds, memory = write(traces, page, arguments.thumbnails)
        html, data, files = size(page)
        print(
            f"{arguments.episodes} episodes of {traces.stat().st_size / 1e6:.0f} MB: {seconds:.0f} s, "
            f"{memory / 1e6:.0f} MB of memory; page {html / 1e6:.2f} MB, {files} files, {data / 1e6:.0f} MB"
        )
        rows = read(page, arguments.episodes)
    for what, took, right in rows:
        print(f"  {what:<24}{took:6.2f} s  {'right' if right else 'WRONG'}")
    return int(memory > MOST_MEMORY or not all(right for _, _, right in rows))


if __name__ == "__main__":
    sys.exit(main())
