"""Several vLLM servers as one engine, which the ranks of torchrun share.

The first rank assembles the weights, writes them to one file and has every server read it, under one
version; each rank samples from servers of its own, or shares one where there are fewer than ranks. Ranks
sample without waiting for each other. What goes wrong in one of them all learn within seconds.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..models.checkpoints import full_weights
from ..models.visuals import FrameReader, PatchLayout
from ..training.ranks import Alarm, all_gather_object, broadcast_from_rank0, is_first, rank, size, together
from .base import Context, EngineError, Output, Sampling
from .vllm_http import HTTPEngine
from .weight_files import WeightFiles


class SharedServers:
    """Samples from vLLM servers; under torchrun all ranks make it, push and close together.

    Args:
        urls: of the servers, the same on all ranks, all of one checkpoint.
        store: resolves frames.
        layout: how the model's family cuts frames.
        transfer_folder: see `HTTPEngine`.
        transfer_dtype: see `HTTPEngine`.
        settings: further ones of every `HTTPEngine`.

    Raises:
        EngineError: a server is out of reach of the first rank or of a rank that samples from it, of an
            untested version, or of another checkpoint than the first.
        ValueError: a URL is not one of HTTP, is there twice, or ranks have different ones.
    """

    def __init__(
        self,
        urls: Sequence[str],
        store: FrameReader,
        layout: PatchLayout,
        *,
        transfer_folder: str | Path | None = None,
        transfer_dtype: torch.dtype | None = None,
        **settings: Any,
    ) -> None:
        urls = [url.rstrip("/") for url in urls]
        if len(set(urls)) < len(urls):
            raise ValueError(f"a server is there twice: {', '.join(urls)}")
        for number, theirs in enumerate(all_gather_object(urls)):
            if theirs != urls:
                raise ValueError(f"ranks have different servers: {urls}, rank {number} {theirs}")
        self._alarm, self._files = Alarm(), WeightFiles(transfer_folder)
        self._transfer_dtype = transfer_dtype
        self._unusable = ""
        self._home: dict[str, int] = {}  # of a conversation: the server that knows its beginning
        self._engines: list[HTTPEngine] = []
        sender = broadcast_from_rank0(lambda: f"{secrets.token_hex(4)}-")

        def connect() -> None:
            for url in urls if is_first() else _own(urls):
                engine = HTTPEngine(url, store, layout, sender=sender, watch=self._listen, **settings)
                self._engines.append(engine)
            if is_first() and len(urls) > 1:
                _require_one_checkpoint(self._engines)

        try:
            together(connect, (EngineError, ValueError))
        except (EngineError, ValueError):
            self.close()
            raise
        self._mine = [engine for engine in self._engines if engine.url in _own(urls)]

    def generate(self, contexts: Sequence[Context], sampling: Sampling) -> list[Output]:
        """One output per context, in order; a conversation stays with the server that knows its beginning.

        Raises:
            EngineError: a server failed this rank or another one; none samples until a push succeeds.
            RankDied: another rank is no more.
            ValueError: a context cannot be served.
        """
        if self._unusable:
            raise EngineError(self._unusable)
        self._listen()
        new = [context.key for context in contexts if context.key not in self._home]
        # Neighbours begin alike; those that come one by one go to whom has the fewest.
        held = Counter(self._home.values())
        order = sorted(range(len(self._mine)), key=lambda number: held[number])
        for place, key in enumerate(new):
            self._home[key] = order[place * len(order) // len(new)]
        places = [self._home[context.key] for context in contexts]
        shares = [
            [context for context, place in zip(contexts, places, strict=True) if place == number]
            for number in range(len(self._mine))
        ]

        def ask(engine: HTTPEngine, some: Sequence[Context]) -> list[Output]:
            try:
                return engine.generate(some, sampling)
            except EngineError as error:
                self._alarm.tell(str(error))
                raise

        answers = [iter(outputs) for outputs in self._at_once(ask, shares)]
        return [next(answers[place]) for place in places]

    def _at_once(
        self, ask: Callable[[HTTPEngine, Sequence[Context]], list[Output]], shares: Sequence[list[Context]]
    ) -> list[list[Output]]:
        if len(shares) == 1:
            return [ask(self._mine[0], shares[0])]
        with ThreadPoolExecutor(len(shares)) as pool:
            try:
                return list(pool.map(ask, self._mine, shares))
            except KeyboardInterrupt:
                self._alarm.tell("interrupted")  # which the threads hear
                raise

    def update_weights(self, model: nn.Module, version: int) -> None:
        """Give all servers these weights under this version; all ranks call it, with nothing in flight.

        What failed before is over then, and a server that was started again serves.

        Raises:
            EngineError: a server did not take them; none samples for any rank until a push succeeds.
            OSError: they cannot be written, as on a full disk; servers have the ones before.
            ValueError: the model is wrapped.
        """
        weights = full_weights(model, self._transfer_dtype)

        def push() -> None:
            if not is_first():
                return
            with self._files.written(weights) as path:
                for engine in self._engines:
                    engine.load_weights(path, version)

        self._alarm.end()
        try:
            together(push, (EngineError, OSError))
        except EngineError as error:
            self._unusable = f"the weights of version {version} did not reach all servers: {error}"
            raise
        self._unusable = ""
        for engine in self._mine:
            engine.expect(version)

    def reset_cache(self) -> None:
        """Forget which server knows which conversation; the servers give room by themselves."""
        self._home.clear()

    def close(self) -> None:
        """Give back threads and the weights' folder; the servers stay."""
        for engine in self._engines:
            engine.close()
        self._files.close()

    def _listen(self) -> None:
        if why := self._alarm.heard():
            raise EngineError(why)


def _own(urls: Sequence[str]) -> list[str]:
    """Those that this rank samples from: its share, or one that it shares."""
    return list(urls[rank() :: size()]) or [urls[rank() % len(urls)]]


def _require_one_checkpoint(engines: Sequence[HTTPEngine]) -> None:
    """Refuse servers that were started with different checkpoints.

    Raises:
        EngineError: two of them were.
    """
    served = {engine.url: engine.served_checkpoint() for engine in engines}
    if len(set(served.values())) > 1:
        told = ", ".join(f"{url} has {name}" for url, name in served.items())
        raise EngineError(f"servers of different checkpoints cannot be shared: {told}; start all with one")
