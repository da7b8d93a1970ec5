"""Rollouts by the very model that is trained, in this process.

Between the turns of a conversation its keys and values stay, so that a turn computes its new tokens only;
equal contexts, as at the start of a group, are computed, kept and attended to once; a frame is encoded
once. Contexts are read by transformers, sampled tokens by `agents.models.decoding` where it knows the
family's layers. Positions are passed by hand: the state that Qwen's own ``generate`` keeps on the module
is never used.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import nn

from ..models.decoding import Decoder
from ..models.qwen_vl import QwenVL
from ..models.static_cache import Layers
from ..models.visuals import Visual
from .base import Context, EngineError, Output, Sampling
from .lockstep import Lockstep
from .reading import Known, Prompt, first, read

log = logging.getLogger(__name__)
KEPT_CONVERSATIONS = 256  # unless it is said


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was computed of a conversation."""

    ids: tuple[int, ...]  # collapsed
    visuals: tuple[Visual, ...]
    prompt: Prompt
    own: Layers  # behind the prompt


class TransformersEngine:
    """Samples with a model in this process.

    Args:
        model: that is trained; its weights are used as they are.
        conversations: of which keys and values are kept, the latest.
    """

    def __init__(self, model: QwenVL, conversations: int = KEPT_CONVERSATIONS) -> None:
        self.model, self.version = model, 0
        self._conversations, self._kept = conversations, dict[str, _Kept]()
        self._weights = model.changes()
        self._decoder, self._why_not = Decoder(model), ""

    def update_weights(self, model: nn.Module, version: int) -> None:
        """Take the weights as they are now for a new version.

        Raises:
            EngineError: it is not the model of this engine.
        """
        if model is not self.model.model:
            raise EngineError("a TransformersEngine samples with its own model; there is nothing to push")
        self._kept.clear()
        self._decoder.forget()
        self.version, self._weights = version, self.model.changes()

    def reset_cache(self) -> None:
        """Give back the keys and values of all conversations."""
        self._kept.clear()

    def close(self) -> None:
        """Forget all conversations."""
        self.reset_cache()

    @torch.no_grad()
    def generate(self, contexts: Sequence[Context], sampling: Sampling) -> list[Output]:
        """One output per context, in order.

        Raises:
            EngineError: weights were changed and not pushed, a context leaves no room for an output, or
                the model gives no probabilities.
            FrameMismatch: ids and visuals of a context contradict each other.
            videogym.video.VideoError: frames could not be shown.
        """
        if self.model.changes() != self._weights:
            raise EngineError(
                "the weights have changed since they were pushed; call push with a new version"
            )
        if not contexts:
            return []
        limits = [self._room(context, sampling) for context in contexts]
        known = [self._known(context) for context in contexts]
        batch = read(self.model, contexts, known, max(limits))
        written = Lockstep(self.model, self._ready_decoder(), batch, limits, sampling).write()
        outputs = []
        for context, prompt, one in zip(contexts, batch.prompts, written, strict=True):
            self._keep(context.key, _Kept((*context.ids, *one.ids[:-1]), context.visuals, prompt, one.own))
            outputs.append(Output(tuple(one.ids), tuple(one.log_probs), (self.version,) * len(one.ids)))
        return outputs

    def _room(self, context: Context, sampling: Sampling) -> int:
        length = self.model.length(context.ids, context.visuals)
        if length >= sampling.max_context:
            raise EngineError(
                f"the context {context.key!r} has {length} tokens and leaves no room in "
                f"{sampling.max_context}"
            )
        return min(sampling.max_new_tokens, sampling.max_context - length)

    def _ready_decoder(self) -> Decoder | None:
        """None where transformers has to read the sampled tokens."""
        why_not = self._decoder.why_not()
        if why_not and why_not != self._why_not:
            log.warning("transformers reads the sampled tokens, which takes longer: %s", why_not)
        self._why_not = why_not
        if why_not:
            return None
        self._decoder.refresh()
        return self._decoder

    # --- conversations -----------------------------------------------------------------------

    def _known(self, context: Context) -> Known:
        """What was computed of a context; at least one id is left to compute."""
        kept = self._kept.get(context.key)
        ids, visuals = self._common(context, kept) if kept else (0, 0)
        if kept is None or not ids:
            return Known()
        before = self.model.expand(context.ids[:ids], context.visuals[:visuals])
        prompt = kept.prompt.first(min(len(before.ids), kept.prompt.length))
        own = first(kept.own, len(before.ids) - prompt.length)
        return Known(ids, visuals, before.after, prompt, own)

    def _common(self, context: Context, kept: _Kept) -> tuple[int, int]:
        """How many ids and visuals of a context are those of a conversation, from the beginning."""
        pairs = zip(context.ids[:-1], kept.ids, strict=False)
        ids = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        starts = [place for place in range(ids) if context.ids[place] == self.model.vision_ids[0]]
        visuals = zip(context.visuals, kept.visuals, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], visuals))
        if same < len(starts):  # another frame was shown here: what follows it is not known
            return starts[same], same
        if starts and ids < starts[-1] + 3:
            return starts[-1], len(starts) - 1
        return ids, len(starts)

    def _keep(self, key: str, kept: _Kept) -> None:
        """Keep what was computed of a conversation, and no more than the latest ones."""
        self._kept.pop(key, None)
        self._kept[key] = kept
        for old in list(self._kept)[: max(0, len(self._kept) - self._conversations)]:
            del self._kept[old]
