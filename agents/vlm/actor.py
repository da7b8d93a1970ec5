"""A multimodal language model as a TorchRL policy: samples outputs, and scores them again in training.

`ChatActor` acts in `agents.vlm.env.ChatEnv` and is what `torchrl.objectives.llm.GRPOLoss` and its kin take
for an actor. Which engine samples and how a context is computed is known elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from tensordict import NonTensorData, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from videogym.video import VideoError

from ..engines.base import Context, Engine, Output, Sampling
from ..models.qwen_vl import QwenVL, left_padded
from ..models.visuals import Visual, resolve
from .records import Record
from .scoring import Scored, Scorer

log = logging.getLogger(__name__)


class SampledTokens:
    """What a loss asks of the distributions over conversations, at their sampled tokens only.

    Logits exist nowhere for all tokens: with a real vocabulary and a long context they would fill hundreds
    of gigabytes.

    Attributes:
        mask: (B, L) bool, true on sampled tokens; left-padded.
        hidden: (T, H) last hidden states before the sampled tokens, rows in order.
    """

    def __init__(self, tokens: Tensor, mask: Tensor, scored: Scored) -> None:
        self.mask, self.hidden = mask, scored.hidden
        self._tokens = tokens
        nothing = torch.zeros(mask.shape, dtype=scored.log_probs.dtype, device=mask.device)
        self._log_probs = nothing.masked_scatter(mask, scored.log_probs)
        self._entropies = nothing.masked_scatter(mask, scored.entropies)

    def log_prob(self, tokens: Tensor) -> Tensor:
        """(B, L) log-probabilities, 0 where nothing was sampled.

        Args:
            tokens: (B, L), left-padded; those under the mask must be the sampled ones.

        Raises:
            ValueError: they are not: only these were scored.
        """
        if tokens.shape != self.mask.shape or not torch.equal(tokens[self.mask], self._tokens):
            raise ValueError(
                f"tokens {tuple(tokens.shape)} are not the sampled ones {tuple(self.mask.shape)}, and only "
                "these were scored"
            )
        return self._log_probs

    def entropy(self) -> Tensor:
        """(B, L) entropies in nats before each sampled token, 0 elsewhere."""
        return self._entropies


class ChatActor(TensorDictModuleBase):
    """A model that acts in `ChatEnv` and is trained by TorchRL's losses for language models.

    `forward` samples one output for every row that is not waiting; `get_dist` scores whole conversations.
    Both see the same contexts, the same positions and the same logits.

    Args:
        model: that is trained.
        engine: that samples; its weights follow the model's by `push`.
        sampling: how.
        share: whether a group's common beginning goes through the model once when it is scored.
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

    def push(self) -> None:
        """Let the engine sample with the present weights."""
        self.version += 1
        self.engine.push(self.model.model, self.version)

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
            for key, value in loss_entries(record, self.model).items():
                row[key] = value
        return tensordict

    def answer(self, records: Sequence[Record], sampling: Sampling | None = None) -> list[Record]:
        """The records with one output more, those that wait as they are."""
        answered = list(records)
        asked = {place: context_of(record) for place, record in enumerate(records) if not record.waiting}
        outputs = self._sample(list(asked.values()), sampling or self.sampling)
        for place, output in zip(asked, outputs, strict=True):
            if isinstance(output, str):
                log.warning("task %s: %s", records[place].task_id, output)
                answered[place] = replace(records[place], cut=output)
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

    # --- scoring -----------------------------------------------------------------------------

    def get_dist(self, tensordict: TensorDictBase, **_: object) -> SampledTokens:
        """Distributions over the sampled tokens of whole conversations, given what was read before them.

        Raises:
            FrameMismatch: the ids and the visuals of a row contradict each other.
        """
        records: list[Record] = [row["record"] for row in tensordict.unbind(0)]
        scored = self.scorer(records)
        entries = [loss_entries(record, self.model) for record in records]
        mask = left_padded([entry["masks", "all_assistant_mask"] for entry in entries])
        tokens = left_padded([entry["tokens", "full"] for entry in entries])
        device = scored.log_probs.device
        return SampledTokens(tokens[mask].to(device), mask.to(device), scored)

    # By these names `GRPOLoss` asks for what it shall train: only sampled tokens, whatever its strategy.
    _get_rlhf_dist = _get_sft_dist = _get_generic_dist = get_dist


def context_of(record: Record) -> Context:
    """What a policy reads now."""
    ids, visuals = record.context(len(record.turns) - 1)
    return Context(f"{record.group}/{record.number}", ids, visuals)


def loss_entries(record: Record, model: QwenVL) -> dict[tuple[str, str], Tensor]:
    """The whole conversation as TorchRL's losses read it.

    Returns:
        ``("tokens", "full")`` (L,) int64 with a placeholder per merged patch, ``("masks",
        "all_assistant_mask")`` (L,) bool, true on sampled ids, ``("masks", "all_attention_mask")`` (L,)
        bool, all true, ``("log_probs", "full")`` (L,) float32, 0 where nothing was sampled.
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
    return {
        ("tokens", "full"): expanded.ids,
        ("masks", "all_assistant_mask"): mask,
        ("masks", "all_attention_mask"): torch.ones_like(mask),
        ("log_probs", "full"): spread,
    }
