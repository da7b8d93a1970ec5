"""A small policy without a language model: looks at a window of the video, or answers an option.

It acts in `videogym.DiscreteActions` environments. `CompactReader` turns an observation into a few
arrays: words into numbers by a vocabulary, references into small pixels through a frame store.
`CompactPolicy` matches every shown frame with the question, scores windows by what was seen in and near
them, and options by the frames that match. How it is trained is not known here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.nn import functional as F

from videogym import FrameStore

from .discrete import DiscretePolicy

MAX_WORDS = 24  # of a question or an option; further ones are not read
CONTEXT = (
    "mask",
    "cell",
    "looked",
    "question",
    "options",
    "turns_left",
)  # what `CompactPolicy.score` takes beside frames

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Vocabulary:
    """Words by number: 0 is padding, 1 any unknown word."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """All words of some texts, in alphabetical order."""
        return cls(tuple(sorted({word for text in texts for word in split_words(text)})))

    def __len__(self) -> int:
        return len(self.words) + 2

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, start=2)}

    def ids(self, text: str) -> NDArray[np.int64]:
        """(MAX_WORDS,) numbers of the first words, padded."""
        numbers = [self._numbers.get(word, 1) for word in split_words(text)[:MAX_WORDS]]
        return np.array(numbers + [0] * (MAX_WORDS - len(numbers)), np.int64)


def split_words(text: str) -> list[str]:
    """Words and numbers of a text in lower case, without punctuation.

    >>> split_words("While it is black, what appears?")
    ['while', 'it', 'is', 'black', 'what', 'appears']
    """
    return re.findall(r"\w+", text.casefold())


@dataclass(frozen=True)
class CompactReader:
    """Reads observations of a `videogym.DiscreteActions` environment."""

    store: FrameStore
    vocabulary: Vocabulary
    windows: tuple[int, ...]  # as the environment's
    options: int  # as the environment's
    size: tuple[int, int] = (32, 24)  # (width, height) at which frames are resolved; the aspect is not kept
    variants: int = 1  # sets of arguments that every window can be looked at with
    searches: bool = False  # whether a search is the last action before the answers

    @property
    def looks(self) -> int:
        """Number of actions before the answers."""
        return sum(self.windows) * self.variants + self.searches

    @property
    def cells(self) -> int:
        """Parts of the video that are told apart: the halves of the smallest windows."""
        return 2 * max(self.windows)

    def pixels(self, observation: Mapping[str, Any], frames: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Resolve references.

        Args:
            observation: holds at least ``video`` and ``shown_times_s``.
            frames: (N,) which of the shown frames.

        Returns:
            (M, H, W, 3) uint8 RGB, M the number of true entries.
        """
        times = observation["shown_times_s"][frames].tolist()
        return self.store.frames(observation["video"], times, size=self.size).pixels

    def context(self, observation: Mapping[str, Any]) -> Arrays:
        """All of `CONTEXT`, see `CompactPolicy.score`, without a batch dimension."""
        options = np.zeros((self.options, MAX_WORDS), np.int64)
        for row, line in zip(options, observation["options"].split("\n"), strict=False):
            row[:] = self.vocabulary.ids(line.partition(". ")[2])  # without the letter
        return {
            "mask": observation["shown_mask"].astype(np.bool_),
            "cell": self._cells_of(observation),
            "looked": (observation["shown_turns"] > 0).astype(np.float32),
            "question": self.vocabulary.ids(observation["question"]),
            "options": options,
            "turns_left": observation["turns_left"].astype(np.float32),
        }

    def _cells_of(self, observation: Mapping[str, Any]) -> NDArray[np.int64]:
        """(N,) the cell each shown frame lies in, cut as `videogym.DiscreteActions` cuts windows."""
        times = observation["shown_times_s"]
        if "pool_mask" not in observation:
            share = times / float(observation["duration_s"][0])
            return np.clip((share * self.cells).astype(np.int64), 0, self.cells - 1)
        pool = observation["pool_times_s"][observation["pool_mask"].astype(np.bool_)]
        cuts = np.linspace(0, len(pool), self.cells + 1).astype(np.int64)
        return np.searchsorted(cuts[1:-1], np.searchsorted(pool, times), side="right")


class FrameEncoder(nn.Module):
    """Pixels of single frames to features.

    Args:
        size: ``(width, height)`` of the frames, multiples of 4.
        width: number of features.
    """

    def __init__(self, size: tuple[int, int], width: int) -> None:
        super().__init__()
        columns, rows = (-(-side // 8) for side in size)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 4, stride=4),
            nn.ReLU(),
            nn.Conv2d(24, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * columns * rows, width),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(..., H, W, 3) in [0, 255], of any type, to (..., width)."""
        images = pixels.flatten(0, -4).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        return self.layers(images).unflatten(0, pixels.shape[:-3])


class CompactPolicy(DiscretePolicy):
    """From shown frames, words and turns to logits of all actions and a value.

    B is any batch shape, N the most frames an episode can show, L words, C cells, W looks (a search among
    them), O options and D the width. Frames that are masked out have no influence.

    Args:
        reader: reads observations, through a frame store that knows the videos.
        width: D.
    """

    def __init__(self, reader: CompactReader, width: int = 64) -> None:
        super().__init__()
        self.reader, self.width = reader, width
        # `read` uses it, so that only imitation may train it.
        self.encoder = FrameEncoder(reader.size, width).requires_grad_(False)
        self.words = nn.Embedding(len(reader.vocabulary), width, padding_idx=0)
        self.film = nn.Linear(width, 2 * width)
        self.match = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.relevance = nn.Linear(width, 1)
        self.reading = nn.Linear(2 * width, width)
        self.near = nn.Sequential(
            nn.Conv1d(width + 3, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.look = nn.ModuleList(nn.Conv1d(2 * width, reader.variants, 1) for _ in reader.windows)
        self.answer_now = nn.Sequential(nn.Linear(2 * width + 2, width), nn.ReLU(), nn.Linear(width, 1))
        self.value = nn.Sequential(nn.Linear(2 * width + 4, width), nn.ReLU(), nn.Linear(width, 1))
        if reader.searches:
            self.search = nn.Sequential(nn.Linear(2 * width + 2, width), nn.ReLU(), nn.Linear(width, 1))

    @torch.no_grad()
    def described(self) -> dict[str, Any]:
        """What `of` makes it from, without its weights, in JSON values."""
        reader = self.reader
        shape = {"windows": list(reader.windows), "options": reader.options, "size": list(reader.size)}
        shape |= {"variants": reader.variants, "searches": reader.searches}
        return {"kind": "compact", "words": list(reader.vocabulary.words), "width": self.width, **shape}

    @classmethod
    def of(cls, described: Mapping[str, Any], store: FrameStore) -> CompactPolicy:
        """The policy of a description, with random weights."""
        vocabulary = Vocabulary(tuple(described["words"]))
        width, height = described["size"]
        windows = tuple(described["windows"])
        of_looks = {name: described[name] for name in ("variants", "searches") if name in described}
        reader = CompactReader(
            store, vocabulary, windows, described["options"], (width, height), **of_looks
        )
        return cls(reader, described["width"])

    def read(self, observation: Mapping[str, Any], earlier: TensorDictBase | None = None) -> TensorDict:
        """The context, and ``features``: (N, D) frames as the encoder sees them, each encoded once."""
        context = {
            name: torch.from_numpy(value) for name, value in self.reader.context(observation).items()
        }
        features, new = torch.zeros(len(context["mask"]), self.width), context["mask"]
        if earlier is not None:
            features, new = earlier["features"].clone(), new & ~earlier["mask"]
        if new.any():
            features[new] = self.encoder(torch.from_numpy(self.reader.pixels(observation, new.numpy())))
        return TensorDict({"features": features, **context})

    def forward(self, inputs: TensorDictBase) -> tuple[Tensor, Tensor]:
        """See `DiscretePolicy`."""
        return self.score(inputs["features"], *(inputs[name] for name in CONTEXT))

    def score(
        self,
        features: Tensor,
        mask: Tensor,
        cell: Tensor,
        looked: Tensor,
        question: Tensor,
        options: Tensor,
        turns_left: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Score all actions.

        Args:
            features: (B, N, D) frames as `encoder` gives them.
            mask: (B, N) bool, true where a frame was shown.
            cell: (B, N) int64, the part of the video each frame lies in.
            looked: (B, N) 1.0 where a frame was brought by a look, 0.0 for the skim.
            question: (B, L) int64 words.
            options: (B, O, L) int64 words.
            turns_left: (B, 1) float32.

        Returns:
            (B, W + O) logits and (B, 1) values.
        """
        shown = mask.unsqueeze(-1).float()
        gain, bias = self.film(self._meaning(question)).unsqueeze(-2).chunk(2, -1)
        matched = self.match(features * (1.0 + gain) + bias) * shown
        relevance = self.relevance(matched).squeeze(-1).masked_fill(~mask, -1e4)
        # The extra slot, of score 0, takes the attention when no frame answers the question.
        attention = F.pad(relevance, (0, 1)).softmax(-1)[..., :-1]
        seen = (attention.unsqueeze(-1) * torch.cat((matched, features), -1)).sum(-2)
        found = attention.sum(-1, keepdim=True)
        looks = self._look_scores(matched, relevance, shown, cell, looked)
        read = self.reading(seen).unsqueeze(-1) / math.sqrt(self.width)
        answers = (self._meaning(options) @ read).squeeze(-1)
        now = torch.cat((seen, found, turns_left), -1)
        answers = answers + self.answer_now(now)
        if self.reader.searches:
            looks = torch.cat((looks, self.search(now)), -1)
        # The critic reads what the actor found, and does not shape it.
        best = torch.stack((looks.amax(-1), answers.amax(-1)), -1)
        value = self.value(torch.cat((now, best), -1).detach())
        return torch.cat((looks, answers), -1), value

    def _meaning(self, words: Tensor) -> Tensor:
        """(..., L) words to (..., D): the sum of their embeddings.

        Not the mean: questions of a family differ in one word of many.
        """
        return self.words(words).sum(-2)

    def _look_scores(
        self, matched: Tensor, relevance: Tensor, shown: Tensor, cell: Tensor, looked: Tensor
    ) -> Tensor:
        """(B, W): every cell summarised by its frames, seen beside its neighbours, pooled to windows.

        All windows for the first set of arguments, then all for the second.
        """
        member = F.one_hot(cell, self.reader.cells).float() * shown
        count = member.sum(-2)
        mean = member.transpose(-1, -2) @ matched / count.clamp(min=1.0).unsqueeze(-1)
        best = (relevance.sigmoid().unsqueeze(-1) * member).amax(-2)
        was_looked = (looked.unsqueeze(-1) * member).amax(-2)
        rest = torch.stack((best, was_looked, count / 8.0), -1)
        summary = torch.cat((mean, rest), -1).transpose(-1, -2)
        cells = self.near(summary.reshape(-1, *summary.shape[-2:]))
        scores = []
        for windows, head in zip(self.reader.windows, self.look, strict=True):
            pools = (F.adaptive_max_pool1d(cells, windows), F.adaptive_avg_pool1d(cells, windows))
            scores.append(head(torch.cat(pools, 1)))
        return torch.cat(scores, -1).reshape(*count.shape[:-1], -1)


def stack_contexts(contexts: Sequence[Arrays]) -> tuple[Tensor, ...]:
    """A batch of contexts, in the order in which `CompactPolicy.score` takes them."""
    return tuple(torch.from_numpy(np.stack([context[name] for context in contexts])) for name in CONTEXT)
