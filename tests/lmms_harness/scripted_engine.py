"""Engines without a model, in place of `TransformersEngine`: one has made up its mind, one dies."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agents.engines.base import Context, EngineError, Output, Sampling
from agents.models.qwen_vl import QwenVL

SHAPES = ("{}", "({})", "{}.", "{})")


class Scripted:
    """An engine whose model has made up its mind: a letter by the scene's number, in several shapes."""

    def __init__(self, model: QwenVL) -> None:
        self.tokenizer = model.tokenizer

    def generate(self, contexts: Sequence[Context], sampling: Sampling) -> list[Output]:
        """What it says to each."""
        return [self._said(context, sampling) for context in contexts]

    def _said(self, context: Context, sampling: Sampling) -> Output:
        found = re.search(r"scene (\d+)", self.tokenizer.decode(context.ids))
        assert found
        number = int(found[1])
        answer = SHAPES[number % len(SHAPES)].format("ABCD"[number * 3 // 2 % 4])
        said = f"<think>It is not A, and not D.</think><answer>{answer}</answer>"
        ids = self.tokenizer.encode(said, add_special_tokens=False, split_special_tokens=True)
        ids.append(sampling.end_id)
        return Output(tuple(ids), (0.0,) * len(ids), (0,) * len(ids))

    def update_weights(self, *_: object) -> None:
        """It has none."""

    def reset_cache(self) -> None:
        """It has none."""

    def close(self) -> None:
        """It holds nothing."""


class Dying(Scripted):
    """The same behind a server that is gone after two answers, once."""

    left = 2

    def generate(self, contexts: Sequence[Context], sampling: Sampling) -> list[Output]:
        """What it says to each, until it is gone."""
        if Dying.left == 0:
            Dying.left = 1000  # it is back at the next run
            raise EngineError("http://127.0.0.1:8000 does not answer: connection refused")
        Dying.left -= 1
        return super().generate(contexts, sampling)
