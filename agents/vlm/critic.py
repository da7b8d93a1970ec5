"""Critics of a language model: a head on the policy's own hidden states, or a second model with a head.

A critic only reads: its error shapes no weight of the policy. A head that begins at zero is wrong by whole
returns at first, and errors of that size let into the policy make it forget in a few steps what it knew.
The second model, as in Video-MTR, learns what its head needs to see, and takes the memory of a policy.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..models.qwen_vl import QwenVL
from ..training.provenance import digest_of_weights
from ..training.sharding import fully_shard_head, unsharded_params
from .actor import ChatActor
from .config import ChatConfig
from .policy import make_model, shard_model, trainable_parameters
from .records import Record
from .scoring import MicroBatch, Scored, Scorer


class CriticError(ValueError):
    """The model of ``--critic-model`` cannot be loaded, or cannot read what the policy reads."""


@dataclass(frozen=True)
class Critic:
    """Values the sampled tokens of records.

    Args:
        head: (T, H) to (T, 1).
        scorer: reads what it values.
        model: its own, which is trained; None: the scorer's model is the policy's.
        began_with: digest of that model's first weights.
    """

    head: nn.Linear
    scorer: Scorer
    model: QwenVL | None = None
    began_with: str = ""

    def modules(self) -> dict[str, nn.Module]:
        """What is trained and belongs to a checkpoint, by name."""
        return {"critic": self.head} | ({} if self.model is None else {"critic_model": self.model})

    def parameters(self) -> list[nn.Parameter]:
        """The weights that are trained."""
        return [*self.head.parameters(), *(trainable_parameters(self.model) if self.model else ())]

    def __call__(self, scored: Scored) -> Tensor:
        """(T,) values; gradients end at the hidden states of a policy."""
        hidden = scored.hidden if self.model else scored.hidden.detach()
        return self.head(hidden.float())[:, 0]  # type: ignore[no-any-return]

    def values(self, records: Sequence[Record], size: int) -> list[Tensor]:
        """(T,) of every record, without gradients; see `Scorer.of_tokens`."""
        with unsharded_params(self.head):
            return self.scorer.of_tokens(records, size, self)

    def micro_batches(self, records: Sequence[Record], size: int) -> Iterator[MicroBatch]:
        """Those of its own model, see `Scorer.micro_batches`; none where it reads the policy's."""
        return self.scorer.micro_batches(records, size) if self.model else iter(())


def make_critic(config: ChatConfig, actor: ChatActor, model: str = "") -> Critic:
    """A critic that says 0 of everything at first; under torchrun each rank has its shards.

    Args:
        config: of the run.
        actor: the policy, which has not been sharded yet.
        model: its own, ``"copy"`` of the policy as it is now, or a checkpoint's folder or name; "": none,
            its head reads the policy's hidden states.

    Raises:
        CriticError: there is no such checkpoint, or it reads other ids or frames than the policy.
    """
    own = None if not model else _own_model(config, actor, model)
    reads = own or actor.model
    head = nn.Linear(reads.model.config.text_config.hidden_size, 1, device=config.model.device)
    nn.init.zeros_(head.weight)  # the first advantages are returns, not noise
    nn.init.zeros_(head.bias)
    fully_shard_head(head, config.model.device)
    if own is None:
        return Critic(head, actor.scorer)
    began_with, share = digest_of_weights(own), config.memory.share_prefixes
    return Critic(head, Scorer(shard_model(config, own), share=share, outputs=False), own, began_with)


def _own_model(config: ChatConfig, actor: ChatActor, model: str) -> QwenVL:
    """A model without its output layer, which nothing would train."""
    if model == "copy":
        own = copy.deepcopy(actor.model)
    else:
        try:
            own = make_model(config.with_options(checkpoint=model), actor.model.store)
        except (OSError, ValueError) as error:
            raise CriticError(f"--critic-model {model} is no model that can be loaded: {error}") from error
    ours, theirs = actor.model, own
    if theirs.tokenizer.get_vocab() != ours.tokenizer.get_vocab() or theirs.layout != ours.layout:
        raise CriticError(
            f"--critic-model: the critic {model} has another tokenizer, or other patches, than the policy"
        )
    own.model.lm_head = nn.Identity()
    return own
