"""A small policy without a language model: looks at a window of the video, or answers an option.

It acts in `videogym.DiscreteActions` environments. `CompactReader` turns an observation into a few
arrays: words into numbers by a vocabulary, references into small pixels through a frame store.
`CompactNet` matches every shown frame with the question, scores windows by what was seen in and near
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
from torch import Tensor, nn
from torch.nn import functional as F

from videogym import FrameStore

MAX_WORDS = 24  # of a question or an option; further ones are not read
CONTEXT = (
    "mask",
    "window",
    "looked",
    "question",
    "options",
    "turns_left",
)  # what `CompactNet` reads beside frames

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
    """Reads observations of a `videogym.DiscreteActions` environment whose recipe has a pool."""

    store: FrameStore
    vocabulary: Vocabulary
    windows: int  # as the environment's
    options: int  # as the environment's
    size: tuple[int, int] = (32, 24)  # (width, height) at which frames are resolved; the aspect is not kept

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
        """All of `CONTEXT`, see `CompactNet.forward`, without a batch dimension."""
        options = np.zeros((self.options, MAX_WORDS), np.int64)
        for row, line in zip(options, observation["options"].split("\n"), strict=False):
            row[:] = self.vocabulary.ids(line.partition(". ")[2])  # without the letter
        return {
            "mask": observation["shown_mask"].astype(np.bool_),
            "window": self._windows_of(observation),
            "looked": (observation["shown_turns"] > 0).astype(np.float32),
            "question": self.vocabulary.ids(observation["question"]),
            "options": options,
            "turns_left": observation["turns_left"].astype(np.float32),
        }

    def _windows_of(self, observation: Mapping[str, Any]) -> NDArray[np.int64]:
        """(N,) the window each shown frame lies in, cut as `videogym.DiscreteActions` does."""
        pool = observation["pool_times_s"][observation["pool_mask"].astype(np.bool_)]
        cuts = np.linspace(0, len(pool), self.windows + 1).astype(np.int64)
        return np.searchsorted(
            cuts[1:-1], np.searchsorted(pool, observation["shown_times_s"]), side="right"
        )


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


class CompactNet(nn.Module):
    """From encoded frames, words and turns to logits of all actions and a value.

    B is any batch shape, N the most frames an episode can show, L words, W windows, O options and D
    the width. Frames that are masked out have no influence.

    Args:
        vocabulary_size: length of the vocabulary.
        windows: W.
        size: ``(width, height)`` of frames.
        width: D.
    """

    def __init__(self, vocabulary_size: int, windows: int, size: tuple[int, int], width: int = 64) -> None:
        super().__init__()
        self.windows, self.width = windows, width
        self.encoder = FrameEncoder(size, width)
        self.words = nn.Embedding(vocabulary_size, width, padding_idx=0)
        self.film = nn.Linear(width, 2 * width)
        self.match = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.relevance = nn.Linear(width, 1)
        self.reading = nn.Linear(2 * width, width)
        self.near = nn.Sequential(
            nn.Conv1d(width + 3, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(width, 1, 1),
        )
        self.answer_now = nn.Sequential(nn.Linear(2 * width + 2, width), nn.ReLU(), nn.Linear(width, 1))
        self.value = nn.Sequential(nn.Linear(2 * width + 4, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(
        self,
        features: Tensor,
        mask: Tensor,
        window: Tensor,
        looked: Tensor,
        question: Tensor,
        options: Tensor,
        turns_left: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Score all actions.

        Args:
            features: (B, N, D) frames as `encoder` gives them.
            mask: (B, N) bool, true where a frame was shown.
            window: (B, N) int64, the window each frame lies in.
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
        looks = self._look_scores(matched, relevance, shown, window, looked)
        read = self.reading(seen).unsqueeze(-1) / math.sqrt(self.width)
        answers = (self._meaning(options) @ read).squeeze(-1)
        answers = answers + self.answer_now(torch.cat((seen, found, turns_left), -1))
        # The critic reads what the actor found, and does not shape it.
        best = torch.stack((looks.amax(-1), answers.amax(-1)), -1)
        value = self.value(torch.cat((seen, found, turns_left, best), -1).detach())
        return torch.cat((looks, answers), -1), value

    def _meaning(self, words: Tensor) -> Tensor:
        """(..., L) words to (..., D): the sum of their embeddings.

        Not the mean: questions of a family differ in one word of many.
        """
        return self.words(words).sum(-2)

    def _look_scores(
        self, matched: Tensor, relevance: Tensor, shown: Tensor, window: Tensor, looked: Tensor
    ) -> Tensor:
        """(B, W): every window summarised by its frames, then seen beside its neighbours."""
        member = F.one_hot(window, self.windows).float() * shown
        count = member.sum(-2)
        mean = member.transpose(-1, -2) @ matched / count.clamp(min=1.0).unsqueeze(-1)
        best = (relevance.sigmoid().unsqueeze(-1) * member).amax(-2)
        was_looked = (looked.unsqueeze(-1) * member).amax(-2)
        rest = torch.stack((best, was_looked, count / 8.0), -1)
        summary = torch.cat((mean, rest), -1).transpose(-1, -2)
        return self.near(summary.reshape(-1, *summary.shape[-2:])).reshape(*count.shape)


class CompactPolicy:
    """The policy as `videogym.evaluate` calls it: the likeliest action, or a drawn one.

    Args:
        net: trained weights.
        reader: reads observations, through a frame store that knows the videos.
        generator: draws actions by their odds; None takes the likeliest.
    """

    def __init__(
        self, net: CompactNet, reader: CompactReader, generator: torch.Generator | None = None
    ) -> None:
        self.net, self.reader, self.generator = net, reader, generator

    @torch.no_grad()
    def __call__(self, observation: Mapping[str, Any], info: Mapping[str, Any]) -> int:
        """An action of `videogym.DiscreteActions`."""
        context = stack_contexts([self.reader.context(observation)])
        shown = observation["shown_mask"].astype(np.bool_)
        features = torch.zeros(1, len(shown), self.net.width)
        features[0, shown] = self.net.encoder(torch.from_numpy(self.reader.pixels(observation, shown)))
        logits, _ = self.net(features, *context)
        if self.generator is None:
            return int(logits.argmax())
        return int(torch.multinomial(logits[0].softmax(-1), 1, generator=self.generator))


def stack_contexts(contexts: Sequence[Arrays]) -> tuple[Tensor, ...]:
    """A batch of contexts, in the order in which `CompactNet.forward` takes them."""
    return tuple(torch.from_numpy(np.stack([context[name] for context in contexts])) for name in CONTEXT)
