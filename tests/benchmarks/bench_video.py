"""Measures the video layer against plain decord, as ratios of CPU time.

Run by ``make bench``. Videos are made once below ``runs/bench``. Most rows are of an hour of 360p H.264:
ten minutes are encoded (30 frames a second, groups of 250, 3 B-frames) and copied six times. There an
encoder leaves most frames without reference, and those are skipped. What that is worth elsewhere is told
by a minute of 1080p each of H.264, HEVC and VP9 with groups of 60: VP9 has no such frames. Each system
runs in processes of its own, in turns; CPU time counts all their threads. Other programs on the machine
only ever add to it, so a request counts with the least of its rounds, and a row is the median of its
requests. Prints a table and exits 1 when a target is missed.
"""

from __future__ import annotations

import functools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from videogym.testing.coded_clips import read_code, stamp_code, write_clip
from videogym.video import FrameStore
from videogym.video.first_opening import scan_apart
from videogym.video.pyav_reader import PyAVVideo
from videogym.video.scan import scan

FOLDER = Path("runs/bench")
VIDEO = FOLDER / "hour.mp4"
CACHE = FOLDER / "cache"
HOUR_S, RATE, PART_FRAMES, PARTS = 3600.0, 30, 18_000, 6
SIZE = (224, 224)
LONGVT_SIZE = (280, 168)
ROUNDS = 3
KIND_CALLS = {"segment": 16, "single": 24, "global": 4, "open": 6}
TARGETS = {"segment": 2.0, "single": 2.5, "global": 2.5, "open": 4.0, "grid": 300.0}
CLIP_FRAMES, CLIP_PARTS, CLIP_SIZE = 600, 3, (1920, 1080)
CLIP_S = CLIP_FRAMES * CLIP_PARTS / RATE
X26_ = {"preset": "veryfast", "bf": "3"}
CLIPS = {  # by file: encoder, its options, and the least ratio for each kind of request
    "h264.mp4": (
        "libx264",
        X26_ | {"g": "60", "sc_threshold": "0"},
        {"segment": 1.3, "single": 1.3, "global": 1.3},
    ),
    "hevc.mp4": (
        "libx265",
        {
            "preset": "veryfast",
            "x265-params": "log-level=none:keyint=60:min-keyint=60:bframes=3:open-gop=0",
        },
        {"segment": 1.4, "single": 1.4, "global": 1.4},
    ),
    "vp9.mp4": (
        "libvpx-vp9",
        {"g": "60", "deadline": "realtime", "cpu-used": "8", "b": "3M"},
        {"segment": 0.9, "single": 0.9, "global": 0.9},
    ),
}
LABELS = {
    "segment": "16 frames in 10 s",
    "single": "one frame",
    "global": "32 frames over the hour",
    "open": "open and 16 frames",
    "grid": "16 frames from the grid",
}


def requests(kind: str, length_s: float = HOUR_S) -> list[list[float]]:
    """The same instants for every system, in every round."""
    draw = random.Random(kind)
    calls = KIND_CALLS[kind]
    if kind == "single":
        return [[draw.uniform(0, length_s - 1)] for _ in range(calls)]
    if kind == "global":
        return [
            np.linspace(draw.uniform(0, length_s / 72), length_s - 1, 32).tolist() for _ in range(calls)
        ]
    starts = [draw.uniform(0, length_s - 11) for _ in range(calls)]
    return [np.linspace(start, start + 10, 16).tolist() for start in starts]


# --- the video ---------------------------------------------------------------------------------------


def make_video() -> None:
    """Ten minutes encoded, then copied to an hour; kept for the next run."""
    if VIDEO.exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    part = FOLDER / "part.mp4"
    print(f"making {VIDEO}, once ...", flush=True)
    options = {"g": "250", "sc_threshold": "0", "bf": "3", "b_strategy": "0", "preset": "veryfast"}
    write_clip(part, PART_FRAMES, codec_options=options, size=(640, 360), rate=RATE, draw=scene)
    unfinished = VIDEO.with_suffix(".part.mp4")
    repeat_stream(part, unfinished, PARTS)
    os.replace(unfinished, VIDEO)


def make_clip(name: str) -> Path:
    """A third of a minute encoded, then copied to a minute; kept for the next run."""
    path = FOLDER / name
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(f"making {path}, once ...", flush=True)
    codec, options, _ = CLIPS[name]
    part, unfinished = (path.with_name(f"{kind}.{name}") for kind in ("part", "unfinished"))
    write_clip(part, CLIP_FRAMES, codec=codec, codec_options=options, size=CLIP_SIZE, rate=RATE, draw=scene)
    repeat_stream(part, unfinished, CLIP_PARTS, CLIP_FRAMES)
    part.unlink()
    os.replace(unfinished, path)
    return path


def scene(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """A slow pan over a soft texture, another one every 20 seconds, with the frame's code on top."""
    texture = _texture(number // 600, 2 * width, 2 * height)
    x, y = number % 600, (number % 600) // 3
    frame = texture[y : y + height, x : x + width].copy()
    stamp_code(frame, number)
    return frame


@functools.lru_cache(maxsize=1)
def _texture(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 256, (36, 64, 3), dtype=np.uint8)
    crops = (Image.fromarray(noise[:h, :w]) for w, h in ((64, 36), (32, 18), (8, 4)))  # three grains
    layers = [np.asarray(crop.resize((width, height), Image.Resampling.BICUBIC)) for crop in crops]
    return np.mean(layers, axis=0).astype(np.uint8)


def repeat_stream(source: Path, target: Path, times: int, frames: int = PART_FRAMES) -> None:
    """Copy a video's packets so many times, one copy after the other."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copy: Any = new.add_stream_from_template(stream)
        ticks = round(Fraction(frames, RATE) / (stream.time_base or 1))
        for part in range(times):
            old.seek(0, stream=stream)
            for packet in old.demux(stream):
                if packet.size and packet.pts is not None and packet.dts is not None:
                    packet.pts, packet.dts = packet.pts + part * ticks, packet.dts + part * ticks
                    packet.stream = copy
                    new.mux(packet)


# --- measurements, each in a process of its own -------------------------------------------------------


def cpu_ms(
    kind: str,
    serve: Callable[[list[float]], NDArray[np.uint8]],
    length_s: float = HOUR_S,
    frames: int = PART_FRAMES,
) -> list[float]:
    """CPU milliseconds of each request; a wrong frame stops the run."""
    costs = []
    for times in requests(kind, length_s):
        start = time.process_time()
        pixels = serve(times)
        costs.append(1000 * (time.process_time() - start))
        said = [read_code(frame) for frame in pixels]
        due = [int(t * RATE + 1e-6) % frames for t in times]
        if said != due:
            raise SystemExit(f"wrong frames: {said} for {due}")
    return costs


def measure_decord() -> dict[str, list[float]]:
    """Plain decord, as a training script would call it."""
    import decord

    def reopen() -> Any:
        return decord.VideoReader(str(VIDEO), width=SIZE[0], height=SIZE[1], num_threads=1)

    def serve(times: list[float], reader: Any = None) -> NDArray[np.uint8]:
        return (reader or reopen()).get_batch([int(t * RATE + 1e-6) for t in times]).asnumpy()

    reader = reopen()
    kept = functools.partial(serve, reader=reader)
    costs = {kind: cpu_ms(kind, kept) for kind in ("segment", "single", "global")}
    del reader, kept
    return costs | {"open": cpu_ms("open", serve)}


def measure_ours() -> dict[str, list[float]]:
    """The default backend, with the packet table of an earlier round."""

    def reopen(times: list[float]) -> NDArray[np.uint8]:
        with PyAVVideo(str(VIDEO), cache_dir=CACHE) as video:
            return video.frames_at(times, size=SIZE).pixels

    reopen([0.0])
    with PyAVVideo(str(VIDEO), cache_dir=CACHE) as video:
        costs = {
            kind: cpu_ms(kind, lambda times: video.frames_at(times, size=SIZE).pixels)
            for kind in ("segment", "single", "global")
        }
    costs["open"] = cpu_ms("open", reopen)
    with FrameStore(CACHE, lru_bytes=0) as store:
        times = [t for request in requests("segment") for t in request]
        store.build_grid(str(VIDEO), times_s=times, size=SIZE)
        serve = lambda times: store.frames(str(VIDEO), times, size=SIZE).pixels  # noqa: E731
        cpu_ms("segment", serve)
        costs["grid"] = cpu_ms("segment", serve)
    return costs


def measure_clip(system: str, name: str) -> dict[str, list[float]]:
    """One of the minutes of 1080p, by decord or by us."""
    path = str(FOLDER / name)
    if system == "decord":
        import decord

        reader = decord.VideoReader(path, width=SIZE[0], height=SIZE[1], num_threads=1)

        def serve(times: list[float]) -> NDArray[np.uint8]:
            return reader.get_batch([int(t * RATE + 1e-6) for t in times]).asnumpy()
    else:
        video = PyAVVideo(path, cache_dir=CACHE)

        def serve(times: list[float]) -> NDArray[np.uint8]:
            return video.frames_at(times, size=SIZE).pixels

    serve([0.0])
    return {kind: cpu_ms(kind, serve, CLIP_S, CLIP_FRAMES) for kind in CLIPS[name][2]}


def measure_skim() -> float:
    """MB that LongVT's skim of the hour, 512 frames of 280x168, adds to a process at its peak."""
    before = _memory_mb("VmRSS")
    with FrameStore(CACHE) as store:
        store.frames(str(VIDEO), np.linspace(0, HOUR_S - 0.1, 512).tolist(), size=LONGVT_SIZE)
    return _memory_mb("VmHWM") - before


def measure_first(pairs: int = 15) -> list[float]:
    """CPU milliseconds to read the hour for the first time: in this process, and with a child that runs."""
    took: dict[Callable[..., Any], list[float]] = {scan: [], scan_apart: []}
    scan_apart(str(VIDEO), 60.0)  # which starts the child
    for _ in range(pairs):
        for how in took:
            start = _family_s()
            how(str(VIDEO)) if how is scan else how(str(VIDEO), 60.0)
            took[how].append(1000 * (_family_s() - start))
    return [min(costs) for costs in took.values()]


def _family_s() -> float:
    """CPU seconds of this process and its children; psutil counts them in ticks, 1 % of a scan."""
    pids = [process.pid for process in (psutil.Process(), *psutil.Process().children())]
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)  # as clock_getcpuclockid names it


def measure_readers(count: int = 20) -> float:
    """MB for each of many open videos that have been read from."""
    with PyAVVideo(str(VIDEO), cache_dir=CACHE) as video:
        video.frames_at([1.0], size=SIZE)
    before = _memory_mb("VmRSS")
    videos = [PyAVVideo(str(VIDEO), cache_dir=CACHE) for _ in range(count)]
    for i, video in enumerate(videos):
        video.frames_at([60.0 * i], size=SIZE)
    return (_memory_mb("VmRSS") - before) / count


def measure_sharing() -> list[float]:
    """MB of a grid, and private and proportional MB that reading all of it adds to one of two processes."""
    times = np.arange(0, 600, 2.0).tolist()
    with FrameStore(CACHE, lru_bytes=0) as store:
        folder = store.build_grid(str(VIDEO), times_s=times, size=SIZE)
        store.frames(str(VIDEO), times[:16], size=SIZE)
        before = _rollup_mb()
        for start in range(0, len(times), 16):
            store.frames(str(VIDEO), times[start : start + 16], size=SIZE)
        print("ready", flush=True)
        input()  # both processes hold the grid before either looks
        private, shared = (after - b for after, b in zip(_rollup_mb(), before, strict=True))
    return [(folder / "pixels.npy").stat().st_size / 2**20, private, shared]


def _memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def _rollup_mb() -> tuple[float, float]:
    """Private and proportional memory of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["Pss"]


MEASUREMENTS: dict[str, Callable[..., Any]] = {
    "decord": measure_decord,
    "ours": measure_ours,
    "clip": measure_clip,
    "skim": measure_skim,
    "first": measure_first,
    "readers": measure_readers,
    "sharing": measure_sharing,
}


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    """A measurement in a fresh interpreter."""
    command = [sys.executable, __file__, name, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str], line: str = "") -> Any:
    """What a measurement brought."""
    output, _ = process.communicate(line)
    if process.returncode:
        raise SystemExit(f"{process.args!r} failed")
    return json.loads(output.splitlines()[-1])


# --- the table ----------------------------------------------------------------------------------------


def in_turns(measurements: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """CPU milliseconds by system and kind: medians over requests, each the least of its rounds."""
    rounds: dict[str, list[dict[str, list[float]]]] = {system: [] for system in measurements}
    for _ in range(ROUNDS):
        for system, command in measurements.items():
            rounds[system].append(result(start(*command)))
    return {
        system: {
            kind: statistics.median(map(min, zip(*(costs[kind] for costs in measured), strict=True)))
            for kind in measured[0]
        }
        for system, measured in rounds.items()
    }


def compare() -> list[tuple[str, str, str, bool]]:
    """Rows of CPU time: decord and ours in turns."""
    costs = in_turns({"decord": ("decord",), "ours": ("ours",)})
    rows = []
    for kind, target in TARGETS.items():
        theirs, ours = costs["decord"]["segment" if kind == "grid" else kind], costs["ours"][kind]
        ratio = theirs / ours
        label = f"{LABELS[kind]}: {theirs:.0f} ms against {ours:.{2 if kind == 'grid' else 0}f} ms"
        rows.append((label, f">= {target:g}x", f"{ratio:.1f}x", ratio >= target))
    return rows


def compare_clips() -> list[tuple[str, str, str, bool]]:
    """Rows of CPU time for the minutes of 1080p."""
    rows = []
    for name, (_, _, targets) in CLIPS.items():
        make_clip(name)
        costs = in_turns({system: ("clip", system, name) for system in ("decord", "ours")})
        for kind, target in targets.items():
            theirs, ours = costs["decord"][kind], costs["ours"][kind]
            what = "32 frames over the minute" if kind == "global" else LABELS[kind]
            label = f"1080p {Path(name).stem}, {what}: {theirs:.0f} ms against {ours:.0f} ms"
            rows.append((label, f">= {target:g}x", f"{theirs / ours:.1f}x", theirs / ours >= target))
    return rows


def bounds() -> list[tuple[str, str, str, bool]]:
    """The row of what a deadline and a bound on memory cost."""
    here, child = result(start("first"))
    label = f"first opening, in the child: {child:.0f} ms against {here:.0f} ms in this process"
    return [(label, "<= 1.03x", f"{child / here:.3f}x", child <= 1.03 * here)]


def memory() -> list[tuple[str, str, str, bool]]:
    """Rows of memory."""
    skim, reader = result(start("skim")), result(start("readers"))
    pair = [start("sharing") for _ in range(2)]
    for process in pair:
        assert process.stdout is not None
        process.stdout.readline()
    size, private, shared = result(pair[0], "\n")
    result(pair[1], "\n")
    grid = f"a shared grid of {size:.0f} MB, read by two processes"
    return [
        ("peak growth in a 512-frame skim of the hour", "< 200 MB", f"{skim:.0f} MB", skim < 200),
        ("an open reader", "<= 10 MB", f"{reader:.1f} MB", reader <= 10),
        (f"{grid}: private growth", "<= 5 MB", f"{private:.1f} MB", private <= 5),
        (f"{grid}: proportional share", "<= 60 %", f"{shared / size:.0%}", shared <= 0.6 * size),
    ]


def main() -> int:
    """Print the table; 1 when a target is missed."""
    make_video()
    print(f"load average {os.getloadavg()[0]:.1f}, CPU milliseconds against decord's get_batch")
    rows = compare() + compare_clips() + bounds() + memory()
    width = max(len(row[0]) for row in rows)
    for label, target, measured, met in rows:
        print(f"{label:{width}}  {target:>9}  {measured:>8}  {'' if met else 'MISSED'}")
    return 0 if all(row[3] for row in rows) else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(MEASUREMENTS[sys.argv[1]](*sys.argv[2:])))
    else:
        sys.exit(main())
