"""Rollouts as a loss reads them: the tensors of every conversation, made once.

A conversation is laid out whole, (L,), with its sampled tokens under a mask. What is known of sampled
tokens only, advantages or values, is kept by rollout, (T,), and spread out under the mask where a loss is
asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from videogym import Term
from videogym.rewards import finite

from ..models.padding import left_padded
from ..models.qwen_vl import QwenVL
from ..training.losses import SCORED
from ..training.releveling import TurnRewards
from .actor import loss_entries
from .records import Record, TurnRecord
from .scoring import MicroBatch
from .structure import structural_tokens

OF_LOSS = ("tokens", "mask", "log_probs", "advantage", "reference")
NO_CONTRAST = 1e-6  # an advantage as small as this is rounding, which comes to 1e-10 at most in float64


class RolloutBatch:
    """Whole rollouts, N of them, and what is learned from each.

    Args:
        records: whole rollouts.
        model: lays their conversations out.

    Attributes:
        records: as given.
        rows: of each rollout ``tokens`` (L,) int64, ``mask`` (L,) bool, true on sampled tokens,
        ``log_probs`` (L,) float32 when they were sampled, and what was set of its sampled tokens, (T,).
    """

    def __init__(self, records: Sequence[Record], model: QwenVL) -> None:
        self.records = list(records)
        self.rows = [loss_entries(record, model) for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def _take(self, chosen: Sequence[bool]) -> RolloutBatch:
        part = RolloutBatch.__new__(RolloutBatch)
        part.records = list(compress(self.records, chosen))
        part.rows = list(compress(self.rows, chosen))
        return part

    def __add__(self, other: RolloutBatch) -> RolloutBatch:
        """Both, one after the other."""
        both = self._take([True] * len(self))
        both.records += other.records
        both.rows += other.rows
        return both

    def first(self, count: int) -> RolloutBatch:
        """So many rollouts at most."""
        return self._take([place < count for place in range(len(self))])

    def split(self, size: int) -> Iterator[RolloutBatch]:
        """Minibatches of so many rollouts at most, in order."""
        for first in range(0, len(self), size):
            yield self._take([first <= place < first + size for place in range(len(self))])

    @property
    def returns(self) -> Tensor:
        """(N,) float64; in float32 the mean of equal returns differs from them, and noise is trained on.

        Raises:
            RewardError: one is not finite.
        """
        paid = [finite(one.total_reward, f"the reward of task {one.task_id!r}") for one in self.records]
        return torch.tensor(paid, dtype=torch.float64)

    def set(self, name: str, values: Sequence[Tensor]) -> None:
        """Keep something of the sampled tokens of every rollout, (T,) each."""
        for row, value in zip(self.rows, values, strict=True):
            row[name] = value

    def set_advantage(self, values: Tensor) -> None:
        """Give all sampled tokens of a rollout its advantage, (N,)."""
        counts = [int(row["mask"].sum()) for row in self.rows]
        self.set("advantage", [one.expand(n) for one, n in zip(values.float(), counts, strict=True)])

    def set_turn_advantage(self, values: Tensor) -> None:
        """Give all sampled tokens of a turn its advantage, (N, K); rollouts may have fewer turns."""
        rows = []
        for record, row in zip(self.records, values.float(), strict=True):
            counts = torch.tensor([len(turn.output) for turn in record.played])
            rows.append(row[: len(counts)].repeat_interleave(counts))
        self.set("advantage", rows)

    def structure(self, tags: Sequence[str], model: QwenVL) -> list[Tensor]:
        """(T,) bool by rollout: its sampled tokens that are structure, see `agents.vlm.structure`."""

        def of(turn: TurnRecord) -> Tensor:
            return structural_tokens(turn.output, model.tokenizer, model.end_id, tags)

        return [torch.cat([of(turn) for turn in record.played]) for record in self.records]

    def get(self, name: str) -> list[Tensor]:
        """By rollout."""
        return [row[name] for row in self.rows]

    def with_contrast(self, group_size: int) -> RolloutBatch:
        """The groups in which advantages differ from 0 at all."""
        differs = [bool(value.abs().max() > NO_CONTRAST) for value in self.get("advantage")]
        groups = [any(differs[first : first + group_size]) for first in range(0, len(self), group_size)]
        return self._take([kept for kept in groups for _ in range(group_size)])

    def tensors(self, micro: MicroBatch) -> TensorDict:
        """What TorchRL's `GRPOLoss` reads of a micro-batch, (B, L), left-padded, where the model is.

        Returns:
            ``("tokens", "full")``, ``("masks", "all_assistant_mask")``, ``("log_probs", "full")``,
            ``"advantage"`` (B, L, 1), ``"reference"`` (B, L) where it is known, and the present
            log-probabilities and entropies, `SCORED`.
        """
        rows = self.rows[micro.place]
        known = [name for name in OF_LOSS if name in rows[0]]
        columns = {name: left_padded([_spread(row, name) for row in rows]) for name in known}
        device = micro.scored.log_probs.device
        mask = columns["mask"].to(device)
        nothing = torch.zeros(mask.shape, dtype=micro.scored.log_probs.dtype, device=device)
        batch = TensorDict(
            {
                ("tokens", "full"): columns["tokens"],
                ("masks", "all_assistant_mask"): mask,
                ("log_probs", "full"): columns["log_probs"],
                "advantage": columns["advantage"][..., None],
                (SCORED, "log_probs"): nothing.masked_scatter(mask, micro.scored.log_probs),
                (SCORED, "entropies"): nothing.masked_scatter(mask, micro.scored.entropies),
            },
            [len(rows)],
            device=device,
        )
        return batch.set("reference", columns["reference"]) if "reference" in columns else batch


def _spread(row: dict[str, Tensor], name: str) -> Tensor:
    """(L,) of a conversation, 0 where nothing was sampled."""
    if name in ("tokens", "mask", "log_probs"):
        return row[name]
    return torch.zeros(len(row["mask"])).masked_scatter(row["mask"], row[name])


def complete_groups(records: Sequence[Record]) -> list[Record]:
    """Rollouts of the groups in which none was cut from outside."""
    cut = {record.group for record in records if record.abort_reason}
    return [record for record in records if record.group not in cut]


def needing_looks(records: Sequence[Record], group_size: int, most: float) -> list[Record]:
    """Rollouts of the groups whose prompts are not answered without a look.

    ParaVT names the reason: where the first frames are enough, calling and not calling are paid alike, and
    calls die out. It shows fewer first frames instead.

    Args:
        records: rollouts of whole groups, one after the other.
        group_size: rollouts of a group.
        most: share of a group, from 0 to 1, that may be right without a single look; 1 leaves out none.
    """
    kept: list[Record] = []
    for first in range(0, len(records), group_size):
        group = records[first : first + group_size]
        unseen = [one for one in group if one.success and not any(turn.looked for turn in one.played)]
        if len(unseen) / group_size <= most:
            kept += group
    return kept


def turn_payments(
    terms: Sequence[Term], records: Sequence[Record], without: str = ""
) -> tuple[Tensor, Tensor]:
    """What every turn was worth in the end, (N, K) float64, and which turns there are, bool.

    In float32 payments of one sum would differ by their order, and noise would be trained on.

    Args:
        terms: the recipe's.
        records: whole rollouts, at least one.
        without: name of a term that is left out, as if it had paid nothing.
    """
    turns = rewards_of_turns(records, torch.float64)
    if without:
        turns["next", "terms"].del_(without)
    turns = TurnRewards([term for term in terms if term.name != without])(turns)
    return turns["next", "reward"][..., 0], ~turns["waiting"][..., 0]


def rewards_of_turns(records: Sequence[Record], dtype: torch.dtype = torch.float32) -> TensorDictBase:
    """Whole episodes as `agents.training.releveling` reads them, (B, K).

    Args:
        records: whole rollouts, at least one.
        dtype: of rewards and terms.

    Raises:
        ValueError: an episode was cut: its gate was never settled.
    """
    if any(record.abort_reason for record in records):
        raise ValueError("episodes that were cut from outside have no settled rewards")
    played = [record.played for record in records]
    most = max(len(row) for row in played)

    def table(values: Sequence[Sequence[float]], dtype: torch.dtype, missing: float) -> Tensor:
        rows = [[*row, *[missing] * (most - len(row))] for row in values]
        return torch.tensor(rows, dtype=dtype)[..., None]

    last = [[turn is row[-1] for turn in row] for row in played]
    success = [[float(bool(record.success))] * len(record.played) for record in records]
    terms = {
        name: table([[_number(turn.terms[name]) for turn in row] for row in played], dtype, torch.nan)
        for name in played[0][0].terms
    }
    after = {
        "reward": table([[turn.reward for turn in row] for row in played], dtype, 0.0),
        "terminated": table(last, torch.bool, False),
        "is_success": table(success, torch.float32, 0.0),
        "looked": table([[turn.looked for turn in row] for row in played], torch.bool, False),
        "terms": TensorDict(terms, (len(records), most)),
    }
    waiting = table([[False] * len(row) for row in played], torch.bool, True)
    return TensorDict(
        {"waiting": waiting, "next": TensorDict(after, (len(records), most))}, (len(records), most)
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
