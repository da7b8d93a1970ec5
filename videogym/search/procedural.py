"""A search index over procedural videos, whose quality is a dial.

It stands in for a model of images and texts where there is none, exactly and on a CPU. What it knows of a
video is what is to be seen: backgrounds, shapes and their colours, from the video's script. What can only
be read in a shape, digits or the direction of stripes, it does not know; nor any question or answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from videogym.search.index import Hits, WrongIndex
from videogym.video.synthetic import Script, SyntheticVideo
from videogym.video.synthetic.script import EVENT_COLOURS, SCENE_COLOURS, Event, Scene
from videogym.video.types import Video

_EVERY_S = 1.0  # seconds between moments without an event
_COLOUR = "|".join(sorted({*EVENT_COLOURS, *SCENE_COLOURS}, key=len, reverse=True))
# "a brown background", "the background is brown": the colour of a background, and of nothing else.
_BACKGROUND = re.compile(rf"\b({_COLOUR})\s+background\b|\bbackground\s+(?:is|was|of)\s+({_COLOUR})\b")
_NAMES = {"stripes": ("disc", "stripes"), "digits": ("number", "digits")}
_WORD = re.compile(
    rf"\b(?:{_COLOUR}|shape|ellipse|rectangle|diamond|triangle|disc|stripes|number|digits)\b"
)


@dataclass(frozen=True)
class ProceduralIndex:
    """Finds what a text describes in a ``synthetic:`` video, as often as its quality says.

    A query is drawn once for each video: with probability ``quality`` moments are ordered by how many of
    the query's words they show, else by chance, a second apart. So it is with a query that has no word for
    anything in such videos.

    Words are colours, ``background``, and what the events of the families are called: ``shape`` and its
    form, ``disc``, ``stripes``, ``number``. A colour before or after ``background`` is the background's.

    Args:
        quality: 0 (chance) to 1 (the moment that fits best always comes first).

    Raises:
        ValueError: the quality is no number from 0 to 1.
    """

    quality: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.quality <= 1.0:
            raise ValueError(f"quality must be from 0 to 1, got {self.quality!r}")

    def check(self, video: Video) -> None:
        """See `FrameIndex.check`: it serves ``synthetic:`` videos alone."""
        _script_of(video)

    def search(self, video: Video, query: str) -> Hits:
        """See `FrameIndex.search`."""
        script, words = _script_of(video), _words(query)
        rng = Random(f"search {video.meta.fingerprint} {sorted(words)}")
        if rng.random() >= self.quality or not words:
            times_s = np.arange(0.0, video.meta.duration_s, _EVERY_S)
            return Hits(times_s, np.array([rng.random() for _ in times_s]))
        return _scored(script, words)


def _script_of(video: Video) -> Script:
    if isinstance(video, SyntheticVideo):
        return video.script
    raise WrongIndex(
        f"a procedural index knows synthetic: videos alone, this one is of codec {video.meta.codec!r}; "
        "give the recipe an index over frames, such as agents.models.embedding_index.EmbeddingIndex"
    )


def _words(query: str) -> frozenset[str]:
    """What a query names; a background's colour is told apart from others."""
    text = query.lower()
    found = {f"background {before or after}" for before, after in _BACKGROUND.findall(text)}
    return frozenset(found | set(_WORD.findall(_BACKGROUND.sub(" ", text))))


def _scored(script: Script, words: frozenset[str]) -> Hits:
    """Every event by its middle, and moments of plain background a second apart."""
    fps = script.address.fps
    times: list[NDArray[np.float64]] = []
    scores: list[NDArray[np.float64]] = []
    for scene in script.scenes:
        plain = np.arange(np.ceil(scene.first / fps), scene.end / fps, _EVERY_S)
        for event in scene.events:
            plain = plain[(plain < event.first / fps) | (plain >= event.end / fps)]
            times.append(np.array([(event.first + event.end) // 2 / fps]))
            scores.append(np.array([_fit(words, scene, event)]))
        times.append(plain)
        scores.append(np.full(len(plain), _fit(words, scene)))
    return Hits(np.concatenate(times), np.concatenate(scores))


def _fit(words: frozenset[str], scene: Scene, event: Event | None = None) -> float:
    """How many of the words a moment shows."""
    shown = {f"background {scene.colour}", scene.colour}
    if event is not None:
        shown |= {event.colour, *_NAMES.get(event.shape, ("shape", event.shape))}
    return float(len(words & shown))
