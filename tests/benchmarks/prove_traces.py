"""Proves that writers of traces and of reports may be killed at any moment.

Kills a process that appends large episodes to one file, one that writes a large report again and again,
and one that writes reports whose episodes lie in a folder, each by SIGKILL at random moments. Of the file:
every episode that was reported done is there, in order and whole, at most one more than that, and at most
one torn line, which the next writer cuts. Of the reports: what stands under its name is a whole page, the
folder that it reads is there and whole, and what a killed writer leaves beside it is gone after the next
one. Prints a table, exits 1 when anything is lost or broken. Run by ``make prove-traces``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

from videogym import Answer, VideoQAEnv
from videogym.report import parts, write_report
from videogym.traces import Trace, Traces, TurnTrace, append_trace, read_traces, trace_of

MOMENTS = 50
MEGABYTE = 1_000_000
TASKS = "procedural:brief_event?duration_s=60&count=1"


def episode(number: int, size: int) -> Trace:
    """An episode of one turn, whose text is so long that writing it takes a while."""
    env = VideoQAEnv(TASKS)
    env.reset(seed=0)
    _, reward, _, _, _ = env.step(Answer("A"))
    turn = replace(env.state.turns[-1], text="<é>" * (size // 4))
    trace = trace_of(env.state, (TurnTrace(turn, reward, {}),), correct=False, run="proof")
    return replace(trace, task=replace(trace.task, task_id=str(number)))


def append_on(path: Path, first: int) -> None:
    """Append episodes of up to 8 MB, and report each by its number, from ``first`` on."""
    trace, rng = episode(0, 8 * MEGABYTE), random.Random(first)
    text = trace.turns[0].turn.text or ""
    print("ready", flush=True)
    for number in count(first):
        turn = replace(trace.turns[0].turn, text=text[: rng.randint(1, len(text))])
        task = replace(trace.task, task_id=str(number))
        append_trace(path, replace(trace, task=task, turns=(replace(trace.turns[0], turn=turn),)))
        print(number, flush=True)


def pages() -> Traces:
    """The episodes of a page of 10 MB."""
    return Traces(tuple(episode(number, MEGABYTE // 4) for number in range(20)), 0)


def report_on(path: Path, first: int) -> None:
    """Write one report of 10 MB again and again, and report each."""
    traces = pages()
    print("ready", flush=True)
    for number in count(first):
        write_report(traces, path, thumbnails=0)
        print(number, flush=True)


def folders_on(path: Path, first: int) -> None:
    """Write reports of 10 MB in folders, no two of the same content after one another, and report each."""
    parts.MOST_EPISODES, parts.PART_EPISODES = 5, 3
    versions = [Traces(pages().episodes[: 20 - less], 0) for less in range(2)]
    print("ready", flush=True)
    for number in count(first):
        write_report(versions[number % 2], path, thumbnails=0)
        print(number, flush=True)


WRITERS = {"traces": append_on, "report": report_on, "folders": folders_on}


def killed(what: str, path: Path, moment: int, seconds: float, first: int = 0) -> list[int]:
    """Run a writer and kill it; the numbers that it reported.

    Every other time the killer waits for the writer to be writing, which it does for a small share of its
    time, and then for a moment of up to some milliseconds; else for up to so many seconds.
    """
    rng = random.Random(f"{what} {moment}")
    command = [sys.executable, __file__, "--write", what, "--out", str(path), "--first", str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, seconds))
        if moment % 2:
            before = written(path)
            while written(path) == before:
                pass
            time.sleep(rng.choice((0.0, 0.0, rng.uniform(0.0, 0.005))))
        process.kill()
        # A number may be cut like anything else, and one that is cut was not reported.
        return [int(line) for line in process.stdout if line.endswith("\n")]


def written(path: Path) -> int:
    """Bytes in a file and in those that are made beside it."""
    total = 0
    for entry in os.scandir(path.parent):
        with suppress(FileNotFoundError):  # renamed in this moment
            total += entry.stat().st_size
    return total


def prove_traces(folder: Path, moments: int) -> list[str]:
    """What went wrong with the file of traces."""
    path, wrong, torn, unreported, there, total = folder / "traces.jsonl", [], 0, 0, 0, 0
    for moment in range(moments):
        reported = killed("traces", path, moment, 0.5, there)
        numbers: list[int] = []
        if path.exists():
            found = read_traces(path)
            numbers, lines = [int(trace.task.task_id) for trace in found.episodes], found.torn
            torn += lines
            if lines > 1:
                wrong.append(f"moment {moment}: {lines} torn lines")
        # An episode that is whole but was not reported any more stays.
        extra = len(numbers) - (there + len(reported))
        if numbers != list(range(len(numbers))) or extra not in (0, 1):
            wrong.append(f"moment {moment}: {reported[-1:]} was reported, the file ends in {numbers[-3:]}")
        unreported, total, there = unreported + extra, total + len(reported), len(numbers)
        if there > 20:
            path.unlink()
            there = 0
    print(
        f"traces: killed at {moments} moments, {total} episodes reported done, {unreported} more whole, "
        f"{torn} torn, lost or broken: {len(wrong)}"
    )
    return wrong


def prove_report(folder: Path, moments: int) -> list[str]:
    """What went wrong with the page."""
    path, wrong, left, done = folder / "report.html", [], set(), 0
    begun = time.monotonic()
    write_report(pages(), path, thumbnails=0)
    seconds = time.monotonic() - begun
    path.unlink()
    for moment in range(moments):
        reported = killed("report", path, moment, 2 * seconds)
        done += len(reported)
        left |= set(folder.glob(".report*"))
        if reported and not path.exists():
            wrong.append(f"moment {moment}: the page is gone")
        if path.exists():
            page = path.read_text(encoding="utf-8")
            if page.count("<article ") != 20 or not page.endswith("</html>\n"):
                wrong.append(f"moment {moment}: the page is broken")
    write_report(Traces((episode(0, 10),), 0), path, thumbnails=0)
    if beside := list(folder.glob(".report*")):
        wrong.append(f"left beside the page after the last writer: {beside}")
    print(
        f"report: killed at {moments} moments, {done} pages reported done, {len(left)} killed in writing, "
        f"lost or broken: {len(wrong)}"
    )
    return wrong


def prove_folders(folder: Path, moments: int) -> list[str]:
    """What went wrong with a page and the folder that it reads."""
    path, wrong, left, done = folder / "report.html", [], set(), 0
    for moment in range(moments):
        reported = killed("folders", path, moment, 1.0, moment)
        done += len(reported)
        left |= set(folder.glob(".report*"))
        if reported and not path.exists():
            wrong.append(f"moment {moment}: the page is gone")
        if path.exists() and (problem := unreadable(path)):
            wrong.append(f"moment {moment}: {problem}")
    write_report(Traces((episode(0, 10),), 0), path, thumbnails=0)
    if beside := [entry.name for entry in folder.iterdir() if entry != path]:
        wrong.append(f"left beside the page after the last writer: {beside}")
    print(
        f"folders: killed at {moments} moments, {done} reported done, {len(left)} killed in writing, "
        f"lost or broken: {len(wrong)}"
    )
    return wrong


def unreadable(page: Path) -> str:
    """What is wrong with a page and its folder; "" if nothing."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'id="book">(.*)</script>', text)
    if found is None or not text.endswith("</html>\n"):
        return "the page is broken"
    book = json.loads(found[1])
    data = page.parent / book["folder"]
    names = ["index.js", "texts.js", *(f"part-{i}.js" for i in range(len(book["starts"])))]
    if missing := [name for name in names if not (data / name).exists()]:
        return f"{missing} are missing"
    pieces = [(data / name).read_text(encoding="utf-8") for name in names]
    whole = all(piece.startswith("videogymReport(") and piece.endswith(")\n") for piece in pieces)
    articles = sum(piece.count("<article ") for piece in pieces)
    return (
        "" if whole and articles == book["count"] else f"{articles} of {book['count']} episodes are there"
    )


def main(moments: int) -> int:
    """Print the table; anything that went wrong decides the exit status."""
    wrong: list[str] = []
    for prove in (prove_traces, prove_report, prove_folders):
        with tempfile.TemporaryDirectory() as folder:
            wrong += prove(Path(folder), moments)
    for line in wrong:
        print(line)
    return int(bool(wrong))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=MOMENTS)
    parser.add_argument("--write", choices=sorted(WRITERS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.write is None:
        sys.exit(main(arguments.moments))
    WRITERS[arguments.write](arguments.out, arguments.first)
