"""Tasks about something planted into one's own videos, made when they are asked for.

A folder of videos is all that is needed: nothing is annotated and nothing encoded. Task i follows from the
family, its settings, the split, the seed, the content of the folder's videos and i alone. Insertions hide
from uniform skims, options and letters are balanced, and the address of a video tells nothing that can be
read. What is asked is in `videogym.datasets.planted_families`.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, cast, get_args

from videogym.datasets.made_tasks import MOST_MADE, MadeTasks, task_of_question
from videogym.datasets.planted_families import (
    MAX_PLANTED_SHARE,
    MIN_DURATION_S,
    PICTURE_SUFFIXES,
    PLANTED_LEVELS,
    WORDS,
    PlantedFamily,
    Sheet,
    Size,
    box_of,
    plant,
)
from videogym.datasets.procedural import SPLITS
from videogym.datasets.tasks import LeftOut
from videogym.state import Task
from videogym.video import FrameStore, VideoError, VideoMeta
from videogym.video.containers import VIDEO_SUFFIXES
from videogym.video.identity import fingerprint, identify
from videogym.video.planted import Insertion, PlantedAddress
from videogym.video.synthetic import InvalidAddress
from videogym.video.synthetic.address import (
    MIN_DETAIL_PIXELS,
    MIN_FRAMES,
    NUM_LEVELS,
    format_seconds,
    read_fields,
    read_seconds,
    read_whole_number,
)

PLANTED_TASKS_PREFIX = "planted:"
ALL_SPLITS = (*SPLITS, "all")
_SHARES = ("train", "train", "train", "val", "test")  # by the remainder of a fingerprint
_OPEN_VIDEOS = 32


@dataclass(frozen=True)
class Footage:
    """A video of the folder that something can be planted into."""

    path: str  # below the folder
    meta: VideoMeta

    @property
    def split(self) -> str:
        """What its content decides, whatever it is called and whichever others there are."""
        digest = hashlib.sha256(self.meta.fingerprint.encode()).digest()
        return _SHARES[int.from_bytes(digest[:8]) % len(_SHARES)]


class PlantedTasks(MadeTasks):
    """Tasks of one family about the videos of a folder.

    Three of five videos are for training, one for validation and one for testing, as a hash of their
    content decides: a video that is added moves no other. ``split="all"`` takes all, for folders that are
    divided already. Files that cannot be used, pictures too, are passed over and listed in ``left_out``, as
    are videos too small for a word; a warning counts them.

    Args:
        family: what is asked, see `PlantedFamily`.
        video_root: the folder, with all below it.
        level: 0 (easy) to 3: smaller, paler and shorter insertions, and more that mislead.
        num_tasks: at least 1.
        split: one of `ALL_SPLITS`.
        seed: at least 0.
        event_s: seconds that every insertion lasts; None: one or two frames of a pool of 128.
        side: of an insertion, as a share of the frame's shorter side; None: set by the level.
        place: ``(x, y)`` of its middle, fractions of the frame; None: anywhere.
        words: file below the folder with a word a line; None: English ones.
        font: font file below the folder that has their letters; None: the font that Pillow brings.
        pictures: folder below the folder, for the family ``picture``; names without ending are the options.
        cache_dir: where packet tables are kept, see `FrameStore`.

    Raises:
        InvalidAddress: a setting is out of range, or no video of the split can be used.
        ValueError: there is no such folder.
    """

    def __init__(
        self,
        family: PlantedFamily,
        video_root: str | os.PathLike[str],
        *,
        level: int = 0,
        num_tasks: int = 1000,
        split: str = "train",
        seed: int = 0,
        event_s: float | None = None,
        side: float | None = None,
        place: tuple[float, float] | None = None,
        words: str | None = None,
        font: str | None = None,
        pictures: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        if not os.path.isdir(video_root):
            raise ValueError(f"video_root must be a folder, got {os.fspath(video_root)!r}")
        families = get_args(PlantedFamily)
        _require("family", family, family in families, f"one of {', '.join(families)}")
        _require("level", level, 0 <= level < NUM_LEVELS, f"0 to {NUM_LEVELS - 1}")
        _require("count", num_tasks, 1 <= num_tasks <= MOST_MADE, f"1 to {MOST_MADE}")
        _require("split", split, split in ALL_SPLITS, f"one of {', '.join(ALL_SPLITS)}")
        _require("seed", seed, seed >= 0, "at least 0")
        _require("event_s", event_s, event_s is None or event_s > 0, "above 0 seconds")
        self.family, self.level, self.num_tasks, self.split, self.seed = (
            family,
            level,
            num_tasks,
            split,
            seed,
        )
        self.event_s, self._size = event_s, Size(side, place)
        root = os.fspath(video_root)
        self._store = FrameStore(cache_dir, lru_bytes=0, video_root=root, open_videos=_OPEN_VIDEOS)
        self._words = None if words is None else _read_words(self._file(words))
        self._font = None if font is None else (font, self._content(font))
        self._require_letters(words)
        self._pictures, no_pictures = self._found_pictures(root, pictures)
        self.footage, no_footage = self._found_footage(root)
        self.left_out = no_footage + no_pictures
        told = format_left_out(self.left_out)
        if not self.footage:
            raise InvalidAddress(f"planted tasks: no video of split {split!r} in {video_root}{told}")
        if told:
            warnings.warn(f"{os.fspath(video_root)}: files of which no task is made{told}", stacklevel=3)
        self._name = self._named()
        self._require_inside()

    @classmethod
    def parse(cls, source: str, video_root: str | os.PathLike[str] | None) -> PlantedTasks:
        """Read ``planted:scene?level=0&count=1000&split=train&seed=0``.

        Every field but the family may be left out; ``event_s``, ``side=0.3``, ``place=0.5,0.5``,
        ``words=words.txt``, ``font=a.ttf`` and ``pictures=FOLDER`` may be added.

        Raises:
            InvalidAddress: a field is unknown, repeated or out of range; the message names it.
            ValueError: there is no folder.
        """
        if video_root is None:
            raise ValueError(f"{source!r}: planted tasks need a folder of videos, video_root")
        family, values = read_fields(source.removeprefix(PLANTED_TASKS_PREFIX), _READERS)
        num_tasks = values.pop("count", 1000)
        return cls(cast(PlantedFamily, family), video_root, num_tasks=num_tasks, **values)

    @property
    def name(self) -> str:
        """What all ids begin with, e.g. ``"planted-scene-L0-train-s0-3f2a9c01"``."""
        return self._name

    def _named(self) -> str:
        """Knows the settings, and the content that tasks are about: other videos, other tasks."""
        others = (self._size, self._words, self._font, self._pictures)
        content = [one.meta.fingerprint for one in self.footage]
        digest = hashlib.sha256(f"{others} {content}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
        event = [] if self.event_s is None else [f"e{format_seconds(self.event_s)}s"]
        return "-".join(
            ["planted", self.family, f"L{self.level}", *event, self.split, f"s{self.seed}", digest]
        )

    def _task(self, position: int) -> Task:
        task_id = self._task_id(position)
        rng = Random(task_id)
        one = rng.choice(self.footage)
        other = rng.choice([video for video in self.footage if video is not one] or [one])
        sheet = Sheet(
            rng,
            one.meta,
            self._store.open(one.path).pts_s,
            level=self.level,
            event_s=self.event_s,
            size=self._size,
            words=self._words,
            font=self._font,
            pictures=self._pictures,
            other=(other.path, other.meta),
        )
        question = plant(self.family, sheet)
        return task_of_question(
            question,
            shuffled_by=task_id,
            task_id=task_id,
            video=str(PlantedAddress(one.path, one.meta.fingerprint, sheet.insertions)),
            source=f"{PLANTED_TASKS_PREFIX}{self.family}",
            metadata={"footage": one.path, "level": self.level},
        )

    def _require_inside(self) -> None:
        """No insertion leaves the frame of a video."""
        for one in self.footage:
            for kind in ("ellipse", "text"):
                box_of(Random(0), PLANTED_LEVELS[self.level], self._size, one.meta, kind)

    def _require_letters(self, words: str | None) -> None:
        """The font has all letters of the words."""
        if words is not None or self._font is not None:
            from videogym.video.planted.lettering import require_letters

            font = "" if self._font is None else self._file(self._font[0])
            for word in self._words or WORDS:
                Insertion(0, 1, (0.0, 0.0, 1.0, 1.0), "text", word)  # refuses what cannot be drawn
                require_letters(word, font)

    def _file(self, path: str) -> str:
        """Where a file below the folder is."""
        return self._store.located(path)

    def _content(self, path: str) -> str:
        found = self._file(path)
        return fingerprint(found, identify(found).size)

    def _overflow(self, meta: VideoMeta) -> str:
        """Which text of the family does not fit into its box in a video; "" if none."""
        level = PLANTED_LEVELS[self.level]
        if self.family == "number":
            texts = tuple(str(digit) * level.digits for digit in range(10))
        elif self.family in ("word", "order"):
            texts = self._words or WORDS
        else:
            return ""
        from videogym.video.planted.lettering import overflow

        x0, y0, x1, y1 = box_of(Random(0), level, Size(self._size.side), meta, "text")
        # Where a box lies rounds its sides up or down.
        wide, high = int((x1 - x0) * meta.width + 1e-6), int((y1 - y0) * meta.height + 1e-6)
        return overflow(texts, "" if self._font is None else self._file(self._font[0]), wide, high)

    def _found_pictures(
        self, root: str, folder: str | None
    ) -> tuple[tuple[tuple[str, str], ...], tuple[LeftOut, ...]]:
        """Paths and fingerprints of the pictures, each name and content once, and why not of others."""
        if self.family != "picture":
            return (), ()
        from videogym.video.planted.lettering import read_picture

        _require(
            "pictures", folder, folder is not None, "a folder below video_root, for the family 'picture'"
        )
        names = _files(self._file(cast(str, folder)), PICTURE_SUFFIXES)
        paths = {Path(name).stem: os.path.join(cast(str, folder), name) for name in names}
        found: dict[str, str] = {}  # by content: of the same under two names, both would be right
        left_out = []
        for path in paths.values():
            try:
                content, why = self._content(path), ""
                read_picture(self._file(path), (1, 1))
                if content in found:
                    why = f"the same content as {found[content]}"
            except VideoError as error:
                why = str(error)
            if why:
                left_out.append(LeftOut(Path(root), path, why))
            else:
                found[content] = path
        told = format_left_out(tuple(left_out))
        _require("pictures", folder, len(found) >= 2, f"a folder with at least 2 pictures{told}")
        return tuple((path, content) for content, path in found.items()), tuple(left_out)

    def _found_footage(self, root: str) -> tuple[tuple[Footage, ...], tuple[LeftOut, ...]]:
        """Videos of the split that can be used, by content, and why the others cannot."""
        found: dict[str, Footage] = {}
        left_out = []
        for name in _files(root, VIDEO_SUFFIXES):
            try:
                one = Footage(name, self._store.open(name).meta)
                why = self._unfit(one.meta)
                if not why and one.meta.fingerprint in found:
                    why = f"the same content as {found[one.meta.fingerprint].path}"
            except VideoError as error:
                why = str(error)
            if why:
                left_out.append(LeftOut(Path(root), name, why))
            else:
                found[one.meta.fingerprint] = one
        chosen = (one for _, one in sorted(found.items()) if self.split in ("all", one.split))
        return tuple(chosen), tuple(left_out)

    def _unfit(self, meta: VideoMeta) -> str:
        """Why nothing can be planted into a video; "" if it can."""
        if meta.num_frames < MIN_FRAMES:
            return f"{meta.num_frames} frames, at least {MIN_FRAMES} are needed"
        if self.event_s is None and meta.duration_s < MIN_DURATION_S:
            return (
                f"{meta.duration_s:g} s, at least {MIN_DURATION_S:g} s are needed unless event_s is given"
            )
        if self.event_s is not None and self.event_s > meta.duration_s * MAX_PLANTED_SHARE:
            return f"{meta.duration_s:g} s, too short for insertions of {self.event_s:g} s"
        if self.family == "detail" and meta.width * meta.height < MIN_DETAIL_PIXELS:
            return f"{meta.width}x{meta.height}, at least {MIN_DETAIL_PIXELS} pixels are needed"
        return self._overflow(meta)


def format_left_out(left_out: tuple[LeftOut, ...]) -> str:
    """The first three in words."""
    if not left_out:
        return ""
    more = "" if len(left_out) <= 3 else f"; and {len(left_out) - 3} more, see left_out"
    return f": {'; '.join(map(str, left_out[:3]))}{more}"


def _require(name: str, value: object, holds: bool, allowed: str) -> None:
    if not holds:
        raise InvalidAddress(f"planted tasks: {name} must be {allowed}, got {value!r:.80}")


def _files(root: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Paths of files with such endings below a folder, in order; links to folders are not followed."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in suffixes:
                yield os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")


def _read_words(path: str) -> tuple[str, ...]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InvalidAddress(f"planted tasks: words in {path} cannot be read: {error}") from error
    # Composed: two spellings of a letter look alike and would be two options.
    composed = (unicodedata.normalize("NFC", line.strip()) for line in lines)
    words = tuple(dict.fromkeys(word for word in composed if word))
    _require("words", path, len(words) >= 8, "a file with at least 8 words")
    return words


def _read_place(text: str) -> tuple[float, float]:
    numbers = [float(part) for part in text.split(",") if re.fullmatch(r"[01](\.[0-9]{1,9})?", part)]
    if len(numbers) != 2 or text.count(",") != 1:
        raise ValueError("X,Y, fractions of the frame")
    return numbers[0], numbers[1]


_READERS: dict[str, Callable[[str], Any]] = {
    "level": read_whole_number,
    "count": read_whole_number,
    "split": str,
    "seed": read_whole_number,
    "event_s": read_seconds,
    "side": read_seconds,
    "place": _read_place,
    "words": str,
    "font": str,
    "pictures": str,
}
