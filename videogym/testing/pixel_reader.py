"""A policy that reads the answers of the procedural families in pixels, and in nothing else.

It looks where another policy looks, or nowhere, and answers by the frames shown so far; where these do
not tell, it guesses. So it says what can be known from frames: all, with the looks of an oracle, and no
more than chance without looks. Colours are told by their names in CSS, not by the renderer's values.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videogym.actions import Answer
from videogym.env import VideoQAEnv
from videogym.evaluate import Policy
from videogym.observations import Observation
from videogym.sizes import resized
from videogym.state import Action, Clip, State
from videogym.testing.policies import random_answer
from videogym.video import FrameStore, region_box
from videogym.video.synthetic.shapes import number_cells

# Values of CSS, and of X11 for lime.
BACKGROUNDS = {
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "green": (0, 128, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "brown": (139, 69, 19),
    "purple": (128, 0, 128),
    "pink": (255, 192, 203),
    "navy": (0, 0, 128),
    "olive": (128, 128, 0),
    "maroon": (128, 0, 0),
    "teal": (0, 128, 128),
}
EVENTS = {
    "red": (255, 0, 0),
    "yellow": (255, 255, 0),
    "blue": (0, 0, 255),
    "white": (255, 255, 255),
    "orange": (255, 165, 0),
    "lime": (191, 255, 0),
    "sky blue": (135, 206, 235),
}
NAMED = BACKGROUNDS | EVENTS
THRESHOLD = 25  # of 255; texture stays below it, and any two colours of one video lie above
MIN_PIXELS = 4  # of a shape
COARSE = 0.15  # cycles a pixel below which a wave is no stripe


class PixelReader:
    """Looks where another policy looks, and answers by what the frames show.

    Args:
        looks: its looks are made, its answers replaced; None: answers at once, by the skim.
        max_pixels: pixels of a frame that is read; None: what the recipe allows.
        seed: of the guesses.
    """

    def __init__(self, looks: Policy | None = None, max_pixels: int | None = None, seed: int = 0) -> None:
        self._looks, self._max_pixels = looks, max_pixels
        self._rng = np.random.default_rng(seed)

    def __call__(self, observation: Observation, info: dict[str, Any], env: VideoQAEnv) -> Action:
        """A look of the other policy, or the answer."""
        action = Answer("") if self._looks is None else self._looks(observation, info, env)
        if not isinstance(action, Answer):
            return action  # type: ignore[no-any-return]
        read = read_answer(env.state, env.store, self._max_pixels)
        return random_answer(observation, self._rng) if read is None else Answer(read)


def read_answer(state: State, store: FrameStore, max_pixels: int | None = None) -> str | None:
    """The answer that the frames shown so far tell; None where they do not.

    Args:
        state: of an episode of a procedural family.
        store: resolves its frames.
        max_pixels: pixels of a frame; None: what the recipe allows.

    Raises:
        ValueError: the task is of no procedural family.
    """
    read = _READERS.get(state.task.source.removeprefix("procedural:"))
    if read is None:
        raise ValueError(
            f"task {state.task.task_id!r} is of {state.task.source!r}; known: {', '.join(_READERS)}"
        )
    frames = [frame for clip in state.clips for frame in _frames(state, store, clip, max_pixels)]
    answer = read(state, sorted(frames, key=lambda frame: frame.time_s))
    if answer is None or state.task.kind != "choice":
        return answer
    return state.task.letters[state.task.options.index(answer)]


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame that was shown."""

    time_s: float
    pixels: NDArray[np.uint8]  # (H, W, 3)
    is_region: bool  # a part of the picture, of which no border tells the background
    is_skim: bool
    background: str
    shape: NDArray[np.int16]  # (H, W) distance of each pixel from the background, 0 up to the threshold

    @property
    def has_shape(self) -> bool:
        return int(np.count_nonzero(self.shape)) >= MIN_PIXELS

    def shape_colour(self, among: Collection[str]) -> str:
        """Colour of the shape; its edge, which is mixed with the background, is left out."""
        inner = self.shape > 0.7 * self.shape.max()
        return _name(np.median(self.pixels[inner], axis=0), among)


def resolve(
    state: State, store: FrameStore, clip: Clip, max_pixels: int | None = None
) -> NDArray[np.uint8]:
    """(N, H, W, 3) pixels of a clip, at the size at which a language model would be given them."""
    rules, video = state.rules, state.video
    box = clip.region.as_tuple() if clip.region else None
    left, top, right, bottom = region_box(video.width, video.height, box or (0.0, 0.0, 1.0, 1.0))
    rules = rules if max_pixels is None else replace(rules, max_pixels=max_pixels)
    width, height = resized(rules, right - left, bottom - top, clip.scale)
    return store.frames(state.task.video, clip.times_s, size=(width, height), region=box).pixels


def _frames(state: State, store: FrameStore, clip: Clip, max_pixels: int | None) -> list[_Frame]:
    pixels = resolve(state, store, clip, max_pixels)
    border = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1)
    colours = np.median(border, axis=1)
    # Channels first, in memory too: a maximum over a last axis of three is slow.
    channels = pixels.transpose(3, 0, 1, 2).astype(np.int16, order="C")
    channels -= colours.T[:, :, None, None].astype(np.int16)
    red, green, blue = np.abs(channels, out=channels)
    distances = np.maximum(np.maximum(red, green), blue)
    distances[distances <= THRESHOLD] = 0
    is_region, is_skim = clip.region is not None, clip is state.skim
    names = [_name(colour, BACKGROUNDS) for colour in colours]
    rows = zip(clip.times_s, pixels, names, distances, strict=True)
    return [_Frame(t, image, is_region, is_skim, name, shape) for t, image, name, shape in rows]


def _name(colour: NDArray[np.floating[Any]], among: Collection[str]) -> str:
    names = sorted(among)
    return names[int(((np.array([NAMED[name] for name in names]) - colour) ** 2).sum(axis=1).argmin())]


def _cues(state: State) -> list[str]:
    """Backgrounds that the question names, in its order."""
    return [word for word in re.findall(r"\w+", state.task.question) if word in BACKGROUNDS]


def _with_shape(frames: Sequence[_Frame], background: str) -> list[_Frame]:
    return [f for f in frames if not f.is_region and f.background == background and f.has_shape]


def _vote(names: Sequence[str]) -> str | None:
    return Counter(names).most_common(1)[0][0] if names else None


# --- one for each family -----------------------------------------------------------------------


def _read_event(frames: Sequence[_Frame], background: str, among: Collection[str]) -> str | None:
    return _vote([frame.shape_colour(among) for frame in _with_shape(frames, background)])


def _read_brief_event(state: State, frames: Sequence[_Frame]) -> str | None:
    return _read_event(frames, _cues(state)[0], state.task.options)


def _read_event_order(state: State, frames: Sequence[_Frame]) -> str | None:
    among = {colour for option in state.task.options for colour in option.split(", then ")}
    shown = [frame.background for frame in frames]
    cues = sorted(_cues(state), key=lambda cue: shown.index(cue) if cue in shown else len(shown))
    first, second = (_read_event(frames, cue, among) for cue in cues)
    return None if first is None or second is None else f"{first}, then {second}"


def _read_skim_suffices(state: State, frames: Sequence[_Frame]) -> str | None:
    return _vote([f.background for f in frames if f.is_skim and f.background in state.task.options])


def _read_two_hops(state: State, frames: Sequence[_Frame]) -> str | None:
    (cue,) = _cues(state)
    target = _read_event(frames, cue, set(BACKGROUNDS) - {cue})
    return None if target is None else _read_event(frames, target, state.task.options)


def _read_counting(state: State, frames: Sequence[_Frame]) -> str | None:
    flags = [frame.has_shape for frame in frames if frame.background == _cues(state)[0]]
    count = sum(now and not before for before, now in zip([False, *flags], flags, strict=False))
    return str(count) if str(count) in state.task.options else None


def _read_small_detail(state: State, frames: Sequence[_Frame]) -> str | None:
    """In crops of a region where there are any, else in the whole frames."""
    patches = [_middle(frame.pixels) for frame in frames if frame.is_region]
    if not patches:
        found = _with_shape(frames, _cues(state)[0])
        patches = [_middle(_cut_out(frame.shape, frame.pixels)) for frame in found]
    # Of several frames the one with most in it: a crop can begin before the disc appears.
    large = [patch for patch in patches if min(patch.shape) >= 3]
    patch = max(large, key=lambda patch: float(patch.std()), default=None)
    return None if patch is None else direction_of(patch)


def _cut_out(shape: NDArray[np.int16], pixels: NDArray[Any]) -> NDArray[Any]:
    rows, columns = (np.flatnonzero(shape.max(axis=axis)) for axis in (1, 0))
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _middle(pixels: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
    """The middle of a picture, without the edge of the disc that fills it, and without colour."""
    height, width = pixels.shape[:2]
    return pixels[height // 5 : height - height // 5, width // 5 : width - width // 5].mean(axis=2)


def direction_of(patch: NDArray[np.floating[Any]]) -> str:
    """Which way the stripes of an (H, W) picture run: that of the strongest wave among the fine ones."""
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in patch.shape))
    spectrum = np.abs(np.fft.fft2((patch - patch.mean()) * window))
    down, across = (np.fft.fftfreq(side) for side in patch.shape)
    spectrum[np.hypot(down[:, None], across) < COARSE] = 0.0
    row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
    # Rows count downwards: a wave to the lower right has stripes that rise.
    angle = math.degrees(math.atan2(down[row], across[column]))
    runs = {"vertical": 0.0, "rising": 45.0, "horizontal": 90.0, "falling": 135.0}
    return min(runs, key=lambda name: abs((angle - runs[name] + 90.0) % 180.0 - 90.0))


def _read_digits(state: State, frames: Sequence[_Frame]) -> str | None:
    found = _with_shape(frames, _cues(state)[0])
    return _vote([_number((_cut_out(f.shape, f.shape) / f.shape.max()).astype(np.float32)) for f in found])


def _number(ink: NDArray[np.float32]) -> str:
    """The number whose picture fills an (H, W) array of 0 to 1."""
    guesses = [_digits(ink, count) for count in range(1, 6)]
    return min(guesses, key=lambda guess: guess[1])[0]


def _digits(ink: NDArray[np.float32], count: int) -> tuple[str, float]:
    """The likeliest number of so many digits, and how far its cells are from those of the picture."""
    shape = (4 * count - 1, 5)
    cells = np.asarray(Image.fromarray(ink).resize(shape, Image.Resampling.BOX))
    likeliest = "".join(
        min("0123456789", key=lambda digit: float(np.abs(cells[:, i : i + 3] - number_cells(digit)).sum()))
        for i in range(0, shape[0], 4)
    )
    return likeliest, float(np.abs(cells - number_cells(likeliest)).mean())


_READERS: dict[str, Callable[[State, Sequence[_Frame]], str | None]] = {
    "brief_event": _read_brief_event,
    "event_order": _read_event_order,
    "skim_suffices": _read_skim_suffices,
    "two_hops": _read_two_hops,
    "counting": _read_counting,
    "small_detail": _read_small_detail,
    "digits": _read_digits,
}
