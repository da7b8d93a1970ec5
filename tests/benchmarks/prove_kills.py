"""Proves that whoever decodes or builds caches may be killed at any moment.

SIGKILL at random moments, 50 for each of four victims:

- the command ``videogym index`` while it builds packet tables and grids: every video that was reported done
  is served from its grid, every frame the right one, and none is decoded; nothing broken stands under a
  final name; what is left under temporary names is gone after a later run;
- the processes in which ``videogym index`` builds: the command goes on and reports every video done;
- the processes in which ``videogym doctor`` decodes: its verdicts are those of a run that is not disturbed;
- the process in which decord decodes: a read gives the right frames or a typed error, the next one works.

Prints a table, exits 1 when anything is lost, broken or left behind. Run by ``make prove-kills``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from videogym.testing.coded_clips import read_code, write_clip
from videogym.video import FrameStore, VideoError, open_video
from videogym.video.grid import Grid

MOMENTS = 50
FILMS, FRAMES, RATE = 9, 600, 30
X264 = {"g": "50", "bf": "3", "preset": "veryfast", "crf": "23"}
STALE_S = 3601.0  # after which a temporary file belongs to nobody
COMMAND = [sys.executable, "-m", "videogym"]
INDEX = ["--recipe", "LONGVT/paper", "--frame-size", "160x96", "--jobs", "2", "--json"]


def make_films(folder: Path) -> list[Path]:
    """Films whose frames carry their numbers."""
    paths = [folder / f"{number}.mp4" for number in range(FILMS)]
    for number, path in enumerate(paths):
        write_clip(path, FRAMES, rate=RATE, codec_options=X264, first=1000 * number)
    return paths


def environment(cache: Path) -> dict[str, str]:
    """What commands run in."""
    return os.environ | {"VIDEOGYM_CACHE": str(cache)}


# --- the index builder ---------------------------------------------------------------------------


def prove_index(films: list[Path], folder: Path, moments: int) -> list[str]:
    """Kill the command, and look at what is there."""
    cache, wrong, done, partial = folder / "cache", [], 0, 0
    for moment in range(moments):
        rng = random.Random(f"index {moment}")
        if moment % 5 == 0:
            shutil.rmtree(cache, ignore_errors=True)  # begin anew; else go on where the last was killed
        process = subprocess.Popen(
            [*COMMAND, "index", str(films[0].parent), *INDEX],
            env=environment(cache), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        if moment % 2:
            seen = contents(cache)
            while contents(cache) == seen and process.poll() is None:
                pass  # it is starting; from here on it writes
        time.sleep(rng.uniform(0.0, 0.6))
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        process.kill()
        rows = [json.loads(line) for line in process.stdout if line.endswith("\n")]
        process.wait()
        done += len(rows)
        _, orphans = psutil.wait_procs(children, timeout=30)
        if orphans:
            wrong.append(f"moment {moment}: {len(orphans)} processes outlive the command")
        partial += sum(path.name.startswith(".") for path in cache.rglob("*"))
        wrong += [f"moment {moment}: {what}" for what in broken(rows, cache)]
    wrong += leftovers(films, cache)
    report("videogym index", moments, f"{done} videos reported done, {partial} temporary names left", wrong)
    return wrong


def contents(cache: Path) -> int:
    """How many files there are below a folder that may change while it is read."""
    count = 0
    for _, _, names in os.walk(cache):
        count += len(names)
    return count


def broken(rows: list[dict[str, object]], cache: Path) -> Iterator[str]:
    """What was reported and is not there, and what stands under a final name and cannot be read."""
    for table in (cache / "tables").glob("[!.]*"):
        with suppress(Exception), np.load(table) as stored:
            if len(stored["pts"]) == FRAMES:
                continue
        yield f"the table {table.name} is broken"
    for grid in (cache / "grids").glob("*/[!.]*"):
        try:
            Grid(grid)
        except (OSError, ValueError, EOFError) as error:
            yield f"the grid {grid} is broken: {error}"
    with FrameStore(cache) as store:
        for row in rows:
            path, grid = str(row["path"]), str(row["grid"])
            times = np.load(Path(grid) / "pts_s.npy")
            first = 1000 * int(Path(path).stem)
            shown = store.frames(path, times.tolist(), size=(160, 96)).pixels
            due = [first + round(time_s * RATE) for time_s in times.tolist()]
            if [read_code(pixels) for pixels in shown] != due:
                yield f"{path}: other frames than were asked for"
            video = store.open(path)
            if video.stats.decoded or video.stats.opens:  # type: ignore[attr-defined]
                yield f"{path}: was reported done, and had to be decoded"


def leftovers(films: list[Path], cache: Path) -> Iterator[str]:
    """Temporary names that outlive a run which comes an hour later."""
    for path in cache.rglob("*"):
        os.utime(path, (time.time() - STALE_S,) * 2)
    for kept in [path for path in (cache / "tables").glob("[!.]*")]:
        kept.unlink()  # so that every folder is written to once more
    for kept in [path for path in (cache / "grids").glob("*/[!.]*")]:
        shutil.rmtree(kept)
        for path in kept.parent.glob(".*"):
            os.utime(path, (time.time() - STALE_S,) * 2)
    command = [*COMMAND, "index", str(films[0].parent), *INDEX]
    subprocess.run(command, env=environment(cache), stdout=subprocess.DEVNULL, check=True)
    for path in cache.rglob(".*"):
        yield f"{path} is left"


# --- children of the commands --------------------------------------------------------------------


def disturbed(command: list[str], cache: Path, seconds: float, seed: str) -> tuple[str, bool, int]:
    """Run a command and kill one of its children at a random moment.

    Returns:
        What it wrote, whether it was running when the moment came, and how many processes outlive it.
    """
    rng = random.Random(seed)
    process = subprocess.Popen(
        command, env=environment(cache), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    parent, killed, children = psutil.Process(process.pid), False, []
    while not children and process.poll() is None:
        children = parent.children()
    time.sleep(rng.uniform(0.0, seconds))
    with suppress(psutil.NoSuchProcess):
        children = parent.children()
        if children:
            rng.choice(children).kill()
            killed = True
    said = process.stdout.read()
    process.wait()
    return said, killed, len(psutil.wait_procs(children, timeout=30)[1])


def prove_children(
    name: str, command: list[str], cache: Path, moments: int, check: Callable[[str], list[str]]
) -> list[str]:
    """Kill children of a command until that was done at so many moments; each run must come out right."""
    wrong, hit, runs = [], 0, 0
    seconds = 1.0
    while hit < moments and runs < 4 * moments:
        shutil.rmtree(cache, ignore_errors=True)
        began = time.monotonic()
        said, killed, orphans = disturbed(command, cache, seconds, f"{name} {runs}")
        # Up to the end of a run of usual length, so that late moments come too.
        seconds = 0.5 * seconds + 0.4 * (time.monotonic() - began)
        runs, hit = runs + 1, hit + killed
        if orphans:
            wrong.append(f"run {runs}: {orphans} processes outlive the command")
        wrong += [f"run {runs}: {what}" for what in check(said)]
    if hit < moments:
        wrong.append(f"killed at {hit} moments only")
    report(f"children of {name}", hit, f"{runs} runs", wrong)
    return wrong


def prove_builders(films: list[Path], folder: Path, moments: int) -> list[str]:
    """Children of the index builder: every video is done all the same."""
    cache = folder / "cache"

    def check(said: str) -> list[str]:
        rows = [json.loads(line) for line in said.splitlines()]
        if len(rows) != FILMS or any(row["problem"] for row in rows):
            return [f"not every video was done: {said}"]
        return list(broken(rows, cache))

    command = [*COMMAND, "index", str(films[0].parent), *INDEX]
    return prove_children("videogym index", command, cache, moments, check)


def prove_doctor(films: list[Path], folder: Path, moments: int) -> list[str]:
    """Children of the doctor: the verdicts are those of a run that nobody disturbs."""
    damaged = folder / "films"
    shutil.copytree(films[0].parent, damaged)
    for path in sorted(damaged.iterdir())[::3]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
        path.write_bytes(data)
    command = [*COMMAND, "doctor", str(damaged), "--decode", "all", "--jobs", "2", "--json"]
    cache = folder / "cache"
    done = subprocess.run(command, env=environment(cache), stdout=subprocess.PIPE, text=True)
    usable = [json.loads(line)["usable"] for line in done.stdout.splitlines()]
    assert len(usable) == FILMS and usable.count(False) == FILMS // 3, "the files are not as they should be"

    def check(said: str) -> list[str]:
        return [] if said == done.stdout else [f"other verdicts: {said}"]

    return prove_children("videogym doctor", command, cache, moments, check)


# --- decord --------------------------------------------------------------------------------------


def prove_decord(films: list[Path], folder: Path, moments: int) -> list[str]:
    """Kill decord's process while it reads: right frames or a typed error, and then right frames."""
    wrong, errors, rng = [], 0, random.Random("decord")
    with open_video(str(films[0]), backend="decord", cache_dir=folder / "cache") as video:
        for moment in range(moments):
            frames = [rng.randrange(FRAMES) for _ in range(24)]
            times = [frame / RATE for frame in frames]
            video.frames_at(times[:1])
            pid = video.child_pid  # type: ignore[attr-defined]
            watch = threading.Timer(rng.uniform(0.0, 0.25), os.kill, (pid, 9))
            watch.start()
            try:
                shown = [read_code(pixels) for pixels in video.frames_at(times).pixels]
                if shown != frames:
                    wrong.append(f"moment {moment}: frames {shown} for {frames}")
            except VideoError:
                errors += 1
            watch.join()
            with suppress(VideoError):  # the kill came after the read: this one meets it
                video.frames_at(times[:1])
            again = [read_code(pixels) for pixels in video.frames_at(times).pixels]
            if again != frames:
                wrong.append(f"moment {moment}: afterwards frames {again} for {frames}")
            if psutil.pid_exists(pid):
                wrong.append(f"moment {moment}: the killed process is left as a zombie")
    report("decord", moments, f"{errors} reads failed with a typed error", wrong)
    return wrong


# --- all -----------------------------------------------------------------------------------------

PROOFS = {
    "index": prove_index,
    "builders": prove_builders,
    "doctor": prove_doctor,
    "decord": prove_decord,
}


def report(name: str, moments: int, what: str, wrong: list[str]) -> None:
    """A line of the table."""
    print(f"{name}: killed at {moments} moments, {what}, lost, broken or left: {len(wrong)}", flush=True)


def main(names: list[str], moments: int) -> int:
    """Print the table; anything that went wrong decides the exit status."""
    wrong = []
    for name in names:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            wrong += PROOFS[name](make_films(Path(one)), Path(other), moments)
    for line in wrong:
        print(line)
    return int(bool(wrong))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=MOMENTS)
    parser.add_argument("--only", choices=sorted(PROOFS), action="append")
    arguments = parser.parse_args()
    sys.exit(main(arguments.only or list(PROOFS), arguments.moments))
