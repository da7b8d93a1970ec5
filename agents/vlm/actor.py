"""A multimodal language model as a TorchRL policy: samples outputs in `agents.vlm.env.ChatEnv`.

Which engine samples and how a context is computed is known elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from tensordict import NonTensorData, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from videogym.video import VideoError

from ..engines.base import Context, Engine, Output, Sampling
from ..engines.shared_servers import SharedServers
from ..models.qwen_vl import QwenVL
from ..models.visuals import Visual, resolve
from ..training.sharding import unsharded_params
from .records import Record
from .scoring import Scorer

log = logging.getLogger(__name__)


class ChatActor(TensorDictModuleBase):
    """A model that acts in `ChatEnv`, and whose outputs are scored in training.

    `forward` samples one output for every row that is not waiting; `scorer` scores whole conversations.
    Both see the same contexts, the same positions and the same logits.

    Args:
        model: that is trained.
        engine: that samples; its weights follow the model's by `update_weights`.
        sampling: how.
        share: whether a group's common prefix goes through the model once when it is scored.
    """

    def __init__(self, model: QwenVL, engine: Engine, sampling: Sampling, share: bool = True) -> None:
        super().__init__()
        self.in_keys = ["record", "waiting"]
        self.out_keys = [
            "record",
            ("tokens", "full"),
            ("masks", "all_assistant_mask"),
            ("masks", "all_attention_mask"),
            ("log_probs", "full"),
        ]
        self.model, self.sampling = model, sampling
        self.engine = engine
        self.scorer = Scorer(model, sampling.temperature, share)
        self.version = 0

    def update_weights(self) -> None:
        """Let the engine sample with the present weights."""
        self.version += 1
        self.engine.update_weights(self.model.model, self.version)

    def gathered(self) -> AbstractContextManager[None]:
        """All weights in every rank, for as long as the model itself samples."""
        return nullcontext() if isinstance(self.engine, SharedServers) else unsharded_params(self.model)

    # --- acting ------------------------------------------------------------------------------

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Sample one output per row and write the conversation with it.

        A row whose frames cannot be shown is cut, with the fault in its record; the others go on.

        Raises:
            FrameMismatch: ids and visuals of a row contradict each other.
            EngineError: the engine failed.
        """
        rows = list(tensordict.unbind(0)) if tensordict.batch_dims else [tensordict]
        for row, record in zip(rows, self.answer([row["record"] for row in rows]), strict=True):
            row["record"] = NonTensorData(record)
            entries = loss_entries(record, self.model)
            row["tokens", "full"] = entries["tokens"]
            row["masks", "all_assistant_mask"] = entries["mask"]
            row["masks", "all_attention_mask"] = torch.ones_like(entries["mask"])
            row["log_probs", "full"] = entries["log_probs"]
        return tensordict

    def answer(self, records: Sequence[Record], sampling: Sampling | None = None) -> list[Record]:
        """The records with one output more, those that wait as they are."""
        answered = list(records)
        asked = {place: context_of(record) for place, record in enumerate(records) if not record.done}
        outputs = self._sample(list(asked.values()), sampling or self.sampling)
        for place, output in zip(asked, outputs, strict=True):
            if isinstance(output, str):
                log.warning("task %s: %s", records[place].task_id, output)
                answered[place] = replace(records[place], abort_reason=output)
            else:
                answered[place] = records[place].answered(output.ids, output.log_probs, output.versions)
        return answered

    def _sample(self, contexts: Sequence[Context], sampling: Sampling) -> list[Output | str]:
        """Outputs, or what was wrong with the frames of a context."""
        try:
            return list(self.engine.generate(contexts, sampling))
        except VideoError:
            faults = [self._fault(context) for context in contexts]
            sound = [context for context, fault in zip(contexts, faults, strict=True) if not fault]
            outputs = iter(self.engine.generate(sound, sampling))
            return [fault or next(outputs) for fault in faults]

    def _fault(self, context: Context) -> str:
        """What is wrong with the frames of a context, "" if nothing is."""
        try:
            resolve(self.model.store, context.visuals)
        except VideoError as error:
            return f"fault: {error}"
        return ""


def context_of(record: Record) -> Context:
    """What a policy reads now."""
    ids, visuals = record.context(len(record.turns) - 1)
    return Context(f"{record.group}/{record.sample_index}", ids, visuals)


def loss_entries(record: Record, model: QwenVL) -> dict[str, Tensor]:
    """The whole conversation as a loss reads it.

    Returns:
        ``tokens`` (L,) int64 with a placeholder per merged patch, ``mask`` (L,) bool, true on sampled ids,
        ``log_probs`` (L,) float32, 0 where nothing was sampled.
    """
    ids = list(record.head)
    visuals: list[Visual] = []
    sampled, log_probs = [False] * len(ids), [0.0] * len(ids)
    for turn in record.turns:
        ids += [*turn.observation, *turn.output]
        visuals += turn.visuals
        sampled += [False] * len(turn.observation) + [True] * len(turn.output)
        log_probs += [0.0] * len(turn.observation) + list(turn.log_probs)
    expanded = model.expand(ids, visuals)
    mask = torch.zeros(len(expanded.ids), dtype=torch.bool)
    mask[expanded.places] = torch.tensor(sampled)
    spread = torch.zeros(len(expanded.ids))
    spread[expanded.places] = torch.tensor(log_probs)
    return {"tokens": expanded.ids, "mask": mask, "log_probs": spread}
