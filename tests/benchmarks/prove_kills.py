"""Proves that whoever decodes or builds caches may be killed at any moment.

SIGKILL at random moments, 50 for each of four victims:

- the command ``videogym index`` while it builds packet tables and grids, every second time with all its
  processes: every video that was reported done is served from its grid, every frame the right one, and
  none is decoded; nothing broken stands under a final name; what is left under temporary names is gone
  after a later run;
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
import signal
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
FILMS, FRAMES, RATE = 6, 600, 30
X264 = {"g": "50", "bf": "3", "preset": "veryfast", "crf": "23"}
STALE_S = 3601.0  # after which a temporary file belongs to nobody
GONE_S = 120.0  # by which a process without a parent has ended, on a busy machine too
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
    """Kill the command while it writes, and look at what is there."""
    cache, wrong, hit, runs, done, partial = folder / "cache", [], 0, 0, 0, 0
    command = [*COMMAND, "index", str(films[0].parent), *INDEX]
    seconds = undisturbed(command, cache)
    promised: dict[str, dict[str, object]] = {}  # what was reported done of this cache, by path
    while hit < moments and runs < 4 * moments:
        rng = random.Random(f"index {runs}")
        if runs % 5 == 0 or len(promised) == FILMS:
            shutil.rmtree(cache, ignore_errors=True)  # begin anew; else go on where the last was killed
            promised = {}
        process = started(command, cache)
        time.sleep(rng.uniform(0.0, seconds))
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        process.kill()
        for child in children if runs % 2 else []:  # as when a machine goes down; else they have to notice
            with suppress(psutil.NoSuchProcess):
                child.kill()
        assert process.stdout is not None
        rows = [json.loads(line) for line in process.stdout if line.endswith("\n")]
        runs, hit, done = runs + 1, hit + (process.wait() == -signal.SIGKILL), done + len(rows)
        wrong += [f"run {runs}: {row['problem']}" for row in rows if row["problem"]]
        promised |= {row["path"]: row for row in rows if not row["problem"]}
        _, orphans = psutil.wait_procs(children, timeout=GONE_S)
        if orphans:
            wrong.append(f"run {runs}: {len(orphans)} processes outlive the command")
        partial += sum(path.name.startswith(".") for path in cache.rglob("*"))
        wrong += [f"run {runs}: {what}" for what in broken(list(promised.values()), cache)]
    if hit < moments:
        wrong.append(f"killed at {hit} moments only")
    wrong += leftovers(command, cache)
    report("videogym index", hit, f"{runs} runs, {done} videos reported, {partial} half-made names", wrong)
    return wrong


def started(command: list[str], cache: Path) -> subprocess.Popen[str]:
    """The command, from where on it writes; or ended, if there was nothing to do."""
    seen = contents(cache)
    process = subprocess.Popen(
        command, env=environment(cache), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while contents(cache) == seen and process.poll() is None:
        time.sleep(0.001)
    return process


def undisturbed(command: list[str], cache: Path) -> float:
    """Seconds that a whole run writes for."""
    process = started(command, cache)
    began = time.monotonic()
    process.communicate()
    return time.monotonic() - began


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
    for folder in (cache / "grids").glob("*/[!.]*"):
        try:
            Grid(folder)
        except (OSError, ValueError, EOFError) as error:
            yield f"the grid {folder} is broken: {error}"
    with FrameStore(cache) as store:
        for row in rows:
            path, stored_times = str(row["path"]), Path(str(row["grid"])) / "pts_s.npy"
            if not stored_times.exists():
                yield f"{path}: was reported done, and its grid is gone"
                continue
            times = np.load(stored_times)
            first = 1000 * int(Path(path).stem)
            shown = store.frames(path, times.tolist(), size=(160, 96)).pixels
            due = [first + round(time_s * RATE) for time_s in times.tolist()]
            if [read_code(pixels) for pixels in shown] != due:
                yield f"{path}: other frames than were asked for"
            video = store.open(path)
            if video.stats.decoded or video.stats.opens:  # type: ignore[attr-defined]
                yield f"{path}: was reported done, and had to be decoded"


def leftovers(command: list[str], cache: Path) -> Iterator[str]:
    """Temporary names that outlive a run which comes an hour later."""
    for path in cache.rglob("*"):
        os.utime(path, (time.time() - STALE_S,) * 2)
    for kept in [path for path in (cache / "tables").glob("[!.]*")]:
        kept.unlink()  # so that every folder is written to once more
    for kept in [path for path in (cache / "grids").glob("*/[!.]*")]:
        shutil.rmtree(kept)
        for path in kept.parent.glob(".*"):
            os.utime(path, (time.time() - STALE_S,) * 2)
    subprocess.run(command, env=environment(cache), stdout=subprocess.DEVNULL, check=True)
    for path in cache.rglob(".*"):
        yield f"{path} is left"


# --- children of the commands --------------------------------------------------------------------


def disturbed(command: list[str], cache: Path, seconds: float, seed: str) -> tuple[str, bool, int]:
    """Run a command and kill one of its children at a random moment of its work.

    Returns:
        What it wrote, whether a child was killed, and how many processes outlive it.
    """
    rng = random.Random(seed)
    process = started(command, cache)
    time.sleep(rng.uniform(0.0, seconds))
    killed = False
    children: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children()
        if children:
            rng.choice(children).kill()
            killed = True
    said, _ = process.communicate()
    return said, killed, len(psutil.wait_procs(children, timeout=GONE_S)[1])


def prove_children(
    name: str, command: list[str], cache: Path, moments: int, check: Callable[[str], list[str]]
) -> list[str]:
    """Kill children of a command until that was done at so many moments; each run must come out right."""
    wrong, hit, runs = [], 0, 0
    shutil.rmtree(cache, ignore_errors=True)
    seconds = undisturbed(command, cache)
    while hit < moments and runs < 4 * moments:
        shutil.rmtree(cache, ignore_errors=True)
        said, killed, orphans = disturbed(command, cache, seconds, f"{name} {runs}")
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
    with tempfile.TemporaryDirectory() as films:
        made = make_films(Path(films))
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                wrong += PROOFS[name](made, Path(folder), moments)
    for line in wrong:
        print(line)
    return int(bool(wrong))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=MOMENTS)
    parser.add_argument("--only", choices=sorted(PROOFS), action="append")
    arguments = parser.parse_args()
    sys.exit(main(arguments.only or list(PROOFS), arguments.moments))
