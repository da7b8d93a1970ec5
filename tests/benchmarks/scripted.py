"""Episodes whose tokens are sampled at random while a script says what they mean: work without learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from agents.engines.base import Sampling
from agents.train_grpo_mllm import Config, grpo_loss, make_loss
from agents.training.groups import group_advantage
from agents.training.run import optimizer_step
from agents.vlm.actor import ChatActor
from agents.vlm.batch import RolloutBatch
from agents.vlm.env import ChatEnv
from agents.vlm.policy import trainable_parameters
from agents.vlm.records import Record


class ScriptedEnv(ChatEnv):
    """Episodes in which sampled tokens stand for what a script says, ``said`` turn by turn."""

    said: Sequence[str]

    def advance(self, record: Record) -> Record:
        """Play the script's words, keep the sampled tokens."""
        number = len(record.turns) - 1
        said = replace(record.turns[-1], output=tuple(self.chat.output_ids(self.said[number])))
        after = super().advance(replace(record, turns=(*record.turns[:-1], said)))
        kept = replace(after.turns[number], output=record.turns[-1].output)
        return replace(after, turns=(*after.turns[:number], kept, *after.turns[number + 1 :]))


class ScriptedActor(ChatActor):
    """An actor whose outputs have given ``lengths``, turn by turn."""

    lengths: Sequence[int]

    def answer(self, records: Sequence[Record], sampling: Sampling | None = None) -> list[Record]:
        """One output more, none of which ends by itself."""
        length = self.lengths[max(len(record.turns) for record in records) - 1]
        return super().answer(records, replace(self.sampling, max_new_tokens=length, end_id=-1))


def learn(
    config: Config, actor: ChatActor, records: Sequence[Record], optimizer: torch.optim.Optimizer
) -> None:
    """The update of `agents.train_grpo_mllm.train` on one minibatch, with returns that differ."""
    batch = RolloutBatch(records, actor.model)
    returns = torch.tensor([float(record.sample_index % 2) for record in records], dtype=torch.float64)
    batch.set_advantage(group_advantage(returns, config.group_size))
    loss_module, total = make_loss(config, actor.model.device), 0.0
    for micro in actor.scorer.micro_batches(batch.records, config.memory.micro_batch_size):
        loss, _ = grpo_loss(config, loss_module, batch.tensors(micro), micro)
        loss.backward()
        total += loss.item()
    optimizer_step(trainable_parameters(actor.model), optimizer, total, config.optimizer.max_grad_norm)
